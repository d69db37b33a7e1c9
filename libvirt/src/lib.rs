//! A small safe binding to libvirt: connections, domains, storage, networks, streams, events and statistics.
//!
//! The types are thin: one handle per libvirt object, one method per libvirt call, flags as the `u32` that the C API
//! takes (readable names in [`flags`]). Every method blocks the calling thread until the daemon has answered, which
//! with a stalled remote node is until keep-alive gives up ([`Connect::set_keep_alive`]): call them from a thread
//! pool of your own. All handles are `Send` and `Sync`, as libvirt's objects are reference-counted and thread-safe.
//!
//! Callbacks (events, closed connections, streams) come on the one thread named `libvirt-events`. They must only hand
//! data on; a call that waits for the daemon in them stops all events meanwhile. A panic in a callback is caught.

// This is the one crate of the workspace that talks to C; each block says why it is sound.
#![allow(unsafe_code)]

#[cfg(not(target_pointer_width = "64"))]
compile_error!("libvirt's unsigned long is taken for 64 bits");

mod allocator;
mod code;
mod connect;
mod connect_find;
mod domain;
mod domain_agent;
mod domain_block;
mod domain_console;
mod domain_device;
mod domain_metadata;
mod domain_power;
mod error;
mod event;
mod event_loop;
mod event_raw;
mod ffi;
pub mod flags;
mod handler;
mod network;
mod poller;
mod pool;
mod pool_event;
mod stats;
mod stream;
mod stream_event;
mod subscription;
mod volume;

pub use allocator::{give_back, limit_arenas};
pub use code::ErrorCode;
pub use connect::{CloseReason, Connect, NodeInfo};
pub use domain::{Domain, DomainInfo, DomainState};
pub use domain_agent::{AddressSource, Interface};
pub use domain_block::{BlockInfo, BlockJobInfo, BlockStats};
pub use error::{Error, Result};
pub use event::{DomainEvent, EventDetail, EventKind, LifecycleEvent};
pub use event_loop::start_event_loop;
pub use network::{Lease, Network};
pub use pool::{Pool, PoolInfo, PoolState};
pub use pool_event::{PoolChange, PoolEvent, PoolEventKind};
pub use stats::{DomainStats, Value};
pub use stream::{Piece, Stream};
pub use subscription::Subscription;
pub use volume::{Volume, VolumeInfo, VolumeKind};

/// The 16 bytes of a UUID, in the order in which they are written.
pub type UuidBytes = [u8; 16];

/// The version of the libvirt library that this process is linked with, as major × 1,000,000 + minor × 1,000 +
/// release (`virGetVersion`); 0 if it won't say.
pub fn library_version() -> u64 {
    let mut version = 0;
    // SAFETY: the version is written to our variable; without a type name the third argument is not used.
    let rc = unsafe { virt_sys::virGetVersion(&mut version, std::ptr::null(), std::ptr::null_mut()) };
    if rc < 0 { 0 } else { version }
}
