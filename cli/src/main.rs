//! The vmyard binary: the server (`vmyard serve`) and the command line. A file for each verb.

mod audit;
mod backup;
mod call;
mod change;
mod client;
mod complete;
mod completion;
mod events;
mod failure;
mod follow;
mod human;
mod iso;
mod keypair;
mod lists;
mod network;
mod nic;
mod node;
mod openapi;
mod orphan;
mod outcome;
mod output;
mod plan;
mod pool;
mod progress;
mod recording;
mod serve;
mod snapshot;
mod table;
mod task;
mod template;
mod token;
mod vm;
mod volume;
mod webhook;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::CompleteEnv;
use std::process::ExitCode;

/// Manages virtual machines on libvirt/QEMU.
#[derive(Parser)]
#[command(name = "vmyard", version, after_help = failure::EXIT_CODES)]
struct Cli {
    #[command(flatten)]
    server: client::Server,
    #[command(flatten)]
    output: output::Output,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Serve the API
    Serve(serve::Args),
    /// Write all of the server's database to a file, also while it serves
    Backup(backup::Backup),
    /// Put a backup into an empty database, and look at the nodes for what has changed since
    Restore(backup::Restore),
    /// Make a lost database again from what the nodes keep of it
    Rebuild(backup::Rebuild),
    /// Call any method of the API with a JSON object, and print its reply
    Call(call::Args),
    /// Work with virtual machines
    #[command(subcommand)]
    Vm(vm::Verb),
    /// List, show, wait for or cancel tasks
    #[command(subcommand)]
    Task(task::Verb),
    /// Work with templates
    #[command(subcommand)]
    Template(template::Verb),
    /// Work with nodes, the libvirt hosts
    #[command(subcommand)]
    Node(node::Verb),
    /// List or show storage pools
    #[command(subcommand)]
    Pool(pool::Verb),
    /// List or show networks
    #[command(subcommand)]
    Network(network::Verb),
    /// Work with the ISO images in CD-ROM drives of VMs
    #[command(subcommand)]
    Iso(iso::Verb),
    /// Work with network interfaces of VMs
    #[command(subcommand)]
    Nic(nic::Verb),
    /// Work with volumes, the disks of VMs
    #[command(subcommand)]
    Volume(volume::Verb),
    /// Work with snapshots of VMs
    #[command(subcommand)]
    Snapshot(snapshot::Verb),
    /// Work with recordings of serial lines
    #[command(subcommand)]
    Recording(recording::Verb),
    /// List or delete what is left over on the nodes
    #[command(subcommand)]
    Orphan(orphan::Verb),
    /// Work with SSH keypairs, for the users of VMs
    #[command(subcommand)]
    Keypair(keypair::Verb),
    /// List, make or delete tokens: who may call, and what
    #[command(subcommand)]
    Token(token::Verb),
    /// List who asked for which change
    #[command(subcommand)]
    Audit(audit::Verb),
    /// List what has happened to VMs, nodes and tasks, the newest first; or follow it as it happens
    Events(events::Args),
    /// Work with webhooks: who is sent events
    #[command(subcommand)]
    Webhook(webhook::Verb),
    /// Print the API's OpenAPI document
    Openapi,
    /// Print a shell's completion script: source <(vmyard completion bash)
    Completion(completion::Args),
}

fn main() -> ExitCode {
    // One library for TLS in the whole program. It fails only where there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // The shell asks for candidates: nothing else happens then.
    CompleteEnv::with_factory(Cli::command).var(completion::VARIABLE).complete();
    let cli = Cli::parse();
    let done = match cli.verb {
        Verb::Serve(args) => return serve::run(args),
        Verb::Backup(args) => return backup::backup(args),
        Verb::Restore(args) => return backup::restore(args),
        Verb::Rebuild(args) => return backup::rebuild(args),
        Verb::Openapi => openapi::run(cli.output),
        Verb::Completion(args) => completion::run(args),
        Verb::Events(args) => events::run(&cli.server, cli.output, args),
        verb => cli.server.connect().and_then(|client| call(&client, cli.output, verb)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            failure.exit_code()
        }
    }
}

/// The verbs that call the server.
fn call(client: &client::Client, output: output::Output, verb: Verb) -> Result<(), failure::Failure> {
    match verb {
        Verb::Call(args) => call::run(client, output, args),
        Verb::Vm(verb) => vm::run(client, output, verb),
        Verb::Task(verb) => task::run(client, output, verb),
        Verb::Template(verb) => template::run(client, output, verb),
        Verb::Node(verb) => node::run(client, output, verb),
        Verb::Pool(verb) => pool::run(client, output, verb),
        Verb::Network(verb) => network::run(client, output, verb),
        Verb::Iso(verb) => iso::run(client, output, verb),
        Verb::Nic(verb) => nic::run(client, output, verb),
        Verb::Volume(verb) => volume::run(client, output, verb),
        Verb::Snapshot(verb) => snapshot::run(client, output, verb),
        Verb::Recording(verb) => recording::run(client, output, verb),
        Verb::Orphan(verb) => orphan::run(client, output, verb),
        Verb::Keypair(verb) => keypair::run(client, output, verb),
        Verb::Token(verb) => token::run(client, output, verb),
        Verb::Audit(verb) => audit::run(client, output, verb),
        Verb::Webhook(verb) => webhook::run(client, output, verb),
        Verb::Serve(_) | Verb::Backup(_) | Verb::Restore(_) | Verb::Rebuild(_) => Ok(()),
        Verb::Events(_) | Verb::Openapi | Verb::Completion(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_arguments_go_together() {
        super::Cli::command().debug_assert();
    }
}
