//! The VMs as last seen: what list-vms answers from, so that a silent node delays nothing.
//!
//! Two sources flow together here: the store's records (which VMs are ours, and what they are called) and what the
//! nodes tell (definitions, power states), by events and by scans. Only the reconciler and the operations write;
//! everything is in memory.

use crate::{
    Error, Result,
    size::gib,
    store::{VmPhase, VmRecord, VmSpec, name_key},
    sync::lock,
};
use api::{
    Time,
    vm::{Disk, DiskRole, Nic, Usage, Vm, VmState},
};
use hypervisor::domain::{Address, DomainView, Power, Sample};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};
use tokio::sync::watch;
use uuid::Uuid;

/// The index.
pub struct Index {
    inner: RwLock<Inner>,
    /// Counts the changes, so that somebody can wait for one.
    version: watch::Sender<u64>,
    reads: AtomicU64,
    claims: Arc<Mutex<HashSet<String>>>,
}

/// A name or a hardware address that is kept until this is dropped.
pub struct Claim {
    claims: Arc<Mutex<HashSet<String>>>,
    key: String,
}

impl Drop for Claim {
    fn drop(&mut self) {
        lock(&self.claims).remove(&self.key);
    }
}

#[derive(Default)]
struct Inner {
    entries: HashMap<Uuid, Entry>,
    nodes: BTreeMap<String, NodeSight>,
    /// Domains that are gone, with the number of the read that told: an older answer doesn't bring them back.
    gone: HashMap<Uuid, u64>,
}

/// A node as last seen.
#[derive(Debug, Clone, Default)]
pub struct NodeSight {
    /// Whether it answers.
    pub up: bool,
    /// When its VMs were last listed whole.
    pub scanned_at: Option<Time>,
}

/// A VM in the index: recorded (ours), seen on a node, or both.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The node.
    pub node: String,
    /// The store's record; `None` for a domain that isn't ours.
    pub record: Option<VmRecord>,
    /// What its node told; `None` when it never did, or when the domain is gone.
    pub seen: Option<Seen>,
}

/// What a node told of a domain.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Its power state.
    pub power: Power,
    /// Its configuration.
    pub view: Arc<DomainView>,
    /// When the node last told.
    pub at: Time,
    /// When the configuration was read.
    pub view_read: Instant,
    /// Whether the domain has left a call unanswered: its QEMU hangs.
    pub silent: bool,
    /// How often the guest was reset since Vmyard first saw it.
    pub resets: u64,
    /// Addresses that the guest agent told.
    pub agent_addresses: Vec<Address>,
    /// Use of CPU and memory.
    pub usage: Option<Usage>,
    last_sample: Option<(Sample, Instant)>,
    /// The number of the read that told it: an answer that was overtaken by a newer one is dropped.
    read: u64,
}

impl Entry {
    /// The VM's id.
    pub fn id(&self) -> Option<Uuid> {
        self.record.as_ref().map(|record| record.id).or_else(|| self.seen.as_ref().map(|seen| seen.view.uuid))
    }

    /// The name that users know.
    pub fn name(&self) -> &str {
        let metadata = || self.seen.as_ref().map(|seen| seen.view.name.as_str());
        self.record.as_ref().map(|record| record.name.as_str()).or_else(metadata).unwrap_or_default()
    }

    /// Its power state, if known.
    pub fn power(&self) -> Option<Power> {
        self.seen.as_ref().map(|seen| seen.power)
    }

    /// Its state as users see it.
    pub fn state(&self) -> VmState {
        match (self.record.as_ref().map(|record| record.phase), self.power()) {
            (Some(VmPhase::Creating), _) => VmState::Creating,
            (Some(VmPhase::Deleting), _) => VmState::Deleting,
            (_, Some(Power::Running)) => VmState::Running,
            (_, Some(Power::Paused)) => VmState::Paused,
            (_, Some(Power::Off)) => VmState::Shutoff,
            (_, None) => VmState::Unknown,
        }
    }

    /// What it reserves of its node when it is on: virtual CPUs, and memory in MiB.
    pub fn reserves(&self) -> Option<(u32, u64)> {
        let seen = self.seen.as_ref().filter(|seen| seen.power != Power::Off)?;
        Some((seen.view.vcpus, seen.view.memory_mib))
    }

