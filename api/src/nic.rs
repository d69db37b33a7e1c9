//! Network interfaces of VMs.

use crate::{Access, Rpc, rules, vm::Vm};
use garde::Validate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// A network interface of a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Nic {
    /// The libvirt network; null when the interface is on a bridge or something else.
    pub network: Option<String>,
    /// The hardware address.
    pub mac: String,
    /// The address that is reserved for it in the network's DHCP.
    pub ip: Option<Ipv4Addr>,
    /// Whether its link is up.
    pub link: Link,
    /// The most that goes to the guest, in kilobytes (1,000 bytes) a second; null when there is no limit.
    pub rx_kb_per_s: Option<u64>,
    /// The most that comes from the guest, in kilobytes a second; null when there is no limit.
    pub tx_kb_per_s: Option<u64>,
    /// Addresses, each with where it was learnt (describe-vm only).
    pub addresses: Vec<NicAddress>,
}

/// Whether a network interface's cable is plugged in, as the guest sees it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Link {
    /// Plugged in.
    #[default]
    Up,
    /// Not plugged in.
    Down,
}

/// An address of a network interface.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct NicAddress {
    /// IPv4 or IPv6, without prefix length.
    pub address: String,
    /// Where it was learnt.
    pub source: AddressSource,
}

/// Where an address was learnt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AddressSource {
    /// A DHCP lease of the libvirt network.
    Lease,
    /// The guest agent.
    Agent,
    /// The node's ARP table.
    Arp,
}

/// Gives a VM another network interface. A VM that is on has it at once. An interface without a fixed address gets one as the
/// network gives it; the guest's own configuration has to know of it, since cloud-init sets up only what was there at the
/// first boot.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct AttachNetwork {
    /// The VM, by name or id.
    #[garde(custom(rules::reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub vm: String,
    /// The network, by name or id.
    #[garde(custom(rules::reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub network: String,
    /// The hardware address; chosen by Vmyard when absent.
    #[garde(custom(rules::optional_mac))]
    #[schemars(regex(pattern = rules::MAC_PATTERN))]
    pub mac: Option<String>,
    /// The IPv4 address to reserve for it in the network's DHCP, which must be one that libvirt serves.
    #[garde(skip)]
    pub ip: Option<Ipv4Addr>,
    /// Whether its link is `up` or `down`.
    #[serde(default)]
    #[garde(skip)]
    pub link: Link,
}

/// What attach-network and modify-nic answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NicOfVm {
    /// The VM as it is now.
    pub vm: Vm,
    /// The interface.
    pub nic: Nic,
}

impl Rpc for AttachNetwork {
    const NAME: &'static str = "attach-network";
    const ACCESS: Access = Access::Operator;
    type Reply = NicOfVm;
}

/// Takes a network interface from a VM. A running guest is asked to let go of it, and has it until it has: one that doesn't
/// within `timeout_s` keeps it (`timeout`). An address that was reserved for it is free then.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct DetachNetwork {
    /// The VM, by name or id.
    #[garde(custom(rules::reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub vm: String,
    /// The interface's hardware address.
    #[garde(custom(rules::mac))]
    #[schemars(regex(pattern = rules::MAC_PATTERN))]
    pub mac: String,
    /// How long the guest has to let go, in seconds (30 when absent, at most 3600).
    #[garde(inner(range(min = 1, max = 3600)))]
    #[schemars(range(min = 1, max = 3600))]
    pub timeout_s: Option<u32>,
}

impl Rpc for DetachNetwork {
    const NAME: &'static str = "detach-network";
    const ACCESS: Access = Access::Operator;
    type Reply = Vm;
}

/// Changes a network interface of a VM, at once when the VM is on, and for its next boots: takes its link up or down, as by
/// plugging the cable out, or limits its rates. What is absent stays as it is.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct ModifyNic {
    /// The VM, by name or id.
    #[garde(custom(rules::reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub vm: String,
    /// The interface's hardware address.
    #[garde(custom(rules::mac))]
    #[schemars(regex(pattern = rules::MAC_PATTERN))]
    pub mac: String,
    /// Its link: `up` or `down`.
    #[garde(skip)]
    pub link: Option<Link>,
    /// The most that goes to the guest, in kilobytes (1,000 bytes) a second; 0 for no limit.
    #[garde(inner(range(max = rules::NET_KB_PER_S_MAX)))]
    #[schemars(range(max = 4_000_000))]
    pub rx_kb_per_s: Option<u64>,
    /// The most that comes from the guest, in kilobytes (1,000 bytes) a second; 0 for no limit.
    #[garde(inner(range(max = rules::NET_KB_PER_S_MAX)))]
    #[schemars(range(max = 4_000_000))]
    pub tx_kb_per_s: Option<u64>,
}

impl Rpc for ModifyNic {
    const NAME: &'static str = "modify-nic";
    const ACCESS: Access = Access::Operator;
    type Reply = NicOfVm;
}
