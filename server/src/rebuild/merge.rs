//! Which rows a database will have: those of each node's manifest, in the place of what it had of that node.

use crate::{
    manifest::{Key, Manifest, key},
    store::{RawRow, TABLES},
};
use api::Time;
use std::collections::{HashMap, HashSet};

/// The rows, in the order in which they can be put in.
pub struct Merged {
    /// The rows.
    pub rows: Vec<RawRow>,
    /// The nodes whose manifests were taken, with when they were last written.
    pub read: Vec<(String, Time)>,
    /// What was not taken as it was.
    pub notes: Vec<String>,
}

/// Puts them together. `existing` are the rows that the database has, each with its node. Where manifests contradict each other the one
/// that was written last is right.
pub fn merge(existing: Vec<(String, RawRow)>, mut manifests: Vec<Manifest>) -> Merged {
    manifests.sort_by_key(|manifest| manifest.head.at);
    let read: Vec<_> = manifests.iter().map(|manifest| (manifest.head.node.clone(), manifest.head.at)).collect();
    let replaced: HashSet<String> = read.iter().map(|(node, _)| node.to_lowercase()).collect();
    // Of what every node is told the last manifest knows best. Nodes with a password are in none.
    let stays = |node: &str, row: &RawRow| match node {
        "" => read.is_empty() || row.table == "node",
        node => !replaced.contains(&node.to_lowercase()),
    };
    let existing = existing.into_iter().filter(|(node, row)| stays(node, row));
    let mut rows: HashMap<Key, (Time, RawRow)> = existing.map(|(_, row)| (key(&row), (Time(0), row))).collect();
    let last = manifests.len();
    for (position, manifest) in manifests.into_iter().enumerate() {
        let at = manifest.head.at;
        for (key, row) in manifest.rows {
            let is_last = position + 1 == last;
            if is_last || !row.of().is_some_and(|table| table.is_everywhere()) {
                rows.insert(key, (at, row));
            }
        }
    }
    let mut rows: Vec<(Time, RawRow)> = rows.into_values().collect();
    // The newest first: it keeps its name.
    rows.sort_by(|(at, row), (other_at, other)| other_at.cmp(at).then_with(|| row.text("id").cmp(other.text("id"))));
    let mut rows: Vec<RawRow> = rows.into_iter().map(|(_, row)| row).collect();
    let mut notes = Vec::new();
    make_names_unique(&mut rows, &mut notes);
    drop_loose_ends(&mut rows);
    let place = |row: &RawRow| TABLES.iter().position(|table| table.name == row.table);
    rows.retain(|row| place(row).is_some());
    rows.sort_by_key(place);
    Merged { rows, read, notes }
}

fn make_names_unique(rows: &mut [RawRow], notes: &mut Vec<String>) {
    let mut taken = HashSet::new();
    for row in rows.iter_mut().filter(|row| ["vm", "template", "keypair", "node"].contains(&row.table.as_str())) {
        if taken.insert((row.table.clone(), row.text("name_key").to_owned())) {
            continue;
        }
        let name = format!("{}-{}", row.text("name"), row.text("id").split('-').next().unwrap_or_default());
        notes.push(format!(
            "{} {} ({}) is called {name} now: another one has its name",
            row.table,
            row.text("name"),
            row.text("id")
        ));
        row.set("name_key", name.to_lowercase());
        row.set("name", name);
    }
}

