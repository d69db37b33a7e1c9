//! Taking a network interface from a VM: a running guest is asked to let go of it, and has it until it has.

use super::with;
use crate::{
    Context, Error, Result, interfaces, observe,
    ops::{
        vm::{self, Device, wrong_power},
        volume::detach::TIMEOUT_S,
    },
    task::{Outline, Undo, Work},
};
use api::{Rpc, nic::DetachNetwork, vm::Vm};
use hypervisor::domain::Power;
use std::time::Duration;

/// `detach-network`
pub async fn detach(context: Context, request: DetachNetwork) -> Result<Work<Vm>> {
    let app = &context.app;
    let (vm, held) = vm::Subject::lock_whole(app, &request.vm, context.task, DetachNetwork::NAME).await?;
    vm.record("interfaces", "detach-interface")?;
    let nics = with(&vm, &request.mac).await?;
    let power = match nics.live(&request.mac) {
        Some(_) => nics.power,
        // The guest has let go of it before: only the definition is left.
        None => Power::Off,
    };
    if power == Power::Paused {
        let hint = "resume it first (resume-vm), so that its guest can let go, or stop it";
        return Err(wrong_power(vm.entry.name(), power, "running or shutoff", hint));
    }
    let timeout = Duration::from_secs(request.timeout_s.unwrap_or(TIMEOUT_S).into());
    let mac = request.mac.to_lowercase();
    let has_address =
        vm.entry.record.as_ref().is_some_and(|record| record.spec.reserved.iter().any(|one| one.mac == mac));
    let steps = [("ask-guest", power != Power::Off), ("update-definition", true), ("release-address", has_address)];
    let steps: Vec<&str> = steps.into_iter().filter(|(_, is_done)| *is_done).map(|(step, _)| step).collect();
    let outline = Outline::of(&steps).on(&vm.node);
    Ok(Work::new(vm.target(), held, outline, move |task| async move {
        let app = &task.app;
        // With the first step.
        let mut settle = Some(Undo::SettleNic { node: vm.node.name().to_owned(), vm: vm.id, mac: mac.clone() });
        if power != Power::Off {
            let ask = async {
                let device = Device::Nic(&mac);
                let asking = vm::until_let_go(app, &vm, &device, timeout);
                if task.unless_cancelled(asking).await? { Ok(()) } else { Err(keeps_it(&vm, &mac, timeout)) }
            };
            task.step("ask-guest", settle.take(), ask).await?;
        }
        let undefine = async { Ok(vm.node.undefine_nic(vm.id, &mac).await?) };
        task.last_step("update-definition", settle, undefine).await?;
        if has_address {
            task.step("release-address", None, interfaces::release_address(app, &vm.node, vm.id, &mac)).await?;
        }
        observe::refresh_after(app, &vm.node, vm.id).await;
        app.index.to_wire(vm.id)
    }))
}

fn keeps_it(vm: &vm::Subject, mac: &str, timeout: Duration) -> Error {
    Error::Timeout {
        detail: format!(
            "the guest of VM {} has not let go of interface {mac} within {} s; it stays attached",
            vm.entry.name(),
            timeout.as_secs()
        ),
        hint: "try again when the guest has booted: one that is booting doesn't answer; or detach it while the VM is \
               off; modify-nic with \"link\": \"down\" cuts it off at once; a guest that lets go only later has it \
               again from its next boot on"
            .to_owned(),
    }
}
