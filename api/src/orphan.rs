//! What is left over on the nodes: files and domains to which no object of Vmyard's refers any more.

use crate::{Access, Rpc, Time, rules, task::Target};
use garde::Validate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Something on a node that Vmyard has made, or that looks so, and to which no VM, volume, template or snapshot refers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Orphan {
    /// What clean-orphans calls it: a file's path, or a domain's UUID.
    pub id: String,
    /// What it is.
    pub kind: OrphanKind,
    /// Its node.
    pub node: String,
    /// A file's pool.
    pub pool: Option<String>,
    /// Where a file is on the node.
    pub path: Option<String>,
    /// What a file takes in its pool, in bytes.
    pub size_bytes: Option<u64>,
    /// libvirt's name of a domain.
    pub domain: Option<String>,
    /// When it was made; null where Vmyard doesn't know that it has made it.
    pub made_at: Option<Time>,
    /// What has made it; null where Vmyard doesn't know that it has made it.
    pub made_by: Option<MadeBy>,
    /// Why it is taken for Vmyard's.
    pub evidence: String,
    /// What on the node refers to it all the same: domains, images that stand on it.
    pub referrers: Vec<String>,
    /// Whether clean-orphans deletes it. What other orphans refer to goes after those.
    pub cleanable: bool,
    /// Why it doesn't.
    pub why_not: Option<String>,
}

/// What has made something on a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MadeBy {
    /// The task; it may be forgotten.
    pub task: Uuid,
    /// The method that was called.
    pub method: String,
    /// What the task worked on.
    pub target: Target,
}

/// What an orphan is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OrphanKind {
    /// A disk image, of a volume or a snapshot.
    #[default]
    Volume,
    /// A template's image.
    Template,
    /// A cloud-init seed, or the log of a serial line.
    Seed,
    /// The variables of a VM's UEFI.
    Nvram,
    /// The memory of a snapshot.
    Memory,
    /// A domain.
    Domain,
}

impl OrphanKind {
    const ALL: [OrphanKind; 6] = [
        OrphanKind::Volume,
        OrphanKind::Template,
        OrphanKind::Seed,
        OrphanKind::Nvram,
        OrphanKind::Memory,
        OrphanKind::Domain,
    ];

    /// Its name on the wire and in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            OrphanKind::Volume => "volume",
            OrphanKind::Template => "template",
            OrphanKind::Seed => "seed",
            OrphanKind::Nvram => "nvram",
            OrphanKind::Memory => "memory",
            OrphanKind::Domain => "domain",
        }
    }

    /// Reads what [`OrphanKind::as_str`] wrote.
    pub fn parse(text: &str) -> Option<OrphanKind> {
        OrphanKind::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// Lists what is left over on the nodes: files and domains that Vmyard has made, or that look so, and to which no VM, volume,
/// template or snapshot refers. Each says why it is taken for Vmyard's, what refers to it all the same, and whether clean-orphans
/// deletes it: never what Vmyard doesn't know that it has made. Storage pools are looked at anew for it.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct ListOrphans {
    /// Only those on this node.
    #[garde(custom(rules::optional_reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub node: Option<String>,
    /// Only those of this kind.
    #[garde(skip)]
    pub kind: Option<OrphanKind>,
    /// At most so many rows (100 when absent).
    #[garde(inner(range(min = 1, max = 1000)))]
    #[schemars(range(min = 1, max = 1000))]
    pub limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[garde(inner(length(min = 1, max = 8192)))]
    #[schemars(length(min = 1, max = 8192))]
    pub cursor: Option<String>,
}

/// A page of orphans.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Orphans {
    /// The orphans.
    pub orphans: Vec<Orphan>,
    /// The cursor of the next page; null on the last.
    pub next_cursor: Option<String>,
    /// How many there are on all pages.
    pub total: u64,
    /// Nodes that didn't answer; their orphans are missing.
    pub unreachable: Vec<String>,
}

impl Rpc for ListOrphans {
    const NAME: &'static str = "list-orphans";
    const ACCESS: Access = Access::Viewer;
    type Reply = Orphans;
}

/// Deletes orphans for good: those that are named, or all that are `cleanable` (at most 1000 a call). Each is looked at again right
/// before it goes: one that something refers to by then stays, and so does one that Vmyard doesn't know that it has made. A domain
/// must be off. One that can't be deleted keeps no other; a call that was cut off or cancelled leaves the rest as orphans.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct CleanOrphans {
    /// Which: files by path, domains by UUID, as list-orphans tells them. All when absent.
    #[garde(inner(length(min = 1, max = 1000), inner(length(chars, min = 1, max = 4096))))]
    #[schemars(length(min = 1, max = 1000), inner(length(min = 1, max = 4096)))]
    pub orphans: Option<Vec<String>>,
    /// Only those on this node.
    #[garde(custom(rules::optional_reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub node: Option<String>,
    /// Only those of this kind.
    #[garde(skip)]
    pub kind: Option<OrphanKind>,
}

/// What clean-orphans answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CleanedOrphans {
    /// What is deleted.
    pub deleted: Vec<Orphan>,
    /// What was meant and stays.
    pub kept: Vec<KeptOrphan>,
    /// What the deleted files took in their pools, in bytes.
    pub freed_bytes: u64,
    /// How many could not be taken in one call: call again for them.
    pub remaining: u64,
    /// Nodes that didn't answer; what is on them stays.
    pub unreachable: Vec<String>,
}

/// An orphan that was not deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KeptOrphan {
    /// A file's path, or a domain's UUID.
    pub id: String,
    /// Its node; null where nothing of this name was found.
    pub node: Option<String>,
    /// Why it stays.
    pub why: String,
}

impl Rpc for CleanOrphans {
    const NAME: &'static str = "clean-orphans";
    const ACCESS: Access = Access::Administrator;
    type Reply = CleanedOrphans;
}
