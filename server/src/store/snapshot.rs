//! Snapshots.

use super::{
    FrozenDisk, Store, VmRecord, VmSpec, expect_one, failed, from_json, is_taken,
    leftover::leave,
    name_key, parse_uuid,
    task::{StepBegun, begin_step, close_journal, end_task},
    to_json,
};
use crate::{Error, Result};
use api::{Time, snapshot::SnapshotVmState};
use serde::{Deserialize, Serialize};
use sqlx::{Any, Row, Transaction, any::AnyRow};
use std::collections::HashSet;
use uuid::Uuid;

/// A snapshot of a VM.
#[derive(Debug, Clone, PartialEq)]
pub struct SnapshotRecord {
    /// Its id.
    pub id: Uuid,
    /// The VM, which may be gone.
    pub vm: Uuid,
    /// Its name, unique among the VM's.
    pub name: String,
    /// The node.
    pub node: String,
    /// The snapshot that the VM was on.
    pub parent: Option<Uuid>,
    /// How far it is.
    pub phase: SnapshotPhase,
    /// The rest.
    pub spec: SnapshotSpec,
    /// When it was taken.
    pub created_at: Time,
}

/// How far a snapshot is.
///
/// ```text
/// Creating ──> Ready ──> Deleting ──> (gone, when its images are)
///    └──> (gone: unwound)
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotPhase {
    /// It is being taken.
    Creating,
    /// It can be used.
    Ready,
    /// It is hidden, and goes when what stands on its images allows it. Never taken back.
    Deleting,
}

impl SnapshotPhase {
    fn as_str(self) -> &'static str {
        match self {
            SnapshotPhase::Creating => "creating",
            SnapshotPhase::Ready => "ready",
            SnapshotPhase::Deleting => "deleting",
        }
    }

    fn parse(text: &str) -> Result<SnapshotPhase> {
        let all = [SnapshotPhase::Creating, SnapshotPhase::Ready, SnapshotPhase::Deleting];
        let found = all.into_iter().find(|phase| phase.as_str() == text);
        found.ok_or_else(|| Error::Internal(format!("the database has {text:?} for a snapshot's phase")))
    }
}

/// What is known of a snapshot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SnapshotSpec {
    /// The VM's name then.
    pub vm_name: String,
    /// Free text.
    pub description: String,
    /// What the VM did.
    pub vm_state: SnapshotVmState,
    /// The file with its memory.
    pub memory: Option<Image>,
    /// The copy of its NVRAM; `None` where there was none yet.
    #[serde(default)]
    pub nvram: Option<Image>,
    /// Whether the guest's file systems were frozen.
    pub quiesced: bool,
    /// How long the guest stood still, in milliseconds.
    pub pause_ms: u64,
    /// The VM as it was.
    pub vm: VmSpec,
    /// Its size then, in virtual CPUs and MiB: a VM that resumes needs room for it.
    pub size: (u32, u64),
}

impl SnapshotSpec {
    /// The files that it has beside images.
    pub fn files(&self) -> impl Iterator<Item = &Image> {
        self.memory.iter().chain(&self.nvram)
    }
}

/// An image, or another file, in a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// The pool.
    pub pool: Uuid,
    /// libvirt's name for the volume.
    pub file: String,
    /// Where it is on the node.
    pub path: String,
}

impl Image {
    /// Another file of its pool, beside it.
    pub fn beside(&self, file: String) -> Image {
        let directory = self.path.rsplit_once('/').map_or("", |(directory, _)| directory);
        Image { pool: self.pool, path: format!("{directory}/{file}"), file }
    }
}

/// A volume that goes on in another image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// The volume.
    pub volume: Uuid,
    /// The image that it was on.
    pub from: Image,
    /// The image that it is on from then on, in the same pool.
    pub to: Image,
    /// The path of the image that the new one stands on.
    pub base: String,
    /// Its virtual size, in bytes.
    pub size_bytes: u64,
}

const COLUMNS: &str = "id, vm, name, node, parent, phase, spec, created_at";

