//! What the server's parts share.

use crate::{
    Error, Result,
    admission::Admission,
    attempts::Attempts,
    auth::{Caller, ReplayKey},
    claims::Claims,
    config::Config,
    console::Consoles,
    copies::Copies,
    credential_checks::CredentialChecks,
    drift,
    events::Events,
    index::Index,
    later::Later,
    manifest::Manifests,
    metrics::Metrics,
    nodes::{Member, Nodes},
    store::{AuditRecord, Store},
    task::{Locks, Tasks},
};
use api::Time;
use hypervisor::{Node, NodeEvent};
use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::sync::mpsc;
use uuid::Uuid;

/// The server's parts. Cheap to clone.
#[derive(Clone)]
pub struct App {
    inner: Arc<Parts>,
    /// Who works on what.
    pub locks: Locks,
    /// What is promised to VMs that don't run yet.
    pub admission: Admission,
    /// Names and addresses that calls at work have claimed.
    pub claims: Claims,
}

/// What [`App`] leads to.
pub struct Parts {
    /// The configuration.
    pub config: Config,
    /// The database.
    pub store: Store,
    /// Which installation this is.
    pub installation: Uuid,
    /// The nodes.
    pub nodes: Nodes,
    /// The VMs, as last seen.
    pub index: Index,
    /// Where nodes that are added tell their events.
    pub node_events: mpsc::UnboundedSender<NodeEvent>,
    /// What the last server knew of VMs that this one hasn't looked at yet.
    pub drift: drift::Left,
    /// Where what has happened is told.
    pub events: Events,
    /// The copies of templates under way.
    pub copies: Copies,
    /// What VMs have used.
    pub metrics: Arc<Metrics>,
    /// What the writer of the nodes' manifests is told.
    pub manifests: Manifests,
    /// What is tried again after a while.
    pub later: Later,
    /// The resets of credentials that wait for a boot.
    pub credential_checks: CredentialChecks,
    /// Consoles that are open, and tickets to them.
    pub consoles: Consoles,
    /// The tasks at work.
    pub tasks: Tasks,
    /// Whether what the last server left has been looked at.
    pub recovered: AtomicBool,
    /// When this server was started.
    pub started_at: Time,
    /// Wrong attempts to sign in.
    pub attempts: Attempts,
    /// For the hashes of requests under a client token.
    pub replay_key: ReplayKey,
}

impl App {
    /// Puts the parts together.
    pub fn new(parts: Parts) -> App {
        App {
            inner: Arc::new(parts),
            locks: Locks::default(),
            admission: Admission::default(),
            claims: Claims::default(),
        }
    }

    /// The same server for a plan: what a call takes or claims in it is seen by nobody else.
    pub fn for_plan(&self) -> App {
        App {
            inner: Arc::clone(&self.inner),
            locks: self.locks.detached(),
            admission: self.admission.detached(),
            claims: self.claims.detached(),
        }
    }

    /// The node of this name or host UUID.
    pub fn node(&self, reference: &str) -> Result<Node> {
        Ok(self.member(reference)?.node)
    }

    /// The node of this name or host UUID, with its settings.
    pub fn member(&self, reference: &str) -> Result<Member> {
        self.nodes.find(reference).ok_or_else(|| Error::not_found("node", reference))
    }

    /// Whether what the last server left has been taken back, as far as its nodes can be reached.
    pub fn is_recovered(&self) -> bool {
        self.recovered.load(Ordering::SeqCst)
    }

    /// The nodes that a filter leaves: the named one, or all.
    pub fn nodes_of(&self, reference: Option<&str>) -> Result<Vec<Node>> {
        match reference {
            Some(reference) => Ok(vec![self.node(reference)?]),
            None => Ok(self.nodes.all().into_iter().map(|member| member.node).collect()),
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
    /// The request's id.
    pub request_id: Uuid,
    /// The address that the call came from.
    pub remote: Option<IpAddr>,
    /// How the caller reached this server.
    pub reached: Reached,
}

/// How a caller reached this server, for URLs that are given to it.
#[derive(Debug, Clone, Default)]
pub struct Reached {
    /// Host and port, as the caller wrote them; empty when it didn't say.
    pub host: String,
    /// Whether by HTTPS, as a browser or a proxy before this server says.
    pub https: bool,
}

impl Context {
    /// An entry in the audit for this call.
    pub fn audit(&self, method: &str, outcome: &str) -> AuditRecord {
        AuditRecord {
            id: Uuid::now_v7(),
            at: Time::now(),
            caller: self.caller.name.clone(),
            method: method.to_owned(),
            target: None,
            task: None,
            request_id: self.request_id,
            remote: self.remote.map(|address| address.to_string()),
            outcome: outcome.to_owned(),
        }
    }
}
