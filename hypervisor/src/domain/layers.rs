//! Which images the disks of a domain are on: freezing one under a new overlay, and going back to one that was frozen.
//!
//! libvirt's own snapshot metadata is not used, so that all of it is the same on every version of libvirt. The overlays are
//! volumes of a pool that were made before, over the images that are in use: a call here only switches to them.

use super::{
    DiskView, DomainView,
    edits::{Edits, child},
    left_images::past_left_images,
};
use crate::{
    Node, Result,
    error::libvirt_error,
    node::{QUICK, SLOW},
    xml::Xml,
};
use libvirt::{Domain, ErrorCode, flags};
use quick_xml::escape::escape;
use roxmltree::{Document, Node as Element};
use std::time::Duration;
use uuid::Uuid;

/// The deadline of a call that writes a guest's memory to a file, or reads it from there.
const MEMORY: Duration = Duration::from_secs(3600);

/// A disk that goes from one image to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Switch {
    /// The image's path before.
    pub from: String,
    /// The image's path after.
    pub to: String,
}

/// How a running domain's disks are frozen.
#[derive(Debug, Clone, Default)]
pub struct Freeze {
    /// The file that the guest's memory is written to.
    pub memory: Option<String>,
    /// Whether the guest's file systems are frozen by its agent meanwhile. Not with memory.
    pub quiesce: bool,
}

/// What libvirt itself keeps of a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// How many snapshots: somebody else's.
    pub snapshots: u32,
    /// As [`Node::has_saved_memory`].
    pub memory: bool,
}

impl Node {
    /// Freezes the disks of a domain that is on: from one moment on the guest writes to the overlays, which are there
    /// already. All disks or none. The definition follows.
    pub async fn freeze_disks(&self, id: Uuid, disks: &[Switch], how: &Freeze) -> Result<()> {
        let doing = format!("take a snapshot of domain {id}");
        let (disks, how) = (disks.to_vec(), how.clone());
        let with_memory = how.memory.is_some();
        let freeze = move |domain: &Domain| {
            let view = DomainView::parse(&domain.xml(0)?).ok_or_else(unreadable)?;
            let mut how_flags = flags::SNAPSHOT_ATOMIC | flags::SNAPSHOT_NO_METADATA | flags::SNAPSHOT_REUSE_EXT;
            how_flags |= match how.memory {
                Some(_) => flags::SNAPSHOT_LIVE,
                None => flags::SNAPSHOT_DISK_ONLY,
            };
            if how.quiesce {
                how_flags |= flags::SNAPSHOT_QUIESCE;
            }
            let xml = freeze_xml(&view.disks, &disks, how.memory.as_deref());
            past_left_images(|| domain.snapshot_create_xml(&xml, how_flags))?;
            forget_chains(domain, &disks)
        };
        match with_memory {
            true => self.job(Some(id), MEMORY, &doing, move |connection| freeze(&connection.domain(id)?)).await,
            false => self.change_domain(id, SLOW, &doing, freeze).await,
        }
    }

    /// Switches disks of a domain's definition to other images. The domain is off. Disks that are not on the image that they
    /// are to leave stay as they are; what the definition says of a disk beside its image stays, too.
    pub async fn switch_disks(&self, id: Uuid, disks: &[Switch]) -> Result<()> {
        let (doing, disks) = (format!("switch the disks of domain {id}"), disks.to_vec());
        let switched = self.change_domain(id, QUICK, &doing, move |domain| {
            for element in switched_disks(&domain.xml(flags::XML_INACTIVE | flags::XML_SECURE)?, &disks)? {
                domain.update_device(&element, flags::AFFECT_CONFIG)?;
            }
            Ok(())
        });
        switched.await
    }

