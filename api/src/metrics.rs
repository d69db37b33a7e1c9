//! What VMs have used, over time.

use crate::{Access, Rpc, Time, rules};
use garde::Validate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The most steps that one answer has.
pub const STEPS_MAX: i64 = 11_000;

/// Tells what a VM has used of CPU, memory, disks and network between two times, step by step. The VM must be running, unless
/// `history` is true. What wasn't measured is `null`, never a number that was made up.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct DescribeVmMetrics {
    /// The VM, by name or id.
    #[garde(custom(rules::reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub vm: String,
    /// From when on; an hour before `end` when absent.
    #[serde(default)]
    #[garde(skip)]
    pub start: Option<Time>,
    /// Until when, not included; now when absent.
    #[serde(default)]
    #[garde(skip)]
    pub end: Option<Time>,
    /// The length of a step, in seconds; one that gives about 300 steps when absent. Where what is kept of that time is coarser, the
    /// steps of the answer are as long as what is kept.
    #[serde(default)]
    #[garde(range(min = 1, max = 31_536_000))]
    #[schemars(range(min = 1, max = 31_536_000))]
    pub step_s: Option<u32>,
    /// What is told of each step; the average when absent.
    #[serde(default)]
    #[garde(skip)]
    pub aggregate: Aggregate,
    /// Also of a VM that isn't running now.
    #[serde(default)]
    #[garde(skip)]
    pub history: bool,
}

/// What is told of the samples in a step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Aggregate {
    /// Their average.
    #[default]
    Average,
    /// The least of them.
    Minimum,
    /// The most of them.
    Maximum,
}

/// What a VM has used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VmMetrics {
    /// The VM's id.
    pub vm: Uuid,
    /// The VM's name.
    pub name: String,
    /// The length of a step, in seconds.
    pub step_s: i64,
    /// How far apart the samples are that the steps are made of, in seconds.
    pub resolution_s: i64,
    /// When each step begins. The last one may not be over.
    pub times: Vec<Time>,
    /// The series: first those of the whole VM, then those of its parts.
    pub series: Vec<Series>,
}

/// One series.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Series {
    /// `cpu_percent` (of all virtual CPUs together, 0 to 100), `memory_used_mib`, `memory_total_mib`, `memory_percent`,
    /// `disk_read_bytes_per_s`, `disk_write_bytes_per_s`, `disk_read_iops`, `disk_write_iops`, `net_rx_bytes_per_s` (received by the guest),
    /// `net_tx_bytes_per_s`, `net_rx_packets_per_s` or `net_tx_packets_per_s`.
    pub name: String,
    /// `%`, `MiB`, `bytes/s`, `requests/s` or `packets/s`.
    pub unit: String,
    /// The disk (`vda`), or the interface's hardware address; absent in the sum over all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Of memory, where it was learnt: `balloon` (the guest's balloon driver: what the guest uses, without its caches), or `rss`
    /// (what QEMU's process holds on the node, with its own part, where the guest tells nothing).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// A value for each of `times`; `null` where there was no sample.
    pub values: Vec<Option<f64>>,
}

impl Rpc for DescribeVmMetrics {
    const NAME: &'static str = "describe-vm-metrics";
    const ACCESS: Access = Access::Viewer;
    type Reply = VmMetrics;
}
