//! Deleting snapshots. Not taken back: the snapshot is hidden first, and from then on its images go one by one, each as soon as
//! at most one other stands on it, by the task or by the reconciler.
//!
//! An image on which nothing stands is deleted. One on which one other stands is merged with that: under a running guest the
//! upper one into the lower one (block commit), which then takes the upper one's place; of images that nobody uses what the
//! upper one needs is copied into it (qemu-img rebase), and the lower one goes. Where qemu-img can't be run, those go as under
//! a guest, in a domain of our own.

use super::find;
use crate::{
    App, Context, Error, Result, attachments, images, layers, observe,
    store::{Above, FrozenDisk, Image, SnapshotPhase, SnapshotRecord},
    task::{Held, Lock, Outline, Task, Work},
};
use api::{
    Rpc,
    snapshot::{DeleteSnapshot, DeletedSnapshot},
    task::Target,
};
use hypervisor::{
    ErrorKind, Node,
    domain::{Merge, Power, Switch},
    storage::Backing,
};
use uuid::Uuid;

/// What became of an image that is to go.
enum Outcome {
    Gone,
    Stays(String),
}

/// `delete-snapshot`
pub async fn delete(context: Context, request: DeleteSnapshot) -> Result<Work<DeletedSnapshot>> {
    let app = &context.app;
    let record = find(app, request.vm.as_deref(), &request.snapshot).await?;
    let node = app.node(&record.node)?;
    node.wait_until_up("delete a snapshot").await?;
    let locks = [Lock::Power, Lock::Disk];
    let held = app.locks.take(record.vm, &record.spec.vm_name, &locks, context.task, DeleteSnapshot::NAME)?;
    // Again under the lock.
    let record = find(app, None, &record.id.to_string()).await?;
    if record.phase == SnapshotPhase::Creating {
        return Err(Error::Busy { detail: format!("snapshot {} is being taken", record.name), task: None });
    }
    let target = Target { kind: "snapshot".to_owned(), id: record.id, name: record.name.clone() };
    let outline = Outline::of(&["mark-deleting", "merge-images", "delete-images"]).on(&node);
    Ok(Work::new(target, held, outline, move |task| async move {
        let app = task.app.clone();
        task.last_step("mark-deleting", None, app.store.mark_snapshot_deleting(&record)).await?;
        let stays = task.step("merge-images", None, merge_images(&app, &node, &record, Some(&task))).await?;
        let deleted = async { Ok(layers::delete_leftovers(&app, &node).await.err().map(|error| error.to_string())) };
        let left = task.step("delete-images", None, deleted).await?;
        app.store.forget_empty_snapshot(record.id).await?;
        if app.index.get(record.vm).is_some() {
            observe::refresh_after(&app, &node, record.vm).await;
        }
        Ok(DeletedSnapshot { id: record.id, name: record.name, pending: stays.or(left) })
    }))
}

/// The step that deletes the images of a VM's hidden snapshots, as far as it goes; the rest is the reconciler's, so it
/// doesn't fail.
pub async fn work_off(app: &App, node: &Node, vm: Uuid) -> Result<()> {
    let gone = async {
        let hidden = app.store.deleting_snapshots(node.name()).await?;
        // The newest first: what stands on another goes before it.
        for record in hidden.into_iter().filter(|record| record.vm == vm) {
            merge_images(app, node, &record, None).await?;
            app.store.forget_empty_snapshot(record.id).await?;
        }
        layers::delete_leftovers(app, node).await
    };
    gone.await.or_else(|error| {
        tracing::warn!(%error, "snapshots are not gone yet");
        Ok(())
    })
}

/// Goes on with the snapshots of a node that are to go, and with images that nobody needs.
pub async fn go_on(app: &App, node: &Node) {
    let hidden = app.store.deleting_snapshots(node.name()).await.unwrap_or_default();
    for record in hidden {
        let what = record.id.to_string();
        if !app.later.is_due(&what) || !may_go(app, node, &record).await.unwrap_or(true) {
            continue;
        }
        let locks = [Lock::Power, Lock::Disk];
        let taken = app.locks.take(record.vm, &record.spec.vm_name, &locks, Uuid::now_v7(), DeleteSnapshot::NAME);
        let Ok(_held) = taken else { continue };
        let done = async {
            merge_images(app, node, &record, None).await?;
            app.store.forget_empty_snapshot(record.id).await
        };
        let done = done.await;
        app.later.tried(&what, !matches!(done, Ok(true)));
        match done {
            Ok(true) => tracing::info!(snapshot = record.name, "a snapshot that was deleted is gone"),
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, snapshot = record.name, "a snapshot that was deleted is not gone yet"),
        }
    }
    let what = format!("leftovers on {}", node.name());
    if app.later.is_due(&what) {
        let deleted = layers::delete_leftovers(app, node).await;
        app.later.tried(&what, deleted.is_err());
        if let Err(error) = deleted {
            tracing::debug!(%error, "images that nobody needs are not all deleted yet");
        }
    }
}

