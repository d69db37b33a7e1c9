//! The variables of UEFI VMs (NVRAM): a small file in the VM's pool, which libvirt makes at the first start. A snapshot keeps a
//! copy, since they name the system's boot loader.

use crate::{
    Result,
    store::{Image, VmSpec},
};
use api::vm::Firmware;
use hypervisor::Node;
use uuid::Uuid;

/// libvirt's name for the NVRAM of a VM, or of what a snapshot or a revert keeps of it, in the VM's pool.
pub fn file_of(id: Uuid) -> String {
    format!("{id}.nvram.fd")
}

/// The VM's NVRAM, if it has one by now.
pub async fn of_vm(node: &Node, vm: Uuid, spec: &VmSpec) -> Result<Option<Image>> {
    if spec.firmware != Firmware::Uefi {
        return Ok(None);
    }
    let (pool, file) = (spec.pool, file_of(vm));
    let mut volume = node.volume(pool, &file).await?;
    if volume.is_none() {
        // libvirt makes it without telling its pool.
        node.refresh_pool(pool).await?;
        volume = node.volume(pool, &file).await?;
    }
    Ok(volume.map(|volume| Image { pool, file, path: volume.path }))
}

/// Makes a file of a pool have what another one has, which is told by its pool and libvirt's name for it; without another one it
/// goes. May be called again.
pub async fn set(node: &Node, pool: Uuid, file: &str, from: Option<(Uuid, &str)>) -> Result<()> {
    let bytes = match from {
        Some((pool, from)) => Some(node.read_small(pool, from).await?),
        None => None,
    };
    node.delete_volume(pool, file).await?;
    if let Some(bytes) = bytes {
        node.create_from_bytes(pool, file, bytes).await?;
    }
    Ok(())
}
