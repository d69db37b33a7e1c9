//! The audit.

use super::page::{read_id_cursor, write_cursor};
use crate::{
    Context, Result,
    store::{AuditFilter, AuditRecord},
};
use api::{
    Page,
    audit::{Audit, AuditEntry, ListAudit},
};

/// `list-audit`
pub async fn list(context: Context, request: ListAudit) -> Result<Audit> {
    let page = Page { limit: request.limit, cursor: request.cursor };
    let before = read_id_cursor(&page)?;
    let filter = AuditFilter {
        method: request.method,
        caller: request.caller,
        target: request.target,
        since: request.since,
        until: request.until,
    };
    let (records, total) = context.app.store.audit(&filter, before, page.limit() + 1).await?;
    let more = records.len() > page.limit();
    let audit: Vec<AuditEntry> = records.into_iter().take(page.limit()).map(wire).collect();
    let next_cursor = audit.last().filter(|_| more).map(|entry| write_cursor(&entry.id.to_string()));
    Ok(Audit { audit, next_cursor, total })
}

fn wire(record: AuditRecord) -> AuditEntry {
    AuditEntry {
        id: record.id,
        at: record.at,
        caller: Some(record.caller).filter(|name| !name.is_empty()),
        method: record.method,
        target: record.target,
        task: record.task,
        request_id: record.request_id,
        remote: record.remote,
        outcome: record.outcome,
    }
}
