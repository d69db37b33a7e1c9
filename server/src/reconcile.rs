//! Keeping the index true and finishing what was begun: events first, a periodic scan as repair.

use crate::{
    App, Result, credential_checks, events, housekeeping,
    nodes::Member,
    observe::{SOON, is_at_work, refresh, refresh_told},
    ops, sampler, seeds,
    store::NewEvent,
    task,
};
use api::event::EventKind;
use futures::StreamExt;
use hypervisor::{IoError, Node, NodeEvent, PowerEvent, Status, domain::AddressSource};
use serde_json::json;
use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};
use tokio::sync::mpsc;
use uuid::Uuid;

/// The age at which a configuration is read again, although no event told of a change.
const VIEW_AGE: Duration = Duration::from_secs(60);
/// How often guest agents are asked.
const ASK: Duration = Duration::from_secs(10);
/// How long a guest agent has to tell its addresses.
const AGENT: Duration = Duration::from_secs(5);
/// How many configurations a scan reads again at most.
const VIEWS_A_SCAN: usize = 50;
/// Configurations read from one node at a time.
const READS_AT_ONCE: usize = 3;
/// An error of a disk is told again after so long.
const IO_ERRORS: Duration = Duration::from_secs(60);
/// Guest agents of one node asked at a time.
const AGENTS_AT_ONCE: usize = 2;

/// Runs for ever: takes in what the nodes tell.
pub async fn follow_events(app: App, mut events: mpsc::UnboundedReceiver<NodeEvent>) {
    let deaf = task::deaf();
    let (mut told_up, mut io_errors) = (HashMap::new(), HashMap::new());
    while let Some(event) = events.recv().await {
        match event {
            NodeEvent::Connection { node, status } => {
                tracing::info!(node, ?status, "node");
                tell_connection(&app, &node, &status, &mut told_up);
                if status != Status::Up {
                    app.index.set_node_up(&node, false);
                } else {
                    // What is known of it counts as fresh when it was scanned.
                    let app = app.clone();
                    tokio::spawn(async move { arrived(&app, &node).await });
                }
            }
            NodeEvent::Domain { .. }
            | NodeEvent::Reboot { .. }
            | NodeEvent::Agent { .. }
            | NodeEvent::Devices { .. }
                if deaf => {}
            NodeEvent::Devices { node, domain } => refresh_soon(&app, &node, domain),
            NodeEvent::Domain { node, domain, event: PowerEvent::Defined } => {
                let (app, told) = (app.clone(), app.index.begin_read());
                let ours = is_at_work(&app, domain);
                tokio::spawn(async move {
                    tokio::time::sleep(SOON).await;
                    // Who has changed it here may have read it right after.
                    if !app.index.was_read_since(domain, told) {
                        refresh_of(&app, &node, domain, ours).await;
                    }
                });
            }
            NodeEvent::Domain { node, domain, event } => {
                // A domain that begins to power off is still on; `Stopped` follows.
                if event != PowerEvent::ShuttingDown {
                    refresh_soon(&app, &node, domain);
                }
            }
            NodeEvent::IoError { domain, error, .. } => {
                // QEMU tells of each request that fails.
                let told = io_errors.insert((domain, error.clone()), Instant::now());
                if told.is_none_or(|told| told.elapsed() > IO_ERRORS) {
                    tell_io_error(&app, domain, &error);
                }
                io_errors.retain(|_, told| told.elapsed() <= IO_ERRORS);
            }
            NodeEvent::Reboot { node, domain } => {
                app.index.count_reset(domain);
                app.events.tell_of_vm(&app, domain, EventKind::VmReboot, "the guest was reset", json!({}));
                refresh_soon(&app, &node, domain);
            }
            NodeEvent::Agent { node, domain, connected } => {
                let what = if connected { "the guest agent is there" } else { "the guest agent is gone" };
                app.events.tell_of_vm(&app, domain, EventKind::VmAgent, what, json!({"connected": connected}));
                refresh_soon(&app, &node, domain);
                if connected {
                    let app = app.clone();
                    tokio::spawn(async move {
                        if let Ok(node) = app.node(&node) {
                            read_agent_addresses(&app, &node, domain).await;
                            check_credentials(&app, &node, domain).await;
                        }
                    });
                }
            }
        }
    }
}

