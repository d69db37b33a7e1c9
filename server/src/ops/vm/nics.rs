//! The network interfaces that a request means.

use crate::{App, Error, Result, claims::Claim, ops::find, store::Reserved};
use hypervisor::{Node, domain::NicSpec, network::NetworkView};
use std::net::Ipv4Addr;

/// Interfaces with their hardware addresses, and what is claimed for them.
#[derive(Default)]
pub(in crate::ops) struct Nics {
    /// What the domain gets.
    pub(in crate::ops) specs: Vec<NicSpec>,
    /// The addresses that are to be reserved for them.
    pub(in crate::ops) reserved: Vec<Reserved>,
    /// The addresses that were given, claimed.
    pub(in crate::ops) claims: Vec<Claim>,
}

/// The interfaces that a request means; one on the node's `default` network when it says nothing. Addresses that are
/// given are claimed, so of two calls with one address only the first goes on.
pub(super) async fn choose_nics(app: &App, node: &Node, wanted: Option<&[api::vm::NicSpec]>) -> Result<Nics> {
    let mut nics = Nics::default();
    let Some(wanted) = wanted else {
        let network = find::network_on(node, "default").await?;
        nics.specs.push(NicSpec { network: network.name, mac: random_mac()?, link_up: true });
        return Ok(nics);
    };
    for (position, nic) in wanted.iter().enumerate() {
        choose(app, node, &mut nics, nic, &format!("networks[{position}].")).await?;
    }
    Ok(nics)
}

/// One more interface; `path` is before its fields' names in errors.
pub(in crate::ops) async fn choose(
    app: &App,
    node: &Node,
    nics: &mut Nics,
    wanted: &api::vm::NicSpec,
    path: &str,
) -> Result<()> {
    let network = find::network_on(node, &wanted.network).await?;
    let mac = match &wanted.mac {
        None => random_mac()?,
        Some(mac) => given_mac(app, nics, &mac.to_lowercase(), &format!("{path}mac"))?,
    };
    if let Some(ip) = wanted.ip {
        reserve(app, node, nics, &network, &mac, ip, &format!("{path}ip")).await?;
    }
    nics.specs.push(NicSpec { network: network.name, mac, link_up: true });
    Ok(())
}

fn given_mac(app: &App, nics: &mut Nics, mac: &str, field: &str) -> Result<String> {
    let in_use = |by: &str| Error::field(field, format!("{mac} is in use by {by}"));
    if nics.specs.iter().any(|other| other.mac == mac) {
        return Err(in_use("another interface of this request"));
    }
    let Some(claim) = app.claims.claim(mac) else { return Err(in_use("a VM that is being made")) };
    if let Some(user) = mac_user(app, mac) {
        return Err(in_use(&user));
    }
    nics.claims.push(claim);
    Ok(mac.to_owned())
}

/// Notes a reservation to make, when the network can give that address and nobody has it.
async fn reserve(
    app: &App,
    node: &Node,
    nics: &mut Nics,
    network: &NetworkView,
    mac: &str,
    ip: Ipv4Addr,
    field: &str,
) -> Result<()> {
    let Some((own, prefix)) = network.dhcp_subnet else {
        return Err(Error::Unsupported {
            detail: format!("{field}: libvirt serves no DHCP for IPv4 on network {}", network.name),
            hint: Some(
                "leave ip out and set the address in the guest (cloud_init.network_config), or use a network with DHCP"
                    .to_owned(),
            ),
        });
    };
    if !network.can_give(ip) {
        let message = format!("{ip} is not an address for guests of network {}, which is {own}/{prefix}", network.name);
        return Err(Error::field(field, message));
    }
    let taken = |by: &str| Error::field(field, format!("{ip} on network {} is {by}", network.name));
    if nics.reserved.iter().any(|other| other.network == network.uuid && other.ip == ip) {
        return Err(taken("asked for by another interface of this request"));
    }
    let Some(claim) = app.claims.claim(&format!("{} {ip}", network.uuid)) else {
        return Err(taken("about to be reserved for another VM"));
    };
    if let Some((other, _)) = network.reserved.iter().find(|(_, reserved)| *reserved == ip) {
        return Err(taken(&format!("reserved for {}", mac_user(app, other).unwrap_or_else(|| other.clone()))));
    }
    if let Some((_, other)) = network.reserved.iter().find(|(reserved, _)| reserved == mac) {
        return Err(Error::field(field, format!("network {} has {other} reserved for {mac} already", network.name)));
    }
    if let Some(other) = node.leased_to(network.uuid, ip).await?.filter(|other| other != mac) {
        return Err(taken(&format!("leased to {}", mac_user(app, &other).unwrap_or(other))));
    }
    nics.claims.push(claim);
    nics.reserved.push(Reserved { network: network.uuid, mac: mac.to_owned(), ip });
    Ok(())
}

/// The VM that has this hardware address.
fn mac_user(app: &App, mac: &str) -> Option<String> {
    let mut user = None;
    app.index.each(|_, entry| {
        if entry.seen.iter().flat_map(|seen| &seen.view.nics).any(|nic| nic.mac.eq_ignore_ascii_case(mac)) {
            user = Some(format!("VM {}", entry.name()));
        }
    });
    user
}

/// A hardware address of QEMU's range.
fn random_mac() -> Result<String> {
    let [a, b, c] = crate::seed::random_bytes::<3>()?;
    Ok(format!("52:54:00:{a:02x}:{b:02x}:{c:02x}"))
}