    /// Lets a domain that is off go on from a file with its memory. Its disks, by their devices, are on these images then.
    pub async fn restore(&self, id: Uuid, memory: &str, disks: &[(String, String)], paused: bool) -> Result<()> {
        let (doing, disks, memory) = (format!("restore domain {id} from {memory}"), disks.to_vec(), memory.to_owned());
        let restored = self.job(Some(id), MEMORY, &doing, move |connection| {
            let saved = connection.save_image_xml(&memory, flags::SAVE_IMAGE_XML_SECURE)?;
            let how = if paused { flags::SAVE_PAUSED } else { flags::SAVE_RUNNING };
            connection.restore_domain(&memory, Some(&switched(&saved, &disks)?), how)
        });
        restored.await
    }

    /// What libvirt itself keeps of a domain, which is in the way of our snapshots.
    pub async fn kept_by_libvirt(&self, id: Uuid) -> Result<Kept> {
        let doing = format!("look for what libvirt keeps of domain {id}");
        // In one call: a snapshot waits for it.
        self.ask_domain(id, &doing, |domain| {
            Ok(Kept { snapshots: domain.snapshot_count()?, memory: domain.has_managed_save()? })
        })
        .await
    }
}

/// After a live snapshot the definition carries the whole chain below a disk, which libvirt later believes more than the
/// images' headers: it is taken out.
pub(super) fn forget_chains(domain: &Domain, disks: &[Switch]) -> libvirt::Result<()> {
    let definition = domain.xml(flags::XML_INACTIVE | flags::XML_SECURE)?;
    let as_they_are: Vec<_> = disks.iter().map(|disk| Switch { from: disk.to.clone(), to: disk.to.clone() }).collect();
    for element in switched_disks(&definition, &as_they_are)? {
        if !definition.contains(&element) {
            domain.update_device(&element, flags::AFFECT_CONFIG)?;
        }
    }
    Ok(())
}

/// What is to become of each disk. One that isn't named would be frozen under a name of libvirt's choice.
fn freeze_xml(all: &[DiskView], frozen: &[Switch], memory: Option<&str>) -> String {
    let mut xml = Xml::new();
    xml.nest("domainsnapshot", &[], |xml| {
        match memory {
            Some(file) => xml.empty("memory", &[("snapshot", "external"), ("file", file)]),
            None => xml.empty("memory", &[("snapshot", "no")]),
        }
        xml.nest("disks", &[], |xml| {
            for disk in all {
                let to = frozen.iter().find(|switch| Some(&switch.from) == disk.path.as_ref());
                match to {
                    Some(switch) => {
                        let attributes = [("name", disk.target.as_str()), ("snapshot", "external"), ("type", "file")];
                        xml.nest("disk", &attributes, |xml| {
                            xml.empty("driver", &[("type", "qcow2")]);
                            xml.empty("source", &[("file", &switch.to)]);
                        });
                    }
                    None => xml.empty("disk", &[("name", &disk.target), ("snapshot", "no")]),
                }
            }
        });
    });
    xml.finish().unwrap_or_default()
}

/// The `<disk>` elements of a domain that are on one of these images, on the other one: all else in them as it is, but for
/// the chain of images below, which is read from the headers.
pub(super) fn switched_disks(xml: &str, disks: &[Switch]) -> libvirt::Result<Vec<String>> {
    let by_path = |_: &str, path: &str| disks.iter().find(|switch| switch.from == path).map(|switch| &switch.to);
    let document = Document::parse(xml).map_err(|_| unreadable())?;
    let switched = document.descendants().filter_map(|node| Some((node.range(), switch(node, by_path)?)));
    Ok(switched.map(|(element, edits)| edits.apply_within(xml, element)).collect())
}

/// A domain's XML with these devices on these images; all else in it as it is.
fn switched(xml: &str, disks: &[(String, String)]) -> libvirt::Result<String> {
    let by_device = |device: &str, _: &str| disks.iter().find(|(one, _)| one == device).map(|(_, to)| to);
    let document = Document::parse(xml).map_err(|_| unreadable())?;
    let mut all = Edits::default();
    document.descendants().filter_map(|node| switch(node, by_device)).for_each(|edits| all.append(edits));
    Ok(all.apply(xml))
}