/// Whether it is worth to lock a hidden snapshot's VM for it: at most one image stands on one of its own, and its VM is in a
/// state in which the two can be merged.
async fn may_go(app: &App, node: &Node, record: &SnapshotRecord) -> Result<bool> {
    let power = app.index.get(record.vm).and_then(|entry| entry.power());
    let merges = match power {
        Some(Power::Running) => true,
        Some(Power::Paused) => false,
        Some(Power::Off) | None => true,
    };
    let disks = app.store.disks_of_snapshot(record.id).await?;
    let mut may = disks.is_empty();
    for disk in disks {
        let above = app.store.above(node.name(), &disk.image.path).await?.len();
        may |= above == 0 || (above == 1 && merges);
    }
    Ok(may)
}

/// Takes the images out of a hidden snapshot, as far as it goes. Returns why one of them stays.
async fn merge_images(app: &App, node: &Node, record: &SnapshotRecord, task: Option<&Task>) -> Result<Option<String>> {
    // What an earlier revert has left may stand on these images, and is in nobody's way when it is gone.
    layers::delete_leftovers_or_later(app, node).await?;
    let mut why = None;
    for disk in app.store.disks_of_snapshot(record.id).await? {
        let merged = match merge(app, node, record, &disk, task).await {
            // It is hidden for good: what can't be done now is done later.
            Err(Error::Node(error)) => Outcome::Stays(error.to_string()),
            merged => merged?,
        };
        if let Outcome::Stays(reason) = merged {
            tracing::debug!(reason, path = disk.image.path, "an image of a deleted snapshot stays for now");
            why = why.or(Some(reason));
        }
    }
    Ok(why)
}

async fn merge(
    app: &App,
    node: &Node,
    record: &SnapshotRecord,
    disk: &FrozenDisk,
    task: Option<&Task>,
) -> Result<Outcome> {
    let mut above = app.store.above(node.name(), &disk.image.path).await?;
    let Some(upper) = above.pop() else {
        return match images::nothing_stands_on(app, node, &disk.image.path, None).await {
            Ok(()) => {
                app.store.drop_frozen(node.name(), disk).await?;
                Ok(Outcome::Gone)
            }
            Err(Error::InUse(who)) => Ok(Outcome::Stays(who)),
            Err(error) => Err(error),
        };
    };
    if !above.is_empty() {
        return Ok(Outcome::Stays(format!("{} images stand on {}", above.len() + 1, disk.image.path)));
    }
    // What Vmyard didn't make may stand on it as well.
    let others: Vec<_> = images::overlays(node, &disk.image.path).await?;
    if let Some(other) = others.iter().find(|other| *other != upper.path()) {
        return Ok(Outcome::Stays(format!("{other} stands on {}", disk.image.path)));
    }
    // Nobody moves, copies or grows them meanwhile; a volume in a snapshot may have another VM now than the snapshot's.
    let Ok(_volumes) = lock_volumes(app, disk, &upper) else {
        return Ok(Outcome::Stays(format!("{} is at work", upper.path())));
    };
    // Again under the lock.
    if app.store.above(node.name(), &disk.image.path).await? != [upper.clone()] {
        return Ok(Outcome::Stays(format!("{} has just changed", disk.image.path)));
    }
    if took_in(app, node, disk, &upper).await? {
        return end_taking_in(app, node, disk, &upper).await;
    }
    // Halfway, only the mark on the snapshot tells which of the two images has become what.
    app.manifests.write_ahead().await;
    match user(app, node, record, disk, upper.path()).await? {
        User::Nobody(_held) => offline(app, node, disk, &upper, task).await,
        User::Running(vm, _held) => live(app, node, vm, disk, &upper, task).await,
        User::Cannot(why) => Ok(Outcome::Stays(why)),
    }
}

/// The locks of the volumes that two images are of: a copy stands on the same images as its original.
fn lock_volumes(app: &App, disk: &FrozenDisk, upper: &Above) -> Result<Vec<Held>> {
    let above = upper.volume();
    let task = Uuid::now_v7();
    let take = |volume: Uuid| app.locks.take(volume, "an image", &[Lock::Disk], task, DeleteSnapshot::NAME);
    let mut held = take(above)?;
    if above != disk.volume {
        held.extend(take(disk.volume)?);
    }
    Ok(held)
}

