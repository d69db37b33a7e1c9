//! Virtual networks: <https://libvirt.org/formatnetwork.html>.

use crate::{
    Node, Result,
    error::if_there,
    node::{QUICK, read_each},
    xml::Xml,
};
use libvirt::{Connect, ErrorCode, flags};
use roxmltree::Document;
use std::net::Ipv4Addr;
use uuid::Uuid;

/// A network of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkView {
    /// Its UUID.
    pub uuid: Uuid,
    /// Its name.
    pub name: String,
    /// Whether it is active.
    pub active: bool,
    /// Its bridge.
    pub bridge: Option<String>,
    /// `nat`, `route`, `bridge`, …; `None` when isolated.
    pub forward: Option<String>,
    /// Its own addresses with prefix length.
    pub addresses: Vec<String>,
    /// Whether libvirt serves DHCP on it.
    pub dhcp: bool,
    /// The IPv4 address that it has itself where it serves DHCP, with the prefix length.
    pub dhcp_subnet: Option<(Ipv4Addr, u32)>,
    /// The addresses that are reserved, each with the hardware address that gets it.
    pub reserved: Vec<(String, Ipv4Addr)>,
}

impl NetworkView {
    /// Whether a guest can be given this address: it lies in the subnet, and is neither the network's own nor one of
    /// the two at the subnet's ends.
    pub fn can_give(&self, address: Ipv4Addr) -> bool {
        let Some((own, prefix)) = self.dhcp_subnet else { return false };
        let hosts = u32::MAX.checked_shr(prefix).unwrap_or(0);
        let host = address.to_bits() & hosts;
        let same_subnet = own.to_bits() & !hosts == address.to_bits() & !hosts;
        same_subnet && address != own && host != 0 && host != hosts
    }
}

impl Node {
    /// All networks of the node.
    pub async fn networks(&self) -> Result<Vec<NetworkView>> {
        self.ask("list networks", |connection| read_each(|| connection.is_alive(), &connection.networks(0)?, view))
            .await
    }

    /// Makes a NAT network of this name where there is none, with the first subnet of 192.168.122.0/24, 192.168.123.0/24, …
    /// that starts; starts one that is there and inactive (Debian's is, when it is new).
    pub async fn ensure_network(&self, name: &str) -> Result<()> {
        let wanted = name.to_owned();
        self.change(QUICK, &format!("make network {name}"), move |connection| {
            match connection.network_by_name(&wanted) {
                Err(error) if error.code == ErrorCode::NO_NETWORK => define_nat(connection, &wanted),
                Err(error) => Err(error),
                Ok(network) if network.is_active()? => Ok(()),
                Ok(network) => network.start(),
            }
        })
        .await
    }

    /// The hardware address that has leased this address on a network, if one has.
    pub async fn leased_to(&self, network: Uuid, address: Ipv4Addr) -> Result<Option<String>> {
        self.ask(&format!("read the leases of network {network}"), move |connection| {
            let leases = connection.network_by_uuid(network.into_bytes())?.dhcp_leases(None)?;
            let lease = leases.into_iter().find(|lease| lease.address.parse() == Ok(address));
            Ok(lease.and_then(|lease| lease.mac))
        })
        .await
    }

    /// Reserves an address for a hardware address on an active network that serves DHCP. The network must not have
    /// reserved either.
    pub async fn reserve_address(&self, network: Uuid, mac: &str, address: Ipv4Addr) -> Result<()> {
        let host = host_xml(mac, address);
        self.change(QUICK, &format!("reserve the address {address} for {mac}"), move |connection| {
            let network = connection.network_by_uuid(network.into_bytes())?;
            let (add, host_section) = (flags::NETWORK_UPDATE_ADD_LAST, flags::NETWORK_SECTION_IP_DHCP_HOST);
            network.update(add, host_section, -1, &host, parts(&network)?)
        })
        .await
    }

    /// Takes a reservation back, in the running network and in its definition. One that is not there is no error, and
    /// neither is a network that is not there.
    pub async fn release_address(&self, network: Uuid, mac: &str, address: Ipv4Addr) -> Result<()> {
        let wanted = (mac.to_lowercase(), address);
        let host = host_xml(mac, address);
        let released = self
            .change(QUICK, &format!("release the address {address} of {mac}"), move |connection| {
                let network = connection.network_by_uuid(network.into_bytes())?;
                let (delete, host_section) = (flags::NETWORK_UPDATE_DELETE, flags::NETWORK_SECTION_IP_DHCP_HOST);
                for part in [flags::AFFECT_LIVE, flags::AFFECT_CONFIG] {
                    let (of_config, there) = match part {
                        flags::AFFECT_LIVE => (0, network.is_active()?),
                        _ => (flags::NETWORK_XML_INACTIVE, network.is_persistent()?),
                    };
                    if there && parse(&network.xml(of_config)?).is_some_and(|view| view.reserved.contains(&wanted)) {
                        network.update(delete, host_section, -1, &host, part)?;
                    }
                }
                Ok(())
            })
            .await;
        if_there(released).map(|_| ())
    }

