//! Errors on the wire: RFC 9457 problem details.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// An error (`application/problem+json`, RFC 9457).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// `urn:vmyard:error:<code>`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The code in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened, to which object.
    pub detail: String,
    /// The code that programs look at.
    pub code: Code,
    /// The request's id, which is also in the server's log.
    pub request_id: Option<Uuid>,
    /// What to do next, where there is something to do.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hint: Option<String>,
    /// The fields that are at fault (`invalid` only).
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub errors: Vec<FieldError>,
    /// The task that holds what was asked for (`busy`), or the one that failed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub task: Option<Uuid>,
}

/// What is wrong with one field of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FieldError {
    /// The field's path: `networks[1].mac`.
    pub field: String,
    /// What is wrong with it, and what is allowed.
    pub message: String,
}

/// What kind of error it is. The code never changes its meaning; the texts beside it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The request is malformed; `errors` names the fields.
    Invalid,
    /// No token, or one that isn't valid.
    Unauthenticated,
    /// The caller's role doesn't allow it.
    Forbidden,
    /// There is no such object, or no such method.
    NotFound,
    /// The name is taken.
    AlreadyExists,
    /// The object is in a state that doesn't allow it.
    WrongState,
    /// Another task works on the object; `task` is its id.
    Busy,
    /// Something else stands on the object.
    InUse,
    /// The name fits several objects.
    Ambiguous,
    /// The node hasn't enough CPU, memory or space.
    NoCapacity,
    /// The guest agent doesn't answer.
    AgentUnavailable,
    /// The `client_token` was used with another body.
    TokenReused,
    /// The request's body is too large.
    TooLarge,
    /// It can't be done with this object, node or version.
    Unsupported,
    /// Too many requests.
    RateLimited,
    /// The node's libvirt can't be reached, or the server is going down.
    NodeUnavailable,
    /// It took too long.
    Timeout,
    /// A fault of ours; the cause is in the server's log under the request id.
    Internal,
}

impl Code {
    /// All codes.
    pub const ALL: [Code; 18] = [
        Code::Invalid,
        Code::Unauthenticated,
        Code::Forbidden,
        Code::NotFound,
        Code::AlreadyExists,
        Code::WrongState,
        Code::Busy,
        Code::InUse,
        Code::Ambiguous,
        Code::NoCapacity,
        Code::AgentUnavailable,
        Code::TokenReused,
        Code::TooLarge,
        Code::Unsupported,
        Code::RateLimited,
        Code::NodeUnavailable,
        Code::Timeout,
        Code::Internal,
    ];

    /// The code as it is on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Code::Invalid => "invalid",
            Code::Unauthenticated => "unauthenticated",
            Code::Forbidden => "forbidden",
            Code::NotFound => "not_found",
            Code::AlreadyExists => "already_exists",
            Code::WrongState => "wrong_state",
            Code::Busy => "busy",
            Code::InUse => "in_use",
            Code::Ambiguous => "ambiguous",
            Code::NoCapacity => "no_capacity",
            Code::AgentUnavailable => "agent_unavailable",
            Code::TokenReused => "token_reused",
            Code::TooLarge => "too_large",
            Code::Unsupported => "unsupported",
            Code::RateLimited => "rate_limited",
            Code::NodeUnavailable => "node_unavailable",
            Code::Timeout => "timeout",
            Code::Internal => "internal",
        }
    }
}
