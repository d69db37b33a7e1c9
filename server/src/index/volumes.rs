//! The volumes that Vmyard made, by where they are: what a VM's disks are called and how large they are.

use crate::store::{Move, VolumePhase, VolumeRecord};
use std::collections::{HashMap, HashSet};
use uuid::Uuid;

/// The volumes, by node and path.
#[derive(Default)]
pub struct Volumes {
    by_node: HashMap<String, HashMap<String, VolumeRecord>>,
    places: HashMap<Uuid, (String, String)>,
    /// Those that are being detached: few, and asked for with every look at a domain.
    detaching: HashSet<Uuid>,
}

impl Volumes {
    /// The volume at this path.
    pub fn at(&self, node: &str, path: &str) -> Option<&VolumeRecord> {
        self.by_node.get(node)?.get(path)
    }

    /// Those that a VM is to let go of.
    pub(super) fn detaching_from(&self, vm: Uuid) -> Vec<VolumeRecord> {
        let places = self.detaching.iter().filter_map(|id| self.places.get(id));
        let volumes = places.filter_map(|(node, path)| self.at(node, path));
        volumes.filter(|volume| volume.vm == Some(vm)).cloned().collect()
    }

    pub(super) fn put(&mut self, volume: VolumeRecord) {
        self.remove(volume.id);
        let (node, path) = (volume.node.clone(), volume.path.clone());
        if volume.phase == VolumePhase::Detaching {
            self.detaching.insert(volume.id);
        }
        self.places.insert(volume.id, (node.clone(), path.clone()));
        self.by_node.entry(node).or_default().insert(path, volume);
    }

    pub(super) fn move_on(&mut self, one: &Move) {
        let place = self.places.get(&one.volume);
        let Some(volume) = place.and_then(|(node, path)| self.at(node, path)).cloned() else { return };
        self.put(VolumeRecord {
            file: one.to.file.clone(),
            path: one.to.path.clone(),
            base: Some(one.base.clone()),
            size_bytes: one.size_bytes,
            ..volume
        });
    }

    pub(super) fn remove(&mut self, id: Uuid) {
        self.detaching.remove(&id);
        let Some((node, path)) = self.places.remove(&id) else { return };
        if let Some(volumes) = self.by_node.get_mut(&node) {
            volumes.remove(&path);
        }
    }

    pub(super) fn forget_node(&mut self, node: &str) {
        for volume in self.by_node.remove(node).unwrap_or_default().into_values() {
            self.places.remove(&volume.id);
            self.detaching.remove(&volume.id);
        }
    }
}

impl FromIterator<VolumeRecord> for Volumes {
    fn from_iter<T: IntoIterator<Item = VolumeRecord>>(records: T) -> Volumes {
        let mut volumes = Volumes::default();
        records.into_iter().for_each(|volume| volumes.put(volume));
        volumes
    }
}
