//! What we read of a domain's XML. Nothing is ever written from a view.

use super::{BootDevice, DiskLimits, Metadata, boot};
use roxmltree::{Document, Node};
use uuid::Uuid;

/// What we need to know of a domain, ours or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainView {
    /// Its UUID.
    pub uuid: Uuid,
    /// libvirt's name for it.
    pub name: String,
    /// Its title.
    pub title: Option<String>,
    /// Virtual CPUs now.
    pub vcpus: u32,
    /// Virtual CPUs that hot-plug can reach.
    pub max_vcpus: u32,
    /// Memory, in MiB.
    pub memory_mib: u64,
    /// Memory that hot-plug can reach, in MiB.
    pub max_memory_mib: u64,
    /// What the next start will make of it, where the definition of a domain that is on says something else.
    pub at_next_start: Option<AtNextStart>,
    /// What it boots from, in this order.
    pub boot: Vec<BootDevice>,
    /// Whether it boots by UEFI.
    pub uefi: bool,
    /// Where UEFI keeps its variables.
    pub nvram: Option<String>,
    /// Disks and CD-ROMs, in the order of the definition.
    pub disks: Vec<DiskView>,
    /// Network interfaces, in the order of the definition.
    pub nics: Vec<NicView>,
    /// Whether a guest agent is connected (running domains only).
    pub agent_connected: bool,
    /// Whether its balloon driver is asked to tell of the guest's memory.
    pub memory_watched: bool,
    /// Whether the serial line's output goes to a log.
    pub serial_log: Option<String>,
    /// Whether its node starts it when that is booted; its XML doesn't tell.
    pub autostart: bool,
    /// What Vmyard wrote; `None` for domains that it doesn't manage.
    pub metadata: Option<Metadata>,
}

/// What a definition says of a domain that is on, and comes with its next start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AtNextStart {
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Memory, in MiB.
    pub memory_mib: u64,
    /// What it boots from.
    pub boot: Vec<BootDevice>,
}

/// A disk of a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskView {
    /// The device's name: `vda`.
    pub target: String,
    /// Whether it is a CD-ROM or floppy.
    pub cdrom: bool,
    /// The image's path or block device.
    pub path: Option<String>,
    /// Pool and volume, for a disk that names them instead of a path.
    pub volume: Option<(String, String)>,
    /// `qcow2`, `raw`, …
    pub format: Option<String>,
    /// The paths that it is known to stand on.
    pub backing: Vec<String>,
    /// What a running domain calls the device: `virtio-disk1`.
    pub alias: Option<String>,
    /// The limits of what goes through it.
    pub limits: DiskLimits,
}

impl DiskView {
    /// Whether it is on this image, or on one that is known to stand on it.
    pub fn is_on(&self, path: &str) -> bool {
        self.path.as_deref() == Some(path) || self.backing.iter().any(|layer| layer == path)
    }
}

/// A network interface of a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NicView {
    /// The hardware address.
    pub mac: String,
    /// The libvirt network.
    pub network: Option<String>,
    /// The bridge or device, for an interface that isn't on a libvirt network.
    pub bridge: Option<String>,
    /// Whether its link is up.
    pub link_up: bool,
    /// What the node calls its end of it while the domain is on: `vnet3`.
    pub device: Option<String>,
    /// The most that goes to the guest, in kilobytes (1,000 bytes) a second.
    pub rx_kb_per_s: Option<u64>,
    /// The most that comes from the guest, in kilobytes a second.
    pub tx_kb_per_s: Option<u64>,
}

impl DomainView {
    /// Reads a domain's XML; `None` when it isn't one.
    pub fn parse(xml: &str) -> Option<DomainView> {
        let document = Document::parse(xml).ok()?;
        let domain = document.root_element();
        if !domain.has_tag_name("domain") {
            return None;
        }
        let child = |name: &str| domain.children().find(|node| node.has_tag_name(name));
        let text = |name: &str| child(name).and_then(|node| node.text()).map(str::trim);
        let max_vcpus = text("vcpu")?.parse().ok()?;
        let vcpus = child("vcpu").and_then(|node| node.attribute("current")).and_then(|n| n.parse().ok());
        let memory_mib = mib(child("memory")?)?;
        let devices = || child("devices").into_iter().flat_map(|devices| devices.children());
        Some(DomainView {
            uuid: text("uuid")?.parse().ok()?,
            name: text("name")?.to_owned(),
            title: text("title").map(str::to_owned),
            vcpus: vcpus.unwrap_or(max_vcpus),
            max_vcpus,
            memory_mib,
            max_memory_mib: child("maxMemory").and_then(mib).unwrap_or(memory_mib),
            at_next_start: None,
            boot: boot::order(domain),
            uefi: child("os").is_some_and(is_uefi),
            nvram: child("os").and_then(nvram),
            disks: devices().filter(|node| node.has_tag_name("disk")).filter_map(disk).collect(),
            nics: devices().filter(|node| node.has_tag_name("interface")).filter_map(nic).collect(),
            agent_connected: devices().filter(|node| node.has_tag_name("channel")).any(agent_connected),
            memory_watched: devices()
                .filter(|node| node.has_tag_name("memballoon"))
                .any(|node| attribute_of(node, "stats", "period").is_some_and(|period| period != "0")),
            serial_log: devices()
                .find(|node| node.has_tag_name("serial"))
                .and_then(|node| attribute_of(node, "log", "file"))
                .map(str::to_owned),
            autostart: false,
            metadata: Metadata::read(domain),
        })
    }
}

fn attribute_of<'a>(node: Node<'a, '_>, child: &str, attribute: &str) -> Option<&'a str> {
    node.children().find(|node| node.has_tag_name(child))?.attribute(attribute)
}

