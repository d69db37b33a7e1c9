//! What has happened.

use super::page::{foreign_cursor, read_cursor, write_cursor};
use crate::{Context, Result, store::EventFilter};
use api::{
    Page,
    event::{Events, ListEvents},
};

/// `list-events`
pub async fn list(context: Context, request: ListEvents) -> Result<Events> {
    let page = Page { limit: request.limit, cursor: request.cursor };
    let before = match page.cursor.as_deref() {
        Some(cursor) => Some(read_cursor(cursor)?.parse().map_err(|_| foreign_cursor())?),
        None => None,
    };
    let filter = EventFilter {
        vm: request.vm,
        node: request.node,
        kinds: request.kinds,
        task: request.task,
        since: request.since,
        until: request.until,
    };
    let (mut events, total) = context.app.store.events(&filter, before, page.limit() + 1).await?;
    let more = events.len() > page.limit();
    events.truncate(page.limit());
    let next_cursor = events.last().filter(|_| more).map(|event| write_cursor(&event.id.to_string()));
    Ok(Events { events, next_cursor, total })
}
