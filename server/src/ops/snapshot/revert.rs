//! Going back to a snapshot.

use super::{
    create::{self, lock_volumes, make_overlay, overlay_beside},
    of_id, of_vm,
};
use crate::{
    App, Context, Error, Result, admission, layers, nvram, observe,
    ops::vm::{self, wrong_power},
    store::{Image, Move, SnapshotPhase, SnapshotRecord},
    task::{Outline, Task, Undo, Work},
};
use api::{
    Rpc,
    orphan::OrphanKind,
    snapshot::{CreateSnapshot, Quiesce, RevertToSnapshot, Reverted, SnapshotVmState},
    vm::Firmware,
};
use hypervisor::{Node, domain::Power, storage::Backing};
use uuid::Uuid;

/// `revert-to-snapshot`
pub async fn revert(context: Context, request: RevertToSnapshot) -> Result<Work<Reverted>> {
    let app = &context.app;
    let (vm, mut held) = vm::Subject::lock_whole(app, &request.vm, context.task, RevertToSnapshot::NAME).await?;
    let record = of_vm(app, vm.id, &request.snapshot).await?;
    if record.phase != SnapshotPhase::Ready {
        return Err(Error::Busy { detail: format!("snapshot {} is being taken", record.name), task: None });
    }
    match vm.power(app).await? {
        Power::Off => {}
        power => return Err(wrong_power(vm.entry.name(), power, "shutoff", "stop it first (stop-vm)")),
    }
    let (moves, left_out) = moves(app, &vm, &record).await?;
    held.extend(lock_volumes(app, &moves, context.task, RevertToSnapshot::NAME)?);
    let reservation = match record.spec.memory {
        // It runs on at once.
        Some(_) => Some(admission::reserve(app, &vm.node, vm.id, record.spec.size.0, record.spec.size.1).await?),
        None => None,
    };
    let backup = match request.backup {
        Some(name) => {
            let description = format!("before the revert to {}", record.name);
            let vm_ = vm.entry.name().to_owned();
            let (memory, quiesce, exclude_disks) = (false, Quiesce::Never, Vec::new());
            let request = CreateSnapshot { vm: vm_, name, memory, quiesce, exclude_disks, description };
            Some(create::draft(app, &vm, &request).await?)
        }
        None => None,
    };
    let mut steps = backup.as_ref().map(create::Draft::steps).unwrap_or_default();
    steps.extend(moves.iter().map(|_| "make-overlay"));
    let uefi = record.spec.vm.firmware == Firmware::Uefi;
    steps.extend(uefi.then_some(["keep-nvram", "restore-nvram"]).into_iter().flatten());
    steps.push("switch-disks");
    steps.extend(record.spec.memory.as_ref().map(|_| "restore-memory"));
    steps.push("record-revert");
    let grows = moves.iter().map(|one| one.size_bytes).sum();
    let outline = Outline::of(&steps).on(&vm.node).allocates(0, grows);
    let outline = match &reservation {
        Some(reservation) => outline.admitted(reservation),
        None => outline,
    };
    Ok(Work::new(vm.target(), held, outline, move |task| async move {
        let _reservation = reservation;
        let app = &task.app;
        let backup_id = backup.as_ref().map(|draft| draft.record.id);
        let mut moves = moves;
        if let Some(draft) = backup {
            // What is left behind is what the backup has put under itself.
            for one in &mut moves {
                if let Some(moved) = draft.moves.iter().find(|moved| moved.volume == one.volume) {
                    one.from = moved.to.clone();
                }
            }
            create::take(&task, draft, false).await?;
        }
        go_back(&task, &vm.node, &record, &moves).await?;
        let backup = match backup_id {
            Some(id) => Some(of_id(app, id).await?),
            None => None,
        };
        Ok(Reverted { vm: app.index.to_wire(vm.id)?, snapshot: of_id(app, record.id).await?, backup, left_out })
    }))
}

/// What revert-to-snapshot answers when nobody waited for it any more.
pub async fn reply(app: &App, vm: Uuid) -> Result<Reverted> {
    let on = app.store.current_snapshot(vm).await?.ok_or_else(|| Error::not_found("snapshot of VM", vm.to_string()))?;
    Ok(Reverted { vm: app.index.to_wire(vm)?, snapshot: of_id(app, on).await?, backup: None, left_out: Vec::new() })
}

