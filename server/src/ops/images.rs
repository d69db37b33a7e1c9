//! What uses an image, asked before it is deleted: libvirt deletes the disk of a running VM without a word.

use crate::{App, Error, Result};
use hypervisor::Node;
use uuid::Uuid;

/// Fails when a domain other than `owner` has the image as a disk or stands on it, or when a volume of the node has it
/// as its backing file, by the headers as they are now. Domains and volumes that Vmyard didn't make count as well.
pub async fn nothing_stands_on(app: &App, node: &Node, pool: Uuid, path: &str, owner: Option<Uuid>) -> Result<()> {
    let mut user = None;
    app.index.each(|id, entry, _| {
        let disks = entry.seen.iter().flat_map(|seen| &seen.view.disks);
        let uses = |disk: &hypervisor::domain::DiskView| {
            disk.path.as_deref() == Some(path) || disk.backing.iter().any(|layer| layer == path)
        };
        if entry.node == node.name() && Some(id) != owner && disks.into_iter().any(uses) {
            user = Some(format!("VM {}", entry.name()));
        }
    });
    if user.is_none() {
        node.refresh_pool(pool).await?;
        for pool in node.pools().await?.into_iter().filter(|pool| pool.active) {
            let volumes = node.volumes(pool.uuid).await?;
            let above = volumes.into_iter().find(|volume| volume.backing.as_deref() == Some(path));
            user = user.or(above.map(|volume| format!("volume {}", volume.path)));
        }
    }
    match user {
        None => Ok(()),
        Some(user) => {
            Err(Error::InUse(format!("{user} on node {} stands on {path}; delete or detach that first", node.name())))
        }
    }
}
