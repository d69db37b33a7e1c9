//! `vmyard iso`

use crate::{change::Change, client::Client, complete, failure::Failure, output::Output};
use api::iso::{AttachIso, EjectIso};
use clap_complete::ArgValueCompleter;

/// `vmyard iso`
#[derive(clap::Subcommand)]
pub enum Verb {
    /// Put an ISO image into a VM's CD-ROM drive, also while it runs
    Attach(Attach),
    /// Take the ISO image out of a VM's CD-ROM drive
    Eject(Eject),
}

/// `vmyard iso attach`
#[derive(clap::Args)]
pub struct Attach {
    /// The ISO image: its file in a pool of the VM's node
    iso: String,
    #[command(flatten)]
    drive: Drive,
    /// The pool that has it [default: default]
    #[arg(long, add = ArgValueCompleter::new(complete::pools))]
    pool: Option<String>,
    #[command(flatten)]
    change: Change,
}

/// `vmyard iso eject`
#[derive(clap::Args)]
pub struct Eject {
    #[command(flatten)]
    drive: Drive,
    #[command(flatten)]
    change: Change,
}

/// A VM's drive
#[derive(clap::Args)]
pub struct Drive {
    /// The VM, by name or id
    #[arg(add = ArgValueCompleter::new(complete::vms))]
    vm: String,
    /// Take out what the guest holds on to
    #[arg(long)]
    force: bool,
}

/// Runs the verb.
pub fn run(client: &Client, output: Output, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Attach(args) => {
            let Drive { vm, force } = args.drive;
            args.change.run(client, output, &AttachIso { vm, iso: args.iso, pool: args.pool, force })
        }
        Verb::Eject(args) => {
            let Drive { vm, force } = args.drive;
            args.change.run(client, output, &EjectIso { vm, force })
        }
    }
}
