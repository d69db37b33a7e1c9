//! Copies of templates on further nodes: made when the first VM there wants one, once, however many calls wait for it.
//!
//! A copy is a task of its own, so that no call that waits for it can take it away from the others.

use super::template;
use crate::{
    App, Context, Error, Result,
    copies::Copying,
    store::{CopyRecord, TemplateRecord},
    task::{self, Call, Outline, Task, Undo, Work},
};
use api::{orphan::OrphanKind, task::Target, template::Template};
use hypervisor::{Node, storage::PoolView};
use std::time::Duration;
use uuid::Uuid;

/// What the task is called.
const COPY_TEMPLATE: &str = "copy-template";
/// How often a call that waits looks how far the copy is.
const LOOK: Duration = Duration::from_millis(300);

/// Where a VM's disk finds its template.
#[derive(Clone)]
pub enum Image {
    /// On the VM's node.
    Here(CopyRecord),
    /// On another node; it is copied first.
    Elsewhere(Original),
}

/// A copy on another node, to be copied from there.
#[derive(Clone)]
pub struct Original {
    /// That node.
    pub node: Node,
    /// The copy there.
    pub copy: CopyRecord,
    /// Its length, in bytes.
    pub length: u64,
}

impl Image {
    /// The bytes that must be copied first.
    pub fn to_copy(&self) -> u64 {
        match self {
            Image::Here(_) => 0,
            Image::Elsewhere(original) => original.length,
        }
    }
}

/// Where a VM on this node finds the template; `copies` are all that there are.
pub async fn find(app: &App, node: &Node, template: &TemplateRecord, copies: &[CopyRecord]) -> Result<Image> {
    if let Some(copy) = copies.iter().find(|copy| copy.node == node.name()) {
        return Ok(Image::Here(copy.clone()));
    }
    let mut why =
        Error::WrongState { detail: format!("template {} has no copy on any node", template.name), hint: None };
    for copy in copies {
        let read = async {
            let from = app.node(&copy.node)?;
            from.wait_until_up(&format!("copy template {} from it", template.name)).await?;
            let volume = from.volume(copy.pool, &copy.file).await?;
            let volume = volume.ok_or_else(|| Error::NotFoundOn {
                kind: "template image",
                name: copy.path.clone(),
                node: copy.node.clone(),
            })?;
            Ok(Image::Elsewhere(Original { node: from, copy: copy.clone(), length: volume.physical }))
        };
        match read.await {
            Ok(image) => return Ok(image),
            Err(error) => why = error,
        }
    }
    Err(why)
}

/// The template's copy on a node, made now if there is none: waits for it, with its progress as the waiting task's own.
pub async fn ensure(
    waiting: &Task,
    context: &Context,
    template: &TemplateRecord,
    original: &Original,
    (node, pool): (&Node, &PoolView),
) -> Result<CopyRecord> {
    let app = &waiting.app;
    let mut under_way = {
        // Held while the copy's task is journalled: of two calls one begins it, the other finds it.
        let mut all = app.copies.lock().await;
        if let Some(copy) = copy_on(app, template, node).await? {
            return Ok(copy);
        }
        let key = (template.id, node.name().to_owned());
        match all.get(&key).filter(|under_way| under_way.outcome.borrow().is_none()) {
            Some(under_way) => under_way.clone(),
            None => {
                let task = Uuid::now_v7();
                let work = copying(template.clone(), original.clone(), node.clone(), pool.clone());
                let call = Call {
                    id: task,
                    method: COPY_TEMPLATE,
                    secrets: &[],
                    caller: &context.caller,
                    token: None,
                    entry: context.audit(COPY_TEMPLATE, "accepted"),
                };
                let started = task::start(app, call, work).await?;
                let under_way = Copying { task, outcome: started.into_outcome() };
                all.insert(key, under_way.clone());
                under_way
            }
        }
    };
    let copied = waiting.unless_cancelled(async {
        loop {
            match tokio::time::timeout(LOOK, under_way.outcome.wait_for(Option::is_some)).await {
                Ok(ended) => return Ok(ended.ok().and_then(|outcome| outcome.clone())),
                Err(_) => {
                    if let Some(percent) = app.tasks.progress_of(under_way.task) {
                        waiting.progress(percent, 100);
                    }
                }
            }
        }
    });
    match copied.await? {
        Some(Ok(_)) => copy_on(app, template, node).await?.ok_or_else(|| gone(template, node)),
        Some(Err(error)) => Err(match error {
            Error::Cancelled => Error::WrongState {
                detail: format!("the copy of template {} to node {} was cancelled", template.name, node.name()),
                hint: Some("call again to copy it after all".to_owned()),
            },
            error => error,
        }),
        None => Err(Error::Internal("a copy went away without an outcome".to_owned())),
    }
}

async fn copy_on(app: &App, template: &TemplateRecord, node: &Node) -> Result<Option<CopyRecord>> {
    let copies = app.store.template_copies(Some(template.id)).await?;
    Ok(copies.into_iter().find(|copy| copy.node == node.name()))
}

fn gone(template: &TemplateRecord, node: &Node) -> Error {
    Error::WrongState {
        detail: format!("template {} has no copy on node {} any more", template.name, node.name()),
        hint: Some("it was deleted meanwhile".to_owned()),
    }
}

/// The copy itself.
fn copying(template: TemplateRecord, original: Original, to: Node, pool: PoolView) -> Work<Template> {
    let Original { node: from, copy: source, length } = original;
    let target = Target { kind: "template".to_owned(), id: template.id, name: template.name.clone() };
    let outline = Outline::of(&["copy-image", "record-copy"]).on(&to).allocates(length, length);
    Work::new(target, Vec::new(), outline, move |task| async move {
        // A name of this task's own: an earlier attempt may still have to be taken back.
        let file = format!("{}.{}", Uuid::now_v7(), template.spec.format);
        let (node, kind) = (to.name().to_owned(), OrphanKind::Template);
        let undo = Undo::DeleteVolume { node, pool: pool.uuid, file: file.clone(), volume: None, kind };
        let watched = task.clone();
        let progress = move |copied| watched.progress(copied, length);
        let sent = from.send_image((source.pool, &source.file), length, &to, (pool.uuid, &file), "0444", progress);
        let volume = task.step("copy-image", Some(undo), async { Ok(sent.await?) }).await?;
        let copy = CopyRecord {
            template: template.id,
            node: to.name().to_owned(),
            pool: pool.uuid,
            pool_name: pool.name.clone(),
            file,
            path: volume.path,
        };
        task.last_step("record-copy", None, task.app.store.insert_template_copy(&copy, task.id)).await?;
        template::of_id(&task.app, template.id).await
    })
}
