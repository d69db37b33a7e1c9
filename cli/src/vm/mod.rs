//! `vmyard vm`

mod adopt;
mod console;
mod create;
mod credential;
mod diagnose;
mod exec;
mod list;
mod metrics;
mod modify;
mod screen;
mod seen;
mod show;
mod top;
mod xml;

use crate::{
    change::Change,
    client::Client,
    complete,
    failure::Failure,
    human,
    lists::Kind,
    output::Output,
    table::Cell::{Field, Made},
};
use api::adopt::ReleaseVm;
use api::modify::ResetVmSystem;
use api::vm::{BootDevice, DeleteVm, PauseVm, RebootVm, ResumeVm, StartVm, StopVm};
use clap_complete::ArgValueCompleter;
use serde_json::Value;

/// `vmyard vm`
#[derive(clap::Subcommand)]
pub enum Verb {
    /// List VMs
    List(list::Args),
    /// Create a VM from a template, or one to install from an ISO image
    Create(Box<create::Args>),
    /// Start a VM
    Start(Simple),
    /// Stop a VM: ask the guest to power off, force it after a time
    Stop(Stop),
    /// Reboot a VM: ask the guest, reset it after a time
    Reboot(Stop),
    /// Pause a VM: its memory is kept, its CPUs don't run
    Pause(Simple),
    /// Let a paused VM run on
    Resume(Simple),
    /// Change a VM's name, size, tags or description
    Modify(modify::Args),
    /// Set a VM that is off back to its template: all on its system disk is lost
    Reset(Reset),
    /// Set the password of a user in a VM's guest
    ResetPassword(credential::Password),
    /// Replace the SSH keys of a user in a VM's guest
    ResetKeypair(credential::Keypair),
    /// Run a command in a VM's guest, through its agent: vmyard vm exec NAME -- PROGRAM ARGUMENT…
    Exec(exec::Args),
    /// Take over a VM that another tool made
    Adopt(adopt::Args),
    /// Give a VM back: Vmyard forgets it, the domain and its disks stay
    Release(Simple),
    /// Delete a VM that is off, with its system disk
    Delete(Delete),
    /// Show a VM
    Show(show::Args),
    /// Say how it stands with a VM, or what is wrong with it and what helps
    Diagnose(diagnose::Args),
    /// Show which VMs use most now, again and again
    Top(top::Args),
    /// Show what a VM has used, over time
    Metrics(metrics::Args),
    /// Attend a VM's serial line with this terminal
    Console(console::Args),
    /// Print what a VM has said on its serial line of late
    SerialLog(screen::Log),
    /// Open a VM's screen for one VNC client: prints address and password
    Vnc(Name),
    /// Take a picture of a VM's screen
    Screenshot(screen::Shot),
    /// Print a VM's libvirt XML
    Xml(xml::Args),
}

/// A VM
#[derive(clap::Args)]
pub struct Name {
    /// The VM, by name or id
    #[arg(add = ArgValueCompleter::new(complete::vms))]
    vm: String,
}

/// `vmyard vm reset`
#[derive(clap::Args)]
pub struct Reset {
    #[command(flatten)]
    name: Name,
    /// Another template
    #[arg(long, add = ArgValueCompleter::new(complete::templates))]
    template: Option<String>,
    /// Delete its snapshots as well; without, they are kept
    #[arg(long)]
    snapshots: bool,
    #[command(flatten)]
    change: Change,
}

/// `vmyard vm delete`
#[derive(clap::Args)]
pub struct Delete {
    #[command(flatten)]
    name: Name,
    /// Delete its snapshots as well; without, they are kept
    #[arg(long)]
    snapshots: bool,
    /// Delete its data volumes as well; without, they are detached and kept
    #[arg(long)]
    volumes: bool,
    #[command(flatten)]
    change: Change,
}

/// A verb that changes a VM and needs nothing more
#[derive(clap::Args)]
pub struct Simple {
    #[command(flatten)]
    name: Name,
    #[command(flatten)]
    change: Change,
}

/// `vmyard vm stop` and `vmyard vm reboot`
#[derive(clap::Args)]
pub struct Stop {
    #[command(flatten)]
    name: Name,
    /// Don't ask the guest
    #[arg(long)]
    force: bool,
    /// How long the guest has, in seconds
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u32>,
    #[command(flatten)]
    change: Change,
}

