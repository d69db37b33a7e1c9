//! A virtualisation node in Vmyard's words: connect and reconnect, domains, pools, volumes, networks, events.
//!
//! The only user of the crate `libvirt`. Everything here is asynchronous and has a deadline, although libvirt blocks:
//! see [`lane`] for how. XML is written by typed builders and read by small views; nothing is ever redefined from a
//! view, which would drop what libvirt or an administrator added.

mod connector;
pub mod domain;
mod error;
mod event;
mod facts;
mod lane;
mod link;
pub mod network;
mod node;
mod pauses;
mod program;
mod session;
mod ssh;
pub mod storage;
mod sync;
mod uri;
mod xml;

pub use error::{Error, ErrorKind, Result};
pub use event::{IoError, NodeEvent, PowerEvent};
pub use facts::{Facts, VirtType};
pub use link::Status;
pub use node::{Node, NodeConfig, VirtTypeSetting};
pub use pauses::PauseWatch;
pub use uri::NodeUri;

/// Arenas of the C allocator.
const ARENAS: u16 = 2;

/// Keeps the memory of a process small that has many threads for nodes. To be called before there are threads.
pub fn keep_memory_small() {
    libvirt::limit_arenas(ARENAS);
}

/// Gives memory back to the system that isn't used any more. To be called now and then.
pub fn give_memory_back() {
    libvirt::give_back();
}
