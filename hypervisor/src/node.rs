//! A node: the link to its libvirt, lanes for calls, what it is, and how to call it.

use crate::{
    Error, ErrorKind, Facts, IoError, NodeEvent, PowerEvent, Result, Status, VirtType,
    connector::Connector,
    domain::{Helpers, is_helper},
    facts,
    lane::{Kind, Lane},
    link::Link,
    pauses::{PauseWatch, Pauses},
    session::Session,
    sync::lock,
    uri::{self, NodeUri},
};
use libvirt::{Connect, Domain, DomainEvent, EventDetail, EventKind, LifecycleEvent, Subscription, flags};
use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};
use uuid::Uuid;

/// The deadline of a call that only asks or changes a definition.
pub(crate) const QUICK: Duration = Duration::from_secs(15);
/// The deadline of a call that works on an image or waits for QEMU.
pub(crate) const SLOW: Duration = Duration::from_secs(120);

/// Threads for statistics: all but one may be kept by QEMUs that hang.
const SAMPLERS: usize = 5;
/// Jobs of QEMU's on a node at a time; more wait.
const JOBS: usize = 4;
/// Images copied on a node at a time.
const COPIES: usize = 2;

/// How a node is reached and what may be taken of it.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// The node's name.
    pub name: String,
    /// Its libvirt URI: `qemu:///system`, `qemu+ssh://root@host/system`, …
    pub uri: NodeUri,
    /// How guests run.
    pub virt_type: VirtTypeSetting,
    /// The installation of Vmyard: what it leaves behind on the node is told apart from what others leave by it.
    pub owner: Uuid,
}

/// How guests are to run on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum VirtTypeSetting {
    /// KVM where libvirt offers it and the CPU has it, else TCG.
    #[default]
    Auto,
    /// This one.
    Only(VirtType),
}

/// A node. Cheap to clone.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

struct Inner {
    config: NodeConfig,
    connector: Arc<Connector>,
    link: Arc<Link>,
    /// Short calls.
    control: Lane,
    /// Streams, which take as long as the bytes do.
    bulk: Lane,
    /// Work of QEMU's on images and memory, which may take hours: it must delay neither short calls nor seeds.
    jobs: Lane,
    /// Statistics, which wait for every QEMU of the node: one that hangs must delay nothing else. It keeps a thread, and the next
    /// call passes it over.
    sampler: Lane,
    /// Copies at work on the node: they must leave threads for seeds.
    copies: Semaphore,
    facts: Arc<Mutex<Option<Facts>>>,
    pauses: Pauses,
    helpers: Helpers,
}

impl Node {
    /// Starts connecting, in the background; a node that is away stops nobody. What happens on it goes to `events`.
    pub fn spawn(config: NodeConfig, events: mpsc::UnboundedSender<NodeEvent>) -> std::io::Result<Node> {
        let facts = Arc::new(Mutex::new(None));
        let local = uri::is_local(config.uri.secret());
        let wanted = match config.virt_type {
            VirtTypeSetting::Auto => None,
            VirtTypeSetting::Only(kind) => Some(kind),
        };
        let pauses = Pauses::default();
        let opened = {
            let (facts, events, name, pauses) =
                (Arc::clone(&facts), events.clone(), config.name.clone(), pauses.clone());
            move |connection: &Connect| {
                *lock(&facts) = Some(facts::read(connection, wanted, local)?);
                subscribe(connection, &name, &events, &pauses)
            }
        };
        let changed = {
            let name = config.name.clone();
            move |status: &Status| {
                let event = NodeEvent::Connection { node: name.clone(), status: status.clone() };
                // Nobody listens any more: the server goes down.
                let _ = events.send(event);
            }
        };
        let connector = Arc::new(Connector::new(config.uri.secret()));
        let link = Arc::new(Link::spawn(&config.name, &connector, opened, changed)?);
        let lane = |threads| Lane::spawn(&config.name, &connector, &link, threads);
        let (control, bulk, jobs, sampler) = (lane(4)?, lane(4)?, lane(JOBS)?, lane(SAMPLERS)?);
        let helpers = Helpers::of(config.owner);
        Ok(Node {
            inner: Arc::new(Inner {
                config,
                connector,
                link,
                control,
                bulk,
                jobs,
                sampler,
                copies: Semaphore::new(COPIES),
                facts,
                pauses,
                helpers,
            }),
        })
    }

    /// The node's name.
    pub fn name(&self) -> &str {
        &self.inner.config.name
    }

    /// Its libvirt URI, without a password.
    pub fn uri(&self) -> String {
        self.inner.config.uri.to_string()
    }

    /// Whether the node is this machine.
    pub fn is_local(&self) -> bool {
        uri::is_local(self.inner.config.uri.secret())
    }

    /// Our helper domains on it.
    pub(crate) fn helpers(&self) -> &Helpers {
        &self.inner.helpers
    }