    /// The VM on the wire, without what only describe-vm knows.
    pub fn to_wire(&self, node_up: bool) -> Vm {
        let (record, seen) = (self.record.as_ref(), self.seen.as_ref());
        let spec = record.map(|record| &record.spec);
        let view = seen.map(|seen| &seen.view);
        let size = |of_view: fn(&DomainView) -> u64, of_spec: Option<u64>| {
            view.map(|view| of_view(view)).or(of_spec).unwrap_or(0)
        };
        Vm {
            id: self.id().unwrap_or_default(),
            name: self.name().to_owned(),
            state: self.state(),
            node: self.node.clone(),
            domain: view
                .map(|view| view.name.clone())
                .or(record.map(|record| record.domain.clone()))
                .unwrap_or_default(),
            template: spec.map(|spec| spec.template_name.clone()),
            pool: spec.map(|spec| spec.pool_name.clone()),
            vcpus: size(|view| view.vcpus.into(), spec.map(|spec| spec.vcpus.into())) as u32,
            max_vcpus: size(|view| view.max_vcpus.into(), spec.map(|spec| spec.max_vcpus.into())) as u32,
            memory_mib: size(|view| view.memory_mib, spec.map(|spec| spec.memory_mib)),
            max_memory_mib: size(|view| view.max_memory_mib, spec.map(|spec| spec.max_memory_mib)),
            tags: spec.map(|spec| spec.tags.clone()).unwrap_or_default(),
            description: spec.map(|spec| spec.description.clone()).unwrap_or_default(),
            disks: view.map(|view| disks(view, spec)).unwrap_or_default(),
            networks: view.map(|view| nics(view)).unwrap_or_default(),
            usage: None,
            user: spec.and_then(|spec| spec.user.clone()),
            managed: record.is_some(),
            stale: !node_up || seen.is_some_and(|seen| seen.silent),
            observed_at: seen.map(|seen| seen.at),
            created_at: record.map(|record| record.created_at),
        }
    }
}

fn disks(view: &DomainView, spec: Option<&VmSpec>) -> Vec<Disk> {
    let system_pool = spec.map(|spec| spec.pool_name.as_str());
    let system_volume = view.metadata.as_ref().and_then(|metadata| metadata.system_volume);
    let of_disk = |(position, disk): (usize, &hypervisor::domain::DiskView)| {
        let system = position == 0;
        Disk {
            device: disk.target.clone(),
            volume: system_volume.filter(|_| system),
            pool: disk
                .volume
                .as_ref()
                .map(|(pool, _)| pool.clone())
                .or(system_pool.filter(|_| system).map(str::to_owned)),
            path: disk.path.clone(),
            size_gib: spec.filter(|_| system).map(|spec| gib(spec.disk_bytes)),
            role: if system { DiskRole::System } else { DiskRole::Data },
        }
    };
    view.disks.iter().filter(|disk| !disk.cdrom).enumerate().map(of_disk).collect()
}

fn nics(view: &DomainView) -> Vec<Nic> {
    let of_nic = |nic: &hypervisor::domain::NicView| Nic {
        network: nic.network.clone(),
        mac: nic.mac.clone(),
        addresses: Vec::new(),
    };
    view.nics.iter().map(of_nic).collect()
}

impl Index {
    /// An index with the store's records and nodes that have told nothing yet.
    pub fn new(records: Vec<VmRecord>, nodes: impl Iterator<Item = String>) -> Index {
        let entries = records
            .into_iter()
            .map(|record| (record.id, Entry { node: record.node.clone(), record: Some(record), seen: None }));
        let inner = Inner {
            entries: entries.collect(),
            nodes: nodes.map(|name| (name, NodeSight::default())).collect(),
            gone: HashMap::new(),
        };
        Index {
            inner: RwLock::new(inner),
            version: watch::Sender::new(0),
            reads: AtomicU64::new(0),
            claims: Arc::default(),
        }
    }

