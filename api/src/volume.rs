//! Storage volumes.

use crate::{Access, Rpc, rules};
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
    /// What it takes in the pool, in bytes.
    pub allocation_bytes: u64,
    /// Whether a VM has it.
    pub state: VolumeState,
    /// The VM that has it, by name.
    pub vm: Option<String>,
    /// The device it is there: `vda`.
    pub device: Option<String>,
    /// The path of the image that it stands on.
    pub backing: Option<String>,
}

/// Whether a VM has the volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum VolumeState {
    /// No VM has it.
    Available,
    /// A VM has it.
    Attached,
}

/// Lists volumes, those that Vmyard didn't make included; templates and seeds are not listed.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct ListVolumes {
    /// Only volumes of this pool.
    #[garde(custom(rules::optional_reference))]
    pub pool: Option<String>,
    /// Only volumes of this node.
    #[garde(custom(rules::optional_reference))]
    pub node: Option<String>,
    /// Only volumes in this state.
    #[garde(skip)]
    pub state: Option<VolumeState>,
    /// At most so many rows (100 when absent).
    #[garde(inner(range(min = 1, max = 1000)))]
    pub limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[garde(inner(length(min = 1, max = 8192)))]
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

/// Describes a volume.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct DescribeVolume {
    /// The volume, by name or id.
    #[garde(custom(rules::reference))]
    pub volume: String,
    /// Its pool, where the name fits several.
    #[garde(custom(rules::optional_reference))]
    pub pool: Option<String>,
    /// Its node, where the name fits several.
    #[garde(custom(rules::optional_reference))]
    pub node: Option<String>,
}

impl Rpc for DescribeVolume {
    const NAME: &'static str = "describe-volume";
    const ACCESS: Access = Access::Viewer;
    type Reply = Volume;
}
