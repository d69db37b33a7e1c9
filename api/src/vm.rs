//! Virtual machines.

use crate::{
    Access, CloudInit, Rpc, Time, cloud_init::GivenCloudInit, credential::CredentialCheck, disk::Disk,
    guest::GuestInfo, network_config, nic::Nic, rules,
};
use garde::Validate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};
use uuid::Uuid;

/// A virtual machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Vm {
    /// The libvirt domain's UUID.
    pub id: Uuid,
    /// The name, unique over all nodes for VMs that Vmyard manages.
    pub name: String,
    /// Power state.
    pub state: VmState,
    /// The node it lives on.
    pub node: String,
    /// The libvirt domain's name on that node, which never changes.
    pub domain: String,
    /// The template it was made from.
    pub template: Option<String>,
    /// The pool of its system disk.
    pub pool: Option<String>,
    /// Virtual CPUs now.
    pub vcpus: u32,
    /// Virtual CPUs that can be reached by hot-plug.
    pub max_vcpus: u32,
    /// Memory, in MiB.
    pub memory_mib: u64,
    /// Memory that can be reached by hot-plug, in MiB.
    pub max_memory_mib: u64,
    /// What its next boot will change, whoever asked for it; null when nothing waits.
    pub pending: Option<Pending>,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// Free text.
    pub description: String,
    /// What boots it.
    pub firmware: Firmware,
    /// Disks, the system disk first. The seed CD-ROM is not listed.
    pub disks: Vec<Disk>,
    /// The path of the ISO image in its CD-ROM drive; null when the drive is empty.
    pub iso: Option<String>,
    /// What it boots from, in this order.
    pub boot_order: Vec<BootDevice>,
    /// Whether it is started whenever its host is booted.
    pub autostart: bool,
    /// Network interfaces, in the order of the definition.
    pub networks: Vec<Nic>,
    /// Use of CPU and memory (describe-vm only), when there were two readings.
    pub usage: Option<Usage>,
    /// The user that cloud-init sets up, when one was given.
    pub user: Option<String>,
    /// What cloud-init was given when Vmyard made it; null where there is no seed.
    pub cloud_init: Option<GivenCloudInit>,
    /// Resets of passwords and keys that wait for its next boot, and what came of them (describe-vm only).
    pub credential_checks: Vec<CredentialCheck>,
    /// What was changed outside of Vmyard within the last days, the newest first; at most 10 changes (describe-vm only).
    pub changed_outside: Vec<OutsideChange>,
    /// What the guest's agent tells (describe-vm with `guest_info` only).
    pub guest: Option<GuestInfo>,
    /// Why it tells nothing, where it was asked.
    pub guest_unavailable: Option<String>,
    /// Whether Vmyard made it (or adopted it); others can be listed, started and stopped.
    pub managed: bool,
    /// Whether the row may be out of date: its node doesn't answer.
    pub stale: bool,
    /// When the node last told this.
    pub observed_at: Option<Time>,
    /// When Vmyard made it.
    pub created_at: Option<Time>,
}

/// A change of a VM that wasn't made by Vmyard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OutsideChange {
    /// When it was noticed.
    pub at: Time,
    /// What was changed, in words: `web: memory 2048 -> 4096 MiB, changed outside Vmyard`.
    pub what: String,
    /// The event that told it.
    pub event: u64,
}

/// What the definition of a VM that is on says, and the VM isn't yet: it comes with the next boot (a stop and a start).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Pending {
    /// Virtual CPUs, where they will be another number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vcpus: Option<u32>,
    /// Memory, where it will be another, in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u64>,
    /// The boot order, where it will be another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot_order: Option<Vec<BootDevice>>,
}

/// A kind of device that a VM can boot from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BootDevice {
    /// Its system disk.
    Disk,
    /// The ISO image in its CD-ROM drive.
    Cdrom,
    /// Its first network interface, by PXE.
    Network,
}

/// A VM's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum VmState {
    /// A create-vm is at work.
    Creating,
    /// It runs.
    Running,
    /// It is paused: its memory is kept, its CPUs don't run.
    Paused,
    /// It is off.
    Shutoff,
    /// A delete-vm is at work.
    Deleting,
    /// Its node has never told.
    Unknown,
}

impl VmState {
    /// The state as it is on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            VmState::Creating => "creating",
            VmState::Running => "running",
            VmState::Paused => "paused",
            VmState::Shutoff => "shutoff",
            VmState::Deleting => "deleting",
            VmState::Unknown => "unknown",
        }
    }
}

/// What boots a VM.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Firmware {
    /// BIOS (SeaBIOS).
    #[default]
    Bios,
    /// UEFI (OVMF), without Secure Boot. Its variables are a volume of the VM's pool, which goes with the VM.
    Uefi,
}

