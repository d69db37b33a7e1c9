//! Who is sent events, and how that went.

use super::{EventFilter, Store, failed, is_taken, name_key, parse_uuid};
use crate::{Error, Result};
use api::{
    Time,
    event::EventKind,
    webhook::{Delivery, DeliveryState},
};
use sqlx::{Row, any::AnyRow};
use std::fmt;
use uuid::Uuid;

/// A webhook.
#[derive(Debug, Clone, PartialEq)]
pub struct WebhookRecord {
    /// Its id.
    pub id: Uuid,
    /// Its name, unique without case.
    pub name: String,
    /// Where events are sent.
    pub url: String,
    /// What they are signed with.
    pub secret: WebhookSecret,
    /// Only these kinds; all when empty.
    pub kinds: Vec<EventKind>,
    /// Only about this VM.
    pub vm: Option<String>,
    /// Only on this node.
    pub node: Option<String>,
    /// When it was made.
    pub created_at: Time,
    /// Events up to this number are done with.
    pub after: i64,
    /// How many events were not kept for long enough.
    pub lost: i64,
}

/// The bytes that signatures are made with.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookSecret(pub String);

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookSecret(…)")
    }
}

impl WebhookRecord {
    /// The events that it wants.
    pub fn filter(&self) -> EventFilter {
        EventFilter {
            vm: self.vm.clone(),
            node: self.node.clone(),
            kinds: self.kinds.clone(),
            ..EventFilter::default()
        }
    }
}

const COLUMNS: &str = "id, name, url, secret, kinds, vm, node, created_at, after_seq, lost";
const DELIVERY: &str = "seq, kind, state, attempts, status, error, took_ms, first_at, last_at";

impl Store {
    /// Adds a webhook. Its events are those from now on; the number of the last one that isn't is returned.
    pub async fn insert_webhook(&self, webhook: &WebhookRecord) -> Result<i64> {
        let after = self.event_range().await?.last;
        let kinds: String = webhook.kinds.iter().map(|kind| format!("{},", kind.as_str())).collect();
        let added = sqlx::query(sqlx::AssertSqlSafe(format!(
            "insert into webhook ({COLUMNS}, name_key) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, 0, $10)"
        )))
        .bind(webhook.id.to_string())
        .bind(&webhook.name)
        .bind(&webhook.url)
        .bind(&webhook.secret.0)
        .bind(kinds)
        .bind(&webhook.vm)
        .bind(&webhook.node)
        .bind(webhook.created_at.0)
        .bind(after)
        .bind(name_key(&webhook.name))
        .execute(&self.pool)
        .await;
        match added {
            Ok(_) => Ok(after),
            Err(error) if is_taken(&error) => Err(Error::exists("webhook", &webhook.name)),
            Err(error) => Err(failed("add a webhook")(error)),
        }
    }

    /// Forgets a webhook, with its deliveries.
    pub async fn forget_webhook(&self, id: Uuid) -> Result<()> {
        let query = sqlx::query("delete from webhook where id = $1").bind(id.to_string()).execute(&self.pool).await;
        query.map(|_| ()).map_err(failed("forget a webhook"))
    }

    /// The webhook of this name or id.
    pub async fn webhook(&self, reference: &str) -> Result<Option<WebhookRecord>> {
        let sql = format!("select {COLUMNS} from webhook where name_key = $1 or id = $1");
        let query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(name_key(reference));
        let row = query.fetch_optional(&self.pool).await.map_err(failed("read a webhook"))?;
        row.as_ref().map(read).transpose()
    }

    /// All webhooks.
    pub async fn webhooks(&self) -> Result<Vec<WebhookRecord>> {
        let query = sqlx::query(sqlx::AssertSqlSafe(format!("select {COLUMNS} from webhook")));
        let rows = query.fetch_all(&self.pool).await.map_err(failed("read the webhooks"))?;
        rows.iter().map(read).collect()
    }

