//! The journal of tasks and their steps.

use super::{AuditRecord, ClientToken, Made, NewEvent, Store, audit, client_token, event, failed, made, parse_uuid};
use crate::{Error, Result};
use api::{
    Problem, Time,
    event::EventKind,
    task::{StepState, Target, TaskState},
};
use serde_json::json;
use sqlx::{Any, Row, Transaction, any::AnyRow};
use std::sync::Arc;
use uuid::Uuid;

/// A task.
#[derive(Debug, Clone)]
pub struct TaskRecord {
    /// Its id.
    pub id: Uuid,
    /// The method.
    pub method: String,
    /// What it works on.
    pub target: Target,
    /// Who called.
    pub caller: String,
    /// How far it is.
    pub state: TaskState,
    /// Bytes copied, in hundredths of a percent.
    pub progress: Option<i64>,
    /// The reply, as JSON.
    pub result: Option<String>,
    /// The problem, as JSON.
    pub error: Option<String>,
    /// When it was asked for.
    pub created_at: Time,
    /// When it ended.
    pub finished_at: Option<Time>,
}

/// A step of a task.
#[derive(Debug, Clone)]
pub struct StepRecord {
    /// Its number in the task.
    pub seq: i64,
    /// What it does.
    pub name: String,
    /// How to take it back, as JSON.
    pub undo: Option<String>,
    /// How far it is.
    pub state: StepState,
    /// When it began.
    pub started_at: Time,
    /// When it ended.
    pub finished_at: Option<Time>,
}

const COLUMNS: &str = "id, method, target_kind, target_id, target_name, caller, state, progress, result, error, created_at, \
                       finished_at";

/// The end of a step that went well.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    /// Which step of its task.
    pub seq: i64,
    /// When.
    pub at: Time,
}

/// The beginning of a task: its row, the client token that it was asked for under, and the call's entry in the audit.
#[derive(Debug)]
pub struct TaskBegun {
    /// The task.
    pub task: TaskRecord,
    /// The client token.
    pub token: Option<ClientToken>,
    /// The entry in the audit.
    pub entry: AuditRecord,
}

/// The beginning of a step: how to take it back and what it makes on a node, with the ends of steps before it.
#[derive(Debug)]
pub struct StepBegun {
    /// Its task, where that begins with this step.
    pub opens: Option<Arc<TaskBegun>>,
    /// The task.
    pub task: Uuid,
    /// The step's number in it.
    pub seq: i64,
    /// What it does.
    pub name: String,
    /// How to take it back, as JSON.
    pub undo: Option<String>,
    /// What it makes on a node.
    pub makes: Option<Made>,
    /// Steps that have ended since.
    pub ended: Vec<Ended>,
    /// Steps that come right after it or beside it, which are journalled with it.
    pub foretold: Vec<StepBegun>,
    /// What its task answers, as JSON, where the transaction that is this step ends that, too.
    pub closes: Option<String>,
}

impl Store {
    /// Adds a task, the client token that it was asked for under, and the call's entry in the audit, in one.
    pub async fn insert_task(
        &self,
        task: &TaskRecord,
        token: Option<&ClientToken>,
        entry: Option<&AuditRecord>,
    ) -> Result<()> {
        let mut transaction = self.begin().await?;
        begin_task(&mut transaction, task, token, entry).await?;
        transaction.commit().await.map_err(failed("journal a task"))?;
        self.events_told();
        Ok(())
    }

    /// Ends a task, or marks it as unwinding.
    pub async fn set_task_state(
        &self,
        id: Uuid,
        state: TaskState,
        result: Option<String>,
        error: Option<String>,
    ) -> Result<()> {
        let finished = matches!(state, TaskState::Done | TaskState::Failed).then(|| Time::now().0);
        let mut transaction = self.begin().await?;
        let row = sqlx::query(sqlx::AssertSqlSafe(format!(
            "update task set state = $1, result = coalesce($2, result), error = coalesce($3, error), finished_at = $4
             where id = $5 returning {COLUMNS}"
        )))
        .bind(state.as_str())
        .bind(result)
        .bind(error)
        .bind(finished)
        .bind(id.to_string())
        .fetch_optional(&mut *transaction)
        .await
        .map_err(failed("journal a task's state"))?;
        if finished.is_some() {
            tell_end(&mut transaction, row).await?;
        }
        transaction.commit().await.map_err(failed("journal a task's state"))?;
        self.events_told();
        Ok(())
    }

