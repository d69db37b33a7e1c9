//! `vmyard volume`

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
use api::disk::ModifyDisk;
use api::volume::{
    AttachVolume, CloneVolume, CreateVolume, DeleteVolume, DetachVolume, DiskFormat, ResizeVolume, VolumeState,
};
use clap_complete::ArgValueCompleter;
use serde_json::{Value, json};

/// `vmyard volume`
#[derive(clap::Subcommand)]
pub enum Verb {
    /// List volumes
    List {
        #[command(flatten)]
        within: Within,
        #[command(flatten)]
        filter: Filter,
        #[command(flatten)]
        limit: lists::Limit,
    },
    /// Show a volume
    Show {
        /// The volume, by name or id
        #[arg(add = ArgValueCompleter::new(complete::volumes))]
        volume: String,
        #[command(flatten)]
        within: Within,
    },
    /// Make a blank volume, one over a template, or a copy of another volume
    Create(Create),
    /// Copy a volume, into its own pool or another one
    Clone(Clone),
    /// Make a volume larger, also under a running VM
    Resize(Resize),
    /// Give a volume to a VM
    Attach(Attach),
    /// Take a volume from a VM: ask its guest to let go
    Detach(Detach),
    /// Limit what goes through a disk of a VM
    Limit(Limit),
    /// Delete a volume that no VM has, with its data
    Delete(Delete),
}

/// Which volumes
#[derive(clap::Args)]
pub struct Filter {
    /// Only those in this state: available, attached, detaching, creating, deleting
    #[arg(long, value_parser = state)]
    state: Option<VolumeState>,
    /// Only those of this format: qcow2, raw
    // A name of its own: `format` is the global option of the output.
    #[arg(long = "format", value_name = "FORMAT")]
    of_format: Option<String>,
    /// Only those whose name contains this text
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
}

/// `vmyard volume create`
#[derive(clap::Args)]
pub struct Create {
    /// The new volume's name
    name: String,
    /// Its size, in GiB; a template's or volume's own when left out
    #[arg(long, value_name = "GIB")]
    size: Option<u64>,
    /// The pool [default: default, or the original's]
    #[arg(long, add = ArgValueCompleter::new(complete::pools))]
    pool: Option<String>,
    /// The node; needed only where several have the pool
    #[arg(long, add = ArgValueCompleter::new(complete::nodes))]
    node: Option<String>,
    /// Of a blank one: qcow2 (default) or raw
    #[arg(long = "format", value_name = "FORMAT", value_parser = format)]
    in_format: Option<DiskFormat>,
    /// The template to stand on
    #[arg(long, conflicts_with = "volume", add = ArgValueCompleter::new(complete::templates))]
    template: Option<String>,
    /// The snapshot to stand on, by name (with --vm) or id
    #[arg(long, conflicts_with_all = ["volume", "template"])]
    snapshot: Option<String>,
    /// The VM that the snapshot was taken of
    #[arg(long, requires = "snapshot", add = ArgValueCompleter::new(complete::vms))]
    vm: Option<String>,
    /// Which of the snapshot's disks [default: vda]
    #[arg(long, requires = "snapshot")]
    device: Option<String>,
    /// The volume to copy
    #[arg(long, add = ArgValueCompleter::new(complete::volumes))]
    volume: Option<String>,
    #[command(flatten)]
    change: Change,
}

/// `vmyard volume clone`
#[derive(clap::Args)]
pub struct Clone {
    /// The volume to copy, by name or id
    #[arg(add = ArgValueCompleter::new(complete::volumes))]
    volume: String,
    /// The copy's name
    name: String,
    /// The pool to copy it into [default: the original's]
    #[arg(long, add = ArgValueCompleter::new(complete::pools))]
    pool: Option<String>,
    /// The node to copy it to [default: the original's]
    #[arg(long, add = ArgValueCompleter::new(complete::nodes))]
    node: Option<String>,
    #[command(flatten)]
    change: Change,
}

/// `vmyard volume resize`
#[derive(clap::Args)]
pub struct Resize {
    /// The volume, by name or id
    #[arg(add = ArgValueCompleter::new(complete::volumes))]
    volume: String,
    /// The new size, in GiB
    size: u64,
    #[command(flatten)]
    within: Within,
    #[command(flatten)]
    change: Change,
}

/// `vmyard volume attach`
#[derive(clap::Args)]
pub struct Attach {
    /// The volume, by name or id
    #[arg(add = ArgValueCompleter::new(complete::volumes))]
    volume: String,
    /// The VM, by name or id
    #[arg(add = ArgValueCompleter::new(complete::vms))]
    vm: String,
    /// The device to be [default: the next free one of vdb to vdz]
    #[arg(long)]
    device: Option<String>,
    #[command(flatten)]
    change: Change,
}

/// `vmyard volume detach`
#[derive(clap::Args)]
pub struct Detach {
    /// The volume, by name or id
    #[arg(add = ArgValueCompleter::new(complete::volumes))]
    volume: String,
    /// The VM that has it, by name or id
    #[arg(add = ArgValueCompleter::new(complete::vms))]
    vm: String,
    /// Take it from the definition of a VM that doesn't let go
    #[arg(long)]
    force: bool,
    /// How long the guest has to let go, in seconds [default: 30]
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u32>,
    #[command(flatten)]
    change: Change,
}