/// Where each disk of the snapshot goes, and the devices whose volumes the VM has no more.
async fn moves(app: &App, vm: &vm::Subject, record: &SnapshotRecord) -> Result<(Vec<Move>, Vec<String>)> {
    let volumes = app.store.volumes_of_vm(vm.id).await?;
    let disks = app.store.disks_of_snapshot(record.id).await?;
    let (mut moves, mut left_out) = (Vec::new(), Vec::new());
    for disk in &disks {
        let Some(volume) = volumes.iter().find(|volume| volume.id == disk.volume) else {
            left_out.push(disk.device.clone());
            continue;
        };
        let to = overlay_beside(&disk.image);
        moves.push(Move {
            volume: volume.id,
            from: volume.image(),
            to,
            base: disk.image.path.clone(),
            size_bytes: disk.size_bytes,
        });
    }
    if moves.is_empty() {
        return Err(Error::WrongState {
            detail: format!("VM {} has none of the volumes of snapshot {} any more", vm.entry.name(), record.name),
            hint: None,
        });
    }
    // A guest whose memory comes back finds the disks that it had, and no others.
    let added = volumes.iter().any(|volume| !disks.iter().any(|disk| disk.volume == volume.id));
    if record.spec.memory.is_some() && (added || !left_out.is_empty()) {
        return Err(Error::WrongState {
            detail: format!(
                "snapshot {} has memory, and VM {} doesn't have the same disks any more",
                record.name,
                vm.entry.name()
            ),
            hint: Some("attach or detach volumes until it has those that describe-snapshot tells".to_owned()),
        });
    }
    Ok((moves, left_out))
}

async fn go_back(task: &Task, node: &Node, record: &SnapshotRecord, moves: &[Move]) -> Result<()> {
    let (app, vm) = (&task.app, record.vm);
    let at = node.name().to_owned();
    let make_overlays = moves.iter().map(|one| {
        let delete = Undo::DeleteUnused { node: at.clone(), image: one.to.clone() };
        make_overlay(task, node, one, Backing::qcow2(&one.base), delete)
    });
    let made = futures::future::join_all(make_overlays).await;
    made.into_iter().collect::<Result<Vec<()>>>()?;
    let kept = restore_nvram(task, node, record).await?;
    let restores = record.spec.memory.is_some();
    let back = Undo::SwitchBack { node: at, vm, moves: moves.to_vec(), cut_power: restores };
    let switches = layers::switches(moves);
    task.step("switch-disks", Some(back), async { Ok(node.switch_disks(vm, &switches).await?) }).await?;
    if let Some(memory) = &record.spec.memory {
        let paused = record.spec.vm_state == SnapshotVmState::Paused;
        let frozen = app.store.disks_of_snapshot(record.id).await?;
        let device = |one: &Move| frozen.iter().find(|disk| disk.volume == one.volume).map(|disk| disk.device.clone());
        let disks: Vec<_> = moves.iter().filter_map(|one| Some((device(one)?, one.to.path.clone()))).collect();
        let restored = node.restore(vm, &memory.path, &disks, paused);
        task.step("restore-memory", None, async {
            restored.await?;
            // What it has in mind of its name and tags is of then; the definition's is of now.
            let labels = node.before_change(vm).await?.labels;
            Ok(node.relabel(vm, labels).await?)
        })
        .await?;
    }
    task.last_step("record-revert", None, app.store.is_reverted(record, moves, kept.as_ref(), task.id)).await?;
    app.index.move_volumes(moves);
    observe::refresh_after(app, node, vm).await;
    layers::delete_leftovers_soon(app, node);
    Ok(())
}

/// Gives a UEFI VM the NVRAM that it had then, or none where it had none yet. Returns the copy of what it has now.
async fn restore_nvram(task: &Task, node: &Node, record: &SnapshotRecord) -> Result<Option<Image>> {
    let spec = &record.spec.vm;
    if spec.firmware != Firmware::Uefi {
        return Ok(None);
    }
    let (pool, file, at) = (spec.pool, nvram::file_of(record.vm), || node.name().to_owned());
    let now = nvram::of_vm(node, record.vm, spec).await?;
    let kept = now.map(|now| now.beside(nvram::file_of(Uuid::now_v7())));
    let kept_file = kept.as_ref().map(|kept| kept.file.clone());
    let delete = kept_file.clone().map(|file| Undo::DeleteVolume {
        node: at(),
        pool,
        file,
        volume: None,
        kind: OrphanKind::Nvram,
    });
    let keep = async {
        match &kept_file {
            Some(kept) => nvram::set(node, pool, kept, Some((pool, &file))).await,
            None => Ok(()),
        }
    };
    task.step("keep-nvram", delete, keep).await?;
    let undo = Undo::RestoreNvram { node: at(), pool, file: file.clone(), kept: kept_file.clone() };
    let then = record.spec.nvram.as_ref().map(|nvram| (nvram.pool, nvram.file.as_str()));
    task.step("restore-nvram", Some(undo), nvram::set(node, pool, &file, then)).await?;
    Ok(kept)
}
