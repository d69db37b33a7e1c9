//! Taking snapshots.

use super::{of_vm, wire};
use crate::{
    App, Context, Error, Result, layers, nvram, observe,
    ops::{
        vm,
        volume::{gone, lies_at},
    },
    store::{
        FrozenDisk, Image, Move, SnapshotPhase, SnapshotRecord, SnapshotSpec, StepBegun, VolumePhase, VolumeRecord,
        VolumeRole,
    },
    task::{Held, Lock, Outline, Task, Undo, Work},
};
use api::{
    Rpc, Time,
    orphan::OrphanKind,
    snapshot::{CreateSnapshot, Quiesce, Snapshot, SnapshotVmState},
    task::Target,
};
use hypervisor::{
    ErrorKind, Node,
    domain::{DomainDisks, Freeze, Power},
    storage::{Backing, VolumeView},
};
use std::{collections::HashMap, sync::Arc};
use uuid::Uuid;

/// A snapshot that is about to be taken: all is checked, nothing is made.
pub(super) struct Draft {
    pub(super) record: SnapshotRecord,
    pub(super) moves: Vec<Move>,
    disks: Vec<FrozenDisk>,
    node: Node,
    /// The NVRAM that is copied.
    nvram: Option<Image>,
    on: bool,
    quiesce: Quiesce,
}

/// `create-snapshot`
pub async fn create(context: Context, request: CreateSnapshot) -> Result<Work<Snapshot>> {
    let app = &context.app;
    let locks = [Lock::Power, Lock::Disk];
    let (vm, mut held) = vm::Subject::lock(app, &request.vm, &locks, context.task, CreateSnapshot::NAME)?;
    let draft = draft(app, &vm, &request).await?;
    held.extend(lock_volumes(app, &draft.moves, context.task, CreateSnapshot::NAME)?);
    let target = Target { kind: "snapshot".to_owned(), id: draft.record.id, name: draft.record.name.clone() };
    let outline = Outline::of(&draft.steps()).on(&vm.node).allocates(0, draft.grows_to());
    Ok(Work::new(target, held, outline, move |task| async move { take(&task, draft, true).await }).at_once())
}

/// The locks of volumes that are moved.
pub(super) fn lock_volumes(app: &App, moves: &[Move], task: Uuid, method: &'static str) -> Result<Vec<Held>> {
    let mut held = Vec::new();
    for one in moves {
        held.extend(app.locks.take(one.volume, &format!("volume {}", one.volume), &[Lock::Disk], task, method)?);
    }
    Ok(held)
}

/// Checks everything that a snapshot needs.
pub(super) async fn draft(app: &App, vm: &vm::Subject, request: &CreateSnapshot) -> Result<Draft> {
    let name = vm.entry.name();
    let Some(record) = &vm.entry.record else {
        return Err(Error::Unsupported {
            detail: format!("VM {name} was not made by Vmyard, which doesn't know its disks"),
            hint: Some(format!("virsh snapshot-create {name} on node {}", vm.node.name())),
        });
    };
    // Side by side: each waits for the database or for the node.
    let (same_name, parent, volumes_of_it, domain, kept) = tokio::join!(
        of_vm(app, vm.id, &request.name),
        app.store.current_snapshot(vm.id),
        volumes_of(app, vm),
        vm.text(),
        vm.node.kept_by_libvirt(vm.id)
    );
    match same_name {
        Ok(_) => return Err(Error::exists("snapshot", &request.name)),
        Err(Error::NotFound { .. }) => {}
        Err(error) => return Err(error),
    }
    let (rows, mut views) = volumes_of_it?;
    let domain = domain?;
    let kept = kept?;
    if kept.memory {
        return Err(vm.suspended());
    }
    let power = domain.power;
    let on = power != Power::Off;
    if request.memory && !on {
        return Err(Error::field("memory", format!("is not there to be saved: VM {name} is shutoff")));
    }
    if request.memory && request.quiesce == Quiesce::Require {
        let message = "can't be required together with memory, which has what the guest has not written yet";
        return Err(Error::field("quiesce", message));
    }
    let agent = domain.live.agent_connected;
    if request.quiesce == Quiesce::Require && on && !(agent && power == Power::Running) {
        return Err(Error::AgentUnavailable {
            detail: format!("the guest agent of VM {name} does not answer, and quiesce is required"),
            hint: "leave quiesce out to take the snapshot without it".to_owned(),
        });
    }
    if kept.snapshots > 0 {
        return Err(Error::Unsupported {
            detail: format!(
                "VM {name} has {} snapshots of libvirt's own, which Vmyard's would get in the way of",
                kept.snapshots
            ),
            hint: Some(format!("virsh snapshot-delete {} … on node {}", record.domain, vm.node.name())),
        });
    }
    let volumes = volumes(vm, &domain.disks(), rows, &request.exclude_disks)?;
    let id = Uuid::now_v7();
    let mut frozen = Vec::new();
    let mut moves = Vec::new();
    for volume in &volumes {
        let (view, backing) = views.remove(&volume.id).transpose()?.flatten().ok_or_else(|| gone(volume))?;
        let from = volume.image();
        frozen.push(FrozenDisk {
            snapshot: id,
            volume: volume.id,
            device: volume.device.clone().unwrap_or_default(),
            pool_name: volume.pool_name.clone(),
            image: from.clone(),
            backing,
            size_bytes: view.capacity,
            template: volume.template,
        });
        moves.push(Move {
            volume: volume.id,
            to: overlay_beside(&from),
            base: from.path.clone(),
            from,
            size_bytes: view.capacity,
        });
    }
    // As they are read back.
    frozen.sort_by(|one: &FrozenDisk, other| one.device.cmp(&other.device));
    let size = (domain.live.vcpus, domain.live.memory_mib);
    let memory = match request.memory {
        true => Some(memory_file(vm, &moves, id, size.1).await?),
        false => None,
    };
    let nvram = nvram::of_vm(&vm.node, vm.id, &record.spec).await?;
    Ok(Draft {
        record: SnapshotRecord {
            id,
            vm: vm.id,
            name: request.name.clone(),
            node: vm.node.name().to_owned(),
            parent: parent?,
            phase: SnapshotPhase::Creating,
            spec: SnapshotSpec {
                vm_name: name.to_owned(),
                description: request.description.clone(),
                vm_state: match power {
                    Power::Running => SnapshotVmState::Running,
                    Power::Paused => SnapshotVmState::Paused,
                    Power::Off => SnapshotVmState::Shutoff,
                },
                memory,
                nvram: nvram.as_ref().map(|nvram| nvram.beside(nvram::file_of(id))),
                quiesced: false,
                pause_ms: 0,
                vm: record.spec.clone(),
                size,
            },
            created_at: Time::now(),
        },
        moves,
        disks: frozen,
        node: vm.node.clone(),
        nvram,
        on,
        quiesce: if agent && power == Power::Running && !request.memory { request.quiesce } else { Quiesce::Never },
    })
}

