//! Making volumes: blank ones, overlays over templates, copies of other volumes.

use super::{Subject, lies_at, lock_unused, of_id, size_of, target};
use crate::{
    App, Context, Error, Result,
    ops::{copies, find, snapshot, snapshot::use_as::ground, template},
    store::{FrozenDisk, TemplatePhase, TemplateRecord, VolumePhase, VolumeRecord, VolumeRole},
    task::{Held, Lock, Outline, Task, Undo, Work},
};
use api::{
    Rpc, Time,
    orphan::OrphanKind,
    volume::{CloneVolume, CreateVolume, DiskFormat, Volume},
};
use hypervisor::{
    Node,
    storage::{Backing, PoolView},
};
use uuid::Uuid;

/// A volume that is wanted.
struct Wanted {
    name: String,
    pool: Option<String>,
    node: Option<String>,
    size_gib: Option<u64>,
}

/// What a new volume is made from.
enum Source {
    /// Nothing.
    Blank(DiskFormat),
    /// A template, which it stands on.
    Template(TemplateRecord, copies::Image),
    /// A snapshot's disk, which it stands on.
    Frozen(FrozenDisk),
    /// Another volume, byte by byte.
    Copy(Original),
}

/// A volume to copy, which nobody writes to.
struct Original {
    node: Node,
    record: VolumeRecord,
    /// The length of its file, in bytes.
    length: u64,
    /// Its virtual size, in bytes.
    size: u64,
}

/// `create-volume`
pub async fn create(context: Context, request: CreateVolume) -> Result<Work<Volume>> {
    let app = &context.app;
    let sources = [
        ("template", request.template.is_some()),
        ("volume", request.volume.is_some()),
        ("snapshot", request.snapshot.is_some()),
    ];
    if let [_, (second, _), ..] = sources.into_iter().filter(|(_, given)| *given).collect::<Vec<_>>()[..] {
        return Err(Error::field(
            second,
            "can't be given together with another source: name one, or none for a blank one",
        ));
    }
    if let Some((source, _)) = sources.iter().find(|(_, given)| *given && request.format.is_some()) {
        let message =
            format!("is given by the {source}: an overlay over a template is qcow2, a copy is as its original");
        return Err(Error::field("format", message));
    }
    let wanted = Wanted { name: request.name, pool: request.pool, node: request.node, size_gib: request.size_gib };
    if let Some(original) = &request.volume {
        return copy(context.clone(), CreateVolume::NAME, original, wanted).await;
    }
    if let Some(snapshot) = &request.snapshot {
        let record = snapshot::find(app, request.vm.as_deref(), snapshot).await?;
        let device = request.device.as_deref().unwrap_or("vda");
        let (disk, held) = ground(&context, &record, device, CreateVolume::NAME).await?;
        let node = app.node(&record.node)?;
        let named = wanted.node.as_deref().map(|named| app.node(named)).transpose()?;
        if named.is_some_and(|named| named.name() != node.name()) {
            return Err(Error::field("node", format!("must be {}, where the snapshot is", node.name())));
        }
        let pool = find::pool_on(&node, wanted.pool.as_deref()).await?;
        return work(context.clone(), CreateVolume::NAME, wanted, (node, pool), Source::Frozen(disk), held).await;
    }
    if let Some(field) = request.vm.as_ref().map(|_| "vm").or(request.device.as_ref().map(|_| "device")) {
        return Err(Error::field(field, "says which disk of a snapshot is meant: give snapshot as well"));
    }
    let template = match &request.template {
        Some(reference) => Some(template::get(app, reference).await?),
        None => None,
    };
    let (node, pool) = place(app, wanted.node.as_deref(), wanted.pool.as_deref()).await?;
    let source = match template {
        Some(template) => {
            if template.phase != TemplatePhase::Ready {
                let detail = format!("template {} is being made or deleted", template.name);
                return Err(Error::WrongState { detail, hint: Some("use another template".to_owned()) });
            }
            let copies = app.store.template_copies(Some(template.id)).await?;
            let image = copies::find(app, &node, &template, &copies).await?;
            Source::Template(template, image)
        }
        None => Source::Blank(request.format.unwrap_or(DiskFormat::Qcow2)),
    };
    work(context.clone(), CreateVolume::NAME, wanted, (node, pool), source, Vec::new()).await
}

/// `clone-volume`
pub async fn clone(context: Context, request: CloneVolume) -> Result<Work<Volume>> {
    let wanted = Wanted { name: request.name, pool: request.pool, node: request.node, size_gib: None };
    copy(context, CloneVolume::NAME, &request.volume, wanted).await
}

