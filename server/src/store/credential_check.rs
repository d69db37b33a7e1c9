//! Resets of credentials that wait for a boot of their guest.

use super::{NewEvent, Store, event, failed, parse_uuid, task::close_journal_with};
use crate::{Error, Result};
use api::{
    Time,
    credential::{CheckState, CredentialKind},
};
use sqlx::{Row, any::AnyRow};
use uuid::Uuid;

/// A reset that waits for a boot, or what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckRecord {
    /// The VM.
    pub vm: Uuid,
    /// The user in the guest.
    pub user: String,
    /// What was reset.
    pub kind: CredentialKind,
    /// The task that has reset it.
    pub task: Uuid,
    /// What is known of it.
    pub state: CheckState,
    /// Why it isn't verified.
    pub reason: Option<String>,
    /// The guest's boot at the reset.
    pub boot: Boot,
    /// When it was reset.
    pub created_at: Time,
    /// When its state was found out.
    pub checked_at: Option<Time>,
}

/// A boot of a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Boot {
    /// It was off.
    Off,
    /// Linux's boot id.
    Id(String),
    /// It was on, and nobody could tell.
    Unknown,
}

impl Boot {
    fn as_str(&self) -> &str {
        match self {
            Boot::Off => "off",
            Boot::Id(id) => id,
            Boot::Unknown => "",
        }
    }
}

impl Store {
    /// All checks.
    pub async fn credential_checks(&self) -> Result<Vec<CheckRecord>> {
        let sql = "select vm, user_name, kind, task, state, reason, boot, created_at, checked_at from credential_check";
        let rows = sqlx::query(sql).fetch_all(&self.pool).await.map_err(failed("read the checks of credentials"))?;
        rows.iter().map(read).collect()
    }

    /// Makes a reset final that waits for a boot, with the reply of its task.
    pub async fn reset_waits(&self, check: &CheckRecord, reply: &str) -> Result<()> {
        let doing = "note a reset";
        let mut transaction = self.begin().await?;
        sqlx::query(
            "insert into credential_check (vm, user_name, kind, task, state, reason, boot, created_at, checked_at)
             values ($1, $2, $3, $4, $5, null, $6, $7, null)
             on conflict (vm, user_name, kind) do update set task = excluded.task, state = excluded.state, reason = null,
             boot = excluded.boot, created_at = excluded.created_at, checked_at = null",
        )
        .bind(check.vm.to_string())
        .bind(&check.user)
        .bind(check.kind.as_str())
        .bind(check.task.to_string())
        .bind(check.state.as_str())
        .bind(check.boot.as_str())
        .bind(check.created_at.0)
        .execute(&mut *transaction)
        .await
        .map_err(failed(doing))?;
        close_journal_with(&mut transaction, check.task, reply).await?;
        transaction.commit().await.map_err(failed(doing))
    }

    /// Makes a reset final that another method has made, after which the one that waited for a boot is gone from the seed.
    pub async fn reset_waits_no_more(&self, check: &CheckRecord, task: Uuid, reply: &str) -> Result<()> {
        let doing = "note a reset";
        let mut transaction = self.begin().await?;
        sqlx::query("delete from credential_check where vm = $1 and user_name = $2 and kind = $3")
            .bind(check.vm.to_string())
            .bind(&check.user)
            .bind(check.kind.as_str())
            .execute(&mut *transaction)
            .await
            .map_err(failed(doing))?;
        close_journal_with(&mut transaction, task, reply).await?;
        transaction.commit().await.map_err(failed(doing))
    }

    /// Notes what came of a reset, if it is still the last one, and tells it.
    pub async fn credential_checked(&self, check: &CheckRecord, told: NewEvent) -> Result<()> {
        let mut transaction = self.begin().await?;
        let query = sqlx::query(
            "update credential_check set state = $1, reason = $2, checked_at = $3 where vm = $4 and task = $5",
        )
        .bind(check.state.as_str())
        .bind(&check.reason)
        .bind(check.checked_at.map(|at| at.0))
        .bind(check.vm.to_string())
        .bind(check.task.to_string());
        let doing = "note what came of a reset";
        if query.execute(&mut *transaction).await.map_err(failed(doing))?.rows_affected() > 0 {
            event::insert(&mut transaction, &[told]).await?;
        }
        transaction.commit().await.map_err(failed(doing))?;
        self.events_told();
        Ok(())
    }
}

fn read(row: &AnyRow) -> Result<CheckRecord> {
    let (kind, state): (&str, &str) = (row.get("kind"), row.get("state"));
    let unknown = |text: &str| Error::Internal(format!("the database has {text:?} for a check of credentials"));
    Ok(CheckRecord {
        vm: parse_uuid(row.get("vm"))?,
        user: row.get("user_name"),
        kind: CredentialKind::parse(kind).ok_or_else(|| unknown(kind))?,
        task: parse_uuid(row.get("task"))?,
        state: CheckState::parse(state).ok_or_else(|| unknown(state))?,
        reason: row.get("reason"),
        boot: match row.get("boot") {
            "off" => Boot::Off,
            "" => Boot::Unknown,
            id => Boot::Id(id.to_owned()),
        },
        created_at: Time(row.get("created_at")),
        checked_at: row.get::<Option<i64>, _>("checked_at").map(Time),
    })
}
