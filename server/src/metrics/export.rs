//! What `GET /metrics` says, in the text format of OpenMetrics: <https://prometheus.io/docs/specs/om/open_metrics_spec/>.
//!
//! It is made anew at each request, of what is there at that moment: the series of a VM go with it.

use super::{Metrics, rates};
use crate::{App, admission, index::Entry, sync::lock};
use api::Time;
use hypervisor::{Status, domain::Sample, storage::PoolView};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, NoLabelSet, text},
    metrics::{
        MetricType,
        family::Family,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};
use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};
use uuid::Uuid;

/// How long requests took, by method.
pub type Latency = Family<MethodLabels, Histogram, fn() -> Histogram>;

/// The labels of a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct MethodLabels {
    /// The method's name.
    pub method: &'static str,
    /// What came of it: `ok`, `accepted` or an error's code.
    pub outcome: &'static str,
}

/// From half a millisecond to a minute.
pub(super) fn latency() -> Latency {
    Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.0005, 2.5, 14)))
}

/// What is known of the readings of a node.
#[derive(Debug, Clone, Copy)]
pub struct Sampling {
    /// When the last one ended.
    pub at: std::time::Instant,
    /// How long it took.
    pub took: Duration,
}

type Labels = Vec<(&'static str, String)>;

/// Numbers of one name.
#[derive(Debug)]
struct Figure {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    rows: Vec<(Labels, f64)>,
}

/// All that is said, but for latencies.
#[derive(Debug)]
struct Snapshot {
    figures: Vec<Figure>,
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        for figure in self.figures.iter().filter(|figure| !figure.rows.is_empty()) {
            let mut metric = encoder.encode_descriptor(figure.name, figure.help, None, figure.kind)?;
            for (labels, value) in &figure.rows {
                let mut row = metric.encode_family(labels)?;
                match figure.kind {
                    MetricType::Counter => row.encode_counter::<NoLabelSet, _, f64>(value, None)?,
                    _ => row.encode_gauge(value)?,
                }
            }
        }
        Ok(())
    }
}

/// The text.
pub async fn export(app: &App) -> crate::Result<String> {
    let mut figures = Figures::default();
    tasks(app, &mut figures).await;
    vms(app, &mut figures);
    nodes(app, &mut figures);
    own(app, &mut figures);
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Snapshot { figures: figures.0.into_values().collect() }));
    let latency = app.metrics.latency.clone();
    registry.register("vmyard_request_duration_seconds", "How long calls of methods took", latency);
    let mut out = String::new();
    let failed = |error| crate::Error::Internal(format!("write metrics: {error}"));
    text::encode(&mut out, &registry).map_err(failed)?;
    Ok(out)
}

