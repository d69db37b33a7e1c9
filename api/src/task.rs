//! Tasks: every call that changes something is one.

use crate::{Access, Problem, Rpc, Time, rules};
use garde::Validate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The fields that every mutating method takes beside its own.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema, Validate)]
pub struct Mutation {
    /// Whether to wait for the end, at most 300 s (the default); with false the answer is `202 {"task": …}` at once.
    #[garde(skip)]
    pub wait: Option<bool>,
    /// With true nothing is done: every check is made, and the answer is `200 {"plan": …}`, which says what the call would
    /// do. `wait` and `client_token` don't matter then.
    #[garde(skip)]
    pub plan: Option<bool>,
    /// A text of the client's own, 1–64 characters without control characters: within 24 h, a second call of the method under it does nothing and
    /// gets the first one's answer. Another request under it is `token_reused`.
    #[garde(custom(rules::client_token))]
    #[schemars(length(min = 1, max = 64), regex(pattern = rules::LINE_PATTERN))]
    pub client_token: Option<String>,
}

/// What a mutating call answers (202) when it doesn't wait, or has waited 300 s.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Accepted {
    /// The task, which goes on.
    pub task: Task,
}

/// The work of one mutating call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Task {
    /// The task's id.
    pub id: Uuid,
    /// The method that was called.
    pub method: String,
    /// What it works on.
    pub target: Target,
    /// Who called.
    pub caller: String,
    /// How far it is.
    pub state: TaskState,
    /// Bytes copied, in percent, for work that copies bytes.
    pub progress_percent: Option<f64>,
    /// The steps begun so far.
    pub steps: Vec<TaskStep>,
    /// When it was asked for.
    pub created_at: Time,
    /// When it ended.
    pub finished_at: Option<Time>,
    /// The method's reply, once done.
    pub result: Option<serde_json::Value>,
    /// Why it failed.
    pub error: Option<Problem>,
}

/// What a task works on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Target {
    /// `vm`, `template`, …
    pub kind: String,
    /// Its id.
    pub id: Uuid,
    /// Its name when the task began.
    pub name: String,
}

/// How far a task is.
///
/// ```text
/// running ──> done
///    │
///    └──> unwinding ──> failed
/// ```
///
/// A server that dies leaves `running` and `unwinding` in the journal; the next one unwinds them at its start (a
/// deletion goes on instead of unwinding). A task stays `unwinding` while the node it must clean up on is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// At work.
    Running,
    /// It failed or was cut off, and takes back what it made.
    Unwinding,
    /// Ended well.
    Done,
    /// Ended with an error; everything that it made is gone.
    Failed,
}

impl TaskState {
    /// The state as it is on the wire and in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            TaskState::Running => "running",
            TaskState::Unwinding => "unwinding",
            TaskState::Done => "done",
            TaskState::Failed => "failed",
        }
    }

    /// Reads what [`TaskState::as_str`] wrote.
    pub fn parse(text: &str) -> Option<TaskState> {
        [TaskState::Running, TaskState::Unwinding, TaskState::Done, TaskState::Failed]
            .into_iter()
            .find(|state| state.as_str() == text)
    }
}

/// A step of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TaskStep {
    /// What it does: `make-system-disk`.
    pub name: String,
    /// How far it is.
    pub state: StepState,
    /// When it began.
    pub started_at: Time,
    /// When it ended.
    pub finished_at: Option<Time>,
}

/// How far a step is.
///
/// ```text
/// started ──> done ──> undone
///    └──────────────────^
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    /// Begun; after a crash nobody knows how far it came.
    Started,
    /// Done.
    Done,
    /// Taken back.
    Undone,
}

impl StepState {
    /// The state as it is on the wire and in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            StepState::Started => "started",
            StepState::Done => "done",
            StepState::Undone => "undone",
        }
    }

    /// Reads what [`StepState::as_str`] wrote.
    pub fn parse(text: &str) -> Option<StepState> {
        [StepState::Started, StepState::Done, StepState::Undone].into_iter().find(|state| state.as_str() == text)
    }
}

/// Describes a task.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct DescribeTask {
    /// The task's id.
    #[garde(skip)]
    pub task: Uuid,
}

impl Rpc for DescribeTask {
    const NAME: &'static str = "describe-task";
    const ACCESS: Access = Access::Viewer;
    type Reply = Task;
}

/// Cancels a task: it begins no further step, a wait for a guest or a copy of bytes ends, and what it has made is taken
/// back. Answers when that is done. A task that is in its last step is `wrong_state`, and so is one that has ended. Who
/// isn't an administrator may cancel only their own.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct CancelTask {
    /// The task's id.
    #[garde(skip)]
    pub task: Uuid,
}

impl Rpc for CancelTask {
    const NAME: &'static str = "cancel-task";
    const ACCESS: Access = Access::Operator;
    type Reply = Task;
}

/// Lists tasks, the newest first.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct ListTasks {
    /// Only tasks in this state.
    #[garde(skip)]
    pub state: Option<TaskState>,
    /// Only tasks of this method.
    #[garde(custom(rules::optional_reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub method: Option<String>,
    /// Only tasks that work on the object with this id.
    #[garde(skip)]
    pub target: Option<Uuid>,
    /// At most so many rows (100 when absent).
    #[garde(inner(range(min = 1, max = 1000)))]
    #[schemars(range(min = 1, max = 1000))]
    pub limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[garde(inner(length(min = 1, max = 8192)))]
    #[schemars(length(min = 1, max = 8192))]
    pub cursor: Option<String>,
}

/// A page of tasks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Tasks {
    /// The tasks, without their steps and results.
    pub tasks: Vec<Task>,
    /// The cursor of the next page; null on the last.
    pub next_cursor: Option<String>,
    /// How many there are on all pages.
    pub total: u64,
}

impl Rpc for ListTasks {
    const NAME: &'static str = "list-tasks";
    const ACCESS: Access = Access::Viewer;
    type Reply = Tasks;
}