/// Whether the image has taken in the one above already, by a merge whose end was not noted: what stood on the upper one, or
/// the VM, is on the lower one.
async fn took_in(app: &App, node: &Node, disk: &FrozenDisk, upper: &Above) -> Result<bool> {
    let Above::Volume(volume, image) = upper else {
        for higher in app.store.above(node.name(), upper.path()).await? {
            if backing(node, &higher).await?.as_deref() == Some(&disk.image.path) {
                return Ok(true);
            }
        }
        return Ok(false);
    };
    let Some(vm) = app.store.volume(*volume).await?.and_then(|volume| volume.vm) else { return Ok(false) };
    let Some(disks) = node.disks(vm).await? else { return Ok(false) };
    if !disks.has_live(&disk.image.path) {
        return Ok(false);
    }
    let to = |from: &Image| Switch { from: from.path.clone(), to: disk.image.path.clone() };
    node.switch_disks(vm, &[to(image), to(&disk.image)]).await?;
    Ok(true)
}

async fn end_taking_in(app: &App, node: &Node, disk: &FrozenDisk, upper: &Above) -> Result<Outcome> {
    app.store.frozen_took_in(node.name(), disk, upper).await?;
    if let Above::Volume(volume, _) = upper {
        attachments::sync(app, *volume).await?;
    }
    Ok(Outcome::Gone)
}

/// What an image's header says that it stands on.
async fn backing(node: &Node, above: &Above) -> Result<Option<String>> {
    let image = above.image();
    Ok(node.backing_file(image.pool, &image.file).await?)
}

/// Who has an image open now.
enum User {
    /// Nobody, with the lock of the VM that could start on it.
    Nobody(Vec<Held>),
    /// A running VM, with its lock where it isn't the snapshot's own.
    Running(Uuid, Vec<Held>),
    /// One that can't merge now, and why.
    Cannot(String),
}

async fn user(app: &App, node: &Node, record: &SnapshotRecord, frozen: &FrozenDisk, path: &str) -> Result<User> {
    // The index may not have seen yet what the VM is on that has the volume.
    let holder = app.store.volume(frozen.volume).await?.and_then(|volume| volume.vm).unwrap_or(record.vm);
    let found = images::vm_on(app, node.name(), path, None);
    let (vm, name) = found.unwrap_or_else(|| {
        (holder, app.index.get(holder).map_or_else(|| record.spec.vm_name.clone(), |entry| entry.name().to_owned()))
    });
    let held = match vm == record.vm {
        true => Vec::new(),
        false => match app.locks.take(vm, &name, &[Lock::Power, Lock::Disk], Uuid::now_v7(), DeleteSnapshot::NAME) {
            Ok(held) => held,
            Err(error) => return Ok(User::Cannot(error.to_string())),
        },
    };
    let Some(disks) = node.disks(vm).await? else { return Ok(User::Nobody(held)) };
    match disks.power {
        // Its memory knows the images below its disks.
        Power::Off if node.has_saved_memory(vm).await? => Ok(User::Cannot(format!(
            "VM {name} is suspended with its memory (virsh managedsave); it goes on when the VM runs"
        ))),
        Power::Off => Ok(User::Nobody(held)),
        _ if !disks.live.iter().any(|disk| disk.is_on(path)) => Ok(User::Nobody(held)),
        Power::Running => Ok(User::Running(vm, held)),
        Power::Paused => Ok(User::Cannot(format!("VM {name} is paused; it goes on when the VM runs or is off"))),
    }
}

/// Merges the image above into a snapshot's, under a running guest.
async fn live(
    app: &App,
    node: &Node,
    vm: Uuid,
    disk: &FrozenDisk,
    upper: &Above,
    task: Option<&Task>,
) -> Result<Outcome> {
    if let Err(stays) = stands_on_upper(app, node, upper).await? {
        return Ok(stays);
    }
    match node.merge_live(vm, &merge_of(disk, upper), progress_of(task)).await {
        Ok(()) => {}
        Err(error) if error.kind == ErrorKind::WrongState => return Ok(Outcome::Stays(error.to_string())),
        Err(error) => return Err(error.into()),
    }
    node.look_again(&disk.image.path).await;
    // A job that failed ends like one that is done; the header of what stood on the upper one tells.
    if matches!(upper, Above::Frozen(_)) && !took_in(app, node, disk, upper).await? {
        return Ok(Outcome::Stays(format!("{} was not merged; it is tried again", upper.path())));
    }
    let outcome = end_taking_in(app, node, disk, upper).await;
    observe::refresh_after(app, node, vm).await;
    outcome
}

