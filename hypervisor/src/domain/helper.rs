//! Work on images that no domain is on, where `qemu-img` can't be run: a domain of our own has the image as its only disk, and
//! QEMU's jobs work on it. Its CPUs never run, so nobody writes to it but the job.
//!
//! It is hidden: no list, event or sample of a node shows it. It ends with its call, or with the connection that it was made on;
//! only a libvirtd that is killed meanwhile leaves one behind, which [`Node::end_left_helpers`] ends.

use super::{
    Merge,
    commit::{MERGE, commit, wait},
};
use crate::{Node, Result, error::libvirt_error, storage, sync::lock, xml::Xml};
use libvirt::{Connect, Domain, ErrorCode, flags};
use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
};
use uuid::Uuid;

/// What the names of all of them begin with; the id of whose it is comes next, and one of its own.
const NAME: &str = "vmyard-helper-";
/// What its disk is called.
const DISK: &str = "vda";
/// Its memory, in MiB: nothing runs in it.
const MEMORY_MIB: &str = "64";

/// How helpers of this installation are named on a node, and which of them are at work now. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Helpers {
    prefix: String,
    at_work: Arc<Mutex<HashSet<String>>>,
}

/// Whether a domain is a helper, ours or another installation's.
pub(crate) fn is_helper(name: &str) -> bool {
    name.starts_with(NAME)
}

impl Helpers {
    pub(crate) fn of(owner: Uuid) -> Helpers {
        Helpers { prefix: format!("{NAME}{}-", owner.simple()), at_work: Arc::default() }
    }

    /// Does something with a domain that has the image as its disk [`DISK`]. When it is done, what was written is on the disk.
    fn with<T>(
        &self,
        connection: &Connect,
        image: &str,
        f: impl FnOnce(&Domain) -> libvirt::Result<T>,
    ) -> libvirt::Result<T> {
        let name = format!("{}{}", self.prefix, Uuid::new_v4().simple());
        let odd = |character| libvirt_error(ErrorCode::INVALID_ARG, &format!("{image}: XML can't hold {character:?}"));
        let xml = xml(&name, image).map_err(odd)?;
        lock(&self.at_work).insert(name.clone());
        let done = within(connection, &xml, f);
        lock(&self.at_work).remove(&name);
        done
    }

    fn is_left(&self, name: &str) -> bool {
        name.starts_with(&self.prefix) && !lock(&self.at_work).contains(name)
    }
}

impl Node {
    /// Writes an image into the one below it, as [`Node::merge_live`] does for a running domain. No domain is on them; `top` is the
    /// image that stands on the upper one, if there is one, else the upper one itself. May be called again after it was cut off.
    pub async fn merge_unused(
        &self,
        top: &str,
        merge: &Merge,
        progress: impl Fn(u64, u64) + Send + 'static,
    ) -> Result<()> {
        let doing = format!("merge {} into {}", merge.from, merge.into);
        let (top, merge, helpers) = (top.to_owned(), merge.clone(), self.helpers().clone());
        self.job(None, MERGE, &doing, move |connection| {
            helpers.with(connection, &top, |domain| commit(domain, &merge, &progress))
        })
        .await
    }

    /// Makes a new overlay stand on another image of its chain (`None`: on none), and copies into it what it needs of those in
    /// between. Cut off, the overlay is worth nothing: QEMU writes the header before it is sure of the data.
    pub(crate) async fn pull_unused(&self, overlay: &str, onto: Option<&str>) -> Result<()> {
        let doing = format!("copy what is below {overlay} into it");
        let (overlay, onto, helpers) = (overlay.to_owned(), onto.map(str::to_owned), self.helpers().clone());
        self.job(None, MERGE, &doing, move |connection| {
            helpers.with(connection, &overlay, |domain| {
                domain.block_rebase(DISK, onto.as_deref(), 0)?;
                wait(domain, DISK, false, &|_, _| ())
            })?;
            // A job that failed ends like one that is done.
            match storage::stands_on(connection, &connection.volume_by_path(&overlay)?)? == onto {
                true => Ok(()),
                false => Err(libvirt_error(ErrorCode::OPERATION_FAILED, "QEMU's job has failed")),
            }
        })
        .await
    }

    /// Ends what a libvirtd that was killed has left of ours.
    pub async fn end_left_helpers(&self) -> Result<()> {
        let helpers = self.helpers().clone();
        let left = self.ask("look for helpers that were left", move |connection| {
            let all = connection.domains(flags::LIST_DOMAINS_ACTIVE)?;
            let left = all.iter().filter(|domain| helpers.is_left(&domain.name()));
            Ok(left.map(|domain| Uuid::from_bytes(domain.uuid())).collect::<Vec<_>>())
        });
        for helper in left.await? {
            self.cut_power(helper).await?;
        }
        Ok(())
    }
}

fn within<T>(connection: &Connect, xml: &str, f: impl FnOnce(&Domain) -> libvirt::Result<T>) -> libvirt::Result<T> {
    let domain = connection.create_domain(xml, flags::START_PAUSED | flags::START_AUTODESTROY)?;
    let done = f(&domain);
    if done.is_err() {
        // What is said of the work is what counts. It ends with the connection at the latest.
        let _ = domain.destroy(0);
        return done;
    }
    // Without SIGKILL: QEMU closes its images, which writes out what it holds of them.
    domain.destroy(flags::DESTROY_GRACEFUL)?;
    done
}

fn xml(name: &str, image: &str) -> std::result::Result<String, char> {
    let mut xml = Xml::new();
    // QEMU alone: nothing runs, and there may be no place for one more with KVM.
    xml.nest("domain", &[("type", "qemu")], |xml| {
        xml.text("name", &[], name);
        xml.text("memory", &[("unit", "MiB")], MEMORY_MIB);
        xml.text("vcpu", &[], "1");
        xml.nest("os", &[], |xml| xml.text("type", &[("arch", "x86_64"), ("machine", "q35")], "hvm"));
        xml.nest("devices", &[], |xml| {
            xml.nest("disk", &[("type", "file"), ("device", "disk")], |xml| {
                xml.empty("driver", &[("name", "qemu"), ("type", "qcow2")]);
                xml.empty("source", &[("file", image)]);
                xml.empty("target", &[("dev", DISK), ("bus", "virtio")]);
            });
            xml.empty("controller", &[("type", "usb"), ("model", "none")]);
            xml.empty("memballoon", &[("model", "none")]);
        });
    });
    xml.finish()
}
