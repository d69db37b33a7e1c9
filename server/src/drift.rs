//! What was changed outside of Vmyard, in words.
//!
//! Where a look at a VM says something else than the last one, and no task was at work on it, somebody else has changed it. Of our
//! own VMs what was last known is in the database, so that what is changed while no Vmyard runs is told by the next one. Nothing is
//! changed back: the node is right.

use crate::{
    App, Result, events,
    index::{Entry, Index, Sight},
    store::{Definition, NewEvent, NicDefinition, Store, VmPhase},
    sync::lock,
};
use api::event::EventKind;
use hypervisor::domain::{BootDevice, DomainView};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Mutex,
};
use uuid::Uuid;

/// What is known is written down within this time after a change, in milliseconds.
const SHORTLY_MS: i64 = 5000;

/// What the last server has left, of VMs that this one hasn't looked at yet.
#[derive(Default)]
pub struct Left {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What was last known of them.
    definitions: HashMap<Uuid, Definition>,
    /// Those that it was at work on when it died: what it has changed last may not be written down.
    doubtful: HashSet<Uuid>,
}

impl Left {
    /// What is in the database.
    pub async fn read(store: &Store, index: &Index) -> Result<Left> {
        let definitions = store.definitions().await?.into_iter().collect();
        let doubtful = doubtful(store, index).await?;
        Ok(Left { state: Mutex::new(State { definitions, doubtful }) })
    }
}

/// The VMs that the last server was at work on when it died.
async fn doubtful(store: &Store, index: &Index) -> Result<HashSet<Uuid>> {
    let mut vms = HashSet::new();
    for object in store.worked_on_last(SHORTLY_MS).await? {
        let of_snapshot = store.snapshot(object).await?.map(|snapshot| snapshot.vm);
        let of_volume = store.volume(object).await?.and_then(|volume| volume.vm);
        vms.extend(of_snapshot.or(of_volume).or_else(|| index.get(object).map(|_| object)));
    }
    Ok(vms)
}

/// Takes in what was just seen of a VM. `ours`: whether a task was at work on it.
pub fn look(app: &App, id: Uuid, sight: &Sight, ours: impl FnOnce() -> bool) {
    let (left, doubtful) = {
        let mut state = lock(&app.drift.state);
        (state.definitions.remove(&id), state.doubtful.remove(&id))
    };
    let unseen = sight.before.is_none() && left.is_some();
    let before = match &sight.before {
        Some(before) if **before == *sight.now => return,
        Some(before) => Some(definition(before)),
        None => left,
    };
    let now = definition(&sight.now);
    let changes = before.as_ref().map(|before| changes(before, &now)).unwrap_or_default();
    if changes.is_empty() && before.is_some() {
        return;
    }
    let Some(entry) = app.index.get(id) else { return };
    if entry.record.as_ref().is_some_and(|record| record.phase == VmPhase::Deleting) {
        return;
    }
    let others = !changes.is_empty() && !doubtful && !ours();
    let told = others.then(|| event(id, &entry, &changes, unseen));
    match entry.record {
        Some(_) => app.events.knows(id, now, told),
        None => told.into_iter().for_each(|told| app.events.tell(told)),
    }
}

/// Writes down what is known of a VM that is ours from now on.
pub fn begin(app: &App, id: Uuid) {
    if let Some(seen) = app.index.get(id).and_then(|entry| entry.seen) {
        app.events.knows(id, definition(&seen.view), None);
    }
}

fn event(id: Uuid, entry: &Entry, changes: &[Change], unseen: bool) -> NewEvent {
    let words: Vec<&str> = changes.iter().map(|change| change.words.as_str()).collect();
    let when = if unseen { "while Vmyard was not running" } else { "outside Vmyard" };
    let of = |change: &Change| json!({"field": change.field, "before": change.before, "now": change.now});
    let details = json!({"changes": changes.iter().map(of).collect::<Vec<_>>(), "while_not_running": unseen});
    let what = format!("{}, changed {when}", words.join("; "));
    events::of_vm(EventKind::VmChanged, id, entry.name(), &entry.node, &what, details)
}

/// What there is to be known of a definition: of a domain that is on as its next start will have it, but for its devices.
fn definition(view: &DomainView) -> Definition {
    let next = view.at_next_start.as_ref();
    let boot = next.map_or(&view.boot, |next| &next.boot);
    let place = |disk: &hypervisor::domain::DiskView| {
        let of_pool = || disk.volume.as_ref().map(|(pool, volume)| format!("{pool}/{volume}"));
        disk.path.clone().or_else(of_pool).unwrap_or_default()
    };
    let nic = |nic: &hypervisor::domain::NicView| NicDefinition {
        network: nic.network.clone().or_else(|| nic.bridge.clone()).unwrap_or_default(),
        link_up: nic.link_up,
    };
    Definition {
        vcpus: next.map_or(view.vcpus, |next| next.vcpus),
        memory_mib: next.map_or(view.memory_mib, |next| next.memory_mib),
        boot: boot.iter().map(|device| word(*device).to_owned()).collect(),
        disks: view.disks.iter().map(|disk| (disk.target.clone(), place(disk))).collect(),
        autostart: view.autostart,
        nics: view.nics.iter().map(|found| (found.mac.to_lowercase(), nic(found))).collect(),
    }
}

