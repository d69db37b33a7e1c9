//! The rows as their nodes have it. Manifests may be some moments behind, and what was at work when the last server died is gone on with by
//! nobody: each thing goes to the end that it is nearer to. Nothing on a node is changed for it; what is left there is told by
//! list-orphans, since it is in the ledger.
//!
//! What a domain is on, and what images' headers say, goes before the rows. Of two images that a deletion of a snapshot was merging that
//! isn't enough to tell which has become what, so the mark on the snapshot is in the manifest before it begins (`write_ahead`), and the
//! server goes on with it.

use crate::store::{RawRow, VmSpec};
use hypervisor::{
    Node,
    domain::{DiskView, DomainText, Power},
};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Compares the rows with the nodes that were reached. They keep their order.
pub async fn settle(rows: Vec<RawRow>, reached: &BTreeMap<String, Node>, notes: &mut Vec<String>) -> Vec<RawRow> {
    let mut domains = HashMap::new();
    for (name, node) in reached {
        match read_domains(name, node, &rows, notes).await {
            Ok(found) => domains.extend(found),
            Err(error) => notes.push(format!("the domains of node {name} could not be read: {error}")),
        }
    }
    let mut settling = Settling { rows, reached, domains, moved: HashSet::new(), notes };
    settling.names_and_sizes();
    settling.attachments();
    settling.images().await;
    settling.unfinished();
    settling.current_snapshots();
    settling.rows
}

/// The domains of the VMs that the rows know on a node, by id: `None` for one that is not there. Those that are Vmyard's by their
/// metadata and in no row are noted.
async fn read_domains(
    name: &str,
    node: &Node,
    rows: &[RawRow],
    notes: &mut Vec<String>,
) -> hypervisor::Result<HashMap<String, Option<DomainText>>> {
    let known = rows.iter().filter(|row| row.table == "vm" && row.text("node") == name);
    let mut domains: HashMap<String, Option<DomainText>> = known.map(|row| (row.text("id").to_owned(), None)).collect();
    for status in node.domains().await? {
        let id = status.uuid.to_string();
        let Some(text) = node.domain_text(status.uuid).await? else { continue };
        if let Some(known) = domains.get_mut(&id) {
            *known = Some(text);
        } else if let Some(marked) = &text.defined.metadata {
            notes.push(format!(
                "domain {} ({id}) on node {name} was VM {} of a Vmyard, and is in no manifest: take it over with `vmyard vm adopt {id}`",
                text.defined.name, marked.name
            ));
        }
    }
    Ok(domains)
}

struct Settling<'a> {
    rows: Vec<RawRow>,
    reached: &'a BTreeMap<String, Node>,
    domains: HashMap<String, Option<DomainText>>,
    /// Volumes that have gone on in another image, with the path that they were on.
    moved: HashSet<(String, String)>,
    notes: &'a mut Vec<String>,
}

