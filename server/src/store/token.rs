//! API tokens. Only their hashes are kept.

use super::{Store, failed, is_taken, name_key, parse_uuid};
use crate::{Error, Result};
use api::{Access, Time};
use sqlx::{Row, any::AnyRow};
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};
use uuid::Uuid;

/// A token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRecord {
    /// Its id.
    pub id: Uuid,
    /// Its name, unique without case.
    pub name: String,
    /// The BLAKE3 hash of its secret, in hexadecimal.
    pub hash: String,
    /// What it may do.
    pub role: Access,
    /// When it stops working.
    pub expires_at: Option<Time>,
    /// When it was made.
    pub created_at: Time,
}

const COLUMNS: &str = "id, name, hash, role, expires_at, created_at";

/// The tokens that were found by their hashes: each call looks for its own. No other process changes them meanwhile.
#[derive(Default)]
pub(super) struct Known(Mutex<Tokens>);

#[derive(Default)]
struct Tokens {
    by_hash: HashMap<String, TokenRecord>,
    /// Counts the changes: what was read before one is not kept after it.
    changes: u64,
}

impl Known {
    fn lock(&self) -> MutexGuard<'_, Tokens> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self) {
        let mut tokens = self.lock();
        tokens.by_hash.clear();
        tokens.changes += 1;
    }
}

impl Store {
    /// Adds a token.
    pub async fn insert_token(&self, token: &TokenRecord) -> Result<()> {
        self.add_token(token, "").await
    }

    /// Adds a token, or makes the one that is there with this hash like it (but for its id).
    pub async fn put_token(&self, token: &TokenRecord) -> Result<()> {
        let update = "on conflict (hash) do update set name = excluded.name, role = excluded.role,
                      expires_at = excluded.expires_at";
        self.add_token(token, update).await
    }

    async fn add_token(&self, token: &TokenRecord, on_conflict: &'static str) -> Result<()> {
        let added = sqlx::query(sqlx::AssertSqlSafe(format!(
            "insert into token ({COLUMNS}) values ($1, $2, $3, $4, $5, $6) {on_conflict}"
        )))
        .bind(token.id.to_string())
        .bind(&token.name)
        .bind(&token.hash)
        .bind(token.role.as_str())
        .bind(token.expires_at.map(|time| time.0))
        .bind(token.created_at.0)
        .execute(&self.pool)
        .await;
        self.tokens.forget();
        match added {
            Ok(_) => Ok(()),
            Err(error) if is_taken(&error) => Err(Error::exists("token", &token.name)),
            Err(error) => Err(failed("add a token")(error)),
        }
    }

    /// Forgets the tokens of this name that have another hash, with their sessions.
    pub async fn forget_tokens_but(&self, name: &str, hash: &str) -> Result<()> {
        let deleted = sqlx::query("delete from token where lower(name) = $1 and hash <> $2")
            .bind(name_key(name))
            .bind(hash)
            .execute(&self.pool)
            .await;
        self.tokens.forget();
        deleted.map(|_| ()).map_err(failed("forget tokens"))
    }

    /// Forgets a token, with its sessions.
    pub async fn forget_token(&self, id: Uuid) -> Result<()> {
        let deleted = sqlx::query("delete from token where id = $1").bind(id.to_string()).execute(&self.pool).await;
        self.tokens.forget();
        deleted.map(|_| ()).map_err(failed("forget a token"))
    }

    /// The token with this hash.
    pub async fn token(&self, hash: &str) -> Result<Option<TokenRecord>> {
        let changes = {
            let known = self.tokens.lock();
            if let Some(token) = known.by_hash.get(hash) {
                return Ok(Some(token.clone()));
            }
            known.changes
        };
        let row = sqlx::query(sqlx::AssertSqlSafe(format!("select {COLUMNS} from token where hash = $1")))
            .bind(hash)
            .fetch_optional(&self.pool)
            .await
            .map_err(failed("read a token"))?;
        let Some(row) = row else { return Ok(None) };
        let token = read(&row)?;
        let mut known = self.tokens.lock();
        if known.changes == changes {
            known.by_hash.insert(hash.to_owned(), token.clone());
        }
        Ok(Some(token))
    }

    /// The token of this name or id.
    pub async fn token_named(&self, reference: &str) -> Result<Option<TokenRecord>> {
        let sql = format!("select {COLUMNS} from token where lower(name) = $1 or id = $1");
        let row = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(name_key(reference))
            .fetch_optional(&self.pool)
            .await
            .map_err(failed("read a token"))?;
        row.as_ref().map(read).transpose()
    }

    /// All tokens, by name.
    pub async fn tokens(&self) -> Result<Vec<TokenRecord>> {
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!("select {COLUMNS} from token order by lower(name)")))
            .fetch_all(&self.pool)
            .await
            .map_err(failed("read the tokens"))?;
        rows.iter().map(read).collect()
    }
}

pub(super) fn read(row: &AnyRow) -> Result<TokenRecord> {
    let role: &str = row.get("role");
    Ok(TokenRecord {
        id: parse_uuid(row.get("id"))?,
        name: row.get("name"),
        hash: row.get("hash"),
        role: Access::parse(role)
            .ok_or_else(|| Error::Internal(format!("the database has {role:?} for a token's role")))?,
        expires_at: row.get::<Option<i64>, _>("expires_at").map(Time),
        created_at: Time(row.get("created_at")),
    })
}
