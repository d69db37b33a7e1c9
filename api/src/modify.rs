//! Changing a VM that is there.

use crate::{
    Access, Rpc, rules,
    vm::{BootDevice, Vm},
};
use garde::Validate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Changes a VM's name, size, tags, description or boot order; what is absent stays as it is. Name, tags and description are changed
/// at once. The boot order, and virtual CPUs and memory, of a VM that is on wait for its next boot (a stop and a start; a reboot by the guest
/// isn't enough), unless `live` is true. More of them is granted when the node has room for it. When anything fails,
/// everything that was changed is put back, but for what the guest doesn't let go of before it is off.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct ModifyVmSpec {
    /// The VM, by name or id.
    #[garde(custom(rules::reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub vm: String,
    /// The new name: 1–63 of `a-z A-Z 0-9 . _ -`, first a letter or digit; unique over all nodes, without case. Neither the
    /// libvirt domain's name nor the guest's hostname changes with it.
    #[garde(custom(rules::optional_name))]
    #[schemars(regex(pattern = rules::NAME_PATTERN))]
    pub name: Option<String>,
    /// Virtual CPUs. More than `max_vcpus` raises that as well, from the next boot on.
    #[garde(inner(range(min = 1, max = rules::VCPUS_MAX)))]
    #[schemars(range(min = 1, max = 255))]
    pub vcpus: Option<u32>,
    /// Memory, in MiB. More than `max_memory_mib` raises that as well, from the next boot on.
    #[garde(inner(range(min = rules::MEMORY_MIB_MIN, max = rules::MEMORY_MIB_MAX)))]
    #[schemars(range(min = 32, max = 16_777_216))]
    pub memory_mib: Option<u64>,
    /// The tags. They replace all that the VM has: `{}` takes all away.
    #[garde(inner(custom(rules::tags)))]
    #[schemars(transform = rules::tags_schema)]
    pub tags: Option<BTreeMap<String, String>>,
    /// Free text, at most 1,000 characters.
    #[garde(inner(custom(rules::description)))]
    #[schemars(length(max = 1000), regex(pattern = rules::XML_PATTERN))]
    pub description: Option<String>,
    /// What it boots from, in this order; other devices don't boot. It takes effect at the next boot.
    #[garde(inner(custom(rules::boot_order)))]
    #[schemars(length(min = 1, max = 3), extend("uniqueItems" = true))]
    pub boot_order: Option<Vec<BootDevice>>,
    /// Whether the VM is started whenever its host is booted.
    #[garde(skip)]
    pub autostart: Option<bool>,
    /// Plug more virtual CPUs and memory into the VM while it is on, as far as `max_vcpus` and `max_memory_mib`; memory in
    /// steps of 128 MiB. What can't be done so is `unsupported`, and nothing is changed. Less is never done live. For a VM
    /// that is off it makes no difference.
    #[serde(default)]
    #[garde(skip)]
    pub live: bool,
}

/// What modify-vm-spec answers. Of the fields that were asked for, each is in one of the lists.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ModifiedVm {
    /// The VM as it is now.
    pub vm: Vm,
    /// The fields that are in effect now (`name`, `vcpus`, `memory_mib`, `tags`, `description`, `boot_order`, `autostart`). For a VM that is off
    /// these are all.
    pub live: Vec<String>,
    /// The fields that wait for the VM's next boot.
    pub pending: Vec<String>,
}

impl Rpc for ModifyVmSpec {
    const NAME: &'static str = "modify-vm-spec";
    const ACCESS: Access = Access::Operator;
    type Reply = ModifiedVm;
}

/// Sets a VM that is off back to its beginning: its system disk is made anew from its template, or from another one, and
/// everything on the old one is lost. CPUs, memory, name, interfaces with their hardware addresses, data volumes and snapshots stay (a
/// revert leads back), the disk's size too. cloud-init runs as at the first boot, with the seed that the VM was made with.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct ResetVmSystem {
    /// The VM, by name or id.
    #[garde(custom(rules::reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub vm: String,
    /// Another template, by name or id; the VM's own when absent.
    #[garde(custom(rules::optional_reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub template: Option<String>,
    /// Delete its snapshots as well.
    #[serde(default)]
    #[garde(skip)]
    pub delete_snapshots: bool,
}

impl Rpc for ResetVmSystem {
    const NAME: &'static str = "reset-vm-system";
    const ACCESS: Access = Access::Operator;
    type Reply = Vm;
}
