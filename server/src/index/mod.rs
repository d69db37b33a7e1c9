//! The VMs as last seen: what list-vms answers from, so that a silent node delays nothing.
//!
//! Two sources flow together here: the store's records (which VMs are ours, and what they are called) and what the
//! nodes tell (definitions, power states), by events and by scans. Only the reconciler and the operations write;
//! everything is in memory.

mod change;
mod entries;
mod entry;
mod volumes;

pub use entry::{Entry, Seen};

use crate::{
    Error, Result,
    events::Events,
    store::{Move, VmRecord, VolumeRecord},
};
use api::{
    Time,
    vm::{Usage, Vm, VmState},
};
use entries::Entries;
use hypervisor::domain::{Address, DomainView, Power};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::watch;
use uuid::Uuid;
use volumes::Volumes;

/// The index.
pub struct Index {
    inner: RwLock<Inner>,
    /// Counts the changes, so that somebody can wait for one.
    version: watch::Sender<u64>,
    reads: AtomicU64,
    /// Where changes are told, in their order.
    events: Events,
}

#[derive(Default)]
struct Inner {
    entries: Entries,
    volumes: Volumes,
    nodes: BTreeMap<String, NodeSight>,
    /// The states that the last server has told, of our VMs that this one hasn't seen yet.
    told: HashMap<Uuid, VmState>,
    /// Domains that are gone, with the number of the read that told: an older answer doesn't bring them back.
    gone: HashMap<Uuid, u64>,
}

/// A domain's configuration as a read has told it, and as it was known before.
pub struct Sight {
    /// `None` when it was not known.
    pub before: Option<Arc<DomainView>>,
    /// As it is now.
    pub now: Arc<DomainView>,
}

/// A node as last seen.
#[derive(Debug, Clone, Default)]
pub struct NodeSight {
    /// Whether it answers.
    pub up: bool,
    /// When its VMs were last listed whole.
    pub scanned_at: Option<Time>,
}

impl Index {
    /// An index with the store's records and nodes that have told nothing yet. `told` are the states of VMs that were told last.
    pub fn new(
        records: Vec<VmRecord>,
        volumes: Vec<VolumeRecord>,
        nodes: impl Iterator<Item = String>,
        told: HashMap<Uuid, VmState>,
        events: Events,
    ) -> Index {
        let inner = Inner {
            entries: records.into_iter().collect(),
            volumes: volumes.into_iter().collect(),
            nodes: nodes.map(|name| (name, NodeSight::default())).collect(),
            told,
            gone: HashMap::new(),
        };
        Index { inner: RwLock::new(inner), version: watch::Sender::new(0), reads: AtomicU64::new(0), events }
    }

