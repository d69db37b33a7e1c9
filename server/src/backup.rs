//! Vmyard's own database in a file, and back. The file is the same for SQLite and PostgreSQL, so a backup of one can be restored into
//! the other.

use crate::{
    Config, Error, Result, auth,
    config::NodeSettings,
    packed::{Line, Reader, Writer},
    problem,
    rebuild::{self, Rebuilt, Which, newer, not_empty},
    store::{RawRow, SCHEMA, Store, sqlite_file},
};
use api::Time;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashSet},
    fs::{self, File, OpenOptions},
    io::{BufReader, BufWriter},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};
use uuid::Uuid;

/// The first line of a backup.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Head {
    /// The form of the file: 1.
    pub vmyard_backup: u32,
    /// The Vmyard that wrote it.
    pub version: String,
    /// The database's last migration.
    pub schema: i64,
    /// When it was begun.
    pub at: Time,
}

/// What was written, or read.
#[derive(Debug)]
pub struct Summary {
    /// When the backup was begun.
    pub at: Time,
    /// How many rows it has.
    pub rows: u64,
    /// The file's length, in bytes.
    pub bytes: u64,
}

/// Writes all of the database that the configuration names to a file, as of one moment, also while a server works with it. The file
/// (0600: it has the hashes of tokens, and the secrets of webhooks) is there when it is whole.
pub async fn backup(config: &Config, file: &Path) -> Result<Summary> {
    let url = config.database_url();
    let store = Store::open_to_read(&url).await.map_err(|error| Error::WrongState {
        detail: format!("{} can't be opened: {error}", shown(&url)),
        hint: Some("name it with --config, --data-dir or --database, as its server has it".to_owned()),
    })?;
    let schema = store.version().await?;
    if schema > SCHEMA {
        return Err(newer(schema));
    }
    let draft = draft_beside(file);
    let failed = |error: std::io::Error| Error::field("file", format!("{} can't be written: {error}", draft.display()));
    let open = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft).map_err(failed)?;
    let at = Time::now();
    let head = Head { vmyard_backup: 1, version: env!("CARGO_PKG_VERSION").to_owned(), schema, at };
    let written = async {
        let mut writer = Writer::new(BufWriter::new(open), &head)?;
        store.read_rows(|row| writer.line(&Line::Row(row))).await?;
        let rows = writer.lines;
        let open = writer.finish()?.into_inner().map_err(|error| failed(error.into_error()))?;
        open.sync_all().map_err(failed)?;
        fs::rename(&draft, file).map_err(failed)?;
        let bytes = open.metadata().map_err(failed)?.len();
        Ok(Summary { at, rows, bytes })
    };
    let written = written.await;
    if written.is_err() {
        let _ = fs::remove_file(&draft);
    }
    written
}

/// A database as people may see it: its URL may have a password.
fn shown(url: &str) -> String {
    match sqlite_file(url) {
        Some(path) => format!("database {path}"),
        None => "the database".to_owned(),
    }
}

/// The file's name while it is written.
fn draft_beside(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".part");
    PathBuf::from(name)
}

/// What must be known of a backup before it is restored.
struct Content {
    head: Head,
    rows: u64,
    /// Which Vmyard it is of. One that was made before that was known belongs to none that has manifests.
    installation: Uuid,
    /// The nodes that were added.
    nodes: BTreeMap<String, NodeSettings>,
}

/// Reads all of a backup; says why it is none, or not all of one.
fn read_through(file: &Path) -> std::result::Result<Content, String> {
    let open = File::open(file).map_err(|error| error.to_string())?;
    let (head, lines) =
        Reader::new::<Head>(BufReader::new(open)).map_err(|why| format!("it is no backup of Vmyard ({why})"))?;
    let mut content = Content { head, rows: 0, installation: Uuid::new_v4(), nodes: BTreeMap::new() };
    for line in lines {
        let line = line?;
        content.rows += 1;
        let Line::Row(row) = line else { continue };
        if row.table == INSTALLATION {
            content.installation =
                row.text("id").parse().map_err(|_| "it has no UUID for an installation".to_owned())?;
        } else if row.table == "node" {
            let settings = serde_json::from_str(row.text("settings"));
            let settings = settings.map_err(|error| format!("a node's settings can't be read: {error}"))?;
            content.nodes.insert(row.text("name").to_owned(), settings);
        }
    }
    Ok(content)
}

/// The table that says which Vmyard a database is of.
const INSTALLATION: &str = "installation";

/// Puts a backup into the empty database that the configuration names, and brings it to what the manifests of these nodes say. All of the
/// file and the nodes are looked at before anything is changed.
pub async fn restore(config: &Config, file: &Path, which: &Which) -> Result<(Summary, Rebuilt)> {
    let wrong = |why: String| Error::field("file", format!("{} can't be restored: {why}", file.display()));
    let Content { head, rows, installation, nodes } = read_through(file).map_err(wrong)?;
    if head.vmyard_backup != 1 || head.schema > SCHEMA {
        return Err(newer(head.schema));
    }
    let nodes = rebuild::reach(config, nodes, installation, which).await?;
    auth::ensure_data_dir(&config.data_dir)?;
    let url = config.database_url();
    let store = Store::open_at(&url, head.schema).await?;
    if let Some(what) = store.first_row_of_work().await? {
        return Err(not_empty(&url, &what));
    }
    let open = File::open(file).map_err(|error| wrong(error.to_string()))?;
    let (_, lines) = Reader::new::<Head>(BufReader::new(open)).map_err(wrong)?;
    let problem = at_work_then(head.at)?;
    let mut at_work = HashSet::new();
    let restored = lines.filter_map(|line| match line {
        Ok(Line::Row(row)) if row.table != INSTALLATION => Some(Ok(ended(row, &mut at_work, &problem))),
        Ok(_) => None,
        Err(why) => Some(Err(wrong(why))),
    });
    store.replace_rows(restored).await?;
    store.migrate_to(SCHEMA).await?;
    let caught_up = rebuild::catch_up(nodes, &store, installation, head.at, which).await?;
    let bytes = fs::metadata(file).map(|data| data.len()).unwrap_or_default();
    Ok((Summary { at: head.at, rows, bytes }, caught_up))
}

/// A row as it is restored: tasks that were at work, which come before their steps, have failed, and nothing is taken back for them, since
/// what became of them later isn't known.
fn ended(mut row: RawRow, at_work: &mut HashSet<String>, problem: &str) -> RawRow {
    if row.table == "task" && matches!(row.text("state"), "running" | "unwinding") {
        at_work.insert(row.text("id").to_owned());
        row.set("state", "failed");
        row.set("error", problem);
        row.row.insert("finished_at".to_owned(), Time::now().0.into());
    } else if row.table == "task_step" && at_work.contains(row.text("task")) {
        row.clear("undo");
    }
    row
}

/// What is said of a task that was at work when a backup was made, as JSON.
fn at_work_then(at: Time) -> Result<String> {
    let error = Error::WrongState {
        detail: format!(
            "it was at work when a backup was made ({at}), which was restored: what became of it isn't known"
        ),
        hint: Some("look at what it was about (describe-vm, list-orphans)".to_owned()),
    };
    let problem = serde_json::to_string(&problem::to_wire(&error, None, None));
    problem.map_err(|error| Error::Internal(format!("write JSON: {error}")))
}