    /// Notes an attempt to send an event, and that it is done with, unless it is tried again. Keeps the newest `most`. Returns
    /// whether the webhook is still there.
    pub async fn note_delivery(&self, webhook: Uuid, delivery: &Delivery, most: i64) -> Result<bool> {
        let doing = "note a delivery";
        let done_with = (delivery.state != DeliveryState::Retrying).then_some(delivery.event as i64);
        let mut transaction = self.begin().await?;
        let there = sqlx::query("update webhook set after_seq = coalesce($1, after_seq) where id = $2")
            .bind(done_with)
            .bind(webhook.to_string())
            .execute(&mut *transaction)
            .await
            .map_err(failed(doing))?;
        if there.rows_affected() == 0 {
            return Ok(false);
        }
        sqlx::query(sqlx::AssertSqlSafe(format!(
            "insert into webhook_delivery (webhook, {DELIVERY}) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
             on conflict (webhook, seq) do update set state = excluded.state, attempts = excluded.attempts,
             status = excluded.status, error = excluded.error, took_ms = excluded.took_ms, last_at = excluded.last_at"
        )))
        .bind(webhook.to_string())
        .bind(delivery.event as i64)
        .bind(delivery.kind.as_str())
        .bind(delivery.state.as_str())
        .bind(i64::from(delivery.attempts))
        .bind(delivery.status.map(i64::from))
        .bind(&delivery.error)
        .bind(delivery.took_ms as i64)
        .bind(delivery.first_at.0)
        .bind(delivery.last_at.0)
        .execute(&mut *transaction)
        .await
        .map_err(failed(doing))?;
        sqlx::query(
            "delete from webhook_delivery where webhook = $1 and seq not in
             (select seq from webhook_delivery where webhook = $1 order by seq desc limit $2)",
        )
        .bind(webhook.to_string())
        .bind(most)
        .execute(&mut *transaction)
        .await
        .map_err(failed(doing))?;
        transaction.commit().await.map_err(failed(doing))?;
        Ok(true)
    }

    /// Notes that a webhook goes on after this number: there was nothing for it before, or so many events can't be sent any more.
    pub async fn webhook_goes_on(&self, id: Uuid, after: i64, lost: i64) -> Result<()> {
        let query = sqlx::query("update webhook set after_seq = $1, lost = lost + $2 where id = $3");
        let done = query.bind(after).bind(lost).bind(id.to_string()).execute(&self.pool).await;
        done.map(|_| ()).map_err(failed("note how far a webhook is"))
    }

    /// The last deliveries of a webhook, the newest first.
    pub async fn deliveries(&self, webhook: Uuid, limit: i64) -> Result<Vec<Delivery>> {
        let sql = format!("select {DELIVERY} from webhook_delivery where webhook = $1 order by seq desc limit $2");
        let query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(webhook.to_string()).bind(limit);
        let rows = query.fetch_all(&self.pool).await.map_err(failed("read deliveries"))?;
        rows.iter().map(read_delivery).collect()
    }
}

fn kind_of(text: &str) -> Result<EventKind> {
    EventKind::parse(text).ok_or_else(|| Error::Internal(format!("the database has {text:?} for an event's kind")))
}

fn read(row: &AnyRow) -> Result<WebhookRecord> {
    let kinds: &str = row.get("kinds");
    Ok(WebhookRecord {
        id: parse_uuid(row.get("id"))?,
        name: row.get("name"),
        url: row.get("url"),
        secret: WebhookSecret(row.get("secret")),
        kinds: kinds.split(',').filter(|kind| !kind.is_empty()).map(kind_of).collect::<Result<_>>()?,
        vm: row.get("vm"),
        node: row.get("node"),
        created_at: Time(row.get("created_at")),
        after: row.get("after_seq"),
        lost: row.get("lost"),
    })
}

fn read_delivery(row: &AnyRow) -> Result<Delivery> {
    let number = |column: &str| row.get::<i64, _>(column).unsigned_abs();
    let state: &str = row.get("state");
    Ok(Delivery {
        event: number("seq"),
        kind: kind_of(row.get("kind"))?,
        state: DeliveryState::parse(state)
            .ok_or_else(|| Error::Internal(format!("the database has {state:?} for a delivery's state")))?,
        attempts: u32::try_from(number("attempts")).unwrap_or(u32::MAX),
        status: row.get::<Option<i64>, _>("status").and_then(|status| u16::try_from(status).ok()),
        error: row.get("error"),
        took_ms: number("took_ms"),
        first_at: Time(row.get("first_at")),
        last_at: Time(row.get("last_at")),
    })
}
