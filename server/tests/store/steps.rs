//! Tasks and their steps.

use api::{
    Time,
    task::{Target, TaskState},
};
use server::store::{Made, StepBegun, Store, TaskRecord};
use uuid::Uuid;

/// A task that has just begun.
pub fn task() -> TaskRecord {
    TaskRecord {
        id: Uuid::now_v7(),
        method: "create-vm".into(),
        target: Target { kind: "vm".into(), id: Uuid::nil(), name: "web".into() },
        caller: "admin".into(),
        state: TaskState::Running,
        progress: None,
        result: None,
        error: None,
        created_at: Time::now(),
        finished_at: None,
    }
}

/// A step's beginning, with no other's end.
pub fn step(task: Uuid, seq: i64, name: &str, undo: Option<String>, makes: Option<&Made>) -> StepBegun {
    StepBegun {
        opens: None,
        task,
        seq,
        name: name.to_owned(),
        undo,
        makes: makes.cloned(),
        ended: Vec::new(),
        foretold: Vec::new(),
        closes: None,
    }
}

/// The first step of a task that nobody looks for any more.
pub async fn first_step(store: &Store) -> StepBegun {
    let target = Target { kind: "vm".into(), id: Uuid::now_v7(), name: "other".into() };
    let task = TaskRecord { state: TaskState::Failed, target, ..task() };
    store.insert_task(&task, None, None).await.unwrap();
    step(task.id, 0, "first", None, None)
}
