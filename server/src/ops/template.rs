//! Templates.

use super::{find, finish_deletion, page, template_image};
use crate::{
    App, Context, Error, Result, images,
    size::gib,
    store::{CopyRecord, TemplatePhase, TemplateRecord, TemplateSpec},
    task::{Lock, Outline, Task, Undo, Work},
};
use api::{
    Access, Page, Rpc, Time,
    orphan::OrphanKind,
    task::Target,
    template::{
        DeleteTemplate, DeletedTemplate, DescribeTemplate, ListTemplates, RegisterTemplate, Template, TemplateCopy,
        TemplateState, Templates,
    },
};
use hypervisor::{
    ErrorKind, Node,
    storage::{PoolView, Source},
};
use uuid::Uuid;

/// How the names of passing pools begin.
pub const LOOKUP: &str = "vmyard-lookup-";

/// `register-template`
pub async fn register(context: Context, request: RegisterTemplate) -> Result<Work<Template>> {
    let app = &context.app;
    if app.store.template(&request.name).await?.is_some() {
        return Err(Error::exists("template", &request.name));
    }
    let RegisterTemplate { file, volume, snapshot, vm, .. } = &request;
    if [file, volume, snapshot].into_iter().flatten().count() != 1 {
        return Err(Error::field("file", "is needed, or volume, or snapshot: exactly one of them"));
    }
    if vm.is_some() && snapshot.is_none() {
        return Err(Error::field("vm", "says whose snapshot is meant: give snapshot as well"));
    }
    let Some(path) = file.clone() else { return template_image::register(context, request).await };
    let node = node_with_file(app, request.node.as_deref())?;
    let pool = find::pool_on(&node, request.pool.as_deref()).await?;
    // Any file of the host has bytes that somebody may not be meant to read; so have the seeds.
    if context.caller.role < Access::Administrator {
        let pool = node.pool_with(&path).await?;
        if pool.is_none_or(|pool| pool.starts_with("vmyard-")) {
            let message = "lies outside of the node's storage pools, where only an administrator may take it from";
            return Err(Error::field("file", message));
        }
    }
    let lookup = format!("{LOOKUP}{}", context.task.simple());
    let source = node.inspect_file(&path, &lookup).await.map_err(|error| about_file(&path, error))?;
    if pool.available < source.length {
        return Err(Error::NoCapacity(format!(
            "storage pool {} has {} bytes free, the image has {}",
            pool.name, pool.available, source.length
        )));
    }
    let record = record(&request, source.image.format.as_str(), source.image.virtual_bytes);
    let target = Target { kind: "template".to_owned(), id: record.id, name: record.name.clone() };
    let held = app.locks.take(record.id, &record.name, &[Lock::Disk], context.task, RegisterTemplate::NAME)?;
    let outline = Outline::of(&["record-template", "open-image", "copy-image", "make-ready"]).on(&node);
    let outline = outline.allocates(source.length, source.length);
    Ok(Work::new(target, held, outline, move |task| import(task, record, node, pool, source, lookup)))
}

/// The row of a template that is to be made.
pub(super) fn record(request: &RegisterTemplate, format: &str, virtual_bytes: u64) -> TemplateRecord {
    TemplateRecord {
        id: Uuid::now_v7(),
        name: request.name.clone(),
        phase: TemplatePhase::Creating,
        spec: TemplateSpec {
            os: request.os.clone(),
            cloud_init: request.cloud_init,
            guest_agent: request.guest_agent,
            default_user: request.default_user.clone(),
            format: format.to_owned(),
            virtual_bytes,
        },
        created_at: Time::now(),
    }
}

