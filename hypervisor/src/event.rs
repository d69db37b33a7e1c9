//! What a node tells by itself.

use crate::link::Status;
use uuid::Uuid;

/// Something happened on a node.
#[derive(Debug, Clone)]
pub enum NodeEvent {
    /// The control connection came up or was lost. Events between a loss and the next `Up` are missed: scan the node.
    Connection {
        /// The node's name.
        node: String,
        /// What the connection is now.
        status: Status,
    },
    /// A domain's definition or power state changed.
    Domain {
        /// The node's name.
        node: String,
        /// The domain.
        domain: Uuid,
        /// What happened to it.
        event: PowerEvent,
    },
    /// A guest was reset: by itself, by an ACPI reboot, or hard.
    Reboot {
        /// The node's name.
        node: String,
        /// The domain.
        domain: Uuid,
    },
    /// A device was plugged into a running domain, or its guest has let go of one.
    Devices {
        /// The node's name.
        node: String,
        /// The domain.
        domain: Uuid,
    },
    /// A disk of a domain couldn't be read or written.
    IoError {
        /// The node's name.
        node: String,
        /// The domain.
        domain: Uuid,
        /// What went wrong.
        error: IoError,
    },
    /// The guest agent of a domain came or went.
    Agent {
        /// The node's name.
        node: String,
        /// The domain.
        domain: Uuid,
        /// Whether it is connected now.
        connected: bool,
    },
}

/// An error of a disk.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IoError {
    /// What the running domain calls the device: `virtio-disk1`.
    pub alias: String,
    /// The image.
    pub path: String,
    /// Whether there was no space left.
    pub no_space: bool,
    /// Whether QEMU has paused the domain for that. Else the guest was told.
    pub paused: bool,
}

/// A change of a domain's definition or power state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PowerEvent {
    /// Defined, or its definition changed.
    Defined,
    /// Its definition is gone.
    Undefined,
    /// It runs.
    Started,
    /// It is paused.
    Suspended,
    /// It runs again.
    Resumed,
    /// It is off.
    Stopped,
    /// The guest began to power off.
    ShuttingDown,
    /// Something else: look at the domain.
    Other,
}
