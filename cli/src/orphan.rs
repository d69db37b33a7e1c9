//! `vmyard orphan`

use crate::{
    change::Change,
    client::Client,
    complete,
    failure::Failure,
    human,
    lists::{self, Kind},
    output::Output,
    table::Cell::Field,
};
use api::orphan::{CleanOrphans, OrphanKind};
use clap_complete::ArgValueCompleter;
use serde_json::json;

/// `vmyard orphan`
#[derive(clap::Subcommand)]
pub enum Verb {
    /// List files and domains to which nothing of Vmyard's refers any more
    List {
        #[command(flatten)]
        filter: Filter,
        #[command(flatten)]
        limit: lists::Limit,
    },
    /// Delete such files and domains for good, as far as Vmyard has made them and nothing refers to them
    Clean(Clean),
}

/// Which orphans
#[derive(clap::Args)]
pub struct Filter {
    #[command(flatten)]
    on: lists::OnNode,
    /// Only those of this kind: volume, template, seed, nvram, memory, domain
    #[arg(long, value_parser = kind)]
    kind: Option<OrphanKind>,
}

/// `vmyard orphan clean`
#[derive(clap::Args)]
pub struct Clean {
    /// Files by path, domains by UUID
    #[arg(required_unless_present = "all", add = ArgValueCompleter::new(complete::orphans))]
    orphans: Vec<String>,
    /// All that can go
    #[arg(long, conflicts_with = "orphans")]
    all: bool,
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    change: Change,
}

fn kind(text: &str) -> Result<OrphanKind, String> {
    human::one_of(text, "one of volume, template, seed, nvram, memory, domain")
}

/// Orphans: how they are listed.
pub const KIND: Kind = Kind {
    plural: "orphans",
    list: ("list-orphans", "orphans"),
    // There is no more to show of one.
    show: ("", ""),
    columns: &[
        ("KIND", Field("kind")),
        ("NODE", Field("node")),
        ("ID", Field("id")),
        ("SIZE", Field("size_bytes")),
        ("CLEANABLE", Field("cleanable")),
        ("REFERRERS", Field("referrers")),
    ],
    wide: &[
        ("POOL", Field("pool")),
        ("DOMAIN", Field("domain")),
        ("MADE", Field("made_at")),
        ("EVIDENCE", Field("evidence")),
        ("WHY NOT", Field("why_not")),
    ],
};

/// Runs the verb.
pub fn run(client: &Client, output: Output, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::List { filter, limit } => {
            let request = json!({ "node": filter.on.node, "kind": filter.kind });
            lists::list(client, output, &KIND, request, limit.limit)
        }
        Verb::Clean(args) => {
            let orphans = (!args.all).then_some(args.orphans);
            let request = CleanOrphans { orphans, node: args.filter.on.node, kind: args.filter.kind };
            args.change.run(client, output, &request)
        }
    }
}
