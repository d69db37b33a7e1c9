//! The VMs, found by id or by name.

use super::{Entry, Seen, change::Change};
use crate::store::{VmRecord, name_key};
use std::{
    collections::{BTreeSet, HashMap},
    ops::Bound,
    sync::Arc,
};
use uuid::Uuid;

/// The VMs. One that is neither recorded nor seen is dropped.
#[derive(Default)]
pub(super) struct Entries {
    by_id: HashMap<Uuid, Entry>,
    /// By the key of the name: 10,000 names aren't brought to lower case for each call.
    by_name: BTreeSet<(Arc<str>, Uuid)>,
    /// What has changed, and wasn't told yet.
    changes: Vec<Change>,
}

impl Entries {
    pub(super) fn get(&self, id: Uuid) -> Option<&Entry> {
        self.by_id.get(&id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Uuid, &Entry)> {
        self.by_id.iter().map(|(id, entry)| (*id, entry))
    }

    /// The VMs of this name, without case.
    pub(super) fn named(&self, name: &str) -> impl Iterator<Item = (Uuid, &Entry)> {
        let key: Arc<str> = name_key(name).into();
        let found = self.by_name.range((Arc::clone(&key), Uuid::nil())..=(key, Uuid::max()));
        found.filter_map(|(_, id)| Some((*id, self.by_id.get(id)?)))
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.by_id.len()
    }

    /// So many VMs in the order of the keys of their names, and of their ids where those are the same, from the one after this on;
    /// or backwards.
    pub(super) fn by_name(
        &self,
        after: Option<(&str, Uuid)>,
        backwards: bool,
        count: usize,
    ) -> impl Iterator<Item = (Uuid, &Entry)> {
        let after = after.map_or(Bound::Unbounded, |(key, id)| Bound::Excluded((Arc::from(key), id)));
        let found: Vec<_> = match backwards {
            false => self.by_name.range((after, Bound::Unbounded)).take(count).collect(),
            true => self.by_name.range((Bound::Unbounded, after)).rev().take(count).collect(),
        };
        found.into_iter().filter_map(|(_, id)| Some((*id, self.by_id.get(id)?)))
    }

    /// What its node told of a VM. Its view is replaced by [`Entries::change`] only, since a name may come from it.
    pub(super) fn seen_mut(&mut self, id: Uuid) -> Option<&mut Seen> {
        self.by_id.get_mut(&id)?.seen.as_mut()
    }

    /// The same, of a VM of this node.
    pub(super) fn seen_on(&mut self, id: Uuid, node: &str) -> Option<&mut Seen> {
        self.by_id.get_mut(&id).filter(|entry| entry.node == node)?.seen.as_mut()
    }

    /// Changes a VM, a new one of this node if there is none.
    pub(super) fn change_or_add(&mut self, id: Uuid, node: &str, f: impl FnOnce(&mut Entry)) {
        let is_new = !self.by_id.contains_key(&id);
        let new = || Entry { node: node.to_owned(), record: None, seen: None, name_key: Arc::default() };
        self.by_id.entry(id).or_insert_with(new);
        self.change_from(id, is_new, f);
    }

    /// Changes a VM, if it is there.
    pub(super) fn change(&mut self, id: Uuid, f: impl FnOnce(&mut Entry)) {
        self.change_from(id, false, f);
    }

    fn change_from(&mut self, id: Uuid, is_new: bool, f: impl FnOnce(&mut Entry)) {
        let Some(entry) = self.by_id.get_mut(&id) else { return };
        let before = (!is_new).then(|| entry.state());
        let (was, managed, seen_before) = (entry.name().to_owned(), entry.record.is_some(), entry.seen.is_some());
        f(entry);
        let gone = entry.record.is_none() && entry.seen.is_none();
        let now = (!gone).then(|| entry.state());
        if before != now {
            let name = if gone { was } else { entry.name().to_owned() };
            let managed = managed || entry.record.is_some();
            let node = entry.node.clone();
            self.changes.push(Change { id, name, node, managed, before, now, seen_before, unseen: false });
        }
        let key = name_key(entry.name());
        if gone || *entry.name_key != *key {
            let before = std::mem::replace(&mut entry.name_key, key.into());
            let now = Arc::clone(&entry.name_key);
            self.by_name.remove(&(before, id));
            match gone {
                true => drop(self.by_id.remove(&id)),
                false => drop(self.by_name.insert((now, id))),
            }
        }
    }

    /// What has changed since this was asked the last time.
    pub(super) fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }
}

impl FromIterator<VmRecord> for Entries {
    fn from_iter<T: IntoIterator<Item = VmRecord>>(records: T) -> Entries {
        let mut entries = Entries::default();
        for record in records {
            let node = record.node.clone();
            entries.change_or_add(record.id, &node, |entry| entry.record = Some(record));
        }
        // They were there before this server was.
        entries.changes.clear();
        entries
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::view, *};
    use hypervisor::domain::Power;

    #[test]
    fn a_vm_is_found_by_the_name_it_has_now() {
        let mut entries = Entries::default();
        let (id, twin) = (Uuid::new_v4(), Uuid::new_v4());
        let named = |entries: &Entries, name: &str| {
            let mut ids: Vec<Uuid> = entries.named(name).map(|(id, _)| id).collect();
            ids.sort_unstable();
            ids
        };
        let see = |entries: &mut Entries, id, name: &str| {
            let seen = Seen::of(Power::Off, view(id, name), None, 1);
            entries.change_or_add(id, "a", |entry| entry.seen = Some(seen));
        };
        see(&mut entries, id, "Web.1");
        see(&mut entries, twin, "web.1");
        assert_eq!(named(&entries, "WEB.1"), if id < twin { [id, twin] } else { [twin, id] });
        see(&mut entries, twin, "web.10");
        assert_eq!((named(&entries, "web.1"), named(&entries, "web.10")), (vec![id], vec![twin]));
        let page = |after, backwards| {
            let page = entries.by_name(after, backwards, 9);
            page.map(|(_, entry)| entry.name_key().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(page(None, false), ["web.1", "web.10"]);
        assert_eq!(page(None, true), ["web.10", "web.1"]);
        assert_eq!(
            (page(Some(("web.1", id)), false), page(Some(("web.1", id)), true)),
            (vec!["web.10".to_owned()], vec![])
        );
        assert_eq!(entries.by_name(None, true, 1).count(), 1);
        entries.change(id, |entry| entry.seen = None);
        assert!(entries.get(id).is_none() && named(&entries, "web.1").is_empty());
        assert_eq!((entries.by_name.len(), entries.iter().count()), (1, 1));
    }
}
