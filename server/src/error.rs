//! The one error type of the server. Transport-free: `problem.rs` and `rpc/` alone know HTTP.

use api::FieldError;
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
    /// Another call took this one's place.
    #[error("{0}")]
    Superseded(String),
    /// Something on a node failed.
    #[error(transparent)]
    Node(#[from] hypervisor::Error),
    /// A task was cut off by the server's end.
    #[error(
        "the server was stopped while this was under way: what a creation had made was taken back, a deletion goes on \
         by itself, a start, stop or reboot may have happened"
    )]
    Interrupted,
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
