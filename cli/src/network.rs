//! `vmyard network`

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

/// `vmyard network`
#[derive(clap::Subcommand)]
pub enum Verb {
    /// List networks
    List {
        #[command(flatten)]
        on: lists::OnNode,
        #[command(flatten)]
        limit: lists::Limit,
    },
    /// Show a network
    Show {
        /// The network, by name or id
        #[arg(add = ArgValueCompleter::new(complete::networks))]
        network: String,
        #[command(flatten)]
        on: lists::OnNode,
    },
}

/// Networks: how they are listed and shown.
pub const KIND: Kind = Kind {
    plural: "networks",
    list: ("list-networks", "networks"),
    show: ("describe-network", "network"),
    columns: &[
        ("NAME", Field("name")),
        ("NODE", Field("node")),
        ("FORWARD", Field("forward")),
        ("ACTIVE", Field("active")),
        ("BRIDGE", Field("bridge")),
    ],
    wide: &[("ADDRESSES", Field("addresses")), ("DHCP", Field("dhcp")), ("ID", Field("id"))],
};

/// Runs the verb.
pub fn run(client: &Client, output: Output, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::List { on, limit } => lists::list(client, output, &KIND, json!({ "node": on.node }), limit.limit),
        Verb::Show { network, on } => lists::show(client, output, &KIND, &network, json!({ "node": on.node })),
    }
}
