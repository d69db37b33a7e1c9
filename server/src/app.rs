//! What the server's parts share.

use crate::{
    Error, Result,
    admission::Admission,
    auth::{Caller, ReplayKey},
    config::Config,
    index::Index,
    store::Store,
    task::{Locks, Tasks},
};
use api::Time;
use hypervisor::Node;
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use uuid::Uuid;

/// The server's parts. Cheap to clone.
#[derive(Clone)]
pub struct App {
    inner: Arc<Parts>,
}

/// What [`App`] leads to.
pub struct Parts {
    /// The configuration.
    pub config: Config,
    /// The database.
    pub store: Store,
    /// The nodes, by name.
    pub nodes: BTreeMap<String, Node>,
    /// The VMs, as last seen.
    pub index: Index,
    /// Who works on what.
    pub locks: Locks,
    /// What is promised to VMs that don't run yet.
    pub admission: Admission,
    /// The tasks at work.
    pub tasks: Tasks,
    /// Whether what the last server left has been looked at.
    pub recovered: AtomicBool,
    /// When this server was started.
    pub started_at: Time,
    /// For the hashes of requests under a client token.
    pub replay_key: ReplayKey,
}

impl App {
    /// Puts the parts together.
    pub fn new(parts: Parts) -> App {
        App { inner: Arc::new(parts) }
    }

    /// The node of this name or host UUID.
    pub fn node(&self, reference: &str) -> Result<&Node> {
        let by_name = self.nodes.values().find(|node| node.name().eq_ignore_ascii_case(reference));
        let by_id = || {
            let id = Uuid::try_parse(reference).ok()?;
            self.nodes.values().find(|node| node.facts().is_some_and(|facts| facts.host_uuid == id))
        };
        by_name.or_else(by_id).ok_or_else(|| Error::not_found("node", reference))
    }

    /// Whether what the last server left has been taken back, as far as its nodes can be reached.
    pub fn is_recovered(&self) -> bool {
        self.recovered.load(Ordering::SeqCst)
    }

    /// The nodes that a filter leaves: the named one, or all.
    pub fn nodes_of(&self, reference: Option<&str>) -> Result<Vec<Node>> {
        match reference {
            Some(reference) => Ok(vec![self.node(reference)?.clone()]),
            None => Ok(self.nodes.values().cloned().collect()),
        }
    }
}

impl std::ops::Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.inner
    }
}

/// What an operation gets beside its request.
#[derive(Clone)]
pub struct Context {
    /// The server.
    pub app: App,
    /// Who calls.
    pub caller: Caller,
    /// The id of the task that a mutating call will be.
    pub task: Uuid,
}
