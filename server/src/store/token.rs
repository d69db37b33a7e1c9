//! API tokens. Only their hashes are kept.

use super::{Store, failed, parse_uuid};
use crate::{Error, Result};
use api::{Access, Time};
use sqlx::Row;
use uuid::Uuid;

/// A token.
#[derive(Debug, Clone)]
pub struct TokenRecord {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// The BLAKE3 hash of its secret, in hexadecimal.
    pub hash: String,
    /// What it may do.
    pub role: Access,
    /// When it stops working.
    pub expires_at: Option<Time>,
}

impl Store {
    /// Adds a token, unless one with this hash is there.
    pub async fn insert_token(&self, token: &TokenRecord) -> Result<()> {
        sqlx::query(
            "insert into token (id, name, hash, role, expires_at, created_at) values ($1, $2, $3, $4, $5, $6)
             on conflict (hash) do nothing",
        )
        .bind(token.id.to_string())
        .bind(&token.name)
        .bind(&token.hash)
        .bind(token.role.as_str())
        .bind(token.expires_at.map(|time| time.0))
        .bind(Time::now().0)
        .execute(&self.pool)
        .await
        .map(|_| ())
        .map_err(failed("add a token"))
    }

    /// Forgets the tokens of this name that have another hash.
    pub async fn forget_tokens_but(&self, name: &str, hash: &str) -> Result<()> {
        sqlx::query("delete from token where name = $1 and hash <> $2")
            .bind(name)
            .bind(hash)
            .execute(&self.pool)
            .await
            .map(|_| ())
            .map_err(failed("forget tokens"))
    }

    /// The token with this hash.
    pub async fn token(&self, hash: &str) -> Result<Option<TokenRecord>> {
        let row = sqlx::query("select id, name, hash, role, expires_at from token where hash = $1")
            .bind(hash)
            .fetch_optional(&self.pool)
            .await
            .map_err(failed("read a token"))?;
        let Some(row) = row else { return Ok(None) };
        let role: &str = row.get("role");
        Ok(Some(TokenRecord {
            id: parse_uuid(row.get("id"))?,
            name: row.get("name"),
            hash: row.get("hash"),
            role: Access::parse(role)
                .ok_or_else(|| Error::Internal(format!("the database has {role:?} for a role")))?,
            expires_at: row.get::<Option<i64>, _>("expires_at").map(Time),
        }))
    }
}