/// The node and pool for a new volume; the pool's name must fit only one where no node is named.
async fn place(app: &App, node: Option<&str>, pool: Option<&str>) -> Result<(Node, PoolView)> {
    let node = match node {
        Some(node) => app.node(node)?,
        None => find::only_node_with_pool(app, pool.unwrap_or(find::DEFAULT_POOL)).await?,
    };
    let pool = find::pool_on(&node, pool).await?;
    Ok((node, pool))
}

/// A copy of another volume.
async fn copy(context: Context, method: &'static str, reference: &str, wanted: Wanted) -> Result<Work<Volume>> {
    let app = &context.app;
    let hint = |record: &VolumeRecord| {
        format!("stop it first (stop-vm): what its guest is writing to {} would be torn", record.name)
    };
    let (Subject { record, node }, held) = lock_unused(app, reference, context.task, method, hint).await?;
    let view = node.volume(record.pool, &record.file).await?.ok_or_else(|| gone(&record))?;
    let to = match &wanted.node {
        Some(to) => app.node(to)?,
        None => node.clone(),
    };
    let elsewhere = to.name() != node.name();
    let pool = match &wanted.pool {
        None if !elsewhere => find::pool_on(&to, Some(&record.pool.to_string())).await?,
        pool => find::pool_on(&to, pool.as_deref()).await?,
    };
    if elsewhere
        && record.format != "raw"
        && let Some(backing) = node.backing_file(record.pool, &record.file).await?
    {
        return Err(Error::Unsupported {
            detail: format!("volume {} stands on {backing}, which is not on node {}", record.name, to.name()),
            hint: Some("clone it on its own node".to_owned()),
        });
    }
    let size = size_of(&record, &view);
    let source = Source::Copy(Original { node, record, length: view.physical, size });
    work(context.clone(), method, wanted, (to, pool), source, held).await
}

/// That a volume's file is not there.
pub(in crate::ops) fn gone(record: &VolumeRecord) -> Error {
    Error::WrongState {
        detail: format!("the image {} of volume {} is not there on node {}", record.path, record.name, record.node),
        hint: Some("it was removed outside of Vmyard; delete-volume clears what is left".to_owned()),
    }
}

impl Source {
    /// The least virtual size, in bytes, and whose it is.
    fn least(&self) -> Option<(u64, String)> {
        match self {
            Source::Blank(_) => None,
            Source::Template(template, _) => Some((template.spec.virtual_bytes, format!("template {}", template.name))),
            Source::Frozen(disk) => Some((disk.size_bytes, "the snapshot's disk".to_owned())),
            Source::Copy(original) => Some((original.size, format!("volume {}", original.record.name))),
        }
    }

    fn format(&self) -> String {
        match self {
            Source::Blank(DiskFormat::Raw) => "raw".to_owned(),
            Source::Blank(DiskFormat::Qcow2) | Source::Template(..) | Source::Frozen(_) => "qcow2".to_owned(),
            Source::Copy(original) => original.record.format.clone(),
        }
    }

    /// The bytes that are written at once.
    fn to_write(&self) -> u64 {
        match self {
            Source::Blank(_) | Source::Frozen(_) => 0,
            Source::Template(_, image) => image.to_copy(),
            Source::Copy(original) => original.length,
        }
    }

    /// The snapshot's image that the new volume stands on, like its original.
    fn base(&self) -> Option<String> {
        match self {
            Source::Blank(_) | Source::Template(..) => None,
            Source::Frozen(disk) => Some(disk.image.path.clone()),
            Source::Copy(original) => original.record.base.clone(),
        }
    }

    /// The template that the new volume stands on.
    fn template(&self) -> Option<Uuid> {
        match self {
            Source::Blank(_) => None,
            Source::Template(template, _) => Some(template.id),
            Source::Frozen(disk) => disk.template,
            Source::Copy(original) => original.record.template,
        }
    }
}

/// The virtual size, in bytes.
fn size(wanted: &Wanted, source: &Source) -> Result<u64> {
    match (wanted.size_gib.map(|gib| gib << 30), source.least()) {
        (None, None) => Err(Error::field("size_gib", "is needed for a blank volume")),
        (None, Some((least, _))) => Ok(least),
        (Some(size), Some((least, whose))) if size < least => {
            let (least, is) = (least.div_ceil(1 << 30), size >> 30);
            Err(Error::field("size_gib", format!("must be at least {least}, the size of {whose}, is {is}")))
        }
        (Some(size), _) => Ok(size),
    }
}

