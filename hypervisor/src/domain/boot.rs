//! What a domain boots from, and in which order. Each device says its own place (`<boot order=…/>`).

use super::{
    cdrom::DRIVE,
    edits::{Edits, child},
};
use crate::{Node, Result};
use roxmltree::{Document, Node as Element};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A kind of device that a domain can boot from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BootDevice {
    /// Its first disk.
    Disk,
    /// The ISO image in its CD-ROM drive.
    Cdrom,
    /// Its first network interface, by PXE.
    Network,
}

/// Which devices of a domain boot, each with its place: disks by their device (`vda`), interfaces by their hardware address.
pub type BootPlaces = Vec<(String, u32)>;

/// The name and kind of a device in a `<domain>` that could boot.
fn device<'a>(node: Element<'a, '_>) -> Option<(&'a str, BootDevice)> {
    match node.tag_name().name() {
        "disk" => {
            let kind = if node.attribute("device") == Some("cdrom") { BootDevice::Cdrom } else { BootDevice::Disk };
            Some((child(node, "target")?.attribute("dev")?, kind))
        }
        "interface" => Some((child(node, "mac")?.attribute("address")?, BootDevice::Network)),
        _ => None,
    }
}

fn devices<'a, 'input>(domain: Element<'a, 'input>) -> impl Iterator<Item = Element<'a, 'input>> {
    child(domain, "devices").into_iter().flat_map(|devices| devices.children())
}

/// The devices of a `<domain>` that boot, in their order.
fn booting<'a>(domain: Element<'a, '_>) -> Vec<(&'a str, BootDevice, u32)> {
    let place = |node| child(node, "boot")?.attribute("order")?.parse().ok();
    let named = devices(domain).filter_map(|node| {
        let (name, kind) = device(node)?;
        Some((name, kind, place(node)?))
    });
    let mut booting: Vec<_> = named.collect();
    booting.sort_by_key(|(_, _, place)| *place);
    booting
}

/// What a `<domain>` boots from, in this order.
pub(super) fn order(domain: Element<'_, '_>) -> Vec<BootDevice> {
    let mut order = Vec::new();
    for (_, kind, _) in booting(domain) {
        if !order.contains(&kind) {
            order.push(kind);
        }
    }
    order
}

/// Where each device stands in it.
pub(super) fn places(domain: Element<'_, '_>) -> BootPlaces {
    booting(domain).into_iter().map(|(name, _, place)| (name.to_owned(), place)).collect()
}

/// The places for a boot order, or what the `<domain>` lacks for it.
pub(super) fn places_for(
    domain: Element<'_, '_>,
    order: &[BootDevice],
) -> std::result::Result<BootPlaces, &'static str> {
    let first = |wanted: BootDevice| {
        let of_kind = devices(domain).filter_map(device).filter(|(_, kind)| *kind == wanted);
        let mut fitting = of_kind.filter(|(name, kind)| *kind != BootDevice::Cdrom || *name == DRIVE);
        fitting.next().map(|(name, _)| name.to_owned())
    };
    let mut places = BootPlaces::new();
    for (device, place) in order.iter().zip(1..) {
        let name = first(*device).ok_or(match device {
            BootDevice::Disk => "it has no disk",
            BootDevice::Cdrom => "it has no CD-ROM drive for ISO images",
            BootDevice::Network => "it has no network interface",
        })?;
        places.push((name, place));
    }
    Ok(places)
}

/// A domain's XML with these devices booting, and no others.
pub(super) fn edit(xml: &str, places: &[(String, u32)]) -> std::result::Result<String, &'static str> {
    let document = Document::parse(xml).map_err(|_| "its definition can't be read")?;
    let domain = document.root_element();
    if child(domain, "os").is_some_and(|os| child(os, "boot").is_some()) {
        return Err("its definition has a boot order of the old form (<os><boot dev=…/>)");
    }
    let mut edits = Edits::default();
    for node in devices(domain) {
        let Some((name, _)) = device(node) else { continue };
        let place = places.iter().find(|(one, _)| one == name).map(|(_, place)| place);
        match (child(node, "boot"), place) {
            (Some(boot), Some(place)) => edits.attribute(boot, "order", place),
            (Some(boot), None) => edits.remove(xml, boot),
            (None, Some(place)) => {
                let end = node.range().start + xml[node.range()].rfind("</").ok_or("its definition can't be read")?;
                edits.insert(end, format!("  <boot order='{place}'/>\n    "));
            }
            (None, None) => {}
        }
    }
    Ok(edits.apply(xml))
}

impl Node {
    /// Lets these devices of a definition boot, and no others, from the next start on. A domain that is gone, or has no
    /// definition, has none to change.
    pub async fn set_boot_places(&self, id: Uuid, places: BootPlaces) -> Result<()> {
        let doing = format!("change the boot order of domain {id}");
        self.redefine(id, &doing, move |definition| edit(definition, &places)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOMAIN: &str = "<domain>
  <devices>
    <disk type='file' device='disk'>
      <target dev='vda' bus='virtio'/>
      <boot order='1'/>
    </disk>
    <disk type='file' device='cdrom'>
      <target dev='sda' bus='scsi'/>
    </disk>
    <disk type='file' device='cdrom'>
      <target dev='sdb' bus='scsi'/>
    </disk>
    <interface type='network'>
      <mac address='52:54:00:00:00:01'/>
    </interface>
  </devices>
</domain>";

    #[test]
    fn an_order_comes_and_goes() {
        let wanted = [BootDevice::Network, BootDevice::Cdrom];
        let document = Document::parse(DOMAIN).unwrap();
        let (before, places) =
            (super::places(document.root_element()), places_for(document.root_element(), &wanted).unwrap());
        assert_eq!(before, [("vda".to_owned(), 1)]);
        assert_eq!(places, [("52:54:00:00:00:01".to_owned(), 1), ("sdb".to_owned(), 2)]);
        let after = edit(DOMAIN, &places).unwrap();
        let document = Document::parse(&after).unwrap();
        assert_eq!(order(document.root_element()), wanted);
        assert_eq!(edit(&after, &before).unwrap().replace(['\n', ' '], ""), DOMAIN.replace(['\n', ' '], ""));
        let bare = Document::parse("<domain><devices/></domain>").unwrap();
        assert!(places_for(bare.root_element(), &wanted).unwrap_err().contains("no network interface"));
        assert!(edit("<domain><os><boot dev='hd'/></os></domain>", &[]).is_err());
    }
}
