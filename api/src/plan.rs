//! What a mutating call would do: its answer when it is asked with `"plan": true`.

use crate::task::Target;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The answer to a mutating call with `"plan": true`, which has changed nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Planned {
    /// What the same call without `plan` would do now.
    pub plan: Plan,
}

/// What a mutating call would do. Every check of the call has passed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Plan {
    /// The method.
    pub method: String,
    /// What it would work on. The id of something that is to be made is another one each time.
    pub target: Target,
    /// The node it would work on.
    pub node: Option<String>,
    /// The steps of its task, in their order.
    pub steps: Vec<PlannedStep>,
    /// How the domain's XML would change, as a unified diff; null where it doesn't. libvirt adds its defaults to what is
    /// new. The secrets are left out.
    pub xml_diff: Option<String>,
    /// The room that it needs on its node, and what there is.
    pub admission: Option<PlannedAdmission>,
    /// Bytes that it would write into storage pools (a new overlay is all but empty).
    pub allocates_bytes: u64,
    /// Bytes that what it makes may grow to, as the guest writes.
    pub grows_to_bytes: u64,
    /// The orphans that it would delete, by path or UUID, in their order.
    pub deletes: Vec<String>,
    /// The fields of a VM that would be in effect at once.
    pub live: Vec<String>,
    /// The fields of a VM that would wait for its next boot.
    pub pending: Vec<String>,
}

/// A step of the task that a call would be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlannedStep {
    /// Its name: `make-system-disk`.
    pub name: String,
    /// When it would be done only under a condition: which.
    pub only_if: Option<String>,
}

/// The room that a call needs on a node, and what there is without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlannedAdmission {
    /// Virtual CPUs that it needs.
    pub vcpus: u32,
    /// Memory that it needs, in MiB.
    pub memory_mib: u64,
    /// Virtual CPUs that are free.
    pub free_vcpus: u32,
    /// Memory that is free, in MiB.
    pub free_memory_mib: u64,
}
