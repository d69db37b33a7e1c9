//! Client tokens: what was asked for under which.

use super::{Store, failed, parse_uuid};
use crate::Result;
use api::Time;
use sqlx::{Any, Row, Transaction};
use uuid::Uuid;

/// How long a client token is kept, in milliseconds.
const KEPT_MS: i64 = 24 * 3600 * 1000;

/// A token that a client gave to a mutating call, and what it asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientToken {
    /// Who called.
    pub caller: String,
    /// The method.
    pub method: String,
    /// The token.
    pub token: String,
    /// The BLAKE3 hash of the request, in hexadecimal.
    pub body_hash: String,
}

impl Store {
    /// The hash of the request and the task that were first seen under this caller, method and token, within 24 hours.
    pub async fn first_use(&self, token: &ClientToken) -> Result<Option<(String, Uuid)>> {
        let row = sqlx::query(
            "select body_hash, task from client_token
             where caller = $1 and method = $2 and token = $3 and created_at > $4",
        )
        .bind(&token.caller)
        .bind(&token.method)
        .bind(&token.token)
        .bind(Time::now().0 - KEPT_MS)
        .fetch_optional(&self.pool)
        .await
        .map_err(failed("read a client token"))?;
        row.map(|row| Ok((row.get("body_hash"), parse_uuid(row.get("task"))?))).transpose()
    }
}

/// Adds a token with its task, and forgets those that are too old.
pub(super) async fn insert(transaction: &mut Transaction<'_, Any>, token: &ClientToken, task: Uuid) -> Result<()> {
    let now = Time::now().0;
    sqlx::query("delete from client_token where created_at <= $1")
        .bind(now - KEPT_MS)
        .execute(&mut **transaction)
        .await
        .map_err(failed("forget client tokens"))?;
    sqlx::query(
        "insert into client_token (caller, method, token, body_hash, task, created_at) values ($1, $2, $3, $4, $5, $6)",
    )
    .bind(&token.caller)
    .bind(&token.method)
    .bind(&token.token)
    .bind(&token.body_hash)
    .bind(task.to_string())
    .bind(now)
    .execute(&mut **transaction)
    .await
    .map(|_| ())
    .map_err(failed("add a client token"))
}
