//! Secrets in replies: the journal has null in their place. For ten minutes they are kept in memory, so that a caller who
//! didn't wait, or whose connection broke, can ask for them again.

use super::Tasks;
use crate::{auth::Caller, sync::lock};
use serde_json::Value;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};
use uuid::Uuid;

/// How long they are kept.
const KEPT: Duration = Duration::from_secs(600);

/// The replies with secrets, by task.
#[derive(Default)]
pub(super) struct Secrets {
    kept: Mutex<HashMap<Uuid, Kept>>,
}

struct Kept {
    /// The token of the caller: nobody else is told.
    owner: Uuid,
    reply: Value,
}

impl Tasks {
    /// Takes the secret fields out of a reply that is about to be journalled, and keeps the whole for its caller.
    pub(super) fn take_secrets(&self, task: Uuid, owner: Uuid, fields: &[&str], reply: &mut Value) {
        // A reply need not have one: a password that its caller gave isn't told.
        if fields.iter().all(|field| reply[*field].is_null()) {
            return;
        }
        let kept = Kept { owner, reply: reply.clone() };
        for field in fields {
            reply[*field] = Value::Null;
        }
        reply["secret_expired"] = Value::Bool(true);
        lock(&self.secrets.kept).insert(task, kept);
        let secrets = Arc::clone(&self.secrets);
        // Not tracked: a stop of the server doesn't wait for it, and takes the memory with it.
        self.runtime.spawn(async move {
            tokio::time::sleep(KEPT).await;
            lock(&secrets.kept).remove(&task);
        });
    }

    /// A task's reply with its secrets, for who called.
    pub fn reply_with_secrets(&self, task: Uuid, caller: &Caller) -> Option<Value> {
        lock(&self.secrets.kept).get(&task).filter(|kept| kept.owner == caller.token).map(|kept| kept.reply.clone())
    }
}
