//! `vmyard vm adopt`: taking a VM of others over.

use super::Name;
use crate::{change::Change, client::Client, failure::Failure, output::Output};
use api::adopt::AdoptVm;

/// `vmyard vm adopt`
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    name: Name,
    /// Its name from now on [default: the domain's]
    #[arg(long = "name", value_name = "NAME")]
    new_name: Option<String>,
    /// A tag: KEY=VALUE; may be repeated
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = super::pair)]
    tags: Vec<(String, String)>,
    /// Free text
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    description: String,
    #[command(flatten)]
    change: Change,
}

/// Takes it over.
pub fn run(client: &Client, output: Output, args: Args) -> Result<(), Failure> {
    let request = AdoptVm {
        vm: args.name.vm,
        name: args.new_name,
        tags: args.tags.into_iter().collect(),
        description: args.description,
    };
    args.change.run(client, output, &request)
}
