//! The history of metrics: a database of its own, always SQLite, so that it can be full, slow, damaged or gone without
//! hurting anything else.

use crate::{Error, Result, metrics::chunk::Chunk};
use sqlx::{
    Connection, Row, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous},
};
use std::{
    collections::HashMap,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use uuid::Uuid;

/// Why a history can't be used that has to be made anew.
pub const DAMAGED: &str = "its file is damaged";

/// What a chunk is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Samples.
    Raw = 0,
    /// Five minutes each.
    Fine = 1,
    /// An hour each.
    Coarse = 2,
}

/// From the finest on.
pub const LEVELS: [Level; 3] = [Level::Raw, Level::Fine, Level::Coarse];

/// A roll-up of a VM's samples.
#[derive(Debug)]
pub struct RollUp {
    /// Which.
    pub level: Level,
    /// The VM.
    pub vm: Uuid,
    /// From when on it takes the place of what there is, in seconds since the Unix epoch.
    pub from_s: i64,
    /// What is kept.
    pub chunk: Chunk,
}

/// The samples of one node at one time, packed: what a server that is killed would lose of its heads.
#[derive(Debug, Clone)]
pub struct Tick {
    /// The time, in seconds since the Unix epoch.
    pub at_s: i64,
    /// Packed.
    pub data: Vec<u8>,
}

/// An open history.
#[derive(Debug, Clone)]
pub struct History {
    pool: SqlitePool,
    path: PathBuf,
    /// Which file it is: a path may come to lead to another.
    file: (u64, u64),
}

impl History {
    /// Opens the history, and makes it where there is none. One that is damaged is put aside, not deleted; the second part says where.
    pub async fn open(path: &Path) -> Result<(History, Option<PathBuf>)> {
        match History::try_open(path).await {
            Ok(history) => Ok((history, None)),
            Err(error) if is_damage(&error) => {
                let aside = History::put_aside(path)?;
                let history = History::try_open(path).await.map_err(failed("make the history of metrics anew"))?;
                Ok((history, Some(aside)))
            }
            Err(error) => Err(failed("open the history of metrics")(error)),
        }
    }

