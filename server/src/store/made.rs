//! The ledger: what this Vmyard has made on its nodes. A row is written in one transaction with the step that makes the thing,
//! before it is made; it goes with the last row that refers to the thing, or when the thing is seen to be gone.

use super::{Store, failed, parse_uuid};
use crate::{Error, Result};
use api::{
    Time,
    orphan::{MadeBy, OrphanKind},
    task::Target,
};
use sqlx::{Any, Row, Transaction, any::AnyRow};
use uuid::Uuid;

/// Something that a step makes on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// What it is.
    pub kind: OrphanKind,
    /// The node, by the name that it had then.
    pub node: String,
    /// The pool of a file. There is none for seeds, whose pool has one name on every node, and for domains.
    pub pool: Option<Uuid>,
    /// libvirt's name for the file; of seeds the VM's id, with which their names begin; of a domain its UUID.
    pub file: String,
}

/// A row of the ledger.
#[derive(Debug, Clone, PartialEq)]
pub struct MadeRecord {
    /// What was made.
    pub made: Made,
    /// What has made it.
    pub by: MadeBy,
    /// When.
    pub at: Time,
}

impl Store {
    /// All of the ledger.
    pub async fn ledger(&self) -> Result<Vec<MadeRecord>> {
        let sql =
            "select kind, pool, file, node, task, method, target_kind, target_id, target_name, created_at from made";
        let rows = sqlx::query(sql).fetch_all(&self.pool).await.map_err(failed("read the ledger"))?;
        rows.iter().map(read).collect()
    }

    /// Forgets things that are gone.
    pub async fn forget_made(&self, gone: &[Made]) -> Result<()> {
        let mut transaction = self.begin().await?;
        for made in gone {
            let sql = "delete from made where kind = $1 and pool = $2 and file = $3";
            let query = sqlx::query(sql).bind(made.kind.as_str()).bind(pool(made)).bind(&made.file);
            query.execute(&mut *transaction).await.map_err(failed("forget what is gone"))?;
        }
        self.commit(transaction, "forget what is gone").await
    }
}

/// Notes what a step of a task makes.
pub(super) async fn note(transaction: &mut Transaction<'_, Any>, task: Uuid, made: &Made) -> Result<()> {
    sqlx::query(
        "insert into made (kind, pool, file, node, task, method, target_kind, target_id, target_name, created_at)
         select $1, $2, $3, $4, id, method, target_kind, target_id, target_name, $5 from task where id = $6
         on conflict (kind, pool, file) do nothing",
    )
    .bind(made.kind.as_str())
    .bind(pool(made))
    .bind(&made.file)
    .bind(&made.node)
    .bind(Time::now().0)
    .bind(task.to_string())
    .execute(&mut **transaction)
    .await
    .map(|_| ())
    .map_err(failed("note what is made"))
}

fn pool(made: &Made) -> String {
    made.pool.map(|pool| pool.to_string()).unwrap_or_default()
}

fn read(row: &AnyRow) -> Result<MadeRecord> {
    let (kind, pool): (&str, &str) = (row.get("kind"), row.get("pool"));
    let unknown = || Error::Internal(format!("the database has {kind:?} for what was made"));
    Ok(MadeRecord {
        made: Made {
            kind: OrphanKind::parse(kind).ok_or_else(unknown)?,
            node: row.get("node"),
            pool: if pool.is_empty() { None } else { Some(parse_uuid(pool)?) },
            file: row.get("file"),
        },
        by: MadeBy {
            task: parse_uuid(row.get("task"))?,
            method: row.get("method"),
            target: Target {
                kind: row.get("target_kind"),
                id: parse_uuid(row.get("target_id"))?,
                name: row.get("target_name"),
            },
        },
        at: Time(row.get("created_at")),
    })
}