/// What a VM uses, by its last sample: averages over the interval before it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Usage {
    /// Share of the VM's virtual CPUs in use, 0 to 100.
    pub cpu_percent: Option<f64>,
    /// Share of the VM's memory in use, 0 to 100.
    pub memory_percent: Option<f64>,
    /// Where that was learnt: `balloon` (the guest's balloon driver), or `rss` (what QEMU's process holds, where the guest tells
    /// nothing).
    pub memory_source: Option<String>,
    /// Memory in use, in MiB, by the same source.
    pub memory_used_mib: Option<f64>,
    /// Bytes read from all disks, a second.
    pub disk_read_bytes_per_s: Option<f64>,
    /// Bytes written to all disks, a second.
    pub disk_write_bytes_per_s: Option<f64>,
    /// Bytes received by the guest, a second.
    pub net_rx_bytes_per_s: Option<f64>,
    /// Bytes sent by the guest, a second.
    pub net_tx_bytes_per_s: Option<f64>,
    /// When it was read.
    pub sampled_at: Time,
}

/// Creates a VM from a template. Its disk is a copy-on-write overlay over the template. Without a template it gets a blank
/// disk (`disk_gib`) and an ISO image to install from (`iso`). The VM ends `shutoff`, unless `start` is true. When anything
/// fails, everything that was made is taken back.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct CreateVm {
    /// The new VM's name: 1–63 of `a-z A-Z 0-9 . _ -`, first a letter or digit; unique over all nodes, without case.
    #[garde(custom(rules::name))]
    #[schemars(regex(pattern = rules::NAME_PATTERN))]
    pub name: String,
    /// The template, by name or id.
    #[garde(custom(rules::optional_reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub template: Option<String>,
    /// An ISO image for its CD-ROM drive: its file in a pool of the node, `debian-13.iso`.
    #[garde(custom(rules::optional_reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub iso: Option<String>,
    /// The pool that has the ISO image, by name or id; the node's `default` when absent.
    #[garde(custom(rules::optional_reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub iso_pool: Option<String>,
    /// What it boots from, in this order; the disk when absent, and then the ISO image if there is one.
    #[garde(inner(custom(rules::boot_order)))]
    #[schemars(length(min = 1, max = 3), extend("uniqueItems" = true))]
    pub boot_order: Option<Vec<BootDevice>>,
    /// Whether to start it whenever its host is booted.
    #[serde(default)]
    #[garde(skip)]
    pub autostart: bool,
    /// Virtual CPUs.
    #[garde(range(min = 1, max = rules::VCPUS_MAX))]
    #[schemars(range(min = 1, max = 255))]
    pub vcpus: u32,
    /// Memory, in MiB.
    #[garde(range(min = rules::MEMORY_MIB_MIN, max = rules::MEMORY_MIB_MAX))]
    #[schemars(range(min = 32, max = 16_777_216))]
    pub memory_mib: u64,
    /// The system disk's size, in GiB; the template's size when absent, never smaller. Needed without a template.
    #[garde(inner(range(min = 1, max = rules::DISK_GIB_MAX)))]
    #[schemars(range(min = 1, max = 65_536))]
    pub disk_gib: Option<u64>,
    /// The pool of the system disk, by name or id; the node's `default` when absent.
    #[garde(custom(rules::optional_reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub pool: Option<String>,
    /// The networks, an interface each; the node's `default` when absent, none when empty.
    #[garde(dive, custom(at_most_eight))]
    #[schemars(length(max = 8))]
    pub networks: Option<Vec<NicSpec>>,
    /// The node; chosen by Vmyard when absent.
    #[garde(custom(rules::optional_reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub node: Option<String>,
    /// Tags.
    #[serde(default)]
    #[garde(custom(rules::tags))]
    #[schemars(transform = rules::tags_schema)]
    pub tags: BTreeMap<String, String>,
    /// Free text, at most 1,000 characters.
    #[serde(default)]
    #[garde(custom(rules::description))]
    #[schemars(length(max = 1000), regex(pattern = rules::XML_PATTERN))]
    pub description: String,
    /// What cloud-init is to set up at the first boot.
    #[garde(dive)]
    pub cloud_init: Option<CloudInit>,
    /// Virtual CPUs that hot-plug may reach; `vcpus` when absent.
    #[garde(inner(range(min = 1, max = rules::VCPUS_MAX)))]
    #[schemars(range(min = 1, max = 255))]
    pub max_vcpus: Option<u32>,
    /// Memory that hot-plug may reach, in MiB; `memory_mib` when absent.
    #[garde(inner(range(min = rules::MEMORY_MIB_MIN, max = rules::MEMORY_MIB_MAX)))]
    #[schemars(range(min = 32, max = 16_777_216))]
    pub max_memory_mib: Option<u64>,
    /// What boots it; `bios` when absent.
    #[serde(default)]
    #[garde(skip)]
    pub firmware: Firmware,
    /// Whether to start it at once.
    #[serde(default)]
    #[garde(skip)]
    pub start: bool,
}