/// VMs: how they are listed and shown.
pub const KIND: Kind = Kind {
    plural: "VMs",
    list: ("list-vms", "vms"),
    show: ("describe-vm", "vm"),
    columns: &[
        ("NAME", Field("name")),
        ("STATE", Made(state)),
        ("NODE", Field("node")),
        ("VCPUS", Field("vcpus")),
        ("MEMORY", Field("memory_mib")),
        ("TEMPLATE", Field("template")),
        ("ID", Field("id")),
    ],
    wide: &[
        ("POOL", Field("pool")),
        ("NETWORKS", Made(networks)),
        ("TAGS", Made(tags)),
        ("CREATED", Field("created_at")),
        ("DOMAIN", Field("domain")),
    ],
};

/// The state, with a word when it may be out of date.
fn state(vm: &Value) -> String {
    described_state(vm["state"].as_str().unwrap_or_default(), vm["stale"] == true)
}

fn described_state(state: &str, stale: bool) -> String {
    format!("{state}{}", if stale { " (stale)" } else { "" })
}

/// Each interface's network, hardware address and, where the answer has them, addresses.
fn networks(vm: &Value) -> String {
    let nic = |nic: &Value| {
        let addresses = nic["addresses"].as_array().into_iter().flatten();
        let addresses = addresses.filter_map(|address| address["address"].as_str());
        let first = [nic["network"].as_str().unwrap_or("-"), nic["mac"].as_str().unwrap_or("?")];
        first.into_iter().chain(addresses).collect::<Vec<_>>().join(" ")
    };
    vm["networks"].as_array().into_iter().flatten().map(nic).collect::<Vec<_>>().join(", ")
}

fn tags(vm: &Value) -> String {
    let tags = vm["tags"].as_object().into_iter().flatten();
    tags.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect::<Vec<_>>().join(" ")
}

fn boot_device(text: &str) -> Result<BootDevice, String> {
    human::one_of(text, "disk, cdrom or network")
}

fn pair(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .ok_or_else(|| "must be KEY=VALUE".to_owned())
}

/// Runs the verb.
pub fn run(client: &Client, output: Output, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::List(args) => list::run(client, output, args),
        Verb::Create(args) => create::run(client, output, *args),
        Verb::Start(args) => args.change.run(client, output, &StartVm { vm: args.name.vm }),
        Verb::Stop(args) => {
            let request = StopVm { vm: args.name.vm, force: args.force, timeout_s: args.timeout };
            args.change.run(client, output, &request)
        }
        Verb::Reboot(args) => {
            let request = RebootVm { vm: args.name.vm, force: args.force, timeout_s: args.timeout };
            args.change.run(client, output, &request)
        }
        Verb::Pause(args) => args.change.run(client, output, &PauseVm { vm: args.name.vm }),
        Verb::Resume(args) => args.change.run(client, output, &ResumeVm { vm: args.name.vm }),
        Verb::Modify(args) => modify::run(client, output, args),
        Verb::Reset(args) => {
            let (vm, template) = (args.name.vm, args.template);
            args.change.run(client, output, &ResetVmSystem { vm, template, delete_snapshots: args.snapshots })
        }
        Verb::ResetPassword(args) => credential::password(client, output, args),
        Verb::ResetKeypair(args) => credential::keypair(client, output, args),
        Verb::Exec(args) => exec::run(client, output, args),
        Verb::Adopt(args) => adopt::run(client, output, args),
        Verb::Release(args) => args.change.run(client, output, &ReleaseVm { vm: args.name.vm }),
        Verb::Delete(args) => {
            let request = DeleteVm { vm: args.name.vm, delete_snapshots: args.snapshots, delete_volumes: args.volumes };
            args.change.run(client, output, &request)
        }
        Verb::Show(args) => show::run(client, output, args),
        Verb::Diagnose(args) => diagnose::run(client, output, args),
        Verb::Top(args) => top::run(client, output, args),
        Verb::Metrics(args) => metrics::run(client, output, args),
        Verb::Console(args) => console::run(client, args),
        Verb::SerialLog(args) => screen::log(client, output, args),
        Verb::Vnc(name) => screen::vnc(client, output, name),
        Verb::Screenshot(args) => screen::shot(client, output, args),
        Verb::Xml(args) => xml::run(client, output, args),
    }
}
