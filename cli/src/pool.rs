//! `vmyard pool`

use crate::{
    client::Client,
    complete,
    failure::Failure,
    lists::{self, Kind},
    output::Output,
    table::Cell::Field,
};
use clap_complete::ArgValueCompleter;
use serde_json::json;

/// `vmyard pool`
#[derive(clap::Subcommand)]
pub enum Verb {
    /// List storage pools
    List {
        #[command(flatten)]
        on: lists::OnNode,
        #[command(flatten)]
        limit: lists::Limit,
    },
    /// Show a storage pool
    Show {
        /// The storage pool, by name or id
        #[arg(add = ArgValueCompleter::new(complete::pools))]
        pool: String,
        #[command(flatten)]
        on: lists::OnNode,
    },
}

/// Storage pools: how they are listed and shown.
pub const KIND: Kind = Kind {
    plural: "pools",
    list: ("list-storage-pools", "storage_pools"),
    show: ("describe-storage-pool", "pool"),
    columns: &[
        ("NAME", Field("name")),
        ("NODE", Field("node")),
        ("TYPE", Field("type")),
        ("ACTIVE", Field("active")),
        ("FREE", Field("available_bytes")),
        ("PATH", Field("path")),
    ],
    wide: &[("USED", Field("allocation_bytes")), ("SIZE", Field("capacity_bytes")), ("ID", Field("id"))],
};

/// Runs the verb.
pub fn run(client: &Client, output: Output, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::List { on, limit } => lists::list(client, output, &KIND, json!({ "node": on.node }), limit.limit),
        Verb::Show { pool, on } => lists::show(client, output, &KIND, &pool, json!({ "node": on.node })),
    }
}