    /// Its URI with the password.
    pub(crate) fn secret_uri(&self) -> &str {
        self.inner.config.uri.secret()
    }

    /// What opens connections to it.
    pub(crate) fn connector(&self) -> Arc<Connector> {
        Arc::clone(&self.inner.connector)
    }

    /// What its connection is, and since when.
    pub fn status(&self) -> (Status, Instant) {
        self.inner.link.status()
    }

    /// Returns when its connection is up. One that was lost, or is being made, just now has a moment; one that
    /// is away for longer fails at once.
    pub async fn wait_until_up(&self, doing: &str) -> Result<()> {
        self.inner.link.wait_until_up(doing).await
    }

    /// Waits until it was reached, or refused, for the first time; returns what it is.
    pub async fn reach(&self, deadline: Duration) -> Result<Facts> {
        let doing = "reach it";
        match tokio::time::timeout(deadline, self.inner.link.first_status()).await {
            Ok(Status::Up) => self.known_facts(doing),
            Ok(Status::Down(reason)) => Err(self.unavailable(doing, &reason)),
            _ => Err(self.unavailable(doing, &format!("it has not answered within {} s", deadline.as_secs()))),
        }
    }

    /// What the node is; `None` until it was reached once.
    pub fn facts(&self) -> Option<Facts> {
        lock(&self.inner.facts).clone()
    }

    /// The host's UUID, once it was reached.
    pub fn host_uuid(&self) -> Option<Uuid> {
        lock(&self.inner.facts).as_ref().map(|facts| facts.host_uuid)
    }

    /// What the node is, or that it was never reached.
    pub fn known_facts(&self, doing: &str) -> Result<Facts> {
        self.facts().ok_or_else(|| self.unavailable(doing, "it has not been reached yet"))
    }

    /// That the node can't be used now, and why.
    pub fn unavailable(&self, doing: &str, cause: &str) -> Error {
        self.error(ErrorKind::Unavailable, doing, cause)
    }

    /// An error of this node's.
    pub(crate) fn error(&self, kind: ErrorKind, doing: &str, cause: &str) -> Error {
        Error { kind, node: self.name().to_owned(), doing: doing.to_owned(), cause: cause.to_owned() }
    }

    /// Measures how long a domain's CPUs stand still from now on.
    pub fn watch_pauses(&self, domain: Uuid) -> PauseWatch {
        self.inner.pauses.watch(domain)
    }

    /// Fails while a call is at work on the node whose caller has given up, and which is about this domain or about
    /// none: what it does may still come about, and must not be taken back before.
    pub fn settle(&self, domain: Option<Uuid>, doing: &str) -> Result<()> {
        let lanes = [&self.inner.control, &self.inner.bulk, &self.inner.jobs];
        lanes.into_iter().try_for_each(|lane| lane.settle(domain, doing))
    }

    /// A place among the copies at work on the node.
    pub(crate) async fn place_for_copy(&self) -> Option<SemaphorePermit<'_>> {
        // Never closed.
        self.inner.copies.acquire().await.ok()
    }

    /// A short call that changes one domain.
    pub(crate) async fn change_domain<T: Send + 'static>(
        &self,
        domain: Uuid,
        deadline: Duration,
        doing: &str,
        f: impl FnOnce(&Domain) -> libvirt::Result<T> + Send + 'static,
    ) -> Result<T> {
        let find = move |session: &Session| f(&session.domain(domain)?);
        self.inner.control.call(Kind::Changes, deadline, doing, Some(domain), find).await
    }

    /// A short call that asks about one domain.
    pub(crate) async fn ask_domain<T: Send + 'static>(
        &self,
        domain: Uuid,
        doing: &str,
        f: impl FnOnce(&Domain) -> libvirt::Result<T> + Send + 'static,
    ) -> Result<T> {
        let find = move |session: &Session| f(&session.domain(domain)?);
        self.inner.control.call(Kind::Asks, QUICK, doing, Some(domain), find).await
    }

    /// A short call that changes something.
    pub(crate) async fn change<T: Send + 'static>(
        &self,
        deadline: Duration,
        doing: &str,
        f: impl FnOnce(&Session) -> libvirt::Result<T> + Send + 'static,
    ) -> Result<T> {
        self.inner.control.call(Kind::Changes, deadline, doing, None, f).await
    }

    /// A short call that only asks.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        doing: &str,
        f: impl FnOnce(&Session) -> libvirt::Result<T> + Send + 'static,
    ) -> Result<T> {
        self.inner.control.call(Kind::Asks, QUICK, doing, None, f).await
    }

    /// A call that asks every QEMU of the node.
    pub(crate) async fn sample<T: Send + 'static>(
        &self,
        deadline: Duration,
        doing: &str,
        f: impl FnOnce(&Session) -> libvirt::Result<T> + Send + 'static,
    ) -> Result<T> {
        self.inner.sampler.call(Kind::Asks, deadline, doing, None, f).await
    }

    /// A call that has QEMU work on images or memory, of this domain or of none.
    pub(crate) async fn job<T: Send + 'static>(
        &self,
        domain: Option<Uuid>,
        deadline: Duration,
        doing: &str,
        f: impl FnOnce(&Session) -> libvirt::Result<T> + Send + 'static,
    ) -> Result<T> {
        self.inner.jobs.call(Kind::Changes, deadline, doing, domain, f).await
    }

    /// A call that moves bytes.
    pub(crate) async fn bulk<T: Send + 'static>(
        &self,
        deadline: Duration,
        doing: &str,
        f: impl FnOnce(&Session) -> libvirt::Result<T> + Send + 'static,
    ) -> Result<T> {
        self.inner.bulk.call(Kind::Changes, deadline, doing, None, f).await
    }
}

