//! What domains have used, as counters: one call for all domains of a node that are on.
//!
//! Names of the values: <https://libvirt.org/manpages/virsh.html#domstats>.

use super::{Power, helper::is_helper, ops::status};
use crate::{Node, Result};
use libvirt::{DomainStats, Value, flags};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// How long the call may take before a QEMU is taken to hang: for none, and more for each domain.
const DEADLINE: (Duration, Duration) = (Duration::from_secs(3), Duration::from_millis(5));
/// How often a balloon driver tells of a guest's memory, in seconds.
pub(super) const BALLOON_PERIOD_S: i32 = 10;

/// Stands for all virtual CPUs together.
pub const ALL_CPUS: u32 = u32::MAX;

/// A reading of a domain's counters. They begin at 0 with each start of the domain.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The domain.
    pub domain: Uuid,
    /// The number of its run: another one after each start.
    pub run: i32,
    /// Whether it runs or is paused.
    pub power: Power,
    /// When it was read.
    pub at: Instant,
    /// CPU time that its virtual CPUs have used, in nanoseconds, each beside its number; in one sum ([`ALL_CPUS`]), with QEMU's own
    /// work, where libvirt doesn't tell them apart.
    pub cpus_ns: Vec<(u32, u64)>,
    /// Its memory.
    pub memory: MemoryCounters,
    /// Whether QEMU has answered: a domain that another call is about is passed over, and has neither disks nor balloon then.
    pub complete: bool,
    /// Its disks and CD-ROM drives.
    pub disks: Vec<DeviceCounters>,
    /// Its interfaces, as far as they have a device on the node.
    pub nics: Vec<DeviceCounters>,
}

/// A domain's memory, in KiB.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryCounters {
    /// What it has.
    pub current: Option<u64>,
    /// What the guest sees, as its balloon driver tells.
    pub available: Option<u64>,
    /// What the guest could use without swapping, as its balloon driver tells.
    pub usable: Option<u64>,
    /// When the balloon driver last told, in seconds since the Unix epoch.
    pub told_at: Option<u64>,
    /// What QEMU's process holds in memory.
    pub resident: Option<u64>,
}

/// What went through a disk or an interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceCounters {
    /// The device's name: a disk's as its definition has it (`vda`), an interface's on the node (`vnet3`).
    pub device: String,
    /// Of a disk: read requests, bytes read, write requests, bytes written. Of an interface, as the guest sees it: bytes and packets
    /// received, bytes and packets sent. `None` where QEMU wasn't asked.
    pub counts: Option<[u64; 4]>,
}

/// libvirt's names for a disk's counts.
const OF_DISKS: [&str; 4] = ["rd.reqs", "rd.bytes", "wr.reqs", "wr.bytes"];
/// libvirt's names for an interface's counts.
const OF_NICS: [&str; 4] = ["rx.bytes", "rx.pkts", "tx.bytes", "tx.pkts"];

impl Node {
    /// What the domains that are on have used, by one call; with how many are known to be there (for the deadline). A domain that
    /// another call is about is not waited for. A QEMU that hangs and is asked first by this call, makes it a [`Timeout`]; the next
    /// one passes it over.
    ///
    /// [`Timeout`]: crate::ErrorKind::Timeout
    pub async fn samples(&self, domains: usize) -> Result<Vec<Sample>> {
        let (least, each) = DEADLINE;
        let deadline = least + each.saturating_mul(domains.try_into().unwrap_or(u32::MAX));
        self.sample(deadline, "read statistics", |connection| {
            let what = flags::STATS_STATE
                | flags::STATS_CPU_TOTAL
                | flags::STATS_VCPU
                | flags::STATS_BALLOON
                | flags::STATS_BLOCK
                | flags::STATS_INTERFACE;
            let begun = Instant::now();
            let stats = connection.domain_stats(what, flags::STATS_NOWAIT | flags::STATS_ONLY_ACTIVE)?;
            let at = begun + begun.elapsed() / 2;
            Ok(stats.iter().filter(|one| !is_helper(&one.name)).map(|stats| sample(stats, at)).collect())
        })
        .await
    }

    /// Has the balloon driver of a running domain tell of the guest's memory from now on, until the domain stops.
    pub async fn watch_memory(&self, domain: Uuid) -> Result<()> {
        self.ask_domain(domain, "have the balloon driver tell of the guest's memory", |domain| {
            domain.set_memory_stats_period(BALLOON_PERIOD_S, flags::AFFECT_LIVE)
        })
        .await
    }
}