async fn import(
    task: Task,
    record: TemplateRecord,
    node: Node,
    pool: PoolView,
    source: Source,
    lookup: String,
) -> Result<Template> {
    let store = task.app.store.clone();
    task.step("record-template", Some(Undo::ForgetTemplate { template: record.id }), store.insert_template(&record))
        .await?;

    let drop_lookup = Undo::DropLookupPool { node: node.name().to_owned(), pool: lookup.clone() };
    task.step("open-image", Some(drop_lookup), async { Ok(()) }).await?;

    let file = format!("{}.{}", record.id, record.spec.format);
    let (node_name, kind) = (node.name().to_owned(), OrphanKind::Template);
    let delete = Undo::DeleteVolume { node: node_name, pool: pool.uuid, file: file.clone(), volume: None, kind };
    let length = source.length;
    let watched = task.clone();
    let copying = node.import(&source, &lookup, pool.uuid, &file, move |copied| watched.progress(copied, length));
    let volume = task.step("copy-image", Some(delete), async { Ok(copying.await?) }).await?;
    store.set_task_progress(task.id, 10_000).await?;

    let copy = CopyRecord {
        template: record.id,
        node: node.name().to_owned(),
        pool: pool.uuid,
        pool_name: pool.name,
        file,
        path: volume.path,
    };
    task.last_step("make-ready", None, store.template_is_ready(&copy, task.id)).await?;
    to_wire(&task.app, &TemplateRecord { phase: TemplatePhase::Ready, ..record }).await
}

/// The node whose file is meant: the named one, or the only one.
fn node_with_file(app: &App, reference: Option<&str>) -> Result<Node> {
    let mut nodes = app.nodes_of(reference)?;
    match nodes.pop() {
        Some(node) if nodes.is_empty() => Ok(node),
        _ => Err(Error::field("node", "is needed, since there is not just one node: name the one that has the file")),
    }
}

fn about_file(file: &str, error: hypervisor::Error) -> Error {
    match error.kind {
        ErrorKind::NotFound => Error::field("file", format!("there is no file {file} on node {}", error.node)),
        ErrorKind::Refused => Error::field("file", format!("the image {file} is refused: {}", error.cause)),
        // A directory, a device; or, on a remote node, a directory that libvirt can't make a pool over.
        ErrorKind::Failed => Error::field(
            "file",
            format!(
                "{file} on node {} can't be read: {}; copy it into a storage pool of the node",
                error.node, error.cause
            ),
        ),
        _ => error.into(),
    }
}

/// `list-templates`
pub async fn list(context: Context, request: ListTemplates) -> Result<Templates> {
    let mut records = context.app.store.templates().await?;
    // The order of the cursor, which is not every database's.
    records.sort_by_key(|record| record.name.to_lowercase());
    let page = Page { limit: request.limit, cursor: request.cursor };
    let cut = page::cut(records, &page, |record| record.name.to_lowercase())?;
    let mut templates = Vec::new();
    for record in &cut.rows {
        templates.push(to_wire(&context.app, record).await?);
    }
    Ok(Templates { templates, next_cursor: cut.next_cursor, total: cut.total })
}

/// `describe-template`
pub async fn describe(context: Context, request: DescribeTemplate) -> Result<Template> {
    let record = get(&context.app, &request.template).await?;
    to_wire(&context.app, &record).await
}

/// `delete-template`
pub async fn delete(context: Context, request: DeleteTemplate) -> Result<Work<DeletedTemplate>> {
    let app = &context.app;
    let record = get(app, &request.template).await?;
    let held = app.locks.take(record.id, &record.name, &[Lock::Disk], context.task, DeleteTemplate::NAME)?;
    let users = app.store.volumes_on_template(record.id).await?;
    if users > 0 {
        return Err(in_use(&record.name, users));
    }
    for copy in app.store.template_copies(Some(record.id)).await? {
        images::nothing_stands_on(app, &app.node(&copy.node)?, &copy.path, None).await?;
    }
    let target = Target { kind: "template".to_owned(), id: record.id, name: record.name.clone() };
    let outline = Outline::of(&["mark-deleting", "delete-images", "forget-template"]);
    Ok(Work::new(target, held, outline, move |task| async move {
        let app = task.app.clone();
        // From here on it is not taken back: what is marked is deleted, now or by the reconciler.
        let marked = task.last_step("mark-deleting", None, app.store.mark_template_deleting(record.id)).await?;
        if !marked {
            return Err(in_use(&record.name, app.store.volumes_on_template(record.id).await?));
        }
        task.step("delete-images", None, delete_images(&app, record.id)).await?;
        task.step("forget-template", None, app.store.forget_template(record.id)).await?;
        Ok(DeletedTemplate { id: record.id, name: record.name })
    }))
}

