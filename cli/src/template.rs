//! `vmyard template`

use crate::{
    change::Change,
    client::Client,
    complete,
    failure::Failure,
    lists::{self, Kind},
    output::Output,
    table::Cell::{Field, Made},
};
use api::template::{DeleteTemplate, RegisterTemplate};
use clap_complete::ArgValueCompleter;
use serde_json::{Value, json};

/// `vmyard template`
#[derive(clap::Subcommand)]
pub enum Verb {
    /// List templates
    List(lists::Limit),
    /// Show a template
    Show {
        /// The template, by name or id
        #[arg(add = ArgValueCompleter::new(complete::templates))]
        template: String,
    },
    /// Make a template of an image on a node, a volume or a snapshot: it is copied into a pool
    Register(Register),
    /// Delete a template that no VM's disk stands on
    Delete(Delete),
}

/// `vmyard template register`
#[derive(clap::Args)]
pub struct Register {
    /// The new template's name
    name: String,
    /// The image's absolute path on the node (qcow2 or raw)
    #[arg(long, value_name = "PATH", required_unless_present_any = ["volume", "snapshot"])]
    file: Option<String>,
    /// The volume to make it of
    #[arg(long, conflicts_with_all = ["file", "snapshot"], add = ArgValueCompleter::new(complete::volumes))]
    volume: Option<String>,
    /// The snapshot to make it of, by name (with --vm) or id
    #[arg(long, conflicts_with = "file")]
    snapshot: Option<String>,
    /// The VM that the snapshot was taken of
    #[arg(long, requires = "snapshot", add = ArgValueCompleter::new(complete::vms))]
    vm: Option<String>,
    /// The node that has the file; needed only where there are several
    #[arg(long, add = ArgValueCompleter::new(complete::nodes))]
    node: Option<String>,
    /// The pool to copy it into [default: default]
    #[arg(long, add = ArgValueCompleter::new(complete::pools))]
    pool: Option<String>,
    /// Which operating system is on it, like debian12
    #[arg(long)]
    os: Option<String>,
    /// The user that cloud-init sets up where vm create names none
    #[arg(long, value_name = "USER")]
    default_user: Option<String>,
    /// cloud-init is on it (the default)
    #[arg(long, overrides_with = "no_cloud_init")]
    cloud_init: bool,
    /// cloud-init is not on it: VMs get no seed
    #[arg(long)]
    no_cloud_init: bool,
    /// qemu-guest-agent is on it
    #[arg(long)]
    guest_agent: bool,
    #[command(flatten)]
    change: Change,
}

/// `vmyard template delete`
#[derive(clap::Args)]
pub struct Delete {
    /// The template, by name or id
    #[arg(add = ArgValueCompleter::new(complete::templates))]
    template: String,
    #[command(flatten)]
    change: Change,
}

/// Templates: how they are listed and shown.
pub const KIND: Kind = Kind {
    plural: "templates",
    list: ("list-templates", "templates"),
    show: ("describe-template", "template"),
    columns: &[
        ("NAME", Field("name")),
        ("STATE", Field("state")),
        ("SIZE", Field("size_gib")),
        ("VMS", Field("vms")),
        ("USER", Field("default_user")),
        ("ID", Field("id")),
    ],
    wide: &[
        ("OS", Field("os")),
        ("FORMAT", Field("format")),
        ("CLOUD-INIT", Field("cloud_init")),
        ("GUEST AGENT", Field("guest_agent")),
        ("CREATED", Field("created_at")),
        ("IN", Made(places)),
    ],
};

/// Node and pool of each copy.
fn places(template: &Value) -> String {
    let copies = template["copies"].as_array().into_iter().flatten();
    let of = |copy: &Value, field: &str| copy[field].as_str().unwrap_or("?").to_owned();
    copies.map(|copy| format!("{}/{}", of(copy, "node"), of(copy, "pool"))).collect::<Vec<_>>().join(", ")
}

/// Runs the verb.
pub fn run(client: &Client, output: Output, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::List(args) => lists::list(client, output, &KIND, json!({}), args.limit),
        Verb::Show { template } => lists::show(client, output, &KIND, &template, json!({})),
        Verb::Register(args) => {
            let request = RegisterTemplate {
                name: args.name,
                file: args.file,
                volume: args.volume,
                snapshot: args.snapshot,
                vm: args.vm,
                node: args.node,
                pool: args.pool,
                os: args.os,
                cloud_init: !args.no_cloud_init,
                guest_agent: args.guest_agent,
                default_user: args.default_user,
            };
            args.change.run(client, output, &request)
        }
        Verb::Delete(args) => args.change.run(client, output, &DeleteTemplate { template: args.template }),
    }
}
