//! `vmyard vm vnc`, `vmyard vm screenshot`, `vmyard vm serial-log`

use super::Name;
use crate::{
    client::{Client, to_json},
    failure::Failure,
    output::Output,
};
use api::{
    Rpc,
    console::{GetSerialLog, GetVmScreenshot, GetVncConsole, LOG_BYTES_MAX, Screenshot},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use std::{fs, io::Write, path::PathBuf};

/// `vmyard vm screenshot`
#[derive(clap::Args)]
pub struct Shot {
    #[command(flatten)]
    name: Name,
    /// Where the PNG goes; one that is there is replaced
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// `vmyard vm serial-log`
#[derive(clap::Args)]
pub struct Log {
    #[command(flatten)]
    name: Name,
    /// At most so many bytes, of the end [default: 1 MiB]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=LOG_BYTES_MAX))]
    max_bytes: Option<u64>,
}

/// Prints where a VNC client connects.
pub fn vnc(client: &Client, output: Output, name: Name) -> Result<(), Failure> {
    let reply = client.call_json(GetVncConsole::NAME, &to_json(&GetVncConsole { vm: name.vm })?)?;
    let text = |key: &str| reply[key].as_str().unwrap_or_default();
    output.answer(&reply, || {
        // Two colons: a port, not the number of a display.
        format!(
            "address: {}::{}\npassword: {}\nfor one client, until {}",
            text("host"),
            reply["port"],
            text("password"),
            text("expires_at")
        )
    })
}

/// Writes a picture of the screen.
pub fn shot(client: &Client, output: Output, args: Shot) -> Result<(), Failure> {
    let reply = client.call_json(GetVmScreenshot::NAME, &to_json(&GetVmScreenshot { vm: args.name.vm })?)?;
    let shot: Screenshot = crate::client::from_json(reply.clone())?;
    let bytes = BASE64_STANDARD.decode(&shot.png_base64);
    let bytes = bytes.map_err(|error| Failure::Unreachable(format!("the picture can't be read: {error}")))?;
    let written = fs::File::create(&args.out).and_then(|mut file| file.write_all(&bytes));
    written.map_err(|error| Failure::Usage(format!("--out {}: {error}", args.out.display())))?;
    output.answer(&reply, || format!("{}: {} x {}, {}", args.out.display(), shot.width, shot.height, shot.taken_at))
}

/// Prints the end of the serial line's log.
pub fn log(client: &Client, output: Output, args: Log) -> Result<(), Failure> {
    let request = GetSerialLog { vm: args.name.vm, max_bytes: args.max_bytes };
    let reply = client.call_json(GetSerialLog::NAME, &to_json(&request)?)?;
    output.answer(&reply, || reply["text"].as_str().unwrap_or_default().to_owned())
}