async fn delete_images(app: &App, template: Uuid) -> Result<()> {
    for copy in app.store.template_copies(Some(template)).await? {
        app.node(&copy.node)?.delete_volume(copy.pool, &copy.file).await?;
    }
    Ok(())
}

/// Takes away what look-ups of a server that died have left on a node: their ids are older than this server.
pub async fn drop_left_lookups(app: &App, node: &Node) -> hypervisor::Result<()> {
    let started = app.started_at.0;
    node.drop_lookup_pools(move |pool| {
        let id = pool.strip_prefix(LOOKUP).and_then(|id| Uuid::try_parse(id).ok());
        let made = id.and_then(|id| id.get_timestamp()).map(|time| time.to_unix().0 as i64 * 1000);
        made.is_some_and(|made| made + 1000 < started)
    })
    .await
}

/// Goes on with deletions of templates that were cut off, as far as they have an image on this node.
pub async fn go_on(app: &App, node: &Node) {
    let Ok(records) = app.store.templates().await else { return };
    let Ok(copies) = app.store.template_copies(None).await else { return };
    let is_here = |record: &TemplateRecord| {
        let mut of_it = copies.iter().filter(|copy| copy.template == record.id).peekable();
        of_it.peek().is_none() || of_it.any(|copy| copy.node == node.name())
    };
    let deleting = records.iter().filter(|record| record.phase == TemplatePhase::Deleting);
    for record in deleting.filter(|record| is_here(record)) {
        let rest = async {
            delete_images(app, record.id).await?;
            app.store.forget_template(record.id).await
        };
        let template = ("template", record.id, record.name.as_str());
        finish_deletion(app, template, &[Lock::Disk], DeleteTemplate::NAME, rest).await;
    }
}

fn in_use(name: &str, users: u64) -> Error {
    Error::InUse(format!(
        "{users} volume{} on template {name}: disks of VMs or others (list-volumes); delete those first",
        if users == 1 { " stands" } else { "s stand" }
    ))
}

/// The template of this name or id.
pub async fn get(app: &App, reference: &str) -> Result<TemplateRecord> {
    app.store.template(reference).await?.ok_or_else(|| Error::not_found("template", reference))
}

/// The template of this name or id, which disks can be made of.
pub async fn ready(app: &App, reference: &str) -> Result<TemplateRecord> {
    let template = get(app, reference).await?;
    match template.phase {
        TemplatePhase::Ready => Ok(template),
        _ => Err(Error::WrongState {
            detail: format!("template {} is not ready", template.name),
            hint: Some("describe-template says what is being done with it".to_owned()),
        }),
    }
}

/// The template with this id on the wire.
pub async fn of_id(app: &App, id: Uuid) -> Result<Template> {
    to_wire(app, &get(app, &id.to_string()).await?).await
}

async fn to_wire(app: &App, record: &TemplateRecord) -> Result<Template> {
    let copies = app.store.template_copies(Some(record.id)).await?;
    let copy = |copy: CopyRecord| TemplateCopy { node: copy.node, pool: copy.pool_name, path: copy.path };
    Ok(Template {
        id: record.id,
        name: record.name.clone(),
        state: match record.phase {
            TemplatePhase::Creating => TemplateState::Creating,
            TemplatePhase::Ready => TemplateState::Ready,
            TemplatePhase::Deleting => TemplateState::Deleting,
        },
        os: record.spec.os.clone(),
        cloud_init: record.spec.cloud_init,
        guest_agent: record.spec.guest_agent,
        default_user: record.spec.default_user.clone(),
        format: record.spec.format.clone(),
        size_gib: gib(record.spec.virtual_bytes),
        size_bytes: record.spec.virtual_bytes,
        copies: copies.into_iter().map(copy).collect(),
        vms: app.store.volumes_on_template(record.id).await?,
        created_at: record.created_at,
    })
}