fn word(device: BootDevice) -> &'static str {
    match device {
        BootDevice::Disk => "disk",
        BootDevice::Cdrom => "cdrom",
        BootDevice::Network => "network",
    }
}

/// A field that is another one.
#[derive(Debug, PartialEq)]
struct Change {
    field: String,
    before: Value,
    now: Value,
    words: String,
}

fn changes(before: &Definition, now: &Definition) -> Vec<Change> {
    let mut all = Vec::new();
    let mut put = |field: String, before: Value, now: Value, words: String| {
        if before != now {
            all.push(Change { field, before, now, words });
        }
    };
    put(
        "vcpus".to_owned(),
        json!(before.vcpus),
        json!(now.vcpus),
        format!("virtual CPUs {} -> {}", before.vcpus, now.vcpus),
    );
    put(
        "memory_mib".to_owned(),
        json!(before.memory_mib),
        json!(now.memory_mib),
        format!("memory {} -> {} MiB", before.memory_mib, now.memory_mib),
    );
    let order = |boot: &[String]| if boot.is_empty() { "none".to_owned() } else { boot.join(", ") };
    put(
        "boot_order".to_owned(),
        json!(before.boot),
        json!(now.boot),
        format!("boot order {} -> {}", order(&before.boot), order(&now.boot)),
    );
    let starts = if now.autostart { "starts with its host" } else { "no longer starts with its host" };
    put("autostart".to_owned(), json!(before.autostart), json!(now.autostart), starts.to_owned());
    for (device, before, now) in both(&before.disks, &now.disks) {
        let empty = |path: &String| if path.is_empty() { "nothing".to_owned() } else { path.clone() };
        let words = match (before, now) {
            (None, Some(now)) => format!("disk {device} ({}) attached", empty(now)),
            (Some(before), None) => format!("disk {device} ({}) detached", empty(before)),
            (before, now) => {
                format!(
                    "disk {device} {} -> {}",
                    before.map(empty).unwrap_or_default(),
                    now.map(empty).unwrap_or_default()
                )
            }
        };
        put(format!("disks.{device}"), json!(before), json!(now), words);
    }
    for (mac, before, now) in both(&before.nics, &now.nics) {
        let words = match (before, now) {
            (None, Some(now)) => format!("interface {mac} on network {} attached", now.network),
            (Some(before), None) => format!("interface {mac} on network {} detached", before.network),
            (Some(before), Some(now)) if before.network != now.network => {
                format!("interface {mac} from network {} to {}", before.network, now.network)
            }
            (_, now) => {
                let up = now.is_some_and(|now| now.link_up);
                format!("interface {mac} with its link {}", if up { "up" } else { "down" })
            }
        };
        put(format!("networks.{mac}"), json!(before), json!(now), words);
    }
    all
}

/// What is in either of two, by their keys.
fn both<'a, T>(
    before: &'a BTreeMap<String, T>,
    now: &'a BTreeMap<String, T>,
) -> impl Iterator<Item = (&'a String, Option<&'a T>, Option<&'a T>)> {
    let come = now.keys().filter(|key| !before.contains_key(*key));
    before.keys().chain(come).map(|key| (key, before.get(key), now.get(key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition() -> Definition {
        let nic = NicDefinition { network: "default".to_owned(), link_up: true };
        Definition {
            vcpus: 1,
            memory_mib: 2048,
            boot: vec!["disk".to_owned()],
            autostart: false,
            disks: [("vda".to_owned(), "/a".to_owned()), ("sda".to_owned(), String::new())].into(),
            nics: [("52:54:00:00:00:01".to_owned(), nic)].into(),
        }
    }

    #[test]
    fn changes_in_words() {
        let before = definition();
        assert_eq!(changes(&before, &before), []);
        let mut now = definition();
        now.memory_mib = 4096;
        now.boot.insert(0, "cdrom".to_owned());
        now.disks.insert("vdb".to_owned(), "/b".to_owned());
        now.disks.insert("sda".to_owned(), "/iso".to_owned());
        now.nics.values_mut().for_each(|nic| nic.link_up = false);
        let words = |before: &Definition, now: &Definition| -> Vec<String> {
            changes(before, now).into_iter().map(|change| change.words).collect()
        };
        assert_eq!(
            words(&before, &now),
            [
                "memory 2048 -> 4096 MiB",
                "boot order disk -> cdrom, disk",
                "disk sda nothing -> /iso",
                "disk vdb (/b) attached",
                "interface 52:54:00:00:00:01 with its link down",
            ]
        );
        assert_eq!(words(&now, &before)[3], "disk vdb (/b) detached");
        let mut moved = definition();
        moved.nics.values_mut().for_each(|nic| nic.network = "lan".to_owned());
        assert_eq!(words(&before, &moved), ["interface 52:54:00:00:00:01 from network default to lan"]);
        moved.nics.clear();
        assert_eq!(words(&before, &moved), ["interface 52:54:00:00:00:01 on network default detached"]);
        assert_eq!(changes(&before, &now)[0].field, "memory_mib");
    }
}
