//! Templates made of a volume or of a disk of a snapshot: copied, and made to stand on nothing.

use super::{
    snapshot, template,
    volume::{Subject, lock_unused},
};
use crate::{
    App, Context, Error, Result,
    ops::{find, volume::lies_at},
    store::{CopyRecord, Image, TemplateRecord},
    task::{Held, Lock, Outline, Task, Undo, Work},
};
use api::{
    Rpc,
    orphan::OrphanKind,
    task::Target,
    template::{RegisterTemplate, Template},
};
use hypervisor::{
    Node,
    storage::{Backing, PoolView},
};
use uuid::Uuid;

/// An image that a template is to be made of. Nobody writes to it as long as the locks are held.
struct Original {
    node: Node,
    image: Image,
    format: String,
    size_bytes: u64,
    held: Vec<Held>,
}

/// A template of the volume or the snapshot that the request names.
pub async fn register(context: Context, request: RegisterTemplate) -> Result<Work<Template>> {
    let app = &context.app;
    let original = match (&request.volume, &request.snapshot) {
        (Some(volume), _) => of_volume(&context, volume).await?,
        (None, snapshot) => {
            of_snapshot(&context, request.vm.as_deref(), snapshot.as_deref().unwrap_or_default()).await?
        }
    };
    let node = original.node.clone();
    if request.node.as_deref().map(|named| app.node(named)).transpose()?.is_some_and(|one| one.name() != node.name()) {
        return Err(Error::field("node", format!("must be {}, where the image is", node.name())));
    }
    let pool = find::pool_on(&node, request.pool.as_deref()).await?;
    let image = &original.image;
    let view = node.volume(image.pool, &image.file).await?;
    let length = view.map(|view| view.physical).ok_or_else(|| Error::WrongState {
        detail: format!("the image {} is not there on node {}", image.path, node.name()),
        hint: Some("it was removed outside of Vmyard".to_owned()),
    })?;
    // A raw image stands on nothing, whatever its guest may have written into it.
    let flat = original.format == "raw" || node.backing_file(image.pool, &image.file).await?.is_none();
    if pool.available < length {
        let free = pool.available;
        return Err(Error::NoCapacity(format!(
            "storage pool {} has {free} bytes free, the image has {length}",
            pool.name
        )));
    }
    let record = template::record(&request, &original.format, original.size_bytes);
    let target = Target { kind: "template".to_owned(), id: record.id, name: record.name.clone() };
    let mut held = app.locks.take(record.id, &record.name, &[Lock::Disk], context.task, RegisterTemplate::NAME)?;
    let Original { image, format, size_bytes, held: more, .. } = original;
    held.extend(more);
    let steps: &[&str] = match flat {
        true => &["record-template", "copy-image", "make-ready"],
        false => &["record-template", "make-overlay", "flatten-image", "copy-image", "delete-overlay", "make-ready"],
    };
    let outline = Outline::of(steps).on(&node).allocates(length, size_bytes);
    let flatten = (!flat).then_some(size_bytes);
    Ok(Work::new(target, held, outline, move |task| make(task, record, node, pool, image, format, flatten)))
}

async fn of_volume(context: &Context, reference: &str) -> Result<Original> {
    let hint = |_: &_| "stop it first (stop-vm), or take a snapshot and make the template of that".to_owned();
    let locked = lock_unused(&context.app, reference, context.task, RegisterTemplate::NAME, hint);
    let (Subject { record, node }, held) = locked.await?;
    Ok(Original { node, image: record.image(), format: record.format, size_bytes: record.size_bytes, held })
}

async fn of_snapshot(context: &Context, vm: Option<&str>, reference: &str) -> Result<Original> {
    let app: &App = &context.app;
    let record = snapshot::find(app, vm, reference).await?;
    let (disk, held) = snapshot::use_as::ground(context, &record, "vda", RegisterTemplate::NAME).await?;
    let node = app.node(&record.node)?;
    Ok(Original { node, image: disk.image, format: "qcow2".to_owned(), size_bytes: disk.size_bytes, held })
}

/// Makes it, step by step. What stands on other images is copied by way of an overlay that takes them all in.
async fn make(
    task: Task,
    record: TemplateRecord,
    node: Node,
    pool: PoolView,
    image: Image,
    format: String,
    flatten: Option<u64>,
) -> Result<Template> {
    let store = task.app.store.clone();
    let forget = Undo::ForgetTemplate { template: record.id };
    task.step("record-template", Some(forget), store.insert_template(&record)).await?;
    let delete = |kind: OrphanKind, pool: Uuid, file: &str| {
        let (node, file) = (node.name().to_owned(), file.to_owned());
        Some(Undo::DeleteVolume { node, pool, file, volume: None, kind })
    };
    let mut from = image.clone();
    if let Some(size_bytes) = flatten {
        let file = format!("{}.qcow2", Uuid::now_v7());
        from = Image { pool: pool.uuid, path: pool.path_of(&file), file };
        let backing = Backing { path: image.path.clone(), format };
        let made = node.create_overlay(pool.uuid, &from.file, size_bytes, &backing);
        task.step("make-overlay", delete(OrphanKind::Volume, pool.uuid, &from.file), async {
            lies_at(&made.await?, &from.path)
        })
        .await?;
        task.step("flatten-image", None, async { Ok(node.flatten(&from.path, None).await?) }).await?;
    }
    let file = format!("{}.{}", record.id, record.spec.format);
    let volume = task
        .step("copy-image", delete(OrphanKind::Template, pool.uuid, &file), async {
            let view = node.volume(from.pool, &from.file).await?;
            let length = view.map_or(0, |view| view.physical);
            let watched = task.clone();
            let progress = move |copied| watched.progress(copied, length);
            Ok(node.copy_volume((from.pool, &from.file), length, (pool.uuid, &file), "0444", progress).await?)
        })
        .await?;
    if flatten.is_some() {
        let deleted = node.delete_volume(from.pool, &from.file);
        task.step("delete-overlay", None, async { Ok(deleted.await.map(|_| ())?) }).await?;
    }
    store.set_task_progress(task.id, 10_000).await?;
    let (node, pool, pool_name) = (node.name().to_owned(), pool.uuid, pool.name);
    let copy = CopyRecord { template: record.id, node, pool, pool_name, file, path: volume.path };
    task.last_step("make-ready", None, store.template_is_ready(&copy, task.id)).await?;
    template::of_id(&task.app, record.id).await
}
