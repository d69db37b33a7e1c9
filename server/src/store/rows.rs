//! Rows as they are, whatever their table has: for backups, and for the manifests on nodes.
//!
//! Columns are text or whole numbers only (`server/tests/store.rs` checks it), so one form serves both databases.

use super::{Store, failed};
use crate::{Error, Result};
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sqlx::{Any, AssertSqlSafe, Column, Row, Transaction, ValueRef, any::AnyRow};

/// A table.
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// What its rows are told apart by.
    pub key: &'static [&'static str],
    /// The migration that made it.
    pub since: i64,
    told: Told,
}

/// Which nodes are told a table's rows.
enum Told {
    None,
    All,
    /// The one that the row names.
    Named,
    /// The one that this column of what is joined names.
    Through(&'static str, &'static str),
}

impl Table {
    /// Whether every node is told all of it.
    pub fn is_everywhere(&self) -> bool {
        matches!(self.told, Told::All)
    }

    /// Its rows, each with the node that it is of as `on_node`, empty for those that every node is told; `None` when no node is told.
    fn on_nodes(&self) -> Option<String> {
        let (node, join) = match self.told {
            Told::None => return None,
            Told::All => ("''", ""),
            Told::Named => ("t.node", ""),
            Told::Through(node, join) => (node, join),
        };
        Some(format!("select t.*, {node} as on_node from {} t {join}", self.name))
    }
}

const fn table(name: &'static str, key: &'static [&'static str], since: i64, told: Told) -> Table {
    Table { name, key, since, told }
}

/// All tables, those that others refer to before them. A backup has all but sessions.
pub const TABLES: &[Table] = &[
    table("installation", &["id"], 13, Told::None),
    table("node", &["id"], 4, Told::All),
    table("node_disabled", &["name_key"], 4, Told::All),
    table("keypair", &["id"], 8, Told::All),
    table("vm", &["id"], 1, Told::Named),
    table("template", &["id"], 1, Told::Through("c.node", "join template_copy c on c.template = t.id")),
    table("template_copy", &["template", "node"], 1, Told::Named),
    table("volume", &["id"], 1, Told::Named),
    table("snapshot", &["id"], 6, Told::Named),
    table("snapshot_disk", &["snapshot", "volume"], 6, Told::Through("s.node", "join snapshot s on s.id = t.snapshot")),
    table("leftover", &["node", "pool", "file"], 6, Told::Named),
    table("made", &["kind", "pool", "file"], 7, Told::Named),
    table("definition", &["vm"], 12, Told::None),
    table("task", &["id"], 1, Told::None),
    table("task_step", &["task", "seq"], 1, Told::None),
    table("token", &["id"], 1, Told::None),
    table("client_token", &["caller", "method", "token"], 2, Told::None),
    table("audit", &["id"], 3, Told::None),
    table("credential_check", &["vm", "user_name", "kind"], 9, Told::None),
    table("event", &["seq"], 10, Told::None),
    table("event_counter", &["id"], 10, Told::None),
    table("webhook", &["id"], 11, Told::None),
    table("webhook_delivery", &["webhook", "seq"], 11, Told::None),
];

/// A row of a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawRow {
    /// The table.
    pub table: String,
    /// Its columns: text, whole numbers and null.
    pub row: Map<String, Value>,
}

impl RawRow {
    /// The table, if it is one of today's.
    pub fn of(&self) -> Option<&'static Table> {
        TABLES.iter().find(|table| table.name == self.table)
    }

    /// What it is told apart by, in its table.
    pub fn key(&self) -> Vec<&Value> {
        let columns = self.of().map_or(&[][..], |table| table.key);
        columns.iter().map(|column| self.row.get(*column).unwrap_or(&Value::Null)).collect()
    }

    /// The text in a column; empty where there is none.
    pub fn text(&self, column: &str) -> &str {
        self.row.get(column).and_then(Value::as_str).unwrap_or_default()
    }

    /// Puts null into a column.
    pub fn clear(&mut self, column: &str) {
        self.row.insert(column.to_owned(), Value::Null);
    }

    /// Puts text into a column.
    pub fn set(&mut self, column: &str, text: impl Into<String>) {
        self.row.insert(column.to_owned(), Value::String(text.into()));
    }
}

impl Store {
    /// Reads all rows that a backup has, as of one moment.
    pub async fn read_rows(&self, mut each: impl FnMut(RawRow) -> Result<()>) -> Result<()> {
        let version = self.version().await?;
        let mut transaction = self.begin_reading().await?;
        for table in TABLES.iter().filter(|table| table.since <= version) {
            let sql = format!("select * from {}", table.name);
            let mut rows = sqlx::query(AssertSqlSafe(sql)).fetch(&mut *transaction);
            while let Some(row) = rows.try_next().await.map_err(failed("read all rows"))? {
                each(read(table, &row)?)?;
            }
        }
        Ok(())
    }

