//! Giving a volume to a VM.

use super::{Subject, create::gone, of_id};
use crate::{
    App, Context, Error, Result, attachments, images, observe,
    ops::vm,
    store::{StepBegun, VolumePhase, VolumeRecord, VolumeRole},
    task::{Lock, Outline, Undo, Work},
};
use api::{
    Rpc,
    volume::{AttachVolume, VolumeOfVm},
};
use hypervisor::domain::DomainDisks;
use std::sync::Arc;
use uuid::Uuid;

/// `attach-volume`
pub async fn attach(context: Context, request: AttachVolume) -> Result<Work<VolumeOfVm>> {
    let app = &context.app;
    let locks = [Lock::Power, Lock::Disk];
    let (vm, mut held) = vm::Subject::lock(app, &request.vm, &locks, context.task, AttachVolume::NAME)?;
    vm.record("disks", "attach-disk")?;
    let (volume, lock) = find(app, &request.volume, &vm).await?.lock(app, context.task, AttachVolume::NAME).await?;
    held.push(lock);
    let record = volume.record;
    is_free(app, &record, vm.id)?;
    // Side by side: each waits for the node.
    let (not_suspended, view, domain) =
        tokio::join!(vm.is_not_suspended(), vm.node.volume(record.pool, &record.file), vm.text());
    not_suspended?;
    if view?.is_none() {
        return Err(gone(&record));
    }
    let device = choose(&domain?.disks(), request.device.as_deref(), vm.entry.name())?;
    let outline = Outline::of(&["claim-volume", "attach-disk"]).on(&vm.node);
    let work = Work::new(vm.target(), held, outline, move |task| async move {
        let app = &task.app;
        let settle = Undo::SettleVolume { node: vm.node.name().to_owned(), vm: vm.id, volume: record.id };
        task.foretell("attach-disk", None);
        let (wanted, to) = (&record, &device);
        let claim = |step: Arc<StepBegun>| async move {
            match app.store.claim_volume(wanted.id, vm.id, to, Some(&step)).await? {
                true => Ok(()),
                false => Err(Error::InUse(format!("volume {} was given to a VM or deleted meanwhile", wanted.name))),
            }
        };
        task.step_in_store("claim-volume", Some(settle), false, claim).await?;
        attachments::sync(app, record.id).await?;
        let disk = attachments::disk(&record, &device);
        let attached =
            task.last_step("attach-disk", None, async { Ok(vm.node.attach_disk(vm.id, &disk).await?) }).await;
        attached.map_err(|error| vm::no_port_left(error, vm.entry.name(), "disk"))?;
        let ((), volume) = tokio::join!(observe::refresh_after(app, &vm.node, vm.id), of_id(app, record.id));
        Ok(VolumeOfVm { vm: app.index.to_wire(vm.id)?, volume: volume? })
    });
    Ok(work.at_once())
}

/// The volume of this name on the VM's node. One that is only on another node can't be had.
async fn find(app: &App, reference: &str, vm: &vm::Subject) -> Result<Subject> {
    match Subject::find(app, reference, None, Some(vm.node.name())).await {
        Err(Error::NotFound { .. }) => {}
        found => return found,
    }
    let elsewhere = Subject::find(app, reference, None, None).await?;
    Err(Error::Unsupported {
        detail: format!(
            "volume {} is on node {}, VM {} on node {}",
            elsewhere.record.name,
            elsewhere.record.node,
            vm.entry.name(),
            vm.node.name()
        ),
        hint: Some(format!("clone-volume with \"node\": {:?} makes a copy there", vm.node.name())),
    })
}

fn is_free(app: &App, record: &VolumeRecord, wanted_by: Uuid) -> Result<()> {
    let name = |vm: Uuid| app.index.name_of(vm);
    if record.role == VolumeRole::System {
        return Err(Error::InUse(format!(
            "volume {} is the system disk of a VM; clone-volume makes a copy",
            record.name
        )));
    }
    match record.vm {
        Some(vm) if record.phase == VolumePhase::Detaching => {
            return Err(Error::InUse(format!("VM {} has not let go of volume {} yet", name(vm), record.name)));
        }
        Some(vm) if vm == wanted_by => {
            return Err(Error::InUse(format!("VM {} has volume {} already", name(vm), record.name)));
        }
        Some(vm) => {
            let detail = format!("VM {} has volume {}; detach it there first (detach-volume)", name(vm), record.name);
            return Err(Error::InUse(detail));
        }
        None => {}
    }
    // Somebody may have given it to a domain outside of Vmyard.
    match images::vm_on(app, &record.node, &record.path, None) {
        Some((_, user)) => Err(Error::InUse(format!("VM {user} uses {}, which was not done by Vmyard", record.path))),
        None => Ok(()),
    }
}

/// The wanted device, or the next free one, where neither the running domain nor its definition has one of that name.
fn choose(disks: &DomainDisks, wanted: Option<&str>, vm: &str) -> Result<String> {
    let taken = |name: &str| disks.live.iter().chain(&disks.defined).any(|disk| disk.target == name);
    match wanted {
        Some(device) if taken(device) => {
            Err(Error::InUse(format!("VM {vm} has a disk {device} already; leave device out for the next free one")))
        }
        Some(device) => Ok(device.to_owned()),
        None => {
            let mut names = ('b'..='z').map(|letter| format!("vd{letter}"));
            names.find(|name| !taken(name)).ok_or_else(|| Error::Unsupported {
                detail: format!("VM {vm} has disks vdb to vdz: more are not supported"),
                hint: Some("detach one first (detach-volume)".to_owned()),
            })
        }
    }
}
