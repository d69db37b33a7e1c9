//! What a server that died has left in the journal.

use super::{Held, Lock, journal::unwind};
use crate::{App, Error, Result, ops, store::TaskRecord};
use api::{
    Rpc,
    adopt::ReleaseVm,
    credential::{ResetVmKeypair, ResetVmPassword},
    modify::ModifyVmSpec,
    snapshot::RevertToSnapshot,
    task::{StepState, TaskState},
};

/// A task that was at work when the server died, with the locks that it has until it is unwound.
pub struct Left {
    task: TaskRecord,
    held: Vec<Held>,
}

/// Locks what such tasks worked on, where something of them is to be taken back: an undo must not come over what a new
/// task has done. `left` was read, and this is called, before any new task can begin.
pub async fn hold(app: &App, left: Vec<TaskRecord>) -> Result<Vec<Left>> {
    let mut all = Vec::new();
    for task in left {
        let steps = app.store.steps(task.id).await?;
        let undone = !steps.iter().any(|step| step.undo.is_some() && step.state != StepState::Undone);
        // A snapshot that was being taken is its VM's business.
        let object = match app.store.snapshot(task.target.id).await? {
            Some(snapshot) => snapshot.vm,
            None => task.target.id,
        };
        let take = |part: Lock| {
            // Of several tasks the first has the lock, which will do.
            app.locks.take(object, &task.target.name, &[part], task.id, "taking back what was cut off").ok()
        };
        let held = [Lock::Power, Lock::Disk].into_iter().filter(|_| !undone).filter_map(take).flatten().collect();
        all.push(Left { task, held });
    }
    Ok(all)
}

/// Unwinds the tasks that were at work when the server died. Deletions are not taken back: the reconciler goes on with
/// them, since what they delete is marked. A task whose node is away is unwound when the node is back.
pub async fn recover(app: &App, left: Vec<Left>) {
    let unwinding = left.into_iter().map(|Left { task, held }| {
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
                None => unwind(&app, task.id, &Error::Interrupted, held).await,
            }
        })
    });
    futures::future::join_all(unwinding).await;
}

/// Ends a task whose work was final, with the reply that it would have given.
pub(super) async fn finish(app: &App, task: &TaskRecord) -> Result<()> {
    let reply = match task.target.kind.as_str() {
        "vm" if task.method == ModifyVmSpec::NAME => {
            Ok(ops::vm::modify::reply_of(app, task.target.id, task.result.as_deref().unwrap_or_default())?)
        }
        "vm" if [ResetVmPassword::NAME, ResetVmKeypair::NAME].contains(&task.method.as_str()) => {
            let journalled = task.result.as_deref().unwrap_or_default();
            Ok(ops::vm::credential::reply_of(app, &task.method, task.target.id, journalled)?)
        }
        "vm" if task.method == RevertToSnapshot::NAME => {
            serde_json::to_value(ops::snapshot::revert::reply(app, task.target.id).await?)
        }
        "vm" if task.method == ReleaseVm::NAME => serde_json::from_str(task.result.as_deref().unwrap_or_default()),
        "snapshot" => serde_json::to_value(ops::snapshot::of_id(app, task.target.id).await?),
        "vm" => serde_json::to_value(app.index.to_wire(task.target.id)?),
        "volume" => serde_json::to_value(ops::volume::of_id(app, task.target.id).await?),
        // By its name: whether its host is away is not known yet, and then neither is its UUID.
        "node" => serde_json::to_value(ops::node::named(app, &task.target.name)?),
        _ => serde_json::to_value(ops::template::of_id(app, task.target.id).await?),
    };
    let reply = reply.map_err(|error| Error::Internal(format!("write a reply: {error}")))?;
    app.store.set_task_state(task.id, TaskState::Done, Some(reply.to_string()), None).await
}
