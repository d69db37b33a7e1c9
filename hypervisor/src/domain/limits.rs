//! Limits of what goes through a disk (`<iotune>`): <https://libvirt.org/formatdomain.html#hard-drives-floppy-disks-cdroms>.

use super::edits::child;
use crate::{Node, Result, node::SLOW};
use libvirt::flags;
use roxmltree::Node as Element;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The limits of a disk, requests and bytes a second; 0 for none. Of requests, and of bytes, either the total or reads and
/// writes are limited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskLimits {
    /// Requests in all.
    pub total_iops: u64,
    /// Requests to read.
    pub read_iops: u64,
    /// Requests to write.
    pub write_iops: u64,
    /// Bytes in all.
    pub total_bytes_per_s: u64,
    /// Bytes read.
    pub read_bytes_per_s: u64,
    /// Bytes written.
    pub write_bytes_per_s: u64,
}

impl DiskLimits {
    /// By libvirt's names.
    fn named(&self) -> [(&'static str, u64); 6] {
        [
            ("total_iops_sec", self.total_iops),
            ("read_iops_sec", self.read_iops),
            ("write_iops_sec", self.write_iops),
            ("total_bytes_sec", self.total_bytes_per_s),
            ("read_bytes_sec", self.read_bytes_per_s),
            ("write_bytes_sec", self.write_bytes_per_s),
        ]
    }

    /// Reads those of a `<disk>`.
    pub(super) fn read(disk: Element<'_, '_>) -> DiskLimits {
        let Some(tune) = child(disk, "iotune") else { return DiskLimits::default() };
        let limit = |name| child(tune, name).and_then(|limit| limit.text()?.trim().parse().ok()).unwrap_or(0);
        DiskLimits {
            total_iops: limit("total_iops_sec"),
            read_iops: limit("read_iops_sec"),
            write_iops: limit("write_iops_sec"),
            total_bytes_per_s: limit("total_bytes_sec"),
            read_bytes_per_s: limit("read_bytes_sec"),
            write_bytes_per_s: limit("write_bytes_sec"),
        }
    }
}

impl Node {
    /// Gives a domain's disk, by its device, these limits and no others, in the definition and, when the domain is on, at
    /// once; both or none. What else an administrator has set there (bursts, a group) stays.
    pub async fn limit_disk(&self, id: Uuid, device: &str, limits: DiskLimits) -> Result<()> {
        let (doing, device) = (format!("limit disk {device} of domain {id}"), device.to_owned());
        let limited = self.change_domain(id, SLOW, &doing, move |domain| {
            let live = if domain.is_active()? { flags::AFFECT_LIVE } else { 0 };
            domain.set_block_io_tune(&device, &limits.named(), live | flags::AFFECT_CONFIG)
        });
        limited.await
    }
}
