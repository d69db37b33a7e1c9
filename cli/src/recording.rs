//! `vmyard recording`

use crate::{
    change::Change,
    client::Client,
    complete,
    failure::Failure,
    lists::{self, Kind},
    output::Output,
    table::Cell::Field,
};
use api::console::DeleteRecording;
use clap_complete::ArgValueCompleter;
use serde_json::json;
use std::{fs, os::unix::fs::OpenOptionsExt, path::PathBuf};
use uuid::Uuid;

/// `vmyard recording`
#[derive(clap::Subcommand)]
pub enum Verb {
    /// List the recordings of serial lines, the newest first
    List {
        /// Only those of this VM
        #[arg(long, add = ArgValueCompleter::new(complete::vms))]
        vm: Option<String>,
        #[command(flatten)]
        limit: lists::Limit,
    },
    /// Download a recording, an asciicast (asciinema play FILE)
    Get {
        /// The recording's id
        recording: Uuid,
        /// The new file
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Delete a recording
    Delete {
        /// The recording's id
        recording: Uuid,
        #[command(flatten)]
        change: Change,
    },
}

/// Recordings: how they are listed.
pub const KIND: Kind = Kind {
    plural: "recordings",
    list: ("list-recordings", "recordings"),
    // There is no more to show of one.
    show: ("", ""),
    columns: &[
        ("ID", Field("id")),
        ("VM", Field("vm_name")),
        ("BY", Field("caller")),
        ("BEGUN", Field("began_at")),
        ("BYTES", Field("bytes")),
    ],
    wide: &[("VM ID", Field("vm"))],
};

/// Runs the verb.
pub fn run(client: &Client, output: Output, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::List { vm, limit } => lists::list(client, output, &KIND, json!({"vm": vm}), limit.limit),
        Verb::Get { recording, out } => {
            let failed = |error: std::io::Error| Failure::Usage(format!("--out {}: {error}", out.display()));
            let mut recorded = client.get(&format!("/api/recordings/{recording}"))?;
            let mut file =
                fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&out).map_err(failed)?;
            let bytes = std::io::copy(&mut recorded, &mut file).map_err(failed)?;
            output.answer(&json!({"file": out, "bytes": bytes}), || format!("{}: {bytes} bytes", out.display()))
        }
        Verb::Delete { recording, change } => change.run(client, output, &DeleteRecording { recording }),
    }
}
