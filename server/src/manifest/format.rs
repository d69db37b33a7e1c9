//! What a manifest looks like: files with numbers, of packed rows.
//!
//! The first file of a manifest (`whole`) has all rows, each that follows only what has changed. One that was cut off is as good as
//! not there. When the changes have become as large as the rest, a new first file is written, and then the older ones are deleted.

use crate::{
    packed::{Line, Reader},
    store::RawRow,
};
use api::Time;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use uuid::Uuid;

/// What the names of all manifests' files begin with.
pub const PREFIX: &str = "vmyard-";
const SUFFIX: &str = ".manifest";

/// The name of a file: `vmyard-<installation>-<number>.manifest`.
pub fn file_name(installation: Uuid, number: u64) -> String {
    format!("{PREFIX}{installation}-{number:010}{SUFFIX}")
}

/// Whose manifest a file is of, and its number there.
pub fn parse_name(name: &str) -> Option<(Uuid, u64)> {
    let (installation, number) = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.rsplit_once('-')?;
    Some((installation.parse().ok()?, number.parse().ok()?))
}

/// The first line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Head {
    /// Which Vmyard wrote it.
    pub installation: Uuid,
    /// The node's name.
    pub node: String,
    /// The database's last migration.
    pub schema: i64,
    /// The file's number.
    pub number: u64,
    /// Whether it has all rows.
    pub whole: bool,
    /// When it was written.
    pub at: Time,
}

/// What a row is told apart by: a hash of its table and key.
pub type Key = u128;

/// That a row is gone.
pub fn gone(key: Key) -> Line {
    Line::Gone { gone: format!("{key:032x}") }
}

/// The key of a row.
pub fn key(row: &RawRow) -> Key {
    let key = serde_json::json!([row.table, row.key()]).to_string();
    let hash = blake3::hash(key.as_bytes());
    hash.as_bytes()[..16].iter().fold(0, |key, byte| key << 8 | u128::from(*byte))
}

/// A file that was read.
#[derive(Debug)]
pub struct File {
    /// Its first line.
    pub head: Head,
    rows: Vec<RawRow>,
    gone: Vec<Key>,
}

impl File {
    /// Reads one; says why it is none, or not all of one.
    pub fn read(bytes: &[u8]) -> std::result::Result<File, String> {
        let (head, lines) = Reader::new(bytes)?;
        let mut file = File { head, rows: Vec::new(), gone: Vec::new() };
        for line in lines {
            match line? {
                Line::Row(row) => file.rows.push(row),
                Line::Gone { gone } => {
                    file.gone.push(Key::from_str_radix(&gone, 16).map_err(|_| format!("it has {gone:?} for a key"))?);
                }
                Line::End { .. } => {}
            }
        }
        Ok(file)
    }
}

/// A manifest: what its files come to.
#[derive(Debug)]
pub struct Manifest {
    /// The first line of the last file.
    pub head: Head,
    /// The rows.
    pub rows: HashMap<Key, RawRow>,
}

/// Puts the files of one manifest together: the last one with all rows, and what follows on it without a hole.
pub fn fold(mut files: Vec<File>) -> Option<Manifest> {
    files.sort_by_key(|file| file.head.number);
    let first = files.iter().rposition(|file| file.head.whole)?;
    let mut manifest: Option<Manifest> = None;
    for file in files.drain(first..) {
        let follows = manifest.as_ref().is_none_or(|manifest| manifest.head.number + 1 == file.head.number);
        if !follows {
            break;
        }
        let mut rows = manifest.map(|manifest| manifest.rows).unwrap_or_default();
        for key in &file.gone {
            rows.remove(key);
        }
        rows.extend(file.rows.into_iter().map(|row| (key(&row), row)));
        manifest = Some(Manifest { head: file.head, rows });
    }
    manifest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packed::Writer;
    use serde_json::json;

    fn row(id: &str, name: &str) -> RawRow {
        serde_json::from_value(json!({"table": "vm", "row": {"id": id, "name": name}})).expect("a row")
    }

    fn bytes(number: u64, whole: bool, rows: &[RawRow], gone: &[&RawRow]) -> Vec<u8> {
        let head = Head {
            installation: Uuid::nil(),
            node: "n".to_owned(),
            schema: 13,
            number,
            whole,
            at: Time(number as i64),
        };
        let mut file = Writer::new(Vec::new(), &head).expect("begins");
        for row in rows {
            file.line(&Line::Row(row.clone())).expect("a row");
        }
        for row in gone {
            file.line(&super::gone(key(row))).expect("a row that is gone");
        }
        file.finish().expect("ends")
    }

    fn names(files: &[Vec<u8>]) -> Option<Vec<String>> {
        let read = files.iter().filter_map(|bytes| File::read(bytes).ok()).collect();
        let manifest = fold(read)?;
        let mut names: Vec<String> = manifest.rows.values().map(|row| row.text("name").to_owned()).collect();
        names.sort();
        Some(names)
    }

    #[test]
    fn names_are_read_back() {
        let installation = Uuid::now_v7();
        assert_eq!(parse_name(&file_name(installation, 12)), Some((installation, 12)));
        for other in
            ["vmyard-1.manifest", "x.iso", "vmyard-lookup-1", "vmyard-00000000-0000-0000-0000-000000000000-x.manifest"]
        {
            assert_eq!(parse_name(other), None, "{other}");
        }
    }

    #[test]
    fn changes_follow_the_last_whole_file() {
        let (a, b, c) = (row("1", "a"), row("2", "b"), row("3", "c"));
        let files = [
            bytes(1, true, std::slice::from_ref(&c), &[]),
            bytes(4, true, &[a.clone(), b.clone()], &[]),
            bytes(5, false, &[row("1", "renamed")], &[]),
            bytes(6, false, &[c], &[&b]),
        ];
        assert_eq!(names(&files).expect("a manifest"), ["c", "renamed"]);
        // Without the one between, what follows says nothing.
        assert_eq!(names(&[files[1].clone(), files[3].clone()]).expect("a manifest"), ["a", "b"]);
        assert_eq!(names(&files[2..]), None);
    }

    #[test]
    fn a_file_that_was_cut_off_is_none() {
        let whole = bytes(1, true, &[row("1", "a"), row("2", "b")], &[]);
        assert!(File::read(&whole).is_ok());
        for end in 0..whole.len() {
            assert!(File::read(&whole[..end]).is_err(), "{end} of {} bytes", whole.len());
        }
        // Room that was taken and never written.
        let mut holes = whole.clone();
        holes[40..].fill(0);
        assert!(File::read(&holes).is_err());
        assert!(File::read(&[0; 100]).is_err());
    }
}
