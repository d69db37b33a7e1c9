//! Storage volumes.

use crate::{Access, Rpc, Time, rules, vm::Vm};
use garde::Validate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A storage volume: a disk of a VM or for one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Volume {
    /// The volume's id; null for a volume that Vmyard didn't make.
    pub id: Option<Uuid>,
    /// Its name; for a volume that Vmyard didn't make, libvirt's.
    pub name: String,
    /// Its pool.
    pub pool: String,
    /// Its node.
    pub node: String,
    /// Where it is on the node.
    pub path: String,
    /// `qcow2`, `raw`, …
    pub format: String,
    /// Virtual size, in GiB.
    pub size_gib: f64,
    /// Virtual size, in bytes.
    pub size_bytes: u64,
    /// What it takes in the pool, in bytes; null when its node doesn't tell.
    pub allocation_bytes: Option<u64>,
    /// How far it is, and whether a VM has it.
    pub state: VolumeState,
    /// The VM that has it, by name.
    pub vm: Option<String>,
    /// The device it is there: `vda`.
    pub device: Option<String>,
    /// The path of the image that it stands on.
    pub backing: Option<String>,
    /// All images below it, the nearest first; told by describe-volume only.
    pub backing_chain: Option<Vec<Layer>>,
    /// The paths of the images of its node that stand on it; told by describe-volume only.
    pub overlays: Option<Vec<String>>,
    /// The template that it was made from and stands on.
    pub template: Option<Uuid>,
    /// When it was made; null for a volume that Vmyard didn't make.
    pub created_at: Option<Time>,
}

/// An image that a volume stands on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Layer {
    /// Where it is on the node.
    pub path: String,
    /// `qcow2`, `raw`, …; null when its pool doesn't know it.
    pub format: Option<String>,
    /// What it takes in its pool, in bytes.
    pub allocation_bytes: Option<u64>,
}

/// How far a volume is, and whether a VM has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum VolumeState {
    /// No VM has it.
    Available,
    /// A VM has it.
    Attached,
    /// A VM is asked to let go of it, or has it no more in its definition but still in its hands.
    Detaching,
    /// It is being made.
    Creating,
    /// It is on its way out.
    Deleting,
}

/// Lists volumes, those that Vmyard didn't make included; templates, seeds and what snapshots keep are not
/// listed.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct ListVolumes {
    /// Only volumes of this pool.
    #[garde(custom(rules::optional_reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub pool: Option<String>,
    /// Only volumes of this node.
    #[garde(custom(rules::optional_reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub node: Option<String>,
    /// Only volumes in this state.
    #[garde(skip)]
    pub state: Option<VolumeState>,
    /// Only volumes of this format: `qcow2`, `raw`, ….
    #[garde(custom(rules::optional_reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub format: Option<String>,
    /// Only volumes whose name contains this text, without case.
    #[garde(inner(length(chars, min = 1, max = 255)))]
    #[schemars(length(min = 1, max = 255))]
    pub name: Option<String>,
    /// At most so many rows (100 when absent).
    #[garde(inner(range(min = 1, max = 1000)))]
    #[schemars(range(min = 1, max = 1000))]
    pub limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[garde(inner(length(min = 1, max = 8192)))]
    #[schemars(length(min = 1, max = 8192))]
    pub cursor: Option<String>,
}

/// A page of volumes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Volumes {
    /// The volumes.
    pub volumes: Vec<Volume>,
    /// The cursor of the next page; null on the last.
    pub next_cursor: Option<String>,
    /// How many there are on all pages.
    pub total: u64,
    /// Nodes that didn't answer; their volumes are missing.
    pub unreachable: Vec<String>,
}

impl Rpc for ListVolumes {
    const NAME: &'static str = "list-volumes";
    const ACCESS: Access = Access::Viewer;
    type Reply = Volumes;
}

/// Describes a volume, with what it stands on and what stands on it.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct DescribeVolume {
    /// The volume, by name or id.
    #[garde(custom(rules::reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub volume: String,
    /// Its pool, where the name fits several.
    #[garde(custom(rules::optional_reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub pool: Option<String>,
    /// Its node, where the name fits several.
    #[garde(custom(rules::optional_reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub node: Option<String>,
}

impl Rpc for DescribeVolume {
    const NAME: &'static str = "describe-volume";
    const ACCESS: Access = Access::Viewer;
    type Reply = Volume;
}

/// Makes a volume: a blank one, an overlay over a template or a snapshot's disk (copy on write), or a copy of another volume. It is nobody's
/// until attach-volume gives it to a VM.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct CreateVolume {
    /// The new volume's name: 1–63 of `a-z A-Z 0-9 . _ -`, first a letter or digit; unique in its pool, without case.
    #[garde(custom(rules::name))]
    #[schemars(regex(pattern = rules::NAME_PATTERN))]
    pub name: String,
    /// The pool, by name or id; the node's `default` when absent.
    #[garde(custom(rules::optional_reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub pool: Option<String>,
    /// The node; needed only where the pool's name fits several.
    #[garde(custom(rules::optional_reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub node: Option<String>,
    /// Virtual size, in GiB. Needed for a blank one; of the others at least that of their source, which it is when absent.
    #[garde(inner(range(min = 1, max = rules::DISK_GIB_MAX)))]
    #[schemars(range(min = 1, max = rules::DISK_GIB_MAX))]
    pub size_gib: Option<u64>,
    /// `qcow2` (when absent) or `raw`. Only for a blank one; an overlay is qcow2, a copy is as its source.
    #[garde(skip)]
    pub format: Option<DiskFormat>,
    /// The template to stand on, by name or id.
    #[garde(custom(rules::optional_reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub template: Option<String>,
    /// The volume to copy, by name or id. It must not be in use: no VM has it, or that VM is off.
    #[garde(custom(rules::optional_reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub volume: Option<String>,
    /// The snapshot to stand on, by name (with `vm`) or id: one of its disks as it was then.
    #[garde(custom(rules::optional_reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub snapshot: Option<String>,
    /// The VM that the snapshot was taken of, by name or id; not needed where the snapshot is named by its id.
    #[garde(custom(rules::optional_reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub vm: Option<String>,
    /// Which of the snapshot's disks, by its device; `vda` when absent.
    #[garde(inner(custom(rules::device)))]
    #[schemars(regex(pattern = rules::DEVICE_PATTERN))]
    pub device: Option<String>,
}

