//! What is told of a change in the index.

use crate::{events, store::NewEvent};
use api::{event::EventKind, vm::VmState};
use serde_json::json;
use uuid::Uuid;

/// A VM that came, went, or is in another state.
pub(super) struct Change {
    pub(super) id: Uuid,
    pub(super) name: String,
    pub(super) node: String,
    /// Whether it is ours.
    pub(super) managed: bool,
    /// Its state before; `None`: it wasn't there.
    pub(super) before: Option<VmState>,
    /// Its state now; `None`: it is gone.
    pub(super) now: Option<VmState>,
    /// Whether its node had told of it before.
    pub(super) seen_before: bool,
    /// Whether it has come about while no server looked.
    pub(super) unseen: bool,
}

impl Change {
    /// Whether it has happened now, and isn't merely seen for the first time.
    pub(super) fn is_news(&self, node_is_known: bool) -> bool {
        let first_sight = !self.seen_before && matches!(self.before, None | Some(VmState::Unknown));
        // A VM that is being made is news on any node.
        node_is_known || !first_sight || self.now == Some(VmState::Creating)
    }

    /// The same as a change from the state that an earlier server has told last; `None` when it is the same.
    pub(super) fn since(self, told: VmState) -> Option<Change> {
        let differs = self.now.is_some_and(|now| now != told && now != VmState::Unknown);
        differs.then_some(Change { before: Some(told), unseen: true, ..self })
    }

    /// What is told of it.
    pub(super) fn into_event(self) -> NewEvent {
        let Change { id, name, node, managed, before, now, unseen, .. } = self;
        let (kind, what, details) = match (before, now) {
            (Some(before), Some(now)) => (
                EventKind::VmState,
                format!(
                    "{} -> {}{}",
                    before.as_str(),
                    now.as_str(),
                    if unseen { ", while Vmyard was not running" } else { "" }
                ),
                json!({"before": before, "state": now, "while_not_running": unseen}),
            ),
            (None, state) => {
                let state = state.unwrap_or(VmState::Unknown);
                (
                    EventKind::VmAdded,
                    format!("is there, {}", state.as_str()),
                    json!({"state": state, "managed": managed}),
                )
            }
            (Some(_), None) => (EventKind::VmRemoved, "is gone".to_owned(), json!({"managed": managed})),
        };
        events::of_vm(kind, id, &name, &node, &what, details)
    }
}
