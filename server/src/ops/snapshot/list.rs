//! Listing and describing snapshots.

use super::{find, to_wire, vm_id};
use crate::{App, Context, Result, ops::page, store::SnapshotRecord};
use api::{
    Page,
    snapshot::{DescribeSnapshot, ListSnapshots, Snapshot, Snapshots},
};

/// `list-snapshots`
pub async fn list(context: Context, request: ListSnapshots) -> Result<Snapshots> {
    let app = &context.app;
    let records = app.store.snapshots_of(vm_id(app, &request.vm)?).await?;
    let page = Page { limit: request.limit, cursor: request.cursor };
    let cut = page::cut(records, &page, |record| format!("{:016x}\n{}", record.created_at.0, record.id))?;
    let mut snapshots = Vec::new();
    for record in &cut.rows {
        snapshots.push(to_wire(app, record).await?);
    }
    Ok(Snapshots { snapshots, next_cursor: cut.next_cursor, total: cut.total })
}

/// `describe-snapshot`
pub async fn describe(context: Context, request: DescribeSnapshot) -> Result<Snapshot> {
    let app = &context.app;
    let record = find(app, request.vm.as_deref(), &request.snapshot).await?;
    let mut snapshot = to_wire(app, &record).await?;
    snapshot.size_bytes = size(app, &record).await;
    Ok(snapshot)
}

/// What a snapshot's images and its memory take, in bytes; `None` when the node doesn't tell.
async fn size(app: &App, record: &SnapshotRecord) -> Option<u64> {
    let node = app.node(&record.node).ok()?;
    let disks = app.store.disks_of_snapshot(record.id).await.ok()?;
    let images = disks.iter().map(|disk| &disk.image).chain(&record.spec.memory);
    let mut size = 0;
    for image in images {
        size += node.volume(image.pool, &image.file).await.ok()??.allocation;
    }
    Some(size)
}