/// Volumes by id: what the node says of them, unless they are gone, and what their images stand on.
type Views = HashMap<Uuid, Result<Option<(VolumeView, Option<String>)>>>;

/// The volumes of a VM, with what its node says of each; one that can't be read may not be needed.
async fn volumes_of(app: &App, vm: &vm::Subject) -> Result<(Vec<VolumeRecord>, Views)> {
    // The node is asked of those that the index knows while the store is: these are them, unless somebody interferes.
    let known = app.index.volumes_of(&vm.entry);
    let ask = known.into_iter().map(|one| async move {
        let view = vm.node.volume(one.pool, &one.file).await;
        ((one.pool, one.file), view)
    });
    let (rows, asked) = tokio::join!(app.store.volumes_of_vm(vm.id), futures::future::join_all(ask));
    let (rows, mut asked) = (rows?, asked.into_iter().collect::<HashMap<_, _>>());
    let mut views = Views::new();
    for row in &rows {
        let asked = asked.remove(&(row.pool, row.file.clone()));
        views.insert(row.id, view_of(app, vm, row, asked).await);
    }
    Ok((rows, views))
}

/// What the node says of a volume, which it may have been asked before, and what its image stands on; `None` when it is gone.
async fn view_of(
    app: &App,
    vm: &vm::Subject,
    row: &VolumeRecord,
    asked: Option<hypervisor::Result<Option<VolumeView>>>,
) -> Result<Option<(VolumeView, Option<String>)>> {
    let view = match asked {
        Some(asked) => asked?,
        None => vm.node.volume(row.pool, &row.file).await?,
    };
    let Some(view) = view else { return Ok(None) };
    // Where libvirt's last look and the store say the same, that is it; else its header is read.
    let backing = match known_backing(app, row).await? {
        known if known == view.backing => known,
        _ => vm.node.backing_file(row.pool, &row.file).await?,
    };
    Ok(Some((view, backing)))
}

/// What a volume's image stands on, as far as the store knows.
async fn known_backing(app: &App, volume: &VolumeRecord) -> Result<Option<String>> {
    match (&volume.base, volume.template) {
        (Some(base), _) => Ok(Some(base.clone())),
        (None, Some(template)) => {
            let copies = app.store.template_copies(Some(template)).await?;
            Ok(copies.into_iter().find(|copy| copy.node == volume.node).map(|copy| copy.path))
        }
        (None, None) => Ok(None),
    }
}

/// A fresh image in the same pool.
pub(in crate::ops) fn overlay_beside(image: &Image) -> Image {
    image.beside(format!("{}.qcow2", Uuid::now_v7()))
}

