//! The method table: one line a method.

use crate::{
    ops::{network, node, pool, task, template, vm, volume},
    rpc::Table,
};

/// All methods of the API.
pub fn table() -> Table {
    Table::default()
        .work(vm::create::create)
        .work(vm::power::start)
        .work(vm::power::stop)
        .work(vm::power::reboot)
        .work(vm::power::pause)
        .work(vm::power::resume)
        .work(vm::delete::delete)
        .read(vm::list::list)
        .read(vm::describe::describe)
        .read(vm::describe::describe_xml)
        .read(node::list)
        .read(node::describe)
        .read(pool::list)
        .read(pool::describe)
        .read(network::list)
        .read(network::describe)
        .read(volume::list)
        .read(volume::describe)
        .work(template::register)
        .read(template::list)
        .read(template::describe)
        .work(template::delete)
        .read(task::list)
        .read(task::describe)
}
