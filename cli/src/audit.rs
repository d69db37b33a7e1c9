//! `vmyard audit`

use crate::{
    client::Client,
    failure::Failure,
    human,
    lists::{self, Kind},
    output::Output,
    table::Cell::Field,
};
use api::Time;
use serde_json::json;

/// `vmyard audit`
#[derive(clap::Subcommand)]
pub enum Verb {
    /// List the calls that changed something or were refused it, and sign-ins, the newest first
    List(List),
}

/// `vmyard audit list`
#[derive(clap::Args)]
pub struct List {
    /// Only calls of this method, like delete-vm
    #[arg(long)]
    method: Option<String>,
    /// Only calls under the token of this name
    #[arg(long)]
    caller: Option<String>,
    /// Only calls that work on the object with this id, or this name at that time
    #[arg(long)]
    target: Option<String>,
    /// Only calls at this moment or later, like 2026-11-24T00:00:00Z
    #[arg(long, value_name = "TIME", value_parser = human::moment)]
    since: Option<Time>,
    /// Only calls before this moment
    #[arg(long, value_name = "TIME", value_parser = human::moment)]
    until: Option<Time>,
    #[command(flatten)]
    limit: lists::Limit,
}

/// The audit: how it is listed.
pub const KIND: Kind = Kind {
    plural: "calls",
    list: ("list-audit", "audit"),
    // There is no more to show of one.
    show: ("", ""),
    columns: &[
        ("AT", Field("at")),
        ("CALLER", Field("caller")),
        ("METHOD", Field("method")),
        ("KIND", Field("target.kind")),
        ("TARGET", Field("target.name")),
        ("OUTCOME", Field("outcome")),
        ("TASK", Field("task")),
    ],
    wide: &[("FROM", Field("remote")), ("TARGET ID", Field("target.id")), ("REQUEST", Field("request_id"))],
};

/// Runs the verb.
pub fn run(client: &Client, output: Output, verb: Verb) -> Result<(), Failure> {
    let Verb::List(args) = verb;
    let request = json!({
        "method": args.method,
        "caller": args.caller,
        "target": args.target,
        "since": args.since,
        "until": args.until,
    });
    lists::list(client, output, &KIND, request, args.limit.limit)
}
