//! The work of the methods, a file for each resource.

pub mod find;
pub mod images;
pub mod network;
pub mod node;
pub mod page;
pub mod pool;
pub mod seeds;
pub mod task;
pub mod template;
pub mod vm;
pub mod volume;

/// Bytes as GiB, to three digits behind the point.
pub fn gib(bytes: u64) -> f64 {
    (bytes as f64 / (1u64 << 30) as f64 * 1000.0).round() / 1000.0
}
