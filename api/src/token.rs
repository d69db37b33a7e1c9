//! API tokens: who may call, and what.

use crate::{Access, Rpc, Time, rules};
use garde::Validate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A token. Its secret is shown once, by create-token; the server keeps only a hash of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Token {
    /// The token's id.
    pub id: Uuid,
    /// Its name, unique without case: tasks and the audit call its holder so.
    pub name: String,
    /// What it may do.
    pub role: Access,
    /// When it stops working; null: never.
    pub expires_at: Option<Time>,
    /// Whether it has stopped working.
    pub expired: bool,
    /// When it was made.
    pub created_at: Time,
}

/// Makes a token, and tells its secret this one time. Calls under it have its role; whoever holds it may also sign in.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct CreateToken {
    /// Its name: who or what will call under it.
    #[garde(custom(rules::name))]
    #[schemars(regex(pattern = rules::NAME_PATTERN))]
    pub name: String,
    /// What it may do.
    #[garde(skip)]
    pub role: Access,
    /// When it is to stop working, like 2027-01-31T00:00:00Z; never when absent.
    #[garde(skip)]
    pub expires_at: Option<Time>,
}

/// A new token with its secret.
// Not `Debug`, so that no log has it.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CreatedToken {
    /// The token.
    #[serde(flatten)]
    pub record: Token,
    /// The secret, which goes into `Authorization: Bearer …`. Asked for again (describe-task, or the same call under its
    /// client_token), it is given for 10 minutes, to the same caller only; then it is null.
    pub token: Option<String>,
    /// True when the secret is not given any more.
    #[serde(default)]
    pub secret_expired: bool,
}

impl Rpc for CreateToken {
    const NAME: &'static str = "create-token";
    const ACCESS: Access = Access::Administrator;
    const SECRETS: &'static [&'static str] = &["token"];
    type Reply = CreatedToken;
}

/// Lists the tokens, by name, without their secrets.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct ListTokens {
    /// At most so many rows (100 when absent).
    #[garde(inner(range(min = 1, max = 1000)))]
    #[schemars(range(min = 1, max = 1000))]
    pub limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[garde(inner(length(min = 1, max = 8192)))]
    #[schemars(length(min = 1, max = 8192))]
    pub cursor: Option<String>,
}

/// A page of tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Tokens {
    /// The tokens.
    pub tokens: Vec<Token>,
    /// The cursor of the next page; null on the last.
    pub next_cursor: Option<String>,
    /// How many there are on all pages.
    pub total: u64,
}

impl Rpc for ListTokens {
    const NAME: &'static str = "list-tokens";
    const ACCESS: Access = Access::Administrator;
    type Reply = Tokens;
}

/// Deletes a token. It and all sessions that were begun with it are worthless at once; what runs goes on. The token in
/// admin.token can't be deleted, since the server sees to it at each start: it is replaced by removing that file.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct DeleteToken {
    /// The token, by name or id (never its secret).
    #[garde(custom(rules::reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub token: String,
}

/// What delete-token answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DeletedToken {
    /// The id of the token that is gone.
    pub id: Uuid,
    /// Its name, which is free again.
    pub name: String,
}

impl Rpc for DeleteToken {
    const NAME: &'static str = "delete-token";
    const ACCESS: Access = Access::Administrator;
    type Reply = DeletedToken;
}
