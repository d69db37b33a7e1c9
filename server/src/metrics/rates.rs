//! From counters to figures: what two readings of a domain say of the time between them.

use super::series::{Key, Metric, OF_DISKS, OF_NICS, Point, fixed};
use api::vm::Usage;
use hypervisor::domain::{ALL_CPUS, DeviceCounters, DomainView, MemoryCounters, Power, Sample};
use std::{sync::Arc, time::Duration};

/// From a longer time than so many readings no rate is made: nobody knows when in it something was used.
const READINGS: u32 = 5;
/// How old what the balloon driver has told may be, in seconds.
const BALLOON_AGE_S: u64 = 60;

/// Where a figure of memory was learnt: the guest's balloon driver.
pub const BALLOON: &str = "balloon";
/// Where a figure of memory was learnt: what QEMU's process holds, its own part included.
pub const RSS: &str = "rss";

/// What two readings say, without sums. `None` for a figure is a gap: nothing is made up for it.
pub(super) fn point(before: Option<&Sample>, now: &Sample, view: &DomainView, interval: Duration, now_s: i64) -> Point {
    let mut point = Point::new();
    let mut put = |key: Key, value: f64| point.push((key.clone(), fixed(key.metric, value)));
    memory(&now.memory, now_s, &mut put);
    let Some(before) = before.filter(|before| before.run == now.run) else { return point };
    let passed = now.at.saturating_duration_since(before.at);
    if passed.is_zero() || passed > interval * READINGS {
        return point;
    }
    let seconds = passed.as_secs_f64();
    if let Some(percent) = cpu_percent(before, now, seconds, view.vcpus) {
        put(Key::whole(Metric::CpuPercent), percent);
    }
    for (name, disk) in disks(now, view) {
        rates(disk, &before.disks, seconds, OF_DISKS, name, &mut put);
    }
    for (name, nic) in nics(now, view) {
        rates(nic, &before.nics, seconds, OF_NICS, name, &mut put);
    }
    point
}

/// What went through its disks, CD-ROM drives left out, each beside the name that people know it by.
pub(super) fn disks<'a>(
    sample: &'a Sample,
    view: &'a DomainView,
) -> impl Iterator<Item = (&'a str, &'a DeviceCounters)> {
    let is_disk = |name: &str| view.disks.iter().any(|known| known.target == name && !known.cdrom);
    sample.disks.iter().map(|disk| (disk.device.as_str(), disk)).filter(move |(name, _)| is_disk(name))
}

/// What went through its interfaces, each beside the MAC address that people know it by.
pub(super) fn nics<'a>(
    sample: &'a Sample,
    view: &'a DomainView,
) -> impl Iterator<Item = (&'a str, &'a DeviceCounters)> {
    sample.nics.iter().filter_map(|nic| {
        let known = view.nics.iter().find(|known| known.device.as_deref() == Some(nic.device.as_str()))?;
        Some((known.mac.as_str(), nic))
    })
}

/// The share of all virtual CPUs that were there all the time.
fn cpu_percent(before: &Sample, now: &Sample, seconds: f64, vcpus: u32) -> Option<f64> {
    let (mut used, mut cpus) = (0, 0);
    for (cpu, time) in &now.cpus_ns {
        let Some((_, earlier)) = before.cpus_ns.iter().find(|(earlier, _)| earlier == cpu) else { continue };
        used += time.checked_sub(*earlier)?;
        cpus += if *cpu == ALL_CPUS { vcpus.max(1) } else { 1 };
    }
    (cpus > 0).then(|| (used as f64 / 1e9 / seconds / f64::from(cpus) * 100.0).clamp(0.0, 100.0))
}

fn memory(memory: &MemoryCounters, now_s: i64, put: &mut impl FnMut(Key, f64)) {
    let age_s = memory.told_at.map(|told_at| u64::try_from(now_s).unwrap_or(0).abs_diff(told_at));
    let told = memory.available.zip(memory.usable).filter(|_| age_s.is_some_and(|age| age <= BALLOON_AGE_S));
    let (source, used, total) = match (told, memory.resident.zip(memory.current)) {
        (Some((available, usable)), _) => (BALLOON, available.saturating_sub(usable), available),
        (None, Some((resident, current))) => (RSS, resident, current),
        (None, None) => return,
    };
    let mib = |kib: u64| kib as f64 / 1024.0;
    put(Key::part(Metric::MemoryUsed, source), mib(used));
    put(Key::part(Metric::MemoryTotal, source), mib(total));
    if total > 0 {
        put(Key::part(Metric::MemoryPercent, source), (used as f64 / total as f64 * 100.0).min(100.0));
    }
}

