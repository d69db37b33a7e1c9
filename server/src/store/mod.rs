//! The database: intent and identity. SQLite by default, PostgreSQL by URL, one SQL text for both.
//!
//! The only place with SQL. It holds which VMs, volumes and templates there are and what tasks do; power states,
//! addresses and ports are read from libvirt and never kept here.

mod audit;
mod client_token;
mod credential_check;
mod definition;
mod event;
mod frozen;
mod history;
mod keypair;
mod leftover;
mod made;
mod node;
mod restored;
mod rows;
mod session;
mod snapshot;
mod task;
mod template;
mod token;
mod vm;
mod volume;
mod webhook;

pub use audit::{AuditFilter, AuditRecord};
pub use client_token::ClientToken;
pub use credential_check::{Boot, CheckRecord};
pub use definition::{Definition, NicDefinition};
pub use event::{EventFilter, EventRange, NewEvent};
pub use frozen::{Above, FrozenDisk};
pub use history::{DAMAGED, History, LEVELS, Level, RollUp, Tick};
pub use keypair::KeypairRecord;
pub use made::{Made, MadeRecord};
pub use node::NodeRecord;
pub use rows::{RawRow, TABLES, Table};
pub use session::SessionRecord;
pub use snapshot::{Image, Move, SnapshotPhase, SnapshotRecord, SnapshotSpec};
pub use task::{Ended, StepBegun, StepRecord, TaskBegun, TaskRecord};
pub use template::{CopyRecord, TemplatePhase, TemplateRecord, TemplateSpec};
pub use token::TokenRecord;
pub use vm::{Reserved, VmPhase, VmRecord, VmSpec};
pub use volume::{VolumePhase, VolumeRecord, VolumeRole};
pub use webhook::{WebhookRecord, WebhookSecret};

use crate::{Error, Result};
use sqlx::{
    Any, AnyConnection, AnyPool, Connection, Executor, Row, SqlStr, Transaction,
    any::{AnyConnectOptions, AnyPoolOptions},
    migrate::{Migration, MigrationType, Migrator},
};
use std::{
    borrow::Cow,
    fs::{File, TryLockError},
    os::unix::fs::PermissionsExt,
    path::Path,
    str::FromStr,
    sync::Arc,
    time::Duration,
};
use tokio::sync::watch;

/// A database. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    pool: AnyPool,
    sqlite: bool,
    /// Counts the transactions that told events.
    told: watch::Sender<u64>,
    /// Counts the changes of what nodes are told of it.
    changes: watch::Sender<u64>,
    tokens: Arc<token::Known>,
    _in_use: Arc<InUse>,
}

