//! Tasks.

use super::page::{read_cursor, write_cursor};
use crate::{
    App, Context, Error, Result,
    store::{StepRecord, TaskRecord},
};
use api::{
    Page,
    task::{DescribeTask, ListTasks, Task, TaskStep, Tasks},
};
use uuid::Uuid;

/// `describe-task`
pub async fn describe(context: Context, request: DescribeTask) -> Result<Task> {
    to_wire(&context.app, request.task).await
}

/// `list-tasks`
pub async fn list(context: Context, request: ListTasks) -> Result<Tasks> {
    let page = Page { limit: request.limit, cursor: request.cursor };
    let before = page.cursor.as_deref().map(read_cursor).transpose()?;
    let before = before.map(|text| text.parse::<Uuid>()).transpose();
    let before =
        before.map_err(|_| Error::field("cursor", "is not one that this method gave; begin again without it"))?;
    let (records, total) = context
        .app
        .store
        .tasks(request.state, request.method.as_deref(), request.target, before, page.limit() + 1)
        .await?;
    let more = records.len() > page.limit();
    let tasks: Vec<Task> =
        records.into_iter().take(page.limit()).map(|record| wire(record, Vec::new(), false)).collect();
    let next_cursor = tasks.last().filter(|_| more).map(|task| write_cursor(&task.id.to_string()));
    Ok(Tasks { tasks, next_cursor, total })
}

/// A task with its steps.
pub async fn to_wire(app: &App, id: Uuid) -> Result<Task> {
    let record = app.store.task(id).await?.ok_or_else(|| Error::not_found("task", id.to_string()))?;
    let steps = app.store.steps(id).await?;
    Ok(wire(record, steps, true))
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
