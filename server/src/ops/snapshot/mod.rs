//! Snapshots. Vmyard keeps the tree itself, and doesn't use libvirt's: a snapshot is a set of images that nobody writes to any
//! more, one for each disk, with overlays over them in which the VM goes on.

pub mod create;
pub mod delete;
pub mod list;
pub mod revert;
pub mod use_as;

use crate::{
    App, Error, Result,
    size::gib,
    store::{FrozenDisk, SnapshotPhase, SnapshotRecord},
};
use api::snapshot::{Snapshot, SnapshotDisk, SnapshotState};
use uuid::Uuid;

/// The snapshot of this name, of this VM, or of this id; hidden ones are not found.
pub(super) async fn find(app: &App, vm: Option<&str>, reference: &str) -> Result<SnapshotRecord> {
    if let Ok(id) = Uuid::try_parse(reference) {
        let found = app.store.snapshot(id).await?.filter(|found| found.phase != SnapshotPhase::Deleting);
        return found.ok_or_else(|| Error::not_found("snapshot", reference));
    }
    let Some(vm) = vm else {
        return Err(Error::field("vm", "is needed for a snapshot's name, which only its id goes without"));
    };
    of_vm(app, vm_id(app, vm)?, reference).await
}

/// The snapshot of this name or id of a VM.
async fn of_vm(app: &App, vm: Uuid, reference: &str) -> Result<SnapshotRecord> {
    let found = app.store.snapshot_of(vm, reference).await?;
    found.ok_or_else(|| Error::not_found("snapshot", reference))
}

/// The snapshots of a VM that can be deleted with it.
pub(super) async fn ready_of(app: &App, vm: Uuid) -> Result<Vec<SnapshotRecord>> {
    let mut snapshots = app.store.snapshots_of(vm).await?;
    snapshots.retain(|snapshot| snapshot.phase == SnapshotPhase::Ready);
    Ok(snapshots)
}

/// The id of a VM that is there, or, as it is given, of one that may be gone.
fn vm_id(app: &App, reference: &str) -> Result<Uuid> {
    match (app.index.resolve(reference), Uuid::try_parse(reference)) {
        (Ok((id, _)), _) => Ok(id),
        (Err(_), Ok(id)) => Ok(id),
        (Err(error), Err(_)) => Err(error),
    }
}

/// The snapshot with this id on the wire.
pub async fn of_id(app: &App, id: Uuid) -> Result<Snapshot> {
    let record = app.store.snapshot(id).await?.ok_or_else(|| Error::not_found("snapshot", id.to_string()))?;
    to_wire(app, &record).await
}

async fn to_wire(app: &App, record: &SnapshotRecord) -> Result<Snapshot> {
    let disks = app.store.disks_of_snapshot(record.id).await?;
    let current = app.store.current_snapshot(record.vm).await?;
    Ok(wire(record, disks, current == Some(record.id)))
}

/// `current`: its VM stands on it.
fn wire(record: &SnapshotRecord, disks: Vec<FrozenDisk>, current: bool) -> Snapshot {
    let disk = |disk: FrozenDisk| SnapshotDisk {
        device: disk.device,
        volume: disk.volume,
        path: disk.image.path,
        size_gib: gib(disk.size_bytes),
        backing: disk.backing,
    };
    Snapshot {
        id: record.id,
        name: record.name.clone(),
        vm: record.vm,
        vm_name: record.spec.vm_name.clone(),
        node: record.node.clone(),
        parent: record.parent,
        current,
        state: match record.phase {
            SnapshotPhase::Creating => SnapshotState::Creating,
            SnapshotPhase::Ready => SnapshotState::Ready,
            SnapshotPhase::Deleting => SnapshotState::Deleting,
        },
        vm_state: record.spec.vm_state,
        memory: record.spec.memory.is_some(),
        quiesced: record.spec.quiesced,
        pause_ms: record.spec.pause_ms,
        description: record.spec.description.clone(),
        disks: disks.into_iter().map(disk).collect(),
        size_bytes: None,
        created_at: record.created_at,
    }
}
