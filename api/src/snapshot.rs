//! Snapshots of VMs.

use crate::{
    Access, CloudInit, Rpc, Time, rules,
    vm::{NicSpec, Vm},
};
use garde::Validate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use uuid::Uuid;

/// A snapshot: the disks of a VM at one moment, and its memory if that was wanted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Snapshot {
    /// Its id.
    pub id: Uuid,
    /// Its name, unique among the snapshots of its VM.
    pub name: String,
    /// The id of the VM that it was taken of; the VM may be gone.
    pub vm: Uuid,
    /// The VM's name then.
    pub vm_name: String,
    /// Its node.
    pub node: String,
    /// The snapshot that the VM was on when it was taken; null for a first one.
    pub parent: Option<Uuid>,
    /// Whether the VM is on it now: what it has changed since is in its disks alone.
    pub current: bool,
    /// How far it is.
    pub state: SnapshotState,
    /// What the VM did when it was taken.
    pub vm_state: SnapshotVmState,
    /// Whether it has the VM's memory, so that the VM resumes where it was.
    pub memory: bool,
    /// Whether the guest's file systems were frozen by its agent when it was taken.
    pub quiesced: bool,
    /// How long the guest's CPUs stood still while it was taken, in milliseconds, by the events of QEMU; 0 when they did not.
    pub pause_ms: u64,
    /// Free text.
    pub description: String,
    /// The disks that are in it.
    pub disks: Vec<SnapshotDisk>,
    /// What it takes in its pools, in bytes; null where that isn't asked for (list-snapshots) or the node doesn't tell.
    pub size_bytes: Option<u64>,
    /// When it was taken.
    pub created_at: Time,
}

/// How far a snapshot is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotState {
    /// It is being taken.
    Creating,
    /// It can be used.
    Ready,
    /// It was deleted, and goes as soon as what stands on its images allows it; its name is free.
    Deleting,
}

/// What a VM did when a snapshot was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotVmState {
    /// It ran.
    Running,
    /// It was paused.
    Paused,
    /// It was off.
    Shutoff,
}

/// A disk in a snapshot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SnapshotDisk {
    /// The device that it was: `vda`.
    pub device: String,
    /// The volume.
    pub volume: Uuid,
    /// The frozen image.
    pub path: String,
    /// Virtual size, in GiB.
    pub size_gib: f64,
    /// The image that the frozen one stands on.
    pub backing: Option<String>,
}

/// Whether a guest's file systems are frozen by its agent for a snapshot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Quiesce {
    /// Where the agent answers and memory isn't saved; else without. The answer's `quiesced` says which.
    #[default]
    Auto,
    /// Or there is no snapshot. Not together with memory.
    Require,
    /// Not.
    Never,
}

/// Takes a snapshot of a VM that is running, paused or off: all its disks at one moment, and its memory if wanted. Each disk
/// goes on in a new overlay, so a snapshot takes no space at first and no time that depends on the disks' size. A VM with a raw
/// disk, a disk that isn't Vmyard's, or snapshots of libvirt's own is refused before anything is touched.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct CreateSnapshot {
    /// The VM, by name or id.
    #[garde(custom(rules::reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub vm: String,
    /// The snapshot's name: 1–63 of `a-z A-Z 0-9 . _ -`, first a letter or digit; unique in its VM, without case.
    #[garde(custom(rules::name))]
    #[schemars(regex(pattern = rules::NAME_PATTERN))]
    pub name: String,
    /// Save the memory as well, of a VM that is running or paused.
    #[serde(default)]
    #[garde(skip)]
    pub memory: bool,
    /// Whether the guest's file systems are frozen meanwhile (`auto` when absent).
    #[serde(default)]
    #[garde(skip)]
    pub quiesce: Quiesce,
    /// Data disks to leave out, by their devices: `vdb`.
    #[serde(default)]
    #[garde(length(max = 25), inner(custom(rules::data_device)))]
    #[schemars(length(max = 25), inner(regex(pattern = rules::DATA_DEVICE_PATTERN)))]
    pub exclude_disks: Vec<String>,
    /// Free text.
    #[serde(default)]
    #[garde(custom(rules::description))]
    #[schemars(length(max = 1000), regex(pattern = rules::XML_PATTERN))]
    pub description: String,
}

impl Rpc for CreateSnapshot {
    const NAME: &'static str = "create-snapshot";
    const ACCESS: Access = Access::Operator;
    type Reply = Snapshot;
}

/// Takes a VM that is off back to a snapshot: its disks are as they were then; what was changed since is lost, unless a
/// `backup` is made first. One with memory resumes the VM where it was. The snapshot stays, and so do all others. Data volumes
/// that are attached now and not in the snapshot stay as they are, and so do those that were detached since.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct RevertToSnapshot {
    /// The VM, by name or id.
    #[garde(custom(rules::reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub vm: String,
    /// The snapshot, by name or id.
    #[garde(custom(rules::reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub snapshot: String,
    /// Take a snapshot of this name of the disks as they are first.
    #[garde(custom(rules::optional_name))]
    #[schemars(regex(pattern = rules::NAME_PATTERN))]
    pub backup: Option<String>,
}

/// What revert-to-snapshot answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Reverted {
    /// The VM.
    pub vm: Vm,
    /// The snapshot that it is on now.
    pub snapshot: Snapshot,
    /// The snapshot of what was before.
    pub backup: Option<Snapshot>,
    /// Devices in the snapshot whose volumes the VM has no more: they were left as they are.
    pub left_out: Vec<String>,
}

impl Rpc for RevertToSnapshot {
    const NAME: &'static str = "revert-to-snapshot";
    const ACCESS: Access = Access::Operator;
    type Reply = Reverted;
}