/// Reads one domain's values, each once.
fn sample(stats: &DomainStats, at: Instant) -> Sample {
    let mut memory = MemoryCounters::default();
    let (mut cpus_ns, mut all_cpus_ns) = (Vec::new(), None);
    let (mut disks, mut nics) = (Vec::new(), Vec::new());
    for (name, value) in &stats.params {
        let mut parts = name.splitn(3, '.');
        let (Some(group), Some(second)) = (parts.next(), parts.next()) else { continue };
        let (third, number) = (parts.next().unwrap_or_default(), value.as_u64());
        match (group, second.parse::<u32>()) {
            ("cpu", _) if second == "time" => all_cpus_ns = number,
            ("vcpu", Ok(cpu)) if third == "time" => cpus_ns.extend(number.map(|time| (cpu, time))),
            ("balloon", _) => match second {
                "current" => memory.current = number,
                "available" => memory.available = number,
                "usable" => memory.usable = number,
                "last-update" => memory.told_at = number,
                "rss" => memory.resident = number,
                _ => {}
            },
            ("block", Ok(_)) => count(&mut disks, OF_DISKS, third, value),
            ("net", Ok(_)) => count(&mut nics, OF_NICS, third, value),
            _ => {}
        }
    }
    if cpus_ns.is_empty() {
        cpus_ns.extend(all_cpus_ns.map(|time| (ALL_CPUS, time)));
    }
    // Both are told only when QEMU could be asked.
    let complete = memory.resident.is_some() || disks.iter().any(|disk| disk.counts.is_some());
    let domain = status(stats);
    Sample { domain: domain.uuid, run: stats.id, power: domain.power, at, cpus_ns, memory, complete, disks, nics }
}

/// Takes in a value of a device; its name comes first.
fn count(devices: &mut Vec<DeviceCounters>, names: [&str; 4], name: &str, value: &Value) {
    if name == "name" {
        let device = value.as_str().unwrap_or_default().to_owned();
        devices.push(DeviceCounters { device, counts: None });
        return;
    }
    let place = names.iter().position(|known| *known == name);
    if let (Some(place), Some(device), Some(count)) = (place, devices.last_mut(), value.as_u64()) {
        device.counts.get_or_insert_default()[place] = count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(params: &[(&str, Value)]) -> DomainStats {
        let params = params.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        DomainStats { uuid: [7; 16], name: "web".to_owned(), id: 3, params }
    }

    #[test]
    fn what_libvirt_tells() {
        let number = Value::ULong;
        let text = |text: &str| Value::String(text.to_owned());
        let told = stats(&[
            ("state.state", Value::Int(1)),
            ("state.reason", Value::Int(1)),
            ("cpu.time", number(50)),
            ("balloon.current", number(131072)),
            ("balloon.available", number(100_000)),
            ("balloon.usable", number(60_000)),
            ("balloon.last-update", number(1_700_000_000)),
            ("balloon.rss", number(90_000)),
            ("vcpu.current", Value::UInt(2)),
            ("vcpu.0.state", Value::Int(1)),
            ("vcpu.0.time", number(20)),
            ("vcpu.1.time", number(10)),
            ("net.count", Value::UInt(1)),
            ("net.0.name", text("vnet0")),
            ("net.0.rx.bytes", number(1)),
            ("net.0.rx.pkts", number(2)),
            ("net.0.rx.errs", number(9)),
            ("net.0.tx.bytes", number(3)),
            ("net.0.tx.pkts", number(4)),
            ("block.count", Value::UInt(2)),
            ("block.0.name", text("vda")),
            ("block.0.rd.reqs", number(5)),
            ("block.0.rd.bytes", number(6)),
            ("block.0.rd.times", number(9)),
            ("block.0.wr.reqs", number(7)),
            ("block.0.wr.bytes", number(8)),
            ("block.1.name", text("sda")),
            ("block.1.rd.reqs", number(0)),
        ]);
        let sample = sample(&told, Instant::now());
        assert_eq!((sample.run, sample.power, sample.complete), (3, Power::Running, true));
        assert_eq!(sample.cpus_ns, [(0, 20), (1, 10)]);
        assert_eq!(sample.memory.usable, Some(60_000));
        assert_eq!(sample.disks[0], DeviceCounters { device: "vda".to_owned(), counts: Some([5, 6, 7, 8]) });
        assert_eq!(sample.disks[1].counts, Some([0; 4]));
        assert_eq!(sample.nics, [DeviceCounters { device: "vnet0".to_owned(), counts: Some([1, 2, 3, 4]) }]);
    }

    #[test]
    fn a_busy_domain_is_not_complete() {
        let told = stats(&[
            ("state.state", Value::Int(1)),
            ("cpu.time", Value::ULong(50)),
            ("block.0.name", Value::String("vda".to_owned())),
        ]);
        let sample = sample(&told, Instant::now());
        assert!(!sample.complete);
        assert_eq!(sample.cpus_ns, [(ALL_CPUS, 50)]);
    }
}
