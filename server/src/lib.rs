//! The Vmyard server: the method table, the operations, the task journal, the store.
//!
//! `rpc -> methods -> ops -> {task, store, hypervisor}`; nothing points back up. Read ARCHITECTURE.md first.

mod admission;
mod app;
mod attachments;
mod attempts;
mod auth;
pub mod backup;
mod claims;
pub mod config;
pub mod console;
mod copies;
mod credential_checks;
mod drift;
mod error;
mod events;
mod housekeeping;
mod http;
mod images;
mod index;
mod interfaces;
mod keygen;
mod later;
mod layers;
mod manifest;
mod methods;
pub mod metrics;
mod nodes;
mod nvram;
mod observe;
mod ops;
mod packed;
mod passwords;
mod problem;
pub mod rebuild;
mod reconcile;
mod rpc;
mod sampler;
mod seed;
mod seed_parts;
mod seeds;
mod serve;
mod size;
mod ssh_key;
pub mod store;
mod sync;
mod task;
mod webhooks;

pub use app::{App, Context};
pub use config::Config;
pub use error::{Error, Result};
pub use methods::table;
pub use rpc::{MethodInfo, Table, openapi};
pub use serve::serve;

pub use hypervisor::keep_memory_small;