/// Creates a VM from a snapshot, also of a VM that is gone: its system disk is as it was then. The new VM has hardware addresses and an
/// identity of its own (cloud-init sees a new instance). Memory and data volumes of the snapshot are not used (create-volume makes a volume
/// of one of those). The disk is an overlay over the snapshot's image, which stays as long as the VM needs it, or `independent`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct CreateVmFromSnapshot {
    /// The VM that the snapshot was taken of, by name or id; not needed where the snapshot is named by its id.
    #[garde(custom(rules::optional_reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub vm: Option<String>,
    /// The snapshot, by name or id.
    #[garde(custom(rules::reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub snapshot: String,
    /// The new VM's name: 1–63 of `a-z A-Z 0-9 . _ -`, first a letter or digit; unique over all nodes, without case.
    #[garde(custom(rules::name))]
    #[schemars(regex(pattern = rules::NAME_PATTERN))]
    pub name: String,
    /// Virtual CPUs; as many as the VM had when absent.
    #[garde(inner(range(min = 1, max = rules::VCPUS_MAX)))]
    #[schemars(range(min = 1, max = 255))]
    pub vcpus: Option<u32>,
    /// Memory, in MiB; as much as the VM had when absent.
    #[garde(inner(range(min = rules::MEMORY_MIB_MIN, max = rules::MEMORY_MIB_MAX)))]
    #[schemars(range(min = 32, max = 16_777_216))]
    pub memory_mib: Option<u64>,
    /// The system disk's size, in GiB; that of the snapshot's when absent, never smaller.
    #[garde(inner(range(min = 1, max = rules::DISK_GIB_MAX)))]
    #[schemars(range(min = 1, max = 65_536))]
    pub disk_gib: Option<u64>,
    /// The pool of the system disk, by name or id; the node's `default` when absent.
    #[garde(custom(rules::optional_reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub pool: Option<String>,
    /// The networks, an interface each; the node's `default` when absent, none when empty.
    #[garde(dive, custom(crate::vm::at_most_eight))]
    #[schemars(length(max = 8))]
    pub networks: Option<Vec<NicSpec>>,
    /// Tags.
    #[serde(default)]
    #[garde(custom(rules::tags))]
    #[schemars(transform = rules::tags_schema)]
    pub tags: BTreeMap<String, String>,
    /// Free text, at most 1,000 characters.
    #[serde(default)]
    #[garde(custom(rules::description))]
    #[schemars(length(max = 1000), regex(pattern = rules::XML_PATTERN))]
    pub description: String,
    /// What cloud-init is to set up at the first boot.
    #[garde(dive)]
    pub cloud_init: Option<CloudInit>,
    /// Copy what the disk needs of the snapshot into it, so that the snapshot can go. The template stays below it.
    #[serde(default)]
    #[garde(skip)]
    pub independent: bool,
    /// Whether to start it at once.
    #[serde(default)]
    #[garde(skip)]
    pub start: bool,
}

impl Rpc for CreateVmFromSnapshot {
    const NAME: &'static str = "create-vm-from-snapshot";
    const ACCESS: Access = Access::Operator;
    type Reply = Vm;
}

/// Lists the snapshots of a VM, also of one that is gone (by its id), the oldest first.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct ListSnapshots {
    /// The VM, by name or id.
    #[garde(custom(rules::reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub vm: String,
    /// At most so many rows (100 when absent).
    #[garde(inner(range(min = 1, max = 1000)))]
    #[schemars(range(min = 1, max = 1000))]
    pub limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[garde(inner(length(min = 1, max = 8192)))]
    #[schemars(length(min = 1, max = 8192))]
    pub cursor: Option<String>,
}

/// A page of snapshots.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Snapshots {
    /// The snapshots.
    pub snapshots: Vec<Snapshot>,
    /// The cursor of the next page; null on the last.
    pub next_cursor: Option<String>,
    /// How many there are on all pages.
    pub total: u64,
}

impl Rpc for ListSnapshots {
    const NAME: &'static str = "list-snapshots";
    const ACCESS: Access = Access::Viewer;
    type Reply = Snapshots;
}

/// Describes a snapshot.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct DescribeSnapshot {
    /// The VM, by name or id; not needed where the snapshot is named by its id.
    #[garde(custom(rules::optional_reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub vm: Option<String>,
    /// The snapshot, by name or id.
    #[garde(custom(rules::reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub snapshot: String,
}

impl Rpc for DescribeSnapshot {
    const NAME: &'static str = "describe-snapshot";
    const ACCESS: Access = Access::Viewer;
    type Reply = Snapshot;
}

/// Deletes a snapshot, of a VM that is running, paused, off or gone. What its images hold and later ones need is merged into
/// those. Where that can't be done yet (several stand on it, or the node can't do it while the VM is off), the snapshot is hidden
/// as `deleting` and goes later by itself.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct DeleteSnapshot {
    /// The VM, by name or id; not needed where the snapshot is named by its id.
    #[garde(custom(rules::optional_reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub vm: Option<String>,
    /// The snapshot, by name or id.
    #[garde(custom(rules::reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub snapshot: String,
}

/// What delete-snapshot answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeletedSnapshot {
    /// The id of the snapshot that is gone.
    pub id: Uuid,
    /// Its name, which is free again.
    pub name: String,
    /// Why its images are not gone yet; null when they are.
    pub pending: Option<String>,
}

impl Rpc for DeleteSnapshot {
    const NAME: &'static str = "delete-snapshot";
    const ACCESS: Access = Access::Operator;
    type Reply = DeletedSnapshot;
}