/// Rates a second. A counter that has gone back has begun anew, nobody knows when.
fn rates(
    device: &DeviceCounters,
    before: &[DeviceCounters],
    seconds: f64,
    metrics: [Metric; 4],
    part: &str,
    put: &mut impl FnMut(Key, f64),
) {
    let earlier = before.iter().find(|earlier| earlier.device == device.device).and_then(|earlier| earlier.counts);
    let (Some(now), Some(before)) = (device.counts, earlier) else { return };
    if now.iter().zip(&before).any(|(now, before)| now < before) {
        return;
    }
    let part: Arc<str> = Arc::from(part);
    for ((metric, now), before) in metrics.into_iter().zip(now).zip(before) {
        put(Key { metric, part: Some(Arc::clone(&part)) }, (now - before) as f64 / seconds);
    }
}

/// What describe-vm says of it; of a point with its sums.
pub(super) fn usage(point: &Point, power: Power, at: api::Time) -> Option<Usage> {
    let find = |wanted: Metric| point.iter().find(|(key, _)| key.metric == wanted);
    let sum = |wanted: Metric| point.iter().find(|(key, _)| *key == Key::whole(wanted));
    let number = |(key, kept): &(Key, i64)| super::series::number(key.metric, *kept);
    let (cpu_percent, memory) = (find(Metric::CpuPercent), find(Metric::MemoryPercent));
    let told = power == Power::Running && (cpu_percent.is_some() || memory.is_some());
    told.then(|| Usage {
        cpu_percent: cpu_percent.map(|found| tenth(number(found))),
        memory_percent: memory.map(|found| tenth(number(found))),
        memory_source: memory.and_then(|(key, _)| key.part.as_deref()).map(str::to_owned),
        memory_used_mib: find(Metric::MemoryUsed).map(|found| tenth(number(found))),
        disk_read_bytes_per_s: sum(Metric::DiskReadBytes).map(number),
        disk_write_bytes_per_s: sum(Metric::DiskWriteBytes).map(number),
        net_rx_bytes_per_s: sum(Metric::NetRxBytes).map(number),
        net_tx_bytes_per_s: sum(Metric::NetTxBytes).map(number),
        sampled_at: at,
    })
}

