//! What has happened, in its order.

use super::{Store, failed, from_json, parse_uuid};
use crate::{Error, Result};
use api::{
    Time,
    event::{Event, EventKind},
    vm::VmState,
};
use serde::Deserialize;
use serde_json::Value;
use sqlx::{Any, Row, Transaction, any::AnyRow};
use std::collections::HashMap;
use tokio::sync::watch;
use uuid::Uuid;

/// Something that has just happened.
#[derive(Debug, Clone, PartialEq)]
pub struct NewEvent {
    /// When.
    pub at: Time,
    /// What it is.
    pub kind: EventKind,
    /// The VM that it is about.
    pub vm: Option<Uuid>,
    /// Its name.
    pub vm_name: Option<String>,
    /// The node; of an event about one of our VMs the VM's, when absent.
    pub node: Option<String>,
    /// The task that it is about.
    pub task: Option<Uuid>,
    /// In words.
    pub message: String,
    /// For programs.
    pub details: Value,
}

/// Which events are wanted.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    /// A VM's id, or its name.
    pub vm: Option<String>,
    /// A node's name.
    pub node: Option<String>,
    /// These kinds; all when empty.
    pub kinds: Vec<EventKind>,
    /// The task.
    pub task: Option<Uuid>,
    /// Not before this moment.
    pub since: Option<Time>,
    /// Before this moment.
    pub until: Option<Time>,
}

/// The numbers of the events that there are. There are none when `first` is greater than `last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventRange {
    /// Of the oldest.
    pub first: i64,
    /// Of the newest that there ever was.
    pub last: i64,
}

impl EventRange {
    /// Where somebody goes on who has seen everything up to this number, if that isn't where these go on: what follows is no longer
    /// kept, or the number is of another database.
    pub fn gap_after(self, seen: i64) -> Option<i64> {
        if seen > self.last {
            return Some(self.last);
        }
        (seen + 1 < self.first).then_some(self.first - 1)
    }
}

const COLUMNS: &str = "seq, created_at, kind, vm, vm_name, node, task, message, details";
/// The first six parameters are a filter's.
const FITS: &str = "($1 = '' or vm = $1 or lower(vm_name) = $1) and ($2 = '' or lower(node) = $2)
                    and ($3 = '' or $3 like '%,' || kind || ',%') and ($4 = '' or task = $4)
                    and created_at >= $5 and created_at < $6";

/// Adds events within a transaction. Until its end, nobody else's get a number.
pub(super) async fn insert(transaction: &mut Transaction<'_, Any>, events: &[NewEvent]) -> Result<()> {
    let doing = "write events";
    for event in events {
        let sql = "update event_counter set last = last + 1 where id = 1";
        sqlx::query(sql).execute(&mut **transaction).await.map_err(failed(doing))?;
        sqlx::query(
            "insert into event (seq, created_at, kind, vm, vm_name, node, task, message, details)
             values ((select last from event_counter where id = 1), $1, $2, $3, $4,
                     coalesce($5, (select node from vm where vm.id = $3)), $6, $7, $8)",
        )
        .bind(event.at.0)
        .bind(event.kind.as_str())
        .bind(event.vm.map(|id| id.to_string()))
        .bind(&event.vm_name)
        .bind(&event.node)
        .bind(event.task.map(|id| id.to_string()))
        .bind(&event.message)
        .bind(event.details.to_string())
        .execute(&mut **transaction)
        .await
        .map_err(failed(doing))?;
    }
    Ok(())
}

impl Store {
    /// Adds events, all or none.
    pub async fn insert_events(&self, events: &[NewEvent]) -> Result<()> {
        let mut transaction = self.begin().await?;
        insert(&mut transaction, events).await?;
        transaction.commit().await.map_err(failed("write events"))?;
        self.events_told();
        Ok(())
    }

    /// Says to whoever follows the events that there are more.
    pub(crate) fn events_told(&self) {
        self.told.send_modify(|count| *count += 1);
    }

    /// Changes whenever there are more events.
    pub fn follow_events(&self) -> watch::Receiver<u64> {
        self.told.subscribe()
    }

    /// The numbers of the events that there are.
    pub async fn event_range(&self) -> Result<EventRange> {
        let sql =
            "select last, coalesce((select min(seq) from event), last + 1) as first from event_counter where id = 1";
        let row = sqlx::query(sql).fetch_one(&self.pool).await.map_err(failed("read the events"))?;
        Ok(EventRange { first: row.get("first"), last: row.get("last") })
    }

