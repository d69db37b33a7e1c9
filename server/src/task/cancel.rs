//! Cancelling: a task can be stopped up to its last step, and is then unwound as if it had failed.
//!
//! ```text
//! open ──cancel──> cancelled   its next step doesn't begin, its wait or copy ends: Error::Cancelled
//!   └──last step─> closed      it can't be cancelled any more
//! ```
//!
//! One lock decides between the two: a task that was cancelled never begins its last step. cancel-task answers with the
//! task as it ended.

use super::{Task, Tasks};
use crate::{Error, Result, sync::lock};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// What can be asked of the tasks at work.
#[derive(Default)]
pub(super) struct Cancels {
    at_work: Mutex<HashMap<Uuid, Cancel>>,
}

/// One task's.
#[derive(Clone)]
struct Cancel {
    /// Cancelled by cancel-task.
    token: CancellationToken,
    /// Whether the last step has begun.
    closed: bool,
    /// Cancelled when the task has ended, or is being unwound in the background.
    ended: CancellationToken,
}

/// A task that has been begun; its end is known when this is dropped.
pub(super) struct AtWork {
    cancels: Arc<Cancels>,
    task: Uuid,
}

impl Drop for AtWork {
    fn drop(&mut self) {
        if let Some(cancel) = lock(&self.cancels.at_work).remove(&self.task) {
            cancel.ended.cancel();
        }
    }
}

/// What became of the wish to cancel a task.
pub enum Cancelled {
    /// It was told. The token is cancelled when it has come to its end.
    Told(CancellationToken),
    /// Its last step has begun: what it does can't be stopped any more.
    TooLate,
    /// It isn't at work.
    NotAtWork,
}

impl Tasks {
    pub(super) fn at_work(&self, task: Uuid) -> AtWork {
        let cancel = Cancel { token: CancellationToken::new(), closed: false, ended: CancellationToken::new() };
        lock(&self.cancels.at_work).insert(task, cancel);
        AtWork { cancels: Arc::clone(&self.cancels), task }
    }

    /// Of a task that is at work: cancelled when it has let go of all that it held.
    pub fn ended(&self, task: Uuid) -> Option<CancellationToken> {
        lock(&self.cancels.at_work).get(&task).map(|cancel| cancel.ended.clone())
    }

    /// Asks a task to stop before its next step. Asking twice is asking once.
    pub fn cancel(&self, task: Uuid) -> Cancelled {
        match lock(&self.cancels.at_work).get(&task) {
            None => Cancelled::NotAtWork,
            Some(cancel) if cancel.closed => Cancelled::TooLate,
            Some(cancel) => {
                cancel.token.cancel();
                Cancelled::Told(cancel.ended.clone())
            }
        }
    }
}

impl Task {
    /// Whether it has been cancelled.
    pub(super) fn is_cancelled(&self) -> bool {
        lock(&self.app.tasks.cancels.at_work).get(&self.id).is_some_and(|cancel| cancel.token.is_cancelled())
    }

    /// Fails when it has been cancelled. With `last`, it can't be any more when this has returned.
    pub(super) fn go_on(&self, last: bool) -> Result<()> {
        let mut at_work = lock(&self.app.tasks.cancels.at_work);
        let Some(cancel) = at_work.get_mut(&self.id) else { return Ok(()) };
        if cancel.token.is_cancelled() {
            return Err(Error::Cancelled);
        }
        cancel.closed |= last;
        Ok(())
    }

    /// Waits for something that may be waited for in vain: ends with an error when the task is cancelled. What is
    /// waited for is dropped then, so it must be a wait and nothing else.
    pub async fn unless_cancelled<T>(&self, wait: impl Future<Output = Result<T>>) -> Result<T> {
        let token = lock(&self.app.tasks.cancels.at_work).get(&self.id).map(|cancel| cancel.token.clone());
        match token {
            None => wait.await,
            Some(token) => tokio::select! {
                ended = wait => ended,
                () = token.cancelled() => Err(Error::Cancelled),
            },
        }
    }
}