    /// Notes how far a task's copy is, in hundredths of a percent. A late note of an earlier moment changes nothing.
    pub async fn set_task_progress(&self, id: Uuid, progress: i64) -> Result<()> {
        sqlx::query("update task set progress = $1 where id = $2 and (progress is null or progress < $1)")
            .bind(progress)
            .bind(id.to_string())
            .execute(&self.pool)
            .await
            .map(|_| ())
            .map_err(failed("journal a task's progress"))
    }

    /// Adds a step, before it begins.
    pub async fn insert_step(&self, step: &StepBegun) -> Result<()> {
        let mut transaction = self.begin().await?;
        begin_step(&mut transaction, step).await?;
        transaction.commit().await.map_err(failed("journal a step"))
    }

    /// Notes the ends of steps.
    pub async fn end_steps(&self, task: Uuid, ended: &[Ended]) -> Result<()> {
        if ended.is_empty() {
            return Ok(());
        }
        let mut transaction = self.begin().await?;
        end_steps(&mut transaction, task, ended).await?;
        transaction.commit().await.map_err(failed("journal a step's end"))
    }

    /// Ends a task that is done, with the ends of its last steps.
    pub async fn task_is_done(&self, task: Uuid, result: &str, ended: &[Ended]) -> Result<()> {
        let mut transaction = self.begin().await?;
        end_steps(&mut transaction, task, ended).await?;
        end_task(&mut transaction, task, result).await?;
        transaction.commit().await.map_err(failed("journal a task's end"))?;
        self.events_told();
        Ok(())
    }

    /// Sets what has become of a step.
    pub async fn set_step_state(&self, task: Uuid, seq: i64, state: StepState) -> Result<()> {
        sqlx::query("update task_step set state = $1, finished_at = $2 where task = $3 and seq = $4")
            .bind(state.as_str())
            .bind(Time::now().0)
            .bind(task.to_string())
            .bind(seq)
            .execute(&self.pool)
            .await
            .map(|_| ())
            .map_err(failed("journal a step's end"))
    }

    /// A task.
    pub async fn task(&self, id: Uuid) -> Result<Option<TaskRecord>> {
        let row = sqlx::query(sqlx::AssertSqlSafe(format!("select {COLUMNS} from task where id = $1")))
            .bind(id.to_string())
            .fetch_optional(&self.pool)
            .await
            .map_err(failed("read a task"))?;
        row.as_ref().map(read).transpose()
    }

    /// A task's steps, in their order.
    pub async fn steps(&self, task: Uuid) -> Result<Vec<StepRecord>> {
        let rows = sqlx::query(
            "select seq, name, undo, state, started_at, finished_at from task_step where task = $1 order by seq",
        )
        .bind(task.to_string())
        .fetch_all(&self.pool)
        .await
        .map_err(failed("read a task's steps"))?;
        rows.iter().map(read_step).collect()
    }

    /// Tasks that haven't ended, the oldest first.
    pub async fn open_tasks(&self) -> Result<Vec<TaskRecord>> {
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
            "select {COLUMNS} from task where state in ('running', 'unwinding') order by id"
        )))
        .fetch_all(&self.pool)
        .await
        .map_err(failed("read the open tasks"))?;
        rows.iter().map(read).collect()
    }

    /// A page of tasks, the newest first (ids are in the order of time), and how many fit the filter. `before` is the
    /// id of the last task of the page before.
    pub async fn tasks(
        &self,
        state: Option<TaskState>,
        method: Option<&str>,
        target: Option<Uuid>,
        before: Option<Uuid>,
        limit: usize,
    ) -> Result<(Vec<TaskRecord>, u64)> {
        let state = state.map_or("", TaskState::as_str);
        let method = method.unwrap_or_default();
        let target = target.map(|id| id.to_string()).unwrap_or_default();
        let filter = "($1 = '' or state = $1) and ($2 = '' or method = $2) and ($3 = '' or target_id = $3)";
        let total = sqlx::query(sqlx::AssertSqlSafe(format!("select count(*) as n from task where {filter}")))
            .bind(state)
            .bind(method)
            .bind(&target)
            .fetch_one(&self.pool)
            .await
            .map_err(failed("count the tasks"))?;
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
            "select {COLUMNS} from task where {filter} and ($4 = '' or id < $4) order by id desc limit $5"
        )))
        .bind(state)
        .bind(method)
        .bind(&target)
        .bind(before.map(|id| id.to_string()).unwrap_or_default())
        .bind(limit as i64)
        .fetch_all(&self.pool)
        .await
        .map_err(failed("read the tasks"))?;
        let tasks = rows.iter().map(read).collect::<Result<_>>()?;
        Ok((tasks, total.get::<i64, _>("n") as u64))
    }
}

