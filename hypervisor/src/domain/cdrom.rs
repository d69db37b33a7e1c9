//! The CD-ROM drives: that of the seed, and the one for ISO images. A domain has the latter from the start, empty: a CD-ROM drive
//! can't be plugged into a running one.

use super::{
    DiskView, DomainView,
    edits::{Edits, child, text_of},
    layers::unreadable,
};
use crate::{ErrorKind, Node, Result, node::SLOW, xml::Xml};
use libvirt::{Domain, flags};
use quick_xml::escape::escape;
use roxmltree::{Document, Node as Element};
use uuid::Uuid;

/// The seed's drive.
pub(super) const SEED_DRIVE: &str = "sda";
/// The drive for ISO images.
pub(super) const DRIVE: &str = "sdb";

/// A CD-ROM drive of a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drive {
    /// That of the NoCloud seed.
    Seed,
    /// The one for ISO images.
    Iso,
}

impl Drive {
    fn target(self) -> &'static str {
        match self {
            Drive::Seed => SEED_DRIVE,
            Drive::Iso => DRIVE,
        }
    }
}

impl DomainView {
    fn drive(&self, drive: Drive) -> Option<&DiskView> {
        self.disks.iter().find(|disk| disk.cdrom && disk.target == drive.target())
    }

    /// The drive for ISO images, if it has one.
    pub fn iso_drive(&self) -> Option<&DiskView> {
        self.drive(Drive::Iso)
    }

    /// The path of the ISO image that is in it.
    pub fn iso(&self) -> Option<&str> {
        self.iso_drive()?.path.as_deref()
    }

    /// The path of the NoCloud seed.
    pub fn seed(&self) -> Option<&str> {
        self.drive(Drive::Seed)?.path.as_deref()
    }
}

impl Node {
    /// Whether a domain's definition has the drive, and what is in the drive now; `None` when there is no such domain.
    pub async fn drive(&self, id: Uuid, drive: Drive) -> Result<Option<(bool, Option<String>)>> {
        let medium = |live: &DomainView| live.drive(drive).and_then(|disk| disk.path.clone());
        Ok(self.domain_text(id).await?.map(|text| (text.defined.drive(drive).is_some(), medium(&text.live))))
    }

    /// Puts another image into the drive, or none: of the running domain first, whose guest may hold the tray shut, unless
    /// `force`; then in the definition. A domain that is off gets a drive if it has none; of one that is on that is
    /// `Unsupported`.
    pub async fn change_medium(&self, id: Uuid, drive: Drive, image: Option<&str>, force: bool) -> Result<()> {
        let doing = match image {
            Some(image) => format!("put {image} into the CD-ROM drive of domain {id}"),
            None => format!("empty the CD-ROM drive of domain {id}"),
        };
        let image = image.map(str::to_owned);
        let changed = self
            .change_domain(id, SLOW, &doing, move |domain| {
                let force = if force { flags::DEVICE_FORCE } else { 0 };
                if domain.is_active()? {
                    let Some(element) = element(domain, drive, 0)? else { return Ok(false) };
                    domain.update_device(&with(&element, image.as_deref())?, flags::AFFECT_LIVE | force)?;
                }
                match element(domain, drive, flags::XML_INACTIVE | flags::XML_SECURE)? {
                    Some(element) => domain.update_device(&with(&element, image.as_deref())?, flags::AFFECT_CONFIG)?,
                    None => domain.attach_device(&new_drive(drive, image.as_deref()), flags::AFFECT_CONFIG)?,
                }
                Ok(true)
            })
            .await?;
        match changed {
            true => Ok(()),
            false => Err(self.error(ErrorKind::Unsupported, &doing, "it has none, and is on")),
        }
    }
}

/// The drive's element as libvirt writes it.
fn element(domain: &Domain, drive: Drive, which: u32) -> libvirt::Result<Option<String>> {
    let is_it = |node: Element<'_, '_>| {
        let device = child(node, "target").and_then(|target| target.attribute("dev"));
        node.has_tag_name("disk") && node.attribute("device") == Some("cdrom") && device == Some(drive.target())
    };
    text_of(&domain.xml(which)?, is_it)
}

/// The element with this image in the drive; all else in it as it is.
fn with(xml: &str, iso: Option<&str>) -> libvirt::Result<String> {
    let document = Document::parse(xml).map_err(|_| unreadable())?;
    let drive = document.root_element();
    let mut edits = Edits::default();
    for name in ["source", "backingStore"] {
        if let Some(old) = child(drive, name) {
            edits.remove(xml, old);
        }
    }
    if let Some(iso) = iso {
        let target = child(drive, "target").ok_or_else(unreadable)?;
        edits.insert(target.range().start, format!("<source file='{}'/>\n      ", escape(iso)));
    }
    Ok(edits.apply(xml))
}

fn new_drive(drive: Drive, image: Option<&str>) -> String {
    let mut xml = Xml::new();
    write_drive(&mut xml, drive.target(), image, None);
    xml.finish().unwrap_or_default()
}

/// A CD-ROM drive, on SCSI: Debian's cloud kernel has no driver for SATA.
pub(super) fn write_drive(xml: &mut Xml, target: &str, iso: Option<&str>, boot: Option<&str>) {
    xml.nest("disk", &[("type", "file"), ("device", "cdrom")], |xml| {
        xml.empty("driver", &[("name", "qemu"), ("type", "raw")]);
        if let Some(iso) = iso {
            xml.empty("source", &[("file", iso)]);
        }
        xml.empty("target", &[("dev", target), ("bus", "scsi")]);
        xml.empty("readonly", &[]);
        if let Some(order) = boot {
            xml.empty("boot", &[("order", order)]);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_medium_comes_and_goes() {
        let empty = "<disk type='file' device='cdrom'>\n      <driver name='qemu'/>\n      <target dev='sdb' bus='scsi' tray='open'/>
      <readonly/>\n      <boot order='2'/>\n    </disk>";
        let full = with(empty, Some("/pool/a'b&c.iso")).unwrap();
        assert_eq!(full, empty.replace("<target", "<source file='/pool/a&apos;b&amp;c.iso'/>\n      <target"));
        let numbered = full.replace("/>\n      <target", " index='3'/>\n      <backingStore/>\n      <target");
        assert_eq!(with(&numbered, None).unwrap(), empty);
        assert_eq!(
            with(&numbered, Some("/x.iso")).unwrap(),
            empty.replace("<target", "<source file='/x.iso'/>\n      <target")
        );
    }
}
