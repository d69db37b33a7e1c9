//! Storage pools.

use crate::{Access, Rpc, rules};
use garde::Validate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A libvirt storage pool of a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StoragePool {
    /// The pool's UUID.
    pub id: Uuid,
    /// Its name, unique on its node.
    pub name: String,
    /// Its node.
    pub node: String,
    /// libvirt's type: `dir`, `fs`, `netfs`, `logical`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it is active.
    pub active: bool,
    /// Where it is on the node, where that means something.
    pub path: Option<String>,
    /// Size, in bytes (0 when inactive).
    pub capacity_bytes: u64,
    /// Used, in bytes.
    pub allocation_bytes: u64,
    /// Free, in bytes.
    pub available_bytes: u64,
}

/// Lists the storage pools of all nodes, or of one. Nodes that don't answer are named in `unreachable`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct ListStoragePools {
    /// Only pools of this node.
    #[garde(custom(rules::optional_reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub node: Option<String>,
    /// At most so many rows (100 when absent).
    #[garde(inner(range(min = 1, max = 1000)))]
    #[schemars(range(min = 1, max = 1000))]
    pub limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[garde(inner(length(min = 1, max = 8192)))]
    #[schemars(length(min = 1, max = 8192))]
    pub cursor: Option<String>,
}

/// A page of storage pools.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StoragePools {
    /// The pools.
    pub storage_pools: Vec<StoragePool>,
    /// The cursor of the next page; null on the last.
    pub next_cursor: Option<String>,
    /// How many there are on all pages.
    pub total: u64,
    /// Nodes that didn't answer; their pools are missing.
    pub unreachable: Vec<String>,
}

impl Rpc for ListStoragePools {
    const NAME: &'static str = "list-storage-pools";
    const ACCESS: Access = Access::Viewer;
    type Reply = StoragePools;
}

/// Describes a storage pool.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct DescribeStoragePool {
    /// The pool, by name or id.
    #[garde(custom(rules::reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub pool: String,
    /// Its node, where the name fits several.
    #[garde(custom(rules::optional_reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub node: Option<String>,
}

impl Rpc for DescribeStoragePool {
    const NAME: &'static str = "describe-storage-pool";
    const ACCESS: Access = Access::Viewer;
    type Reply = StoragePool;
}
