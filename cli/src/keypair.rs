//! `vmyard keypair`

use crate::{
    change::Change,
    client::Client,
    complete,
    failure::Failure,
    lists::{self, Kind},
    output::Output,
    table::Cell::Field,
};
use api::keypair::{CreateKeypair, DeleteKeypair, ImportKeypair, NewKeyAlgorithm};
use clap_complete::ArgValueCompleter;
use serde_json::{Value, json};
use std::{
    fs::{self, File},
    io::{Read, Write},
    os::unix::fs::OpenOptionsExt,
};

/// `vmyard keypair`
#[derive(clap::Subcommand)]
pub enum Verb {
    /// List keypairs
    List(lists::Limit),
    /// Show a keypair
    Show {
        /// The keypair, by name or id
        #[arg(add = ArgValueCompleter::new(complete::keypairs))]
        keypair: String,
    },
    /// Make a keypair, and print its private key, this one time
    Create(Create),
    /// Import a public key
    Import(Import),
    /// Delete a keypair; VMs that have its public key keep it
    Delete(Delete),
}

/// `vmyard keypair create`
#[derive(clap::Args)]
pub struct Create {
    /// The new keypair's name
    name: String,
    /// Which kind of key: ed25519 or rsa [default: ed25519]
    #[arg(long, value_parser = algorithm)]
    algorithm: Option<NewKeyAlgorithm>,
    /// An RSA key's size: 3072 or 4096 [default: 3072]
    #[arg(long, value_name = "N")]
    bits: Option<u32>,
    /// The public key's comment [default: the name]
    #[arg(long)]
    comment: Option<String>,
    /// Write the private key into this new file, which only you can read, instead of printing it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["no_wait", "plan"])]
    out: Option<String>,
    #[command(flatten)]
    change: Change,
}

/// `vmyard keypair import`
#[derive(clap::Args)]
pub struct Import {
    /// The new keypair's name
    name: String,
    /// The file with the OpenSSH public key, like ~/.ssh/id_ed25519.pub; - for standard input
    file: String,
    #[command(flatten)]
    change: Change,
}

/// `vmyard keypair delete`
#[derive(clap::Args)]
pub struct Delete {
    /// The keypair, by name or id
    #[arg(add = ArgValueCompleter::new(complete::keypairs))]
    keypair: String,
    #[command(flatten)]
    change: Change,
}

/// Keypairs: how they are listed and shown.
pub const KIND: Kind = Kind {
    plural: "keypairs",
    list: ("list-keypairs", "keypairs"),
    show: ("describe-keypair", "keypair"),
    columns: &[
        ("NAME", Field("name")),
        ("ALGORITHM", Field("algorithm")),
        ("BITS", Field("bits")),
        ("FINGERPRINT", Field("fingerprint")),
        ("ID", Field("id")),
    ],
    wide: &[("COMMENT", Field("comment")), ("CREATED", Field("created_at"))],
};

fn algorithm(text: &str) -> Result<NewKeyAlgorithm, String> {
    serde_json::from_value(text.into()).map_err(|_| "must be ed25519 or rsa".to_owned())
}

/// Runs the verb.
pub fn run(client: &Client, output: Output, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::List(args) => lists::list(client, output, &KIND, json!({}), args.limit),
        Verb::Show { keypair } => lists::show(client, output, &KIND, &keypair, json!({})),
        Verb::Create(args) => create(client, output, args),
        Verb::Import(args) => {
            let mut public_key = String::new();
            let read = match args.file.as_str() {
                "-" => std::io::stdin().read_to_string(&mut public_key),
                path => File::open(path).and_then(|mut file| file.read_to_string(&mut public_key)),
            };
            read.map_err(|error| Failure::Usage(format!("{}: {error}", args.file)))?;
            args.change.run(client, output, &ImportKeypair { name: args.name, public_key })
        }
        Verb::Delete(args) => args.change.run(client, output, &DeleteKeypair { keypair: args.keypair }),
    }
}

fn create(client: &Client, output: Output, args: Create) -> Result<(), Failure> {
    let algorithm = args.algorithm.unwrap_or_default();
    let request = CreateKeypair { name: args.name, algorithm, bits: args.bits, comment: args.comment };
    let Some(path) = args.out else { return args.change.run(client, output, &request) };
    let failed = |error: std::io::Error| Failure::Usage(format!("{path}: {error}"));
    // Before the call: a private key that can't be put anywhere would be lost.
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
    let written = args.change.call(client, output, &request).and_then(|reply| {
        let mut reply = reply.unwrap_or_default();
        let private_key = reply["private_key"].take();
        let private_key = private_key.as_str().ok_or_else(|| Failure::Usage("there is no private key".to_owned()))?;
        let written = file.write_all(private_key.as_bytes()).and_then(|()| file.sync_all());
        let lost =
            |error| Failure::Usage(format!("{path}: {error}; the keypair is made and its private key lost: delete it"));
        written.map_err(lost)?;
        Ok(reply)
    });
    let reply: Value = written.inspect_err(|_| drop(fs::remove_file(&path)))?;
    let of = |field: &str| reply[field].as_str().unwrap_or("?").to_owned();
    output.answer(&reply, || {
        format!("keypair {} ({}) is made; its private key is in {path}", of("name"), of("fingerprint"))
    })
}
