//! What each image must have, and the tree of snapshots.

use crate::random::Dice;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

const PLACE: u64 = 64 << 10;
/// How many places at the beginning of each GiB are written to.
const PLACES: u64 = 12;

/// What an image has.
#[derive(Debug, Clone, Default)]
pub struct Content {
    /// The patterns, by place.
    pub places: BTreeMap<u64, u8>,
    /// All places that it has.
    pub known: BTreeSet<u64>,
}

#[derive(Debug, Clone)]
pub struct Disk {
    pub content: Content,
    pub size: u64,
    pub attached: bool,
    /// Whether it is a copy, that no VM ever had.
    pub copy: bool,
    /// The snapshot on whose image it stands.
    pub on: Option<String>,
}

#[derive(Debug, Clone)]
pub struct Snapshot {
    pub name: String,
    pub parent: Option<String>,
    /// By volume.
    pub disks: BTreeMap<String, Content>,
    sizes: BTreeMap<String, u64>,
    /// The snapshot on whose image each of its images stands.
    on: BTreeMap<String, Option<String>>,
}

#[derive(Debug, Default)]
pub struct Model {
    /// By volume.
    pub disks: BTreeMap<String, Disk>,
    /// By id.
    pub snapshots: BTreeMap<String, Snapshot>,
    pub current: Option<String>,
    /// How many deletions may not have come to their end.
    pub hidden: u64,
    system: String,
    data: String,
}

/// A place before this end.
pub fn place(dice: &mut Dice, end: u64) -> u64 {
    let gib = dice.below(end.div_ceil(1 << 30)) << 30;
    gib + dice.below(PLACES) * PLACE
}

fn places(end: u64) -> BTreeSet<u64> {
    (0..end.div_ceil(1 << 30)).flat_map(|gib| (0..PLACES).map(move |place| (gib << 30) + place * PLACE)).collect()
}

impl Model {
    pub fn begin(&mut self, system: &Value, data: &Value) {
        self.system = system["id"].as_str().unwrap().to_owned();
        self.data = data["id"].as_str().unwrap().to_owned();
        for volume in [system, data] {
            let size = volume["size_bytes"].as_u64().unwrap();
            let content = Content { places: BTreeMap::new(), known: places(size) };
            let disk = Disk { content, size, attached: true, copy: false, on: None };
            self.disks.insert(volume["id"].as_str().unwrap().to_owned(), disk);
        }
    }

    /// The VM is gone, and its system disk.
    pub fn without_vm(&mut self) {
        self.disks.remove(&self.system);
    }

    pub fn data(&self) -> String {
        self.data.clone()
    }

    pub fn take(&mut self, id: &str, name: &str) {
        let attached = || self.disks.iter().filter(|(_, disk)| disk.attached);
        let snapshot = Snapshot {
            name: name.to_owned(),
            parent: self.current.clone(),
            disks: attached().map(|(volume, disk)| (volume.clone(), disk.content.clone())).collect(),
            sizes: attached().map(|(volume, disk)| (volume.clone(), disk.size)).collect(),
            on: attached().map(|(volume, disk)| (volume.clone(), disk.on.clone())).collect(),
        };
        self.snapshots.insert(id.to_owned(), snapshot);
        self.stand_on(id);
    }

    fn stand_on(&mut self, id: &str) {
        let disks = &self.snapshots[id].disks;
        for (_, disk) in self.disks.iter_mut().filter(|(volume, disk)| disk.attached && disks.contains_key(*volume)) {
            disk.on = Some(id.to_owned());
        }
        self.current = Some(id.to_owned());
    }

    pub fn revert(&mut self, id: &str) {
        let snapshot = self.snapshots[id].clone();
        for (volume, content) in &snapshot.disks {
            let disk = self.disks.get_mut(volume).unwrap();
            if disk.attached {
                (disk.content, disk.size) = (content.clone(), snapshot.sizes[volume]);
            }
        }
        self.stand_on(id);
    }

    /// The most images that stand on one of a snapshot's.
    pub fn images_on(&self, id: &str) -> usize {
        let on = |on: &Option<String>| usize::from(on.as_deref() == Some(id));
        let of = |volume: &String| {
            let disks = self.disks.iter().filter(|(one, disk)| *one == volume || disk.copy);
            let frozen = self.snapshots.values().filter_map(|one| one.on.get(volume));
            disks.map(|(_, disk)| on(&disk.on)).sum::<usize>() + frozen.map(on).sum::<usize>()
        };
        self.snapshots[id].disks.keys().map(of).max().unwrap_or(0)
    }

    pub fn delete(&mut self, id: &str) {
        let Some(gone) = self.snapshots.remove(id) else { return };
        for one in self.snapshots.values_mut() {
            if one.parent.as_deref() == Some(id) {
                one.parent = gone.parent.clone();
            }
            for (volume, on) in &mut one.on {
                if on.as_deref() == Some(id) {
                    *on = gone.on[volume].clone();
                }
            }
        }
        let data = self.data.clone();
        for (volume, disk) in &mut self.disks {
            if disk.on.as_deref() == Some(id) {
                disk.on = gone.on[if disk.copy { &data } else { volume }].clone();
            }
        }
        if self.current.as_deref() == Some(id) {
            self.current = gone.parent;
        }
    }

    pub fn copy(&mut self, original: &str, id: &str) {
        let disk = Disk { attached: false, copy: true, ..self.disks[original].clone() };
        self.disks.insert(id.to_owned(), disk);
    }
}