impl Store {
    /// Adds a snapshot that is being taken, in one with the beginning of the step that does it. Its name may be taken.
    pub async fn insert_snapshot(
        &self,
        snapshot: &SnapshotRecord,
        disks: &[FrozenDisk],
        step: &StepBegun,
    ) -> Result<()> {
        let mut transaction = self.begin().await?;
        begin_step(&mut transaction, step).await?;
        let inserted = sqlx::query(
            "insert into snapshot (id, vm, name, name_key, node, parent, phase, spec, created_at, revision)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, 1)",
        )
        .bind(snapshot.id.to_string())
        .bind(snapshot.vm.to_string())
        .bind(&snapshot.name)
        .bind(name_key(&snapshot.name))
        .bind(&snapshot.node)
        .bind(snapshot.parent.map(|id| id.to_string()))
        .bind(snapshot.phase.as_str())
        .bind(to_json(&snapshot.spec)?)
        .bind(snapshot.created_at.0)
        .execute(&mut *transaction)
        .await;
        match inserted {
            Ok(_) => {}
            Err(error) if is_taken(&error) => return Err(Error::exists("snapshot", &snapshot.name)),
            Err(error) => return Err(failed("add a snapshot")(error)),
        }
        for disk in disks {
            sqlx::query(
                "insert into snapshot_disk (snapshot, volume, device, pool, pool_name, file, path, backing, size_bytes, template)
                 values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
            )
            .bind(disk.snapshot.to_string())
            .bind(disk.volume.to_string())
            .bind(&disk.device)
            .bind(disk.image.pool.to_string())
            .bind(&disk.pool_name)
            .bind(&disk.image.file)
            .bind(&disk.image.path)
            .bind(disk.backing.clone())
            .bind(disk.size_bytes as i64)
            .bind(disk.template.map(|id| id.to_string()))
            .execute(&mut *transaction)
            .await
            .map_err(failed("add a snapshot's disk"))?;
        }
        self.commit(transaction, "add a snapshot").await
    }

    /// Makes a snapshot ready, moves the volumes to the images in which they go on and the VM onto the snapshot; with `task`
    /// its journal ends with that, or the task, where the step says so. In one, also with the beginning of the `step` that does it: from here on a crash takes nothing back.
    /// Done already, it does nothing, but for an error when it is a step.
    pub async fn snapshot_is_ready(
        &self,
        snapshot: &SnapshotRecord,
        moves: &[Move],
        task: Option<Uuid>,
        step: Option<&StepBegun>,
    ) -> Result<()> {
        let mut transaction = self.begin().await?;
        if let Some(step) = step {
            begin_step(&mut transaction, step).await?;
        }
        let updated = sqlx::query(
            "update snapshot set phase = 'ready', spec = $1, revision = revision + 1 where id = $2 and phase = 'creating'",
        )
        .bind(to_json(&snapshot.spec)?)
        .bind(snapshot.id.to_string())
        .execute(&mut *transaction)
        .await
        .map_err(failed("make a snapshot ready"))?;
        match step {
            Some(_) => expect_one(updated.rows_affected(), &format!("snapshot {}", snapshot.name))?,
            None if updated.rows_affected() == 0 => return Ok(()),
            None => {}
        }
        move_volumes(&mut transaction, moves).await?;
        stand_on(&mut transaction, snapshot.vm, snapshot.id).await?;
        if let Some(task) = task {
            close_journal(&mut transaction, task).await?;
        }
        if let Some((step, reply)) = step.and_then(|step| Some((step, step.closes.as_ref()?))) {
            end_task(&mut transaction, step.task, reply).await?;
        }
        self.commit(transaction, "make a snapshot ready").await
    }

    /// Moves volumes to new images over a snapshot's and the VM onto it, leaves the images that they were on, and another
    /// file, as leftovers, and ends the task's journal; in one.
    pub async fn is_reverted(
        &self,
        snapshot: &SnapshotRecord,
        moves: &[Move],
        other: Option<&Image>,
        task: Uuid,
    ) -> Result<()> {
        let mut transaction = self.begin().await?;
        move_volumes(&mut transaction, moves).await?;
        for left in moves.iter().map(|one| &one.from).chain(other) {
            leave(&mut transaction, &snapshot.node, left).await?;
        }
        stand_on(&mut transaction, snapshot.vm, snapshot.id).await?;
        close_journal(&mut transaction, task).await?;
        self.commit(transaction, "end a revert").await
    }

