//! Taking a VM of others over, and giving one back.

use crate::{Access, Rpc, rules, vm::Vm};
use garde::Validate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use uuid::Uuid;

/// Takes over a VM that another tool made, running or off: from then on Vmyard manages it like its own. An element is added to the
/// metadata of its definition; every other byte of that stays. Its disks become volumes: the first one its system disk,
/// which `delete-vm` deletes; the others data volumes. Each must be a file in an active storage pool. Of a VM that a Vmyard had before,
/// whose element is in the metadata, name, tags, description and user are taken from there, as far as the call doesn't say them.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct AdoptVm {
    /// The VM, by name or id.
    #[garde(custom(rules::reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub vm: String,
    /// Its name from then on; when absent what a Vmyard called it before, or the domain's. The domain keeps its own.
    #[garde(custom(rules::optional_name))]
    #[schemars(regex(pattern = rules::NAME_PATTERN))]
    pub name: Option<String>,
    /// Tags.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[garde(custom(rules::tags))]
    #[schemars(transform = rules::tags_schema)]
    pub tags: BTreeMap<String, String>,
    /// Free text, at most 1,000 characters.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[garde(custom(rules::description))]
    #[schemars(length(max = 1000), regex(pattern = rules::XML_PATTERN))]
    pub description: String,
}

impl Rpc for AdoptVm {
    const NAME: &'static str = "adopt-vm";
    const ACCESS: Access = Access::Administrator;
    type Reply = Vm;
}

/// Gives a VM back, running or off: Vmyard forgets it and its volumes, and takes its element out of the definition's metadata. The
/// domain and its files stay as they are, and are listed as those of others; addresses that were reserved for it stay reserved. It must have no
/// snapshots.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct ReleaseVm {
    /// The VM, by name or id.
    #[garde(custom(rules::reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub vm: String,
}

/// What release-vm answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ReleasedVm {
    /// The VM's id, which is its domain's UUID.
    pub id: Uuid,
    /// The name that it had, which is free again.
    pub name: String,
    /// libvirt's name for its domain.
    pub domain: String,
    /// Its node.
    pub node: String,
    /// The paths of its disks, which are nobody's now.
    pub disks: Vec<String>,
}

impl Rpc for ReleaseVm {
    const NAME: &'static str = "release-vm";
    const ACCESS: Access = Access::Administrator;
    type Reply = ReleasedVm;
}