/// What puts a disk on another image, where there is one for its device and its image.
fn switch<'a>(node: Element<'_, '_>, new: impl Fn(&str, &str) -> Option<&'a String>) -> Option<Edits> {
    if !node.has_tag_name("disk") {
        return None;
    }
    let source = child(node, "source")?;
    let device = child(node, "target").and_then(|target| target.attribute("dev")).unwrap_or_default();
    let to = new(device, source.attribute("file")?)?;
    let mut edits = Edits::default();
    edits.attribute(source, "file", escape(to));
    if let Some(chain) = child(node, "backingStore") {
        edits.drop(chain);
    }
    Some(edits)
}

pub(super) fn unreadable() -> libvirt::Error {
    libvirt_error(ErrorCode::INTERNAL_ERROR, "libvirt's XML can't be read")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOMAIN: &str = "<domain type='kvm'>\n  <name>x</name><!-- kept -->\n  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' cache='none' iothread='1'/>
      <source file='/pool/a.qcow2' index='2'/>
      <backingStore type='file'><format type='qcow2'/><source file='/pool/base'/><backingStore/></backingStore>
      <target dev='vda' bus='virtio'/><iotune><read_iops_sec>100</read_iops_sec></iotune>
    </disk>
    <disk type='file' device='cdrom'><source file='/seeds/s.iso'/><target dev='sda' bus='scsi'/></disk>
    <disk type='file' device='disk'><source file='/pool/b&amp;.raw'/><target dev='vdb'/></disk>\n  </devices>\n</domain>";

    fn to(from: &str, to: &str) -> Switch {
        Switch { from: from.into(), to: to.into() }
    }

    #[test]
    fn only_the_image_and_the_chain_change() {
        let disks = [to("/pool/a.qcow2", "/pool/n'ew&"), to("/pool/nowhere", "/pool/x")];
        let elements = switched_disks(DOMAIN, &disks).unwrap();
        assert_eq!(elements.len(), 1);
        let element = &elements[0];
        assert!(element.starts_with("<disk type='file' device='disk'>") && element.ends_with("</disk>"), "{element}");
        for kept in ["cache='none' iothread='1'", "index='2'", "<read_iops_sec>100</read_iops_sec>", "dev='vda'"] {
            assert!(element.contains(kept), "{element}");
        }
        assert!(!element.contains("backingStore") && !element.contains("a.qcow2"), "{element}");
        let whole = switched(DOMAIN, &[("vda".into(), "/pool/n'ew&".into())]).unwrap();
        let view = DomainView::parse(&whole.replace(
            "<name>",
            "<uuid>6f1f3c1e-8a0b-4a7e-9d55-000000000001</uuid><memory>1024</memory><vcpu>1</vcpu><name>",
        ));
        let paths: Vec<_> = view.unwrap().disks.into_iter().map(|disk| disk.path.unwrap()).collect();
        assert_eq!(paths, ["/pool/n'ew&", "/seeds/s.iso", "/pool/b&.raw"]);
        assert!(whole.contains("<!-- kept -->") && !whole.contains("backingStore"));
    }

    #[test]
    fn a_disk_that_is_not_frozen_is_named() {
        let xml = DOMAIN.replace(
            "<name>",
            "<uuid>6f1f3c1e-8a0b-4a7e-9d55-000000000001</uuid><memory>1024</memory><vcpu>1</vcpu><name>",
        );
        let all = DomainView::parse(&xml).unwrap().disks;
        let xml = freeze_xml(&all, &[to("/pool/a.qcow2", "/pool/n")], None);
        let document = Document::parse(&xml).unwrap();
        let told: Vec<_> = document
            .descendants()
            .filter(|node| node.has_tag_name("disk"))
            .map(|node| (node.attribute("name").unwrap(), node.attribute("snapshot").unwrap()))
            .collect();
        assert_eq!(told, [("vda", "external"), ("sda", "no"), ("vdb", "no")]);
        assert!(xml.contains("/pool/n"), "{xml}");
        assert!(freeze_xml(&all, &[], Some("/pool/m")).contains("external"));
    }
}
