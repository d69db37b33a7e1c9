//! `vmyard node`

use crate::{
    change::Change,
    client::Client,
    complete,
    failure::Failure,
    lists::{self, Kind},
    output::Output,
    table::Cell::Field,
};
use api::node::{AddNode, DeleteNode, DisableNode, EnableNode, VirtType};
use clap_complete::ArgValueCompleter;
use serde_json::json;

/// `vmyard node`
#[derive(clap::Subcommand)]
pub enum Verb {
    /// List nodes
    List(lists::Limit),
    /// Show a node
    Show {
        /// The node, by name or id
        #[arg(add = ArgValueCompleter::new(complete::nodes))]
        node: String,
    },
    /// Add a libvirt host that the server can reach
    Add(Add),
    /// Let new VMs be placed on a node again
    Enable(One),
    /// Place no new VM on a node any more; the VMs that are there go on
    Disable(One),
    /// Forget a node that was added and is disabled; nothing on the host is touched
    Delete {
        #[command(flatten)]
        one: One,
        /// Forget its VMs as well: for a host that is gone for good
        #[arg(long)]
        forget_vms: bool,
    },
}

/// `vmyard node add`
#[derive(clap::Args)]
pub struct Add {
    /// The new node's name
    name: String,
    /// Its libvirt URI, like qemu+ssh://root@host/system
    uri: String,
    /// How guests run, kvm or qemu [default: what the host has]
    #[arg(long, value_name = "TYPE", value_parser = ["kvm", "qemu"])]
    virt_type: Option<String>,
    /// Virtual CPUs that may be reserved for each CPU of the host [default: 16]
    #[arg(long, value_name = "FACTOR")]
    cpu_overcommit: Option<f64>,
    /// Memory that may be reserved, as a multiple of the host's [default: 1]
    #[arg(long, value_name = "FACTOR")]
    memory_overcommit: Option<f64>,
    /// Memory kept for the host itself, in MiB [default: 512]
    #[arg(long, value_name = "MIB")]
    reserved_memory: Option<u64>,
    /// Where the pool `default` is made on the host when there is none
    #[arg(long, value_name = "PATH")]
    default_pool_path: Option<String>,
    /// Where the pool of the seeds is made on the host
    #[arg(long, value_name = "PATH")]
    seed_pool_path: Option<String>,
    #[command(flatten)]
    change: Change,
}

/// A node, by name or id.
#[derive(clap::Args)]
pub struct One {
    /// The node, by name or id
    #[arg(add = ArgValueCompleter::new(complete::nodes))]
    node: String,
    #[command(flatten)]
    change: Change,
}

/// Nodes: how they are listed and shown.
pub const KIND: Kind = Kind {
    plural: "nodes",
    list: ("list-nodes", "nodes"),
    show: ("describe-node", "node"),
    columns: &[
        ("NAME", Field("name")),
        ("STATE", Field("state")),
        ("ENABLED", Field("enabled")),
        ("VIRT", Field("virt_type")),
        ("VMS", Field("vms")),
        ("FREE MEMORY", Field("free_memory_mib")),
        ("FREE VCPUS", Field("free_vcpus")),
        ("URI", Field("uri")),
    ],
    wide: &[
        ("HOSTNAME", Field("hostname")),
        ("CPUS", Field("cpus")),
        ("MEMORY", Field("memory_mib")),
        ("LIBVIRT", Field("libvirt_version")),
        ("QEMU", Field("qemu_version")),
        ("SINCE", Field("since")),
        ("ID", Field("id")),
        ("ERROR", Field("error")),
    ],
};

/// Runs the verb.
pub fn run(client: &Client, output: Output, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::List(args) => lists::list(client, output, &KIND, json!({}), args.limit),
        Verb::Show { node } => lists::show(client, output, &KIND, &node, json!({})),
        Verb::Add(args) => {
            let virt_type = args.virt_type.map(|name| if name == "kvm" { VirtType::Kvm } else { VirtType::Qemu });
            let request = AddNode {
                name: args.name,
                uri: args.uri,
                virt_type,
                cpu_overcommit: args.cpu_overcommit,
                memory_overcommit: args.memory_overcommit,
                reserved_memory_mib: args.reserved_memory,
                default_pool_path: args.default_pool_path,
                seed_pool_path: args.seed_pool_path,
            };
            args.change.run(client, output, &request)
        }
        Verb::Enable(one) => one.change.run(client, output, &EnableNode { node: one.node }),
        Verb::Disable(one) => one.change.run(client, output, &DisableNode { node: one.node }),
        Verb::Delete { one, forget_vms } => one.change.run(client, output, &DeleteNode { node: one.node, forget_vms }),
    }
}
