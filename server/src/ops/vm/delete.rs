//! Deleting. Not taken back: the VM is marked, and from then on the deletion goes forward, by its task or, when that is
//! cut off, by the reconciler.

use super::{Subject, wrong_power};
use crate::{
    App, Context, Error, Result, observe,
    ops::images,
    seeds,
    store::{VmPhase, VmRecord, VolumeRole},
    task::{Lock, Work},
};
use api::{
    Rpc,
    vm::{DeleteVm, DeletedVm},
};
use hypervisor::{Node, domain::Power};
use uuid::Uuid;

/// `delete-vm`
pub async fn delete(context: Context, request: DeleteVm) -> Result<Work<DeletedVm>> {
    let app = &context.app;
    let locks = [Lock::Power, Lock::Disk];
    let (vm, held) = Subject::lock(app, &request.vm, &locks, context.task, DeleteVm::NAME)?;
    let Some(record) = vm.entry.record.clone() else {
        return Err(Error::Unsupported {
            detail: format!(
                "VM {} was not made by Vmyard, which doesn't know which of its disks may go",
                vm.entry.name()
            ),
            hint: Some(format!("virsh undefine {} on node {}", vm.entry.name(), vm.node.name())),
        });
    };
    // A domain that was undefined outside of Vmyard leaves disk and seed, which go now.
    if let Some((power, _)) = vm.node.power(vm.id).await?
        && power != Power::Off
    {
        return Err(wrong_power(&record.name, power, "shutoff", "stop it first (stop-vm)"));
    }
    for volume in app.store.volumes_of_vm(vm.id).await?.iter().filter(|volume| volume.role == VolumeRole::System) {
        images::nothing_stands_on(app, &vm.node, volume.pool, &volume.path, Some(vm.id)).await?;
    }
    let data_disks = vm.entry.seen.iter().flat_map(|seen| seen.view.disks.iter().filter(|disk| !disk.cdrom).skip(1));
    let kept = data_disks.filter_map(|disk| disk.path.clone()).collect();
    Ok(Work::new(vm.target(), held, move |task| async move {
        let app = &task.app;
        task.step("mark-deleting", None, mark(app, &vm.node, &record)).await?;
        // It was off when it was marked. If somebody has started it outside of Vmyard since, the deletion waits.
        task.step("undefine-domain", None, async { Ok(vm.node.undefine(vm.id).await?) }).await?;
        task.step("delete-system-disk", None, delete_disks(app, &vm.node, vm.id)).await?;
        task.step("delete-seed", None, seeds::delete_files(&vm.node, vm.id)).await?;
        task.step("forget-vm", None, app.store.forget_vm(vm.id)).await?;
        app.index.drop_record(vm.id);
        observe::refresh_after(app, &vm.node, vm.id).await;
        Ok(DeletedVm { id: vm.id, name: record.name, kept })
    }))
}

/// Marks the VM, unless it was started in between.
async fn mark(app: &App, node: &Node, record: &VmRecord) -> Result<()> {
    match node.power(record.id).await? {
        Some((power, _)) if power != Power::Off => {
            return Err(wrong_power(&record.name, power, "shutoff", "stop it first (stop-vm)"));
        }
        _ => {}
    }
    let mut record = record.clone();
    app.store.set_vm_phase(&mut record, VmPhase::Deleting).await?;
    app.index.put_record(record);
    Ok(())
}

/// Goes on with the deletions on a node that were cut off.
pub async fn go_on(app: &App, node: &Node) {
    let mut marked: Vec<VmRecord> = Vec::new();
    app.index.each(|_, entry, _| {
        let deleting = |record: &&VmRecord| record.phase == VmPhase::Deleting && record.node == node.name();
        marked.extend(entry.record.as_ref().filter(deleting).cloned());
    });
    for record in marked {
        let locks = [Lock::Power, Lock::Disk];
        let Ok(_held) = app.locks.take(record.id, &record.name, &locks, Uuid::now_v7(), DeleteVm::NAME) else {
            continue;
        };
        match finish(app, node, record.id).await {
            Ok(()) => tracing::info!(vm = record.name, "a deletion was finished"),
            Err(error) => tracing::warn!(%error, vm = record.name, "a deletion is not finished yet"),
        }
    }
}

/// All of a deletion after the mark; each part may have been done before.
async fn finish(app: &App, node: &Node, vm: Uuid) -> Result<()> {
    node.undefine(vm).await?;
    delete_disks(app, node, vm).await?;
    seeds::delete_files(node, vm).await?;
    app.store.forget_vm(vm).await?;
    app.index.drop_record(vm);
    observe::refresh(app, node, vm).await
}

async fn delete_disks(app: &App, node: &Node, vm: Uuid) -> Result<()> {
    for volume in app.store.volumes_of_vm(vm).await?.into_iter().filter(|volume| volume.role == VolumeRole::System) {
        node.delete_volume(volume.pool, &volume.file).await?;
    }
    Ok(())
}
