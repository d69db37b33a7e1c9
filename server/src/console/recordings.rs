//! Recordings on this server's disk: `recordings/<id>.cast` in the data directory. Each file says in its first line what it is
//! of, so the directory is the list. A server that dies leaves a recording that is whole up to its last line.

use super::asciicast::Cast;
use crate::{Error, Result};
use api::{Time, console::Recording};
use serde_json::{Map, Value, json};
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};
use uuid::Uuid;

/// The most that all recordings take, in bytes; then none begins, and none goes on.
const BYTES_MAX: u64 = 10 << 30;
/// The longest first line that is read.
const HEADER_MAX: u64 = 16 << 10;

fn directory(data_dir: &Path) -> PathBuf {
    data_dir.join("recordings")
}

fn file(data_dir: &Path, id: Uuid) -> PathBuf {
    directory(data_dir).join(format!("{id}.cast"))
}

/// A recording that is being made.
pub struct Recorder {
    file: fs::File,
    cast: Cast,
    left: u64,
}

impl Recorder {
    /// Begins one. What is in the first line must be no secret.
    pub fn begin(data_dir: &Path, id: Uuid, vm: Uuid, vm_name: &str, caller: &str) -> Result<Recorder> {
        let failed = |error: std::io::Error| Error::Internal(format!("begin a recording: {error}"));
        let mut directories = fs::DirBuilder::new();
        directories.recursive(true).mode(0o700).create(directory(data_dir)).map_err(failed)?;
        let left = room(data_dir)?;
        let (began_at, mut more) = (Time::now(), Map::new());
        let about = json!({"vm": vm, "vm_name": vm_name, "caller": caller, "began_at": began_at});
        more.insert("vmyard".to_owned(), about);
        let (cast, header) = Cast::begin(&format!("{vm_name}: serial line"), began_at.0 / 1000, more);
        let mut open = fs::OpenOptions::new();
        let mut file = open.append(true).create_new(true).mode(0o600).open(file(data_dir, id)).map_err(failed)?;
        file.write_all(header.as_bytes()).map_err(failed)?;
        Ok(Recorder { file, cast, left })
    }

    /// Adds what was said. An error, a full disk as well, ends the recording, not the session.
    pub fn say(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let Some(line) = self.cast.say(bytes) else { return Ok(()) };
        self.left = self.left.checked_sub(line.len() as u64).ok_or(std::io::ErrorKind::FileTooLarge)?;
        self.file.write_all(line.as_bytes())
    }
}

/// How much recordings may still take, in bytes.
pub fn room(data_dir: &Path) -> Result<u64> {
    let taken: u64 = files(data_dir)?.iter().map(|(_, bytes)| bytes).sum();
    BYTES_MAX.checked_sub(taken).filter(|left| *left > 0).ok_or_else(|| {
        Error::NoCapacity(format!(
            "recordings take {} of {} GiB; delete-recording makes room",
            taken >> 30,
            BYTES_MAX >> 30
        ))
    })
}

/// All of them, the newest first.
pub fn list(data_dir: &Path) -> Result<Vec<Recording>> {
    let mut recordings: Vec<Recording> =
        files(data_dir)?.into_iter().filter_map(|(id, bytes)| read(data_dir, id, bytes)).collect();
    recordings.sort_by_key(|recording| std::cmp::Reverse(recording.id));
    Ok(recordings)
}

/// One of them.
pub fn find(data_dir: &Path, id: Uuid) -> Option<Recording> {
    let bytes = fs::metadata(file(data_dir, id)).ok()?.len();
    read(data_dir, id, bytes)
}

/// Its text, as it is now.
pub fn open(data_dir: &Path, id: Uuid) -> Result<fs::File> {
    fs::File::open(file(data_dir, id)).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::not_found("recording", id.to_string()),
        _ => Error::Internal(format!("read recording {id}: {error}")),
    })
}

/// Deletes one; returns whether there was one.
pub fn delete(data_dir: &Path, id: Uuid) -> Result<bool> {
    match fs::remove_file(file(data_dir, id)) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::Internal(format!("delete recording {id}: {error}"))),
    }
}

/// Ids and sizes of the files.
fn files(data_dir: &Path) -> Result<Vec<(Uuid, u64)>> {
    let entries = match fs::read_dir(directory(data_dir)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::Internal(format!("list the recordings: {error}"))),
    };
    let one = |entry: fs::DirEntry| {
        let name = entry.file_name();
        let id = name.to_str()?.strip_suffix(".cast")?.parse().ok()?;
        Some((id, entry.metadata().ok()?.len()))
    };
    Ok(entries.flatten().filter_map(one).collect())
}

fn read(data_dir: &Path, id: Uuid, bytes: u64) -> Option<Recording> {
    let mut header = String::new();
    let file = fs::File::open(file(data_dir, id)).ok()?;
    BufReader::new(file.take(HEADER_MAX)).read_line(&mut header).ok()?;
    let header: Value = serde_json::from_str(&header).ok()?;
    let about = header.get("vmyard")?;
    let text = |key: &str| about.get(key).and_then(Value::as_str).map(str::to_owned);
    Some(Recording {
        id,
        vm: text("vm")?.parse().ok()?,
        vm_name: text("vm_name")?,
        caller: text("caller")?,
        began_at: serde_json::from_value(about.get("began_at")?.clone()).ok()?,
        bytes,
    })
}
