//! What was at work when the rows were written, and nobody goes on with: each thing goes to the end that it is nearer to, as its node has
//! it. Nothing on a node is changed for it; what is left there is told by list-orphans, since it is in the ledger.

use crate::store::RawRow;
use hypervisor::{Node, domain::DomainView};
use std::collections::{BTreeMap, HashMap, HashSet};
use uuid::Uuid;

/// The rows as their nodes have it, in the order that they have.
pub async fn settle(mut rows: Vec<RawRow>, reached: &BTreeMap<String, Node>, notes: &mut Vec<String>) -> Vec<RawRow> {
    let mut domains: HashMap<String, Option<DomainView>> = HashMap::new();
    for vm in rows.iter().filter(|row| row.table == "vm") {
        let (id, name) = (vm.text("id").to_owned(), vm.text("name"));
        let Some(node) = reached.get(vm.text("node")) else { continue };
        match node.domain(id.parse().unwrap_or(Uuid::nil())).await {
            Ok(found) => {
                if found.is_none() && vm.text("phase") == "ready" {
                    notes.push(format!("VM {name} is not defined on node {} any more", node.name()));
                }
                domains.insert(id, found.map(|(_, view)| view));
            }
            Err(error) => notes.push(format!("VM {name} could not be compared with its domain: {error}")),
        }
    }
    let frozen = frozen(&rows);
    let mut moved = HashSet::new();
    for row in rows.iter_mut().filter(|row| row.table == "volume") {
        let view = domains.get(row.text("vm")).and_then(Option::as_ref);
        let device = row.text("device");
        let disk = view.and_then(|view| view.disks.iter().find(|disk| disk.target == device && !disk.cdrom));
        let Some(path) = disk.and_then(|disk| disk.path.clone()) else { continue };
        if path == row.text("path") {
            continue;
        }
        moved.insert((row.text("id").to_owned(), row.text("path").to_owned()));
        move_volume(row, &path, &frozen, reached, notes).await;
    }
    let taken: HashSet<String> = rows
        .iter()
        .filter(|row| row.table == "snapshot_disk")
        .filter(|row| moved.contains(&(row.text("volume").to_owned(), row.text("path").to_owned())))
        .map(|row| row.text("snapshot").to_owned())
        .collect();
    let mut gone = HashSet::new();
    for row in rows.iter_mut().filter(|row| row.text("phase") == "creating") {
        let (id, name, node) = (row.text("id").to_owned(), row.text("name").to_owned(), row.text("node").to_owned());
        let is_there = match row.table.as_str() {
            "vm" => domains.get(&id).is_none_or(Option::is_some),
            "snapshot" => taken.contains(&id),
            "volume" if row.text("role") == "system" => true,
            "volume" => !reached.contains_key(&node),
            _ => false,
        };
        match is_there {
            true => {
                row.set("phase", "ready");
                if row.table == "volume" && row.text("role") == "data" {
                    notes.push(format!("volume {name} was being made: look whether it is whole"));
                }
            }
            false => {
                notes.push(format!("{} {name} was being made, and is left out: list-orphans tells what is left of it", row.table));
                gone.insert(id);
            }
        }
    }
    let is_gone = |row: &RawRow, column: &str| gone.contains(row.text(column));
    rows.retain(|row| match row.table.as_str() {
        "vm" | "template" | "snapshot" => !is_gone(row, "id"),
        "volume" => !is_gone(row, "id") && !is_gone(row, "vm"),
        "template_copy" => !is_gone(row, "template"),
        "snapshot_disk" => !is_gone(row, "snapshot"),
        _ => true,
    });
    for row in rows.iter_mut().filter(|row| row.table == "vm") {
        if gone.contains(row.text("snapshot")) {
            row.clear("snapshot");
        }
    }
    rows
}

/// The paths of the images that snapshots keep.
fn frozen(rows: &[RawRow]) -> HashSet<String> {
    rows.iter().filter(|row| row.table == "snapshot_disk").map(|row| row.text("path").to_owned()).collect()
}

/// A volume goes on in another image than its row says: a snapshot, a revert or a merge was not noted any more.
async fn move_volume(
    row: &mut RawRow,
    path: &str,
    frozen: &HashSet<String>,
    reached: &BTreeMap<String, Node>,
    notes: &mut Vec<String>,
) {
    let (name, before) = (row.text("name").to_owned(), row.text("path").to_owned());
    let (directory, file) = path.rsplit_once('/').unwrap_or_default();
    if before.rsplit_once('/').map(|(directory, _)| directory) != Some(directory) {
        notes.push(format!("the VM of volume {name} has {path} in its place, which is in no pool of it: compare them (describe-vm-xml)"));
        return;
    }
    let Some(node) = reached.get(row.text("node")) else { return };
    let below = match node.backing_chain(path).await {
        Ok(chain) => chain.first().map(|layer| layer.path().to_owned()),
        Err(error) => {
            notes.push(format!("what volume {name} stands on ({path}) could not be read: {error}"));
            return;
        }
    };
    notes.push(format!("volume {name} is on {path} by now (it was on {before})"));
    row.set("file", file);
    row.set("path", path);
    match below.filter(|below| frozen.contains(below)) {
        Some(below) => row.set("base", below),
        None => row.clear("base"),
    }
}
