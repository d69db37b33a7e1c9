//! `vmyard vm list`

use crate::{
    client::{Client, to_json},
    complete,
    failure::Failure,
    lists,
    output::Output,
};
use api::vm::{ListVms, VmState};
use clap_complete::ArgValueCompleter;
use std::collections::BTreeMap;

/// `vmyard vm list`
#[derive(clap::Args)]
pub struct Args {
    /// Only VMs whose name contains this
    #[arg(long)]
    name: Option<String>,
    /// Only VMs in this state: running, paused, shutoff, …
    #[arg(long, value_parser = state)]
    state: Option<VmState>,
    /// Only VMs of this node
    #[arg(long, add = ArgValueCompleter::new(complete::nodes))]
    node: Option<String>,
    /// Only VMs with this tag: KEY=VALUE; may be repeated
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = super::pair)]
    tags: Vec<(String, String)>,
    /// The order: name, state, node, created_at or tag:KEY; with - in front from the end
    #[arg(long, value_name = "FIELD", allow_hyphen_values = true)]
    sort: Option<String>,
    #[command(flatten)]
    limit: lists::Limit,
}

fn state(text: &str) -> Result<VmState, String> {
    serde_json::from_value(text.into())
        .map_err(|_| "must be creating, running, paused, shutoff, deleting or unknown".to_owned())
}

/// Lists the VMs.
pub fn run(client: &Client, output: Output, args: Args) -> Result<(), Failure> {
    let tags: BTreeMap<_, _> = args.tags.into_iter().collect();
    let request = ListVms {
        name: args.name,
        state: args.state,
        node: args.node,
        tags: (!tags.is_empty()).then_some(tags),
        sort: args.sort,
        ..ListVms::default()
    };
    lists::list(client, output, &super::KIND, to_json(&request)?, args.limit.limit)
}
