//! Nodes.

use super::page;
use crate::{App, Context, Result, admission, config::NodeSettings};
use api::{
    Page, Time,
    node::{self, DescribeNode, ListNodes, NodeState, Nodes, VirtType},
};
use hypervisor::{Node, Status};

/// `list-nodes`
pub async fn list(context: Context, request: ListNodes) -> Result<Nodes> {
    let rows = context.app.nodes.values().map(|node| to_wire(&context.app, node)).collect();
    let page = Page { limit: request.limit, cursor: request.cursor };
    let cut = page::cut(rows, &page, |node| node.name.clone())?;
    Ok(Nodes { nodes: cut.rows, next_cursor: cut.next_cursor, total: cut.total })
}

/// `describe-node`
pub async fn describe(context: Context, request: DescribeNode) -> Result<node::Node> {
    Ok(to_wire(&context.app, context.app.node(&request.node)?))
}

fn to_wire(app: &App, node: &Node) -> node::Node {
    let defaults = NodeSettings::at("");
    let settings = app.config.nodes.get(node.name()).unwrap_or(&defaults);
    let (status, since) = node.status();
    let facts = node.facts();
    let room = admission::room(app, node).ok();
    let mut vms = 0;
    app.index.each(|_, entry, _| vms += u64::from(entry.node == node.name()));
    let (state, error) = match status {
        Status::Connecting => (NodeState::Connecting, None),
        Status::Up => (NodeState::Up, None),
        Status::Down(reason) => (NodeState::Down, Some(reason)),
    };
    node::Node {
        id: facts.as_ref().map(|facts| facts.host_uuid),
        name: node.name().to_owned(),
        uri: node.uri(),
        state,
        error,
        since: Time(Time::now().0 - i64::try_from(since.elapsed().as_millis()).unwrap_or(0)),
        hostname: facts.as_ref().map(|facts| facts.hostname.clone()),
        libvirt_version: facts.as_ref().map(|facts| version(facts.libvirt_version)),
        qemu_version: facts.as_ref().map(|facts| version(facts.qemu_version)),
        arch: facts.as_ref().map(|facts| facts.arch.clone()),
        virt_type: facts.as_ref().map(|facts| match facts.virt_type {
            hypervisor::VirtType::Kvm => VirtType::Kvm,
            hypervisor::VirtType::Qemu => VirtType::Qemu,
        }),
        cpus: facts.as_ref().map(|facts| facts.cpus),
        memory_mib: facts.as_ref().map(|facts| facts.memory_mib),
        cpu_overcommit: settings.cpu_overcommit,
        memory_overcommit: settings.memory_overcommit,
        reserved_memory_mib: settings.reserved_memory_mib,
        used_vcpus: room.map_or(0, |room| room.used_vcpus),
        used_memory_mib: room.map_or(0, |room| room.used_memory_mib),
        free_vcpus: room.map(|room| room.free_vcpus),
        free_memory_mib: room.map(|room| room.free_memory_mib),
        vms,
        observed_at: app.index.node(node.name()).scanned_at,
    }
}

/// libvirt's numbers as people write them: 9000000 is 9.0.0.
fn version(number: u64) -> String {
    format!("{}.{}.{}", number / 1_000_000, number / 1_000 % 1_000, number % 1_000)
}
