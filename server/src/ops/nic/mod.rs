//! Network interfaces of VMs that are there.

pub mod attach;
pub mod detach;
pub mod modify;

use crate::{App, Error, Result, ops::vm::Subject};
use api::nic::NicOfVm;
use hypervisor::domain::DomainNics;
use uuid::Uuid;

/// The interfaces that a VM's domain has now, where one is of this hardware address, now or from its next start on.
async fn with(vm: &Subject, mac: &str) -> Result<DomainNics> {
    let nics = vm.node.nics(vm.id).await?;
    nics.filter(|nics| nics.live(mac).is_some() || nics.defined(mac).is_some())
        .ok_or_else(|| Error::NotFound { kind: "network interface", name: format!("{mac} of VM {}", vm.entry.name()) })
}

/// The VM with this interface, as last seen.
fn reply(app: &App, vm: Uuid, mac: &str) -> Result<NicOfVm> {
    let vm = app.index.to_wire(vm)?;
    let nic = vm.networks.iter().find(|nic| nic.mac.eq_ignore_ascii_case(mac)).cloned();
    let nic = nic.ok_or_else(|| Error::Internal(format!("VM {} is not seen with interface {mac}", vm.name)))?;
    Ok(NicOfVm { vm, nic })
}
