//! `vmyard task`

use crate::{
    change::Change,
    client::{Client, from_json},
    complete,
    failure::Failure,
    follow, human,
    lists::{self, Kind},
    outcome,
    output::Output,
    table::{
        self,
        Cell::{Field, Made},
    },
};
use api::task::{CancelTask, Task, TaskState};
use clap_complete::ArgValueCompleter;
use serde_json::{Value, json};
use std::time::Duration;
use uuid::Uuid;

/// `vmyard task`
#[derive(clap::Subcommand)]
pub enum Verb {
    /// List tasks, the newest first
    List(List),
    /// Show a task with its steps
    Show(Id),
    /// Wait until a task has ended; print and exit as the call that began it would have
    Wait(Wait),
    /// Cancel a task, and take back what it has made
    Cancel(Cancel),
}

/// `vmyard task list`
#[derive(clap::Args)]
pub struct List {
    /// Only tasks in this state: running, unwinding, done, failed
    #[arg(long, value_parser = state)]
    state: Option<TaskState>,
    /// Only tasks of this method, like create-vm
    #[arg(long)]
    method: Option<String>,
    #[command(flatten)]
    limit: lists::Limit,
}

/// A task
#[derive(clap::Args)]
pub struct Id {
    /// The task's id
    #[arg(add = ArgValueCompleter::new(complete::tasks))]
    task: Uuid,
}

/// `vmyard task wait`
#[derive(clap::Args)]
pub struct Wait {
    #[command(flatten)]
    id: Id,
    /// Give up after so many seconds; the task goes on, and the exit code is 4
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
}

/// `vmyard task cancel`
#[derive(clap::Args)]
pub struct Cancel {
    #[command(flatten)]
    id: Id,
    #[command(flatten)]
    change: Change,
}

/// Tasks: how they are listed and shown.
pub const KIND: Kind = Kind {
    plural: "tasks",
    list: ("list-tasks", "tasks"),
    show: ("describe-task", "task"),
    columns: &[
        ("METHOD", Field("method")),
        ("TARGET", Field("target.name")),
        ("STATE", Field("state")),
        ("CREATED", Field("created_at")),
        ("TOOK", Made(took)),
        ("ID", Field("id")),
    ],
    wide: &[
        ("CALLER", Field("caller")),
        ("KIND", Field("target.kind")),
        ("TARGET ID", Field("target.id")),
        ("ERROR", Field("error.detail")),
    ],
};

fn state(text: &str) -> Result<TaskState, String> {
    TaskState::parse(text).ok_or_else(|| "must be running, unwinding, done or failed".to_owned())
}

fn took(task: &Value) -> String {
    human::between(&task["created_at"], &task["finished_at"])
}

/// Runs the verb.
pub fn run(client: &Client, output: Output, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::List(args) => {
            let request = json!({ "state": args.state, "method": args.method });
            lists::list(client, output, &KIND, request, args.limit.limit)
        }
        Verb::Show(args) => {
            let task = lists::describe(client, &KIND, &args.task.to_string(), json!({}))?;
            output.answer(&task, || text(&task))
        }
        Verb::Wait(args) => {
            let task = follow::wait(client, args.id.task, args.timeout.map(Duration::from_secs))?;
            let method = task.method.clone();
            let reply = follow::result(task)?;
            output.answer(&reply, || outcome::text(&method, &reply))
        }
        Verb::Cancel(args) => args.change.run(client, output, &CancelTask { task: args.id.task }),
    }
}

fn text(task: &Value) -> String {
    let Ok(task) = from_json::<Task>(task.clone()) else { return table::describe(task, &["id"]) };
    let mut facts = Vec::new();
    let mut fact = |name: &str, text: String| facts.push((name.to_owned(), text));
    fact("id", task.id.to_string());
    fact("method", task.method);
    fact("target", format!("{} {} ({})", task.target.kind, task.target.name, task.target.id));
    fact("caller", task.caller);
    fact("state", task.state.as_str().to_owned());
    if let Some(percent) = task.progress_percent {
        fact("copied", format!("{percent} %"));
    }
    for step in task.steps {
        let took = step.finished_at.map(|end| format!(", {}", human::duration(end.0 - step.started_at.0)));
        fact("step", format!("{} {}{}", step.name, step.state.as_str(), took.unwrap_or_default()));
    }
    fact("created", task.created_at.to_string());
    if let Some(end) = task.finished_at {
        fact("finished", format!("{end}, after {}", human::duration(end.0 - task.created_at.0)));
    }
    if let Some(problem) = task.error {
        fact("error", format!("{} ({})", problem.detail, problem.code.as_str()));
        if let Some(hint) = problem.hint {
            fact("hint", hint);
        }
    }
    table::facts(&facts)
}
