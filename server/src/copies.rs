//! Which templates are being copied to which nodes, so that there is one copy however many calls wait for it.

use crate::task::Outcome;
use api::template::Template;
use std::collections::HashMap;
use tokio::sync::{Mutex, MutexGuard};
use uuid::Uuid;

/// The copies under way, by template and node.
#[derive(Default)]
pub struct Copies {
    under_way: Mutex<HashMap<(Uuid, String), Copying>>,
}

/// A copy under way. Cheap to clone.
#[derive(Clone)]
pub struct Copying {
    /// Its task.
    pub task: Uuid,
    /// How it ended, once it has.
    pub outcome: Outcome<Template>,
}

impl Copies {
    /// All of them, for one call at a time: of two that want the same copy one begins it, the other finds it.
    pub async fn lock(&self) -> MutexGuard<'_, HashMap<(Uuid, String), Copying>> {
        self.under_way.lock().await
    }
}
