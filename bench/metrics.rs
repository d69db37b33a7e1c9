//! What measuring costs: readings of thousands of domains are put into the sampler's own entry point, since libvirt's test driver has no
//! such figures. A disk, a CD-ROM drive and an interface each; the numbers are made up, but change as those of busy guests do.
//!
//! `make bench`, on a machine that does nothing else.

#![allow(clippy::unwrap_used, missing_docs)]

#[allow(dead_code)]
mod table;

use api::metrics::Aggregate;
use hypervisor::domain::{DeviceCounters, DomainView, MemoryCounters, Power, Sample};
use server::{
    config::MetricsSettings,
    metrics::{self, Metrics, query},
};
use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use table::alone;
use uuid::Uuid;

const MANY: usize = 10_000;
const SOME: usize = 1_000;
/// Ticks of the first two: an hour and ten minutes, in which every chunk is packed.
const TICKS: i64 = 420;
/// VMs and ticks of the query: a day.
const FEW: usize = 20;
const DAY: i64 = 8640;
const QUERIES: usize = 50;
const INTERVAL: Duration = Duration::from_secs(10);

#[tokio::main(flavor = "current_thread")]
async fn main() {
    // Called by `cargo test` as well, to see that it builds.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    table::head();
    let dir = std::env::temp_dir().join(format!("vmyard-bench-{}", std::process::id()));
    std::fs::create_dir(&dir).unwrap();
    for (count, budget_ms) in [(SOME, Some(20.0)), (MANY, None)] {
        ticks(&dir, count, budget_ms).await;
    }
    day(&dir).await;
    std::fs::remove_dir_all(&dir).unwrap();
}

/// Domains whose counters go up.
struct Domains {
    views: Vec<Arc<DomainView>>,
    samples: Vec<Sample>,
    random: u64,
}

impl Domains {
    fn new(count: usize) -> Domains {
        let view = |number: usize| {
            let (id, mac) = (Uuid::new_v4(), format!("52:54:00:00:{:02x}:{:02x}", number / 256, number % 256));
            let xml = format!(
                "<domain><name>vm-{number}</name><uuid>{id}</uuid><memory unit='MiB'>2048</memory><vcpu>2</vcpu><devices>
                 <disk type='file' device='disk'><target dev='vda'/></disk><disk type='file' device='cdrom'><target dev='sda'/></disk>
                 <interface type='network'><mac address='{mac}'/><target dev='vnet{number}'/></interface></devices></domain>"
            );
            Arc::new(DomainView::parse(&xml).unwrap())
        };
        let views: Vec<_> = (0..count).map(view).collect();
        let disk = |device: &str| DeviceCounters { device: device.to_owned(), counts: Some([0; 4]) };
        let sample = |(number, view): (usize, &Arc<DomainView>)| Sample {
            domain: view.uuid,
            run: 1,
            power: Power::Running,
            at: Instant::now(),
            cpus_ns: vec![(0, 0), (1, 0)],
            memory: MemoryCounters {
                current: Some(2 << 20),
                available: Some(2 << 20),
                usable: Some(1 << 20),
                told_at: Some(0),
                resident: Some(1 << 20),
            },
            complete: true,
            disks: vec![disk("vda"), disk("sda")],
            nics: vec![DeviceCounters { device: format!("vnet{number}"), counts: Some([0; 4]) }],
        };
        let samples = views.iter().enumerate().map(sample).collect();
        Domains { views, samples, random: 1 }
    }

    /// A number below a limit (Knuth's generator).
    fn any(&mut self, limit: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % limit
    }

