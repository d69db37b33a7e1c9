//! The vmyard binary: the server (`vmyard serve`) and the command line. A file for each verb.

mod call;
mod client;
mod openapi;
mod serve;
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
    /// Print the API's OpenAPI document
    Openapi,
}

/// Exit codes: 0 done, 1 the server refused or failed, 2 wrong usage, 3 the server can't be reached, 4 the work goes on.
fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.verb {
        Verb::Serve(args) => return serve::run(args),
        Verb::Openapi => openapi::run(),
        Verb::Call(args) => cli.server.connect().and_then(|client| call::run(&client, args)),
        Verb::Vm(verb) => cli.server.connect().and_then(|client| vm::run(&client, verb)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            failure.exit_code()
        }
    }
}
