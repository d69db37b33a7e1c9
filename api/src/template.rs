//! Templates: the images that VMs are made from.

use crate::{Access, Rpc, Time, rules};
use garde::Validate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A template.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Template {
    /// The template's id.
    pub id: Uuid,
    /// Its name, unique without case.
    pub name: String,
    /// Whether it can be used.
    pub state: TemplateState,
    /// Which operating system is on it, in the user's words: `debian12`.
    pub os: Option<String>,
    /// Whether cloud-init (or something that reads its seed) is on it.
    pub cloud_init: bool,
    /// Whether qemu-guest-agent is on it.
    pub guest_agent: bool,
    /// The user that cloud-init sets up when create-vm doesn't say.
    pub default_user: Option<String>,
    /// `qcow2` or `raw`.
    pub format: String,
    /// Virtual size, in GiB.
    pub size_gib: f64,
    /// Virtual size, in bytes.
    pub size_bytes: u64,
    /// Where it is.
    pub copies: Vec<TemplateCopy>,
    /// How many volumes stand on it: disks of VMs, and what create-volume has made of it.
    pub vms: u64,
    /// When it was registered.
    pub created_at: Time,
}

/// Whether a template can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TemplateState {
    /// It is being copied into its pool.
    Creating,
    /// VMs can be made from it.
    Ready,
    /// It is being deleted.
    Deleting,
}

/// A template's image on a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TemplateCopy {
    /// The node.
    pub node: String,
    /// The pool.
    pub pool: String,
    /// Where it is on the node.
    pub path: String,
}

/// Registers a template from an image file on a node, from a volume, or from a disk of a snapshot: name one of them. The image
/// is copied into a pool. Of a file the format is read from its header; one with a backing file, an external data file or features
/// that aren't known is refused. A volume must not be in use: no VM has it, or that VM is off. A template stands on nothing.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct RegisterTemplate {
    /// The new template's name: 1–63 of `a-z A-Z 0-9 . _ -`, first a letter or digit; unique without case.
    #[garde(custom(rules::name))]
    #[schemars(regex(pattern = rules::NAME_PATTERN))]
    pub name: String,
    /// The absolute path of the image on the node (qcow2 or raw).
    #[garde(inner(custom(rules::absolute_path)))]
    #[schemars(length(max = 4096), regex(pattern = rules::PATH_PATTERN))]
    pub file: Option<String>,
    /// The volume, by name or id.
    #[garde(custom(rules::optional_reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub volume: Option<String>,
    /// The snapshot, by name (with `vm`) or id.
    #[garde(custom(rules::optional_reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub snapshot: Option<String>,
    /// The VM that the snapshot was taken of, by name or id; not needed where the snapshot is named by its id.
    #[garde(custom(rules::optional_reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub vm: Option<String>,
    /// The node that has the file; needed only where there are several.
    #[garde(custom(rules::optional_reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub node: Option<String>,
    /// The pool to copy it into, by name or id; the node's `default` when absent.
    #[garde(custom(rules::optional_reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub pool: Option<String>,
    /// Which operating system is on it: `debian12`.
    #[garde(custom(rules::optional_name))]
    #[schemars(regex(pattern = rules::NAME_PATTERN))]
    pub os: Option<String>,
    /// Whether cloud-init (or something that reads its seed) is on it.
    #[serde(default = "yes")]
    #[garde(skip)]
    pub cloud_init: bool,
    /// Whether qemu-guest-agent is on it.
    #[serde(default)]
    #[garde(skip)]
    pub guest_agent: bool,
    /// The user that cloud-init sets up when create-vm doesn't say.
    #[garde(custom(rules::optional_user))]
    #[schemars(regex(pattern = rules::USER_PATTERN))]
    pub default_user: Option<String>,
}

fn yes() -> bool {
    true
}

impl Rpc for RegisterTemplate {
    const NAME: &'static str = "register-template";
    const ACCESS: Access = Access::Operator;
    type Reply = Template;
}

/// Lists the templates.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct ListTemplates {
    /// At most so many rows (100 when absent).
    #[garde(inner(range(min = 1, max = 1000)))]
    #[schemars(range(min = 1, max = 1000))]
    pub limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[garde(inner(length(min = 1, max = 8192)))]
    #[schemars(length(min = 1, max = 8192))]
    pub cursor: Option<String>,
}

/// A page of templates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Templates {
    /// The templates.
    pub templates: Vec<Template>,
    /// The cursor of the next page; null on the last.
    pub next_cursor: Option<String>,
    /// How many there are on all pages.
    pub total: u64,
}

impl Rpc for ListTemplates {
    const NAME: &'static str = "list-templates";
    const ACCESS: Access = Access::Viewer;
    type Reply = Templates;
}

/// Describes a template.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct DescribeTemplate {
    /// The template, by name or id.
    #[garde(custom(rules::reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub template: String,
}

impl Rpc for DescribeTemplate {
    const NAME: &'static str = "describe-template";
    const ACCESS: Access = Access::Viewer;
    type Reply = Template;
}

/// Deletes a template that no disk stands on.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct DeleteTemplate {
    /// The template, by name or id.
    #[garde(custom(rules::reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub template: String,
}

/// What delete-template answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeletedTemplate {
    /// The id of the template that is gone.
    pub id: Uuid,
    /// Its name, which is free again.
    pub name: String,
}

impl Rpc for DeleteTemplate {
    const NAME: &'static str = "delete-template";
    const ACCESS: Access = Access::Operator;
    type Reply = DeletedTemplate;
}
