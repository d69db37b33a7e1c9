//! ISO images in the CD-ROM drives of VMs.

use crate::{Access, Rpc, rules, vm::Vm};
use garde::Validate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Puts an ISO image into a VM's CD-ROM drive, also while the VM runs; one that is in it is taken out. Several VMs may have the
/// same image. It is never written to, and stays where it is.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct AttachIso {
    /// The VM, by name or id.
    #[garde(custom(rules::reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub vm: String,
    /// The ISO image's file in a pool of the VM's node: `debian-13.iso`.
    #[garde(custom(rules::reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub iso: String,
    /// The pool that has it, by name or id; the node's `default` when absent.
    #[garde(custom(rules::optional_reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub pool: Option<String>,
    /// Take out one that the guest holds on to.
    #[serde(default)]
    #[garde(skip)]
    pub force: bool,
}

impl Rpc for AttachIso {
    const NAME: &'static str = "attach-iso";
    const ACCESS: Access = Access::Operator;
    type Reply = Vm;
}

/// Takes the ISO image out of a VM's CD-ROM drive. A guest that has it mounted may hold on to it (`timeout` or
/// `unsupported`), and keeps it then, unless `force` is true.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct EjectIso {
    /// The VM, by name or id.
    #[garde(custom(rules::reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub vm: String,
    /// Take it out though the guest holds on to it.
    #[serde(default)]
    #[garde(skip)]
    pub force: bool,
}

impl Rpc for EjectIso {
    const NAME: &'static str = "eject-iso";
    const ACCESS: Access = Access::Operator;
    type Reply = Vm;
}