impl Store {
    /// Forgets the tasks that ended before this moment, with their steps.
    pub async fn forget_tasks_before(&self, moment: Time) -> Result<()> {
        let mut transaction = self.begin().await?;
        for sql in [
            "delete from client_token where task in (select id from task where finished_at < $1)",
            "delete from task_step where task in (select id from task where finished_at < $1)",
            "delete from task where finished_at < $1",
        ] {
            sqlx::query(sql).bind(moment.0).execute(&mut *transaction).await.map_err(failed("forget old tasks"))?;
        }
        transaction.commit().await.map_err(failed("forget old tasks"))
    }
}

/// Ends a task's journal within the transaction that makes its work final: nothing of it is taken back any more. That
/// there is a result, though not which, tells the next start that the task is done.
pub(super) async fn close_journal(transaction: &mut Transaction<'_, Any>, task: Uuid) -> Result<()> {
    for sql in ["update task_step set undo = null where task = $1", "update task set result = 'null' where id = $1"] {
        sqlx::query(sql).bind(task.to_string()).execute(&mut **transaction).await.map_err(failed("end a journal"))?;
    }
    Ok(())
}

/// The same, with what the next start needs to know of the reply.
pub(super) async fn close_journal_with(transaction: &mut Transaction<'_, Any>, task: Uuid, reply: &str) -> Result<()> {
    close_journal(transaction, task).await?;
    sqlx::query("update task set result = $1 where id = $2")
        .bind(reply)
        .bind(task.to_string())
        .execute(&mut **transaction)
        .await
        .map(|_| ())
        .map_err(failed("end a journal"))
}

/// Ends a task that is done, within the transaction that is its last step. Who commits it says that there are events.
pub(super) async fn end_task(transaction: &mut Transaction<'_, Any>, task: Uuid, result: &str) -> Result<()> {
    let row = sqlx::query(sqlx::AssertSqlSafe(format!(
        "update task set state = $1, result = $2, finished_at = $3,
                progress = case when progress is null then null else 10000 end
         where id = $4 returning {COLUMNS}"
    )))
    .bind(TaskState::Done.as_str())
    .bind(result)
    .bind(Time::now().0)
    .bind(task.to_string())
    .fetch_optional(&mut **transaction)
    .await
    .map_err(failed("journal a task's end"))?;
    tell_end(transaction, row).await
}

/// Tells that a task has ended, within the transaction that says so.
async fn tell_end(transaction: &mut Transaction<'_, Any>, task: Option<AnyRow>) -> Result<()> {
    match task {
        Some(row) => event::insert(transaction, &[read(&row)?.event()]).await,
        None => Ok(()),
    }
}

impl TaskRecord {
    /// What is told of it: that it has begun, or how it ended.
    fn event(&self) -> NewEvent {
        let error = self.error.as_deref().and_then(|error| serde_json::from_str::<Problem>(error).ok());
        let (kind, how) = match (self.state, &error) {
            (TaskState::Done, _) => (EventKind::TaskDone, "done".to_owned()),
            (TaskState::Failed, Some(error)) => (EventKind::TaskFailed, format!("failed: {}", error.detail)),
            (TaskState::Failed, None) => (EventKind::TaskFailed, "failed".to_owned()),
            (TaskState::Running | TaskState::Unwinding, _) => (EventKind::TaskStarted, "started".to_owned()),
        };
        let mut details = json!({"method": self.method, "caller": self.caller, "target": self.target});
        if let Some(error) = error.filter(|_| kind == EventKind::TaskFailed) {
            details["error"] = json!(error);
        }
        let is_vm = self.target.kind == "vm";
        NewEvent {
            at: self.finished_at.unwrap_or(self.created_at),
            kind,
            vm: is_vm.then_some(self.target.id),
            vm_name: is_vm.then(|| self.target.name.clone()),
            node: (self.target.kind == "node").then(|| self.target.name.clone()),
            task: Some(self.id),
            message: format!("{} of {} {}: {how}", self.method, self.target.kind, self.target.name),
            details,
        }
    }
}

