//! Describing one VM.

use super::guest_agent;
use crate::{App, Context, Error, Result, observe};
use api::{
    Access, Rpc,
    event::EventKind,
    nic::{AddressSource, NicAddress},
    vm::{DescribeVm, DescribeVmXml, OutsideChange, Vm, VmXml},
};
use hypervisor::domain::{self, Address, Power};
use std::time::Duration;
use uuid::Uuid;

/// How long the node may take before the answer comes from the index alone.
const FRESH: Duration = Duration::from_secs(2);

/// How many changes by others are told.
const CHANGES: usize = 10;

/// `describe-vm`
pub async fn describe(context: Context, request: DescribeVm) -> Result<Vm> {
    let app = &context.app;
    let (id, entry) = app.index.resolve(&request.vm)?;
    let (mut addresses, mut guest) = (Vec::new(), None);
    // A node that was taken out of the configuration tells nothing any more; the VM is still shown.
    if let Ok(node) = app.node(&entry.node)
        && super::is_up(&node)
    {
        // What can't be had quickly is answered as it was last seen, with `observed_at` saying when.
        let _ = tokio::time::timeout(FRESH, observe::refresh(app, &node, id)).await;
        if app.index.get(id).and_then(|entry| entry.power()) == Some(Power::Running) {
            let ask = |source| tokio::time::timeout(FRESH, node.addresses(id, source));
            let (lease, arp) = tokio::join!(ask(domain::AddressSource::Lease), ask(domain::AddressSource::Arp));
            addresses.extend([lease, arp].into_iter().flatten().flatten().flatten());
        }
        // Only who asks for it waits for the guest: an agent may take seconds, or never answer.
        if request.guest_info {
            guest = Some(guest_agent::info(app, &node, id).await);
        }
    }
    let mut vm = with_checks(app, id)?;
    if request.guest_info {
        let told = guest.unwrap_or_else(|| Err(format!("node {} doesn't answer", entry.node)));
        (vm.guest, vm.guest_unavailable) = told.map_or_else(|why| (None, Some(why)), |told| (Some(told), None));
    }
    if let Some(seen) = app.index.get(id).and_then(|entry| entry.seen) {
        addresses.extend(seen.agent_addresses);
        vm.usage = seen.usage;
    }
    vm.changed_outside = changed_outside(app, id).await?;
    for nic in &mut vm.networks {
        let of_nic = addresses.iter().filter(|address| address.mac.eq_ignore_ascii_case(&nic.mac));
        nic.addresses = of_nic.map(to_wire).collect();
        nic.addresses.sort();
        nic.addresses.dedup();
    }
    Ok(vm)
}

/// The last changes that weren't ours.
async fn changed_outside(app: &App, id: Uuid) -> Result<Vec<OutsideChange>> {
    let events = app.store.last_events(id, EventKind::VmChanged, CHANGES).await?;
    Ok(events.into_iter().map(|event| OutsideChange { at: event.at, what: event.message, event: event.id }).collect())
}

/// The VM with the resets of credentials that wait for its boot.
pub(super) fn with_checks(app: &App, id: Uuid) -> Result<Vm> {
    Ok(Vm { credential_checks: app.credential_checks.of(id), ..app.index.to_wire(id)? })
}

fn to_wire(address: &Address) -> NicAddress {
    NicAddress { address: address.address.clone(), source: source(address.source) }
}

/// Where an address was learnt, on the wire.
pub(super) fn source(source: domain::AddressSource) -> AddressSource {
    match source {
        domain::AddressSource::Lease => AddressSource::Lease,
        domain::AddressSource::Agent => AddressSource::Agent,
        domain::AddressSource::Arp => AddressSource::Arp,
    }
}

/// `describe-vm-xml`
pub async fn describe_xml(context: Context, request: DescribeVmXml) -> Result<VmXml> {
    if request.secrets && context.caller.role < Access::Administrator {
        return Err(Error::Forbidden {
            method: format!("{} with secrets", DescribeVmXml::NAME),
            needs: Access::Administrator.as_str(),
        });
    }
    let (id, entry) = context.app.index.resolve(&request.vm)?;
    let node = context.app.node(&entry.node)?;
    let xml = node.domain_xml(id, request.inactive, request.secrets).await?;
    Ok(VmXml { id, name: entry.name().to_owned(), xml })
}