    async fn try_open(path: &Path) -> std::result::Result<History, sqlx::Error> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // What a machine that loses its power forgets is the last moments of a history.
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(Duration::from_secs(5))
            .pragma("cache_size", "-512");
        let pool = SqlitePoolOptions::new()
            .max_connections(2)
            .acquire_timeout(Duration::from_secs(10))
            // As in the database itself: one whose disk was full would refuse every further transaction.
            .before_acquire(|connection, _| Box::pin(async move { Ok(!connection.is_in_transaction()) }));
        let pool = pool.connect_with(options).await?;
        let tables = "create table if not exists chunk (
                id integer primary key, level integer not null, vm blob not null,
                first integer not null, last integer not null, data blob not null);
            create index if not exists chunk_vm on chunk (vm, level, last);
            create index if not exists chunk_last on chunk (level, last);
            create table if not exists tick (id integer primary key, at integer not null, data blob not null);
            create table if not exists rolled (id integer primary key check (id = 1), until integer not null)";
        sqlx::raw_sql(tables).execute(&pool).await?;
        let metadata = std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
            .and_then(|()| std::fs::metadata(path))
            .map_err(sqlx::Error::Io)?;
        Ok(History { pool, path: path.to_owned(), file: (metadata.dev(), metadata.ino()) })
    }

    /// Whether its file is still where it was: what is written to one that was deleted is lost.
    pub fn is_there(&self) -> bool {
        std::fs::metadata(&self.path).is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.file)
    }

    /// Takes in a tick and what was packed, and forgets the ticks that are packed by now, all or nothing.
    pub async fn write(&self, tick: Option<&Tick>, chunks: &[(Uuid, Arc<Chunk>)], ticks_from_s: i64) -> Result<()> {
        self.try_write(tick, chunks, ticks_from_s).await.map_err(failed("write the history of metrics"))
    }

    async fn try_write(
        &self,
        tick: Option<&Tick>,
        chunks: &[(Uuid, Arc<Chunk>)],
        ticks_from_s: i64,
    ) -> std::result::Result<(), sqlx::Error> {
        let mut transaction = self.pool.begin_with("begin immediate").await?;
        if let Some(tick) = tick {
            let query = sqlx::query("insert into tick (at, data) values ($1, $2)").bind(tick.at_s).bind(&tick.data);
            query.execute(&mut *transaction).await?;
        }
        for (vm, chunk) in chunks {
            insert(&mut transaction, Level::Raw, *vm, chunk).await?;
        }
        sqlx::query("delete from tick where at < $1").bind(ticks_from_s).execute(&mut *transaction).await?;
        transaction.commit().await
    }

    /// The ticks, in their order.
    pub async fn ticks(&self) -> Result<Vec<Tick>> {
        let rows = sqlx::query("select at, data from tick order by id").fetch_all(&self.pool).await;
        let rows = rows.map_err(failed("read the history of metrics"))?;
        Ok(rows.iter().map(|row| Tick { at_s: row.get("at"), data: row.get("data") }).collect())
    }

    /// Until when the samples of each VM are packed, of those that have any from that time on.
    pub async fn packed_until(&self, from_s: i64) -> Result<HashMap<Uuid, i64>> {
        let sql = "select vm, max(last) as last from chunk where level = 0 and last >= $1 group by vm";
        let rows = sqlx::query(sql).bind(from_s).fetch_all(&self.pool).await;
        let rows = rows.map_err(failed("read the history of metrics"))?;
        let of = |row: &SqliteRow| Some((Uuid::from_slice(row.get("vm")).ok()?, row.get("last")));
        Ok(rows.iter().filter_map(of).collect())
    }

    /// The chunks of a VM that have something from `start_s` on and before `end_s`.
    pub async fn chunks(&self, vm: Uuid, level: Level, start_s: i64, end_s: i64) -> Result<Vec<Chunk>> {
        let sql = "select first, last, data from chunk where vm = $1 and level = $2 and last >= $3 and first < $4 order by first";
        let query = sqlx::query(sql).bind(vm.as_bytes().as_slice()).bind(level as i64).bind(start_s).bind(end_s);
        let rows = query.fetch_all(&self.pool).await.map_err(failed("read the history of metrics"))?;
        let chunk =
            |row: &SqliteRow| Chunk { first_s: row.get("first"), last_s: row.get("last"), data: row.get("data") };
        Ok(rows.iter().map(chunk).collect())
    }

    /// The VMs that have raw samples from `start_s` on and before `end_s`.
    pub async fn vms(&self, start_s: i64, end_s: i64) -> Result<Vec<Uuid>> {
        let sql = "select distinct vm from chunk where level = 0 and last >= $1 and first < $2";
        let rows = sqlx::query(sql).bind(start_s).bind(end_s).fetch_all(&self.pool).await;
        let rows = rows.map_err(failed("read the history of metrics"))?;
        Ok(rows.iter().filter_map(|row| Uuid::from_slice(row.get::<&[u8], _>("vm")).ok()).collect())
    }

    /// Until when everything is rolled up; without roll-ups, the time of the first sample, `None` when there is none.
    pub async fn rolled_until(&self) -> Result<Option<i64>> {
        let sql =
            "select coalesce((select until from rolled), (select min(first) from chunk where level = 0)) as until";
        let row = sqlx::query(sql).fetch_one(&self.pool).await.map_err(failed("read the history of metrics"))?;
        Ok(row.get("until"))
    }

    /// Takes in the roll-ups of some VMs, all or nothing; each takes the place of what there is of its time, so that it may come again.
    pub async fn put_roll_ups(&self, roll_ups: &[RollUp]) -> Result<()> {
        let write = async {
            let mut transaction = self.pool.begin_with("begin immediate").await?;
            for RollUp { level, vm, from_s, chunk } in roll_ups {
                let sql = "delete from chunk where vm = $1 and level = $2 and last >= $3 and first <= $4";
                let query = sqlx::query(sql).bind(vm.as_bytes().as_slice()).bind(*level as i64);
                query.bind(from_s).bind(chunk.last_s).execute(&mut *transaction).await?;
                insert(&mut transaction, *level, *vm, chunk).await?;
            }
            transaction.commit().await
        };
        write.await.map_err(failed("roll up the history of metrics"))
    }

    /// Notes that everything before that time is rolled up.
    pub async fn set_rolled_until(&self, until_s: i64) -> Result<()> {
        let sql = "insert into rolled (id, until) values (1, $1) on conflict (id) do update set until = excluded.until";
        let query = sqlx::query(sql).bind(until_s).execute(&self.pool).await;
        query.map(|_| ()).map_err(failed("roll up the history of metrics"))
    }

    /// Forgets what ends before that time; a few thousand chunks at a time, so that nobody waits for it. Returns how many.
    pub async fn forget(&self, level: Level, before_s: i64) -> Result<u64> {
        let sql = "delete from chunk where id in (select id from chunk where level = $1 and last < $2 limit 2000)";
        let mut all = 0;
        loop {
            let query = sqlx::query(sql).bind(level as i64).bind(before_s).execute(&self.pool).await;
            let gone = query.map_err(failed("forget old metrics"))?.rows_affected();
            all += gone;
            if gone == 0 {
                return Ok(all);
            }
        }
    }

    /// The time of the oldest chunk of a level.
    pub async fn oldest(&self, level: Level) -> Result<Option<i64>> {
        let query = sqlx::query("select min(last) as last from chunk where level = $1").bind(level as i64);
        Ok(query.fetch_one(&self.pool).await.map_err(failed("read the history of metrics"))?.get("last"))
    }

    /// How many bytes of its file are in use.
    pub async fn used_bytes(&self) -> Result<u64> {
        let sql = "select (select page_count from pragma_page_count) - (select freelist_count from pragma_freelist_count) as pages,
                   (select page_size from pragma_page_size) as size";
        let row = sqlx::query(sql).fetch_one(&self.pool).await.map_err(failed("read the history of metrics"))?;
        let (pages, size): (i64, i64) = (row.get("pages"), row.get("size"));
        Ok(u64::try_from(pages.saturating_mul(size)).unwrap_or(0))
    }

    /// Moves a damaged history out of the way, with what belongs to it.
    pub fn put_aside(path: &Path) -> Result<PathBuf> {
        let with = |more: &str| PathBuf::from(format!("{}{more}", path.display()));
        let aside = with(&format!(".damaged-{}", api::Time::now().0 / 1000));
        let moved = std::fs::rename(path, &aside);
        moved.map_err(|error| Error::Internal(format!("move {} out of the way: {error}", path.display())))?;
        for more in ["-wal", "-shm"] {
            // It may not be there; a new database must not find it.
            let _ = std::fs::remove_file(with(more));
        }
        Ok(aside)
    }

    /// Closes it.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

