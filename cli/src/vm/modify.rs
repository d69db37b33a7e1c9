//! `vmyard vm modify`

use super::Name;
use crate::{change::Change, client::Client, failure::Failure, output::Output};
use api::{modify::ModifyVmSpec, vm::BootDevice};

/// `vmyard vm modify`
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    vm: Name,
    /// The new name
    #[arg(long = "name", value_name = "NAME")]
    new_name: Option<String>,
    /// Virtual CPUs
    #[arg(long, value_name = "N")]
    vcpus: Option<u32>,
    /// Memory in MiB
    #[arg(long, value_name = "MIB")]
    memory: Option<u64>,
    /// A tag: KEY=VALUE; may be repeated. They replace all tags that the VM has
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = super::pair)]
    tags: Vec<(String, String)>,
    /// Take all tags away
    #[arg(long, conflicts_with = "tags")]
    no_tags: bool,
    /// Free text
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// What it boots from, in this order: disk, cdrom, network
    #[arg(long, value_name = "DEVICE,…", value_delimiter = ',', value_parser = super::boot_device)]
    boot: Vec<BootDevice>,
    /// Start it whenever its host is booted: true or false
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    autostart: Option<bool>,
    /// Plug virtual CPUs and memory into the running VM, as far as its maxima, instead of waiting for its next boot
    #[arg(long)]
    live: bool,
    #[command(flatten)]
    change: Change,
}

/// Changes the VM.
pub fn run(client: &Client, output: Output, args: Args) -> Result<(), Failure> {
    let request = ModifyVmSpec {
        vm: args.vm.vm,
        name: args.new_name,
        vcpus: args.vcpus,
        memory_mib: args.memory,
        tags: (args.no_tags || !args.tags.is_empty()).then(|| args.tags.into_iter().collect()),
        description: args.description,
        boot_order: (!args.boot.is_empty()).then_some(args.boot),
        autostart: args.autostart,
        live: args.live,
    };
    args.change.run(client, output, &request)
}
