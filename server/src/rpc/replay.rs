//! Idempotent calls: a second one under the same `client_token` gets the first one's answer, and does nothing.

use super::{Answer, request};
use crate::{App, Error, Result, auth::Caller, store::ClientToken, sync::lock};
use api::task::{Accepted, TaskState};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};
use tokio::sync::OwnedMutexGuard;
use uuid::Uuid;

/// How often the first call's task is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Calls that are between their look for an earlier one and their own task.
#[derive(Default)]
pub(super) struct Replays {
    claims: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
}

impl Replays {
    /// Waits until no other call under this token is about to become a task.
    pub(super) async fn claim(&self, token: &ClientToken) -> OwnedMutexGuard<()> {
        let key = format!("{}\n{}\n{}", token.caller, token.method, token.token);
        let claim = {
            let mut claims = lock(&self.claims);
            let known = claims.get(&key).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                claims.retain(|_, claim| claim.strong_count() > 0);
                let claim = Arc::default();
                claims.insert(key, Arc::downgrade(&claim));
                claim
            })
        };
        claim.lock_owned().await
    }
}

/// The first call's task, if there was one; another request under the same token is an error.
pub(super) async fn first_task(app: &App, token: &ClientToken) -> Result<Option<Uuid>> {
    match app.store.first_use(token).await? {
        Some((hash, _)) if hash != token.body_hash => Err(Error::TokenReused(token.token.clone())),
        first => Ok(first.map(|(_, task)| task)),
    }
}

/// The first call's answer, waited for as long as the caller wants.
pub(super) async fn answer(app: &App, caller: &Caller, id: Uuid, wait: Duration) -> Result<Answer> {
    let end = tokio::time::Instant::now() + wait;
    loop {
        let task = crate::ops::task::for_caller(app, caller, id).await?;
        match (task.state, task.result.clone(), task.error.clone()) {
            (TaskState::Done, Some(reply), _) => return Ok(Answer::Done(reply)),
            (TaskState::Failed, _, Some(problem)) => return Ok(Answer::Problem(Box::new(problem))),
            _ if tokio::time::Instant::now() >= end => {
                return Ok(Answer::Accepted(request::to_value(&Accepted { task })?));
            }
            _ => tokio::time::sleep(LOOK).await,
        }
    }
}
