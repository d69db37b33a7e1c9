//! `vmyard webhook`

use crate::{
    change::Change,
    client::Client,
    complete,
    events::kind,
    failure::Failure,
    lists::{self, Kind},
    output::Output,
    table::Cell::{Field, Made},
};
use api::{
    event::EventKind,
    webhook::{CreateWebhook, DeleteWebhook},
};
use clap_complete::ArgValueCompleter;
use serde_json::{Value, json};

/// `vmyard webhook`
#[derive(clap::Subcommand)]
pub enum Verb {
    /// List webhooks, with how the last event was taken
    List(lists::Limit),
    /// Show a webhook with its last deliveries
    Show {
        /// The webhook, by name or id
        #[arg(add = ArgValueCompleter::new(complete::webhooks))]
        webhook: String,
    },
    /// Have events sent to a URL from now on, and print the secret that they are signed with, this one time
    Create(Create),
    /// Delete a webhook: nothing is sent any more
    Delete(Delete),
}

/// `vmyard webhook create`
#[derive(clap::Args)]
pub struct Create {
    /// The new webhook's name
    name: String,
    /// Where events are sent, like https://example.org/vmyard
    // Not "url": that is the option which says where the server is.
    #[arg(value_name = "URL")]
    to: String,
    /// Only events of these kinds, like vm-state,task-failed
    #[arg(long, value_name = "KIND", value_delimiter = ',', value_parser = kind)]
    kind: Vec<EventKind>,
    /// Only events about this VM
    #[arg(long, add = ArgValueCompleter::new(complete::vms))]
    vm: Option<String>,
    /// Only events on this node
    #[arg(long, add = ArgValueCompleter::new(complete::nodes))]
    node: Option<String>,
    #[command(flatten)]
    change: Change,
}

/// `vmyard webhook delete`
#[derive(clap::Args)]
pub struct Delete {
    /// The webhook, by name or id
    #[arg(add = ArgValueCompleter::new(complete::webhooks))]
    webhook: String,
    #[command(flatten)]
    change: Change,
}

/// Webhooks: how they are listed and shown.
pub const KIND: Kind = Kind {
    plural: "webhooks",
    list: ("list-webhooks", "webhooks"),
    show: ("describe-webhook", "webhook"),
    columns: &[
        ("NAME", Field("name")),
        ("URL", Field("url")),
        ("KINDS", Made(kinds)),
        ("SENT UP TO", Field("sent_up_to")),
        ("LAST", Field("last_delivery.state")),
        ("ATTEMPTS", Field("last_delivery.attempts")),
        ("ERROR", Field("last_delivery.error")),
    ],
    wide: &[("VM", Field("vm")), ("NODE", Field("node")), ("LOST", Field("lost")), ("ID", Field("id"))],
};

fn kinds(row: &Value) -> String {
    let kinds: Vec<&str> = row["kinds"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if kinds.is_empty() { "all".to_owned() } else { kinds.join(", ") }
}

/// Runs the verb.
pub fn run(client: &Client, output: Output, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::List(args) => lists::list(client, output, &KIND, json!({}), args.limit),
        Verb::Show { webhook } => lists::show(client, output, &KIND, &webhook, json!({})),
        Verb::Create(Create { name, to, kind, vm, node, change }) => {
            change.run(client, output, &CreateWebhook { name, url: to, kinds: kind, vm, node })
        }
        Verb::Delete(args) => args.change.run(client, output, &DeleteWebhook { webhook: args.webhook }),
    }
}
