//! Taking a volume from a VM: a running guest is asked to let go of it, and has it until it has.

use super::{Subject, of_id};
use crate::{
    Context, Error, Result, attachments, observe,
    ops::vm::{self, Device, wrong_power},
    store::{VolumeRecord, VolumeRole},
    task::{Outline, Undo, Work},
};
use api::{
    Rpc,
    volume::{DetachVolume, VolumeOfVm},
};
use hypervisor::domain::Power;
use std::time::Duration;

/// How long a guest has to let go, when the caller doesn't say.
pub(in crate::ops) const TIMEOUT_S: u32 = 30;

/// `detach-volume`
pub async fn detach(context: Context, request: DetachVolume) -> Result<Work<VolumeOfVm>> {
    let app = &context.app;
    let (vm, mut held) = vm::Subject::lock_whole(app, &request.vm, context.task, DetachVolume::NAME).await?;
    let found = Subject::find(app, &request.volume, None, Some(vm.node.name())).await?;
    let (Subject { record, .. }, lock) = found.lock(app, context.task, DetachVolume::NAME).await?;
    held.push(lock);
    if record.vm != Some(vm.id) {
        let detail = format!("volume {} is not attached to VM {}", record.name, vm.entry.name());
        return Err(Error::WrongState { detail, hint: Some("describe-volume says which VM has it".to_owned()) });
    }
    if record.role == VolumeRole::System {
        return Err(Error::Unsupported {
            detail: format!("volume {} is the system disk of VM {}", record.name, vm.entry.name()),
            hint: Some("only data volumes can be detached".to_owned()),
        });
    }
    let power = match vm.node.disks(vm.id).await? {
        Some(disks) if disks.has_live(&record.path) => disks.power,
        // The guest has let go of it before, or somebody has taken it outside of Vmyard: only the definition is left.
        _ => Power::Off,
    };
    if power == Power::Paused && !request.force {
        let hint = "resume it first (resume-vm), so that its guest can let go, or use force";
        return Err(wrong_power(vm.entry.name(), power, "running or shutoff", hint));
    }
    let timeout = Duration::from_secs(request.timeout_s.unwrap_or(TIMEOUT_S).into());
    let steps = ["mark-detaching", "ask-guest", "update-definition"];
    let outline = match power {
        Power::Off => Outline::of(&["mark-detaching", "update-definition", "release-volume"]),
        _ if request.force => Outline::of(&steps).then_if("release-volume", "the guest has let go of it"),
        _ => Outline::of(&[&steps[..], &["release-volume"]].concat()),
    };
    let outline = outline.on(&vm.node);
    Ok(Work::new(vm.target(), held, outline, move |task| async move {
        let app = &task.app;
        let settle = Undo::SettleVolume { node: vm.node.name().to_owned(), vm: vm.id, volume: record.id };
        task.step("mark-detaching", Some(settle), async {
            app.store.set_volume_detaching(record.id, vm.id, true).await?;
            attachments::sync(app, record.id).await
        })
        .await?;
        let (device, mut free) = (Device::Disk(&record.path), power == Power::Off);
        if !free {
            let asking = vm::until_let_go(app, &vm, &device, timeout);
            free = task
                .step("ask-guest", None, async {
                    let free = task.unless_cancelled(asking).await?;
                    if free || request.force { Ok(free) } else { Err(keeps_it(&vm, &record, timeout)) }
                })
                .await?;
        }
        task.last_step("update-definition", None, async { Ok(vm.node.undefine_disk(vm.id, &record.path).await?) })
            .await?;
        if !free {
            free = !device.is_held(&vm).await?;
        }
        if free {
            task.step("release-volume", None, attachments::release(app, vm.id, record.id)).await?;
        }
        observe::refresh_after(app, &vm.node, vm.id).await;
        Ok(VolumeOfVm { vm: app.index.to_wire(vm.id)?, volume: of_id(app, record.id).await? })
    })
    .at_once())
}

fn keeps_it(vm: &vm::Subject, record: &VolumeRecord, timeout: Duration) -> Error {
    Error::Timeout {
        detail: format!(
            "the guest of VM {} has not let go of volume {} within {} s; it stays attached",
            vm.entry.name(),
            record.name,
            timeout.as_secs()
        ),
        hint:
            "unmount it in the guest and try again; a guest that is booting doesn't answer; with force it leaves the \
               VM's definition, and is free when the guest lets go or is off"
                .to_owned(),
    }
}