/// `vmyard volume limit`: what isn't given stays as it is; 0 takes a limit away
#[derive(clap::Args)]
pub struct Limit {
    /// The VM, by name or id
    #[arg(add = ArgValueCompleter::new(complete::vms))]
    vm: String,
    /// The disk's device: vda, vdb, …
    device: String,
    /// Requests a second in all
    #[arg(long, value_name = "N")]
    iops: Option<u64>,
    /// Requests to read a second
    #[arg(long, value_name = "N")]
    read_iops: Option<u64>,
    /// Requests to write a second
    #[arg(long, value_name = "N")]
    write_iops: Option<u64>,
    /// Bytes a second in all
    #[arg(long, value_name = "BYTES")]
    bytes: Option<u64>,
    /// Bytes read a second
    #[arg(long, value_name = "BYTES")]
    read_bytes: Option<u64>,
    /// Bytes written a second
    #[arg(long, value_name = "BYTES")]
    write_bytes: Option<u64>,
    #[command(flatten)]
    change: Change,
}

/// `vmyard volume delete`
#[derive(clap::Args)]
pub struct Delete {
    /// The volume, by name or id
    #[arg(add = ArgValueCompleter::new(complete::volumes))]
    volume: String,
    #[command(flatten)]
    within: Within,
    #[command(flatten)]
    change: Change,
}

fn state(text: &str) -> Result<VolumeState, String> {
    human::one_of(text, "one of available, attached, detaching, creating, deleting")
}

fn format(text: &str) -> Result<DiskFormat, String> {
    human::one_of(text, "qcow2 or raw")
}

/// Where the volumes are
#[derive(clap::Args)]
pub struct Within {
    /// Only those in this pool
    #[arg(long, add = ArgValueCompleter::new(complete::pools))]
    pool: Option<String>,
    #[command(flatten)]
    on: lists::OnNode,
}

impl Within {
    fn request(self) -> Value {
        json!({ "pool": self.pool, "node": self.on.node })
    }
}

/// Volumes: how they are listed and shown.
pub const KIND: Kind = Kind {
    plural: "volumes",
    list: ("list-volumes", "volumes"),
    show: ("describe-volume", "volume"),
    columns: &[
        ("NAME", Field("name")),
        ("POOL", Field("pool")),
        ("NODE", Field("node")),
        ("SIZE", Field("size_gib")),
        ("STATE", Field("state")),
        ("VM", Field("vm")),
        ("DEVICE", Field("device")),
    ],
    wide: &[
        ("FORMAT", Field("format")),
        ("TAKES", Field("allocation_bytes")),
        ("ID", Field("id")),
        ("PATH", Field("path")),
        ("BACKING", Field("backing")),
    ],
};

/// Runs the verb.
pub fn run(client: &Client, output: Output, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::List { within, filter, limit } => {
            let mut request = within.request();
            request["state"] = json!(filter.state);
            request["format"] = json!(filter.of_format);
            request["name"] = json!(filter.name);
            lists::list(client, output, &KIND, request, limit.limit)
        }
        Verb::Show { volume, within } => lists::show(client, output, &KIND, &volume, within.request()),
        Verb::Create(args) => {
            let request = CreateVolume {
                name: args.name,
                pool: args.pool,
                node: args.node,
                size_gib: args.size,
                format: args.in_format,
                template: args.template,
                volume: args.volume,
                snapshot: args.snapshot,
                vm: args.vm,
                device: args.device,
            };
            args.change.run(client, output, &request)
        }
        Verb::Clone(args) => {
            let request = CloneVolume { volume: args.volume, name: args.name, pool: args.pool, node: args.node };
            args.change.run(client, output, &request)
        }
        Verb::Resize(args) => {
            let (pool, node) = (args.within.pool, args.within.on.node);
            args.change.run(client, output, &ResizeVolume { volume: args.volume, pool, node, size_gib: args.size })
        }
        Verb::Attach(args) => {
            let request = AttachVolume { vm: args.vm, volume: args.volume, device: args.device };
            args.change.run(client, output, &request)
        }
        Verb::Detach(args) => {
            let request = DetachVolume { vm: args.vm, volume: args.volume, force: args.force, timeout_s: args.timeout };
            args.change.run(client, output, &request)
        }
        Verb::Limit(args) => {
            let request = ModifyDisk {
                vm: args.vm,
                device: args.device,
                total_iops: args.iops,
                read_iops: args.read_iops,
                write_iops: args.write_iops,
                total_bytes_per_s: args.bytes,
                read_bytes_per_s: args.read_bytes,
                write_bytes_per_s: args.write_bytes,
            };
            args.change.run(client, output, &request)
        }
        Verb::Delete(args) => {
            let (pool, node) = (args.within.pool, args.within.on.node);
            args.change.run(client, output, &DeleteVolume { volume: args.volume, pool, node })
        }
    }
}
