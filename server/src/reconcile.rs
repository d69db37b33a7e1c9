//! Keeping the index true and finishing what was begun: events first, a periodic scan as repair.

use crate::{App, Result, observe::refresh, ops, seeds};
use hypervisor::{Node, NodeEvent, PowerEvent, Status, domain::AddressSource};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use uuid::Uuid;

/// The age at which a configuration is read again, although no event told of a change.
const VIEW_AGE: Duration = Duration::from_secs(60);
/// How often the use of CPU and memory is read.
const SAMPLE: Duration = Duration::from_secs(10);
/// How long a guest agent has to tell its addresses.
const AGENT: Duration = Duration::from_secs(5);
/// How many configurations a scan reads again at most.
const VIEWS_A_SCAN: usize = 50;
/// Configurations read from one node at a time.
const READS_AT_ONCE: usize = 3;

/// Runs for ever: takes in what the nodes tell.
pub async fn follow_events(app: App, mut events: mpsc::UnboundedReceiver<NodeEvent>) {
    while let Some(event) = events.recv().await {
        match event {
            NodeEvent::Connection { node, status } => {
                tracing::info!(node, ?status, "node");
                if status != Status::Up {
                    app.index.set_node_up(&node, false);
                } else {
                    // What is known of it counts as fresh when it was scanned.
                    let app = app.clone();
                    tokio::spawn(async move { arrived(&app, &node).await });
                }
            }
            NodeEvent::Domain { node, domain, event } => {
                // A domain that begins to power off is still on; `Stopped` follows.
                if event != PowerEvent::ShuttingDown {
                    refresh_soon(&app, &node, domain);
                }
            }
            NodeEvent::Reboot { node, domain } => {
                app.index.count_reset(domain);
                refresh_soon(&app, &node, domain);
            }
            NodeEvent::Agent { node, domain, connected } => {
                refresh_soon(&app, &node, domain);
                if connected {
                    let app = app.clone();
                    tokio::spawn(async move {
                        if let Ok(node) = app.node(&node) {
                            read_agent_addresses(&app, node, domain).await;
                        }
                    });
                }
            }
        }
    }
}

/// Runs for ever: scans a node and goes on with its deletions. A node that is slow delays only its own rows.
pub async fn scan_for_ever(app: App, node: Node) {
    let mut ticks = tokio::time::interval(Duration::from_secs(app.config.scan_interval_s.max(1)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // The first tick is at once, before any node can be up: its arrival scans it.
    ticks.tick().await;
    loop {
        ticks.tick().await;
        if node.status().0 == Status::Up {
            scan_and_go_on(&app, &node).await;
        }
    }
}

/// Runs for ever: reads what a node's domains use.
pub async fn sample_for_ever(app: App, node: Node) {
    let mut ticks = tokio::time::interval(SAMPLE);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if node.status().0 != Status::Up {
            continue;
        }
        match node.samples().await {
            Ok(samples) => app.index.take_samples(node.name(), &samples),
            // libvirt's test driver has none; a QEMU that hangs delays those of its node.
            Err(error) => tracing::debug!(%error, "no statistics"),
        }
    }
}

/// A node has come up: make what VMs need on it, and look at everything.
async fn arrived(app: &App, name: &str) {
    let Ok(node) = app.node(name) else { return };
    prepare(app, node).await;
    scan_and_go_on(app, node).await;
}

async fn scan_and_go_on(app: &App, node: &Node) {
    if let Err(error) = scan(app, node).await {
        tracing::warn!(%error, "scan");
    }
    // On a task of its own: a pool that hangs must not keep the scans from going on. Locks keep two from meeting.
    let (app, node) = (app.clone(), node.clone());
    tokio::spawn(async move {
        ops::vm::delete::go_on(&app, &node).await;
        ops::template::go_on(&app, &node).await;
    });
}

/// Makes the pools and the network that VMs need where there are none; one that can't be made keeps no other.
async fn prepare(app: &App, node: &Node) {
    let settings = app.config.nodes.get(node.name());
    let path = |of: fn(&crate::config::NodeSettings) -> &String| settings.map(of).cloned().unwrap_or_default();
    let (images, seeds) = (path(|settings| &settings.default_pool_path), path(|settings| &settings.seed_pool_path));
    for made in [
        node.ensure_pool("default", &images).await,
        node.ensure_pool(seeds::POOL, &seeds).await,
        node.ensure_network("default").await,
        ops::template::drop_left_lookups(app, node).await,
    ] {
        if let Err(error) = made {
            tracing::warn!(%error, "the node lacks something that VMs need");
        }
    }
}

/// Lists a node's domains and reads what is unknown, changed or old.
pub async fn scan(app: &App, node: &Node) -> Result<()> {
    let read = app.index.begin_read();
    let listed = node.domains().await;
    app.index.set_node_up(node.name(), listed.is_ok());
    let statuses = listed?;
    let mut unread = app.index.observe_listing(node.name(), read, &statuses);
    let mut old: Vec<(Instant, Uuid)> = Vec::new();
    let mut running = Vec::new();
    app.index.each(|id, entry, _| {
        let Some(seen) = entry.seen.as_ref().filter(|_| entry.node == node.name()) else { return };
        if seen.view_read.elapsed() > VIEW_AGE {
            old.push((seen.view_read, id));
        }
        if seen.view.agent_connected {
            running.push(id);
        }
    });
    old.sort_unstable();
    unread.extend(old.into_iter().take(VIEWS_A_SCAN).map(|(_, id)| id));
    let mut outcome = Ok(());
    for batch in unread.chunks(READS_AT_ONCE) {
        // One that can't be read hides no other.
        let read = futures::future::join_all(batch.iter().map(|id| refresh(app, node, *id))).await;
        outcome = read.into_iter().fold(outcome, Result::and);
    }
    app.index.set_scanned(node.name());
    futures::future::join_all(running.into_iter().map(|id| read_agent_addresses(app, node, id))).await;
    outcome
}

fn refresh_soon(app: &App, node: &str, id: Uuid) {
    let (app, node) = (app.clone(), node.to_owned());
    tokio::spawn(async move {
        let Ok(node) = app.node(&node) else { return };
        if let Err(error) = refresh(&app, node, id).await {
            // The next scan repairs it.
            tracing::debug!(%error, "an event's domain could not be read");
        }
    });
}

async fn read_agent_addresses(app: &App, node: &Node, id: Uuid) {
    match tokio::time::timeout(AGENT, node.addresses(id, AddressSource::Agent)).await {
        Ok(Ok(addresses)) => app.index.set_agent_addresses(id, addresses),
        _ => tracing::debug!(%id, "no addresses from the guest agent"),
    }
}
