//! The work of the methods, a file for each resource.

use crate::{App, Result, task::Lock};
use uuid::Uuid;

pub mod audit;
pub mod console;
pub mod copies;
pub mod event;
pub mod find;
pub mod iso;
pub mod keypair;
pub mod network;
pub mod nic;
pub mod node;
pub mod orphan;
pub mod page;
pub mod pool;
pub mod session;
pub mod snapshot;
pub mod task;
pub mod template;
mod template_image;
pub mod token;
pub mod vm;
pub mod volume;
pub mod webhook;

/// Goes on with a deletion that was cut off, unless a task is at work on the object.
async fn finish_deletion(
    app: &App,
    (kind, id, name): (&str, Uuid, &str),
    locks: &[Lock],
    method: &'static str,
    rest: impl Future<Output = Result<()>>,
) {
    let Ok(_held) = app.locks.take(id, name, locks, Uuid::now_v7(), method) else { return };
    match rest.await {
        Ok(()) => tracing::info!(kind, name, "a deletion was finished"),
        Err(error) => tracing::warn!(%error, kind, name, "a deletion is not finished yet"),
    }
}
