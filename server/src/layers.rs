//! The images below the disks of VMs: bringing a snapshot or a revert that was cut off to one of its two ends, and deleting
//! images that nobody needs any more.

use crate::{
    App, Error, Result, images,
    store::{Image, Move, SnapshotRecord},
};
use api::snapshot::SnapshotVmState;
use hypervisor::{
    Node,
    domain::{Power, Switch},
};
use uuid::Uuid;

/// What the node is told of moves.
pub fn switches(moves: &[Move]) -> Vec<Switch> {
    moves.iter().map(|one| Switch { from: one.from.path.clone(), to: one.to.path.clone() }).collect()
}

/// Brings a snapshot whose taking was cut off to its end where the guest writes to the new images already, else back to before.
/// A running domain has all disks on new images or none, since that is one call. Of one that is off some may be switched and
/// others not, and nothing is written yet. As the end of a task's work, `task`, its journal ends as well.
pub async fn settle_snapshot(
    app: &App,
    node: &Node,
    record: &SnapshotRecord,
    moves: &[Move],
    task: Option<Uuid>,
) -> Result<()> {
    if node.disks(record.vm).await?.is_none() {
        return Ok(());
    }
    // libvirt goes on with what a server has asked for that is dead by now: it looks at the domain when no change is under
    // way. This is one itself, so it waits for the end of the one before it; the chains that a snapshot leaves go as well.
    let stay = |image: &Image| Switch { from: image.path.clone(), to: image.path.clone() };
    let as_it_is: Vec<Switch> = moves.iter().flat_map(|one| [stay(&one.from), stay(&one.to)]).collect();
    node.switch_disks(record.vm, &as_it_is).await?;
    let Some(disks) = node.disks(record.vm).await? else { return Ok(()) };
    // While its memory is written the CPUs may stand still, and a libvirtd that died in it leaves them so.
    if disks.power == Power::Paused && record.spec.vm_state == SnapshotVmState::Running && record.spec.memory.is_some()
    {
        let resumed = node.resume(record.vm).await;
        resumed.unwrap_or_else(|error| tracing::warn!(%error, "a VM stays paused whose snapshot was cut off"));
    }
    let on_new = |one: &Move| match disks.power {
        Power::Off => disks.has_defined(&one.to.path),
        _ => disks.has_live(&one.to.path),
    };
    // A libvirtd that died just after QEMU had taken it doesn't know that the guest writes to the new images.
    if disks.power != Power::Off && !moves.iter().any(on_new) {
        node.take_back_overlays(record.vm, &switches(moves)).await?;
    }
    // libvirt 9.0 takes one of a domain that has just gone off without its memory, and calls that well. It never ran on the new images.
    let whole = disks.power != Power::Off || has_memory(node, record).await?;
    if whole && moves.iter().all(on_new) {
        node.switch_disks(record.vm, &switches(moves)).await?;
        app.store.snapshot_is_ready(record, moves, task, None).await?;
        app.index.move_volumes(moves);
        return Ok(());
    }
    switch_back(node, record.vm, moves).await
}

/// Whether the file with a snapshot's memory is there, if it is one with memory.
pub async fn has_memory(node: &Node, record: &SnapshotRecord) -> Result<bool> {
    let Some(memory) = &record.spec.memory else { return Ok(true) };
    // libvirt writes it without telling its pool.
    node.refresh_pool(memory.pool).await?;
    Ok(node.volume(memory.pool, &memory.file).await?.is_some())
}

/// Puts the disks of a domain's definition back on the images that they were on.
pub async fn switch_back(node: &Node, vm: Uuid, moves: &[Move]) -> Result<()> {
    let back: Vec<Switch> = switches(moves).into_iter().map(|one| Switch { from: one.to, to: one.from }).collect();
    match node.disks(vm).await? {
        Some(_) => Ok(node.switch_disks(vm, &back).await?),
        None => Ok(()),
    }
}

/// Fails when a domain runs on images that are to be taken back: its start was under way when its power was cut.
pub async fn nothing_runs_on(node: &Node, vm: Uuid, moves: &[Move]) -> Result<()> {
    let Some(disks) = node.disks(vm).await? else { return Ok(()) };
    match moves.iter().find(|one| disks.has_live(&one.to.path)) {
        Some(one) => Err(Error::InUse(format!("VM {vm} runs on {}", one.to.path))),
        None => Ok(()),
    }
}

/// Deletes an overlay that was made for a snapshot or a revert, unless something is on it after all.
pub async fn delete_unused(app: &App, node: &Node, image: &Image) -> Result<()> {
    if !app.store.names_image(node.name(), &image.path).await? {
        node.delete_volume(image.pool, &image.file).await?;
    }
    Ok(())
}

/// Deletes the images of a node that nobody needs any more. One that something still stands on stays, and keeps no other.
pub async fn delete_leftovers(app: &App, node: &Node) -> Result<()> {
    let mut outcome = Ok(());
    for image in app.store.leftovers(node.name()).await? {
        let deleted = async {
            images::nothing_stands_on(app, node, &image.path, None).await?;
            node.delete_volume(image.pool, &image.file).await?;
            app.store.forget_leftover(node.name(), &image).await
        };
        outcome = outcome.and(deleted.await);
    }
    outcome
}

/// The step that does that as far as it goes; the rest is the reconciler's, so it doesn't fail.
pub async fn delete_leftovers_or_later(app: &App, node: &Node) -> Result<()> {
    delete_leftovers(app, node).await.or_else(|error| {
        tracing::warn!(%error, "images that nobody needs are not all deleted yet");
        Ok(())
    })
}

/// Does that in the background: what was just left behind is nobody's, and whoever has asked for something needn't wait until all
/// pools of the node were looked through for what stands on it. The reconciler does what is left when the server dies.
pub fn delete_leftovers_soon(app: &App, node: &Node) {
    let (app_, node) = (app.clone(), node.clone());
    app.tasks.in_background(async move { delete_leftovers_or_later(&app_, &node).await });
}
