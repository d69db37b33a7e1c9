//! Reading what the domains of a node have used, at whole multiples of the interval.

use crate::{App, metrics::export::Sampling};
use api::Time;
use hypervisor::{ErrorKind, Node, Status};
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// How often a reading is tried again that a hung QEMU has kept: each time one more is passed over.
const TRIES: usize = 4;
/// How often pools are looked at.
const POOLS: Duration = Duration::from_secs(60);
/// When it is looked again whether a node is up.
const SOON: Duration = Duration::from_secs(1);

/// Runs for ever: reads what a node's domains use.
pub async fn sample_for_ever(app: App, node: Node) {
    let interval_ms = i64::try_from(app.metrics.interval().as_millis()).unwrap_or(10_000);
    let mut last_s = i64::MIN;
    loop {
        let now_ms = Time::now().0;
        let wait_ms = interval_ms - now_ms.rem_euclid(interval_ms);
        tokio::time::sleep(Duration::from_millis(wait_ms.unsigned_abs())).await;
        // By the clock, which may have been set meanwhile; what is read stands for the interval that has ended.
        let ended_ms = Time::now().0 + interval_ms / 2;
        let at_s = (ended_ms - ended_ms.rem_euclid(interval_ms) - interval_ms) / 1000;
        // A clock that runs a little slow now makes the sleep end a little early.
        if std::mem::replace(&mut last_s, at_s) == at_s {
            continue;
        }
        match node.status().0 {
            Status::Up => sample(&app, &node, at_s).await,
            _ => app.metrics.forget_node(node.name()),
        }
    }
}

async fn sample(app: &App, node: &Node, at_s: i64) {
    let begun = Instant::now();
    let mut views = HashMap::new();
    app.index.each(|id, entry| {
        if let Some(seen) = entry.seen.as_ref().filter(|_| entry.node == node.name()) {
            views.insert(id, seen.view.clone());
        }
    });
    let mut hung = false;
    for _ in 0..TRIES {
        match node.samples(views.len()).await {
            Ok(samples) => {
                let taken = app.metrics.take(node.name(), at_s, samples, |id| views.get(&id).cloned());
                app.index.take_usage(node.name(), taken.usage, hung);
                app.metrics.set_sampling(node.name(), Sampling { at: Instant::now(), took: begun.elapsed() });
                watch_memory(app, node, taken.unwatched);
                return;
            }
            Err(error) if error.kind == ErrorKind::Timeout => hung = true,
            // libvirt's test driver has none.
            Err(error) => return tracing::debug!(%error, "no statistics"),
        }
    }
    tracing::warn!(node = node.name(), "no statistics: more QEMUs hang than can be passed over at once");
}

/// Runs for ever: looks at a node's pools.
pub async fn look_at_pools_for_ever(app: App, node: Node) {
    loop {
        let mut known = false;
        if node.status().0 == Status::Up {
            match node.pools().await {
                // Of a node that has just come up there are none yet.
                Ok(pools) => {
                    known = !pools.is_empty();
                    app.metrics.set_pools(node.name(), pools);
                }
                Err(error) => tracing::debug!(%error, "the pools are not known"),
            }
        }
        tokio::time::sleep(if known { POOLS } else { SOON }).await;
    }
}

/// Has the balloon drivers of these domains tell of their guests' memory, one after the other.
fn watch_memory(app: &App, node: &Node, domains: Vec<uuid::Uuid>) {
    if domains.is_empty() {
        return;
    }
    let (app, node) = (app.clone(), node.clone());
    tokio::spawn(async move {
        for domain in domains {
            match node.watch_memory(domain).await {
                // The definition of a running domain shows it.
                Ok(()) => drop(crate::observe::refresh(&app, &node, domain).await),
                // It may have no balloon.
                Err(error) => tracing::debug!(%error, "a guest's memory isn't known"),
            }
        }
    });
}