fn subscribe(
    connection: &Connect,
    node: &str,
    events: &mpsc::UnboundedSender<NodeEvent>,
    pauses: &Pauses,
) -> libvirt::Result<Vec<Subscription>> {
    let mut subscriptions = Vec::new();
    let kinds = [
        EventKind::Lifecycle,
        EventKind::Reboot,
        EventKind::AgentLifecycle,
        EventKind::DeviceAdded,
        EventKind::DeviceRemoved,
        EventKind::IoError,
    ];
    for kind in kinds {
        let (node, events, pauses) = (node.to_owned(), events.clone(), pauses.clone());
        let subscription = connection.subscribe(kind, move |event| {
            if is_helper(&event.name) {
                return;
            }
            if let EventDetail::Lifecycle { event: change, .. } = &event.detail {
                let stopped = *change == LifecycleEvent::Suspended;
                if stopped || *change == LifecycleEvent::Resumed {
                    pauses.told(Uuid::from_bytes(event.uuid), stopped);
                }
            }
            if let Some(event) = translate(&node, &event) {
                let _ = events.send(event);
            }
        });
        match subscription {
            Ok(subscription) => subscriptions.push(subscription),
            // libvirt's test driver knows only some kinds.
            Err(error) if kind != EventKind::Lifecycle => tracing::debug!(%error, "no such events here"),
            Err(error) => return Err(error),
        }
    }
    Ok(subscriptions)
}

fn translate(node: &str, event: &DomainEvent) -> Option<NodeEvent> {
    let (node, domain) = (node.to_owned(), Uuid::from_bytes(event.uuid));
    match &event.detail {
        EventDetail::Lifecycle { event, .. } => {
            let event = match event {
                LifecycleEvent::Defined => PowerEvent::Defined,
                LifecycleEvent::Undefined => PowerEvent::Undefined,
                LifecycleEvent::Started => PowerEvent::Started,
                LifecycleEvent::Suspended => PowerEvent::Suspended,
                LifecycleEvent::Resumed => PowerEvent::Resumed,
                LifecycleEvent::Stopped | LifecycleEvent::Crashed => PowerEvent::Stopped,
                LifecycleEvent::Shutdown => PowerEvent::ShuttingDown,
                _ => PowerEvent::Other,
            };
            Some(NodeEvent::Domain { node, domain, event })
        }
        EventDetail::Reboot => Some(NodeEvent::Reboot { node, domain }),
        // virConnectDomainEventAgentLifecycleState: 1 connected, 2 disconnected.
        EventDetail::AgentLifecycle { state, .. } => Some(NodeEvent::Agent { node, domain, connected: *state == 1 }),
        EventDetail::IoError { source_path, device, action, reason } => {
            let error = IoError {
                alias: device.clone(),
                path: source_path.clone(),
                no_space: reason == "enospc",
                paused: *action == flags::IO_ERROR_PAUSE,
            };
            Some(NodeEvent::IoError { node, domain, error })
        }
        EventDetail::DeviceAdded { .. } | EventDetail::DeviceRemoved { .. } => {
            Some(NodeEvent::Devices { node, domain })
        }
        _ => None,
    }
}

/// Reads each of several objects. One that can't be read, since it has just gone, hides no other. But when the connection
/// has died nothing can be read, and an empty list would say that there is nothing: that is an error.
pub(crate) fn read_each<T, V>(
    is_alive: impl Fn() -> bool,
    objects: &[T],
    read: impl Fn(&T) -> libvirt::Result<V>,
) -> libvirt::Result<Vec<V>> {
    let read = objects.iter().map(read).filter(|read| read.is_ok() || !is_alive());
    read.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_over_a_dead_connection_is_not_empty_but_an_error() {
        let connection = Connect::open("test:///default").unwrap();
        let read = |name: &&str| connection.domain_by_name(name).map(|domain| domain.name());
        let names = ["gone", "test"];
        assert_eq!(read_each(|| true, &names, read).unwrap(), ["test"]);
        assert!(read_each(|| false, &names, read).is_err());
    }
}