/// The file for the memory, beside the system disk; there must be room for all of it.
async fn memory_file(vm: &vm::Subject, moves: &[Move], snapshot: Uuid, memory_mib: u64) -> Result<Image> {
    let beside = moves.first().map(|one| one.from.pool).ok_or_else(|| Error::Internal("no disk".to_owned()))?;
    let pool = vm.node.pool(&beside.to_string()).await?.ok_or_else(|| Error::NotFoundOn {
        kind: "storage pool",
        name: beside.to_string(),
        node: vm.node.name().to_owned(),
    })?;
    if pool.available < memory_mib << 20 {
        return Err(Error::NoCapacity(format!(
            "storage pool {} has {} MiB free, the memory may take {memory_mib}",
            pool.name,
            pool.available >> 20
        )));
    }
    let file = format!("{snapshot}.memory");
    Ok(Image { pool: pool.uuid, path: pool.path_of(&file), file })
}

/// The volumes of a VM's disks, the system disk first; refuses disks that can't be in a snapshot.
fn volumes(
    vm: &vm::Subject,
    disks: &DomainDisks,
    rows: Vec<VolumeRecord>,
    excluded: &[String],
) -> Result<Vec<VolumeRecord>> {
    let name = vm.entry.name();
    let here = |path: &str| disks.has_live(path) && disks.has_defined(path);
    if let Some(row) = rows.iter().find(|row| row.phase == VolumePhase::Detaching || !here(&row.path)) {
        return Err(Error::WrongState {
            detail: format!("VM {name} is letting go of volume {}, or was changed outside of Vmyard", row.name),
            hint: Some("detach it (detach-volume), or start the VM anew".to_owned()),
        });
    }
    let known = |device: &&String| disks.live.iter().any(|disk| disk.target == **device);
    if let Some(device) = excluded.iter().find(|device| !known(device)) {
        return Err(Error::field("exclude_disks", format!("names {device}, which VM {name} doesn't have")));
    }
    let mut volumes = Vec::new();
    for disk in disks.live.iter().filter(|disk| !disk.cdrom) {
        let row = rows.iter().find(|row| Some(&row.path) == disk.path.as_ref());
        if excluded.contains(&disk.target) && row.is_none_or(|row| row.role == VolumeRole::Data) {
            continue;
        }
        let Some(row) = row else {
            return Err(Error::Unsupported {
                detail: format!("disk {} of VM {name} is no volume of Vmyard's", disk.target),
                hint: Some(format!("leave it out: \"exclude_disks\": [{:?}]", disk.target)),
            });
        };
        if row.format != "qcow2" {
            return Err(Error::Unsupported {
                detail: format!("disk {} of VM {name} is {}, which can't have snapshots", disk.target, row.format),
                hint: Some(format!("leave it out: \"exclude_disks\": [{:?}]", disk.target)),
            });
        }
        volumes.push(VolumeRecord { device: Some(disk.target.clone()), ..row.clone() });
    }
    volumes.sort_by_key(|volume| volume.role != VolumeRole::System);
    Ok(volumes)
}

impl Draft {
    pub(super) fn steps(&self) -> Vec<&'static str> {
        let mut steps = vec!["record-snapshot"];
        steps.extend(self.moves.iter().map(|_| "make-overlay"));
        steps.extend(self.record.spec.memory.as_ref().map(|_| "keep-memory"));
        steps.extend(self.nvram.as_ref().map(|_| "copy-nvram"));
        steps.extend(["take-snapshot", "make-ready"]);
        steps
    }

    pub(super) fn grows_to(&self) -> u64 {
        let memory = self.record.spec.memory.as_ref().map_or(0, |_| self.record.spec.size.1 << 20);
        self.moves.iter().map(|one| one.size_bytes).sum::<u64>() + memory
    }
}

