//! Volumes that Vmyard made.

use super::{
    Image, Store, failed, is_taken, name_key, parse_uuid,
    task::{StepBegun, begin_step, close_journal},
};
use crate::{Error, Result};
use api::Time;
use sqlx::{Any, Row, Transaction, any::AnyRow};
use uuid::Uuid;

/// A volume that Vmyard made.
#[derive(Debug, Clone, PartialEq)]
pub struct VolumeRecord {
    /// Its id.
    pub id: Uuid,
    /// Its name, unique in its pool.
    pub name: String,
    /// The node.
    pub node: String,
    /// The pool.
    pub pool: Uuid,
    /// The pool's name.
    pub pool_name: String,
    /// libvirt's name for the volume.
    pub file: String,
    /// Where it is on the node.
    pub path: String,
    /// `qcow2` or `raw`.
    pub format: String,
    /// Virtual size, in bytes.
    pub size_bytes: u64,
    /// What it is for.
    pub role: VolumeRole,
    /// How far it is.
    pub phase: VolumePhase,
    /// The VM that has it.
    pub vm: Option<Uuid>,
    /// The device it is there.
    pub device: Option<String>,
    /// The template that it stands on, however far below.
    pub template: Option<Uuid>,
    /// The path of the snapshot's image that its own stands on.
    pub base: Option<String>,
    /// When it was made.
    pub created_at: Time,
}

impl VolumeRecord {
    /// Its image.
    pub fn image(&self) -> Image {
        Image { pool: self.pool, file: self.file.clone(), path: self.path.clone() }
    }
}

/// What a volume is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VolumeRole {
    /// It goes with its VM.
    System,
    /// It outlives its VM.
    Data,
}

impl VolumeRole {
    fn as_str(self) -> &'static str {
        match self {
            VolumeRole::System => "system",
            VolumeRole::Data => "data",
        }
    }
}

/// How far a volume is.
///
/// ```text
/// Creating ──> Ready <──> Detaching
///                │            │ (its VM has let go of it: Ready, and nobody's)
///                v            v
///             Deleting     (with its VM, too)
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VolumePhase {
    /// It is being made.
    Creating,
    /// It can be used.
    Ready,
    /// Its VM is asked to let go of it, or has it no more in its definition but still in its hands.
    Detaching,
    /// It is on its way out, which is not taken back.
    Deleting,
}

impl VolumePhase {
    const ALL: [VolumePhase; 4] =
        [VolumePhase::Creating, VolumePhase::Ready, VolumePhase::Detaching, VolumePhase::Deleting];

    fn as_str(self) -> &'static str {
        match self {
            VolumePhase::Creating => "creating",
            VolumePhase::Ready => "ready",
            VolumePhase::Detaching => "detaching",
            VolumePhase::Deleting => "deleting",
        }
    }

    fn parse(text: &str) -> Result<VolumePhase> {
        let found = VolumePhase::ALL.into_iter().find(|phase| phase.as_str() == text);
        found.ok_or_else(|| Error::Internal(format!("the database has {text:?} for a volume's phase")))
    }
}

/// The columns of a row, as [`read`] wants them.
const COLUMNS: &str = "id, name, node, pool, pool_name, file, path, format, size_bytes, role, phase, vm, device, template, base, created_at";

/// Adds a volume within a transaction.
pub(super) async fn insert(transaction: &mut Transaction<'_, Any>, volume: &VolumeRecord) -> Result<()> {
    if let Some(template) = volume.template {
        // A write, so that it can't cross with Store::mark_template_deleting: one of the two sees the other.
        let sql = "update template set revision = revision + 1 where id = $1 and phase = 'ready'";
        let held = sqlx::query(sql).bind(template.to_string()).execute(&mut **transaction).await;
        if held.map_err(failed("hold a template"))?.rows_affected() == 0 {
            return Err(Error::WrongState {
                detail: format!("the template of volume {} is being deleted", volume.name),
                hint: Some("use another template".to_owned()),
            });
        }
    }
    let inserted = sqlx::query(
        "insert into volume (id, name, name_key, node, pool, pool_name, file, path, format, size_bytes, role, phase,
             vm, device, template, base, created_at, revision)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, 1)",
    )
    .bind(volume.id.to_string())
    .bind(&volume.name)
    .bind(name_key(&volume.name))
    .bind(&volume.node)
    .bind(volume.pool.to_string())
    .bind(&volume.pool_name)
    .bind(&volume.file)
    .bind(&volume.path)
    .bind(&volume.format)
    .bind(volume.size_bytes as i64)
    .bind(volume.role.as_str())
    .bind(volume.phase.as_str())
    .bind(volume.vm.map(|id| id.to_string()))
    .bind(volume.device.clone())
    .bind(volume.template.map(|id| id.to_string()))
    .bind(volume.base.clone())
    .bind(volume.created_at.0)
    .execute(&mut **transaction)
    .await;
    match inserted {
        Ok(_) => Ok(()),
        Err(error) if is_taken(&error) => Err(Error::exists("volume", &volume.name)),
        Err(error) => Err(failed("add a volume")(error)),
    }
}

