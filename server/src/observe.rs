//! Reading a domain of a node into the index.

use crate::{App, Result, attachments, drift, store::Move};
use hypervisor::{ErrorKind, Node};
use std::time::Duration;
use uuid::Uuid;

/// How long a change is let be before a domain is read again, where nobody waits for that: whoever has made it, or waits for it to
/// be made, goes first.
pub const SOON: Duration = Duration::from_millis(20);

/// Whether a task is at work on a VM: how it changes is our doing.
pub fn is_at_work(app: &App, id: Uuid) -> bool {
    app.locks.are_held(id) || !app.index.detaching_from(id).is_empty()
}

/// Reads a domain and takes it in. One that leaves the call unanswered is stale from then on.
pub async fn refresh(app: &App, node: &Node, id: Uuid) -> Result<()> {
    refresh_told(app, node, id, is_at_work(app, id)).await
}

/// The same for a change that was told before, when a task was at work on it or none.
pub async fn refresh_told(app: &App, node: &Node, id: Uuid, was_at_work: bool) -> Result<()> {
    let read = app.index.begin_read();
    match node.domain(id).await {
        Ok(told) => {
            if let Some(sight) = app.index.observe(node.name(), id, read, told) {
                drift::look(app, id, &sight, || was_at_work || is_at_work(app, id));
            }
            attachments::free_let_go(app, node, id).await;
        }
        Err(error) => {
            if error.kind == ErrorKind::Timeout {
                app.index.set_silent(id);
            }
            return Err(error.into());
        }
    }
    Ok(())
}

/// Reads a domain after a change that is done already: that it can't be read doesn't undo the change, and its node is
/// then shown as stale; the next scan repairs it.
pub async fn refresh_after(app: &App, node: &Node, id: Uuid) {
    if let Err(error) = refresh(app, node, id).await {
        tracing::warn!(%error, "a domain could not be read after a change");
    }
}

/// Takes in that disks of a domain that is off have gone on in other images, as its node has just confirmed: it is read again, but
/// nobody waits for that.
pub fn disks_moved(app: &App, node: &Node, id: Uuid, moves: &[Move]) {
    let sight = app.index.move_disks(id, moves);
    let (app, node) = (app.clone(), node.clone());
    tokio::spawn(async move {
        tokio::time::sleep(SOON).await;
        if let Some(sight) = sight {
            drift::look(&app, id, &sight, || true);
        }
        if let Err(error) = refresh_told(&app, &node, id, true).await {
            tracing::debug!(%error, "a domain could not be read after a change");
        }
    });
}