/// Takes the snapshot, step by step. As the task's last work it ends the task's journal.
pub(super) async fn take(task: &Task, draft: Draft, last: bool) -> Result<Snapshot> {
    let app = &task.app;
    let Draft { mut record, moves, disks, node, nvram, on, quiesce } = draft;
    let (vm, at) = (record.vm, node.name().to_owned());
    let forget = Undo::ForgetSnapshot { snapshot: record.id };
    let (taken, frozen) = (&record, &disks);
    let delete = |one: &Move| Undo::DeleteUnused { node: at.clone(), image: one.to.clone() };
    let settle = Undo::SettleSnapshot {
        node: at.clone(),
        snapshot: record.id,
        moves: moves.clone(),
        task: last.then_some(task.id),
    };
    let copied = nvram.as_ref().zip(record.spec.nvram.as_ref());
    let delete_copy = copied.map(|(_, to)| delete_kept(&record, to, OrphanKind::Nvram));
    for one in &moves {
        task.foretell("make-overlay", Some(delete(one)));
    }
    // Settling asks a running VM's QEMU, which is not to be waited for where nothing was asked of it.
    if !on {
        delete_copy.iter().for_each(|delete| task.foretell("copy-nvram", Some(delete.clone())));
        task.foretell("take-snapshot", Some(settle.clone()));
    }
    task.step_in_store("record-snapshot", Some(forget), false, |step| async move {
        app.store.insert_snapshot(taken, frozen, &step).await
    })
    .await?;
    let make_overlays = moves.iter().map(|one| make_overlay(task, &node, one, Backing::qcow2(&one.base), delete(one)));
    // Side by side, each to its end: one that fails doesn't cut the others in half.
    let made = futures::future::join_all(make_overlays).await;
    made.into_iter().collect::<Result<Vec<()>>>()?;
    if let Some(memory) = &record.spec.memory {
        let delete = delete_kept(&record, memory, OrphanKind::Memory);
        task.step("keep-memory", Some(delete), async { Ok(()) }).await?;
    }
    if let Some((from, to)) = copied {
        task.step("copy-nvram", delete_copy, nvram::set(&node, to.pool, &to.file, Some((from.pool, &from.file))))
            .await?;
    }
    let (quiesced, pause_ms) = task
        .step("take-snapshot", Some(settle), async {
            if !on {
                node.switch_disks(vm, &layers::switches(&moves)).await?;
                return Ok((false, 0));
            }
            let watch = node.watch_pauses(vm);
            let quiesced = freeze(&node, &record, &moves, quiesce).await?;
            if !layers::has_memory(&node, &record).await? {
                return Err(Error::WrongState {
                    detail: format!("VM {} went off before its memory was saved", record.spec.vm_name),
                    hint: Some("take the snapshot without memory, or start it first (start-vm)".to_owned()),
                });
            }
            let sure = record.spec.memory.is_some() && record.spec.vm_state == SnapshotVmState::Running;
            Ok((quiesced, watch.total(sure).await.as_millis() as u64))
        })
        .await?;
    (record.spec.quiesced, record.spec.pause_ms) = (quiesced, pause_ms);
    record.phase = SnapshotPhase::Ready;
    let (taken, moved, reply) = (&record, &moves, wire(&record, disks, true));
    let make_ready = async {
        let is_ready =
            |step: Arc<StepBegun>| async move { app.store.snapshot_is_ready(taken, moved, None, Some(&step)).await };
        match last {
            true => task.end_in_store("make-ready", &reply, is_ready).await?,
            false => task.step_in_store("make-ready", None, false, is_ready).await?,
        }
        app.index.move_volumes(moved);
        Ok::<_, Error>(())
    };
    if !on {
        observe::disks_moved(app, &node, vm, moved);
        make_ready.await?;
        return Ok(reply);
    }
    // What the domain is like by now hangs on nothing of that.
    let (made_ready, ()) = tokio::join!(make_ready, observe::refresh_after(app, &node, vm));
    made_ready?;
    Ok(reply)
}

fn delete_kept(record: &SnapshotRecord, file: &Image, kind: OrphanKind) -> Undo {
    let (pool, file) = (file.pool, file.file.clone());
    Undo::DeleteKept { node: record.node.clone(), snapshot: record.id, pool, file, kind }
}

/// Makes the overlay that a volume is to go on in.
pub(in crate::ops) async fn make_overlay(
    task: &Task,
    node: &Node,
    one: &Move,
    backing: Backing,
    delete: Undo,
) -> Result<()> {
    let made = node.create_overlay(one.to.pool, &one.to.file, one.size_bytes, &backing);
    task.step("make-overlay", Some(delete), async { lies_at(&made.await?, &one.to.path) }).await
}

/// Freezes the disks; where that is only wished for, without the agent when it doesn't answer. Returns whether it did.
async fn freeze(node: &Node, record: &SnapshotRecord, moves: &[Move], quiesce: Quiesce) -> Result<bool> {
    let memory = record.spec.memory.as_ref().map(|memory| memory.path.clone());
    let switches = layers::switches(moves);
    if quiesce != Quiesce::Never {
        let how = Freeze { memory: None, quiesce: true };
        match node.freeze_disks(record.vm, &switches, &how).await {
            Err(error) if quiesce == Quiesce::Auto && is_of_the_agent(&error) => {
                tracing::info!(%error, "a snapshot is taken without the guest agent");
            }
            frozen => return Ok(frozen.map(|()| true)?),
        }
    }
    node.freeze_disks(record.vm, &switches, &Freeze { memory, quiesce: false }).await?;
    Ok(false)
}

fn is_of_the_agent(error: &hypervisor::Error) -> bool {
    error.kind == ErrorKind::Agent || error.cause.contains("guest agent") || error.cause.contains("fsfreeze")
}
