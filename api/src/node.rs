//! Nodes: the libvirt hosts.

use crate::{Access, Rpc, Time, rules};
use garde::Validate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A libvirt host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Node {
    /// The host's UUID as libvirt tells it; null until it was reached once.
    pub id: Option<Uuid>,
    /// The name it was configured with.
    pub name: String,
    /// The libvirt URI, without a password.
    pub uri: String,
    /// Whether it can be reached.
    pub state: NodeState,
    /// Why it can't be reached.
    pub error: Option<String>,
    /// When the state last changed.
    pub since: Time,
    /// The host's own name.
    pub hostname: Option<String>,
    /// The host's libvirt, like `9.0.0`.
    pub libvirt_version: Option<String>,
    /// The host's QEMU, like `7.2.22`.
    pub qemu_version: Option<String>,
    /// The CPU architecture, like `x86_64`.
    pub arch: Option<String>,
    /// How guests are run: `kvm`, or `qemu` (TCG, slow) where there is no usable KVM.
    pub virt_type: Option<VirtType>,
    /// The host's CPUs.
    pub cpus: Option<u32>,
    /// The host's memory, in MiB.
    pub memory_mib: Option<u64>,
    /// Virtual CPUs that may be reserved for each CPU of the host.
    pub cpu_overcommit: f64,
    /// Memory that may be reserved, as a multiple of the host's.
    pub memory_overcommit: f64,
    /// Memory kept for the host itself, in MiB.
    pub reserved_memory_mib: u64,
    /// Virtual CPUs that running, paused and starting VMs reserve.
    pub used_vcpus: u32,
    /// Memory that running, paused and starting VMs reserve, in MiB.
    pub used_memory_mib: u64,
    /// Virtual CPUs that are left; null until the node was reached once.
    pub free_vcpus: Option<u32>,
    /// Memory that is left, in MiB; null until the node was reached once.
    pub free_memory_mib: Option<u64>,
    /// VMs on it, those that Vmyard didn't make included.
    pub vms: u64,
    /// When its VMs were last listed whole.
    pub observed_at: Option<Time>,
}

/// Whether a node can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// Never reached since the server's start, still trying.
    Connecting,
    /// It answers.
    Up,
    /// It was lost or refuses; tried again with growing pauses.
    Down,
}

/// How a node runs guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum VirtType {
    /// Hardware virtualisation.
    Kvm,
    /// Emulation (TCG).
    Qemu,
}

/// Lists the nodes.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct ListNodes {
    /// At most so many rows (100 when absent).
    #[garde(inner(range(min = 1, max = 1000)))]
    pub limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[garde(inner(length(min = 1, max = 8192)))]
    pub cursor: Option<String>,
}

/// A page of nodes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Nodes {
    /// The nodes.
    pub nodes: Vec<Node>,
    /// The cursor of the next page; null on the last.
    pub next_cursor: Option<String>,
    /// How many there are on all pages.
    pub total: u64,
}

impl Rpc for ListNodes {
    const NAME: &'static str = "list-nodes";
    const ACCESS: Access = Access::Viewer;
    type Reply = Nodes;
}

/// Describes a node: versions, capacity, what is reserved and free.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct DescribeNode {
    /// The node, by name or id.
    #[garde(custom(rules::reference))]
    pub node: String,
}

impl Rpc for DescribeNode {
    const NAME: &'static str = "describe-node";
    const ACCESS: Access = Access::Viewer;
    type Reply = Node;
}
