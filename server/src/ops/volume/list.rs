//! Listing and describing volumes, those that Vmyard didn't make included.

use super::of_record;
use crate::{
    App, Context, Error, Result, images,
    ops::{find, page},
    seeds,
    size::gib,
    store::VolumeRecord,
};
use api::{
    Page,
    volume::{DescribeVolume, Layer, ListVolumes, Volume, VolumeState, Volumes},
};
use hypervisor::{
    Node,
    storage::{self, PoolView, VolumeView},
};
use std::collections::{HashMap, HashSet};

/// `list-volumes`
pub async fn list(context: Context, request: ListVolumes) -> Result<Volumes> {
    let (mut rows, unreachable) = rows(&context.app, request.node.as_deref(), request.pool.as_deref()).await?;
    let name = request.name.map(|name| name.to_lowercase());
    rows.retain(|volume| {
        request.state.is_none_or(|state| volume.state == state)
            && request.format.as_ref().is_none_or(|format| volume.format.eq_ignore_ascii_case(format))
            && name.as_ref().is_none_or(|name| volume.name.to_lowercase().contains(name))
    });
    let page = Page { limit: request.limit, cursor: request.cursor };
    let cut = page::cut(rows, &page, key)?;
    Ok(Volumes { volumes: cut.rows, next_cursor: cut.next_cursor, total: cut.total, unreachable })
}

/// `describe-volume`
pub async fn describe(context: Context, request: DescribeVolume) -> Result<Volume> {
    let app = &context.app;
    let (rows, unreachable) = rows(app, request.node.as_deref(), request.pool.as_deref()).await?;
    let found =
        find::only_one("volume", &request.volume, rows, |volume| (volume.name.clone(), volume.id, volume.node.clone()));
    let mut volume = find::unless_unreachable(found, app, &unreachable)?;
    let node = app.node(&volume.node)?;
    // A raw image stands on nothing, whatever its guest may have written into it.
    let chain = match volume.format.as_str() {
        "raw" => Vec::new(),
        _ => node.backing_chain(&volume.path).await?,
    };
    volume.backing = chain.first().map(|layer| layer.path().to_owned());
    volume.backing_chain = Some(chain.into_iter().map(layer).collect());
    volume.overlays = Some(images::overlays(&node, &volume.path).await?);
    Ok(volume)
}

fn layer(layer: storage::Layer) -> Layer {
    match layer {
        storage::Layer::Volume(view) => {
            Layer { path: view.path, format: Some(view.format), allocation_bytes: Some(view.allocation) }
        }
        storage::Layer::Unknown(path) => Layer { path, format: None, allocation_bytes: None },
    }
}

fn key(volume: &Volume) -> String {
    format!("{}\n{}\n{}", volume.name, volume.node, volume.path)
}

/// All volumes of the pools, and the nodes that don't answer.
pub(super) async fn rows(app: &App, node: Option<&str>, pool: Option<&str>) -> Result<(Vec<Volume>, Vec<String>)> {
    let nodes = app.nodes_of(node)?;
    let wanted = pool.map(str::to_lowercase);
    let fits = |pool: &PoolView| {
        let named = |wanted: &String| pool.name.to_lowercase() == *wanted || pool.uuid.to_string() == *wanted;
        pool.active && pool.name != seeds::POOL && wanted.as_ref().is_none_or(named)
    };
    let ask = |node: Node| async move {
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
    let of_snapshots = app.store.snapshot_files().await?;
    let users = users(app);
    let mut rows = Vec::new();
    for (node, pools) in answers {
        for (pool, volumes) in pools {
            for volume in volumes.into_iter().filter(|volume| !templates.contains(&volume.path)) {
                let at = (node.name().to_owned(), volume.path.clone());
                if of_snapshots.contains(&at) {
                    continue;
                }
                rows.push(match records.get(&at) {
                    Some(record) => of_record(record, Some(&volume), users.get(&at)),
                    None => foreign(&at.0, &pool.name, volume, users.get(&at)),
                });
            }
        }
    }
    rows.sort_by_key(key);
    Ok((rows, unreachable))
}

/// Which VM has which image as which device, by node and path. UEFI's variables are no device.
fn users(app: &App) -> HashMap<(String, String), (String, Option<String>)> {
    let mut users = HashMap::new();
    app.index.each(|_, entry| {
        let Some(view) = entry.seen.as_ref().map(|seen| &seen.view) else { return };
        let disks = view.disks.iter().filter_map(|disk| Some((disk.path.as_ref()?, Some(disk.target.clone()))));
        for (path, device) in disks.chain(view.nvram.iter().map(|path| (path, None))) {
            users.insert((entry.node.clone(), path.clone()), (entry.name().to_owned(), device));
        }
    });
    users
}

/// A volume that Vmyard didn't make.
fn foreign(node: &str, pool: &str, view: VolumeView, user: Option<&(String, Option<String>)>) -> Volume {
    Volume {
        id: None,
        name: view.name,
        pool: pool.to_owned(),
        node: node.to_owned(),
        path: view.path,
        format: view.format,
        size_gib: gib(view.capacity),
        size_bytes: view.capacity,
        allocation_bytes: Some(view.allocation),
        state: if user.is_some() { VolumeState::Attached } else { VolumeState::Available },
        vm: user.map(|(vm, _)| vm.clone()),
        device: user.and_then(|(_, device)| device.clone()),
        backing: view.backing,
        backing_chain: None,
        overlays: None,
        template: None,
        created_at: None,
    }
}
