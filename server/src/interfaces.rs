//! Which network interfaces a VM has. The domain alone says it; beside it there is the address that may be reserved for one,
//! in the VM's record and in the network.

use crate::{App, Result, store::VmRecord};
use hypervisor::{
    Node,
    domain::{NicSpec, Power},
};
use uuid::Uuid;

/// Brings an interface whose attaching or detaching was cut off into step: it is the VM's as long as the domain has it now or
/// from its next start on. May be called again.
///
/// | running domain | definition | being attached | being detached |
/// |---|---|---|---|
/// | has it | has it | stays | stays |
/// | has it | – | goes into the definition | goes into the definition |
/// | – (on) | has it | leaves the definition | the guest has let go: leaves the definition |
/// | – (off) | has it | stays | stays |
/// | – | – | its address is free | its address is free |
pub async fn settle(app: &App, node: &Node, vm: Uuid, mac: &str) -> Result<()> {
    let Some(nics) = node.nics(vm).await? else { return release_address(app, node, vm, mac).await };
    match (nics.live(mac), nics.defined(mac)) {
        (Some(_), Some(_)) => Ok(()),
        (Some(live), None) => {
            let Some(network) = live.network.clone() else { return Ok(()) };
            let nic = NicSpec { network, mac: live.mac.clone(), link_up: live.link_up };
            Ok(node.define_nic(vm, &nic).await?)
        }
        (None, Some(_)) if nics.power == Power::Off => Ok(()),
        (None, Some(_)) => {
            node.undefine_nic(vm, mac).await?;
            release_address(app, node, vm, mac).await
        }
        (None, None) => release_address(app, node, vm, mac).await,
    }
}

/// Frees the address that is reserved for a VM's interface, if there is one: in the network first, so that the record names
/// it as long as it is there.
pub async fn release_address(app: &App, node: &Node, vm: Uuid, mac: &str) -> Result<()> {
    let Some(mut record) = app.index.get(vm).and_then(|entry| entry.record) else { return Ok(()) };
    let Some(at) = record.spec.reserved.iter().position(|reserved| reserved.mac.eq_ignore_ascii_case(mac)) else {
        return Ok(());
    };
    let reserved = record.spec.reserved.remove(at);
    node.release_address(reserved.network, &reserved.mac, reserved.ip).await?;
    save(app, &mut record).await
}

/// Writes a VM's record, in the store and the index.
pub async fn save(app: &App, record: &mut VmRecord) -> Result<()> {
    app.store.change_vm_spec(record).await?;
    app.index.put_record(record.clone());
    Ok(())
}
