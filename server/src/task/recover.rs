//! What a server that died has left in the journal.

use super::journal::unwind;
use crate::{App, Error, store::TaskRecord};

/// Unwinds the tasks that were at work when the server died. Deletions are not taken back: the reconciler goes on with
/// them, since what they delete is marked. A task whose node is away is unwound when the node is back. `left` was read
/// before any new task could begin.
pub async fn recover(app: &App, left: Vec<TaskRecord>) {
    let unwinding = left.into_iter().map(|task| {
        tracing::info!(task = %task.id, method = task.method, target = task.target.name, "unwinding what was cut off");
        let app = app.clone();
        // Side by side: a node that hangs keeps no other from being cleaned up.
        tokio::spawn(async move { unwind(&app, task.id, &Error::Interrupted, Vec::new()).await })
    });
    futures::future::join_all(unwinding).await;
}
