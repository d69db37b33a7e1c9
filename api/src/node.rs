//! Nodes: the libvirt hosts.

use crate::{Access, Rpc, Time, rules};
use garde::Validate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;
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
    /// Whether new VMs are placed on it.
    pub enabled: bool,
    /// Whether the configuration file has it; then only that can take it away.
    pub configured: bool,
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
    #[schemars(range(min = 1, max = 1000))]
    pub limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[garde(inner(length(min = 1, max = 8192)))]
    #[schemars(length(min = 1, max = 8192))]
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

/// Adds a node: a libvirt host that the server can reach. It is connected to first, and not added when that fails, or
/// when its host is a node already. The pools and the network that VMs need are made on it where there are none.
#[derive(Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct AddNode {
    /// The new node's name: 1–63 of `a-z A-Z 0-9 . _ -`, first a letter or digit; unique without case.
    #[garde(custom(rules::name))]
    #[schemars(regex(pattern = rules::NAME_PATTERN))]
    pub name: String,
    /// The libvirt URI: `qemu+ssh://root@host/system`, `qemu+tls://host/system`, `qemu+tcp://host/system`,
    /// `qemu+unix:///system?socket=…`. A password in it is never shown again.
    #[garde(length(min = 1, max = 1024))]
    pub uri: String,
    /// How guests are run: `kvm` or `qemu` (TCG, slow); chosen by what the host has when absent.
    #[garde(skip)]
    pub virt_type: Option<VirtType>,
    /// Virtual CPUs that may be reserved for each CPU of the host (16 when absent).
    #[garde(inner(range(min = 0.01, max = 1000.0)))]
    #[schemars(range(min = 0.01, max = 1000.0))]
    pub cpu_overcommit: Option<f64>,
    /// Memory that may be reserved, as a multiple of the host's (1 when absent).
    #[garde(inner(range(min = 0.01, max = 1000.0)))]
    #[schemars(range(min = 0.01, max = 1000.0))]
    pub memory_overcommit: Option<f64>,
    /// Memory kept for the host itself, in MiB (512 when absent).
    #[garde(inner(range(max = rules::MEMORY_MIB_MAX)))]
    #[schemars(range(max = rules::MEMORY_MIB_MAX))]
    pub reserved_memory_mib: Option<u64>,
    /// Where the pool `default` is made on the host when there is none (`/var/lib/libvirt/images` when absent).
    #[garde(inner(custom(rules::absolute_path)))]
    #[schemars(length(max = 4096), regex(pattern = rules::PATH_PATTERN))]
    pub default_pool_path: Option<String>,
    /// Where the pool of the seeds is made on the host (`/var/lib/libvirt/vmyard-seeds` when absent).
    #[garde(inner(custom(rules::absolute_path)))]
    #[schemars(length(max = 4096), regex(pattern = rules::PATH_PATTERN))]
    pub seed_pool_path: Option<String>,
}

/// Without the URI, which may have a password in it.
impl fmt::Debug for AddNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AddNode").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Rpc for AddNode {
    const NAME: &'static str = "add-node";
    const ACCESS: Access = Access::Administrator;
    type Reply = Node;
}

/// Lets new VMs be placed on a node again. Enabling one that is enabled does nothing.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct EnableNode {
    /// The node, by name or id.
    #[garde(custom(rules::reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub node: String,
}

impl Rpc for EnableNode {
    const NAME: &'static str = "enable-node";
    const ACCESS: Access = Access::Administrator;
    type Reply = Node;
}

/// Places no new VM on a node any more. The VMs that are there go on, and are worked with as before.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct DisableNode {
    /// The node, by name or id.
    #[garde(custom(rules::reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub node: String,
}

impl Rpc for DisableNode {
    const NAME: &'static str = "disable-node";
    const ACCESS: Access = Access::Administrator;
    type Reply = Node;
}

/// Forgets a node that add-node brought and that is disabled. Nothing on the host is touched: domains go on, files stay.
/// While VMs of Vmyard's, or the only copy of a template, are on it, it is `in_use`; of a host that is gone for good, the VMs
/// can be forgotten with it.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct DeleteNode {
    /// The node, by name or id.
    #[garde(custom(rules::reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub node: String,
    /// Forget its VMs as well, and what is still to be taken back there: only for a node that is away. Should the host come
    /// back and be added again, its VMs are listed as ones that Vmyard doesn't manage, and list-orphans tells what it has.
    #[serde(default)]
    #[garde(skip)]
    pub forget_vms: bool,
}

/// What delete-node answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeletedNode {
    /// The host's UUID; null when it was never reached.
    pub id: Option<Uuid>,
    /// The name that it had.
    pub name: String,
    /// The VMs that were forgotten with it.
    pub forgotten_vms: Vec<String>,
}

impl Rpc for DeleteNode {
    const NAME: &'static str = "delete-node";
    const ACCESS: Access = Access::Administrator;
    type Reply = DeletedNode;
}

/// Describes a node: versions, capacity, what is reserved and free.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct DescribeNode {
    /// The node, by name or id.
    #[garde(custom(rules::reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub node: String,
}

impl Rpc for DescribeNode {
    const NAME: &'static str = "describe-node";
    const ACCESS: Access = Access::Viewer;
    type Reply = Node;
}
