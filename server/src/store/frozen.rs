//! The images that snapshots keep, and what stands on them.

use super::{Image, Store, failed, leftover::leave, parse_uuid, snapshot::read_image};
use crate::Result;
use sqlx::{Any, Row, Transaction, any::AnyRow};
use uuid::Uuid;

/// A disk of a snapshot: an image that nobody writes to any more.
#[derive(Debug, Clone, PartialEq)]
pub struct FrozenDisk {
    /// The snapshot.
    pub snapshot: Uuid,
    /// The volume.
    pub volume: Uuid,
    /// The device that it was.
    pub device: String,
    /// The pool's name.
    pub pool_name: String,
    /// The image.
    pub image: Image,
    /// The path of the image that it stands on.
    pub backing: Option<String>,
    /// Virtual size, in bytes.
    pub size_bytes: u64,
    /// The template at the bottom.
    pub template: Option<Uuid>,
}

/// What stands on an image: a volume's own image, or one that another snapshot keeps.
#[derive(Debug, Clone, PartialEq)]
pub enum Above {
    /// A volume.
    Volume(Uuid, Image),
    /// A disk of a snapshot.
    Frozen(Box<FrozenDisk>),
}

impl Above {
    /// The volume that it is of.
    pub fn volume(&self) -> Uuid {
        match self {
            Above::Volume(volume, _) => *volume,
            Above::Frozen(disk) => disk.volume,
        }
    }

    /// Its image.
    pub fn image(&self) -> &Image {
        match self {
            Above::Volume(_, image) => image,
            Above::Frozen(disk) => &disk.image,
        }
    }

    /// Its path.
    pub fn path(&self) -> &str {
        &self.image().path
    }
}

const DISK_COLUMNS: &str = "snapshot, volume, device, pool, pool_name, file, path, backing, size_bytes, template";

impl Store {
    /// The disks of a snapshot, by device.
    pub async fn disks_of_snapshot(&self, snapshot: Uuid) -> Result<Vec<FrozenDisk>> {
        self.frozen("where snapshot = $1 order by device", snapshot.to_string()).await
    }

    /// The images that snapshots keep of a volume.
    pub async fn frozen_of_volume(&self, volume: Uuid) -> Result<Vec<FrozenDisk>> {
        self.frozen("where volume = $1 order by snapshot", volume.to_string()).await
    }

    async fn frozen(&self, which: &str, value: String) -> Result<Vec<FrozenDisk>> {
        let sql = format!("select {DISK_COLUMNS} from snapshot_disk {which}");
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(value).fetch_all(&self.pool).await;
        rows.map_err(failed("read the disks of snapshots"))?.iter().map(read_disk).collect()
    }

