//! What uses an image, asked before it is deleted: libvirt deletes the disk of a running VM without a word.

use crate::{App, Error, Result, seeds};
use hypervisor::Node;
use uuid::Uuid;

/// Fails when a domain other than `owner` has the image as a disk or stands on it, or when a volume of the node has it
/// as its backing file, by the headers as they are now. Domains and volumes that Vmyard didn't make count as well.
pub async fn nothing_stands_on(app: &App, node: &Node, path: &str, owner: Option<Uuid>) -> Result<()> {
    let user = match vm_on(app, node.name(), path, owner) {
        Some((_, vm)) => Some(format!("VM {vm}")),
        None => overlays(node, path).await?.first().map(|overlay| format!("volume {overlay}")),
    };
    match user {
        None => Ok(()),
        Some(user) => {
            Err(Error::InUse(format!("{user} on node {} stands on {path}; delete or detach that first", node.name())))
        }
    }
}

/// A VM of a node, other than `owner`, that has the image as a disk or stands on it, as the node was last seen.
pub fn vm_on(app: &App, node: &str, path: &str, owner: Option<Uuid>) -> Option<(Uuid, String)> {
    let mut user = None;
    app.index.each(|id, entry| {
        let mut disks = entry.seen.iter().flat_map(|seen| &seen.view.disks);
        if entry.node == node && Some(id) != owner && disks.any(|disk| disk.is_on(path)) {
            user = Some((id, entry.name().to_owned()));
        }
    });
    user
}

/// The volumes of a node's active pools that have this image as their backing file, by their paths. Each pool is looked at
/// again, since libvirt remembers what an image stood on then.
pub async fn overlays(node: &Node, path: &str) -> Result<Vec<String>> {
    let mut overlays = Vec::new();
    for pool in node.pools().await?.into_iter().filter(|pool| pool.active && pool.name != seeds::POOL) {
        if let Err(error) = node.refresh_pool(pool.uuid).await {
            // One that can't be read keeps what is in it, and nothing elsewhere.
            if pool.path.as_deref().is_some_and(|pool| path.starts_with(pool)) {
                return Err(error.into());
            }
            tracing::warn!(%error, "a pool is taken as it was last seen");
        }
        let volumes = node.volumes(pool.uuid).await?.into_iter();
        overlays.extend(volumes.filter(|volume| volume.backing.as_deref() == Some(path)).map(|volume| volume.path));
    }
    Ok(overlays)
}
