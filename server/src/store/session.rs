//! Sessions of browsers. Only the hashes of their secrets are kept.

use super::{AuditRecord, Store, TokenRecord, audit, failed, token};
use crate::{Error, Result};
use api::Time;
use sqlx::Row;
use uuid::Uuid;

/// A session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRecord {
    /// The BLAKE3 hash of its secret, in hexadecimal.
    pub hash: String,
    /// The token that it was begun with, and ends with.
    pub token: Uuid,
    /// When it was begun.
    pub created_at: Time,
    /// When it ends by itself.
    pub expires_at: Time,
}

impl Store {
    /// Adds a session, with the entry in the audit.
    pub async fn insert_session(&self, session: &SessionRecord, entry: &AuditRecord) -> Result<()> {
        let mut transaction = self.begin().await?;
        sqlx::query("insert into session (hash, token, created_at, expires_at) values ($1, $2, $3, $4)")
            .bind(&session.hash)
            .bind(session.token.to_string())
            .bind(session.created_at.0)
            .bind(session.expires_at.0)
            .execute(&mut *transaction)
            .await
            .map_err(|error| match error.as_database_error().is_some_and(|error| error.is_foreign_key_violation()) {
                // It was deleted a moment ago.
                true => Error::Unauthenticated("this token is not known"),
                false => failed("begin a session")(error),
            })?;
        audit::insert(&mut *transaction, entry).await?;
        transaction.commit().await.map_err(failed("begin a session"))
    }

    /// The token of the session with this hash, and when the session ends.
    pub async fn session(&self, hash: &str) -> Result<Option<(TokenRecord, Time)>> {
        let row = sqlx::query(
            "select t.id, t.name, t.hash, t.role, t.expires_at, t.created_at, s.expires_at as session_ends
             from session s join token t on t.id = s.token where s.hash = $1",
        )
        .bind(hash)
        .fetch_optional(&self.pool)
        .await
        .map_err(failed("read a session"))?;
        row.map(|row| Ok((token::read(&row)?, Time(row.get("session_ends"))))).transpose()
    }

    /// Ends a session, with the entry in the audit.
    pub async fn end_session(&self, hash: &str, entry: &AuditRecord) -> Result<()> {
        let mut transaction = self.begin().await?;
        sqlx::query("delete from session where hash = $1")
            .bind(hash)
            .execute(&mut *transaction)
            .await
            .map_err(failed("end a session"))?;
        audit::insert(&mut *transaction, entry).await?;
        transaction.commit().await.map_err(failed("end a session"))
    }

    /// Forgets the sessions that had ended by a moment.
    pub async fn forget_sessions_before(&self, moment: Time) -> Result<()> {
        sqlx::query("delete from session where expires_at < $1")
            .bind(moment.0)
            .execute(&self.pool)
            .await
            .map(|_| ())
            .map_err(failed("forget old sessions"))
    }
}
