//! Changing the link and the limits of a network interface.

use super::{reply, with};
use crate::{
    Context, Error, Result, observe,
    ops::vm::Subject,
    task::{Outline, Undo, Work},
};
use api::{
    Rpc,
    nic::{Link, ModifyNic, NicOfVm},
};
use hypervisor::domain::NicChange;

/// `modify-nic`
pub async fn modify(context: Context, request: ModifyNic) -> Result<Work<NicOfVm>> {
    let app = &context.app;
    let ModifyNic { vm: _, mac, link, rx_kb_per_s, tx_kb_per_s } = &request;
    let change =
        NicChange { link_up: link.map(|link| link == Link::Up), rx_kb_per_s: *rx_kb_per_s, tx_kb_per_s: *tx_kb_per_s };
    if change == NicChange::default() {
        return Err(Error::field("", "at least one of link, rx_kb_per_s and tx_kb_per_s is needed"));
    }
    let (vm, held) = Subject::lock_whole(app, &request.vm, context.task, ModifyNic::NAME).await?;
    vm.record("interfaces", "domif-setlink")?;
    let nics = with(&vm, mac).await?;
    let Some((is, _)) = nics.live(mac).zip(nics.defined(mac)) else {
        return Err(Error::WrongState {
            detail: format!("interface {mac} of VM {} is not both in the VM and in its definition", vm.entry.name()),
            hint: Some("it is when the VM was stopped and started".to_owned()),
        });
    };
    let back = NicChange {
        link_up: change.link_up.and(Some(is.link_up)),
        rx_kb_per_s: change.rx_kb_per_s.and(Some(is.rx_kb_per_s.unwrap_or(0))),
        tx_kb_per_s: change.tx_kb_per_s.and(Some(is.tx_kb_per_s.unwrap_or(0))),
    };
    let mac = mac.to_lowercase();
    let outline = Outline::of(&["change-interface"]).on(&vm.node);
    Ok(Work::new(vm.target(), held, outline, move |task| async move {
        let app = &task.app;
        let undo = Undo::ChangeNic { node: vm.node.name().to_owned(), vm: vm.id, mac: mac.clone(), change: back };
        let change = async { Ok(vm.node.change_nic(vm.id, &mac, change).await?) };
        let changed = task.last_step("change-interface", Some(undo), change).await;
        changed.map_err(|error| no_traffic_control(error, &vm))?;
        observe::refresh_after(app, &vm.node, vm.id).await;
        reply(app, vm.id, &mac)
    }))
}

/// The words of Linux's `tc`, which libvirt calls, for a kernel that lacks what it asks for.
fn no_traffic_control(error: Error, vm: &Subject) -> Error {
    match &error {
        Error::Node(cause) if cause.cause.contains("(tc ") => Error::Unsupported {
            detail: format!(
                "the kernel of node {} can't limit the interfaces of running VMs: {}",
                vm.node.name(),
                cause.cause.trim()
            ),
            hint: Some(
                "load its modules sch_htb, sch_sfq, sch_ingress, cls_u32, cls_fw and act_police; until the VM is \
                 started again a part of the limit may be in force"
                    .to_owned(),
            ),
        },
        _ => error,
    }
}
