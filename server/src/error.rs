//! The one error type of the server. Transport-free: `problem.rs` and `rpc/` alone know HTTP.

use api::{FieldError, Time};
use uuid::Uuid;

/// The result of an operation.
pub type Result<T> = std::result::Result<T, Error>;

/// Why an operation failed. The text of each, but for [`Error::Internal`], is for the client: it says what was being
/// done, to which object, and what to do next.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The request is malformed.
    #[error("the request is not valid")]
    Invalid(Vec<FieldError>),
    /// No token, or not a valid one.
    #[error("{0}")]
    Unauthenticated(&'static str),
    /// The token or session has expired.
    #[error("this {what} has expired (at {at})")]
    Expired {
        /// `token` or `session`
        what: &'static str,
        /// When.
        at: Time,
    },
    /// A session's cookie came from a page of somebody else, or from a program that doesn't say where from.
    #[error(
        "a call with a session's cookie needs an Origin header that names this server ({host:?}); {}",
        origin.as_ref().map_or("it has none".to_owned(), |origin| format!("it says {origin:?}"))
    )]
    ForeignOrigin {
        /// The page's origin.
        origin: Option<String>,
        /// The server, as the call names it.
        host: String,
    },
    /// Too many attempts.
    #[error("too many wrong tokens were tried from this address")]
    RateLimited {
        /// When it may be tried again, in seconds.
        wait_s: u64,
    },
    /// The caller's role is too small.
    #[error("{method} needs the role {needs}")]
    Forbidden {
        /// What was asked for.
        method: String,
        /// The least role for it.
        needs: &'static str,
    },
    /// There is no such object.
    #[error("there is no {kind} {name:?}")]
    NotFound {
        /// `VM`, `template`, …
        kind: &'static str,
        /// What was asked for.
        name: String,
    },
    /// There is no such object on a node.
    #[error("there is no {kind} {name:?} on node {node}")]
    NotFoundOn {
        /// `storage pool`, `network`
        kind: &'static str,
        /// What was asked for.
        name: String,
        /// Where it was looked for.
        node: String,
    },
    /// There is no such method.
    #[error("there is no method {0:?}")]
    NoSuchMethod(String),
    /// The name is taken.
    #[error("a {kind} {name:?} exists already")]
    AlreadyExists {
        /// `VM`, `template`, …
        kind: &'static str,
        /// The name.
        name: String,
    },
    /// The object's state doesn't allow it.
    #[error("{detail}")]
    WrongState {
        /// What state, and which is needed.
        detail: String,
        /// What to do.
        hint: Option<String>,
    },
    /// Another task works on the object.
    #[error("{detail}")]
    Busy {
        /// Which task works on what.
        detail: String,
        /// The task.
        task: Option<Uuid>,
    },
    /// Something else stands on the object.
    #[error("{0}")]
    InUse(String),
    /// The name fits several objects.
    #[error("the name {name:?} fits several {kind}s: {}", ids.join(", "))]
    Ambiguous {
        /// `VM`, `pool`, …
        kind: &'static str,
        /// The name.
        name: String,
        /// What it fits.
        ids: Vec<String>,
    },
    /// None of several nodes will do.
    #[error("{detail}")]
    NoNode {
        /// What stands for all.
        why: Box<Error>,
        /// Each node's reason.
        detail: String,
    },
    /// Not enough CPU, memory or space.
    #[error("{0}")]
    NoCapacity(String),
    /// The client token was used with another request.
    #[error("the client_token {0:?} was used with another request within the last 24 hours")]
    TokenReused(String),
    /// The request's body is too large.
    #[error("the request's body is larger than {0} bytes")]
    TooLarge(usize),
    /// It can't be done.
    #[error("{detail}")]
    Unsupported {
        /// What, and why.
        detail: String,
        /// What to do instead.
        hint: Option<String>,
    },
    /// The server goes down and takes no new work.
    #[error("the server is going down and takes no new work")]
    ShuttingDown,
    /// Something didn't come about in time.
    #[error("{detail}")]
    Timeout {
        /// What, and how things are now.
        detail: String,
        /// What to do.
        hint: String,
    },
    /// The guest agent is needed and doesn't answer.
    #[error("{detail}")]
    AgentUnavailable {
        /// Whose, and for what.
        detail: String,
        /// What to do.
        hint: String,
    },
    /// Another call took this one's place.
    #[error("{0}")]
    Superseded(String),
    /// The task was cancelled.
    #[error("it was cancelled (cancel-task); what it had made was taken back")]
    Cancelled,
    /// A node that was to be added can't be reached.
    #[error("{0}; it was not added")]
    NotAdded(hypervisor::Error),
    /// Something on a node failed.
    #[error(transparent)]
    Node(#[from] hypervisor::Error),
    /// A task was cut off by the server's end.
    #[error(
        "the server was stopped while this was under way: what a creation had made was taken back, a deletion goes on \
         by itself, a change of a VM's spec was put back, a start, stop or reboot may have happened"
    )]
    Interrupted,
    /// The database can't be used. The cause is for the log only.
    #[error("the server's database can't be used: {why}")]
    Database {
        /// Why, in our words.
        why: &'static str,
        /// What was being done, and the database's words.
        cause: String,
    },
    /// The history of metrics can't be used; nothing else needs it. The cause is for the log only.
    #[error("the history of metrics can't be used: {why}")]
    History {
        /// Why, in our words.
        why: &'static str,
        /// What was being done, and the database's words.
        cause: String,
    },
    /// A fault of ours. The text is for the log only.
    #[error("{0}")]
    Internal(String),
}

impl Error {
    /// One field is at fault.
    pub fn field(field: impl Into<String>, message: impl Into<String>) -> Error {
        Error::Invalid(vec![FieldError { field: field.into(), message: message.into() }])
    }

    /// There is no such object.
    pub fn not_found(kind: &'static str, name: impl Into<String>) -> Error {
        Error::NotFound { kind, name: name.into() }
    }

    /// The name is taken.
    pub fn exists(kind: &'static str, name: impl Into<String>) -> Error {
        Error::AlreadyExists { kind, name: name.into() }
    }
}
