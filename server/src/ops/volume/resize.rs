//! Growing volumes, also under a running guest.

use super::{Subject, create::gone, lock_holder, of_id, size_of};
use crate::{
    Context, Error, Result, attachments,
    store::VolumePhase,
    task::{Outline, Work},
};
use api::{
    Rpc,
    volume::{ResizeVolume, Volume},
};
use hypervisor::domain::Power;

/// `resize-volume`
pub async fn resize(context: Context, request: ResizeVolume) -> Result<Work<Volume>> {
    let app = &context.app;
    let found = Subject::find(app, &request.volume, request.pool.as_deref(), request.node.as_deref()).await?;
    let (subject, held) = found.lock(app, context.task, ResizeVolume::NAME).await?;
    let target = subject.target();
    let Subject { record, node } = subject;
    if record.phase == VolumePhase::Detaching {
        return Err(super::busy(&record, "detached"));
    }
    let mut held = vec![held];
    let mut running = None;
    if let Some((vm, locks)) = lock_holder(app, &record, context.task, ResizeVolume::NAME).await? {
        held.extend(locks);
        // Its running guest is told, if it really has the disk now.
        let disks = node.disks(vm.id).await?;
        let has = disks.is_some_and(|disks| disks.power != Power::Off && disks.has_live(&record.path));
        running = has.then_some(vm.id);
    }
    let view = node.volume(record.pool, &record.file).await?.ok_or_else(|| gone(&record))?;
    let (now, wanted) = (size_of(&record, &view), request.size_gib << 30);
    if wanted < now {
        let message = format!(
            "must be at least {}, its size now, is {}: a volume can't be made smaller",
            now.div_ceil(1 << 30),
            request.size_gib
        );
        return Err(Error::field("size_gib", message));
    }
    let outline = Outline::of(&["resize-image", "record-size"]).on(&node).allocates(0, wanted - now);
    Ok(Work::new(target, held, outline, move |task| async move {
        let app = &task.app;
        // Nothing is lost by what is larger than it was, so there is no way back: it can't be made smaller.
        task.last_step("resize-image", None, async {
            match running {
                Some(vm) => node.resize_disk(vm, &record.path, wanted).await?,
                None => node.resize_volume(record.pool, &record.file, &record.format, wanted).await?,
            }
            Ok(())
        })
        .await?;
        task.step("record-size", None, async {
            app.store.set_volume_size(record.id, wanted).await?;
            attachments::sync(app, record.id).await
        })
        .await?;
        of_id(app, record.id).await
    }))
}