    /// A number for a read of a node that is about to begin; see [`Index::observe`].
    pub fn begin_read(&self) -> u64 {
        self.reads.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Takes in what a node told of a domain (`None`: there is no such domain), by the read of this number.
    pub fn observe(&self, node: &str, id: Uuid, read: u64, told: Option<(Power, DomainView)>) {
        self.write(|inner| {
            let known = inner.entries.get(&id).and_then(|entry| entry.seen.as_ref());
            if known.is_some_and(|seen| seen.read > read) || inner.gone.get(&id).is_some_and(|gone| *gone > read) {
                return;
            }
            let Some((power, view)) = told else {
                forget_sight(inner, node, id);
                inner.gone.insert(id, read);
                return;
            };
            let entry =
                inner.entries.entry(id).or_insert_with(|| Entry { node: node.to_owned(), record: None, seen: None });
            // A domain of ours that turns up on another node as well is that node's business until it is adopted.
            if entry.record.as_ref().is_some_and(|record| record.node != node) {
                return;
            }
            let before = entry.seen.take();
            let resets = before.as_ref().map_or(0, |seen| seen.resets);
            let previous = before.filter(|_| power != Power::Off);
            entry.node = node.to_owned();
            entry.seen = Some(Seen {
                power,
                view: Arc::new(view),
                at: Time::now(),
                view_read: Instant::now(),
                silent: false,
                resets,
                agent_addresses: previous.as_ref().map(|seen| seen.agent_addresses.clone()).unwrap_or_default(),
                usage: previous.as_ref().and_then(|seen| seen.usage.clone()),
                last_sample: previous.and_then(|seen| seen.last_sample),
                read,
            });
        });
    }

    /// Takes in a whole listing of a node, by the read of this number. Returns the domains whose configuration must be
    /// read: unknown ones, and those in another power state than was known.
    pub fn observe_listing(&self, node: &str, read: u64, statuses: &[hypervisor::domain::DomainStatus]) -> Vec<Uuid> {
        let mut unread = Vec::new();
        self.write(|inner| {
            inner.gone.retain(|_, told| *told > read);
            let listed: HashSet<Uuid> = statuses.iter().map(|status| status.uuid).collect();
            let gone: Vec<Uuid> = inner
                .entries
                .iter()
                .filter(|(id, entry)| {
                    let older = entry.seen.as_ref().is_some_and(|seen| seen.read < read);
                    entry.node == node && older && !listed.contains(id)
                })
                .map(|(id, _)| *id)
                .collect();
            for id in gone {
                forget_sight(inner, node, id);
            }
            for status in statuses {
                let entry = inner.entries.get_mut(&status.uuid).filter(|entry| entry.node == node);
                match entry.and_then(|entry| entry.seen.as_mut()) {
                    Some(seen) if seen.power == status.power => {
                        seen.at = Time::now();
                    }
                    Some(seen) if seen.read > read => {}
                    _ => unread.push(status.uuid),
                }
            }
        });
        unread
    }

    /// Takes in the addresses that a guest agent told.
    pub fn set_agent_addresses(&self, id: Uuid, addresses: Vec<Address>) {
        self.write(|inner| {
            if let Some(seen) = inner.entries.get_mut(&id).and_then(|entry| entry.seen.as_mut()) {
                seen.agent_addresses = addresses;
            }
        });
    }

    /// Takes in that everything on a node was looked at.
    pub fn set_scanned(&self, node: &str) {
        self.write(|inner| {
            if let Some(sight) = inner.nodes.get_mut(node) {
                sight.scanned_at = Some(Time::now());
            }
        });
    }

    /// Takes in what the domains of a node have used.
    pub fn take_samples(&self, node: &str, samples: &[(Uuid, Sample)]) {
        self.write(|inner| {
            for (id, sample) in samples {
                let entry = inner.entries.get_mut(id).filter(|entry| entry.node == node);
                if let Some(seen) = entry.and_then(|entry| entry.seen.as_mut()) {
                    take_sample(seen, *sample);
                }
            }
        });
    }

    /// Takes in that a domain has left a call unanswered.
    pub fn set_silent(&self, id: Uuid) {
        self.write(|inner| {
            if let Some(seen) = inner.entries.get_mut(&id).and_then(|entry| entry.seen.as_mut()) {
                seen.silent = true;
            }
        });
    }

    /// Takes in that a guest was reset.
    pub fn count_reset(&self, id: Uuid) {
        self.write(|inner| {
            if let Some(seen) = inner.entries.get_mut(&id).and_then(|entry| entry.seen.as_mut()) {
                seen.resets += 1;
                seen.agent_addresses.clear();
            }
        });
    }

    /// Takes in whether a node answers.
    pub fn set_node_up(&self, node: &str, up: bool) {
        self.write(|inner| {
            if let Some(sight) = inner.nodes.get_mut(node) {
                sight.up = up;
            }
        });
    }

    /// Takes in the store's record of a VM.
    pub fn put_record(&self, record: VmRecord) {
        self.write(|inner| match inner.entries.get_mut(&record.id) {
            Some(entry) => {
                entry.node = record.node.clone();
                entry.record = Some(record);
            }
            None => {
                inner.entries.insert(record.id, Entry { node: record.node.clone(), record: Some(record), seen: None });
            }
        });
    }

    /// Forgets the store's record of a VM. A domain that is still there becomes somebody else's.
    pub fn drop_record(&self, id: Uuid) {
        self.write(|inner| {
            if let Some(entry) = inner.entries.get_mut(&id) {
                entry.record = None;
                if entry.seen.is_none() {
                    inner.entries.remove(&id);
                }
            }
        });
    }

    /// The VM with this id.
    pub fn get(&self, id: Uuid) -> Option<Entry> {
        self.read(|inner| inner.entries.get(&id).cloned())
    }

    /// The VM of this name or id. A name of ours goes before the same name of a domain that isn't ours.
    pub fn resolve(&self, reference: &str) -> Result<(Uuid, Entry)> {
        self.read(|inner| {
            if let Some((id, entry)) = Uuid::try_parse(reference).ok().and_then(|id| inner.entries.get_key_value(&id)) {
                return Ok((*id, entry.clone()));
            }
            let key = name_key(reference);
            let named = |ours: bool| {
                let fits = move |entry: &Entry| entry.record.is_some() == ours;
                inner
                    .entries
                    .iter()
                    .filter(|(_, entry)| fits(entry) && name_key(entry.name()) == key)
                    .collect::<Vec<_>>()
            };
            let mut found = named(true);
            if found.is_empty() {
                found = named(false);
            }
            match found.as_slice() {
                [] => Err(Error::not_found("VM", reference)),
                [(id, entry)] => Ok((**id, (*entry).clone())),
                several => Err(Error::Ambiguous {
                    kind: "VM",
                    name: reference.to_owned(),
                    ids: several.iter().map(|(id, entry)| format!("{id} on {}", entry.node)).collect(),
                }),
            }
        })
    }

    /// Keeps a name for a VM that is about to be made, unless a VM has it, ours or not, or is about to.
    pub fn claim_name(&self, name: &str) -> Result<Claim> {
        let key = name_key(name);
        let has_it = |entry: &Entry| name_key(entry.name()) == key;
        // The claim comes first. Who had it before has put its record in by now, so that one of the two is seen.
        let claim = self.claim(&key);
        match claim {
            Some(claim) if !self.read(|inner| inner.entries.values().any(has_it)) => Ok(claim),
            _ => Err(Error::exists("VM", name)),
        }
    }

    /// Keeps a name or a hardware address for whoever holds the claim.
    pub fn claim(&self, key: &str) -> Option<Claim> {
        let fresh = lock(&self.claims).insert(key.to_owned());
        fresh.then(|| Claim { claims: Arc::clone(&self.claims), key: key.to_owned() })
    }

    /// Runs `f` over all VMs, with whether each one's node answers.
    pub fn each(&self, mut f: impl FnMut(Uuid, &Entry, bool)) {
        self.read(|inner| {
            for (id, entry) in &inner.entries {
                f(*id, entry, inner.nodes.get(&entry.node).is_some_and(|sight| sight.up));
            }
        });
    }

    /// A node as last seen.
    pub fn node(&self, name: &str) -> NodeSight {
        self.read(|inner| inner.nodes.get(name).cloned()).unwrap_or_default()
    }

    /// The VM with this id on the wire.
    pub fn to_wire(&self, id: Uuid) -> Result<Vm> {
        self.read(|inner| {
            let entry = inner.entries.get(&id)?;
            Some(entry.to_wire(inner.nodes.get(&entry.node).is_some_and(|sight| sight.up)))
        })
        .ok_or_else(|| Error::not_found("VM", id.to_string()))
    }

    /// Something to wait for changes with.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    fn read<T>(&self, f: impl FnOnce(&Inner) -> T) -> T {
        f(&self.inner.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write(&self, f: impl FnOnce(&mut Inner)) {
        f(&mut self.inner.write().unwrap_or_else(PoisonError::into_inner));
        self.version.send_modify(|version| *version += 1);
    }
}

fn forget_sight(inner: &mut Inner, node: &str, id: Uuid) {
    if let Some(entry) = inner.entries.get_mut(&id).filter(|entry| entry.node == node) {
        entry.seen = None;
        if entry.record.is_none() {
            inner.entries.remove(&id);
        }
    }
}

/// Two readings make a use.
fn take_sample(seen: &mut Seen, sample: Sample) {
    if seen.power != Power::Running {
        seen.usage = None;
        seen.last_sample = None;
        return;
    }
    let now = Instant::now();
    let cpu_percent = seen.last_sample.and_then(|(last, at)| {
        // The counter starts again when QEMU does.
        let used = sample.cpu_time_ns.checked_sub(last.cpu_time_ns)? as f64;
        let passed = now.duration_since(at).as_nanos() as f64 * f64::from(seen.view.vcpus.max(1));
        (passed > 0.0).then(|| (used / passed * 100.0).clamp(0.0, 100.0))
    });
    let memory_percent = sample.available_kib.zip(sample.usable_kib).and_then(|(available, usable)| {
        let used = available.saturating_sub(usable) as f64;
        (available > 0).then(|| (used / available as f64 * 100.0).clamp(0.0, 100.0))
    });
    if cpu_percent.is_some() || memory_percent.is_some() {
        seen.usage = Some(Usage {
            cpu_percent: cpu_percent.map(tenth),
            memory_percent: memory_percent.map(tenth),
            sampled_at: Time::now(),
        });
    }
    seen.last_sample = Some((sample, now));
}

fn tenth(percent: f64) -> f64 {
    (percent * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(id: Uuid, name: &str) -> DomainView {
        let xml = format!(
            "<domain><name>{name}</name><uuid>{id}</uuid><memory unit='MiB'>64</memory><vcpu>1</vcpu><devices/></domain>"
        );
        DomainView::parse(&xml).unwrap()
    }

    fn index() -> Index {
        Index::new(Vec::new(), ["a".to_owned(), "b".to_owned()].into_iter())
    }

    #[test]
    fn an_overtaken_answer_is_dropped() {
        let index = index();
        let id = Uuid::now_v7();
        let (older, newer) = (index.begin_read(), index.begin_read());
        index.observe("a", id, newer, Some((Power::Running, view(id, "x"))));
        index.observe("a", id, older, Some((Power::Off, view(id, "x"))));
        assert_eq!(index.get(id).unwrap().power(), Some(Power::Running));
        index.observe("a", id, older, None);
        assert!(index.get(id).is_some());
    }

    #[test]
    fn an_older_answer_brings_nothing_back() {
        let index = index();
        let id = Uuid::now_v7();
        let (older, newer) = (index.begin_read(), index.begin_read());
        index.observe("a", id, newer, None);
        index.observe("a", id, older, Some((Power::Off, view(id, "x"))));
        assert!(index.get(id).is_none());
        index.observe("a", id, index.begin_read(), Some((Power::Off, view(id, "x"))));
        assert!(index.get(id).is_some());
    }

    #[test]
    fn one_name_twice_is_ambiguous() {
        let index = index();
        for node in ["a", "b"] {
            let id = Uuid::now_v7();
            index.observe(node, id, index.begin_read(), Some((Power::Off, view(id, "twin"))));
        }
        assert!(matches!(index.resolve("TWIN"), Err(Error::Ambiguous { ids, .. }) if ids.len() == 2));
        assert!(matches!(index.resolve("other"), Err(Error::NotFound { .. })));
    }

    #[test]
    fn what_a_listing_lacks_is_gone() {
        let index = index();
        let id = Uuid::now_v7();
        index.observe("a", id, index.begin_read(), Some((Power::Off, view(id, "x"))));
        assert!(index.observe_listing("b", index.begin_read(), &[]).is_empty());
        assert!(index.get(id).is_some(), "it is on another node");
        index.observe_listing("a", index.begin_read(), &[]);
        assert!(index.get(id).is_none());
    }
}
