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
    time::Duration,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How long is waited for tasks that have ended to let go of their locks.
const LETS_GO: Duration = Duration::from_secs(1);

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
    /// Whether its end is being journalled, or is, while it holds what it held.
    ending: bool,
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
        let cancel =
            Cancel { token: CancellationToken::new(), closed: false, ending: false, ended: CancellationToken::new() };
        lock(&self.cancels.at_work).insert(task, cancel);
        AtWork { cancels: Arc::clone(&self.cancels), task }
    }

    /// Notes that a task's end goes into the journal, where it can be read from then on.
    pub(super) fn is_ending(&self, task: Uuid) {
        if let Some(cancel) = lock(&self.cancels.at_work).get_mut(&task) {
            cancel.ending = true;
        }
    }

    /// Waits until all tasks, or only that one, whose end can be read by now have let go of what they held: who is told of an end can
    /// go on at once.
    pub async fn have_let_go(&self, only: Option<Uuid>) {
        let ending: Vec<CancellationToken> = {
            let at_work = lock(&self.cancels.at_work);
            let ending = at_work.iter().filter(|(id, cancel)| cancel.ending && only.is_none_or(|only| only == **id));
            ending.map(|(_, cancel)| cancel.ended.clone()).collect()
        };
        let all = futures::future::join_all(ending.iter().map(CancellationToken::cancelled));
        let _ = tokio::time::timeout(LETS_GO, all).await;
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

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn who_reads_of_an_end_waits_until_the_task_has_let_go() {
        let tasks = Tasks::new();
        let (ends, goes_on) = (Uuid::now_v7(), Uuid::now_v7());
        let (at_work, _other) = (tasks.at_work(ends), tasks.at_work(goes_on));
        tasks.have_let_go(None).now_or_never().expect("no task ends");
        tasks.is_ending(ends);
        tasks.have_let_go(Some(goes_on)).now_or_never().expect("that one doesn't end");
        for only in [None, Some(ends)] {
            assert!(tasks.have_let_go(only).now_or_never().is_none());
        }
        let waits = tasks.have_let_go(None);
        tokio::pin!(waits);
        assert!(waits.as_mut().now_or_never().is_none());
        drop(at_work);
        waits.now_or_never().expect("it has let go");
    }
}
