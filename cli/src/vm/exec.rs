//! `vmyard vm exec`

use super::Name;
use crate::{
    change::Change,
    client::{Client, from_json},
    failure::Failure,
    output::Output,
};
use api::guest::{Encoding, ExecInVm, ExecutedInVm};
use base64::{Engine, engine::general_purpose::STANDARD};
use std::io::{Read, Write};

/// `vmyard vm exec`
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    name: Name,
    /// The program in the guest, and its arguments; there is no shell
    #[arg(required = true, last = true)]
    command: Vec<String>,
    /// Pass standard input on to the command
    #[arg(long)]
    stdin: bool,
    /// How long to wait for its end, in seconds [default: 30]
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u32>,
    #[command(flatten)]
    change: Change,
}

/// Runs the command, prints what it prints, and ends with its exit code.
pub fn run(client: &Client, output: Output, args: Args) -> Result<(), Failure> {
    let mut stdin = String::new();
    if args.stdin {
        let read = std::io::stdin().read_to_string(&mut stdin);
        read.map_err(|error| Failure::Usage(format!("standard input: {error}")))?;
    }
    let request = ExecInVm {
        vm: args.name.vm,
        command: args.command,
        stdin: args.stdin.then_some(stdin),
        timeout_s: args.timeout,
    };
    let Some(reply) = args.change.call(client, output, &request)? else { return Ok(()) };
    if output.is_data() {
        return output.data(&reply);
    }
    let done: ExecutedInVm = from_json(reply)?;
    let bytes = |text: Option<&String>, encoding: Encoding| match (text, encoding) {
        (Some(text), Encoding::Base64) => STANDARD.decode(text).unwrap_or_default(),
        (text, _) => text.cloned().unwrap_or_default().into_bytes(),
    };
    // Whoever reads may have seen enough.
    let _ = std::io::stdout().lock().write_all(&bytes(done.stdout.as_ref(), done.stdout_encoding));
    let _ = std::io::stderr().lock().write_all(&bytes(done.stderr.as_ref(), done.stderr_encoding));
    let cut = if done.truncated { "; it has printed more than is told" } else { "" };
    match (done.running, done.exit_code, done.signal) {
        (true, ..) => {
            Err(Failure::Ended { code: 4, text: format!("it is still running, as process {}{cut}", done.pid) })
        }
        (_, Some(0), _) if !done.truncated => Ok(()),
        (_, Some(0), _) => Err(Failure::Ended { code: 0, text: "it has printed more than is told".to_owned() }),
        (_, Some(code), _) => {
            let text = format!("it ended with exit code {code}{cut}");
            Err(Failure::Ended { code: u8::try_from(code).unwrap_or(1), text })
        }
        (_, _, signal) => {
            let signal = signal.unwrap_or_default();
            let text = format!("signal {signal} ended it{cut}");
            // As shells have it.
            Err(Failure::Ended { code: u8::try_from(128 + signal).unwrap_or(1), text })
        }
    }
}
