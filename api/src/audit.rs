//! The audit: who asked for which change.

use crate::{Access, Rpc, Time, rules, task::Target};
use garde::Validate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A call that changes something, or that was refused it. What was in the request is not kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AuditEntry {
    /// The entry's id.
    pub id: Uuid,
    /// When the call was accepted or refused.
    pub at: Time,
    /// The name of the token that was called under; null for a sign-in with a token that isn't known.
    pub caller: Option<String>,
    /// The method.
    pub method: String,
    /// What it works on; null where the call was refused.
    pub target: Option<Target>,
    /// Its task, which says how it ended.
    pub task: Option<Uuid>,
    /// The request's id, which is also in the server's log.
    pub request_id: Uuid,
    /// The address that the call came from. Behind a proxy it is the proxy's.
    pub remote: Option<String>,
    /// `accepted`; `repeated` for a call that got the answer of an earlier one under its client_token; else the code of
    /// the error, like `forbidden`.
    pub outcome: String,
}

/// Lists the audit, the newest first: each call that changes something, each that was refused it, and each sign-in.
/// Entries are kept for 400 days.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct ListAudit {
    /// Only calls of this method.
    #[garde(custom(rules::optional_reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub method: Option<String>,
    /// Only calls under the token of this name.
    #[garde(custom(rules::optional_reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub caller: Option<String>,
    /// Only calls that work on the object with this id, or this name at the time of the call.
    #[garde(custom(rules::optional_reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub target: Option<String>,
    /// Only calls at this moment or later.
    #[garde(skip)]
    pub since: Option<Time>,
    /// Only calls before this moment.
    #[garde(skip)]
    pub until: Option<Time>,
    /// At most so many rows (100 when absent).
    #[garde(inner(range(min = 1, max = 1000)))]
    #[schemars(range(min = 1, max = 1000))]
    pub limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[garde(inner(length(min = 1, max = 8192)))]
    #[schemars(length(min = 1, max = 8192))]
    pub cursor: Option<String>,
}

/// A page of the audit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Audit {
    /// The entries.
    pub audit: Vec<AuditEntry>,
    /// The cursor of the next page; null on the last.
    pub next_cursor: Option<String>,
    /// How many there are on all pages.
    pub total: u64,
}

impl Rpc for ListAudit {
    const NAME: &'static str = "list-audit";
    const ACCESS: Access = Access::Administrator;
    type Reply = Audit;
}
