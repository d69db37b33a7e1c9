//! `vmyard call`

use crate::client::{Client, Failure};
use serde_json::Value;
use std::io::Read;

/// `vmyard call`
#[derive(clap::Args)]
pub struct Args {
    /// The method, like describe-vm
    method: String,
    /// The request as a JSON object; '-' reads it from standard input
    #[arg(default_value = "{}")]
    json: String,
}

/// Calls the method and prints what it answers.
pub fn run(client: &Client, args: Args) -> Result<(), Failure> {
    let text = match args.json.as_str() {
        "-" => {
            let mut text = String::new();
            std::io::stdin()
                .read_to_string(&mut text)
                .map_err(|error| Failure::Usage(format!("standard input: {error}")))?;
            text
        }
        json => json.to_owned(),
    };
    let body: Value =
        serde_json::from_str(&text).map_err(|error| Failure::Usage(format!("the request is not JSON: {error}")))?;
    let reply = client.call_json(&args.method, &body)?;
    println!("{reply:#}");
    Ok(())
}
