//! Virtual networks: <https://libvirt.org/formatnetwork.html>.

use crate::{ErrorKind, Node, Result, node::QUICK, xml::Xml};
use libvirt::{Connect, ErrorCode};
use roxmltree::Document;
use uuid::Uuid;

/// A network of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
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
}

impl Node {
    /// All networks of the node.
    pub async fn networks(&self) -> Result<Vec<NetworkView>> {
        self.ask("list networks", |connection| {
            Ok(connection.networks(0)?.iter().filter_map(|network| view(network).ok()).collect())
        })
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

    /// The network of this name; `None` when there is none.
    pub async fn network(&self, name: &str) -> Result<Option<NetworkView>> {
        let wanted = name.to_owned();
        let found = self
            .ask(&format!("read network {name}"), move |connection| view(&connection.network_by_name(&wanted)?))
            .await;
        match found {
            Ok(view) => Ok(Some(view)),
            Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn view(network: &libvirt::Network) -> libvirt::Result<NetworkView> {
    let xml = network.xml(0)?;
    let mut view = NetworkView {
        uuid: Uuid::from_bytes(network.uuid()),
        name: network.name(),
        active: network.is_active()?,
        bridge: None,
        forward: None,
        addresses: Vec::new(),
        dhcp: false,
    };
    let Ok(document) = Document::parse(&xml) else { return Ok(view) };
    for node in document.root_element().children() {
        match node.tag_name().name() {
            "bridge" => view.bridge = node.attribute("name").map(str::to_owned),
            "forward" => view.forward = Some(node.attribute("mode").unwrap_or("nat").to_owned()),
            "ip" => {
                let prefix = node.attribute("prefix").map(str::to_owned).or_else(|| {
                    let mask: std::net::Ipv4Addr = node.attribute("netmask")?.parse().ok()?;
                    Some(mask.to_bits().count_ones().to_string())
                });
                if let (Some(address), Some(prefix)) = (node.attribute("address"), prefix) {
                    view.addresses.push(format!("{address}/{prefix}"));
                }
                view.dhcp |= node.children().any(|child| child.has_tag_name("dhcp"));
            }
            _ => {}
        }
    }
    Ok(view)
}

/// Defines and starts a NAT network. A subnet that the node uses already makes the start fail (in a nested libvirt the
/// first one is the host's own), and the next is tried.
fn define_nat(connection: &Connect, name: &str) -> libvirt::Result<()> {
    let mut third = 122;
    loop {
        let network = connection.define_network(&nat_xml(name, third))?;
        match network.start() {
            Ok(()) => return network.set_autostart(true),
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
