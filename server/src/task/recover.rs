//! What a server that died has left in the journal.

use super::journal::unwind;
use crate::{App, Error, Result, ops, store::TaskRecord};
use api::task::TaskState;

/// Unwinds the tasks that were at work when the server died. Deletions are not taken back: the reconciler goes on with
/// them, since what they delete is marked. A task whose node is away is unwound when the node is back. `left` was read
/// before any new task could begin.
pub async fn recover(app: &App, left: Vec<TaskRecord>) {
    let unwinding = left.into_iter().map(|task| {
        tracing::info!(task = %task.id, method = task.method, target = task.target.name, "taking up what was cut off");
        let app = app.clone();
        // Side by side: a node that hangs keeps no other from being cleaned up.
        tokio::spawn(async move {
            match task.result {
                // Its work was final when the server died; only its end was not written.
                Some(_) => match finish(&app, &task).await {
                    Ok(()) => {}
                    Err(error) => tracing::error!(%error, task = %task.id, "a task's end is not journalled"),
                },
                None => unwind(&app, task.id, &Error::Interrupted, Vec::new()).await,
            }
        })
    });
    futures::future::join_all(unwinding).await;
}

/// Ends a task whose work was final, with the reply that it would have given.
async fn finish(app: &App, task: &TaskRecord) -> Result<()> {
    let reply = match task.target.kind.as_str() {
        "vm" => serde_json::to_value(app.index.to_wire(task.target.id)?),
        _ => serde_json::to_value(ops::template::of_id(app, task.target.id).await?),
    };
    let reply = reply.map_err(|error| Error::Internal(format!("write a reply: {error}")))?;
    app.store.set_task_state(task.id, TaskState::Done, Some(reply.to_string()), None).await
}