impl Store {
    /// Adds a volume. Its name may be taken; the template that it stands on may be on its way out, which is `wrong_state`.
    pub async fn insert_volume(&self, volume: &VolumeRecord) -> Result<()> {
        let mut transaction = self.begin().await?;
        insert(&mut transaction, volume).await?;
        self.commit(transaction, "add a volume").await
    }

    /// Forgets a volume, whose image is gone.
    pub async fn forget_volume(&self, id: Uuid) -> Result<()> {
        let mut transaction = self.begin().await?;
        for sql in [
            "delete from made where exists
             (select 1 from volume v where v.id = $1 and v.pool = made.pool and v.file = made.file)",
            "delete from volume where id = $1",
        ] {
            let deleted = sqlx::query(sql).bind(id.to_string()).execute(&mut *transaction).await;
            deleted.map_err(failed("forget a volume"))?;
        }
        self.commit(transaction, "forget a volume").await
    }

    /// All volumes.
    pub async fn volumes(&self) -> Result<Vec<VolumeRecord>> {
        let rows = sqlx::query(select("")).fetch_all(&self.pool).await.map_err(failed("read the volumes"))?;
        rows.iter().map(read).collect()
    }

    /// The volume with this id.
    pub async fn volume(&self, id: Uuid) -> Result<Option<VolumeRecord>> {
        let row = sqlx::query(select("where id = $1")).bind(id.to_string()).fetch_optional(&self.pool).await;
        row.map_err(failed("read a volume"))?.as_ref().map(read).transpose()
    }

    /// The volumes of this name (without case) or id, on all nodes and in all pools.
    pub async fn volumes_named(&self, reference: &str) -> Result<Vec<VolumeRecord>> {
        let query = sqlx::query(select("where id = $1 or name_key = $2"))
            .bind(reference.to_lowercase())
            .bind(name_key(reference));
        let rows = query.fetch_all(&self.pool).await.map_err(failed("read a volume"))?;
        rows.iter().map(read).collect()
    }

    /// The volumes of a VM.
    pub async fn volumes_of_vm(&self, vm: Uuid) -> Result<Vec<VolumeRecord>> {
        let rows =
            sqlx::query(select("where vm = $1 order by device")).bind(vm.to_string()).fetch_all(&self.pool).await;
        rows.map_err(failed("read the volumes of a VM"))?.iter().map(read).collect()
    }

    /// Makes a volume ready and ends the journal of the task that made it, in one: from here on a crash takes nothing
    /// back.
    pub async fn volume_is_ready(&self, id: Uuid, task: Uuid) -> Result<()> {
        let mut transaction = self.begin().await?;
        sqlx::query("update volume set phase = 'ready', revision = revision + 1 where id = $1 and phase = 'creating'")
            .bind(id.to_string())
            .execute(&mut *transaction)
            .await
            .map_err(failed("make a volume ready"))?;
        close_journal(&mut transaction, task).await?;
        self.commit(transaction, "make a volume ready").await
    }

    /// Notes a volume's size, in bytes.
    pub async fn set_volume_size(&self, id: Uuid, bytes: u64) -> Result<()> {
        let updated = sqlx::query("update volume set size_bytes = $1, revision = revision + 1 where id = $2")
            .bind(bytes as i64)
            .bind(id.to_string())
            .execute(&self.pool)
            .await;
        self.changed();
        updated.map(|_| ()).map_err(failed("note a volume's size"))
    }

    /// Notes which snapshot's image a volume's own stands on.
    pub async fn set_volume_base(&self, id: Uuid, base: Option<&str>) -> Result<()> {
        let sql = "update volume set base = $1, revision = revision + 1 where id = $2";
        let query = sqlx::query(sql).bind(base.map(str::to_owned)).bind(id.to_string());
        let done = query.execute(&self.pool).await;
        self.changed();
        done.map(|_| ()).map_err(failed("note what a volume stands on"))
    }