/// A network interface to make.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct NicSpec {
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
    /// Fixed addresses that cloud-init sets up in the guest, with their prefix lengths: `10.0.0.7/24`, `fd00::7/64`. For networks where
    /// nothing gives addresses; needs a template with cloud-init. Interfaces without them get theirs by DHCP.
    #[serde(default)]
    #[garde(length(max = 16), inner(custom(check_address)))]
    #[schemars(inner(regex(pattern = ADDRESS_PATTERN)))]
    pub addresses: Vec<String>,
    /// The router to all other networks, in a network of `addresses`.
    #[garde(skip)]
    pub gateway: Option<IpAddr>,
    /// The name servers to ask, with `addresses`.
    #[serde(default)]
    #[garde(length(max = 8))]
    pub nameservers: Vec<IpAddr>,
}

/// What [`check_address`] asks for, as far as a pattern can say it.
const ADDRESS_PATTERN: &str = "^[0-9A-Fa-f.:]{2,45}/[0-9]{1,3}$";

fn check_address(value: &str, _: &()) -> garde::Result {
    network_config::interface_address(value).map(|_| ()).map_err(garde::Error::new)
}

pub(crate) fn at_most_eight(value: &Option<Vec<NicSpec>>, _: &()) -> garde::Result {
    match value.as_ref().map_or(0, Vec::len) {
        0..=8 => Ok(()),
        n => Err(garde::Error::new(format!("must have at most 8 interfaces, has {n}"))),
    }
}

impl Rpc for CreateVm {
    const NAME: &'static str = "create-vm";
    const ACCESS: Access = Access::Operator;
    type Reply = Vm;
}

/// Starts a VM that is off. A paused VM is resumed by resume-vm. When the start fails, the VM stays `shutoff` and the
/// error says why.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct StartVm {
    /// The VM, by name or id.
    #[garde(custom(rules::reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub vm: String,
}

impl Rpc for StartVm {
    const NAME: &'static str = "start-vm";
    const ACCESS: Access = Access::Operator;
    type Reply = Vm;
}

/// Stops a running VM: asks it to power off by ACPI and waits; forces it off when `timeout_s` is over, or at once with
/// `force`. Returns when the VM is off.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct StopVm {
    /// The VM, by name or id.
    #[garde(custom(rules::reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub vm: String,
    /// Cut the power at once. The guest may lose what it hasn't written.
    #[serde(default)]
    #[garde(skip)]
    pub force: bool,
    /// How long the guest has to power off, in seconds (90 when absent, at most 3600); then it is forced off.
    #[garde(inner(range(min = 1, max = 3600)))]
    #[schemars(range(min = 1, max = 3600))]
    pub timeout_s: Option<u32>,
}

/// What stop-vm answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StoppedVm {
    /// The VM, now off.
    pub vm: Vm,
    /// Whether the power was cut; false when the guest powered itself off.
    pub forced: bool,
}

impl Rpc for StopVm {
    const NAME: &'static str = "stop-vm";
    const ACCESS: Access = Access::Operator;
    type Reply = StoppedVm;
}

/// Reboots a running VM: asks the guest by ACPI and waits until it has gone down and begins to boot again; resets it hard
/// when `timeout_s` is over, or at once with `force`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct RebootVm {
    /// The VM, by name or id.
    #[garde(custom(rules::reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub vm: String,
    /// Reset it at once. The guest may lose what it hasn't written.
    #[serde(default)]
    #[garde(skip)]
    pub force: bool,
    /// How long the guest has to go down, in seconds (90 when absent, at most 3600); then it is reset.
    #[garde(inner(range(min = 1, max = 3600)))]
    #[schemars(range(min = 1, max = 3600))]
    pub timeout_s: Option<u32>,
}

/// What reboot-vm answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RebootedVm {
    /// The VM, which boots.
    pub vm: Vm,
    /// Whether it was reset; false when the guest went down by itself.
    pub forced: bool,
}

impl Rpc for RebootVm {
    const NAME: &'static str = "reboot-vm";
    const ACCESS: Access = Access::Operator;
    type Reply = RebootedVm;
}

/// Pauses a running VM: its memory is kept, its CPUs don't run, until resume-vm.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct PauseVm {
    /// The VM, by name or id.
    #[garde(custom(rules::reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub vm: String,
}

impl Rpc for PauseVm {
    const NAME: &'static str = "pause-vm";
    const ACCESS: Access = Access::Operator;
    type Reply = Vm;
}

