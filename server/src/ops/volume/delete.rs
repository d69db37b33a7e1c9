//! Deleting volumes. Not taken back: the volume is marked, and from then on the deletion goes forward, by its task or, when
//! that is cut off, by the reconciler.

use super::Subject;
use crate::{
    App, Context, Error, Result, attachments, images,
    ops::finish_deletion,
    store::{SnapshotPhase, VolumePhase, VolumeRecord, VolumeRole},
    task::{Lock, Outline, Work},
};
use api::{
    Rpc,
    volume::{DeleteVolume, DeletedVolume},
};
use hypervisor::Node;

/// `delete-volume`
pub async fn delete(context: Context, request: DeleteVolume) -> Result<Work<DeletedVolume>> {
    let app = &context.app;
    let found = Subject::find(app, &request.volume, request.pool.as_deref(), request.node.as_deref()).await?;
    let (subject, held) = found.lock(app, context.task, DeleteVolume::NAME).await?;
    let target = subject.target();
    let Subject { record, node } = subject;
    nobody_has(app, &record)?;
    in_no_snapshot(app, &record).await?;
    images::nothing_stands_on(app, &node, &record.path, None).await?;
    let outline = Outline::of(&["mark-deleting", "delete-image", "forget-volume"]).on(&node);
    Ok(Work::new(target, vec![held], outline, move |task| async move {
        let app = &task.app;
        task.last_step("mark-deleting", None, async {
            match app.store.mark_volume_deleting(record.id).await? {
                true => attachments::sync(app, record.id).await,
                false => Err(Error::InUse(format!("volume {} was given to a VM meanwhile", record.name))),
            }
        })
        .await?;
        task.step("delete-image", None, async { Ok(node.delete_volume(record.pool, &record.file).await?) }).await?;
        task.step("forget-volume", None, attachments::forget(app, record.id)).await?;
        Ok(DeletedVolume { id: record.id, name: record.name })
    }))
}

/// Fails when a snapshot has the volume. One that is to go, and waits for others that stand on its images, doesn't count:
/// the volume may be what it waits for.
async fn in_no_snapshot(app: &App, record: &VolumeRecord) -> Result<()> {
    for frozen in app.store.frozen_of_volume(record.id).await? {
        let Some(snapshot) = app.store.snapshot(frozen.snapshot).await? else { continue };
        if snapshot.phase != SnapshotPhase::Deleting {
            return Err(Error::InUse(format!(
                "snapshot {} of VM {} has volume {}; delete that first",
                snapshot.name, snapshot.spec.vm_name, record.name
            )));
        }
    }
    Ok(())
}

fn nobody_has(app: &App, record: &VolumeRecord) -> Result<()> {
    let Some(vm) = record.vm else { return Ok(()) };
    let vm = app.index.name_of(vm);
    Err(Error::InUse(match record.role {
        VolumeRole::System => {
            format!("volume {} is the system disk of VM {vm}, and goes with it (delete-vm)", record.name)
        }
        VolumeRole::Data => format!("VM {vm} has volume {}; detach it first (detach-volume)", record.name),
    }))
}

/// Goes on with deletions on a node that were cut off. Those that go with their VM are left to that.
pub async fn go_on(app: &App, node: &Node) {
    let Ok(volumes) = app.store.volumes().await else { return };
    let marked = volumes
        .into_iter()
        .filter(|volume| volume.phase == VolumePhase::Deleting && volume.vm.is_none() && volume.node == node.name());
    for record in marked {
        let rest = async {
            node.delete_volume(record.pool, &record.file).await?;
            attachments::forget(app, record.id).await
        };
        let volume = ("volume", record.id, record.name.as_str());
        finish_deletion(app, volume, &[Lock::Disk], DeleteVolume::NAME, rest).await;
    }
}
