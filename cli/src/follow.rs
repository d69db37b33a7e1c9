//! Following a task to its end.

use crate::{client::Client, failure::Failure, progress::Progress};
use api::{
    Code, Problem,
    task::{DescribeTask, Task, TaskState},
};
use serde_json::{Value, json};
use std::{
    sync::mpsc::{self, Sender},
    time::{Duration, Instant},
};
use tokio::signal::unix::{SignalKind, signal};
use uuid::Uuid;

/// The pauses between two looks at a task: the first one and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(30), Duration::from_millis(500));
/// How long a server that has gone away may take to come back: it may be starting anew.
const AWAY: Duration = Duration::from_secs(30);
/// How long a failed task may take back what it made before its error is told: its node may be away for hours.
const UNWINDING: Duration = Duration::from_secs(10);

/// Calls a method, and shows how it goes on until it has ended.
pub fn call(client: &Client, method: &str, mut body: Value) -> Result<Value, Failure> {
    body["wait"] = json!(false);
    let answer = client.send(method, &body)?;
    if !answer.accepted {
        return Ok(answer.body);
    }
    let ended = wait(client, answer.task()?, None)?;
    result(ended).map_err(|failure| match failure {
        // The journal doesn't know the request, which the server's log does.
        Failure::Problem(problem) => {
            let request_id = problem.request_id.or(Some(answer.request_id));
            Failure::Problem(Box::new(Problem { request_id, ..*problem }))
        }
        other => other,
    })
}

/// What happens while a task is waited for.
enum Event {
    /// The task was asked for.
    Looked(Box<Result<Task, Failure>>),
    /// Ctrl-C.
    Interrupted,
}

/// Waits until a task has ended, and shows how far it is. Ctrl-C ends only the wait.
pub fn wait(client: &Client, id: Uuid, timeout: Option<Duration>) -> Result<Task, Failure> {
    let mut progress = Progress::new();
    // Looks and signals come from threads of their own, so that neither a slow server nor a pause keeps the other.
    let (sender, events) = mpsc::channel();
    if progress.is_shown() {
        tell_interrupt(sender.clone());
    }
    look_on(client.clone(), id, sender);
    let begun = Instant::now();
    let (mut seen, mut unwinding) = (begun, None);
    loop {
        let left = timeout.map_or(Duration::MAX, |timeout| timeout.saturating_sub(begun.elapsed()));
        let Ok(Event::Looked(looked)) = events.recv_timeout(left) else { return Err(Failure::Pending(id)) };
        let task = match *looked {
            Ok(task) => task,
            Err(Failure::Unreachable(_)) if seen.elapsed() < AWAY => {
                progress.show_away();
                continue;
            }
            Err(Failure::Unreachable(text)) => {
                return Err(Failure::Unreachable(format!("{text}\nhint: the task may go on: vmyard task wait {id}")));
            }
            Err(failure) => return Err(failure),
        };
        seen = Instant::now();
        match task.state {
            TaskState::Done | TaskState::Failed => return Ok(task),
            TaskState::Unwinding => {
                let since = *unwinding.get_or_insert(seen);
                if task.error.is_some() && since.elapsed() > UNWINDING {
                    return Ok(task);
                }
            }
            TaskState::Running => {}
        }
        progress.show(&task);
    }
}

/// Asks for the task again and again, as long as somebody wants to know.
fn look_on(client: Client, id: Uuid, sender: Sender<Event>) {
    std::thread::spawn(move || {
        let mut pause = PAUSES.0;
        while sender.send(Event::Looked(Box::new(client.call(&DescribeTask { task: id })))).is_ok() {
            std::thread::sleep(pause);
            pause = (pause * 3 / 2).min(PAUSES.1);
        }
    });
}

/// From now on Ctrl-C doesn't end this program, but is an event.
fn tell_interrupt(sender: Sender<Event>) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    // Not on the thread: whoever has seen a line of progress may press it at once.
    let entered = runtime.enter();
    let Ok(mut pressed) = signal(SignalKind::interrupt()) else { return };
    drop(entered);
    std::thread::spawn(move || {
        if runtime.block_on(pressed.recv()).is_some() {
            let _ = sender.send(Event::Interrupted);
        }
    });
}

/// What a call answers that waited for this task.
pub fn result(task: Task) -> Result<Value, Failure> {
    match (task.state, task.error) {
        (TaskState::Done, _) => Ok(task.result.unwrap_or_default()),
        (_, Some(problem)) => Err(Failure::Problem(Box::new(problem))),
        (_, None) => Err(Failure::Problem(Box::new(Problem {
            kind: format!("urn:vmyard:error:{}", Code::Internal.as_str()),
            title: Code::Internal.as_str().to_owned(),
            status: 500,
            detail: format!("the task {} without saying why", task.state.as_str()),
            code: Code::Internal,
            request_id: None,
            hint: Some(format!("vmyard task show {} says how far it came", task.id)),
            errors: Vec::new(),
            task: Some(task.id),
        }))),
    }
}
