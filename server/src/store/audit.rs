//! The audit: who asked for which change.

use super::{Store, failed, parse_uuid};
use crate::Result;
use api::{Time, task::Target};
use sqlx::{Any, Executor, Row, any::AnyRow};
use uuid::Uuid;

/// An entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRecord {
    /// Its id; ids are in the order of time.
    pub id: Uuid,
    /// When the call was accepted or refused.
    pub at: Time,
    /// The name of the token; empty when it isn't known.
    pub caller: String,
    /// The method.
    pub method: String,
    /// What it works on.
    pub target: Option<Target>,
    /// Its task.
    pub task: Option<Uuid>,
    /// The request's id.
    pub request_id: Uuid,
    /// Where the call came from.
    pub remote: Option<String>,
    /// `accepted`, `repeated`, or an error's code.
    pub outcome: String,
}

/// Which entries are wanted.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// The method.
    pub method: Option<String>,
    /// The caller's name.
    pub caller: Option<String>,
    /// The target's id, or its name.
    pub target: Option<String>,
    /// Not before this moment.
    pub since: Option<Time>,
    /// Before this moment.
    pub until: Option<Time>,
}

/// Adds an entry, in a transaction or outside of one.
pub(super) async fn insert(executor: impl Executor<'_, Database = Any>, entry: &AuditRecord) -> Result<()> {
    let target = entry.target.as_ref();
    sqlx::query(
        "insert into audit (id, created_at, caller, method, target_kind, target_id, target_name, task, request_id, remote,
         outcome) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    )
    .bind(entry.id.to_string())
    .bind(entry.at.0)
    .bind(&entry.caller)
    .bind(&entry.method)
    .bind(target.map(|target| target.kind.clone()))
    .bind(target.map(|target| target.id.to_string()))
    .bind(target.map(|target| target.name.clone()))
    .bind(entry.task.map(|id| id.to_string()))
    .bind(entry.request_id.to_string())
    .bind(&entry.remote)
    .bind(&entry.outcome)
    .execute(executor)
    .await
    .map(|_| ())
    .map_err(failed("write the audit"))
}

impl Store {
    /// Adds an entry of its own: of a call that was refused, so that there is nothing else to write.
    pub async fn insert_audit(&self, entry: &AuditRecord) -> Result<()> {
        insert(&self.pool, entry).await
    }

    /// A page of entries, the newest first, and how many fit the filter. `before` is the id of the last entry of the page
    /// before.
    pub async fn audit(
        &self,
        filter: &AuditFilter,
        before: Option<Uuid>,
        limit: usize,
    ) -> Result<(Vec<AuditRecord>, u64)> {
        let method = filter.method.as_deref().unwrap_or_default();
        let caller = filter.caller.as_deref().unwrap_or_default().to_lowercase();
        let target = filter.target.as_deref().unwrap_or_default().to_lowercase();
        let since = filter.since.map_or(i64::MIN, |time| time.0);
        let until = filter.until.map_or(i64::MAX, |time| time.0);
        let fits = "($1 = '' or method = $1) and ($2 = '' or lower(caller) = $2)
                    and ($3 = '' or target_id = $3 or lower(target_name) = $3) and created_at >= $4 and created_at < $5";
        let total = sqlx::query(sqlx::AssertSqlSafe(format!("select count(*) as n from audit where {fits}")))
            .bind(method)
            .bind(&caller)
            .bind(&target)
            .bind(since)
            .bind(until)
            .fetch_one(&self.pool)
            .await
            .map_err(failed("count the audit"))?;
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
            "select id, created_at, caller, method, target_kind, target_id, target_name, task, request_id, remote, outcome
             from audit where {fits} and ($6 = '' or id < $6) order by id desc limit $7"
        )))
        .bind(method)
        .bind(&caller)
        .bind(&target)
        .bind(since)
        .bind(until)
        .bind(before.map(|id| id.to_string()).unwrap_or_default())
        .bind(limit as i64)
        .fetch_all(&self.pool)
        .await
        .map_err(failed("read the audit"))?;
        let entries = rows.iter().map(read).collect::<Result<_>>()?;
        Ok((entries, total.get::<i64, _>("n") as u64))
    }

    /// Forgets the entries from before a moment.
    pub async fn forget_audit_before(&self, moment: Time) -> Result<()> {
        sqlx::query("delete from audit where created_at < $1")
            .bind(moment.0)
            .execute(&self.pool)
            .await
            .map(|_| ())
            .map_err(failed("forget old entries of the audit"))
    }
}

fn read(row: &AnyRow) -> Result<AuditRecord> {
    let text = |column: &str| row.get::<Option<String>, _>(column);
    let id = |column: &str| text(column).map(|id| parse_uuid(&id)).transpose();
    let target = match (text("target_kind"), id("target_id")?, text("target_name")) {
        (Some(kind), Some(id), Some(name)) => Some(Target { kind, id, name }),
        _ => None,
    };
    Ok(AuditRecord {
        id: parse_uuid(row.get("id"))?,
        at: Time(row.get("created_at")),
        caller: row.get("caller"),
        method: row.get("method"),
        target,
        task: id("task")?,
        request_id: parse_uuid(row.get("request_id"))?,
        remote: row.get("remote"),
        outcome: row.get("outcome"),
    })
}
