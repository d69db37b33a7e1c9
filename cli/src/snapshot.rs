//! `vmyard snapshot`

use crate::{
    change::Change,
    client::Client,
    complete,
    failure::Failure,
    human,
    lists::{self, Kind},
    output::Output,
    table::Cell::{Field, Made},
};
use api::snapshot::{CreateSnapshot, DeleteSnapshot, Quiesce, RevertToSnapshot};
use clap_complete::ArgValueCompleter;
use serde_json::{Value, json};

/// `vmyard snapshot`
#[derive(clap::Subcommand)]
pub enum Verb {
    /// List the snapshots of a VM
    List {
        #[command(flatten)]
        of: Of,
        #[command(flatten)]
        limit: lists::Limit,
    },
    /// Draw the tree of a VM's snapshots
    Tree(Of),
    /// Show a snapshot
    Show(Name),
    /// Take a snapshot of a VM, running or not
    Create(Create),
    /// Take a VM that is off back to a snapshot
    Revert(Revert),
    /// Delete a snapshot; what later ones need of it is merged into them
    Delete(Delete),
}

/// A VM
#[derive(clap::Args)]
pub struct Of {
    /// The VM, by name or id; one that is gone by its id
    #[arg(add = ArgValueCompleter::new(complete::vms))]
    vm: String,
}

/// A snapshot of a VM
#[derive(clap::Args)]
pub struct Name {
    #[command(flatten)]
    of: Of,
    /// The snapshot, by name or id
    snapshot: String,
}

/// `vmyard snapshot create`
#[derive(clap::Args)]
pub struct Create {
    #[command(flatten)]
    of: Of,
    /// The snapshot's name
    name: String,
    /// Save the memory as well
    #[arg(long)]
    memory: bool,
    /// Freeze the guest's file systems by its agent: auto (default), require, never
    #[arg(long, value_name = "HOW", value_parser = quiesce)]
    quiesce: Option<Quiesce>,
    /// A data disk to leave out: vdb
    #[arg(long, value_name = "DEVICE")]
    exclude: Vec<String>,
    /// Free text
    #[arg(long, default_value = "")]
    description: String,
    #[command(flatten)]
    change: Change,
}

/// `vmyard snapshot revert`
#[derive(clap::Args)]
pub struct Revert {
    #[command(flatten)]
    name: Name,
    /// Take a snapshot of this name of what is there first
    #[arg(long, value_name = "NAME")]
    backup: Option<String>,
    #[command(flatten)]
    change: Change,
}

/// `vmyard snapshot delete`
#[derive(clap::Args)]
pub struct Delete {
    #[command(flatten)]
    name: Name,
    #[command(flatten)]
    change: Change,
}

fn quiesce(text: &str) -> Result<Quiesce, String> {
    human::one_of(text, "auto, require or never")
}

/// Snapshots: how they are listed and shown.
pub const KIND: Kind = Kind {
    plural: "snapshots",
    list: ("list-snapshots", "snapshots"),
    show: ("describe-snapshot", "snapshot"),
    columns: &[
        ("NAME", Field("name")),
        ("STATE", Field("state")),
        ("VM WAS", Field("vm_state")),
        ("MEMORY", Field("memory")),
        ("DISKS", Made(devices)),
        ("CURRENT", Field("current")),
        ("CREATED", Field("created_at")),
    ],
    wide: &[
        ("PAUSE MS", Field("pause_ms")),
        ("QUIESCED", Field("quiesced")),
        ("PARENT", Field("parent")),
        ("ID", Field("id")),
        ("DESCRIPTION", Field("description")),
    ],
};

fn devices(snapshot: &Value) -> String {
    let disks = snapshot["disks"].as_array().into_iter().flatten();
    disks.filter_map(|disk| disk["device"].as_str()).collect::<Vec<_>>().join(" ")
}

/// Runs the verb.
pub fn run(client: &Client, output: Output, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::List { of, limit } => lists::list(client, output, &KIND, json!({ "vm": of.vm }), limit.limit),
        Verb::Tree(of) => {
            let all = lists::all(client, &KIND, json!({ "vm": of.vm }), None)?;
            output.answer(&all, || tree(all["snapshots"].as_array().map(Vec::as_slice).unwrap_or_default()))
        }
        Verb::Show(name) => lists::show(client, output, &KIND, &name.snapshot, json!({ "vm": name.of.vm })),
        Verb::Create(args) => {
            let request = CreateSnapshot {
                vm: args.of.vm,
                name: args.name,
                memory: args.memory,
                quiesce: args.quiesce.unwrap_or_default(),
                exclude_disks: args.exclude,
                description: args.description,
            };
            args.change.run(client, output, &request)
        }
        Verb::Revert(args) => {
            let (vm, snapshot) = (args.name.of.vm, args.name.snapshot);
            args.change.run(client, output, &RevertToSnapshot { vm, snapshot, backup: args.backup })
        }
        Verb::Delete(args) => {
            let (vm, snapshot) = (Some(args.name.of.vm), args.name.snapshot);
            args.change.run(client, output, &DeleteSnapshot { vm, snapshot })
        }
    }
}

/// The snapshots as a tree, each with when it was taken; what is being deleted is not in it any more.
///
/// ```text
/// fresh  2026-11-25T16:02:34.113Z
/// ├─ updated  2026-11-25T16:05:59.020Z
/// │  └─ tested  2026-11-25T16:07:11.512Z  <- the VM is here
/// └─ other  2026-11-25T16:09:00.001Z  with memory
/// ```
fn tree(snapshots: &[Value]) -> String {
    let there: Vec<&Value> = snapshots.iter().filter(|one| one["state"] != "deleting").collect();
    let is_root = |one: &&&Value| !there.iter().any(|other| other["id"] == one["parent"]);
    let mut text = String::new();
    for root in there.iter().filter(is_root) {
        draw(&there, root, "", "", &mut text);
    }
    text
}

fn draw(all: &[&Value], one: &Value, before: &str, below: &str, text: &mut String) {
    let of = |field: &str| one[field].as_str().unwrap_or("?");
    text.push_str(&format!("{before}{}  {}", of("name"), of("created_at")));
    for (field, words) in [("memory", "  with memory"), ("current", "  <- the VM is here")] {
        if one[field] == true {
            text.push_str(words);
        }
    }
    text.push('\n');
    let mut children = all.iter().filter(|other| other["parent"] == one["id"]).peekable();
    while let Some(child) = children.next() {
        let (branch, line) = if children.peek().is_some() { ("├─ ", "│  ") } else { ("└─ ", "   ") };
        draw(all, child, &format!("{below}{branch}"), &format!("{below}{line}"), text);
    }
}

#[cfg(test)]
mod tests {
    use super::tree;
    use serde_json::{Value, json};

    #[test]
    fn a_tree_is_drawn() {
        let one = |id: u32, parent: Option<u32>, more: Value| {
            let mut one =
                json!({"id": id, "parent": parent, "name": format!("s{id}"), "created_at": "t", "state": "ready"});
            more.as_object().into_iter().flatten().for_each(|(key, value)| one[key] = value.clone());
            one
        };
        let all = [
            one(1, None, json!({})),
            one(2, Some(1), json!({})),
            one(3, Some(2), json!({"current": true})),
            one(4, Some(1), json!({"memory": true})),
            one(5, None, json!({"state": "deleting"})),
        ];
        assert_eq!(tree(&all), "s1  t\n├─ s2  t\n│  └─ s3  t  <- the VM is here\n└─ s4  t  with memory\n");
        assert_eq!(tree(&[]), "");
    }
}
