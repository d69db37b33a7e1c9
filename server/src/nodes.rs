//! The nodes that are known: those of the configuration file, and those that add-node brought.

use crate::{Error, Result, config::NodeSettings, store::name_key};
use hypervisor::{Node, NodeConfig, NodeEvent};
use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The nodes, by name without case.
pub struct Nodes {
    members: RwLock<BTreeMap<String, Member>>,
    /// Who looks after nodes is told of each that is added.
    added: mpsc::UnboundedSender<Member>,
}

/// A node that is known. Cheap to clone, but for its settings.
#[derive(Clone)]
pub struct Member {
    /// The node.
    pub node: Node,
    /// Its settings.
    pub settings: NodeSettings,
    /// Whether new VMs may be placed on it.
    pub enabled: bool,
    /// Whether it is the configuration file's; then only that can take it away.
    pub configured: bool,
    /// Held by a scan of it: two at once would read everything twice.
    pub scanning: Arc<tokio::sync::Mutex<()>>,
    /// Cancelled when it is taken away.
    gone: CancellationToken,
}

impl Member {
    /// A node of an installation that is enabled and was added; it begins to be connected to, and tells its events there.
    pub fn connect(
        name: &str,
        settings: NodeSettings,
        owner: Uuid,
        events: mpsc::UnboundedSender<NodeEvent>,
    ) -> Result<Member> {
        let (uri, virt_type) = (settings.uri.clone(), settings.virt_type.into());
        let config = NodeConfig { name: name.to_owned(), uri, virt_type, owner };
        let node = Node::spawn(config, events).map_err(|error| Error::Internal(format!("node {name}: {error}")))?;
        let (scanning, gone) = (Arc::default(), CancellationToken::new());
        Ok(Member { node, settings, enabled: true, configured: false, scanning, gone })
    }

    /// Runs something until the node is taken away.
    pub async fn until_gone(&self, f: impl Future<Output = ()>) {
        self.gone.run_until_cancelled(f).await;
    }
}

impl Nodes {
    /// No nodes yet. `added` is told of each that is added.
    pub fn new(added: mpsc::UnboundedSender<Member>) -> Nodes {
        Nodes { members: RwLock::default(), added }
    }

    /// The node of this name or host UUID.
    pub fn find(&self, reference: &str) -> Option<Member> {
        self.read(|members| {
            let by_id = || {
                let id = Uuid::try_parse(reference).ok()?;
                members.values().find(|member| member.node.host_uuid() == Some(id))
            };
            members.get(&name_key(reference)).or_else(by_id).cloned()
        })
    }

    /// All nodes, by name.
    pub fn all(&self) -> Vec<Member> {
        self.read(|members| members.values().cloned().collect())
    }

    /// Adds a node.
    pub fn insert(&self, member: Member) {
        self.write(|members| members.insert(name_key(member.node.name()), member.clone()));
        // Nobody listens any more: the server goes down.
        let _ = self.added.send(member);
    }

    /// Enables or disables a node.
    pub fn set_enabled(&self, name: &str, enabled: bool) {
        self.write(|members| {
            if let Some(member) = members.get_mut(&name_key(name)) {
                member.enabled = enabled;
            }
        });
    }

    /// Takes a node away: it is looked after no longer, and its connections end with the last call.
    pub fn remove(&self, name: &str) {
        if let Some(member) = self.write(|members| members.remove(&name_key(name))) {
            member.gone.cancel();
        }
    }

    /// The node that is the same host as this one and goes before it: VMs of one host must not be seen twice. The
    /// configuration file's go before those that were added, then the order is that of the names.
    pub fn same_host(&self, member: &Member) -> Option<String> {
        // The nodes of libvirt's test driver have none.
        let host = member.node.host_uuid().filter(|host| !host.is_nil())?;
        let rank = |member: &Member| (!member.configured, name_key(member.node.name()));
        let before = |other: &&Member| other.node.host_uuid() == Some(host) && rank(other) < rank(member);
        self.read(|members| members.values().find(before).map(|other| other.node.name().to_owned()))
    }

    fn write<T>(&self, f: impl FnOnce(&mut BTreeMap<String, Member>) -> T) -> T {
        f(&mut self.members.write().unwrap_or_else(PoisonError::into_inner))
    }

    fn read<T>(&self, f: impl FnOnce(&BTreeMap<String, Member>) -> T) -> T {
        f(&self.members.read().unwrap_or_else(PoisonError::into_inner))
    }
}