/// Adds a task, as [`Store::insert_task`] does, within a transaction. Who commits it says that there are events.
async fn begin_task(
    transaction: &mut Transaction<'_, Any>,
    task: &TaskRecord,
    token: Option<&ClientToken>,
    entry: Option<&AuditRecord>,
) -> Result<()> {
    sqlx::query(
        "insert into task (id, method, target_kind, target_id, target_name, caller, state, created_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(task.id.to_string())
    .bind(&task.method)
    .bind(&task.target.kind)
    .bind(task.target.id.to_string())
    .bind(&task.target.name)
    .bind(&task.caller)
    .bind(task.state.as_str())
    .bind(task.created_at.0)
    .execute(&mut **transaction)
    .await
    .map_err(failed("journal a task"))?;
    if let Some(token) = token {
        client_token::insert(transaction, token, task.id).await?;
    }
    if let Some(entry) = entry {
        audit::insert(&mut **transaction, entry).await?;
    }
    event::insert(transaction, &[task.event()]).await
}

/// Adds a step with those that are foretold, and with its task where that begins with it, within the transaction that is all that it
/// does, or before it begins.
pub(super) async fn begin_step(transaction: &mut Transaction<'_, Any>, step: &StepBegun) -> Result<()> {
    if let Some(begun) = &step.opens {
        begin_task(transaction, &begun.task, begun.token.as_ref(), Some(&begun.entry)).await?;
    }
    end_steps(transaction, step.task, &step.ended).await?;
    let steps = || std::iter::once(step).chain(&step.foretold);
    // In one statement: each takes its time, and somebody waits for them.
    let sql = format!(
        "insert into task_step (task, seq, name, undo, state, started_at, finished_at) values {}",
        rows(steps().count(), 7)
    );
    let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
    let now = Time::now().0;
    for step in steps() {
        let (state, ended) = match step.closes {
            Some(_) => (StepState::Done, Some(now)),
            None => (StepState::Started, None),
        };
        query = query.bind(step.task.to_string()).bind(step.seq).bind(&step.name).bind(step.undo.clone());
        query = query.bind(state.as_str()).bind(now).bind(ended);
    }
    query.execute(&mut **transaction).await.map_err(failed("journal a step"))?;
    for step in steps() {
        if let Some(makes) = &step.makes {
            made::note(transaction, step.task, makes).await?;
        }
    }
    Ok(())
}

/// Placeholders of so many rows: `($1, $2), ($3, $4)`.
fn rows(count: usize, columns: usize) -> String {
    let row = |row: usize| {
        let places: Vec<String> = (1..=columns).map(|column| format!("${}", row * columns + column)).collect();
        format!("({})", places.join(", "))
    };
    (0..count).map(row).collect::<Vec<_>>().join(", ")
}

async fn end_steps(transaction: &mut Transaction<'_, Any>, task: Uuid, ended: &[Ended]) -> Result<()> {
    if ended.is_empty() {
        return Ok(());
    }
    let place = |index: usize| 3 + 2 * index;
    let (mut times, mut which) = (String::new(), Vec::new());
    for index in 0..ended.len() {
        times += &format!(" when ${} then ${}", place(index), place(index) + 1);
        which.push(format!("${}", place(index)));
    }
    let which = which.join(", ");
    let sql = format!(
        "update task_step set state = $1, finished_at = case seq{times} end where task = $2 and seq in ({which})"
    );
    let mut query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(StepState::Done.as_str()).bind(task.to_string());
    for Ended { seq, at } in ended {
        query = query.bind(*seq).bind(at.0);
    }
    query.execute(&mut **transaction).await.map(|_| ()).map_err(failed("journal a step's end"))
}

fn read(row: &AnyRow) -> Result<TaskRecord> {
    let state: &str = row.get("state");
    Ok(TaskRecord {
        id: parse_uuid(row.get("id"))?,
        method: row.get("method"),
        target: Target {
            kind: row.get("target_kind"),
            id: parse_uuid(row.get("target_id"))?,
            name: row.get("target_name"),
        },
        caller: row.get("caller"),
        state: TaskState::parse(state)
            .ok_or_else(|| Error::Internal(format!("the database has {state:?} for a task's state")))?,
        progress: row.get("progress"),
        result: row.get("result"),
        error: row.get("error"),
        created_at: Time(row.get("created_at")),
        finished_at: row.get::<Option<i64>, _>("finished_at").map(Time),
    })
}

fn read_step(row: &AnyRow) -> Result<StepRecord> {
    let state: &str = row.get("state");
    Ok(StepRecord {
        seq: row.get("seq"),
        name: row.get("name"),
        undo: row.get("undo"),
        state: StepState::parse(state)
            .ok_or_else(|| Error::Internal(format!("the database has {state:?} for a step's state")))?,
        started_at: Time(row.get("started_at")),
        finished_at: row.get::<Option<i64>, _>("finished_at").map(Time),
    })
}