/// The rest: everything is found, nothing is made yet.
async fn work(
    context: Context,
    method: &'static str,
    wanted: Wanted,
    (node, pool): (Node, PoolView),
    source: Source,
    mut held: Vec<Held>,
) -> Result<Work<Volume>> {
    let app = &context.app;
    let size = size(&wanted, &source)?;
    let same_pool = |volume: &VolumeRecord| volume.pool == pool.uuid && volume.node == node.name();
    if app.store.volumes_named(&wanted.name).await?.iter().any(same_pool) {
        return Err(Error::exists("volume", &wanted.name));
    }
    if pool.available < source.to_write() {
        return Err(Error::NoCapacity(format!(
            "storage pool {} has {} bytes free, {} are to be written",
            pool.name,
            pool.available,
            source.to_write()
        )));
    }
    let (id, format) = (Uuid::now_v7(), source.format());
    let file = format!("{id}.{format}");
    let record = VolumeRecord {
        id,
        name: wanted.name,
        node: node.name().to_owned(),
        pool: pool.uuid,
        pool_name: pool.name.clone(),
        path: pool.path_of(&file),
        file,
        format,
        size_bytes: size,
        role: VolumeRole::Data,
        phase: VolumePhase::Creating,
        vm: None,
        device: None,
        template: source.template(),
        base: source.base(),
        created_at: Time::now(),
    };
    held.extend(app.locks.take(id, &record.name, &[Lock::Disk], context.task, method)?);
    let mut steps = vec!["record-volume"];
    match &source {
        Source::Blank(_) | Source::Frozen(_) => steps.push("make-volume"),
        Source::Template(_, copies::Image::Here(_)) => steps.push("make-volume"),
        Source::Template(_, copies::Image::Elsewhere(_)) => steps.extend(["await-template", "make-volume"]),
        Source::Copy(original) => {
            steps.push("copy-volume");
            steps.extend((size > original.size).then_some("grow-volume"));
        }
    }
    steps.push("make-ready");
    let outline = Outline::of(&steps).on(&node).allocates(source.to_write(), size.max(source.to_write()));
    Ok(Work::new(target(&record), held, outline, move |task| make(task, context, record, node, pool, source)))
}

/// Makes it, step by step.
async fn make(
    task: Task,
    context: Context,
    record: VolumeRecord,
    node: Node,
    pool: PoolView,
    source: Source,
) -> Result<Volume> {
    let app = &task.app;
    task.step("record-volume", Some(Undo::ForgetVolume { volume: record.id }), async {
        app.store.insert_volume(&record).await?;
        app.index.put_volume(record.clone());
        Ok(())
    })
    .await?;
    let node_name = node.name().to_owned();
    let delete = || {
        let (node, file, kind) = (node_name.clone(), record.file.clone(), OrphanKind::Volume);
        Some(Undo::DeleteVolume { node, pool: pool.uuid, file, volume: None, kind })
    };
    match &source {
        Source::Blank(_) => {
            let made = node.create_blank(pool.uuid, &record.file, &record.format, record.size_bytes);
            task.step("make-volume", delete(), async { lies_at(&made.await?, &record.path) }).await?;
        }
        Source::Frozen(disk) => {
            let backing = Backing::qcow2(&disk.image.path);
            let made = node.create_overlay(pool.uuid, &record.file, record.size_bytes, &backing);
            task.step("make-volume", delete(), async { lies_at(&made.await?, &record.path) }).await?;
        }
        Source::Template(template, image) => {
            let copy = match image {
                copies::Image::Here(copy) => copy.clone(),
                copies::Image::Elsewhere(original) => {
                    let copied = copies::ensure(&task, &context, template, original, (&node, &pool));
                    task.step("await-template", None, copied).await?
                }
            };
            let backing = Backing { path: copy.path, format: template.spec.format.clone() };
            let made = node.create_overlay(pool.uuid, &record.file, record.size_bytes, &backing);
            task.step("make-volume", delete(), async { lies_at(&made.await?, &record.path) }).await?;
        }
        Source::Copy(original) => {
            let (watched, length) = (task.clone(), original.length);
            let progress = move |copied| watched.progress(copied, length);
            let (from, to) = ((original.record.pool, original.record.file.as_str()), (pool.uuid, record.file.as_str()));
            let copied = async {
                let made = match original.node.name() == node.name() {
                    true => node.copy_volume(from, length, to, "0600", progress).await?,
                    false => original.node.send_volume(from, length, &node, to, "0600", progress).await?,
                };
                lies_at(&made.path, &record.path)
            };
            task.step("copy-volume", delete(), copied).await?;
            if record.size_bytes > original.size {
                let grown = node.resize_volume(pool.uuid, &record.file, &record.format, record.size_bytes);
                task.step("grow-volume", None, async { Ok(grown.await?) }).await?;
            }
        }
    }
    task.last_step("make-ready", None, app.store.volume_is_ready(record.id, task.id)).await?;
    crate::attachments::sync(app, record.id).await?;
    of_id(app, record.id).await
}
