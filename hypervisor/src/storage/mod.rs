//! Pools and volumes: <https://libvirt.org/formatstorage.html>. Everything goes through libvirt's storage API, so that
//! a remote node is the same as a local one.

mod copy;
mod guest_image;
mod image;
mod pieces;
mod pool;
mod rebase;
mod tail;
mod transfer;
mod volume;

pub use copy::Source;
pub use image::{Format, Image};
pub use pool::PoolView;
pub use tail::Tail;
pub(crate) use volume::stands_on;
pub use volume::{Backing, Layer, VolumeView};
