//! Storage volumes: those that Vmyard made, by their rows, and what else libvirt has in its pools.

use super::{find, page};
use crate::{App, Context, Error, Result, seeds, size::gib, store::VolumeRecord};
use api::{
    Page,
    volume::{DescribeVolume, ListVolumes, Volume, VolumeState, Volumes},
};
use hypervisor::storage::{PoolView, VolumeView};
use std::collections::{HashMap, HashSet};

/// `list-volumes`
pub async fn list(context: Context, request: ListVolumes) -> Result<Volumes> {
    let (mut rows, unreachable) = rows(&context.app, request.node.as_deref(), request.pool.as_deref()).await?;
    if let Some(state) = request.state {
        rows.retain(|volume| volume.state == state);
    }
    let page = Page { limit: request.limit, cursor: request.cursor };
    let cut = page::cut(rows, &page, key)?;
    Ok(Volumes { volumes: cut.rows, next_cursor: cut.next_cursor, total: cut.total, unreachable })
}

/// `describe-volume`
pub async fn describe(context: Context, request: DescribeVolume) -> Result<Volume> {
    let (rows, unreachable) = rows(&context.app, request.node.as_deref(), request.pool.as_deref()).await?;
    let found =
        find::only_one("volume", &request.volume, rows, |volume| (volume.name.clone(), volume.id, volume.node.clone()));
    find::unless_unreachable(found, &context.app, &unreachable)
}

fn key(volume: &Volume) -> String {
    format!("{}\n{}\n{}", volume.name, volume.node, volume.path)
}

/// All volumes of the pools, and the nodes that don't answer.
async fn rows(app: &App, node: Option<&str>, pool: Option<&str>) -> Result<(Vec<Volume>, Vec<String>)> {
    let nodes = app.nodes_of(node)?;
    let wanted = pool.map(str::to_lowercase);
    let fits = |pool: &PoolView| {
        let named = |wanted: &String| pool.name.to_lowercase() == *wanted || pool.uuid.to_string() == *wanted;
        pool.active && pool.name != seeds::POOL && wanted.as_ref().is_none_or(named)
    };
    let ask = |node: hypervisor::Node| async move {
        let mut found = Vec::new();
        for pool in node.pools().await?.into_iter().filter(fits) {
            let volumes = node.volumes(pool.uuid).await?;
            found.push((pool, volumes));
        }
        Ok(found)
    };
    let (answers, unreachable) = find::ask_nodes(nodes, ask).await;

    if let Some(pool) = pool
        && unreachable.is_empty()
        && answers.iter().all(|(_, pools)| pools.is_empty())
    {
        return Err(Error::not_found("active storage pool", pool));
    }
    let records: HashMap<(String, String), VolumeRecord> = app
        .store
        .volumes()
        .await?
        .into_iter()
        .map(|record| ((record.node.clone(), record.path.clone()), record))
        .collect();
    let templates: HashSet<String> = app.store.template_copies(None).await?.into_iter().map(|copy| copy.path).collect();
    let users = users(app);
    let mut rows = Vec::new();
    for (node, pools) in answers {
        for (pool, volumes) in pools {
            for volume in volumes.into_iter().filter(|volume| !templates.contains(&volume.path)) {
                let at = (node.name().to_owned(), volume.path.clone());
                rows.push(to_wire(&at.0, &pool.name, volume, records.get(&at), users.get(&at)));
            }
        }
    }
    rows.sort_by_key(key);
    Ok((rows, unreachable))
}

/// Which VM has which image as which device, by node and path.
fn users(app: &App) -> HashMap<(String, String), (String, String)> {
    let mut users = HashMap::new();
    app.index.each(|_, entry, _| {
        for disk in entry.seen.iter().flat_map(|seen| &seen.view.disks) {
            if let Some(path) = &disk.path {
                users.insert((entry.node.clone(), path.clone()), (entry.name().to_owned(), disk.target.clone()));
            }
        }
    });
    users
}

fn to_wire(
    node: &str,
    pool: &str,
    volume: VolumeView,
    record: Option<&VolumeRecord>,
    user: Option<&(String, String)>,
) -> Volume {
    let attached = user.is_some() || record.is_some_and(|record| record.vm.is_some());
    Volume {
        id: record.map(|record| record.id),
        name: record.map_or(volume.name, |record| record.name.clone()),
        pool: pool.to_owned(),
        node: node.to_owned(),
        path: volume.path,
        format: record.map_or(volume.format, |record| record.format.clone()),
        size_gib: gib(volume.capacity),
        size_bytes: volume.capacity,
        allocation_bytes: volume.allocation,
        state: if attached { VolumeState::Attached } else { VolumeState::Available },
        vm: user.map(|(vm, _)| vm.clone()),
        device: user.map(|(_, device)| device.clone()).or(record.and_then(|record| record.device.clone())),
        backing: volume.backing,
    }
}
