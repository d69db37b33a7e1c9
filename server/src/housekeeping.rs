//! What is forgotten by its age, and memory that is not used any more.

use crate::{App, Result, ops};
use api::Time;
use hypervisor::Node;
use std::time::Duration;

/// How long the audit is kept, in milliseconds.
const AUDIT_MS: i64 = 400 * 24 * 3600 * 1000;
/// How long a task that has ended is kept, in milliseconds.
const TASKS_MS: i64 = 90 * 24 * 3600 * 1000;
/// How long events are kept, in milliseconds, and how many of them.
const EVENTS: (i64, i64) = (7 * 24 * 3600 * 1000, 200_000);
/// How often it is looked for what is too old.
const PAUSE: Duration = Duration::from_secs(3600);
/// How often memory is given back.
const MEMORY: Duration = Duration::from_secs(20);

/// Forgets old entries of the audit, old events, old tasks and sessions that have ended, and what was made on nodes and is gone from them:
/// now, and then every hour.
pub async fn for_ever(app: App) {
    loop {
        if let Err(error) = forget(&app).await {
            tracing::warn!(%error, "what is old is not forgotten yet");
        }
        for member in app.nodes.all() {
            forget_gone(&app, &member.node).await;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Runs for ever: what a start, or many calls at once, needed and nobody uses any more is the system's again.
pub async fn give_memory_back_for_ever() {
    let mut ticks = tokio::time::interval(MEMORY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        hypervisor::give_memory_back();
    }
}

/// Forgets what was made on a node and is gone from it. What can't be done now is done the next time.
pub async fn forget_gone(app: &App, node: &Node) {
    if let Err(error) = ops::orphan::forget_gone(app, node).await {
        tracing::warn!(%error, "what is gone from a node is not forgotten yet");
    }
}

async fn forget(app: &App) -> Result<()> {
    let now = Time::now();
    app.store.forget_audit_before(Time(now.0 - AUDIT_MS)).await?;
    app.store.forget_tasks_before(Time(now.0 - TASKS_MS)).await?;
    let (age_ms, most) = EVENTS;
    app.store.forget_events(Time(now.0 - age_ms), most).await?;
    app.store.forget_sessions_before(now).await
}
