//! Giving a VM another network interface.

use super::reply;
use crate::{
    Context, Error, Result, interfaces, observe,
    ops::vm::{self, nics},
    task::{Outline, Undo, Work},
};
use api::{
    Rpc,
    nic::{AttachNetwork, Link, NicOfVm},
    vm::NicSpec,
};

/// `attach-network`
pub async fn attach(context: Context, request: AttachNetwork) -> Result<Work<NicOfVm>> {
    let app = &context.app;
    let (vm, held) = vm::Subject::lock_whole(app, &request.vm, context.task, AttachNetwork::NAME).await?;
    let mut record = vm.record("interfaces", "attach-interface")?.clone();
    // State and definition as they are now, which the index takes in.
    vm.power(app).await?;
    let wanted = NicSpec { network: request.network, mac: request.mac, ip: request.ip, ..NicSpec::default() };
    let mut chosen = nics::Nics::default();
    nics::choose(app, &vm.node, &mut chosen, &wanted, "").await?;
    let nics::Nics { mut specs, reserved, claims } = chosen;
    let mut nic = specs.pop().ok_or_else(|| Error::Internal("no interface was chosen".to_owned()))?;
    nic.link_up = request.link == Link::Up;
    let steps = ["record-address", "reserve-address", "attach-interface"];
    let outline = Outline::of(if reserved.is_empty() { &steps[2..] } else { &steps }).on(&vm.node);
    Ok(Work::new(vm.target(), held, outline, move |task| async move {
        let (app, _claims) = (&task.app, claims);
        // With the first step.
        let mut settle = Some(Undo::SettleNic { node: vm.node.name().to_owned(), vm: vm.id, mac: nic.mac.clone() });
        if let Some(reserved) = reserved.first() {
            record.spec.reserved.push(reserved.clone());
            task.step("record-address", settle.take(), interfaces::save(app, &mut record)).await?;
            let (network, mac, ip) = (reserved.network, &reserved.mac, reserved.ip);
            let reserve = async { Ok(vm.node.reserve_address(network, mac, ip).await?) };
            task.step("reserve-address", None, reserve).await?;
        }
        let attach = async { Ok(vm.node.attach_nic(vm.id, &nic).await?) };
        let attached = task.last_step("attach-interface", settle, attach).await;
        attached.map_err(|error| vm::no_port_left(error, vm.entry.name(), "interface"))?;
        observe::refresh_after(app, &vm.node, vm.id).await;
        reply(app, vm.id, &nic.mac)
    }))
}