    /// Gives a volume to a VM as this device, in one with the beginning of the `step` that does it; returns whether it was nobody's
    /// and ready, and does nothing if not.
    pub async fn claim_volume(&self, id: Uuid, vm: Uuid, device: &str, step: Option<&StepBegun>) -> Result<bool> {
        let mut transaction = self.begin().await?;
        if let Some(step) = step {
            begin_step(&mut transaction, step).await?;
        }
        let updated = sqlx::query(
            "update volume set vm = $1, device = $2, revision = revision + 1
             where id = $3 and vm is null and phase = 'ready'",
        )
        .bind(vm.to_string())
        .bind(device)
        .bind(id.to_string())
        .execute(&mut *transaction)
        .await
        .map_err(failed("give a volume to a VM"))?;
        if updated.rows_affected() == 0 {
            return Ok(false);
        }
        self.commit(transaction, "give a volume to a VM").await?;
        Ok(true)
    }

    /// Notes that a volume is being let go of by its VM, or that it is not any more.
    pub async fn set_volume_detaching(&self, id: Uuid, vm: Uuid, detaching: bool) -> Result<()> {
        let (from, to) = if detaching { ("ready", "detaching") } else { ("detaching", "ready") };
        let updated = sqlx::query(
            "update volume set phase = $1, revision = revision + 1 where id = $2 and vm = $3 and phase = $4",
        )
        .bind(to)
        .bind(id.to_string())
        .bind(vm.to_string())
        .bind(from)
        .execute(&self.pool)
        .await;
        self.changed();
        updated.map(|_| ()).map_err(failed("change a volume's phase"))
    }

    /// Takes a volume from a VM; one that isn't the VM's any more stays as it is.
    pub async fn release_volume(&self, id: Uuid, vm: Uuid) -> Result<()> {
        let updated = sqlx::query(
            "update volume set vm = null, device = null, phase = 'ready', revision = revision + 1
             where id = $1 and vm = $2 and phase <> 'deleting'",
        )
        .bind(id.to_string())
        .bind(vm.to_string())
        .execute(&self.pool)
        .await;
        self.changed();
        updated.map(|_| ()).map_err(failed("take a volume from a VM"))
    }

    /// Marks a volume as one that goes; returns whether it was nobody's and ready. From here on it is not taken back.
    pub async fn mark_volume_deleting(&self, id: Uuid) -> Result<bool> {
        let updated = sqlx::query(
            "update volume set phase = 'deleting', revision = revision + 1
             where id = $1 and vm is null and phase = 'ready'",
        )
        .bind(id.to_string())
        .execute(&self.pool)
        .await;
        self.changed();
        Ok(updated.map_err(failed("mark a volume"))?.rows_affected() == 1)
    }

    /// How many volumes, and images that snapshots keep, stand on a template.
    pub async fn volumes_on_template(&self, template: Uuid) -> Result<u64> {
        let sql = "select (select count(*) from volume where template = $1)
                   + (select count(*) from snapshot_disk where template = $1) as n";
        let row = sqlx::query(sql)
            .bind(template.to_string())
            .fetch_one(&self.pool)
            .await
            .map_err(failed("count the volumes on a template"))?;
        Ok(row.get::<i64, _>("n") as u64)
    }
}

/// The question for rows as [`read`] wants them.
fn select(which: &'static str) -> sqlx::AssertSqlSafe<String> {
    sqlx::AssertSqlSafe(format!("select {COLUMNS} from volume {which}"))
}

fn read(row: &AnyRow) -> Result<VolumeRecord> {
    let uuid = |column: &str| row.get::<Option<String>, _>(column).map(|text| parse_uuid(&text)).transpose();
    Ok(VolumeRecord {
        id: parse_uuid(row.get("id"))?,
        name: row.get("name"),
        node: row.get("node"),
        pool: parse_uuid(row.get("pool"))?,
        pool_name: row.get("pool_name"),
        file: row.get("file"),
        path: row.get("path"),
        format: row.get("format"),
        size_bytes: row.get::<i64, _>("size_bytes") as u64,
        role: if row.get::<&str, _>("role") == "system" { VolumeRole::System } else { VolumeRole::Data },
        phase: VolumePhase::parse(row.get("phase"))?,
        vm: uuid("vm")?,
        device: row.get("device"),
        template: uuid("template")?,
        base: row.get("base"),
        created_at: Time(row.get("created_at")),
    })
}
