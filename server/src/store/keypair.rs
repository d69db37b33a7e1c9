//! SSH keypairs. Only their public keys are kept.

use super::{Store, failed, is_taken, name_key, parse_uuid};
use crate::{Error, Result};
use api::Time;
use sqlx::{Row, any::AnyRow};
use uuid::Uuid;

/// A keypair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeypairRecord {
    /// Its id.
    pub id: Uuid,
    /// Its name, unique without case.
    pub name: String,
    /// The public key, as a line of authorized_keys.
    pub public_key: String,
    /// When it was made or imported.
    pub created_at: Time,
}

impl Store {
    /// Adds a keypair.
    pub async fn insert_keypair(&self, keypair: &KeypairRecord) -> Result<()> {
        let added =
            sqlx::query("insert into keypair (id, name, name_key, public_key, created_at) values ($1, $2, $3, $4, $5)")
                .bind(keypair.id.to_string())
                .bind(&keypair.name)
                .bind(name_key(&keypair.name))
                .bind(&keypair.public_key)
                .bind(keypair.created_at.0)
                .execute(&self.pool)
                .await;
        self.changed();
        match added {
            Ok(_) => Ok(()),
            Err(error) if is_taken(&error) => Err(Error::exists("keypair", &keypair.name)),
            Err(error) => Err(failed("add a keypair")(error)),
        }
    }

    /// Forgets a keypair.
    pub async fn forget_keypair(&self, id: Uuid) -> Result<()> {
        let done = sqlx::query("delete from keypair where id = $1").bind(id.to_string()).execute(&self.pool).await;
        self.changed();
        done.map(|_| ()).map_err(failed("forget a keypair"))
    }

    /// The keypair of this name or id.
    pub async fn keypair(&self, reference: &str) -> Result<Option<KeypairRecord>> {
        let sql = "select id, name, public_key, created_at from keypair where name_key = $1 or id = $1";
        let row = sqlx::query(sql).bind(name_key(reference)).fetch_optional(&self.pool).await;
        row.map_err(failed("read a keypair"))?.as_ref().map(read).transpose()
    }

    /// All keypairs.
    pub async fn keypairs(&self) -> Result<Vec<KeypairRecord>> {
        let sql = "select id, name, public_key, created_at from keypair";
        let rows = sqlx::query(sql).fetch_all(&self.pool).await;
        rows.map_err(failed("read the keypairs"))?.iter().map(read).collect()
    }
}

fn read(row: &AnyRow) -> Result<KeypairRecord> {
    Ok(KeypairRecord {
        id: parse_uuid(row.get("id"))?,
        name: row.get("name"),
        public_key: row.get("public_key"),
        created_at: Time(row.get("created_at")),
    })
}
