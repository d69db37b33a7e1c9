//! Data disks of domains: plugging in, asking a guest to let go, growing.
//!
//! A running domain has two lists of disks: those of the running one and those of its definition, which count from its
//! next start on. They are kept in step here.

use super::{DiskView, DomainView, Power, left_images::past_left_images};
use crate::{
    Node, Result,
    node::{QUICK, SLOW},
    xml::Xml,
};
use libvirt::{Domain, ErrorCode, flags};
use uuid::Uuid;

/// A data disk to plug in.
#[derive(Debug, Clone)]
pub struct DataDisk {
    /// Where it is on the node.
    pub path: String,
    /// `qcow2` or `raw`. Always said: a guest could write a qcow2 header into a raw image and so read any file.
    pub format: String,
    /// The device it is to be: `vdb`.
    pub target: String,
    /// What the guest sees as the disk's serial number (20 characters at most).
    pub serial: String,
}

/// The disks of a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainDisks {
    /// Its power state.
    pub power: Power,
    /// Those that it has now; of a domain that is off those of its definition.
    pub live: Vec<DiskView>,
    /// Those of its definition, which it has from its next start on.
    pub defined: Vec<DiskView>,
}

impl DomainDisks {
    /// Whether it has this image now.
    pub fn has_live(&self, path: &str) -> bool {
        self.live.iter().any(|disk| disk.path.as_deref() == Some(path))
    }

    /// Whether its definition has this image.
    pub fn has_defined(&self, path: &str) -> bool {
        self.defined.iter().any(|disk| disk.path.as_deref() == Some(path))
    }
}

impl Node {
    /// The disks of a domain; `None` when there is no such domain.
    pub async fn disks(&self, id: Uuid) -> Result<Option<DomainDisks>> {
        Ok(self.domain_text(id).await?.map(|text| text.disks()))
    }

    /// Plugs a disk into a domain: into its definition and, when it is on, into the running one; both or none.
    pub async fn attach_disk(&self, id: Uuid, disk: &DataDisk) -> Result<()> {
        let (doing, disk) = (format!("attach {} to domain {id} as {}", disk.path, disk.target), disk.clone());
        let attached = self.change_domain(id, SLOW, &doing, move |domain| {
            let live = if domain.is_active()? { flags::AFFECT_LIVE } else { 0 };
            past_left_images(|| domain.attach_device(&disk.to_xml(), live | flags::AFFECT_CONFIG))
        });
        attached.await
    }

    /// Adds a disk to a domain's definition alone.
    pub async fn define_disk(&self, id: Uuid, disk: &DataDisk) -> Result<()> {
        let (doing, disk) = (format!("add {} to the definition of domain {id}", disk.path), disk.clone());
        let defined = self
            .change_domain(id, QUICK, &doing, move |domain| domain.attach_device(&disk.to_xml(), flags::AFFECT_CONFIG));
        defined.await
    }

    /// Takes a disk out of a domain's definition, whatever it is called there. One that is not there is fine.
    pub async fn undefine_disk(&self, id: Uuid, path: &str) -> Result<()> {
        let (doing, path) = (format!("take {path} out of the definition of domain {id}"), path.to_owned());
        let taken =
            self.change_domain(id, QUICK, &doing, move |domain| match find(domain, &path, flags::XML_INACTIVE)? {
                Some(disk) => domain.detach_device(&named(&disk, &path), flags::AFFECT_CONFIG),
                None => Ok(()),
            });
        taken.await
    }

    /// Asks the guest of a running domain to let go of a disk. It is done when the disk is gone from [`Node::disks`]: the
    /// guest may take its time, refuse, or not hear it, while it is in its firmware for instance. To be called again then.
    pub async fn ask_for_disk(&self, id: Uuid, path: &str) -> Result<()> {
        let (doing, path) = (format!("ask domain {id} to let go of {path}"), path.to_owned());
        let question = self.change_domain(id, QUICK, &doing, move |domain| {
            let Some(alias) = find(domain, &path, 0)?.and_then(|disk| disk.alias) else { return Ok(()) };
            asked(domain.detach_device_alias(&alias, flags::AFFECT_LIVE))
        });
        question.await
    }

    /// Gives a running domain's disk `bytes` bytes, which its guest sees at once.
    pub async fn resize_disk(&self, id: Uuid, path: &str, bytes: u64) -> Result<()> {
        let (doing, path) = (format!("resize {path} of domain {id}"), path.to_owned());
        let resized = self.change_domain(id, SLOW, &doing, move |domain| {
            let disk = find(domain, &path, 0)?;
            domain.block_resize(disk.as_ref().map_or(path.as_str(), |disk| &disk.target), bytes)
        });
        resized.await
    }
}

/// What came of asking a guest to let go of a device: that it let go in between, or hasn't answered the question before this one,
/// is fine.
pub(super) fn asked(answer: libvirt::Result<()>) -> libvirt::Result<()> {
    match answer {
        Err(error) if error.code == ErrorCode::DEVICE_MISSING => Ok(()),
        Err(error) if error.message.contains("already in the process of unplug") => Ok(()),
        answer => answer,
    }
}

/// The disk with this image, of the running domain or (with XML_INACTIVE) of its definition.
fn find(domain: &Domain, path: &str, which: u32) -> libvirt::Result<Option<DiskView>> {
    let view = DomainView::parse(&domain.xml(which)?);
    let mut disks = view.into_iter().flat_map(|view| view.disks);
    Ok(disks.find(|disk| disk.path.as_deref() == Some(path)))
}

/// As much of a disk's element as says which one is meant.
fn named(disk: &DiskView, path: &str) -> String {
    let mut xml = Xml::new();
    xml.nest("disk", &[("type", "file"), ("device", "disk")], |xml| {
        xml.empty("source", &[("file", path)]);
        xml.empty("target", &[("dev", &disk.target)]);
    });
    xml.finish().unwrap_or_default()
}

impl DataDisk {
    fn to_xml(&self) -> String {
        let mut xml = Xml::new();
        super::spec::write_disk(&mut xml, &self.path, &self.format, &self.target, &self.serial, None);
        xml.finish().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_written_with_its_format() {
        let disk = DataDisk {
            path: "/pool/a'b.raw".into(),
            format: "raw".into(),
            target: "vdc".into(),
            serial: "0193".into(),
        };
        let xml = disk.to_xml();
        let view = DomainView::parse(&format!(
            "<domain><name>x</name><uuid>6f1f3c1e-8a0b-4a7e-9d55-000000000001</uuid><memory>65536</memory>
             <vcpu>1</vcpu><devices>{xml}</devices></domain>"
        ));
        let disks = view.unwrap().disks;
        assert_eq!((disks[0].path.as_deref(), disks[0].format.as_deref()), (Some("/pool/a'b.raw"), Some("raw")));
        assert!(xml.contains("<serial>0193</serial>") && !xml.contains("<boot"), "{xml}");
        assert!(named(&disks[0], "/pool/a'b.raw").contains("dev='vdc'") || xml.contains("dev=\"vdc\""));
    }
}
