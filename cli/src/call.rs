//! `vmyard call`

use crate::{client::Client, complete, failure::Failure, output::Output};
use clap_complete::ArgValueCompleter;
use serde_json::Value;
use std::io::Read;

/// `vmyard call`
#[derive(clap::Args)]
pub struct Args {
    /// The method, like describe-vm
    #[arg(add = ArgValueCompleter::new(complete::methods))]
    method: String,
    /// The request as a JSON object; '-' reads it from standard input
    #[arg(default_value = "{}")]
    json: String,
}

/// Calls the method and prints what it answers.
pub fn run(client: &Client, output: Output, args: Args) -> Result<(), Failure> {
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
    let answer = client.send(&args.method, &body)?;
    output.data(&answer.body)?;
    // Asked not to wait, the task is what was wanted; else the work took longer than the server waits.
    match answer.accepted && body["wait"] != false {
        true => Err(Failure::Pending(answer.task()?)),
        false => Ok(()),
    }
}
