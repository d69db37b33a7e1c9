//! `vmyard task|template|node|pool|network|volume list|show`

use crate::{
    client::{Client, Failure},
    table,
};
use serde_json::{Value, json};

/// `list` and `show`
#[derive(clap::Subcommand)]
pub enum Verb {
    /// List all
    List,
    /// Show one, by name or id, as JSON
    Show {
        /// Its name or id
        name: String,
    },
}

/// A kind of object that can be listed and shown.
pub struct Kind {
    /// The method that lists, and the field of its reply that has the rows.
    list: (&'static str, &'static str),
    /// The method that describes, and the field that names the object.
    show: (&'static str, &'static str),
    /// The columns: a heading and the field of a row.
    columns: &'static [(&'static str, &'static str)],
}

/// Tasks, the newest first.
pub const TASK: Kind = Kind {
    list: ("list-tasks", "tasks"),
    show: ("describe-task", "task"),
    columns: &[
        ("METHOD", "method"),
        ("TARGET", "target.name"),
        ("STATE", "state"),
        ("CREATED", "created_at"),
        ("ID", "id"),
    ],
};

/// Templates.
pub const TEMPLATE: Kind = Kind {
    list: ("list-templates", "templates"),
    show: ("describe-template", "template"),
    columns: &[
        ("NAME", "name"),
        ("STATE", "state"),
        ("GIB", "size_gib"),
        ("VMS", "vms"),
        ("USER", "default_user"),
        ("ID", "id"),
    ],
};

/// Nodes.
pub const NODE: Kind = Kind {
    list: ("list-nodes", "nodes"),
    show: ("describe-node", "node"),
    columns: &[
        ("NAME", "name"),
        ("STATE", "state"),
        ("VIRT", "virt_type"),
        ("VMS", "vms"),
        ("FREE MIB", "free_memory_mib"),
        ("FREE VCPUS", "free_vcpus"),
        ("URI", "uri"),
    ],
};

/// Storage pools.
pub const POOL: Kind = Kind {
    list: ("list-storage-pools", "storage_pools"),
    show: ("describe-storage-pool", "pool"),
    columns: &[
        ("NAME", "name"),
        ("NODE", "node"),
        ("TYPE", "type"),
        ("ACTIVE", "active"),
        ("FREE BYTES", "available_bytes"),
        ("PATH", "path"),
    ],
};

/// Networks.
pub const NETWORK: Kind = Kind {
    list: ("list-networks", "networks"),
    show: ("describe-network", "network"),
    columns: &[("NAME", "name"), ("NODE", "node"), ("FORWARD", "forward"), ("ACTIVE", "active"), ("BRIDGE", "bridge")],
};

/// Volumes.
pub const VOLUME: Kind = Kind {
    list: ("list-volumes", "volumes"),
    show: ("describe-volume", "volume"),
    columns: &[
        ("NAME", "name"),
        ("POOL", "pool"),
        ("NODE", "node"),
        ("GIB", "size_gib"),
        ("STATE", "state"),
        ("VM", "vm"),
        ("DEVICE", "device"),
    ],
};

/// Runs the verb.
pub fn run(client: &Client, kind: &Kind, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::List => list(client, kind),
        Verb::Show { name } => {
            let mut request = json!({});
            request[kind.show.1] = json!(name);
            println!("{:#}", client.call_json(kind.show.0, &request)?);
            Ok(())
        }
    }
}

fn list(client: &Client, kind: &Kind) -> Result<(), Failure> {
    let mut table = table::new(kind.columns.iter().map(|(heading, _)| *heading));
    let mut cursor = Value::Null;
    loop {
        let page = client.call_json(kind.list.0, &json!({ "cursor": cursor }))?;
        for row in page[kind.list.1].as_array().into_iter().flatten() {
            table.add_row(kind.columns.iter().map(|(_, field)| cell(row, field)));
        }
        for node in page["unreachable"].as_array().into_iter().flatten() {
            eprintln!("warning: node {} does not answer; what is on it is missing", cell(node, ""));
        }
        cursor = page["next_cursor"].clone();
        if cursor.is_null() {
            break;
        }
    }
    println!("{table}");
    Ok(())
}

/// A field of a row (`target.name` is one within another) as people read it.
fn cell(row: &Value, field: &str) -> String {
    let value = field.split('.').filter(|name| !name.is_empty()).fold(row, |value, name| &value[name]);
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
