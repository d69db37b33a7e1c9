//! Which VM has which volume: keeping the store, the index, the definition and the running domain in step.

use crate::{
    App, Result,
    store::{VolumePhase, VolumeRecord},
};
use hypervisor::{
    Node,
    domain::{DataDisk, Power},
};
use uuid::Uuid;

/// Takes a volume's row, as it is now, into the index.
pub async fn sync(app: &App, volume: Uuid) -> Result<()> {
    match app.store.volume(volume).await? {
        Some(record) => app.index.put_volume(record),
        None => app.index.drop_volume(volume),
    }
    Ok(())
}

/// Forgets a volume, in the store and the index.
pub async fn forget(app: &App, volume: Uuid) -> Result<()> {
    app.store.forget_volume(volume).await?;
    app.index.drop_volume(volume);
    Ok(())
}

/// What the guest sees as the serial number of a volume's disk: virtio has room for 20 digits, and the first 12 of a
/// UUIDv7 are only the time.
pub fn serial(volume: Uuid) -> String {
    volume.simple().to_string()[12..].to_owned()
}

/// A volume as a disk of a domain.
pub fn disk(volume: &VolumeRecord, device: &str) -> DataDisk {
    DataDisk {
        path: volume.path.clone(),
        format: volume.format.clone(),
        target: device.to_owned(),
        serial: serial(volume.id),
    }
}

/// Forgets a VM whose domain is gone, with its system volumes and those that were marked to go with it; the others are nobody's from then on.
pub async fn forget_vm(app: &App, vm: Uuid) -> Result<()> {
    let volumes = app.store.volumes_of_vm(vm).await?;
    app.store.forget_vm(vm).await?;
    for volume in volumes {
        sync(app, volume.id).await?;
    }
    app.index.forget_vm(vm);
    app.credential_checks.forget_vm(vm);
    Ok(())
}

/// Takes a volume from its VM, in the store and the index.
pub async fn release(app: &App, vm: Uuid, volume: Uuid) -> Result<()> {
    app.store.release_volume(volume, vm).await?;
    sync(app, volume).await
}

/// Brings a volume whose attaching or detaching was cut off into step with what its domain has: it is the VM's as long as
/// the domain has it now or from its next start on. May be called again.
///
/// | running domain | definition | being attached | being detached |
/// |---|---|---|---|
/// | has it | has it | stays attached | stays attached |
/// | has it | – | goes into the definition | stays `detaching` until the guest lets go |
/// | – | has it | stays attached | the guest has let go: leaves the definition, and is free |
/// | – | – | is free | is free |
pub async fn settle(app: &App, node: &Node, vm: Uuid, volume: Uuid) -> Result<()> {
    let Some(record) = app.store.volume(volume).await?.filter(|record| record.vm == Some(vm)) else {
        return sync(app, volume).await;
    };
    let detaching = record.phase == VolumePhase::Detaching;
    let Some(disks) = node.disks(vm).await? else { return release(app, vm, volume).await };
    let (live, defined) = (disks.has_live(&record.path), disks.has_defined(&record.path));
    match (live, defined) {
        (true, true) => app.store.set_volume_detaching(volume, vm, false).await?,
        (true, false) if detaching => {}
        (true, false) => {
            let device = record.device.as_deref().unwrap_or("vdb");
            node.define_disk(vm, &disk(&record, device)).await?;
        }
        (false, true) if detaching && disks.power != Power::Off => {
            node.undefine_disk(vm, &record.path).await?;
            app.store.release_volume(volume, vm).await?;
        }
        (false, true) => app.store.set_volume_detaching(volume, vm, false).await?,
        (false, false) => app.store.release_volume(volume, vm).await?,
    }
    sync(app, volume).await
}

/// Frees the volumes that a VM was to let go of and has let go of: its domain was just seen without them. Those that a
/// task is at work on are that task's.
pub async fn free_let_go(app: &App, node: &Node, vm: Uuid) {
    let mut volumes = app.index.detaching_from(vm);
    if volumes.is_empty() {
        return;
    }
    let Some(seen) = app.index.get(vm).and_then(|entry| entry.seen) else { return };
    volumes.retain(|volume| !seen.view.disks.iter().any(|disk| disk.path.as_ref() == Some(&volume.path)));
    for volume in volumes {
        let lock = [crate::task::Lock::Disk];
        let Ok(_held) = app.locks.take(volume.id, &volume.name, &lock, Uuid::now_v7(), "detach-volume") else {
            continue;
        };
        match settle(app, node, vm, volume.id).await {
            Ok(()) => tracing::info!(volume = volume.name, "a VM has let go of a volume"),
            // The next look at the domain tries again.
            Err(error) => tracing::warn!(%error, volume = volume.name, "a volume that was let go of is not free yet"),
        }
    }
}