    /// Moves a VM's system volume to a new image over a template, off all snapshots, of which these go; leaves the image that it
    /// was on as a leftover, and ends the task's journal; in one.
    pub async fn vm_is_reset(
        &self,
        vm: &mut VmRecord,
        moved: &Move,
        with_snapshots: &[SnapshotRecord],
        task: Uuid,
    ) -> Result<()> {
        let mut transaction = self.begin().await?;
        let sql = "update vm set spec = $1, snapshot = null, revision = revision + 1 where id = $2 and revision = $3";
        let updated = sqlx::query(sql).bind(to_json(&vm.spec)?).bind(vm.id.to_string()).bind(vm.revision);
        let updated = updated.execute(&mut *transaction).await.map_err(failed("reset a VM"))?;
        expect_one(updated.rows_affected(), &format!("VM {}", vm.name))?;
        move_volumes(&mut transaction, std::slice::from_ref(moved)).await?;
        let query = sqlx::query("update volume set base = null, template = $1 where id = $2");
        let query = query.bind(vm.spec.template.map(|id| id.to_string())).bind(moved.volume.to_string());
        query.execute(&mut *transaction).await.map_err(failed("note a volume's template"))?;
        leave(&mut transaction, &vm.node, &moved.from).await?;
        for snapshot in with_snapshots {
            hide(&mut transaction, snapshot).await?;
        }
        close_journal(&mut transaction, task).await?;
        self.commit(transaction, "reset a VM").await?;
        vm.revision += 1;
        Ok(())
    }

    /// Forgets a snapshot that was being taken; one that is ready stays.
    pub async fn forget_unfinished_snapshot(&self, id: Uuid) -> Result<()> {
        let mut transaction = self.begin().await?;
        for sql in [
            "delete from snapshot_disk where snapshot in (select id from snapshot where id = $1 and phase = 'creating')",
            "delete from snapshot where id = $1 and phase = 'creating'",
        ] {
            let deleted = sqlx::query(sql).bind(id.to_string()).execute(&mut *transaction).await;
            deleted.map_err(failed("forget a snapshot"))?;
        }
        self.commit(transaction, "forget a snapshot").await
    }

    /// Hides a snapshot that is to go: its name is free, and what was on it is on its parent. Its memory is a leftover. Never
    /// taken back.
    pub async fn mark_snapshot_deleting(&self, snapshot: &SnapshotRecord) -> Result<()> {
        let mut transaction = self.begin().await?;
        hide(&mut transaction, snapshot).await?;
        self.commit(transaction, "mark a snapshot").await
    }

    /// Forgets a hidden snapshot that has no image any more; returns whether it has none.
    pub async fn forget_empty_snapshot(&self, id: Uuid) -> Result<bool> {
        let deleted = sqlx::query(
            "delete from snapshot where id = $1 and phase = 'deleting'
             and not exists (select 1 from snapshot_disk where snapshot = $1)",
        )
        .bind(id.to_string())
        .execute(&self.pool)
        .await;
        self.changed();
        Ok(deleted.map_err(failed("forget a snapshot"))?.rows_affected() == 1)
    }

    /// The snapshots of a VM, the oldest first, hidden ones included.
    pub async fn snapshots_of(&self, vm: Uuid) -> Result<Vec<SnapshotRecord>> {
        let sql = format!("select {COLUMNS} from snapshot where vm = $1 order by created_at, id");
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(vm.to_string()).fetch_all(&self.pool).await;
        rows.map_err(failed("read the snapshots of a VM"))?.iter().map(read).collect()
    }

