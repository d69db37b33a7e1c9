//! What is wrong with a VM.

use crate::{Access, Rpc, Time, guest::CloudInitOutcome, nic::AddressSource, rules, task::Task, vm::VmState};
use garde::Validate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Says in a sentence how it stands with a VM, or what is wrong with it and what helps, with the evidence: its state and why it is in
/// it, QEMU's log, its serial line, its screen, its guest agent and cloud-init, its addresses, its disks and their pools, its node, and its
/// last tasks. Nothing is changed. What can't be had within seconds is left out, and `not_known` says why.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct DiagnoseVm {
    /// The VM, by name or id.
    #[garde(custom(rules::reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub vm: String,
    /// Take a picture of its screen, too.
    #[serde(default)]
    #[garde(skip)]
    pub screenshot: bool,
}

/// How it stands with a VM.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Diagnosis {
    /// The VM.
    pub vm: Uuid,
    /// Its name.
    pub name: String,
    /// When it was looked at.
    pub at: Time,
    /// What matters most.
    pub verdict: Finding,
    /// What else was found, the weightier first.
    pub also: Vec<Finding>,
    /// Its state.
    pub state: VmState,
    /// Why it is in it, as libvirt says: `booted`, `user`, `io error`, `crashed`, …
    pub reason: Option<String>,
    /// Since when it has been on, as far as events tell.
    pub on_since: Option<Time>,
    /// Its node.
    pub node: String,
    /// Whether that is connected.
    pub node_up: bool,
    /// What has happened since it was started, the oldest first.
    pub phases: Vec<Phase>,
    /// The last lines of QEMU's log.
    pub qemu_log: Vec<String>,
    /// The last lines of its serial line.
    pub serial: Vec<String>,
    /// Whether its guest agent is connected.
    pub agent_connected: bool,
    /// How far cloud-init is, as the agent tells.
    pub cloud_init: Option<CloudInitOutcome>,
    /// Its addresses, and where each was learnt.
    pub addresses: Vec<KnownAddress>,
    /// Its disks.
    pub disks: Vec<DiskEvidence>,
    /// The pools of its disks.
    pub pools: Vec<PoolEvidence>,
    /// Its last tasks, the newest first.
    pub tasks: Vec<Task>,
    /// Its screen, a PNG in Base64, where that was asked for.
    pub screenshot_base64: Option<String>,
    /// What could not be looked at, and why.
    pub not_known: Vec<String>,
}

/// Something that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// What it is.
    pub code: FindingCode,
    /// In a sentence.
    pub sentence: String,
    /// What helps.
    pub hint: Option<String>,
}

/// What was found, the weightiest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FindingCode {
    /// Its node is not connected.
    NodeAway,
    /// There is no domain any more.
    DomainGone,
    /// A task is at work on it.
    AtWork,
    /// An image of a disk is gone.
    ImageGone,
    /// It was paused, since there was no space left for a disk.
    PoolFull,
    /// It was paused, since a disk could not be read or written.
    DiskError,
    /// QEMU doesn't answer.
    QemuHangs,
    /// QEMU has ended by itself.
    QemuGone,
    /// It is paused.
    Paused,
    /// It is off.
    Off,
    /// The guest's kernel has panicked.
    KernelPanic,
    /// The firmware found nothing to boot from.
    NothingToBoot,
    /// cloud-init has failed.
    CloudInitFailed,
    /// It has just been started.
    Booting,
    /// cloud-init is at work.
    CloudInitAtWork,
    /// The links of all its interfaces are down.
    LinkDown,
    /// No address of it is known.
    NoAddress,
    /// Its guest agent isn't connected.
    NoAgent,
    /// A pool is nearly full.
    PoolNearlyFull,
    /// Nothing is wrong that can be seen from outside.
    Fine,
}

/// Something that has happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Phase {
    /// When.
    pub at: Time,
    /// What.
    pub what: String,
}

/// An address of a VM.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct KnownAddress {
    /// The hardware address of the interface.
    pub mac: String,
    /// The address.
    pub address: String,
    /// Where it was learnt.
    pub source: AddressSource,
}

/// A disk of a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DiskEvidence {
    /// The device.
    pub device: String,
    /// Its image.
    pub path: Option<String>,
    /// The images below, the nearest first.
    pub below: Vec<String>,
    /// What is wrong with it.
    pub problem: Option<String>,
}

/// A pool that has disks of a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PoolEvidence {
    /// The pool.
    pub pool: String,
    /// Its size, in bytes.
    pub capacity_bytes: u64,
    /// What is free of it, in bytes.
    pub available_bytes: u64,
}

impl Rpc for DiagnoseVm {
    const NAME: &'static str = "diagnose-vm";
    const ACCESS: Access = Access::Operator;
    type Reply = Diagnosis;
}