/// What keeps other servers from the same database. It goes with the process, however that ends.
enum InUse {
    File(#[allow(dead_code)] File),
    Connection(#[allow(dead_code)] tokio::sync::Mutex<AnyConnection>),
    /// In memory: nobody else can have it.
    Memory,
}

impl Store {
    /// Opens the database at this URL, for this process alone, and brings its tables up to date. A SQLite file is made when it
    /// isn't there.
    pub async fn open(url: &str) -> Result<Store> {
        Store::open_at(url, SCHEMA).await
    }

    /// The same, with tables as they were after an older migration; see [`Store::migrate_to`].
    pub async fn open_at(url: &str, version: i64) -> Result<Store> {
        let store = Store::connect(url, true).await?;
        let in_use = lock(&store.pool, &with_mode(url, "rwc")).await?;
        let store = Store { _in_use: Arc::new(in_use), ..store };
        store.migrate_to(version).await?;
        Ok(store)
    }

    /// Opens a database that is there, as it is, to read it beside the process that works with it.
    pub async fn open_to_read(url: &str) -> Result<Store> {
        Store::connect(url, false).await
    }

    async fn connect(url: &str, make: bool) -> Result<Store> {
        sqlx::any::install_default_drivers();
        let sqlite = url.starts_with("sqlite:");
        let url = with_mode(url, if make { "rwc" } else { "rw" });
        let options = AnyConnectOptions::from_str(&url).map_err(failed("understand the database's URL"))?;
        // An in-memory database is private to its connection.
        let connections = if url.contains(":memory:") { 1 } else { 8 };
        let pool = AnyPoolOptions::new()
            .max_connections(connections)
            .min_connections(1)
            .max_lifetime(None)
            .idle_timeout(None)
            .acquire_timeout(Duration::from_secs(20))
            // A file doesn't go away as a server does, and being asked first costs each statement a turn of its thread.
            .test_before_acquire(!sqlite)
            .after_connect(move |connection, _| {
                Box::pin(async move {
                    if sqlite {
                        // FULL: what was journalled before a step is on the disk before the step begins.
                        connection.execute("pragma journal_mode = wal").await?;
                        connection.execute("pragma synchronous = full").await?;
                        connection.execute("pragma foreign_keys = on").await?;
                        connection.execute("pragma busy_timeout = 10000").await?;
                        // In KiB, of each connection; SQLite's own 2 MiB would be a quarter of the server's memory.
                        connection.execute("pragma cache_size = -512").await?;
                    }
                    Ok(())
                })
            })
            // SQLite ends a transaction by itself when its disk is full, which the driver doesn't notice: the connection
            // would refuse every further transaction.
            .before_acquire(|connection, _| Box::pin(async move { Ok(!connection.is_in_transaction()) }))
            .connect_with(options)
            .await
            .map_err(failed("open the database"))?;
        let in_use = Arc::new(InUse::Memory);
        let (told, changes) = (watch::Sender::new(0), watch::Sender::new(0));
        Ok(Store { pool, sqlite, told, changes, tokens: Arc::default(), _in_use: in_use })
    }

    /// Brings the tables to a migration, which is none before theirs.
    pub async fn migrate_to(&self, version: i64) -> Result<()> {
        let migrated = migrations(version).run(&self.pool).await;
        migrated.map_err(|error| Error::Internal(format!("migrate the database: {error}")))
    }

    /// The last migration of the tables.
    pub async fn version(&self) -> Result<i64> {
        let row = sqlx::query("select max(version) as version from _sqlx_migrations").fetch_one(&self.pool).await;
        Ok(row.map_err(failed("read the version of the tables"))?.get::<Option<i64>, _>("version").unwrap_or(0))
    }

    /// The URL of the default database in a data directory.
    pub fn default_url(data_dir: &Path) -> String {
        format!("sqlite://{}", data_dir.join("vmyard.db").display())
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<()> {
        sqlx::query("select 1").execute(&self.pool).await.map(|_| ()).map_err(failed("reach the database"))
    }

    /// A transaction that writes. SQLite must take its write lock at the beginning: a read that turns into a write
    /// fails at once when somebody else has written.
    async fn begin(&self) -> Result<Transaction<'_, Any>> {
        let how = if self.sqlite { "BEGIN IMMEDIATE" } else { "BEGIN" };
        self.pool.begin_with(how).await.map_err(failed("begin a transaction"))
    }

    /// Ends a transaction that has changed what nodes are told.
    async fn commit(&self, transaction: Transaction<'_, Any>, doing: &'static str) -> Result<()> {
        let done = transaction.commit().await.map_err(failed(doing));
        self.changed();
        done
    }

    /// Says that what nodes are told may have changed.
    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// Changes whenever what nodes are told may have changed.
    pub fn follow_changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

/// The URL of a SQLite database with what may be done with its file, where it doesn't say so itself.
fn with_mode(url: &str, mode: &str) -> String {
    let says_itself = !url.starts_with("sqlite:") || url.contains(":memory:") || url.contains("mode=");
    let separator = if url.contains('?') { '&' } else { '?' };
    if says_itself { url.to_owned() } else { format!("{url}{separator}mode={mode}") }
}

/// The file of a SQLite database, by its URL.
pub fn sqlite_file(url: &str) -> Option<&str> {
    let path = url.strip_prefix("sqlite:")?.trim_start_matches("//");
    Some(path.split_once('?').map_or(path, |(path, _)| path))
}

/// Makes sure that no other server works with this database: two would unwind each other's tasks.
async fn lock(pool: &AnyPool, url: &str) -> Result<InUse> {
    let taken =
        || Error::field("database", "another vmyard serves with this database; stop it first, or use another one");
    let Some(path) = sqlite_file(url) else {
        let mut connection = pool.acquire().await.map_err(failed("lock the database"))?.detach();
        // Any number will do, as long as it is always the same.
        let row = sqlx::query("select pg_try_advisory_lock(7777001) as locked").fetch_one(&mut connection).await;
        return match row.map_err(failed("lock the database"))?.get::<bool, _>("locked") {
            true => Ok(InUse::Connection(tokio::sync::Mutex::new(connection))),
            false => Err(taken()),
        };
    };
    if path.contains(":memory:") {
        return Ok(InUse::Memory);
    }
    let failed = |error: std::io::Error| Error::Internal(format!("lock {path}: {error}"));
    // It holds hashes of tokens, and what guests were given.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    let file = File::options().create(true).truncate(false).write(true).open(format!("{path}.lock")).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(InUse::File(file)),
        Err(TryLockError::WouldBlock) => Err(taken()),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// The last of [`migrations`].
pub const SCHEMA: i64 = 13;

/// The steps from an empty database to the tables of a version. A step that was released is never changed.
fn migrations(version: i64) -> Migrator {
    let step = |version, name, sql| {
        Migration::new(version, Cow::Borrowed(name), MigrationType::Simple, SqlStr::from_static(sql), false)
    };
    let all = vec![
        step(1, "start", include_str!("../../migrations/0001_start.sql")),
        step(2, "client token", include_str!("../../migrations/0002_client_token.sql")),
        step(3, "access", include_str!("../../migrations/0003_access.sql")),
        step(4, "node", include_str!("../../migrations/0004_node.sql")),
        step(5, "volume phase", include_str!("../../migrations/0005_volume_phase.sql")),
        step(6, "snapshot", include_str!("../../migrations/0006_snapshot.sql")),
        step(7, "made", include_str!("../../migrations/0007_made.sql")),
        step(8, "keypair", include_str!("../../migrations/0008_keypair.sql")),
        step(9, "credential check", include_str!("../../migrations/0009_credential_check.sql")),
        step(10, "event", include_str!("../../migrations/0010_event.sql")),
        step(11, "webhook", include_str!("../../migrations/0011_webhook.sql")),
        step(12, "definition", include_str!("../../migrations/0012_definition.sql")),
        step(13, "installation", include_str!("../../migrations/0013_installation.sql")),
    ];
    Migrator::with_migrations(all.into_iter().filter(|step| step.version <= version).collect())
}

/// An error of the database, with what was being done.
fn failed(doing: &'static str) -> impl Fn(sqlx::Error) -> Error {
    move |error| match unusable(&error) {
        Some(why) => Error::Database { why, cause: format!("could not {doing}: {error}") },
        None => Error::Internal(format!("could not {doing}: {error}")),
    }
}

/// Why the database can't be used as it is, where that is no fault of ours: its disk is full, it is read-only, it is away.
/// SQLite's codes: <https://sqlite.org/rescode.html>; PostgreSQL's:
/// <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
fn unusable(error: &sqlx::Error) -> Option<&'static str> {
    let sqlx::Error::Database(error) = error else {
        let away = matches!(error, sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed);
        return away.then_some("it does not answer");
    };
    let (code, message) = (error.code().unwrap_or_default().into_owned(), error.message());
    match code.as_str() {
        "53100" => return Some("its disk is full"),
        "25006" => return Some("it is read-only"),
        "57P01" | "57P02" | "57P03" | "53300" => return Some("it does not answer"),
        _ => {}
    }
    // The driver for any database leaves SQLite's codes out.
    let says = |text: &str| message.contains(text);
    if says("database or disk is full") {
        Some("its disk is full")
    } else if says("attempt to write a readonly database") {
        Some("it is read-only")
    } else if says("disk I/O error") || says("unable to open database file") {
        Some("its file can't be read or written")
    } else if says("database is locked") {
        Some("another program keeps it locked")
    } else {
        None
    }
}

/// Whether a row with the same key is there already.
fn is_taken(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.is_unique_violation())
}

/// A write with `revision` in its condition found no row: somebody else has written meanwhile, or it is gone.
fn expect_one(rows: u64, what: &str) -> Result<()> {
    match rows {
        1 => Ok(()),
        _ => Err(Error::Internal(format!("{what} was changed by somebody else meanwhile"))),
    }
}

/// The key under which a name is unique.
pub fn name_key(name: &str) -> String {
    name.to_lowercase()
}

fn parse_uuid(text: &str) -> Result<uuid::Uuid> {
    text.parse().map_err(|_| Error::Internal(format!("the database has {text:?} for a UUID")))
}

fn to_json(value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::Internal(format!("write JSON: {error}")))
}

fn from_json<T: serde::de::DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text)
        .map_err(|error| Error::Internal(format!("the database has JSON that can't be read: {error}")))
}