    /// The network of this name; `None` when there is none.
    pub async fn network(&self, name: &str) -> Result<Option<NetworkView>> {
        let wanted = name.to_owned();
        let found = self
            .ask(&format!("read network {name}"), move |connection| view(&connection.network_by_name(&wanted)?))
            .await;
        if_there(found)
    }
}

/// Which parts of a network a change goes to: the running one, and the definition where there is one.
fn parts(network: &libvirt::Network) -> libvirt::Result<u32> {
    let config = if network.is_persistent()? { flags::AFFECT_CONFIG } else { 0 };
    Ok(flags::AFFECT_LIVE | config)
}

fn host_xml(mac: &str, address: Ipv4Addr) -> String {
    let mut xml = Xml::new();
    xml.empty("host", &[("mac", mac), ("ip", &address.to_string())]);
    // Neither has a character that XML can't hold.
    xml.finish().unwrap_or_default()
}

fn view(network: &libvirt::Network) -> libvirt::Result<NetworkView> {
    let view = parse(&network.xml(0)?).unwrap_or_default();
    let (uuid, name) = (Uuid::from_bytes(network.uuid()), network.name());
    Ok(NetworkView { uuid, name, active: network.is_active()?, ..view })
}

/// What a network's XML tells; its name, id and state are asked for.
fn parse(xml: &str) -> Option<NetworkView> {
    let mut view = NetworkView::default();
    let document = Document::parse(xml).ok()?;
    for node in document.root_element().children() {
        match node.tag_name().name() {
            "bridge" => view.bridge = node.attribute("name").map(str::to_owned),
            "forward" => view.forward = Some(node.attribute("mode").unwrap_or("nat").to_owned()),
            "ip" => {
                let prefix = node.attribute("prefix").map(str::to_owned).or_else(|| {
                    let mask: std::net::Ipv4Addr = node.attribute("netmask")?.parse().ok()?;
                    Some(mask.to_bits().count_ones().to_string())
                });
                let dhcp = node.children().find(|child| child.has_tag_name("dhcp"));
                view.dhcp |= dhcp.is_some();
                if let (Some(address), Some(prefix)) = (node.attribute("address"), prefix) {
                    let own = address.parse().ok().zip(prefix.parse().ok());
                    view.dhcp_subnet = view.dhcp_subnet.or(own.filter(|_| dhcp.is_some()));
                    view.addresses.push(format!("{address}/{prefix}"));
                }
                view.reserved.extend(dhcp.into_iter().flat_map(|dhcp| dhcp.children()).filter_map(reserved));
            }
            _ => {}
        }
    }
    Some(view)
}

/// A `<host>` with a hardware address.
fn reserved(node: roxmltree::Node<'_, '_>) -> Option<(String, Ipv4Addr)> {
    Some((node.attribute("mac")?.to_lowercase(), node.attribute("ip")?.parse().ok()?))
}

/// Defines and starts a NAT network. A subnet that the node uses already makes the start fail (in a nested libvirt the
/// first one is the host's own), and the next is tried.
fn define_nat(connection: &Connect, name: &str) -> libvirt::Result<()> {
    let mut third = 122;
    loop {
        let network = connection.define_network(&nat_xml(name, third))?;
        match network.start() {
            Ok(()) => return network.set_autostart(true),
            // Somebody else was quicker. Undefined it would be gone when it stops.
            Err(_) if network.is_active()? => return network.set_autostart(true),
            Err(error) => {
                network.undefine()?;
                third += 1;
                if third > 130 {
                    return Err(error);
                }
            }
        }
    }
}

fn nat_xml(name: &str, third: u8) -> String {
    let prefix = format!("192.168.{third}");
    let mut xml = Xml::new();
    xml.nest("network", &[], |xml| {
        xml.text("name", &[], name);
        xml.empty("forward", &[("mode", "nat")]);
        xml.nest("ip", &[("address", &format!("{prefix}.1")), ("netmask", "255.255.255.0")], |xml| {
            xml.nest("dhcp", &[], |xml| {
                xml.empty("range", &[("start", &format!("{prefix}.2")), ("end", &format!("{prefix}.254"))]);
            });
        });
    });
    // A name that XML can't hold comes from nobody: it is ours.
    xml.finish().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_addresses_a_network_can_give() {
        let view = parse(
            "<network><name>n</name><ip family='ipv6' address='fd00::1' prefix='64'/>
             <ip address='10.1.2.1' netmask='255.255.255.128'><dhcp><range start='10.1.2.2' end='10.1.2.9'/>
             <host mac='52:54:00:AA:00:01' ip='10.1.2.77'/><host name='x' ip='10.1.2.78'/></dhcp></ip></network>",
        )
        .unwrap();
        assert_eq!(view.dhcp_subnet, Some((Ipv4Addr::new(10, 1, 2, 1), 25)));
        assert_eq!(view.reserved, [("52:54:00:aa:00:01".to_owned(), Ipv4Addr::new(10, 1, 2, 77))]);
        for (last, can) in [(0, false), (1, false), (2, true), (126, true), (127, false), (128, false)] {
            assert_eq!(view.can_give(Ipv4Addr::new(10, 1, 2, last)), can, "{last}");
        }
        assert!(!NetworkView::default().can_give(Ipv4Addr::new(10, 1, 2, 3)));
    }
}
