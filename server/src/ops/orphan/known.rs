//! What Vmyard knows: which files and VMs its objects refer to, and what it has made.

use crate::{App, Result, store::MadeRecord};
use api::orphan::OrphanKind;
use std::collections::{HashMap, HashSet};
use uuid::Uuid;

/// What the store says. Files are compared by their names alone, on whatever node: each has a fresh id in it, and a pool may be shared
/// by nodes.
#[derive(Default)]
pub struct Known {
    /// Images and memory that volumes, templates and snapshots have, or that are leftovers.
    files: HashSet<String>,
    /// The VMs, whatever their phase. Files that begin with a VM's id are its own.
    vms: HashSet<Uuid>,
    /// Tasks that have not ended.
    open: HashSet<Uuid>,
    /// The ledger.
    ledger: HashMap<Key, MadeRecord>,
}

/// What the ledger knows a thing by: whether it is a domain, its pool, its name.
type Key = (bool, Option<Uuid>, String);

impl Known {
    /// What the store says now.
    pub async fn read(app: &App) -> Result<Known> {
        // Open tasks first: what ends meanwhile has its rows by then.
        let open = app.store.open_tasks().await?.into_iter().map(|task| task.id).collect();
        let mut files: HashSet<String> = app.store.volumes().await?.into_iter().map(|volume| volume.file).collect();
        files.extend(app.store.template_copies(None).await?.into_iter().map(|copy| copy.file));
        let of_snapshots = app.store.snapshot_files().await?.into_iter();
        files.extend(of_snapshots.map(|(_, path)| name_of(&path).to_owned()));
        let vms = app.store.vms().await?.into_iter().map(|vm| vm.id).collect();
        let ledger = app.store.ledger().await?.into_iter().map(|record| (key(&record), record)).collect();
        Ok(Known { files, vms, open, ledger })
    }

    /// Together with what the store said at another moment: what came or went in between is known.
    pub fn and(mut self, other: Known) -> Known {
        self.files.extend(other.files);
        self.vms.extend(other.vms);
        self.open.extend(other.open);
        self.ledger.extend(other.ledger);
        self
    }

    /// Whether an object of Vmyard's refers to a file of this name.
    pub fn refers_to_file(&self, name: &str) -> bool {
        self.files.contains(name) || id_in(name).is_some_and(|id| self.vms.contains(&id))
    }

    /// Whether Vmyard has a VM of this id.
    pub fn has_vm(&self, id: Uuid) -> bool {
        self.vms.contains(&id)
    }

    /// Who has made the file of this name in this pool, or, of the pool of the seeds, what belongs to that VM.
    pub fn maker_of_file(&self, pool: Uuid, of_seeds: bool, name: &str) -> Option<&MadeRecord> {
        match of_seeds {
            true => self.ledger.get(&(false, None, id_in(name)?.to_string())),
            false => self.ledger.get(&(false, Some(pool), name.to_owned())),
        }
    }

    /// Who has made a domain.
    pub fn maker_of_domain(&self, id: Uuid) -> Option<&MadeRecord> {
        self.ledger.get(&(true, None, id.to_string()))
    }

    /// Whether the task that has made it is still at work, or being unwound.
    pub fn is_at_work(&self, record: &MadeRecord) -> bool {
        self.open.contains(&record.by.task)
    }

    /// What was made by tasks that have ended, and what nothing refers to.
    pub fn left_over(&self) -> impl Iterator<Item = &MadeRecord> {
        self.ledger.values().filter(|record| {
            let id = || Uuid::try_parse(&record.made.file).ok();
            let referred = match record.made.pool {
                Some(_) => self.refers_to_file(&record.made.file),
                None => id().is_some_and(|id| self.has_vm(id)),
            };
            !referred && !self.is_at_work(record)
        })
    }
}

fn key(record: &MadeRecord) -> Key {
    let made = &record.made;
    (made.kind == OrphanKind::Domain, made.pool, made.file.clone())
}

/// The last part of a path.
pub fn name_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

/// The id that a file's name begins with, in the form that Vmyard writes.
pub fn id_in(name: &str) -> Option<Uuid> {
    let (id, _) = name.split_once('.')?;
    Uuid::try_parse(id).ok().filter(|uuid| uuid.to_string() == id)
}

/// What a file would be, by its name, if Vmyard had made it.
pub fn looks_like(of_seeds: bool, name: &str) -> Option<OrphanKind> {
    id_in(name)?;
    let (_, rest) = name.split_once('.')?;
    match rest {
        _ if of_seeds => Some(OrphanKind::Seed),
        "qcow2" | "raw" => Some(OrphanKind::Volume),
        "nvram.fd" => Some(OrphanKind::Nvram),
        "memory" => Some(OrphanKind::Memory),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_ours() {
        let id = "0193d1f0-6c1a-7a44-8d2e-0c3f5a5b7e11";
        let of = |seeds, rest: &str| looks_like(seeds, &format!("{id}{rest}"));
        assert_eq!(of(false, ".qcow2"), Some(OrphanKind::Volume));
        assert_eq!(of(false, ".nvram.fd"), Some(OrphanKind::Nvram));
        assert_eq!(of(false, ".memory"), Some(OrphanKind::Memory));
        assert_eq!(of(true, ".serial.log.0"), Some(OrphanKind::Seed));
        for (seeds, name) in [
            (false, format!("{id}.iso")),
            (false, format!("{id}.qcow2.bak")),
            (false, id.to_owned()),
            (false, format!("{}.qcow2", id.to_uppercase())),
            (false, format!("{}.qcow2", id.replace('-', ""))),
            (true, "web.iso".to_owned()),
        ] {
            assert_eq!(looks_like(seeds, &name), None, "{name}");
        }
    }
}
