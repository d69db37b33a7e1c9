//! libvirt's flags and numbers under short names, all in one place: `flags::XML_SECURE`. Flags are `u32`, to be joined
//! with `|`; numbers that answers and events carry are `i32`. The name in brackets is libvirt's, by which its
//! documentation has more on it.

mod domain;
mod event;
mod network;
mod stats;
mod storage;

pub use domain::*;
pub use event::*;
pub use network::*;
pub use stats::*;
pub use storage::*;
