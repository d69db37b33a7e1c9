//! The pool of the seeds: on each node, what belongs to a VM and is no disk: its NoCloud seed and its serial log.
//!
//! A pool of its own, because libvirt looks at a whole pool again whenever an upload into it ends. All files of a VM
//! begin with its id.

use crate::{Error, Result};
use hypervisor::{
    Node,
    storage::{PoolView, Tail},
};
use uuid::Uuid;

/// The pool's name.
pub const POOL: &str = "vmyard-seeds";

/// The pool on this node.
pub async fn pool(node: &Node) -> Result<PoolView> {
    let found = node.pool(POOL).await?;
    found.filter(|pool| pool.active).ok_or_else(|| Error::WrongState {
        detail: format!("storage pool {POOL} on node {} is not there or not active", node.name()),
        hint: Some("it is made when the node is reached; the server's log says why it could not be".to_owned()),
    })
}

/// The name of a VM's seed in the pool.
pub fn seed_file(vm: Uuid) -> String {
    format!("{vm}.iso")
}

/// The name of a VM's serial log in the pool.
pub fn serial_file(vm: Uuid) -> String {
    format!("{vm}.serial.log")
}

/// Where a VM's serial line is logged on the node.
pub fn serial_log(pool: &PoolView, vm: Uuid) -> String {
    pool.path_of(&serial_file(vm))
}

/// The last `most` bytes of a VM's serial log; of those that virtlogd has put aside (it begins another file every 2 MiB) as
/// much of the latest as is needed. `None` when there is none.
pub async fn serial_tail(node: &Node, pool: Uuid, vm: Uuid, most: u64) -> Result<Option<Tail>> {
    let file = serial_file(vm);
    let Some(mut tail) = node.tail(pool, &file, 0, most).await? else { return Ok(None) };
    let missing = most.saturating_sub(tail.bytes.len() as u64);
    if missing > 0
        && let Some(mut before) = node.tail(pool, &format!("{file}.0"), 0, missing).await?
    {
        before.bytes.append(&mut tail.bytes);
        tail.bytes = before.bytes;
    }
    Ok(Some(tail))
}

/// Deletes what belongs to a VM.
pub async fn delete_files(node: &Node, vm: Uuid) -> Result<()> {
    // A pool that is not there is an error: its files may be, with password hashes in them. One that somebody has
    // stopped is started.
    let pool = node.pool(POOL).await?.ok_or_else(|| Error::NotFoundOn {
        kind: "storage pool",
        name: POOL.to_owned(),
        node: node.name().to_owned(),
    })?;
    node.delete_volumes(pool.uuid, &format!("{vm}.")).await?;
    Ok(())
}