fn tenth(percent: f64) -> f64 {
    (percent * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::{super::series::number, *};
    use std::time::Instant;
    use uuid::Uuid;

    const TICK: Duration = Duration::from_secs(10);
    const GIB: u64 = 1 << 20;

    fn view() -> DomainView {
        let disk = |device: &str, name| format!("<disk type='file' device='{device}'><target dev='{name}'/></disk>");
        let disks = [disk("disk", "vda"), disk("disk", "vdb"), disk("cdrom", "sda")].concat();
        let xml = format!(
            "<domain><name>web</name><uuid>{}</uuid><memory unit='MiB'>64</memory><vcpu>1</vcpu><devices>{disks}
             <interface type='network'><mac address='52:54:00:00:00:01'/><target dev='vnet7'/></interface></devices></domain>",
            Uuid::nil()
        );
        DomainView::parse(&xml).unwrap()
    }

    fn sample(run: i32, at: Instant, count: u64) -> Sample {
        let counters = |device: &str| DeviceCounters { device: device.to_owned(), counts: Some([count; 4]) };
        Sample {
            domain: Uuid::nil(),
            run,
            power: Power::Running,
            at,
            cpus_ns: vec![(0, count * 10_000_000), (1, count * 10_000_000)],
            memory: MemoryCounters {
                current: Some(2 * GIB),
                available: Some(2 * GIB),
                usable: Some(GIB),
                told_at: Some(1000),
                resident: Some(3 * GIB),
            },
            complete: true,
            disks: vec![counters("vda"), counters("sda")],
            nics: vec![counters("vnet7")],
        }
    }

    fn of(point: &Point, metric: Metric, part: Option<&str>) -> Option<f64> {
        let is_it = |(key, _): &&(Key, i64)| key.metric == metric && key.part.as_deref() == part;
        point.iter().find(is_it).map(|(_, kept)| number(metric, *kept))
    }

    #[test]
    fn two_readings_make_rates() {
        let (begun, view) = (Instant::now(), view());
        let rates = |before: &Sample, now: &Sample| point(Some(before), now, &view, TICK, 1030);
        let (first, second) = (sample(1, begun, 100), sample(1, begun + TICK, 600));
        let both = rates(&first, &second);
        // 5 s of CPU on each of two CPUs, in 10 s.
        assert_eq!(of(&both, Metric::CpuPercent, None), Some(50.0));
        assert_eq!(of(&both, Metric::DiskReadBytes, Some("vda")), Some(50.0));
        assert_eq!(of(&both, Metric::DiskWriteRequests, Some("vda")), Some(50.0));
        assert_eq!(of(&both, Metric::NetTxPackets, Some("52:54:00:00:00:01")), Some(50.0));
        // What is in a CD-ROM drive is no disk.
        assert_eq!(of(&both, Metric::DiskReadBytes, Some("sda")), None);
        assert_eq!(of(&both, Metric::MemoryUsed, Some(BALLOON)), Some(1024.0));
        assert_eq!(of(&both, Metric::MemoryPercent, Some(BALLOON)), Some(50.0));

        // What isn't known is a gap: the first reading, another run, a counter that went back, a disk that has just come, readings
        // far apart.
        assert_eq!(of(&point(None, &second, &view, TICK, 1030), Metric::CpuPercent, None), None);
        assert_eq!(of(&rates(&first, &sample(2, begun + TICK, 600)), Metric::CpuPercent, None), None);
        assert_eq!(of(&rates(&second, &sample(1, begun + TICK * 2, 5)), Metric::DiskReadBytes, Some("vda")), None);
        assert_eq!(of(&rates(&first, &sample(1, begun + TICK * 6, 600)), Metric::CpuPercent, None), None);
        let mut plugged = second.clone();
        plugged.disks.push(DeviceCounters { device: "vdb".to_owned(), counts: Some([9; 4]) });
        plugged.cpus_ns.push((2, 1));
        let both = rates(&first, &plugged);
        assert_eq!(of(&both, Metric::DiskReadBytes, Some("vdb")), None);
        assert_eq!(of(&both, Metric::CpuPercent, None), Some(50.0));
        let mut silent = second.clone();
        silent.disks[0].counts = None;
        assert_eq!(of(&rates(&first, &silent), Metric::DiskReadBytes, Some("vda")), None);

        // A guest that tells nothing any more: what its process holds, capped as a share.
        let old = point(Some(&first), &second, &view, TICK, 1000 + 3600);
        assert_eq!(of(&old, Metric::MemoryUsed, Some(BALLOON)), None);
        assert_eq!(of(&old, Metric::MemoryUsed, Some(RSS)), Some(3072.0));
        assert_eq!(of(&old, Metric::MemoryPercent, Some(RSS)), Some(100.0));
        let usage = usage(&super::super::series::with_sums(old), Power::Running, api::Time(7)).unwrap();
        assert_eq!((usage.disk_read_bytes_per_s, usage.net_tx_bytes_per_s), (Some(50.0), Some(50.0)));
        assert_eq!((usage.cpu_percent, usage.memory_source.as_deref()), (Some(50.0), Some(RSS)));
    }

    #[test]
    fn a_node_that_tells_cpus_in_one_sum() {
        let (begun, mut view) = (Instant::now(), view());
        view.vcpus = 4;
        let all = |at, ns| Sample { cpus_ns: vec![(ALL_CPUS, ns)], ..sample(1, at, 0) };
        let both = point(Some(&all(begun, 0)), &all(begun + TICK, 20_000_000_000), &view, TICK, 1000);
        assert_eq!(of(&both, Metric::CpuPercent, None), Some(50.0));
    }
}