/// Tells that a node came up or was lost; not each further attempt that fails.
fn tell_connection(app: &App, node: &str, status: &Status, told_up: &mut HashMap<String, bool>) {
    let (up, reason) = match status {
        Status::Connecting => return,
        Status::Up => (true, None),
        Status::Down(reason) => (false, Some(reason.as_str())),
    };
    if told_up.insert(node.to_owned(), up) == Some(up) {
        return;
    }
    let what = reason.map_or_else(|| "is connected".to_owned(), |reason| format!("can't be reached: {reason}"));
    let details = json!({"up": up, "reason": reason});
    let event = events::general(EventKind::NodeState, format!("node {node}: {what}"), details);
    app.events.tell(NewEvent { node: Some(node.to_owned()), ..event });
}

fn tell_io_error(app: &App, vm: Uuid, error: &IoError) {
    let seen = app.index.get(vm).and_then(|entry| entry.seen);
    let disk =
        seen.as_ref().and_then(|seen| seen.view.disks.iter().find(|disk| disk.alias.as_ref() == Some(&error.alias)));
    let device = disk.map_or(error.alias.as_str(), |disk| disk.target.as_str());
    let why = if error.no_space { "no space left for" } else { "can't read or write" };
    let what = match error.paused {
        true => {
            format!("{why} disk {device} ({}): the VM is paused; make room, then resume-vm goes on with it", error.path)
        }
        false => format!("{why} disk {device} ({}): the guest was told", error.path),
    };
    let IoError { path, no_space, paused, .. } = error;
    let details = json!({"device": device, "path": path, "no_space": no_space, "paused": paused});
    app.events.tell_of_vm(app, vm, EventKind::VmIoError, &what, details);
}

/// Runs for ever: looks after each node that is added, until it is taken away.
pub async fn follow_nodes(app: App, mut added: mpsc::UnboundedReceiver<Member>) {
    while let Some(member) = added.recv().await {
        look_after(&member, scan_for_ever(app.clone(), member.clone()));
        look_after(&member, sampler::look_at_pools_for_ever(app.clone(), member.node.clone()));
        look_after(&member, ask_agents_for_ever(app.clone(), member.node.clone()));
        let (sampled, app_) = (member.clone(), app.clone());
        tokio::spawn(async move {
            sampled.until_gone(sampler::sample_for_ever(app_.clone(), sampled.node.clone())).await;
            app_.metrics.forget_node(sampled.node.name());
        });
        // That it came up may have been told before it was known.
        if member.node.status().0 == Status::Up {
            let app = app.clone();
            tokio::spawn(async move { arrived(&app, member.node.name()).await });
        }
    }
}

/// Starts work on a node that ends with it.
fn look_after(member: &Member, work: impl Future<Output = ()> + Send + 'static) {
    let member = member.clone();
    tokio::spawn(async move { member.until_gone(work).await });
}