    /// The hidden snapshots on a node, the newest first: what stands on another goes before it.
    pub async fn deleting_snapshots(&self, node: &str) -> Result<Vec<SnapshotRecord>> {
        let sql = format!(
            "select {COLUMNS} from snapshot where node = $1 and phase = 'deleting' order by created_at desc, id desc"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(node).fetch_all(&self.pool).await;
        rows.map_err(failed("read the snapshots that go"))?.iter().map(read).collect()
    }

    /// The snapshot of this name or id of a VM; hidden ones are not found.
    pub async fn snapshot_of(&self, vm: Uuid, reference: &str) -> Result<Option<SnapshotRecord>> {
        let sql = format!(
            "select {COLUMNS} from snapshot where vm = $1 and phase <> 'deleting' and (id = $2 or name_key = $3)"
        );
        let id = Uuid::try_parse(reference).map(|id| id.to_string()).unwrap_or_default();
        let query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(vm.to_string()).bind(id).bind(name_key(reference));
        let row = query.fetch_optional(&self.pool).await;
        row.map_err(failed("read a snapshot"))?.as_ref().map(read).transpose()
    }

    /// The snapshot with this id.
    pub async fn snapshot(&self, id: Uuid) -> Result<Option<SnapshotRecord>> {
        let sql = format!("select {COLUMNS} from snapshot where id = $1");
        let row = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(id.to_string()).fetch_optional(&self.pool).await;
        row.map_err(failed("read a snapshot"))?.as_ref().map(read).transpose()
    }

    /// The snapshot that a VM is on.
    pub async fn current_snapshot(&self, vm: Uuid) -> Result<Option<Uuid>> {
        let row = sqlx::query("select snapshot from vm where id = $1").bind(vm.to_string()).fetch_optional(&self.pool);
        let row = row.await.map_err(failed("read a VM's snapshot"))?;
        row.and_then(|row| row.get::<Option<String>, _>("snapshot")).map(|id| parse_uuid(&id)).transpose()
    }

    /// The images and memory files of snapshots, and leftovers, by node and path: what is no volume of its own.
    pub async fn snapshot_files(&self) -> Result<HashSet<(String, String)>> {
        let rows = sqlx::query(
            "select s.node, d.path from snapshot_disk d join snapshot s on s.id = d.snapshot
             union select node, path from leftover",
        );
        let rows = rows.fetch_all(&self.pool).await.map_err(failed("read the images of snapshots"))?;
        let mut files: HashSet<_> = rows.iter().map(|row| (row.get("node"), row.get("path"))).collect();
        let sql = format!("select {COLUMNS} from snapshot");
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql)).fetch_all(&self.pool).await;
        for row in &rows.map_err(failed("read the snapshots"))? {
            let snapshot = read(row)?;
            files.extend(snapshot.spec.files().map(|file| (snapshot.node.clone(), file.path.clone())));
        }
        Ok(files)
    }

    /// Whether a volume or a snapshot has this image.
    pub async fn names_image(&self, node: &str, path: &str) -> Result<bool> {
        let sql = "select (select count(*) from volume where node = $1 and path = $2)
                   + (select count(*) from snapshot_disk d join snapshot s on s.id = d.snapshot
                      where s.node = $1 and d.path = $2) as n";
        let row = sqlx::query(sql).bind(node).bind(path).fetch_one(&self.pool).await;
        Ok(row.map_err(failed("look for an image"))?.get::<i64, _>("n") > 0)
    }
}

async fn move_volumes(transaction: &mut Transaction<'_, Any>, moves: &[Move]) -> Result<()> {
    for volume in moves {
        sqlx::query(
            "update volume set file = $1, path = $2, base = $3, size_bytes = $4, revision = revision + 1 where id = $5",
        )
        .bind(&volume.to.file)
        .bind(&volume.to.path)
        .bind(&volume.base)
        .bind(volume.size_bytes as i64)
        .bind(volume.volume.to_string())
        .execute(&mut **transaction)
        .await
        .map_err(failed("move a volume to another image"))?;
    }
    Ok(())
}

pub(super) async fn hide(transaction: &mut Transaction<'_, Any>, snapshot: &SnapshotRecord) -> Result<()> {
    for file in snapshot.spec.files() {
        leave(transaction, &snapshot.node, file).await?;
    }
    for sql in [
        "update snapshot set parent = (select parent from snapshot where id = $1) where parent = $1",
        "update vm set snapshot = (select parent from snapshot where id = $1) where snapshot = $1",
        "update snapshot set phase = 'deleting', name_key = id, revision = revision + 1 where id = $1",
    ] {
        let marked = sqlx::query(sql).bind(snapshot.id.to_string()).execute(&mut **transaction).await;
        marked.map_err(failed("mark a snapshot"))?;
    }
    Ok(())
}

async fn stand_on(transaction: &mut Transaction<'_, Any>, vm: Uuid, snapshot: Uuid) -> Result<()> {
    let query =
        sqlx::query("update vm set snapshot = $1 where id = $2").bind(snapshot.to_string()).bind(vm.to_string());
    query.execute(&mut **transaction).await.map(|_| ()).map_err(failed("move a VM onto a snapshot"))
}

fn read(row: &AnyRow) -> Result<SnapshotRecord> {
    Ok(SnapshotRecord {
        id: parse_uuid(row.get("id"))?,
        vm: parse_uuid(row.get("vm"))?,
        name: row.get("name"),
        node: row.get("node"),
        parent: row.get::<Option<String>, _>("parent").map(|id| parse_uuid(&id)).transpose()?,
        phase: SnapshotPhase::parse(row.get("phase"))?,
        spec: from_json(row.get("spec"))?,
        created_at: Time(row.get("created_at")),
    })
}

pub(super) fn read_image(row: &AnyRow) -> Result<Image> {
    Ok(Image { pool: parse_uuid(row.get("pool"))?, file: row.get("file"), path: row.get("path") })
}
