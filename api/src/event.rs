//! Events: what has happened to VMs, nodes and tasks, in its order.

use crate::{Access, Rpc, Time, rules};
use garde::Validate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Something that happened. `GET /api/events` streams them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// Its number: one more than that of the event before.
    pub id: u64,
    /// When it was noticed.
    pub at: Time,
    /// What it is.
    pub kind: EventKind,
    /// The VM that it is about.
    pub vm: Option<Uuid>,
    /// That VM's name at the time.
    pub vm_name: Option<String>,
    /// The node that it happened on.
    pub node: Option<String>,
    /// The task that it is about.
    pub task: Option<Uuid>,
    /// What happened, in words.
    pub message: String,
    /// The same for programs; the fields depend on the kind.
    pub details: serde_json::Value,
}

/// What an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// A server began to serve: what happened while there was none is in no event. `version`.
    ServerStarted,
    /// Events could not be written down, and are lost. `count`.
    EventsLost,
    /// A task began. `method`, `caller`, `target`.
    TaskStarted,
    /// A task has ended well. `method`, `caller`, `target`.
    TaskDone,
    /// A task has failed, and what it made is gone. `method`, `caller`, `target`, `error` (a problem).
    TaskFailed,
    /// A VM is there that wasn't before. `state`, `managed`.
    VmAdded,
    /// A VM is gone. `managed`.
    VmRemoved,
    /// A VM is in another state. `before`, `state`.
    VmState,
    /// A VM's definition was changed outside of Vmyard. `changes` (`field`, `before`, `now`), `while_not_running`.
    VmChanged,
    /// A guest was reset: by itself, by an ACPI reboot, or hard.
    VmReboot,
    /// A disk of a VM could not be read or written. `device`, `path`, `no_space`, `paused`.
    VmIoError,
    /// A VM's guest agent came or went. `connected`.
    VmAgent,
    /// What came of a reset of a password or of keys that waited for a boot. `user`, `credential`, `state`, `reason`.
    VmCredentials,
    /// The connection to a node came up or was lost. `up`, `reason`.
    NodeState,
}

impl EventKind {
    /// All kinds.
    pub const ALL: [EventKind; 14] = [
        EventKind::ServerStarted,
        EventKind::EventsLost,
        EventKind::TaskStarted,
        EventKind::TaskDone,
        EventKind::TaskFailed,
        EventKind::VmAdded,
        EventKind::VmRemoved,
        EventKind::VmState,
        EventKind::VmChanged,
        EventKind::VmReboot,
        EventKind::VmIoError,
        EventKind::VmAgent,
        EventKind::VmCredentials,
        EventKind::NodeState,
    ];

    /// The kind as it is on the wire and in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            EventKind::ServerStarted => "server-started",
            EventKind::EventsLost => "events-lost",
            EventKind::TaskStarted => "task-started",
            EventKind::TaskDone => "task-done",
            EventKind::TaskFailed => "task-failed",
            EventKind::VmAdded => "vm-added",
            EventKind::VmRemoved => "vm-removed",
            EventKind::VmState => "vm-state",
            EventKind::VmChanged => "vm-changed",
            EventKind::VmReboot => "vm-reboot",
            EventKind::VmIoError => "vm-io-error",
            EventKind::VmAgent => "vm-agent",
            EventKind::VmCredentials => "vm-credentials",
            EventKind::NodeState => "node-state",
        }
    }

    /// Reads what [`EventKind::as_str`] wrote.
    pub fn parse(text: &str) -> Option<EventKind> {
        EventKind::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// Lists what has happened, the newest first. Events are kept for 7 days, and at most 200,000 of them. `GET /api/events`
/// tells them as they happen.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct ListEvents {
    /// Only events about this VM: its id, or its name at the time.
    #[garde(custom(rules::optional_reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub vm: Option<String>,
    /// Only events on the node of this name.
    #[garde(custom(rules::optional_reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub node: Option<String>,
    /// Only events of these kinds.
    #[garde(length(max = 100))]
    #[schemars(length(max = 100))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<EventKind>,
    /// Only events about this task.
    #[garde(skip)]
    pub task: Option<Uuid>,
    /// Only events at this moment or later.
    #[garde(skip)]
    pub since: Option<Time>,
    /// Only events before this moment.
    #[garde(skip)]
    pub until: Option<Time>,
    /// At most so many rows (100 when absent).
    #[garde(inner(range(min = 1, max = 1000)))]
    #[schemars(range(min = 1, max = 1000))]
    pub limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[garde(inner(length(min = 1, max = 8192)))]
    #[schemars(length(min = 1, max = 8192))]
    pub cursor: Option<String>,
}

/// A page of events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Events {
    /// The events.
    pub events: Vec<Event>,
    /// The cursor of the next page; null on the last.
    pub next_cursor: Option<String>,
    /// How many there are on all pages.
    pub total: u64,
}

impl Rpc for ListEvents {
    const NAME: &'static str = "list-events";
    const ACCESS: Access = Access::Viewer;
    type Reply = Events;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_called_the_same_everywhere() {
        for kind in EventKind::ALL {
            assert_eq!(serde_json::to_value(kind).ok(), Some(kind.as_str().into()));
            assert_eq!(EventKind::parse(kind.as_str()), Some(kind));
        }
    }
}
