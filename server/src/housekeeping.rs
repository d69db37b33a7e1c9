//! What is forgotten by its age.

use crate::{App, Result};
use api::Time;
use std::time::Duration;

/// How long the audit is kept, in milliseconds.
const AUDIT_MS: i64 = 400 * 24 * 3600 * 1000;
/// How long a task that has ended is kept, in milliseconds.
const TASKS_MS: i64 = 90 * 24 * 3600 * 1000;
/// How often it is looked for what is too old.
const PAUSE: Duration = Duration::from_secs(24 * 3600);

/// Forgets old entries of the audit, old tasks and sessions that have ended: now, and then every day.
pub async fn for_ever(app: App) {
    loop {
        if let Err(error) = forget(&app).await {
            tracing::warn!(%error, "what is old is not forgotten yet");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn forget(app: &App) -> Result<()> {
    let now = Time::now();
    app.store.forget_audit_before(Time(now.0 - AUDIT_MS)).await?;
    app.store.forget_tasks_before(Time(now.0 - TASKS_MS)).await?;
    app.store.forget_sessions_before(now).await
}
