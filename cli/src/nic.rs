//! `vmyard nic`

use crate::{change::Change, client::Client, complete, failure::Failure, human, output::Output};
use api::nic::{AttachNetwork, DetachNetwork, Link, ModifyNic};
use clap_complete::ArgValueCompleter;
use std::net::Ipv4Addr;

/// `vmyard nic`
#[derive(clap::Subcommand)]
pub enum Verb {
    /// Give a VM another interface, also while it runs
    Attach(Attach),
    /// Take an interface from a VM: ask its guest to let go
    Detach(Detach),
    /// Take an interface's link up or down, or limit its rates
    Modify(Modify),
}

/// `vmyard nic attach`
#[derive(clap::Args)]
pub struct Attach {
    /// The VM, by name or id
    #[arg(add = ArgValueCompleter::new(complete::vms))]
    vm: String,
    /// The network, by name or id
    #[arg(add = ArgValueCompleter::new(complete::networks))]
    network: String,
    /// The hardware address [default: chosen]
    #[arg(long)]
    mac: Option<String>,
    /// The IPv4 address to reserve for it
    #[arg(long)]
    ip: Option<Ipv4Addr>,
    /// With its link down
    #[arg(long)]
    down: bool,
    #[command(flatten)]
    change: Change,
}

/// `vmyard nic detach`
#[derive(clap::Args)]
pub struct Detach {
    #[command(flatten)]
    nic: Nic,
    /// How long the guest has to let go, in seconds [default: 30]
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u32>,
    #[command(flatten)]
    change: Change,
}

/// `vmyard nic modify`
#[derive(clap::Args)]
pub struct Modify {
    #[command(flatten)]
    nic: Nic,
    /// Its link: up or down
    #[arg(long, value_parser = link)]
    link: Option<Link>,
    /// The most that goes to the guest, in kB/s (1,000 bytes); 0 for no limit
    #[arg(long, value_name = "KB")]
    rx: Option<u64>,
    /// The most that comes from the guest, in kB/s; 0 for no limit
    #[arg(long, value_name = "KB")]
    tx: Option<u64>,
    #[command(flatten)]
    change: Change,
}

/// An interface of a VM
#[derive(clap::Args)]
pub struct Nic {
    /// The VM, by name or id
    #[arg(add = ArgValueCompleter::new(complete::vms))]
    vm: String,
    /// Its hardware address (vmyard vm show tells it)
    mac: String,
}

fn link(text: &str) -> Result<Link, String> {
    human::one_of(text, "up or down")
}

/// Runs the verb.
pub fn run(client: &Client, output: Output, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Attach(args) => {
            let link = if args.down { Link::Down } else { Link::Up };
            let request = AttachNetwork { vm: args.vm, network: args.network, mac: args.mac, ip: args.ip, link };
            args.change.run(client, output, &request)
        }
        Verb::Detach(args) => {
            let request = DetachNetwork { vm: args.nic.vm, mac: args.nic.mac, timeout_s: args.timeout };
            args.change.run(client, output, &request)
        }
        Verb::Modify(args) => {
            let (Nic { vm, mac }, link) = (args.nic, args.link);
            args.change.run(client, output, &ModifyNic { vm, mac, link, rx_kb_per_s: args.rx, tx_kb_per_s: args.tx })
        }
    }
}
