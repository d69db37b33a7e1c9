//! Storage pools.

use super::{find, page};
use crate::{Context, Result};
use api::{
    Page,
    pool::{DescribeStoragePool, ListStoragePools, StoragePool, StoragePools},
};
use hypervisor::storage::PoolView;

/// `list-storage-pools`
pub async fn list(context: Context, request: ListStoragePools) -> Result<StoragePools> {
    let (rows, unreachable) = rows(&context, request.node.as_deref()).await?;
    let page = Page { limit: request.limit, cursor: request.cursor };
    let cut = page::cut(rows, &page, |pool| format!("{}\n{}", pool.name, pool.node))?;
    Ok(StoragePools { storage_pools: cut.rows, next_cursor: cut.next_cursor, total: cut.total, unreachable })
}

/// `describe-storage-pool`
pub async fn describe(context: Context, request: DescribeStoragePool) -> Result<StoragePool> {
    let (rows, unreachable) = rows(&context, request.node.as_deref()).await?;
    let found = find::only_one("storage pool", &request.pool, rows, |pool| {
        (pool.name.clone(), Some(pool.id), pool.node.clone())
    });
    find::unless_unreachable(found, &context.app, &unreachable)
}

/// All pools of the nodes, by name and node, and the nodes that don't answer.
async fn rows(context: &Context, node: Option<&str>) -> Result<(Vec<StoragePool>, Vec<String>)> {
    let nodes = context.app.nodes_of(node)?;
    let (answers, unreachable) = find::ask_nodes(nodes, |node| async move { node.pools().await }).await;
    let mut rows: Vec<StoragePool> = answers
        .into_iter()
        .flat_map(|(node, pools)| pools.into_iter().map(move |pool| to_wire(node.name(), pool)))
        .collect();
    rows.sort_by(|a, b| (&a.name, &a.node).cmp(&(&b.name, &b.node)));
    Ok((rows, unreachable))
}

fn to_wire(node: &str, pool: PoolView) -> StoragePool {
    StoragePool {
        id: pool.uuid,
        name: pool.name,
        node: node.to_owned(),
        kind: pool.kind,
        active: pool.active,
        path: pool.path,
        capacity_bytes: pool.capacity,
        allocation_bytes: pool.allocation,
        available_bytes: pool.available,
    }
}
