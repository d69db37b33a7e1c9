//! Reading a domain of a node into the index.

use crate::{App, Result, attachments, drift};
use hypervisor::{ErrorKind, Node};
use uuid::Uuid;

/// Reads a domain and takes it in. One that leaves the call unanswered is stale from then on.
pub async fn refresh(app: &App, node: &Node, id: Uuid) -> Result<()> {
    let read = app.index.begin_read();
    let at_work = || app.locks.are_held(id) || !app.index.detaching_from(id).is_empty();
    let was_at_work = at_work();
    match node.domain(id).await {
        Ok(told) => {
            if let Some(sight) = app.index.observe(node.name(), id, read, told) {
                drift::look(app, id, &sight, || was_at_work || at_work());
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
