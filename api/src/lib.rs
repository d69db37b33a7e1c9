//! Vmyard's wire types: one request type a method, with its reply.
//!
//! The request type *is* the method: its [`Rpc`] implementation names it and says who may call it, its doc comment is
//! the text of the API reference, its fields' types and `garde` attributes are both the validation and the schema.
//! This crate knows nothing of HTTP, of the database or of libvirt, so that a client can use it alone.

pub mod adopt;
pub mod audit;
pub mod cloud_init;
pub mod console;
pub mod credential;
pub mod diagnose;
pub mod disk;
pub mod event;
pub mod guest;
pub mod iso;
pub mod keypair;
pub mod metrics;
pub mod modify;
pub mod network;
pub mod network_config;
pub mod nic;
pub mod node;
pub mod orphan;
pub mod page;
pub mod plan;
pub mod pool;
pub mod problem;
pub mod rules;
pub mod session;
pub mod snapshot;
pub mod ssh_key;
pub mod task;
pub mod template;
pub mod time;
pub mod token;
pub mod vm;
pub mod volume;
pub mod webhook;

use garde::Validate;
use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};

pub use cloud_init::CloudInit;
pub use page::Page;
pub use problem::{Code, FieldError, Problem};
pub use time::Time;

/// A method of the API, implemented by its request type.
pub trait Rpc: Serialize + DeserializeOwned + JsonSchema + Validate<Context = ()> + Send + 'static {
    /// The method's name on the wire: `POST /api/<NAME>`.
    const NAME: &'static str;
    /// The least role that may call it.
    const ACCESS: Access;
    /// Fields of the reply that are secret: given to the caller, kept in memory for 10 minutes, written nowhere. The reply has
    /// a field `secret_expired` for when they are null.
    const SECRETS: &'static [&'static str] = &[];
    /// What a successful call answers.
    type Reply: Serialize + DeserializeOwned + JsonSchema + Send + 'static;
}

/// A role, and the least role that a method asks for. Each contains the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Who is not known yet: no token has this role, and sign-in alone asks for no more.
    #[serde(skip)]
    Anyone,
    /// Lists and describes.
    Viewer,
    /// Works with VMs, volumes, snapshots, templates, consoles.
    Operator,
    /// Works with nodes, pools, networks, tokens, audit.
    Administrator,
}

impl Access {
    /// The role's name on the wire and in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Access::Anyone => "anyone",
            Access::Viewer => "viewer",
            Access::Operator => "operator",
            Access::Administrator => "administrator",
        }
    }

    /// Reads what [`Access::as_str`] wrote of a token's role.
    pub fn parse(text: &str) -> Option<Access> {
        [Access::Viewer, Access::Operator, Access::Administrator].into_iter().find(|role| role.as_str() == text)
    }
}