    /// What stands on an image, by what is known of volumes and snapshots.
    pub async fn above(&self, node: &str, path: &str) -> Result<Vec<Above>> {
        let mut above = Vec::new();
        let rows = sqlx::query("select id, pool, file, path from volume where node = $1 and base = $2")
            .bind(node)
            .bind(path)
            .fetch_all(&self.pool)
            .await
            .map_err(failed("read what stands on an image"))?;
        for row in &rows {
            above.push(Above::Volume(parse_uuid(row.get("id"))?, read_image(row)?));
        }
        let columns = DISK_COLUMNS.replace(", ", ", d.");
        let sql = format!(
            "select d.{columns} from snapshot_disk d join snapshot s on s.id = d.snapshot where s.node = $1 and d.backing = $2"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(node).bind(path).fetch_all(&self.pool).await;
        for row in &rows.map_err(failed("read what stands on an image"))? {
            above.push(Above::Frozen(Box::new(read_disk(row)?)));
        }
        Ok(above)
    }

    /// Takes a disk out of a snapshot, and leaves its image, on which nothing stands, as a leftover.
    pub async fn drop_frozen(&self, node: &str, disk: &FrozenDisk) -> Result<()> {
        let mut transaction = self.begin().await?;
        forget_frozen(&mut transaction, disk).await?;
        leave(&mut transaction, node, &disk.image).await?;
        self.commit(transaction, "drop an image").await
    }

    /// The image above has taken in what it needs of a snapshot's disk, and stands on what that stood on.
    pub async fn frozen_was_taken_in(&self, node: &str, disk: &FrozenDisk, above: &Above) -> Result<()> {
        let mut transaction = self.begin().await?;
        let backing = disk.backing.clone();
        let done = match above {
            Above::Volume(volume, _) => {
                let sql = "update volume set base = $1, revision = revision + 1 where id = $2";
                sqlx::query(sql).bind(backing).bind(volume.to_string()).execute(&mut *transaction).await
            }
            Above::Frozen(above) => {
                let sql = "update snapshot_disk set backing = $1 where snapshot = $2 and volume = $3";
                let query = sqlx::query(sql).bind(backing).bind(above.snapshot.to_string());
                query.bind(above.volume.to_string()).execute(&mut *transaction).await
            }
        };
        done.map_err(failed("note where an image stands"))?;
        forget_frozen(&mut transaction, disk).await?;
        leave(&mut transaction, node, &disk.image).await?;
        self.commit(transaction, "merge an image").await
    }

    /// A snapshot's disk has taken in all of the image above, and its image stands for that from now on.
    pub async fn frozen_took_in(&self, node: &str, disk: &FrozenDisk, above: &Above) -> Result<()> {
        let mut transaction = self.begin().await?;
        let (image, gone) = match above {
            Above::Volume(volume, gone) => {
                sqlx::query("update volume set file = $1, path = $2, base = $3, revision = revision + 1 where id = $4")
                    .bind(&disk.image.file)
                    .bind(&disk.image.path)
                    .bind(disk.backing.clone())
                    .bind(volume.to_string())
                    .execute(&mut *transaction)
                    .await
                    .map_err(failed("note a volume's image"))?;
                (&disk.image, gone)
            }
            Above::Frozen(above) => {
                sqlx::query(
                    "update snapshot_disk set file = $1, path = $2, backing = $3 where snapshot = $4 and volume = $5",
                )
                .bind(&disk.image.file)
                .bind(&disk.image.path)
                .bind(disk.backing.clone())
                .bind(above.snapshot.to_string())
                .bind(above.volume.to_string())
                .execute(&mut *transaction)
                .await
                .map_err(failed("note a snapshot's image"))?;
                (&disk.image, &above.image)
            }
        };
        for sql in [
            "update volume set base = $1 where node = $2 and base = $3",
            "update snapshot_disk set backing = $1 where backing = $3 and snapshot in (select id from snapshot where node = $2)",
        ] {
            let query = sqlx::query(sql).bind(&image.path).bind(node).bind(&gone.path);
            query.execute(&mut *transaction).await.map_err(failed("note where images stand"))?;
        }
        forget_frozen(&mut transaction, disk).await?;
        leave(&mut transaction, node, gone).await?;
        self.commit(transaction, "merge an image").await
    }
}

async fn forget_frozen(transaction: &mut Transaction<'_, Any>, disk: &FrozenDisk) -> Result<()> {
    let query = sqlx::query("delete from snapshot_disk where snapshot = $1 and volume = $2");
    let query = query.bind(disk.snapshot.to_string()).bind(disk.volume.to_string());
    query.execute(&mut **transaction).await.map(|_| ()).map_err(failed("forget a snapshot's disk"))
}

fn read_disk(row: &AnyRow) -> Result<FrozenDisk> {
    Ok(FrozenDisk {
        snapshot: parse_uuid(row.get("snapshot"))?,
        volume: parse_uuid(row.get("volume"))?,
        device: row.get("device"),
        pool_name: row.get("pool_name"),
        image: read_image(row)?,
        backing: row.get("backing"),
        size_bytes: row.get::<i64, _>("size_bytes") as u64,
        template: row.get::<Option<String>, _>("template").map(|id| parse_uuid(&id)).transpose()?,
    })
}
