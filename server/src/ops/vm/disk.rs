//! Limiting what goes through a VM's disk.

use super::Subject;
use crate::{
    Context, Error, Result, observe,
    task::{Outline, Undo, Work},
};
use api::{Rpc, disk::ModifyDisk, vm::Vm};
use hypervisor::domain::DiskLimits;

/// `modify-disk`
pub async fn modify(context: Context, request: ModifyDisk) -> Result<Work<Vm>> {
    let app = &context.app;
    let (vm, held) = Subject::lock_whole(app, &request.vm, context.task, ModifyDisk::NAME).await?;
    vm.record("disks", "blkdeviotune")?;
    let device = request.device.clone();
    let disks = vm.text().await?.disks();
    let is_it = |disk: &&hypervisor::domain::DiskView| disk.target == device;
    let (live, defined) = (disks.live.iter().find(is_it), disks.defined.iter().find(is_it));
    let Some((before, _)) = live.zip(defined) else {
        return match live.or(defined) {
            Some(_) => Err(Error::WrongState {
                detail: format!("disk {device} of VM {} is on its way out", vm.entry.name()),
                hint: None,
            }),
            None => Err(Error::not_found("disk", format!("{device} of VM {}", vm.entry.name()))),
        };
    };
    let before = before.limits;
    let limits = changed(before, &request)?;
    let outline = Outline::of(&["limit-disk"]).on(&vm.node);
    Ok(Work::new(vm.target(), held, outline, move |task| async move {
        let app = &task.app;
        let undo =
            Undo::LimitDisk { node: vm.node.name().to_owned(), vm: vm.id, device: device.clone(), limits: before };
        let limit = async { Ok(vm.node.limit_disk(vm.id, &device, limits).await?) };
        task.last_step("limit-disk", Some(undo), limit).await?;
        observe::refresh_after(app, &vm.node, vm.id).await;
        app.index.to_wire(vm.id)
    }))
}

/// The limits after the change.
fn changed(before: DiskLimits, request: &ModifyDisk) -> Result<DiskLimits> {
    let ModifyDisk { vm: _, device: _, total_iops, read_iops, write_iops, .. } = request;
    let ModifyDisk { total_bytes_per_s, read_bytes_per_s, write_bytes_per_s, .. } = request;
    let given = [total_iops, read_iops, write_iops, total_bytes_per_s, read_bytes_per_s, write_bytes_per_s];
    if given.iter().all(|limit| limit.is_none()) {
        return Err(Error::field("", "at least one limit is needed"));
    }
    let after = DiskLimits {
        total_iops: total_iops.unwrap_or(before.total_iops),
        read_iops: read_iops.unwrap_or(before.read_iops),
        write_iops: write_iops.unwrap_or(before.write_iops),
        total_bytes_per_s: total_bytes_per_s.unwrap_or(before.total_bytes_per_s),
        read_bytes_per_s: read_bytes_per_s.unwrap_or(before.read_bytes_per_s),
        write_bytes_per_s: write_bytes_per_s.unwrap_or(before.write_bytes_per_s),
    };
    for (total, read, write, unit) in [
        (after.total_iops, after.read_iops, after.write_iops, "iops"),
        (after.total_bytes_per_s, after.read_bytes_per_s, after.write_bytes_per_s, "bytes_per_s"),
    ] {
        if total > 0 && (read > 0 || write > 0) {
            return Err(Error::field(
                format!("total_{unit}"),
                format!(
                    "can't stand beside read_{unit} or write_{unit}: libvirt takes one or the other; give 0 for the \
                     one that is to go"
                ),
            ));
        }
    }
    Ok(after)
}
