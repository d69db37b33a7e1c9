//! Sizes as people read them.

/// Bytes as GiB, to three digits behind the point.
pub fn gib(bytes: u64) -> f64 {
    (bytes as f64 / (1u64 << 30) as f64 * 1000.0).round() / 1000.0
}
