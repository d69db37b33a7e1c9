//! Webhooks.

use super::page;
use crate::{
    App, Context, Error, Result,
    store::WebhookRecord,
    task::{Outline, Undo, Work},
    webhooks::{self, KEPT},
};
use api::{
    Page, Time,
    task::Target,
    webhook::{
        CreateWebhook, CreatedWebhook, DeleteWebhook, DeletedWebhook, DescribeWebhook, DescribedWebhook, ListWebhooks,
        Webhook, Webhooks,
    },
};
use uuid::Uuid;

/// How many there may be: each reads the events.
const MOST: usize = 50;

/// `create-webhook`
pub async fn create(context: Context, request: CreateWebhook) -> Result<Work<CreatedWebhook>> {
    let app = &context.app;
    webhooks::address(&request.url).map_err(|why| match request.url.contains('@') {
        // It may have a password in it.
        true => Error::field("url", why),
        false => Error::field("url", format!("{why}; it is {:?}", request.url)),
    })?;
    if app.store.webhook(&request.name).await?.is_some() {
        return Err(Error::exists("webhook", request.name));
    }
    if app.store.webhooks().await?.len() >= MOST {
        return Err(Error::WrongState {
            detail: format!("there are {MOST} webhooks, which is the most"),
            hint: Some("delete one (delete-webhook), or follow GET /api/events instead".to_owned()),
        });
    }
    let record = WebhookRecord {
        id: Uuid::now_v7(),
        name: request.name,
        url: request.url,
        secret: webhooks::new_secret()?,
        kinds: request.kinds,
        vm: request.vm,
        node: request.node,
        created_at: Time::now(),
        after: 0,
        lost: 0,
    };
    let outline = Outline::of(&["record-webhook"]);
    Ok(Work::new(target(&record), Vec::new(), outline, move |task| async move {
        // A webhook whose secret nobody was told is worthless: a task that is cut off takes it back.
        let undo = Undo::ForgetWebhook { webhook: record.id };
        let after = task.step("record-webhook", Some(undo), task.app.store.insert_webhook(&record)).await?;
        tokio::spawn(webhooks::send_for_ever(task.app.clone(), record.id));
        let record = WebhookRecord { after, ..record };
        let secret = Some(record.secret.0.clone());
        Ok(CreatedWebhook { record: wire(&task.app, record).await?, secret, secret_expired: false })
    }))
}

/// `list-webhooks`
pub async fn list(context: Context, request: ListWebhooks) -> Result<Webhooks> {
    let mut records = context.app.store.webhooks().await?;
    // By bytes, as the cursor compares; a database may have another order.
    records.sort_by_key(|record| record.name.to_lowercase());
    let page = Page { limit: request.limit, cursor: request.cursor };
    let cut = page::cut(records, &page, |record| record.name.to_lowercase())?;
    let mut webhooks = Vec::new();
    for record in cut.rows {
        webhooks.push(wire(&context.app, record).await?);
    }
    Ok(Webhooks { webhooks, next_cursor: cut.next_cursor, total: cut.total })
}

/// `describe-webhook`
pub async fn describe(context: Context, request: DescribeWebhook) -> Result<DescribedWebhook> {
    let record = find(&context.app, request.webhook).await?;
    let deliveries = context.app.store.deliveries(record.id, KEPT).await?;
    Ok(DescribedWebhook { record: wire(&context.app, record).await?, deliveries })
}

/// `delete-webhook`
pub async fn delete(context: Context, request: DeleteWebhook) -> Result<Work<DeletedWebhook>> {
    let record = find(&context.app, request.webhook).await?;
    let outline = Outline::of(&["forget-webhook"]);
    Ok(Work::new(target(&record), Vec::new(), outline, move |task| async move {
        // Whoever sends to it sees that it is gone.
        task.last_step("forget-webhook", None, task.app.store.forget_webhook(record.id)).await?;
        Ok(DeletedWebhook { id: record.id, name: record.name })
    }))
}

async fn find(app: &App, reference: String) -> Result<WebhookRecord> {
    app.store.webhook(&reference).await?.ok_or_else(|| Error::not_found("webhook", reference))
}

fn target(record: &WebhookRecord) -> Target {
    Target { kind: "webhook".to_owned(), id: record.id, name: record.name.clone() }
}

async fn wire(app: &App, record: WebhookRecord) -> Result<Webhook> {
    let last_delivery = app.store.deliveries(record.id, 1).await?.pop();
    Ok(Webhook {
        id: record.id,
        name: record.name,
        url: record.url,
        kinds: record.kinds,
        vm: record.vm,
        node: record.node,
        created_at: record.created_at,
        sent_up_to: record.after.unsigned_abs(),
        lost: record.lost.unsigned_abs(),
        last_delivery,
    })
}