async fn insert(
    transaction: &mut sqlx::Transaction<'_, sqlx::Sqlite>,
    level: Level,
    vm: Uuid,
    chunk: &Chunk,
) -> std::result::Result<(), sqlx::Error> {
    sqlx::query("insert into chunk (level, vm, first, last, data) values ($1, $2, $3, $4, $5)")
        .bind(level as i64)
        .bind(vm.as_bytes().as_slice())
        .bind(chunk.first_s)
        .bind(chunk.last_s)
        .bind(&chunk.data)
        .execute(&mut **transaction)
        .await
        .map(|_| ())
}

/// Whether the file is no database, or not a whole one: <https://sqlite.org/rescode.html>, SQLITE_CORRUPT and SQLITE_NOTADB.
fn is_damage(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| {
        matches!(error.code().as_deref(), Some("11" | "26" | "267" | "523" | "779"))
            || error.message().contains("malformed")
            || error.message().contains("not a database")
    })
}

fn failed(doing: &'static str) -> impl Fn(sqlx::Error) -> Error {
    move |error| {
        let damaged = is_damage(&error).then_some(DAMAGED);
        let why = damaged.or_else(|| super::unusable(&error)).unwrap_or("the log has the reason");
        Error::History { why, cause: format!("could not {doing}: {error}") }
    }
}
