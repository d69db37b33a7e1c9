//! `vmyard vm xml`

use super::Name;
use crate::{
    client::{Client, to_json},
    failure::Failure,
    output::Output,
};
use api::{Rpc, vm::DescribeVmXml};

/// `vmyard vm xml`
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    name: Name,
    /// The definition that the next boot takes
    #[arg(long)]
    inactive: bool,
    /// With console passwords (administrators only)
    #[arg(long)]
    secrets: bool,
}

/// Prints the XML.
pub fn run(client: &Client, output: Output, args: Args) -> Result<(), Failure> {
    let request = DescribeVmXml { vm: args.name.vm, inactive: args.inactive, secrets: args.secrets };
    let reply = client.call_json(DescribeVmXml::NAME, &to_json(&request)?)?;
    output.answer(&reply, || reply["xml"].as_str().unwrap_or_default().to_owned())
}