    /// The events that fit, from the one after this number on and up to that one, the oldest first.
    pub async fn events_after(&self, filter: &EventFilter, after: i64, up_to: i64, limit: usize) -> Result<Vec<Event>> {
        let sql = format!("select {COLUMNS} from event where {FITS} and seq > $7 and seq <= $8 order by seq limit $9");
        let query = filter.bind(sqlx::query(sqlx::AssertSqlSafe(sql))).bind(after).bind(up_to).bind(limit as i64);
        let rows = query.fetch_all(&self.pool).await.map_err(failed("read the events"))?;
        rows.iter().map(read).collect()
    }

    /// A page of events, the newest first, and how many fit. `before` is the number of the last event of the page before.
    pub async fn events(&self, filter: &EventFilter, before: Option<i64>, limit: usize) -> Result<(Vec<Event>, u64)> {
        let count = format!("select count(*) as n from event where {FITS}");
        let total = filter.bind(sqlx::query(sqlx::AssertSqlSafe(count))).fetch_one(&self.pool).await;
        let total = total.map_err(failed("count the events"))?;
        let sql = format!("select {COLUMNS} from event where {FITS} and seq < $7 order by seq desc limit $8");
        let query =
            filter.bind(sqlx::query(sqlx::AssertSqlSafe(sql))).bind(before.unwrap_or(i64::MAX)).bind(limit as i64);
        let rows = query.fetch_all(&self.pool).await.map_err(failed("read the events"))?;
        Ok((rows.iter().map(read).collect::<Result<_>>()?, total.get::<i64, _>("n") as u64))
    }

    /// The states of VMs that were told last, as far as that is kept.
    pub async fn last_states(&self) -> Result<HashMap<Uuid, VmState>> {
        let sql = "select vm, details from event where seq in
                   (select max(seq) from event where kind = 'vm-state' and vm is not null group by vm)";
        let rows = sqlx::query(sql).fetch_all(&self.pool).await.map_err(failed("read the last states of VMs"))?;
        let mut states = HashMap::new();
        for row in &rows {
            let details: Value = from_json(row.get("details"))?;
            if let Ok(state) = VmState::deserialize(&details["state"]) {
                states.insert(parse_uuid(row.get("vm"))?, state);
            }
        }
        Ok(states)
    }

    /// The last events of a kind about a VM, the newest first.
    pub async fn last_events(&self, vm: Uuid, kind: EventKind, limit: usize) -> Result<Vec<Event>> {
        let sql = format!("select {COLUMNS} from event where vm = $1 and kind = $2 order by seq desc limit $3");
        let query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(vm.to_string()).bind(kind.as_str()).bind(limit as i64);
        let rows = query.fetch_all(&self.pool).await.map_err(failed("read the events"))?;
        rows.iter().map(read).collect()
    }

    /// Forgets the events from before a moment, and all but so many of the newest.
    pub async fn forget_events(&self, before: Time, most: i64) -> Result<()> {
        let sql =
            "delete from event where created_at < $1 or seq <= (select last - $2 from event_counter where id = 1)";
        let query = sqlx::query(sql).bind(before.0).bind(most).execute(&self.pool).await;
        query.map(|_| ()).map_err(failed("forget old events"))
    }
}

type Query<'q> = sqlx::query::Query<'q, Any, <Any as sqlx::Database>::Arguments>;

impl EventFilter {
    /// Binds the parameters of [`FITS`].
    fn bind<'q>(&self, query: Query<'q>) -> Query<'q> {
        let kinds: String = self.kinds.iter().map(|kind| format!("{},", kind.as_str())).collect();
        query
            .bind(self.vm.as_deref().unwrap_or_default().to_lowercase())
            .bind(self.node.as_deref().unwrap_or_default().to_lowercase())
            .bind(if kinds.is_empty() { kinds } else { format!(",{kinds}") })
            .bind(self.task.map(|id| id.to_string()).unwrap_or_default())
            .bind(self.since.map_or(i64::MIN, |time| time.0))
            .bind(self.until.map_or(i64::MAX, |time| time.0))
    }
}

fn read(row: &AnyRow) -> Result<Event> {
    let id = |column: &str| row.get::<Option<String>, _>(column).map(|id| parse_uuid(&id)).transpose();
    let kind: &str = row.get("kind");
    Ok(Event {
        id: row.get::<i64, _>("seq").unsigned_abs(),
        at: Time(row.get("created_at")),
        kind: EventKind::parse(kind)
            .ok_or_else(|| Error::Internal(format!("the database has {kind:?} for an event's kind")))?,
        vm: id("vm")?,
        vm_name: row.get("vm_name"),
        node: row.get("node"),
        task: id("task")?,
        message: row.get("message"),
        details: from_json(row.get("details"))?,
    })
}