/// The image that stands on the upper one of two that are to become the lower one, if there is one; with more, or where the
/// upper one is a volume's, something would stand on an image that is not one any more.
async fn stands_on_upper(app: &App, node: &Node, upper: &Above) -> Result<std::result::Result<Option<Above>, Outcome>> {
    let mut above = app.store.above(node.name(), upper.path()).await?;
    if above.len() > 1 || (above.len() == 1 && matches!(upper, Above::Volume(..))) {
        return Ok(Err(Outcome::Stays(format!("{} images stand on {}", above.len(), upper.path()))));
    }
    Ok(Ok(above.pop()))
}

fn merge_of(disk: &FrozenDisk, upper: &Above) -> Merge {
    Merge { into: disk.image.path.clone(), from: upper.path().to_owned() }
}

fn progress_of(task: Option<&Task>) -> impl Fn(u64, u64) + Send + 'static {
    let watched = task.cloned();
    move |done, total| {
        if let Some(task) = &watched {
            task.progress(done, total);
        }
    }
}

/// Merges the image above into a snapshot's, both nobody's, by a domain of our own. A VM that has the volume is off, and goes on
/// with the lower one.
async fn by_helper(app: &App, node: &Node, disk: &FrozenDisk, upper: &Above, task: Option<&Task>) -> Result<Outcome> {
    let top = match stands_on_upper(app, node, upper).await? {
        Ok(top) => top,
        Err(stays) => return Ok(stays),
    };
    let path = top.as_ref().map_or(upper.path(), Above::path);
    node.merge_unused(path, &merge_of(disk, upper), progress_of(task)).await?;
    node.look_again(&disk.image.path).await;
    // A job that failed ends like one that is done; the header of what stood on the upper one tells.
    if top.is_some() && !took_in(app, node, disk, upper).await? {
        return Ok(Outcome::Stays(format!("{} was not merged; it is tried again", upper.path())));
    }
    let holder = match upper {
        Above::Volume(volume, _) => app.store.volume(*volume).await?.and_then(|volume| volume.vm),
        Above::Frozen(_) => None,
    };
    if let Some(vm) = holder {
        let switch = Switch { from: upper.path().to_owned(), to: disk.image.path.clone() };
        match node.switch_disks(vm, &[switch]).await {
            // Its domain was undefined outside of Vmyard.
            Err(error) if error.kind == ErrorKind::NotFound => {}
            switched => switched?,
        }
        observe::refresh_after(app, node, vm).await;
    }
    end_taking_in(app, node, disk, upper).await
}

/// Copies what the image above needs of a snapshot's into it; both are nobody's now. Where the upper one's header names what is
/// below the lower one already, only the rows are behind.
async fn offline(app: &App, node: &Node, disk: &FrozenDisk, upper: &Above, task: Option<&Task>) -> Result<Outcome> {
    let stands_on = backing(node, upper).await?;
    if stands_on != disk.backing && stands_on.as_ref() != Some(&disk.image.path) {
        return Ok(Outcome::Stays(format!("{} doesn't stand on {}, as it should", upper.path(), disk.image.path)));
    }
    if stands_on != disk.backing {
        let below = match &disk.backing {
            Some(path) => Some(Backing { path: path.clone(), format: format_of(app, node, path).await? }),
            None => None,
        };
        match node.rebase(upper.path(), below.as_ref()).await {
            Ok(()) => {}
            Err(error) if error.kind == ErrorKind::Unsupported => return by_helper(app, node, disk, upper, task).await,
            Err(error) => return Err(error.into()),
        }
    }
    app.store.frozen_was_taken_in(node.name(), disk, upper).await?;
    if let Above::Volume(volume, _) = upper {
        attachments::sync(app, *volume).await?;
    }
    Ok(Outcome::Gone)
}

/// The format of the image at the bottom of a chain: a template's, or of one of ours qcow2.
async fn format_of(app: &App, node: &Node, path: &str) -> Result<String> {
    for copy in app.store.template_copies(None).await? {
        if copy.node == node.name() && copy.path == path {
            let template = app.store.template(&copy.template.to_string()).await?;
            return Ok(template.map_or_else(|| "qcow2".to_owned(), |template| template.spec.format));
        }
    }
    Ok("qcow2".to_owned())
}