/// The format of a disk image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DiskFormat {
    /// QEMU's format: takes the space that is used, and can have snapshots.
    Qcow2,
    /// The disk's bytes as they are. Faster by a little, without snapshots.
    Raw,
}

impl Rpc for CreateVolume {
    const NAME: &'static str = "create-volume";
    const ACCESS: Access = Access::Operator;
    type Reply = Volume;
}

/// Copies a volume byte by byte, into its own pool or another one of any node. It must not be in use: no VM has it, or that
/// VM is off. What stands on a template stands on it after the copy, too; such a copy stays on its node.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct CloneVolume {
    /// The volume to copy, by name or id.
    #[garde(custom(rules::reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub volume: String,
    /// The new volume's name: 1–63 of `a-z A-Z 0-9 . _ -`, first a letter or digit; unique in its pool, without case.
    #[garde(custom(rules::name))]
    #[schemars(regex(pattern = rules::NAME_PATTERN))]
    pub name: String,
    /// The pool to copy it into, by name or id; the pool of the original when absent.
    #[garde(custom(rules::optional_reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub pool: Option<String>,
    /// The node to copy it to; the node of the original when absent.
    #[garde(custom(rules::optional_reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub node: Option<String>,
}

impl Rpc for CloneVolume {
    const NAME: &'static str = "clone-volume";
    const ACCESS: Access = Access::Operator;
    type Reply = Volume;
}

/// Makes a volume larger; it can't be made smaller. A running VM sees the new size at once. Partitions and file systems
/// are the guest's to grow.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct ResizeVolume {
    /// The volume, by name or id.
    #[garde(custom(rules::reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub volume: String,
    /// Its pool, where the name fits several.
    #[garde(custom(rules::optional_reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub pool: Option<String>,
    /// Its node, where the name fits several.
    #[garde(custom(rules::optional_reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub node: Option<String>,
    /// The new virtual size, in GiB.
    #[garde(range(min = 1, max = rules::DISK_GIB_MAX))]
    #[schemars(range(min = 1, max = rules::DISK_GIB_MAX))]
    pub size_gib: u64,
}

impl Rpc for ResizeVolume {
    const NAME: &'static str = "resize-volume";
    const ACCESS: Access = Access::Operator;
    type Reply = Volume;
}

/// Deletes a volume that no VM has and no other image stands on. Its data are gone for good.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct DeleteVolume {
    /// The volume, by name or id.
    #[garde(custom(rules::reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub volume: String,
    /// Its pool, where the name fits several.
    #[garde(custom(rules::optional_reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub pool: Option<String>,
    /// Its node, where the name fits several.
    #[garde(custom(rules::optional_reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub node: Option<String>,
}

/// What delete-volume answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeletedVolume {
    /// The id of the volume that is gone.
    pub id: Uuid,
    /// Its name, which is free again.
    pub name: String,
}

impl Rpc for DeleteVolume {
    const NAME: &'static str = "delete-volume";
    const ACCESS: Access = Access::Operator;
    type Reply = DeletedVolume;
}

/// Gives a volume to a VM as a further disk: to a running or paused one at once, and for every later start. A volume is
/// one VM's at most. The guest finds the disk as `/dev/disk/by-id/virtio-` with the last 20 digits of the volume's id.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct AttachVolume {
    /// The VM, by name or id.
    #[garde(custom(rules::reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub vm: String,
    /// The volume, by name or id. It must be on the VM's node.
    #[garde(custom(rules::reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub volume: String,
    /// The device to be: `vdb` … `vdz`; the next free one when absent. The guest may call it otherwise.
    #[garde(inner(custom(rules::data_device)))]
    #[schemars(regex(pattern = rules::DATA_DEVICE_PATTERN))]
    pub device: Option<String>,
}

/// What attach-volume and detach-volume answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VolumeOfVm {
    /// The VM.
    pub vm: Vm,
    /// The volume.
    pub volume: Volume,
}

impl Rpc for AttachVolume {
    const NAME: &'static str = "attach-volume";
    const ACCESS: Access = Access::Operator;
    type Reply = VolumeOfVm;
}

/// Takes a volume from a VM, which must not have it mounted. A running guest is asked to let go of it, again and again
/// until the timeout; one that doesn't keeps it (`timeout`). With `force` the volume then leaves the VM's definition
/// all the same, and is `detaching` until the guest lets go or is off: what the guest has not written is lost then.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct DetachVolume {
    /// The VM, by name or id.
    #[garde(custom(rules::reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub vm: String,
    /// The volume, by name or id.
    #[garde(custom(rules::reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub volume: String,
    /// Take it from the definition of a VM that doesn't let go.
    #[serde(default)]
    #[garde(skip)]
    pub force: bool,
    /// How long the guest has to let go, in seconds (30 when absent).
    #[garde(inner(range(min = 1, max = 3600)))]
    #[schemars(range(min = 1, max = 3600))]
    pub timeout_s: Option<u32>,
}

impl Rpc for DetachVolume {
    const NAME: &'static str = "detach-volume";
    const ACCESS: Access = Access::Operator;
    type Reply = VolumeOfVm;
}