    /// A number for a read of a node that is about to begin; see [`Index::observe`].
    pub fn begin_read(&self) -> u64 {
        self.reads.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Whether what is known of a domain was told by a later read than the one of this number.
    pub fn was_read_since(&self, id: Uuid, read: u64) -> bool {
        self.read(|inner| {
            inner.entries.get(id).and_then(|entry| entry.seen.as_ref()).is_some_and(|seen| seen.read > read)
        })
    }

    /// Takes in what a node told of a domain (`None`: there is no such domain), by the read of this number. Returns what was taken in of
    /// a domain that is there.
    pub fn observe(&self, node: &str, id: Uuid, read: u64, told: Option<(Power, DomainView)>) -> Option<Sight> {
        let mut sight = None;
        self.write(|inner| {
            let known = inner.entries.get(id);
            let overtaken = known.and_then(|entry| entry.seen.as_ref()).is_some_and(|seen| seen.read > read);
            if overtaken || inner.gone.get(&id).is_some_and(|gone| *gone > read) {
                return;
            }
            let Some((power, view)) = told else {
                forget_sight(inner, node, id);
                inner.gone.insert(id, read);
                return;
            };
            // A domain of ours that turns up on another node as well is that node's business until it is adopted.
            if known.and_then(|entry| entry.record.as_ref()).is_some_and(|record| record.node != node) {
                return;
            }
            inner.entries.change_or_add(id, node, |entry| {
                entry.node = node.to_owned();
                let before = entry.seen.as_ref().map(|seen| Arc::clone(&seen.view));
                let seen = Seen::of(power, view, entry.seen.take(), read);
                sight = Some(Sight { before, now: Arc::clone(&seen.view) });
                entry.seen = Some(seen);
            });
        });
        sight
    }

    /// Takes in that disks of a domain that is off have gone on in other images, as its node has just confirmed. Returns what was
    /// taken in. Reads that began before are overtaken.
    pub fn move_disks(&self, id: Uuid, moves: &[Move]) -> Option<Sight> {
        let read = self.begin_read();
        let mut sight = None;
        self.write(|inner| {
            let Some(seen) = inner.entries.seen_mut(id) else { return };
            let before = Arc::clone(&seen.view);
            for disk in &mut Arc::make_mut(&mut seen.view).disks {
                if let Some(one) = moves.iter().find(|one| disk.path.as_ref() == Some(&one.from.path)) {
                    disk.path = Some(one.to.path.clone());
                }
            }
            seen.read = read;
            sight = Some(Sight { before: Some(before), now: Arc::clone(&seen.view) });
        });
        sight
    }

    /// Takes in a whole listing of a node, by the read of this number. Returns the domains whose configuration must be
    /// read: unknown ones, and those in another power state than was known.
    pub fn observe_listing(&self, node: &str, read: u64, statuses: &[hypervisor::domain::DomainStatus]) -> Vec<Uuid> {
        let mut unread = Vec::new();
        let listed: HashSet<Uuid> = statuses.iter().map(|status| status.uuid).collect();
        self.write(|inner| {
            inner.gone.retain(|_, told| *told > read);
            let gone: Vec<Uuid> = inner
                .entries
                .iter()
                .filter(|(id, entry)| {
                    let older = entry.seen.as_ref().is_some_and(|seen| seen.read < read);
                    entry.node == node && older && !listed.contains(id)
                })
                .map(|(id, _)| id)
                .collect();
            for id in gone {
                forget_sight(inner, node, id);
            }
            for status in statuses {
                match inner.entries.seen_on(status.uuid, node) {
                    Some(seen) if seen.power == status.power => {
                        seen.at = Time::now();
                    }
                    Some(seen) if seen.read > read => {}
                    Some(_) => {
                        // The state counts at once; the configuration may have changed with it.
                        inner.entries.change(status.uuid, |entry| {
                            if let Some(seen) = &mut entry.seen {
                                (seen.power, seen.at, seen.read) = (status.power, Time::now(), read);
                            }
                        });
                        unread.push(status.uuid);
                    }
                    None => unread.push(status.uuid),
                }
            }
        });
        unread
    }

    /// Takes in the addresses that a guest agent told.
    pub fn set_agent_addresses(&self, id: Uuid, addresses: Vec<Address>) {
        self.write(|inner| {
            if let Some(seen) = inner.entries.seen_mut(id) {
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

    /// Takes in what the domains of a node use, and whether their QEMUs have answered; one that hasn't, when the reading was
    /// kept by a hung one, hangs.
    pub fn take_usage(&self, node: &str, usage: Vec<(Uuid, Option<Usage>, bool)>, hung: bool) {
        self.write(|inner| {
            for (id, usage, answered) in usage {
                let Some(seen) = inner.entries.seen_on(id, node) else { continue };
                if seen.power != Power::Running {
                    seen.usage = None;
                } else if usage.is_some() {
                    seen.usage = usage;
                }
                seen.silent = !answered && (seen.silent || hung);
            }
        });
    }

    /// Takes in that a domain has left a call unanswered.
    pub fn set_silent(&self, id: Uuid) {
        self.write(|inner| {
            if let Some(seen) = inner.entries.seen_mut(id) {
                seen.silent = true;
            }
        });
    }

    /// Takes in that a guest was reset.
    pub fn count_reset(&self, id: Uuid) {
        self.write(|inner| {
            if let Some(seen) = inner.entries.seen_mut(id) {
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
        self.write(|inner| {
            let node = record.node.clone();
            inner.entries.change_or_add(record.id, &node, |entry| {
                entry.node = record.node.clone();
                entry.record = Some(record);
            });
        });
    }

    /// Forgets the store's record of a VM. A domain that is still there becomes somebody else's.
    pub fn drop_record(&self, id: Uuid) {
        self.write(|inner| {
            inner.entries.change(id, |entry| entry.record = None);
        });
    }

    /// Forgets a VM whose domain is gone, though its node may not have told of that yet: for a moment it would be somebody else's
    /// that is shut off.
    pub fn forget_vm(&self, id: Uuid) {
        let read = self.begin_read();
        self.write(|inner| {
            inner.entries.change(id, |entry| {
                entry.record = None;
                entry.seen = None;
            });
            inner.gone.insert(id, read);
        });
    }

    /// Takes in the store's record of a volume.
    pub fn put_volume(&self, record: VolumeRecord) {
        self.write(|inner| inner.volumes.put(record));
    }

    /// Takes in where volumes have gone on, as the store has just noted it.
    pub fn move_volumes(&self, moves: &[Move]) {
        self.write(|inner| moves.iter().for_each(|one| inner.volumes.move_on(one)));
    }

    /// Forgets the store's record of a volume.
    pub fn drop_volume(&self, id: Uuid) {
        self.write(|inner| inner.volumes.remove(id));
    }

    /// The volumes that a VM is to let go of.
    pub fn detaching_from(&self, vm: Uuid) -> Vec<VolumeRecord> {
        self.read(|inner| inner.volumes.detaching_from(vm))
    }

    /// The volumes that a VM's disks are on.
    pub fn volumes_of(&self, vm: &Entry) -> Vec<VolumeRecord> {
        let Some(seen) = &vm.seen else { return Vec::new() };
        let paths = seen.view.disks.iter().filter_map(|disk| disk.path.as_ref());
        self.read(|inner| paths.filter_map(|path| inner.volumes.at(&vm.node, path)).cloned().collect())
    }

    /// The VM with this id.
    pub fn get(&self, id: Uuid) -> Option<Entry> {
        self.read(|inner| inner.entries.get(id).cloned())
    }

    /// The VM of this name or id. A name of ours goes before the same name of a domain that isn't ours.
    pub fn resolve(&self, reference: &str) -> Result<(Uuid, Entry)> {
        self.read(|inner| {
            let by_id = Uuid::try_parse(reference).ok().and_then(|id| Some((id, inner.entries.get(id)?)));
            if let Some((id, entry)) = by_id {
                return Ok((id, entry.clone()));
            }
            let named = |ours: bool| {
                let fits = move |(_, entry): &(Uuid, &Entry)| entry.record.is_some() == ours;
                inner.entries.named(reference).filter(fits).collect::<Vec<_>>()
            };
            let mut found = named(true);
            if found.is_empty() {
                found = named(false);
            }
            match found.as_slice() {
                [] => Err(Error::not_found("VM", reference)),
                [(id, entry)] => Ok((*id, (*entry).clone())),
                several => Err(Error::Ambiguous {
                    kind: "VM",
                    name: reference.to_owned(),
                    ids: several.iter().map(|(id, entry)| format!("{id} on {}", entry.node)).collect(),
                }),
            }
        })
    }

    /// The name of a VM, or its id when nothing is known of it.
    pub fn name_of(&self, id: Uuid) -> String {
        self.read(|inner| inner.entries.get(id).map_or_else(|| id.to_string(), |entry| entry.name().to_owned()))
    }

    /// Whether a VM has this name, ours or not, beside this one.
    pub fn has_name(&self, name: &str, beside: Option<Uuid>) -> bool {
        self.read(|inner| inner.entries.named(name).any(|(id, _)| Some(id) != beside))
    }

    /// Runs `f` over all VMs.
    pub fn each(&self, mut f: impl FnMut(Uuid, &Entry)) {
        self.at_once(|moment| moment.vms().for_each(|(id, entry)| f(id, entry)));
    }

    /// Shows the index to `f`; nothing changes meanwhile, so it must be quick.
    pub fn at_once<T>(&self, f: impl FnOnce(Moment<'_>) -> T) -> T {
        self.read(|inner| f(Moment { inner }))
    }

    /// Takes in that there is a further node.
    pub fn add_node(&self, name: &str) {
        self.write(|inner| {
            inner.nodes.entry(name.to_owned()).or_default();
        });
    }

    /// Forgets a node with all that is on it.
    pub fn forget_node(&self, name: &str) {
        self.write(|inner| {
            inner.nodes.remove(name);
            inner.volumes.forget_node(name);
            let there = |(_, entry): &(Uuid, &Entry)| entry.node == name;
            let ids: Vec<Uuid> = inner.entries.iter().filter(there).map(|(id, _)| id).collect();
            for id in ids {
                inner.entries.change(id, |entry| {
                    entry.seen = None;
                    entry.record = None;
                });
            }
        });
    }

    /// A node as last seen.
    pub fn node(&self, name: &str) -> NodeSight {
        self.read(|inner| inner.nodes.get(name).cloned()).unwrap_or_default()
    }

    /// The VM with this id on the wire.
    pub fn to_wire(&self, id: Uuid) -> Result<Vm> {
        let wire = self.at_once(|moment| moment.inner.entries.get(id).map(|entry| moment.to_wire(entry)));
        wire.ok_or_else(|| Error::not_found("VM", id.to_string()))
    }

    /// Something to wait for changes with.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    fn read<T>(&self, f: impl FnOnce(&Inner) -> T) -> T {
        f(&self.inner.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write(&self, f: impl FnOnce(&mut Inner)) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        f(&mut inner);
        for change in inner.entries.take_changes() {
            // What a node that is looked at for the first time has was there before.
            let is_known = inner.nodes.get(&change.node).is_some_and(|sight| sight.scanned_at.is_some());
            let told = match change.now {
                Some(VmState::Unknown) => None,
                _ => inner.told.remove(&change.id),
            };
            let news = match change.is_news(is_known) {
                true => Some(change),
                false => told.and_then(|told| change.since(told)),
            };
            if let Some(news) = news {
                self.events.tell(news.into_event());
            }
        }
        drop(inner);
        self.version.send_modify(|version| *version += 1);
    }
}

/// The index at one moment.
#[derive(Clone, Copy)]
pub struct Moment<'a> {
    inner: &'a Inner,
}

impl<'a> Moment<'a> {
    /// All VMs, in no order.
    pub fn vms(self) -> impl Iterator<Item = (Uuid, &'a Entry)> {
        self.inner.entries.iter()
    }

    /// How many VMs there are.
    pub fn count(self) -> usize {
        self.inner.entries.count()
    }

    /// So many VMs in the order of their names, without case, from the one after this name and id on; or backwards.
    pub fn by_name(
        self,
        after: Option<(&str, Uuid)>,
        backwards: bool,
        count: usize,
    ) -> impl Iterator<Item = (Uuid, &'a Entry)> {
        self.inner.entries.by_name(after, backwards, count)
    }

    /// A VM on the wire.
    pub fn to_wire(self, entry: &Entry) -> Vm {
        entry.to_wire(self.inner.nodes.get(&entry.node).is_some_and(|sight| sight.up), &self.inner.volumes)
    }
}

fn forget_sight(inner: &mut Inner, node: &str, id: Uuid) {
    if inner.entries.seen_on(id, node).is_some() {
        inner.entries.change(id, |entry| entry.seen = None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Image;

    pub(super) fn view(id: Uuid, name: &str) -> DomainView {
        let xml = format!(
            "<domain><name>{name}</name><uuid>{id}</uuid><memory unit='MiB'>64</memory><vcpu>1</vcpu><devices/></domain>"
        );
        DomainView::parse(&xml).unwrap()
    }

    fn index() -> Index {
        Index::new(
            Vec::new(),
            Vec::new(),
            ["a".to_owned(), "b".to_owned()].into_iter(),
            HashMap::new(),
            Events::default(),
        )
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
    fn a_state_that_a_listing_tells_counts_before_the_configuration_is_read() {
        let index = index();
        let id = Uuid::now_v7();
        index.observe("a", id, index.begin_read(), Some((Power::Running, view(id, "x"))));
        let (listing, later) = (index.begin_read(), index.begin_read());
        let off = [hypervisor::domain::DomainStatus { uuid: id, power: Power::Off }];
        assert_eq!(index.observe_listing("a", listing, &off), [id]);
        assert_eq!(index.get(id).unwrap().power(), Some(Power::Off));
        // What was read after the listing began goes before what the listing tells.
        index.observe("a", id, later, Some((Power::Running, view(id, "x"))));
        assert!(index.observe_listing("a", listing, &off).is_empty());
        assert_eq!(index.get(id).unwrap().power(), Some(Power::Running));
    }

    #[test]
    fn disks_that_were_moved_are_not_moved_back_by_an_older_read() {
        let index = index();
        let id = Uuid::now_v7();
        let on = |path: &str| {
            let mut view = view(id, "x");
            view.disks = DomainView::parse(&format!(
                "<domain><name>x</name><uuid>{id}</uuid><memory>1</memory><vcpu>1</vcpu><devices><disk type='file'>
                 <source file='{path}'/><target dev='vda'/></disk></devices></domain>"
            ))
            .unwrap()
            .disks;
            Some((Power::Off, view))
        };
        let path = || index.get(id).unwrap().seen.unwrap().view.disks[0].path.clone().unwrap();
        let image = |path: &str| Image { pool: Uuid::nil(), file: path.to_owned(), path: path.to_owned() };
        let (from, to) = (image("/old"), image("/new"));
        let moves = [Move { volume: id, base: "/old".to_owned(), from, to, size_bytes: 1 }];
        assert!(index.move_disks(id, &moves).is_none());
        index.observe("a", id, index.begin_read(), on("/old"));
        let older = index.begin_read();
        let sight = index.move_disks(id, &moves).unwrap();
        assert_eq!(sight.before.unwrap().disks[0].path.as_deref(), Some("/old"));
        assert_eq!((sight.now.disks[0].path.as_deref(), path().as_str()), (Some("/new"), "/new"));
        index.observe("a", id, older, on("/old"));
        assert_eq!(path(), "/new");
        index.observe("a", id, index.begin_read(), on("/third"));
        assert_eq!(path(), "/third");
    }

    #[test]
    fn what_was_told_before_a_read_began_is_in_it() {
        let index = index();
        let id = Uuid::now_v7();
        assert!(!index.was_read_since(id, 0));
        let (before, told) = (index.begin_read(), index.begin_read());
        index.observe("a", id, before, Some((Power::Off, view(id, "x"))));
        assert!(!index.was_read_since(id, told), "that one may have read it as it was");
        index.observe("a", id, index.begin_read(), Some((Power::Off, view(id, "x"))));
        assert!(index.was_read_since(id, told));
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