/// Lets a paused VM run on.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct ResumeVm {
    /// The VM, by name or id.
    #[garde(custom(rules::reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub vm: String,
}

impl Rpc for ResumeVm {
    const NAME: &'static str = "resume-vm";
    const ACCESS: Access = Access::Operator;
    type Reply = Vm;
}

/// Deletes a VM that is off, with its system disk and its seed. Data volumes are detached and
/// kept, and so are snapshots, unless they are to go too.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct DeleteVm {
    /// The VM, by name or id.
    #[garde(custom(rules::reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub vm: String,
    /// Delete its snapshots as well. Kept ones are found by the VM's id.
    #[serde(default)]
    #[garde(skip)]
    pub delete_snapshots: bool,
    /// Delete its data volumes as well.
    #[serde(default)]
    #[garde(skip)]
    pub delete_volumes: bool,
}

/// What delete-vm answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DeletedVm {
    /// The id of the VM that is gone.
    pub id: Uuid,
    /// Its name, which is free again.
    pub name: String,
    /// Paths of the data disks that were kept.
    pub kept: Vec<String>,
}

impl Rpc for DeleteVm {
    const NAME: &'static str = "delete-vm";
    const ACCESS: Access = Access::Operator;
    type Reply = DeletedVm;
}

/// Lists VMs, those that Vmyard didn't make included. Answered from an index that libvirt's events keep fresh, so a
/// silent node delays nothing: its rows are `stale`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct ListVms {
    /// Only VMs in this state.
    #[garde(skip)]
    pub state: Option<VmState>,
    /// Only VMs whose name contains this text, without case.
    #[garde(inner(length(chars, min = 1, max = 255)))]
    #[schemars(length(min = 1, max = 255))]
    pub name: Option<String>,
    /// Only VMs that have all these tags with these values.
    #[garde(skip)]
    pub tags: Option<BTreeMap<String, String>>,
    /// Only VMs of this node.
    #[garde(custom(rules::optional_reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub node: Option<String>,
    /// Only VMs that Vmyard manages (true), or only the others (false).
    #[garde(skip)]
    pub managed: Option<bool>,
    /// Also what each uses now (`usage`).
    #[serde(default)]
    #[garde(skip)]
    pub usage: bool,
    /// The order: `name`, `state`, `node`, `created_at` or `tag:<key>`, with `-` in front for descending. `name` when absent.
    #[garde(inner(length(chars, min = 1, max = 80)))]
    #[schemars(length(max = 80), regex(pattern = "^-?(name|state|node|created_at|tag:.+)$"))]
    pub sort: Option<String>,
    /// At most so many rows (100 when absent).
    #[garde(inner(range(min = 1, max = 1000)))]
    #[schemars(range(min = 1, max = 1000))]
    pub limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[garde(inner(length(min = 1, max = 8192)))]
    #[schemars(length(min = 1, max = 8192))]
    pub cursor: Option<String>,
}

/// A page of VMs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Vms {
    /// The VMs.
    pub vms: Vec<Vm>,
    /// The cursor of the next page; null on the last.
    pub next_cursor: Option<String>,
    /// How many VMs fit the filter, on all pages.
    pub total: u64,
}

impl Rpc for ListVms {
    const NAME: &'static str = "list-vms";
    const ACCESS: Access = Access::Viewer;
    type Reply = Vms;
}

/// Describes a VM: configuration, state, disks, interfaces with their addresses, use of CPU and memory.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct DescribeVm {
    /// The VM, by name or id.
    #[garde(custom(rules::reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub vm: String,
    /// Whether to ask the guest's agent what goes on in the guest (`guest`); it has 8 s to tell.
    #[serde(default)]
    #[garde(skip)]
    pub guest_info: bool,
}

impl Rpc for DescribeVm {
    const NAME: &'static str = "describe-vm";
    const ACCESS: Access = Access::Viewer;
    type Reply = Vm;
}

/// Returns a VM's libvirt XML: of the running domain, or of the definition with `inactive`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct DescribeVmXml {
    /// The VM, by name or id.
    #[garde(custom(rules::reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub vm: String,
    /// The definition that the next boot takes, not that of the running domain.
    #[serde(default)]
    #[garde(skip)]
    pub inactive: bool,
    /// With the secrets that libvirt keeps (console passwords). Administrators only.
    #[serde(default)]
    #[garde(skip)]
    pub secrets: bool,
}

/// What describe-vm-xml answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VmXml {
    /// The VM's id.
    pub id: Uuid,
    /// The VM's name.
    pub name: String,
    /// The domain XML (<https://libvirt.org/formatdomain.html>).
    pub xml: String,
}

impl Rpc for DescribeVmXml {
    const NAME: &'static str = "describe-vm-xml";
    const ACCESS: Access = Access::Viewer;
    type Reply = VmXml;
}
