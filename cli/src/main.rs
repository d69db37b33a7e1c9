//! The vmyard binary: the server (`vmyard serve`) and the command line. A file for each verb.

mod call;
mod client;
mod lists;
mod openapi;
mod serve;
mod table;
mod vm;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Manages virtual machines on libvirt/QEMU.
#[derive(Parser)]
#[command(name = "vmyard", version, about)]
struct Cli {
    #[command(flatten)]
    server: client::Server,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Serve the API
    Serve(serve::Args),
    /// Call any method of the API with a JSON object, and print its reply
    Call(call::Args),
    /// Work with virtual machines
    #[command(subcommand)]
    Vm(vm::Verb),
    /// List or show tasks
    #[command(subcommand)]
    Task(lists::Verb),
    /// List or show templates
    #[command(subcommand)]
    Template(lists::Verb),
    /// List or show nodes
    #[command(subcommand)]
    Node(lists::Verb),
    /// List or show storage pools
    #[command(subcommand)]
    Pool(lists::Verb),
    /// List or show networks
    #[command(subcommand)]
    Network(lists::Verb),
    /// List or show volumes
    #[command(subcommand)]
    Volume(lists::Verb),
    /// Print the API's OpenAPI document
    Openapi,
}

/// Exit codes: 0 done, 1 the server refused or failed, 2 wrong usage, 3 the server can't be reached, 4 the work goes on.
fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.verb {
        Verb::Serve(args) => return serve::run(args),
        Verb::Openapi => openapi::run(),
        verb => cli.server.connect().and_then(|client| call(&client, verb)),
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
fn call(client: &client::Client, verb: Verb) -> Result<(), client::Failure> {
    match verb {
        Verb::Call(args) => call::run(client, args),
        Verb::Vm(verb) => vm::run(client, verb),
        Verb::Task(verb) => lists::run(client, &lists::TASK, verb),
        Verb::Template(verb) => lists::run(client, &lists::TEMPLATE, verb),
        Verb::Node(verb) => lists::run(client, &lists::NODE, verb),
        Verb::Pool(verb) => lists::run(client, &lists::POOL, verb),
        Verb::Network(verb) => lists::run(client, &lists::NETWORK, verb),
        Verb::Volume(verb) => lists::run(client, &lists::VOLUME, verb),
        Verb::Serve(_) | Verb::Openapi => Ok(()),
    }
}
