//! `vmyard token`

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
use api::{
    Access, Time,
    token::{CreateToken, DeleteToken},
};
use clap_complete::ArgValueCompleter;
use serde_json::json;

/// `vmyard token`
#[derive(clap::Subcommand)]
pub enum Verb {
    /// List tokens, without their secrets
    List(lists::Limit),
    /// Make a token, and print its secret, this one time
    Create(Create),
    /// Delete a token: it and its sessions are worthless at once
    Delete(Delete),
}

/// `vmyard token create`
#[derive(clap::Args)]
pub struct Create {
    /// The new token's name: who or what will call under it
    name: String,
    /// What it may do: viewer, operator or administrator
    #[arg(long, value_parser = role)]
    role: Access,
    /// It stops working after so many days [default: never]
    #[arg(long, value_name = "N", conflicts_with = "expires_at", value_parser = clap::value_parser!(u32).range(1..))]
    days: Option<u32>,
    /// It stops working at this moment, like 2027-01-31T00:00:00Z
    #[arg(long, value_name = "TIME", value_parser = human::moment)]
    expires_at: Option<Time>,
    #[command(flatten)]
    change: Change,
}

/// `vmyard token delete`
#[derive(clap::Args)]
pub struct Delete {
    /// The token, by name or id
    // Not "token": that is the option which says who calls.
    #[arg(value_name = "TOKEN", add = ArgValueCompleter::new(complete::tokens))]
    name: String,
    #[command(flatten)]
    change: Change,
}

/// Tokens: how they are listed.
pub const KIND: Kind = Kind {
    plural: "tokens",
    list: ("list-tokens", "tokens"),
    // There is no more to show of one.
    show: ("", ""),
    columns: &[
        ("NAME", Field("name")),
        ("ROLE", Field("role")),
        ("EXPIRES", Field("expires_at")),
        ("EXPIRED", Field("expired")),
        ("ID", Field("id")),
    ],
    wide: &[("CREATED", Field("created_at"))],
};

fn role(text: &str) -> Result<Access, String> {
    Access::parse(text).ok_or_else(|| "must be viewer, operator or administrator".to_owned())
}

/// Runs the verb.
pub fn run(client: &Client, output: Output, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::List(args) => lists::list(client, output, &KIND, json!({}), args.limit),
        Verb::Create(args) => {
            let after = |days: u32| Time(Time::now().0 + i64::from(days) * 24 * 3600 * 1000);
            let expires_at = args.expires_at.or(args.days.map(after));
            let request = CreateToken { name: args.name, role: args.role, expires_at };
            args.change.run(client, output, &request)
        }
        Verb::Delete(args) => args.change.run(client, output, &DeleteToken { token: args.name }),
    }
}