    /// Reads all rows that nodes are told, each with its node (empty: all), as of one moment.
    pub async fn read_rows_on_nodes(&self, mut each: impl FnMut(&str, RawRow) -> Result<()>) -> Result<()> {
        let mut transaction = self.begin_reading().await?;
        for table in TABLES {
            let Some(sql) = table.on_nodes() else { continue };
            let mut rows = sqlx::query(AssertSqlSafe(sql)).fetch(&mut *transaction);
            while let Some(row) = rows.try_next().await.map_err(failed("read the rows of nodes"))? {
                let mut row = read(table, &row)?;
                let node = row.row.remove("on_node");
                each(node.as_ref().and_then(Value::as_str).unwrap_or_default(), row)?;
            }
        }
        Ok(())
    }

    /// Puts rows of a backup in the place of all that there is, in one. Nothing is left of the tables' rows.
    pub async fn replace_rows(&self, rows: impl Iterator<Item = Result<RawRow>>) -> Result<()> {
        self.replace(rows, |_| true).await
    }

    /// Puts these rows in the place of all that nodes are told, in one.
    pub async fn replace_rows_on_nodes(&self, rows: impl Iterator<Item = Result<RawRow>>) -> Result<()> {
        self.replace(rows, |table| !matches!(table.told, Told::None)).await
    }

    async fn replace(&self, rows: impl Iterator<Item = Result<RawRow>>, which: impl Fn(&Table) -> bool) -> Result<()> {
        let version = self.version().await?;
        let tables = || TABLES.iter().filter(|table| table.since <= version && which(table));
        let mut transaction = self.begin().await?;
        for table in tables().rev() {
            let sql = format!("delete from {}", table.name);
            sqlx::query(AssertSqlSafe(sql)).execute(&mut *transaction).await.map_err(failed("empty a table"))?;
        }
        for row in rows {
            let row = row?;
            if !tables().any(|table| table.name == row.table) {
                return Err(Error::Internal(format!("there is no table {:?} to put a row into", row.table)));
            }
            insert(&mut transaction, &row).await?;
        }
        self.commit(transaction, "put rows in").await
    }

    /// A transaction that sees the database as of one moment.
    async fn begin_reading(&self) -> Result<Transaction<'_, Any>> {
        let how = if self.sqlite { "BEGIN" } else { "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY" };
        self.pool.begin_with(how).await.map_err(failed("begin to read"))
    }
}

fn read(table: &Table, row: &AnyRow) -> Result<RawRow> {
    let mut values = Map::new();
    for column in row.columns() {
        let (name, at) = (column.name(), column.ordinal());
        let value = row.try_get_raw(at).map_err(failed("read a column"))?;
        let value = if value.is_null() {
            Value::Null
        } else if let Ok(text) = row.try_get::<String, _>(at) {
            Value::String(text)
        } else {
            Value::from(row.try_get::<i64, _>(at).map_err(failed("read a column"))?)
        };
        values.insert(name.to_owned(), value);
    }
    Ok(RawRow { table: table.name.to_owned(), row: values })
}

async fn insert(transaction: &mut Transaction<'_, Any>, row: &RawRow) -> Result<()> {
    let known = |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    if let Some(name) = row.row.keys().find(|name| !known(name)) {
        return Err(Error::Internal(format!("{name:?} can't be a column of table {}", row.table)));
    }
    // A null has no type of its own, so it is none of the parameters.
    let (mut columns, mut places, mut number) = (Vec::new(), Vec::new(), 0);
    for (name, value) in &row.row {
        columns.push(name.as_str());
        number += i32::from(!value.is_null());
        places.push(if value.is_null() { "null".to_owned() } else { format!("${number}") });
    }
    let sql = format!("insert into {} ({}) values ({})", row.table, columns.join(", "), places.join(", "));
    let mut query = sqlx::query(AssertSqlSafe(sql));
    for value in row.row.values() {
        query = match value {
            Value::Null => query,
            Value::String(text) => query.bind(text.clone()),
            Value::Number(number) if number.is_i64() => query.bind(number.as_i64()),
            other => return Err(Error::Internal(format!("{other} can't be in a row of table {}", row.table))),
        };
    }
    let inserted = query.execute(&mut **transaction).await;
    inserted.map(|_| ()).map_err(|error| {
        let key = Value::from(row.key().into_iter().cloned().collect::<Vec<_>>());
        Error::Internal(format!("put a row into table {} ({key}): {error}", row.table))
    })
}