    /// The readings of one interval later.
    fn next(&mut self, told_at_s: i64) -> Vec<Sample> {
        let mut samples = std::mem::take(&mut self.samples);
        for sample in &mut samples {
            sample.at += INTERVAL;
            for (_, time) in &mut sample.cpus_ns {
                *time += self.any(2_000_000_000);
            }
            sample.memory.usable = Some((1 << 20) + self.any(1 << 14));
            sample.memory.told_at = told_at_s.try_into().ok();
            // Three of four disks and interfaces do something.
            for (device, scale) in [(&mut sample.disks[0], 50), (&mut sample.nics[0], 48)] {
                if self.any(4) > 0 {
                    for count in device.counts.iter_mut().flatten() {
                        *count += self.random >> scale;
                    }
                }
            }
        }
        self.samples.clone_from(&samples);
        samples
    }
}

/// So many ticks of so many domains until now. Returns how long each took.
async fn run(path: &Path, count: usize, ticks: i64) -> (Arc<Metrics>, Domains, Vec<Duration>) {
    let mut domains = Domains::new(count);
    let history = metrics::open(path).await.unwrap();
    let (metrics, mut written) = Metrics::begin(MetricsSettings::default(), Some(history)).await;
    let metrics = Arc::new(metrics);
    let now_s = api::Time::now().0 / 1000;
    let mut times = Vec::new();
    let by_id: std::collections::HashMap<Uuid, Arc<DomainView>> =
        domains.views.iter().map(|view| (view.uuid, Arc::clone(view))).collect();
    for tick in 0..ticks {
        let at_s = now_s / 10 * 10 - (ticks - tick) * 10;
        let samples = domains.next(now_s);
        let begun = Instant::now();
        drop(metrics.take("node", at_s, samples, |id| by_id.get(&id).cloned()));
        while let Ok(tick) = written.try_recv() {
            metrics::write(&metrics, tick, path).await.unwrap();
        }
        times.push(begun.elapsed());
    }
    (metrics, domains, times)
}

async fn ticks(dir: &Path, count: usize, budget_ms: Option<f64>) {
    let path = dir.join(format!("{count}.db"));
    let before = resident_mib();
    let (metrics, domains, mut times) = run(&path, count, TICKS).await;
    let memory = resident_mib().saturating_sub(before);
    times.sort_unstable();
    let average = times.iter().sum::<Duration>().as_secs_f64() * 1000.0 / times.len() as f64;
    let worst = times[times.len() - 1].as_secs_f64() * 1000.0;
    let name = format!("a tick of {count} domains, written");
    let budget = budget_ms.map(|ms| format!("< {ms} ms")).unwrap_or_default();
    alone(&name, &format!("{average:.1} ms, worst {worst:.0}"), &budget, budget_ms.is_none_or(|ms| average < ms));
    let used = metrics.history().unwrap().used_bytes().await.unwrap() as f64;
    // Ticks that are not packed yet stay the same.
    let a_day = used / TICKS as f64 * DAY as f64;
    let per_sample = used / TICKS as f64 / count as f64;
    alone("  on the disk, samples of a day", &format!("{:.2} GB, {per_sample:.0} B a VM", a_day / 1e9), "", true);
    alone("  in memory, readings and views too", &format!("{memory} MiB"), "", true);
    drop(domains);
    metrics::close(&metrics).await;
}

async fn day(dir: &Path) {
    let (metrics, domains, _) = run(&dir.join("day.db"), FEW, DAY).await;
    let now = api::Time::now();
    let mut times = Vec::new();
    for turn in 0..QUERIES {
        let vm = domains.views[turn % FEW].uuid;
        let begun = Instant::now();
        let start = api::Time(now.0 - DAY * 10_000);
        let range = query::range(&metrics, Some(start), Some(now), None).unwrap();
        let series = query::query(&metrics, vm, range, Aggregate::Average).await.unwrap();
        times.push(begun.elapsed());
        assert!(series.len() > 10 && series[0].values.iter().flatten().count() > 280);
    }
    times.sort_unstable();
    let median = times[QUERIES / 2];
    let value = format!("{:.1} ms", median.as_secs_f64() * 1000.0);
    alone("all series of a VM over 24 h", &value, "< 20 ms", median < Duration::from_millis(20));
    metrics::close(&metrics).await;
}

fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}
