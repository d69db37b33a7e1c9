//! New VMs from snapshots.

use super::find;
use crate::{
    Context, Error, Result,
    ops::vm::create::{self, Over},
    store::{FrozenDisk, SnapshotPhase, SnapshotRecord},
    task::{Held, Lock, Work},
};
use api::{
    Rpc,
    snapshot::CreateVmFromSnapshot,
    vm::{CreateVm, Vm},
};

/// `create-vm-from-snapshot`
pub async fn create_vm(context: Context, request: CreateVmFromSnapshot) -> Result<Work<Vm>> {
    let app = &context.app;
    let record = find(app, request.vm.as_deref(), &request.snapshot).await?;
    let (disk, held) = ground(&context, &record, "vda", CreateVmFromSnapshot::NAME).await?;
    let (was, independent) = (&record.spec.vm, request.independent);
    let request = CreateVm {
        name: request.name,
        template: disk.template.map(|template| template.to_string()),
        iso: None,
        iso_pool: None,
        boot_order: None,
        vcpus: request.vcpus.unwrap_or(was.vcpus),
        memory_mib: request.memory_mib.unwrap_or(was.memory_mib),
        disk_gib: request.disk_gib,
        pool: request.pool,
        networks: request.networks,
        node: Some(record.node.clone()),
        tags: request.tags,
        description: request.description,
        cloud_init: request.cloud_init,
        max_vcpus: None,
        max_memory_mib: None,
        firmware: was.firmware,
        start: request.start,
        autostart: false,
    };
    create::create_over(
        context,
        CreateVmFromSnapshot::NAME,
        request,
        Some(Over { disk, independent, nvram: record.spec.nvram.clone(), _held: held }),
    )
    .await
}

/// An image of a snapshot that something new is to stand on, and the lock that keeps it from being merged meanwhile.
pub async fn ground(
    context: &Context,
    record: &SnapshotRecord,
    device: &str,
    method: &'static str,
) -> Result<(FrozenDisk, Vec<Held>)> {
    let app = &context.app;
    let held = app.locks.take(record.vm, &record.spec.vm_name, &[Lock::Disk], context.task, method)?;
    let record = find(app, None, &record.id.to_string()).await?;
    if record.phase != SnapshotPhase::Ready {
        return Err(Error::Busy { detail: format!("snapshot {} is being taken", record.name), task: None });
    }
    let disks = app.store.disks_of_snapshot(record.id).await?;
    let known: Vec<_> = disks.iter().map(|disk| disk.device.clone()).collect();
    match disks.into_iter().find(|disk| disk.device == device) {
        Some(disk) => Ok((disk, held)),
        None => {
            let message = format!("is {device}, and snapshot {} has {}", record.name, known.join(", "));
            Err(Error::field("device", message))
        }
    }
}
