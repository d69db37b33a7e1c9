//! Volumes that Vmyard made.

use super::{Store, failed, is_taken, name_key, parse_uuid};
use crate::{Error, Result};
use api::Time;
use sqlx::{Row, any::AnyRow};
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
    /// The VM that has it.
    pub vm: Option<Uuid>,
    /// The device it is there.
    pub device: Option<String>,
    /// The template that it stands on.
    pub template: Option<Uuid>,
    /// When it was made.
    pub created_at: Time,
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

impl Store {
    /// Adds a volume. Its name may be taken; the template that it stands on may be on its way out, which is `wrong_state`.
    pub async fn insert_volume(&self, volume: &VolumeRecord) -> Result<()> {
        let mut transaction = self.begin().await?;
        if let Some(template) = volume.template {
            // A write, so that it can't cross with Store::mark_template_deleting: one of the two sees the other.
            let sql = "update template set revision = revision + 1 where id = $1 and phase = 'ready'";
            let held = sqlx::query(sql).bind(template.to_string()).execute(&mut *transaction).await;
            if held.map_err(failed("hold a template"))?.rows_affected() == 0 {
                return Err(Error::WrongState {
                    detail: format!("the template of volume {} is being deleted", volume.name),
                    hint: Some("use another template".to_owned()),
                });
            }
        }
        let inserted = sqlx::query(
            "insert into volume (id, name, name_key, node, pool, pool_name, file, path, format, size_bytes, role, vm,
             device, template, created_at, revision)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, 1)",
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
        .bind(volume.vm.map(|id| id.to_string()))
        .bind(volume.device.clone())
        .bind(volume.template.map(|id| id.to_string()))
        .bind(volume.created_at.0)
        .execute(&mut *transaction)
        .await;
        match inserted {
            Ok(_) => transaction.commit().await.map_err(failed("add a volume")),
            Err(error) if is_taken(&error) => Err(Error::exists("volume", &volume.name)),
            Err(error) => Err(failed("add a volume")(error)),
        }
    }

    /// Forgets a volume.
    pub async fn forget_volume(&self, id: Uuid) -> Result<()> {
        let deleted = sqlx::query("delete from volume where id = $1").bind(id.to_string()).execute(&self.pool).await;
        deleted.map(|_| ()).map_err(failed("forget a volume"))
    }

    /// All volumes.
    pub async fn volumes(&self) -> Result<Vec<VolumeRecord>> {
        let rows = sqlx::query(concat!(
            "select id, name, node, pool, pool_name, file, path, format, size_bytes, role, vm, device, template, created_at ",
            "from volume"
        ))
        .fetch_all(&self.pool)
        .await
        .map_err(failed("read the volumes"))?;
        rows.iter().map(read).collect()
    }

    /// The volumes of a VM.
    pub async fn volumes_of_vm(&self, vm: Uuid) -> Result<Vec<VolumeRecord>> {
        let rows = sqlx::query(concat!(
            "select id, name, node, pool, pool_name, file, path, format, size_bytes, role, vm, device, template, created_at ",
            "from volume where vm = $1 order by device"
        ))
        .bind(vm.to_string())
        .fetch_all(&self.pool)
        .await
        .map_err(failed("read the volumes of a VM"))?;
        rows.iter().map(read).collect()
    }

    /// How many volumes stand on a template.
    pub async fn volumes_on_template(&self, template: Uuid) -> Result<u64> {
        let row = sqlx::query("select count(*) as n from volume where template = $1")
            .bind(template.to_string())
            .fetch_one(&self.pool)
            .await
            .map_err(failed("count the volumes on a template"))?;
        Ok(row.get::<i64, _>("n") as u64)
    }
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
        vm: uuid("vm")?,
        device: row.get("device"),
        template: uuid("template")?,
        created_at: Time(row.get("created_at")),
    })
}
