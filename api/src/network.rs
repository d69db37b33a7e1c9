//! Virtual networks.

use crate::{Access, Rpc, rules};
use garde::Validate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A libvirt network of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Network {
    /// The network's UUID.
    pub id: Uuid,
    /// Its name, unique on its node.
    pub name: String,
    /// Its node.
    pub node: String,
    /// Whether it is active.
    pub active: bool,
    /// Its bridge on the node.
    pub bridge: Option<String>,
    /// How it reaches the outside: `nat`, `route`, `bridge`, …; null when isolated.
    pub forward: Option<String>,
    /// Its own addresses with prefix length: `192.168.122.1/24`.
    pub addresses: Vec<String>,
    /// Whether libvirt serves DHCP on it.
    pub dhcp: bool,
}

/// Lists the networks of all nodes, or of one. Nodes that don't answer are named in `unreachable`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct ListNetworks {
    /// Only networks of this node.
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

/// A page of networks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Networks {
    /// The networks.
    pub networks: Vec<Network>,
    /// The cursor of the next page; null on the last.
    pub next_cursor: Option<String>,
    /// How many there are on all pages.
    pub total: u64,
    /// Nodes that didn't answer; their networks are missing.
    pub unreachable: Vec<String>,
}

impl Rpc for ListNetworks {
    const NAME: &'static str = "list-networks";
    const ACCESS: Access = Access::Viewer;
    type Reply = Networks;
}

/// Describes a network.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct DescribeNetwork {
    /// The network, by name or id.
    #[garde(custom(rules::reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub network: String,
    /// Its node, where the name fits several.
    #[garde(custom(rules::optional_reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub node: Option<String>,
}

impl Rpc for DescribeNetwork {
    const NAME: &'static str = "describe-network";
    const ACCESS: Access = Access::Viewer;
    type Reply = Network;
}