fn disk(node: Node<'_, '_>) -> Option<DiskView> {
    let source = |attribute| attribute_of(node, "source", attribute).map(str::to_owned);
    let mut backing = Vec::new();
    let mut layer = node.children().find(|child| child.has_tag_name("backingStore"));
    while let Some(store) = layer {
        backing.extend(attribute_of(store, "source", "file").map(str::to_owned));
        layer = store.children().find(|child| child.has_tag_name("backingStore"));
    }
    Some(DiskView {
        target: attribute_of(node, "target", "dev")?.to_owned(),
        cdrom: matches!(node.attribute("device"), Some("cdrom" | "floppy")),
        path: source("file").or_else(|| source("dev")),
        volume: source("pool").zip(source("volume")),
        format: attribute_of(node, "driver", "type").map(str::to_owned),
        backing,
        alias: attribute_of(node, "alias", "name").map(str::to_owned),
        limits: DiskLimits::read(node),
    })
}

fn nic(node: Node<'_, '_>) -> Option<NicView> {
    let source = |attribute| attribute_of(node, "source", attribute).map(str::to_owned);
    let bandwidth = node.children().find(|child| child.has_tag_name("bandwidth"));
    let average = |direction| attribute_of(bandwidth?, direction, "average")?.parse().ok();
    Some(NicView {
        mac: attribute_of(node, "mac", "address")?.to_owned(),
        network: source("network"),
        bridge: source("bridge").or_else(|| source("dev")),
        link_up: attribute_of(node, "link", "state") != Some("down"),
        device: attribute_of(node, "target", "dev").map(str::to_owned),
        rx_kb_per_s: average("inbound"),
        tx_kb_per_s: average("outbound"),
    })
}

/// Firmware that libvirt chose is no attribute of a running domain's; its loader is flash then.
fn is_uefi(os: Node<'_, '_>) -> bool {
    os.attribute("firmware") == Some("efi") || attribute_of(os, "loader", "type") == Some("pflash")
}

/// Its path is its text, or its source when it says what kind of source it has.
fn nvram(os: Node<'_, '_>) -> Option<String> {
    let nvram = os.children().find(|node| node.has_tag_name("nvram"))?;
    let text = nvram.text().map(str::trim).filter(|text| !text.is_empty());
    text.or_else(|| attribute_of(nvram, "source", "file")).map(str::to_owned)
}

fn agent_connected(channel: Node<'_, '_>) -> bool {
    attribute_of(channel, "target", "name") == Some("org.qemu.guest_agent.0")
        && attribute_of(channel, "target", "state") == Some("connected")
}

/// A size of libvirt's, which has a unit (KiB when absent).
fn mib(node: Node<'_, '_>) -> Option<u64> {
    let value: u64 = node.text()?.trim().parse().ok()?;
    let bytes = match node.attribute("unit").unwrap_or("KiB") {
        "b" | "bytes" => value,
        "KB" => value.checked_mul(1000)?,
        "k" | "KiB" => value.checked_mul(1 << 10)?,
        "MB" => value.checked_mul(1_000_000)?,
        "M" | "MiB" => value.checked_mul(1 << 20)?,
        "GB" => value.checked_mul(1_000_000_000)?,
        "G" | "GiB" => value.checked_mul(1 << 30)?,
        "T" | "TiB" => value.checked_mul(1 << 40)?,
        _ => return None,
    };
    Some(bytes >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_of_somebody_else() {
        let view = DomainView::parse(
            "<domain type='kvm' id='3'><name>old</name><uuid>6f1f3c1e-8a0b-4a7e-9d55-000000000001</uuid>
             <memory unit='KiB'>1048576</memory><vcpu placement='static'>2</vcpu>
             <metadata><app:x xmlns:app='urn:other' name='no'/></metadata>
             <devices>
             <disk type='block' device='disk'><source dev='/dev/vg/old'/><target dev='hda' bus='ide'/></disk>
             <disk type='volume' device='disk'><source pool='p' volume='v'/><target dev='vdb'/></disk>
             <interface type='bridge'><mac address='52:54:00:00:00:02'/><source bridge='br0'/></interface>
             <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0' state='connected'/></channel>
             </devices></domain>",
        )
        .unwrap();
        assert_eq!((view.vcpus, view.max_vcpus, view.memory_mib, view.max_memory_mib), (2, 2, 1024, 1024));
        assert_eq!(view.disks[0].path.as_deref(), Some("/dev/vg/old"));
        assert_eq!(view.disks[1].volume, Some(("p".into(), "v".into())));
        assert_eq!(view.nics[0].bridge.as_deref(), Some("br0"));
        assert!(view.agent_connected);
        assert_eq!(view.metadata, None);
        assert_eq!((view.uefi, view.nvram), (false, None));
        assert_eq!(DomainView::parse("<network/>"), None);
        assert_eq!(DomainView::parse("no xml"), None);
    }

    #[test]
    fn where_uefi_keeps_its_variables() {
        let read = |nvram: &str| {
            let xml = format!(
                "<domain><name>new</name><uuid>6f1f3c1e-8a0b-4a7e-9d55-000000000002</uuid><memory>65536</memory>
                 <vcpu>1</vcpu><os firmware='efi'>{nvram}</os></domain>"
            );
            DomainView::parse(&xml).unwrap().nvram
        };
        assert_eq!(read("<nvram template='/x'>/pool/a.fd</nvram>").as_deref(), Some("/pool/a.fd"));
        assert_eq!(read("<nvram type='file'>\n<source file='/pool/a.fd'/></nvram>").as_deref(), Some("/pool/a.fd"));
        assert_eq!(read("<nvram/>"), None);
    }
}