/// The figures by name; each comes once.
#[derive(Default)]
struct Figures(BTreeMap<&'static str, Figure>);

impl Figures {
    fn put(&mut self, name: &'static str, help: &'static str, kind: MetricType, labels: Labels, value: f64) {
        let figure = self.0.entry(name).or_insert_with(|| Figure { name, help, kind, rows: Vec::new() });
        figure.rows.push((labels, value));
    }

    fn gauge(&mut self, name: &'static str, help: &'static str, labels: Labels, value: f64) {
        self.put(name, help, MetricType::Gauge, labels, value);
    }

    /// Its name gets `_total` at its end.
    fn counter(&mut self, name: &'static str, help: &'static str, labels: Labels, value: f64) {
        self.put(name, help, MetricType::Counter, labels, value);
    }
}

fn with(labels: &Labels, more: &[(&'static str, &str)]) -> Labels {
    labels.iter().cloned().chain(more.iter().map(|(name, value)| (*name, (*value).to_owned()))).collect()
}

fn vms(app: &App, out: &mut Figures) {
    let samples: BTreeMap<Uuid, Arc<Sample>> = app.metrics.last_samples();
    app.index.each(|id, entry| {
        let labels = vec![("vm", id.to_string()), ("name", entry.name().to_owned()), ("node", entry.node.clone())];
        vm(entry, &labels, samples.get(&id).map(Arc::as_ref), out);
    });
}

fn vm(entry: &Entry, labels: &Labels, sample: Option<&Sample>, out: &mut Figures) {
    let state = entry.state().as_str();
    out.gauge("vmyard_vm_state", "1, with the state as a label", with(labels, &[("state", state)]), 1.0);
    let Some(seen) = &entry.seen else { return };
    let view = &seen.view;
    out.gauge("vmyard_vm_vcpus", "Virtual CPUs", labels.clone(), view.vcpus.into());
    let mib = |mib: f64| mib * 1_048_576.0;
    out.gauge("vmyard_vm_memory_bytes", "Memory that the VM has", labels.clone(), mib(view.memory_mib as f64));
    if let Some(usage) = &seen.usage
        && let (Some(used), Some(source)) = (usage.memory_used_mib, &usage.memory_source)
    {
        let help = "Memory in use, as the guest's balloon driver or QEMU's resident size tells";
        out.gauge("vmyard_vm_memory_used_bytes", help, with(labels, &[("source", source)]), mib(used));
    }
    let Some(sample) = sample else { return };
    let nanoseconds: u64 = sample.cpus_ns.iter().map(|(_, time)| time).sum();
    out.counter("vmyard_vm_cpu_seconds", "CPU time of the virtual CPUs", labels.clone(), nanoseconds as f64 / 1e9);
    let disks = rates::disks(sample, view).map(|(name, disk)| (name, disk, OF_DISKS));
    let nics = rates::nics(sample, view).map(|(name, nic)| (name, nic, OF_NICS));
    for (device, counters, figures) in disks.chain(nics) {
        let labels = with(labels, &[("device", device)]);
        for ((name, help), count) in figures.into_iter().zip(counters.counts.into_iter().flatten()) {
            out.counter(name, help, labels.clone(), count as f64);
        }
    }
}

/// In the order of [`hypervisor::domain::DeviceCounters::counts`].
const OF_DISKS: [(&str, &str); 4] = [
    ("vmyard_vm_disk_reads", "Read requests"),
    ("vmyard_vm_disk_read_bytes", "Bytes read"),
    ("vmyard_vm_disk_writes", "Write requests"),
    ("vmyard_vm_disk_written_bytes", "Bytes written"),
];
/// In the order of [`hypervisor::domain::DeviceCounters::counts`].
const OF_NICS: [(&str, &str); 4] = [
    ("vmyard_vm_net_received_bytes", "Bytes that the guest received"),
    ("vmyard_vm_net_received_packets", "Packets that the guest received"),
    ("vmyard_vm_net_sent_bytes", "Bytes that the guest sent"),
    ("vmyard_vm_net_sent_packets", "Packets that the guest sent"),
];

fn nodes(app: &App, out: &mut Figures) {
    let now = Time::now();
    for member in app.nodes.all() {
        let node = &member.node;
        let labels = vec![("node", node.name().to_owned())];
        let up = f64::from(u8::from(node.status().0 == Status::Up));
        out.gauge("vmyard_node_up", "Whether the node's libvirt is connected", labels.clone(), up);
        out.gauge(
            "vmyard_node_enabled",
            "Whether VMs are placed on the node",
            labels.clone(),
            f64::from(u8::from(member.enabled)),
        );
        if let Some(facts) = node.facts() {
            out.gauge("vmyard_node_cpus", "CPUs of the node", labels.clone(), facts.cpus.into());
            let bytes = facts.memory_mib as f64 * 1_048_576.0;
            out.gauge("vmyard_node_memory_bytes", "Memory of the node", labels.clone(), bytes);
        }
        if let Ok(room) = admission::room(app, node) {
            let help = "Virtual CPUs of the VMs that are on or about to be";
            out.gauge("vmyard_node_reserved_vcpus", help, labels.clone(), room.used_vcpus.into());
            let help = "Memory of the VMs that are on or about to be";
            let bytes = room.used_memory_mib as f64 * 1_048_576.0;
            out.gauge("vmyard_node_reserved_memory_bytes", help, labels.clone(), bytes);
        }
        if let Some(scanned_at) = app.index.node(node.name()).scanned_at {
            let help = "How long ago the node was last looked at whole";
            out.gauge("vmyard_index_age_seconds", help, labels.clone(), (now.0 - scanned_at.0).max(0) as f64 / 1000.0);
        }
        if let Some(sampling) = app.metrics.sampling(node.name()) {
            let help = "How long ago counters were last read";
            out.gauge("vmyard_sampler_age_seconds", help, labels.clone(), sampling.at.elapsed().as_secs_f64());
            let help = "How long the last reading of counters took";
            out.gauge("vmyard_sampler_duration_seconds", help, labels.clone(), sampling.took.as_secs_f64());
        }
        for pool in app.metrics.pools(node.name()) {
            let labels = with(&labels, &[("pool", &pool.name)]);
            out.gauge("vmyard_pool_capacity_bytes", "Size of the pool", labels.clone(), pool.capacity as f64);
            out.gauge("vmyard_pool_used_bytes", "What is used of it", labels.clone(), pool.allocation as f64);
            out.gauge("vmyard_pool_free_bytes", "What is free of it", labels, pool.available as f64);
        }
    }
}

async fn tasks(app: &App, out: &mut Figures) {
    let Ok(open) = app.store.open_tasks().await else { return };
    for state in [api::task::TaskState::Running, api::task::TaskState::Unwinding] {
        let count = open.iter().filter(|task| task.state == state).count();
        let labels = vec![("state", state.as_str().to_owned())];
        out.gauge("vmyard_tasks", "Tasks that have not ended", labels, count as f64);
    }
}

fn own(app: &App, out: &mut Figures) {
    let labels = || vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
    out.gauge("vmyard_info", "1, with the version as a label", labels(), 1.0);
    let started = app.started_at.0 as f64 / 1000.0;
    out.gauge("vmyard_start_time_seconds", "When the server was started", Vec::new(), started);
    if !app.metrics.keeps() {
        return;
    }
    let (heads, lost) = app.metrics.figures();
    out.gauge("vmyard_history_vms", "VMs with samples in memory", Vec::new(), heads as f64);
    let help = "Packed samples that could not be written";
    out.counter("vmyard_history_lost_chunks", help, Vec::new(), lost as f64);
    let usable = f64::from(u8::from(app.metrics.history().is_some()));
    out.gauge("vmyard_history_usable", "Whether the history of metrics can be used", Vec::new(), usable);
}

impl Metrics {
    /// The last sample of each domain.
    fn last_samples(&self) -> BTreeMap<Uuid, Arc<Sample>> {
        let state = lock(&self.state);
        state.before.values().flat_map(|node| node.iter().map(|(id, sample)| (*id, Arc::clone(sample)))).collect()
    }

    /// The bytes that a domain has read of its disks and CD-ROMs since it was started.
    pub fn read_bytes(&self, id: Uuid) -> Option<u64> {
        let state = lock(&self.state);
        let sample = state.before.values().find_map(|node| node.get(&id)).filter(|sample| sample.complete)?;
        Some(sample.disks.iter().filter_map(|disk| disk.counts).map(|[_, bytes, ..]| bytes).sum())
    }

    /// What is known of the readings of a node.
    fn sampling(&self, node: &str) -> Option<Sampling> {
        lock(&self.state).sampling.get(node).copied()
    }

    /// A node's pools, as they were last looked at.
    fn pools(&self, node: &str) -> Vec<PoolView> {
        lock(&self.state).pools.get(node).cloned().unwrap_or_default()
    }

    /// Takes in how long a reading of a node took.
    pub fn set_sampling(&self, node: &str, sampling: Sampling) {
        lock(&self.state).sampling.insert(node.to_owned(), sampling);
    }

    /// Takes in a node's pools.
    pub fn set_pools(&self, node: &str, pools: Vec<PoolView>) {
        lock(&self.state).pools.insert(node.to_owned(), pools);
    }
}
