//! Vmyard's own database in a file, and back. The file is the same for SQLite and PostgreSQL, so a backup of one can be restored into
//! the other.

use crate::{
    Config, Error, Result, auth,
    packed::{Line, Reader, Writer},
    problem,
    rebuild::{self, Rebuilt, Which, newer, not_empty},
    store::{SCHEMA, Store},
};
use api::Time;
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File, OpenOptions},
    io::{BufReader, BufWriter},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

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
    match url.strip_prefix("sqlite://") {
        Some(path) => format!("database {}", path.split('?').next().unwrap_or_default()),
        None => "the database".to_owned(),
    }
}

/// The file's name while it is written.
fn draft_beside(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".part");
    PathBuf::from(name)
}

/// Puts a backup into the empty database that the configuration names, and brings it to what the manifests of these nodes say.
pub async fn restore(config: &Config, file: &Path, which: &Which) -> Result<(Summary, Rebuilt)> {
    let wrong = |why: String| Error::field("file", format!("{} can't be restored: {why}", file.display()));
    let open = || File::open(file).map_err(|error| wrong(error.to_string()));
    // All of it is looked at before anything is changed.
    let (head, lines) = Reader::new::<Head>(BufReader::new(open()?)).map_err(|why| wrong(not_ours(&why)))?;
    if head.vmyard_backup != 1 || head.schema > SCHEMA {
        return Err(newer(head.schema));
    }
    let mut rows = 0;
    for line in lines {
        line.map_err(wrong)?;
        rows += 1;
    }
    auth::ensure_data_dir(&config.data_dir)?;
    let url = config.database_url();
    let store = Store::open_at(&url, head.schema).await?;
    if let Some(what) = store.first_row_of_work().await? {
        return Err(not_empty(&url, &what));
    }
    let (_, lines) = Reader::new::<Head>(BufReader::new(open()?)).map_err(wrong)?;
    let rows_of = lines.filter_map(|line| match line {
        Ok(Line::Row(row)) => Some(Ok(row)),
        Ok(_) => None,
        Err(why) => Some(Err(wrong(why))),
    });
    let caught_up = async {
        store.replace_rows(rows_of).await?;
        store.migrate_to(SCHEMA).await?;
        let ended = Error::WrongState {
            detail: format!(
                "it was at work when a backup was made ({}), which was restored: what became of it isn't known",
                head.at
            ),
            hint: Some("look at what it was about (describe-vm, list-orphans)".to_owned()),
        };
        store.end_what_was_at_work(&problem::to_wire(&ended, None, None)).await?;
        rebuild::catch_up(config, &store, head.at, which).await
    };
    let caught_up = match caught_up.await {
        Ok(caught_up) => caught_up,
        // So that it can be tried again.
        Err(error) => {
            store.replace_rows(std::iter::empty()).await?;
            return Err(error);
        }
    };
    let bytes = fs::metadata(file).map(|data| data.len()).unwrap_or_default();
    Ok((Summary { at: head.at, rows, bytes }, caught_up))
}

fn not_ours(why: &str) -> String {
    format!("it is no backup of Vmyard ({why})")
}
