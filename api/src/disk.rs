//! Disks of VMs.

use crate::{Access, Rpc, rules, vm::Vm};
use garde::Validate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A disk of a VM.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Disk {
    /// The device's name in the definition: `vda`.
    pub device: String,
    /// The volume's id; null when Vmyard doesn't know the volume.
    pub volume: Option<Uuid>,
    /// The volume's pool.
    pub pool: Option<String>,
    /// Where it is on the node.
    pub path: Option<String>,
    /// Virtual size, in GiB; null when it isn't known.
    pub size_gib: Option<f64>,
    /// What it is for.
    pub role: DiskRole,
    /// The limits of what goes through it; null when there are none.
    pub limits: Option<DiskLimits>,
}

/// The limits of what goes through a disk. Of requests, and of bytes, either the total is limited or reads and writes are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DiskLimits {
    /// Requests a second in all; null for no limit.
    pub total_iops: Option<u64>,
    /// Requests to read a second; null for no limit.
    pub read_iops: Option<u64>,
    /// Requests to write a second; null for no limit.
    pub write_iops: Option<u64>,
    /// Bytes a second in all; null for no limit.
    pub total_bytes_per_s: Option<u64>,
    /// Bytes read a second; null for no limit.
    pub read_bytes_per_s: Option<u64>,
    /// Bytes written a second; null for no limit.
    pub write_bytes_per_s: Option<u64>,
}

/// What a disk is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DiskRole {
    /// It holds the operating system and goes with the VM.
    System,
    /// It was attached and outlives the VM.
    Data,
}

/// Limits what goes through a disk of a VM, at once when the VM is on, and for its next boots. What is absent stays as it is; 0
/// takes a limit away. Of requests, and of bytes, either the total or reads and writes can be limited. The limits go when the
/// volume is detached.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct ModifyDisk {
    /// The VM, by name or id.
    #[garde(custom(rules::reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub vm: String,
    /// The disk's device in the VM: `vda`.
    #[garde(custom(rules::device))]
    #[schemars(regex(pattern = rules::DEVICE_PATTERN))]
    pub device: String,
    /// Requests a second in all.
    #[garde(inner(range(max = rules::IOPS_MAX)))]
    #[schemars(range(max = 1_000_000_000))]
    pub total_iops: Option<u64>,
    /// Requests to read a second.
    #[garde(inner(range(max = rules::IOPS_MAX)))]
    #[schemars(range(max = 1_000_000_000))]
    pub read_iops: Option<u64>,
    /// Requests to write a second.
    #[garde(inner(range(max = rules::IOPS_MAX)))]
    #[schemars(range(max = 1_000_000_000))]
    pub write_iops: Option<u64>,
    /// Bytes a second in all.
    #[garde(inner(range(max = rules::BYTES_PER_S_MAX)))]
    #[schemars(range(max = 1_000_000_000_000_u64))]
    pub total_bytes_per_s: Option<u64>,
    /// Bytes read a second.
    #[garde(inner(range(max = rules::BYTES_PER_S_MAX)))]
    #[schemars(range(max = 1_000_000_000_000_u64))]
    pub read_bytes_per_s: Option<u64>,
    /// Bytes written a second.
    #[garde(inner(range(max = rules::BYTES_PER_S_MAX)))]
    #[schemars(range(max = 1_000_000_000_000_u64))]
    pub write_bytes_per_s: Option<u64>,
}

impl Rpc for ModifyDisk {
    const NAME: &'static str = "modify-disk";
    const ACCESS: Access = Access::Operator;
    type Reply = Vm;
}