/// Takes out what refers to something that is not there.
fn drop_loose_ends(rows: &mut Vec<RawRow>) {
    let ids = |table: &str| -> HashSet<String> {
        rows.iter().filter(|row| row.table == table).map(|row| row.text("id").to_owned()).collect()
    };
    let (vms, templates, snapshots) = (ids("vm"), ids("template"), ids("snapshot"));
    rows.retain(|row| match row.table.as_str() {
        "template_copy" => templates.contains(row.text("template")),
        "snapshot_disk" => snapshots.contains(row.text("snapshot")),
        _ => true,
    });
    for row in rows.iter_mut() {
        let is_loose = |column: &str, known: &HashSet<String>| {
            let id = row.text(column);
            !id.is_empty() && !known.contains(id)
        };
        let no_template = matches!(row.table.as_str(), "volume" | "snapshot_disk") && is_loose("template", &templates);
        let no_vm = row.table == "volume" && is_loose("vm", &vms);
        if no_template {
            row.clear("template");
        }
        if no_vm {
            row.clear("vm");
            row.clear("device");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Head;
    use serde_json::{Value, json};
    use uuid::Uuid;

    fn row(table: &str, row: Value) -> RawRow {
        serde_json::from_value(json!({"table": table, "row": row})).expect("a row")
    }

    fn named(table: &str, id: &str, name: &str) -> RawRow {
        row(table, json!({"id": id, "name": name, "name_key": name}))
    }

    fn manifest(node: &str, at: i64, rows: &[RawRow]) -> Manifest {
        let (installation, at) = (Uuid::nil(), Time(at));
        let head = Head { installation, node: node.to_owned(), schema: 13, number: 1, whole: true, at };
        Manifest { head, rows: rows.iter().map(|row| (key(row), row.clone())).collect() }
    }

    fn names(merged: &Merged, table: &str) -> Vec<String> {
        let mut names: Vec<_> =
            merged.rows.iter().filter(|row| row.table == table).map(|row| row.text("name")).collect();
        names.sort_unstable();
        names.into_iter().map(str::to_owned).collect()
    }

    #[test]
    fn the_last_manifest_is_right() {
        let old = manifest(
            "a",
            1,
            &[named("template", "t1", "debian"), named("keypair", "k1", "gone"), named("vm", "v1", "web")],
        );
        let new = manifest(
            "b",
            2,
            &[named("template", "t1", "debian-12"), named("keypair", "k2", "new"), named("vm", "v2", "web")],
        );
        let merged = merge(Vec::new(), vec![new, old]);
        assert_eq!(names(&merged, "template"), ["debian-12"]);
        assert_eq!(names(&merged, "keypair"), ["new"]);
        assert_eq!(names(&merged, "vm"), ["web", "web-v1"], "{:?}", merged.notes);
        assert_eq!(merged.notes.len(), 1);
        let read: Vec<_> = merged.read.iter().map(|(node, _)| node.as_str()).collect();
        assert_eq!(read, ["a", "b"]);
    }

    #[test]
    fn what_is_known_of_other_nodes_stays() {
        let existing = [
            ("a", named("vm", "v1", "old")),
            ("c", named("vm", "v3", "elsewhere")),
            ("", named("keypair", "k1", "gone")),
            ("", named("node", "n1", "with-a-password")),
        ];
        let existing = existing.map(|(node, row)| (node.to_owned(), row)).to_vec();
        let merged = merge(existing.clone(), vec![manifest("A", 1, &[named("vm", "v2", "new")])]);
        assert_eq!(names(&merged, "vm"), ["elsewhere", "new"]);
        assert_eq!(names(&merged, "keypair"), [""; 0]);
        assert_eq!(names(&merged, "node"), ["with-a-password"]);
        assert_eq!(merge(existing, Vec::new()).rows.len(), 4);
    }

    #[test]
    fn nothing_refers_to_what_is_not_there() {
        let volume = json!({"id": "d1", "name": "disk", "vm": "v9", "device": "vdb", "template": "t9"});
        let rows = [
            row("volume", volume),
            row("template_copy", json!({"template": "t9", "node": "a"})),
            row("snapshot_disk", json!({"snapshot": "s9", "volume": "d1"})),
            row("of_the_future", json!({"id": "x"})),
        ];
        let merged = merge(Vec::new(), vec![manifest("a", 1, &rows)]);
        let expected = json!({"id": "d1", "name": "disk", "vm": null, "device": null, "template": null});
        assert_eq!(merged.rows, [row("volume", expected)]);
    }
}
