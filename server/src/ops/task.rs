//! Tasks.

use super::page::{read_id_cursor, write_cursor};
use crate::{
    App, Context, Error, Result,
    auth::Caller,
    store::{StepRecord, TaskRecord},
    task::{Cancelled, Outline, Work},
};
use api::{
    Access, Page,
    task::{CancelTask, DescribeTask, ListTasks, Target, Task, TaskState, TaskStep, Tasks},
};
use uuid::Uuid;

/// `describe-task`
pub async fn describe(context: Context, request: DescribeTask) -> Result<Task> {
    for_caller(&context.app, &context.caller, request.task).await
}

/// `cancel-task`
pub async fn cancel(context: Context, request: CancelTask) -> Result<Work<Task>> {
    let app = &context.app;
    let record = app.store.task(request.task).await?;
    let record = record.ok_or_else(|| Error::not_found("task", request.task.to_string()))?;
    if context.caller.role < Access::Administrator && record.caller != context.caller.name {
        return Err(Error::Forbidden {
            method: "cancel-task for a task of somebody else".to_owned(),
            needs: "administrator",
        });
    }
    match record.state {
        TaskState::Running => {}
        TaskState::Unwinding => return Err(too_late(&record, "is being taken back already")),
        TaskState::Done | TaskState::Failed => return Err(too_late(&record, "has ended")),
    }
    let target = Target { kind: "task".to_owned(), id: record.id, name: record.target.name.clone() };
    Ok(Work::new(target, Vec::new(), Outline::default(), move |task| async move {
        let ended = match task.app.tasks.cancel(record.id) {
            Cancelled::Told(ended) => ended,
            Cancelled::TooLate => {
                return Err(too_late(&record, "has begun its last step and can't be cancelled any more"));
            }
            Cancelled::NotAtWork => return Err(too_late(&record, "has ended")),
        };
        task.unless_cancelled(async {
            ended.cancelled().await;
            Ok(())
        })
        .await?;
        let task = to_wire(&task.app, record.id).await?;
        match task.state {
            // All that it does was done when it was told: one that deletes orphans, or cancels another task, has no last step.
            TaskState::Done => Err(too_late(&record, "has ended")),
            _ => Ok(task),
        }
    }))
}

fn too_late(task: &TaskRecord, why: &str) -> Error {
    Error::WrongState {
        detail: format!("task {} ({} of {} {}) {why}", task.id, task.method, task.target.kind, task.target.name),
        hint: Some("describe-task shows how far it is".to_owned()),
    }
}

/// `list-tasks`
pub async fn list(context: Context, request: ListTasks) -> Result<Tasks> {
    let page = Page { limit: request.limit, cursor: request.cursor };
    let before = read_id_cursor(&page)?;
    let (records, total) = context
        .app
        .store
        .tasks(request.state, request.method.as_deref(), request.target, before, page.limit() + 1)
        .await?;
    // Also those that have just ended and so are missing here.
    context.app.tasks.have_let_go(None).await;
    let more = records.len() > page.limit();
    let tasks: Vec<Task> = records.into_iter().take(page.limit()).map(in_short).collect();
    let next_cursor = tasks.last().filter(|_| more).map(|task| write_cursor(&task.id.to_string()));
    Ok(Tasks { tasks, next_cursor, total })
}

/// A task with its steps, and with the secrets in its result as long as this caller may have them.
pub async fn for_caller(app: &App, caller: &Caller, id: Uuid) -> Result<Task> {
    let task = to_wire(app, id).await?;
    let result = app.tasks.reply_with_secrets(id, caller).filter(|_| task.result.is_some()).or(task.result);
    Ok(Task { result, ..task })
}

/// A task with its steps.
pub async fn to_wire(app: &App, id: Uuid) -> Result<Task> {
    let record = app.store.task(id).await?.ok_or_else(|| Error::not_found("task", id.to_string()))?;
    if record.finished_at.is_some() {
        app.tasks.have_let_go(Some(id)).await;
    }
    let steps = app.store.steps(id).await?;
    Ok(wire(record, steps, true))
}

/// A task without its steps and its result.
pub fn in_short(record: TaskRecord) -> Task {
    wire(record, Vec::new(), false)
}

fn wire(record: TaskRecord, steps: Vec<StepRecord>, with_result: bool) -> Task {
    let step = |step: StepRecord| TaskStep {
        name: step.name,
        state: step.state,
        started_at: step.started_at,
        finished_at: step.finished_at,
    };
    Task {
        id: record.id,
        method: record.method,
        target: record.target,
        caller: record.caller,
        state: record.state,
        progress_percent: record.progress.map(|hundredths| hundredths as f64 / 100.0),
        steps: steps.into_iter().map(step).collect(),
        created_at: record.created_at,
        finished_at: record.finished_at,
        result: record.result.filter(|_| with_result).and_then(|text| serde_json::from_str(&text).ok()),
        error: record.error.and_then(|text| serde_json::from_str(&text).ok()),
    }
}