impl Settling<'_> {
    fn domain(&self, vm: &str) -> Option<&DomainText> {
        self.domains.get(vm).and_then(Option::as_ref)
    }

    /// Takes over what a VM's definition says of it.
    fn names_and_sizes(&mut self) {
        let domains = &self.domains;
        let mut names: HashSet<String> = HashSet::new();
        names.extend(self.rows.iter().filter(|row| row.table == "vm").map(|row| row.text("name_key").to_owned()));
        for row in self.rows.iter_mut().filter(|row| row.table == "vm") {
            let name = row.text("name").to_owned();
            let text = match domains.get(row.text("id")) {
                Some(Some(text)) => text,
                Some(None) if row.text("phase") == "ready" => {
                    self.notes.push(format!("VM {name} is not defined on node {} any more", row.text("node")));
                    continue;
                }
                _ => continue,
            };
            let Ok(mut spec) = serde_json::from_str::<VmSpec>(row.text("spec")) else { continue };
            let before = spec.clone();
            let view = &text.defined;
            (spec.vcpus, spec.memory_mib) = (view.vcpus, view.memory_mib);
            (spec.max_vcpus, spec.max_memory_mib) = (view.max_vcpus, view.max_memory_mib);
            if let Some(marked) = &view.metadata {
                (spec.tags, spec.description) = (marked.tags.clone(), marked.description.clone());
                if marked.name != name && names.insert(marked.name.to_lowercase()) {
                    self.notes.push(format!("VM {name} is called {} by now", marked.name));
                    row.set("name_key", marked.name.to_lowercase());
                    row.set("name", &*marked.name);
                }
            }
            if spec != before
                && let Ok(json) = serde_json::to_string(&spec)
            {
                row.set("spec", json);
            }
        }
    }

    /// Gives data volumes to the VMs whose disks they are, and takes them from those that don't have them any more.
    fn attachments(&mut self) {
        let vms = self.rows.iter().filter(|row| row.table == "vm");
        let nodes: HashMap<&str, &str> = vms.map(|row| (row.text("id"), row.text("node"))).collect();
        let mut on_disk: HashMap<(&str, &str), (&str, &str)> = HashMap::new();
        for (vm, text) in self.domains.iter().filter_map(|(vm, text)| Some((vm, text.as_ref()?))) {
            let Some(node) = nodes.get(vm.as_str()) else { continue };
            for disk in text.defined.disks.iter().chain(&text.live.disks).filter(|disk| !disk.cdrom) {
                if let Some(path) = disk.path.as_deref() {
                    on_disk.insert((node, path), (vm, &disk.target));
                }
            }
        }
        let mut changes = Vec::new();
        for (at, row) in self.rows.iter().enumerate().filter(|(_, row)| row.table == "volume") {
            let (vm, path) = (row.text("vm"), row.text("path"));
            let holder = on_disk.get(&(row.text("node"), path)).copied();
            let is_there = self.domain(vm).is_some_and(|text| disk_of(text, row.text("device")).is_some());
            match holder {
                Some((holder, device)) if holder != vm => {
                    changes.push((at, Some((holder.to_owned(), device.to_owned()))))
                }
                None if self.domain(vm).is_some() && !is_there && row.text("role") == "data" => {
                    changes.push((at, None))
                }
                _ => {}
            }
        }
        for (at, holder) in changes {
            let row = &mut self.rows[at];
            let name = row.text("name").to_owned();
            if let Some((vm, device)) = holder {
                self.notes.push(format!("volume {name} is {device} of VM {vm} by now"));
                row.set("vm", vm);
                row.set("device", device);
            } else {
                self.notes.push(format!("volume {name} is no VM's any more"));
                row.clear("vm");
                row.clear("device");
                if row.text("phase") == "detaching" {
                    row.set("phase", "ready");
                }
            }
        }
    }

    /// Moves volumes to the images that their VMs are on, and has images stand on what their headers say.
    async fn images(&mut self) {
        let frozen = self.frozen();
        for at in 0..self.rows.len() {
            let row = &self.rows[at];
            let Some(node) = self.reached.get(row.text("node")) else { continue };
            if row.table != "volume" || ["creating", "deleting"].contains(&row.text("phase")) {
                continue;
            }
            let disk = self.domain(row.text("vm")).and_then(|text| disk_of(text, row.text("device")));
            let path = disk.and_then(|disk| disk.path.clone()).unwrap_or_else(|| row.text("path").to_owned());
            // A merge under the running guest, which is gone on with.
            if path != row.text("path") && frozen.contains(&path) {
                continue;
            }
            match node.backing_chain(&path).await {
                Ok(chain) => self.place(at, &path, chain.first().map(|layer| layer.path().to_owned()), &frozen),
                Err(error) => {
                    let note =
                        format!("what volume {} ({path}) stands on could not be read: {error}", row.text("name"));
                    self.notes.push(note);
                }
            }
        }
    }

    /// The paths of the images that snapshots keep.
    fn frozen(&self) -> HashSet<String> {
        self.rows.iter().filter(|row| row.table == "snapshot_disk").map(|row| row.text("path").to_owned()).collect()
    }

    /// Notes where a volume is, and on what.
    fn place(&mut self, at: usize, path: &str, below: Option<String>, frozen: &HashSet<String>) {
        let row = &mut self.rows[at];
        let (name, before) = (row.text("name").to_owned(), row.text("path").to_owned());
        if path != before {
            let (directory, file) = path.rsplit_once('/').unwrap_or_default();
            if before.rsplit_once('/').map(|(directory, _)| directory) != Some(directory) {
                self.notes.push(format!("volume {name} ({before}) is not what its VM is on ({path})"));
                return;
            }
            self.notes.push(format!("volume {name} is on {path} by now (it was on {before})"));
            self.moved.insert((row.text("id").to_owned(), before));
            row.set("file", file);
            row.set("path", path);
        }
        match below.filter(|below| frozen.contains(below)) {
            Some(below) => row.set("base", below),
            None => row.clear("base"),
        }
    }

    /// Ends what was being made.
    fn unfinished(&mut self) {
        let moved = &self.moved;
        let taken: HashSet<String> = self
            .rows
            .iter()
            .filter(|row| row.table == "snapshot_disk")
            .filter(|row| moved.contains(&(row.text("volume").to_owned(), row.text("path").to_owned())))
            .map(|row| row.text("snapshot").to_owned())
            .collect();
        let mut gone = HashSet::new();
        for row in self.rows.iter_mut().filter(|row| row.text("phase") == "creating") {
            let (id, name) = (row.text("id").to_owned(), row.text("name").to_owned());
            let is_reached = self.reached.contains_key(row.text("node"));
            let is_there = match row.table.as_str() {
                "vm" => self.domains.get(&id).is_none_or(Option::is_some),
                "snapshot" => taken.contains(&id),
                "volume" => row.text("role") == "system" || !is_reached,
                _ => false,
            };
            if is_there {
                row.set("phase", "ready");
                if row.table == "volume" && row.text("role") == "data" {
                    self.notes.push(format!("volume {name} was being made: look whether it is whole"));
                }
            } else {
                let what = if row.table == "vm" { "VM" } else { &row.table };
                self.notes.push(format!(
                    "{what} {name} was being made, and is left out: see list-orphans for what is left of it"
                ));
                gone.insert(id);
            }
        }
        let is_gone = |row: &RawRow, column: &str| gone.contains(row.text(column));
        self.rows.retain(|row| match row.table.as_str() {
            "vm" | "template" | "snapshot" => !is_gone(row, "id"),
            "volume" => !is_gone(row, "id") && !is_gone(row, "vm"),
            "template_copy" => !is_gone(row, "template"),
            "snapshot_disk" => !is_gone(row, "snapshot"),
            _ => true,
        });
    }

    /// A VM is on the snapshot that its system disk stands on.
    fn current_snapshots(&mut self) {
        let of_table = |table: &'static str| self.rows.iter().filter(move |row| row.table == table);
        let keep: HashMap<(&str, &str), &str> = of_table("snapshot_disk")
            .map(|row| ((row.text("volume"), row.text("path")), row.text("snapshot")))
            .collect();
        let ready: HashSet<&str> =
            of_table("snapshot").filter(|row| row.text("phase") == "ready").map(|row| row.text("id")).collect();
        let mut on: HashMap<String, Option<String>> = HashMap::new();
        for volume in of_table("volume").filter(|row| row.text("role") == "system") {
            let snapshot = keep.get(&(volume.text("id"), volume.text("base"))).copied();
            // One that goes has handed it to its parent.
            if snapshot.is_none_or(|id| ready.contains(id)) && self.reached.contains_key(volume.text("node")) {
                on.insert(volume.text("vm").to_owned(), snapshot.map(str::to_owned));
            }
        }
        for vm in self.rows.iter_mut().filter(|row| row.table == "vm") {
            match on.get(vm.text("id")) {
                Some(Some(snapshot)) => vm.set("snapshot", snapshot.as_str()),
                Some(None) => vm.clear("snapshot"),
                None => {}
            }
        }
    }
}

/// The disk of this name: of a domain that is on what it has now, else what its definition has.
fn disk_of<'a>(text: &'a DomainText, device: &str) -> Option<&'a DiskView> {
    let view = if text.power == Power::Off { &text.defined } else { &text.live };
    view.disks.iter().find(|disk| disk.target == device && !disk.cdrom)
}
