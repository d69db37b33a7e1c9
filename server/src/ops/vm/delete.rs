//! Deleting. Not taken back: the VM is marked, and from then on the deletion goes forward, by its task or, when that is
//! cut off, by the reconciler.

use super::{Subject, wrong_power};
use crate::{
    App, Context, Error, Result, attachments, images, nvram,
    ops::{finish_deletion, snapshot},
    seeds,
    store::{SnapshotRecord, VmPhase, VmRecord, VolumePhase, VolumeRecord, VolumeRole},
    task::{Lock, Outline, Work, XmlChange},
};
use api::{
    Rpc,
    vm::{DeleteVm, DeletedVm, Firmware},
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
    let with_volumes = request.delete_volumes;
    let volumes = app.store.volumes_of_vm(vm.id).await?;
    let (going, staying): (Vec<_>, Vec<_>) =
        volumes.into_iter().partition(|volume| with_volumes || volume.role == VolumeRole::System);
    for volume in &going {
        images::nothing_stands_on(app, &vm.node, &volume.path, Some(vm.id)).await?;
    }
    // Disks that somebody gave it outside of Vmyard stay as well.
    let disks = vm.entry.seen.iter().flat_map(|seen| seen.view.disks.iter().filter(|disk| !disk.cdrom).skip(1));
    let goes = |path: &String| going.iter().any(|volume| volume.path == *path);
    let mut kept: Vec<String> = staying.into_iter().map(|volume| volume.path).collect();
    kept.extend(disks.filter_map(|disk| disk.path.clone()).filter(|path| !goes(path)));
    kept.sort();
    kept.dedup();
    let snapshots = if request.delete_snapshots { snapshot::ready_of(app, vm.id).await? } else { Vec::new() };
    let mut steps = vec!["mark-deleting", "undefine-domain", "delete-system-disk"];
    steps.extend(with_volumes.then_some("delete-volumes"));
    steps.push("delete-seed");
    steps.extend((record.spec.firmware == Firmware::Uefi).then_some("delete-nvram"));
    steps.extend((!record.spec.reserved.is_empty()).then_some("release-addresses"));
    steps.push("forget-vm");
    steps.extend(request.delete_snapshots.then_some("delete-snapshots"));
    let outline = Outline::of(&steps);
    let (node, id, there) = (vm.node.clone(), vm.id, vm.entry.seen.is_some());
    let outline = outline.on(&vm.node).changing_xml(async move {
        let before = if there { node.domain_xml(id, true, false).await? } else { String::new() };
        Ok(XmlChange { before, after: String::new() })
    });
    Ok(Work::new(vm.target(), held, outline, move |task| async move {
        let app = &task.app;
        task.last_step("mark-deleting", None, mark(app, &vm.node, &record, with_volumes, &snapshots)).await?;
        // It was off when it was marked. If somebody has started it outside of Vmyard since, the deletion waits.
        task.step("undefine-domain", None, async { Ok(vm.node.undefine(vm.id).await?) }).await?;
        task.step("delete-system-disk", None, delete_disks(app, &vm.node, vm.id, VolumeRole::System)).await?;
        if with_volumes {
            task.step("delete-volumes", None, delete_disks(app, &vm.node, vm.id, VolumeRole::Data)).await?;
        }
        task.step("delete-seed", None, seeds::delete_files(&vm.node, vm.id)).await?;
        if record.spec.firmware == Firmware::Uefi {
            task.step("delete-nvram", None, delete_nvram(&vm.node, &record)).await?;
        }
        if !record.spec.reserved.is_empty() {
            task.step("release-addresses", None, release_addresses(&vm.node, &record)).await?;
        }
        task.step("forget-vm", None, attachments::forget_vm(app, vm.id)).await?;
        if request.delete_snapshots {
            task.step("delete-snapshots", None, snapshot::delete::work_off(app, &vm.node, vm.id)).await?;
        }
        Ok(DeletedVm { id: vm.id, name: record.name, kept })
    }))
}

/// Marks the VM, and with it its data volumes and snapshots if they go too, unless it was started in between.
async fn mark(
    app: &App,
    node: &Node,
    record: &VmRecord,
    with_volumes: bool,
    with_snapshots: &[SnapshotRecord],
) -> Result<()> {
    match node.power(record.id).await? {
        Some((power, _)) if power != Power::Off => {
            return Err(wrong_power(&record.name, power, "shutoff", "stop it first (stop-vm)"));
        }
        _ => {}
    }
    let mut record = record.clone();
    app.store.mark_vm_deleting(&mut record, with_volumes, with_snapshots).await?;
    for volume in app.store.volumes_of_vm(record.id).await? {
        app.index.put_volume(volume);
    }
    app.index.put_record(record);
    Ok(())
}

/// Goes on with the deletions on a node that were cut off.
pub async fn go_on(app: &App, node: &Node) {
    let mut marked: Vec<VmRecord> = Vec::new();
    app.index.each(|_, entry| {
        let deleting = |record: &&VmRecord| record.phase == VmPhase::Deleting && record.node == node.name();
        marked.extend(entry.record.as_ref().filter(deleting).cloned());
    });
    for record in marked {
        let (vm, locks) = (("VM", record.id, record.name.as_str()), [Lock::Power, Lock::Disk]);
        finish_deletion(app, vm, &locks, DeleteVm::NAME, finish(app, node, &record)).await;
    }
}

/// All of a deletion after the mark; each part may have been done before.
async fn finish(app: &App, node: &Node, record: &VmRecord) -> Result<()> {
    let vm = record.id;
    node.undefine(vm).await?;
    delete_disks(app, node, vm, VolumeRole::System).await?;
    delete_disks(app, node, vm, VolumeRole::Data).await?;
    seeds::delete_files(node, vm).await?;
    delete_nvram(node, record).await?;
    release_addresses(node, record).await?;
    attachments::forget_vm(app, vm).await
}

/// libvirt deletes the NVRAM with the definition, but its pool doesn't hear of it.
async fn delete_nvram(node: &Node, record: &VmRecord) -> Result<()> {
    if record.spec.firmware == Firmware::Uefi {
        node.delete_volumes(record.spec.pool, &nvram::file_of(record.id)).await?;
    }
    Ok(())
}

async fn release_addresses(node: &Node, record: &VmRecord) -> Result<()> {
    for reserved in &record.spec.reserved {
        node.release_address(reserved.network, &reserved.mac, reserved.ip).await?;
    }
    Ok(())
}

/// Deletes the images of a VM's system volumes, or of those data volumes that were marked with it.
async fn delete_disks(app: &App, node: &Node, vm: Uuid, role: VolumeRole) -> Result<()> {
    let goes = |volume: &VolumeRecord| role == VolumeRole::System || volume.phase == VolumePhase::Deleting;
    let volumes = app.store.volumes_of_vm(vm).await?.into_iter();
    for volume in volumes.filter(|volume| volume.role == role && goes(volume)) {
        node.delete_volume(volume.pool, &volume.file).await?;
    }
    Ok(())
}