/// Runs for ever: scans a node and goes on with its deletions. A node that is slow delays only its own rows.
async fn scan_for_ever(app: App, member: Member) {
    let node = &member.node;
    let mut ticks = tokio::time::interval(Duration::from_secs(app.config.scan_interval_s.max(1)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // The first tick is at once, before any node can be up: its arrival scans it.
    ticks.tick().await;
    loop {
        ticks.tick().await;
        if node.status().0 == Status::Up && app.nodes.same_host(&member).is_none() {
            let Ok(_alone) = member.scanning.try_lock() else { continue };
            scan_and_go_on(&app, node, None).await;
        }
    }
}

/// Runs for ever: asks the guest agents of a node for addresses. Apart from the scans, and few at a time: guests that
/// don't answer delay only each other.
async fn ask_agents_for_ever(app: App, node: Node) {
    let mut ticks = tokio::time::interval(ASK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if node.status().0 != Status::Up {
            continue;
        }
        let mut guests = Vec::new();
        app.index.each(|id, entry| {
            let seen = entry.seen.as_ref().filter(|_| entry.node == node.name());
            guests.extend(seen.filter(|seen| seen.view.agent_connected).map(|_| id));
        });
        let asked = futures::stream::iter(guests).map(|id| read_agent_addresses(&app, &node, id));
        asked.buffer_unordered(AGENTS_AT_ONCE).collect::<()>().await;
        let here = |id: &Uuid| app.index.get(*id).is_some_and(|entry| entry.node == node.name());
        let waiting = app.credential_checks.waiting().into_iter().filter(here);
        let checked = futures::stream::iter(waiting).map(|id| check_credentials(&app, &node, id));
        checked.buffer_unordered(AGENTS_AT_ONCE).collect::<()>().await;
    }
}

async fn check_credentials(app: &App, node: &Node, id: Uuid) {
    if let Err(error) = credential_checks::look(app, node, id).await {
        tracing::warn!(%error, %id, "what came of a reset is not noted");
    }
}

/// A node has come up: make what VMs need on it, and look at everything.
async fn arrived(app: &App, name: &str) {
    let came_up = Instant::now();
    let Ok(member) = app.member(name) else { return };
    if let Some(other) = app.nodes.same_host(&member) {
        tracing::error!(node = name, other, "is the same host as another node, and is left alone");
        return;
    }
    // Its arrival may be told twice: what two make side by side, they could take from each other.
    let _alone = member.scanning.lock().await;
    prepare(app, &member).await;
    app.manifests.wake.notify_one();
    scan_and_go_on(app, &member.node, Some(came_up)).await;
    let app = app.clone();
    tokio::spawn(async move { housekeeping::forget_gone(&app, &member.node).await });
}

async fn scan_and_go_on(app: &App, node: &Node, came_up: Option<Instant>) {
    if let Err(error) = scan(app, node, came_up).await {
        tracing::warn!(%error, "scan");
    }
    // On a task of its own: a pool that hangs must not keep the scans from going on. Locks keep two from meeting.
    let (app, node) = (app.clone(), node.clone());
    tokio::spawn(async move {
        ops::vm::delete::go_on(&app, &node).await;
        ops::template::go_on(&app, &node).await;
        ops::volume::delete::go_on(&app, &node).await;
        ops::snapshot::delete::go_on(&app, &node).await;
    });
}

/// Ends what was left half done, and makes the pools and the network that VMs need where there are none; one that can't be made
/// keeps no other.
async fn prepare(app: &App, Member { node, settings, .. }: &Member) {
    for made in [
        node.end_left_helpers().await,
        node.ensure_pool("default", &settings.default_pool_path).await,
        node.ensure_pool(seeds::POOL, &settings.seed_pool_path).await,
        node.ensure_network("default").await,
        ops::template::drop_left_lookups(app, node).await,
    ] {
        if let Err(error) = made {
            tracing::warn!(%error, "the node lacks something that VMs need");
        }
    }
}

/// Lists a node's domains and reads what is unknown, changed or old; of a node that came up just now everything that
/// was read before, since its events were missed.
async fn scan(app: &App, node: &Node, came_up: Option<Instant>) -> Result<()> {
    let read = app.index.begin_read();
    let listed = node.domains().await;
    let statuses = listed.inspect_err(|_| app.index.set_node_up(node.name(), false))?;
    let mut unread = app.index.observe_listing(node.name(), read, &statuses);
    // It may have gone since it answered, which was told before.
    app.index.set_node_up(node.name(), node.status().0 == Status::Up);
    let mut old: Vec<(Instant, Uuid)> = Vec::new();
    app.index.each(|id, entry| {
        let Some(seen) = entry.seen.as_ref().filter(|_| entry.node == node.name()) else { return };
        if came_up.is_some_and(|came_up| seen.view_read < came_up) || seen.view_read.elapsed() > VIEW_AGE {
            old.push((seen.view_read, id));
        }
    });
    old.sort_unstable();
    let limit = if came_up.is_some() { old.len() } else { VIEWS_A_SCAN };
    // One in another state is among both.
    let known: HashSet<Uuid> = unread.iter().copied().collect();
    unread.extend(old.into_iter().take(limit).map(|(_, id)| id).filter(|id| !known.contains(id)));
    // One that can't be read hides no other, and one that hangs holds only its own place.
    let reads = futures::stream::iter(unread).map(|id| refresh(app, node, id)).buffer_unordered(READS_AT_ONCE);
    let outcome = reads.fold(Ok(()), |outcome: Result<()>, read| async { outcome.and(read) }).await;
    app.index.set_scanned(node.name());
    outcome
}

fn refresh_soon(app: &App, node: &str, id: Uuid) {
    let (app, node) = (app.clone(), node.to_owned());
    tokio::spawn(async move { refresh_of(&app, &node, id, is_at_work(&app, id)).await });
}

/// Reads a domain that an event was about.
async fn refresh_of(app: &App, node: &str, id: Uuid, was_at_work: bool) {
    let Ok(node) = app.node(node) else { return };
    if let Err(error) = refresh_told(app, &node, id, was_at_work).await {
        // The next scan repairs it.
        tracing::debug!(%error, "an event's domain could not be read");
    }
}

async fn read_agent_addresses(app: &App, node: &Node, id: Uuid) {
    match tokio::time::timeout(AGENT, node.addresses(id, AddressSource::Agent)).await {
        Ok(Ok(addresses)) => app.index.set_agent_addresses(id, addresses),
        _ => tracing::debug!(%id, "no addresses from the guest agent"),
    }
}
