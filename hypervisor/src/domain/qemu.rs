//! What QEMU itself says of a domain's images, past libvirt.
//!
//! libvirt writes down what it has had a QEMU do only afterwards. One that is killed in between believes what was before, in 9.0
//! as in 11.3: it says that a guest writes to one image while it writes to another, and nothing in libvirt puts that right while
//! the domain runs.

use super::layers::Switch;
use crate::{Node, Result, error::libvirt_error};
use libvirt::{Domain, ErrorCode};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// The deadline of taking overlays back. What they have is what was written since a snapshot that was cut off.
const TAKE_BACK: Duration = Duration::from_secs(3600);
/// How often QEMU is asked for its jobs.
const LOOK: Duration = Duration::from_millis(50);

impl Node {
    /// Has QEMU write back, and leave, the overlays of a snapshot that it has taken without libvirt's knowing it. What libvirt
    /// believes is true again then. Overlays that QEMU isn't on stay as they are.
    pub async fn take_back_overlays(&self, id: Uuid, disks: &[Switch]) -> Result<()> {
        let (doing, disks) = (format!("take back what QEMU has of a snapshot of domain {id}"), disks.to_vec());
        let taken = self.job(Some(id), TAKE_BACK, &doing, move |connection| {
            let domain = connection.domain(id)?;
            if !domain.is_active()? {
                return Ok(());
            }
            disks.iter().try_for_each(|disk| take_back(&domain, disk))
        });
        taken.await
    }
}

fn take_back(domain: &Domain, disk: &Switch) -> libvirt::Result<()> {
    let nodes = ask(domain, "query-named-block-nodes", json!({"flat": true}))?;
    let node = |path: &str, is_file: bool| {
        let is_it = |node: &&Value| is_image(node, path) && (node["drv"] == "file") == is_file;
        nodes.as_array()?.iter().find(is_it)?["node-name"].as_str().map(str::to_owned)
    };
    let (top, file) = (node(&disk.to, false), node(&disk.to, true));
    if let (Some(top), true) = (&top, is_on(domain, &disk.to)?) {
        let Some(below) = node(&disk.from, false) else { return Ok(()) };
        tracing::warn!(overlay = disk.to, "QEMU has taken a snapshot that libvirt doesn't know of: it is taken back");
        commit(domain, top, &below)?;
        if is_on(domain, &disk.to)? {
            return Err(failed("QEMU did not write an overlay back"));
        }
    }
    // Also where it was only opened: a QEMU that has an image open for no device may not have its memory saved.
    let close = |node: String| ask(domain, "blockdev-del", json!({"node-name": node})).map(|_| ());
    top.into_iter().chain(file).try_for_each(close)
}

/// Whether a node of QEMU's is this image. One that was opened by itself, with what is below left out, has a name that says so:
/// `json:{"backing": null, "driver": "qcow2", "file": {"driver": "file", "filename": "/pool/a.qcow2"}}`.
fn is_image(node: &Value, path: &str) -> bool {
    let Some(name) = node["file"].as_str() else { return false };
    match name.strip_prefix("json:").map(serde_json::from_str::<Value>) {
        Some(Ok(opened)) => opened["file"]["filename"] == path,
        _ => name == path,
    }
}

/// Whether a device of the guest is on this image.
pub(super) fn is_on(domain: &Domain, path: &str) -> libvirt::Result<bool> {
    let devices = ask(domain, "query-block", json!({}))?;
    Ok(devices.as_array().is_some_and(|all| all.iter().any(|device| device["inserted"]["file"] == path)))
}

/// Writes the image that a guest is on into the one below, which the guest is on then.
fn commit(domain: &Domain, top: &str, below: &str) -> libvirt::Result<()> {
    let job = format!("vmyard-{top}");
    let state = || -> libvirt::Result<Option<String>> {
        let jobs = ask(domain, "query-jobs", json!({}))?;
        let ours = jobs.as_array().and_then(|jobs| jobs.iter().find(|one| one["id"] == *job));
        Ok(ours.and_then(|one| one["status"].as_str()).map(str::to_owned))
    };
    // Another server, or an earlier try, may have begun it.
    if state()?.is_none() {
        ask(domain, "block-commit", json!({"job-id": job, "device": top, "base-node": below}))?;
    }
    let end = Instant::now() + TAKE_BACK;
    while let Some(status) = state()? {
        if status == "ready" {
            ask(domain, "job-complete", json!({"id": job}))?;
        }
        if Instant::now() > end {
            return Err(failed("QEMU is not done with writing an overlay back"));
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}

/// Asks QEMU something; gives what it returns.
fn ask(domain: &Domain, execute: &str, arguments: Value) -> libvirt::Result<Value> {
    let said = domain.monitor_command(&json!({"execute": execute, "arguments": arguments}).to_string())?;
    let mut said: Value = serde_json::from_str(&said).map_err(|error| failed(&format!("{execute}: {error}")))?;
    match said["error"]["desc"].as_str() {
        None => Ok(said["return"].take()),
        Some(why) => Err(failed(&format!("{execute}: {why}"))),
    }
}

fn failed(why: &str) -> libvirt::Error {
    libvirt_error(ErrorCode::OPERATION_FAILED, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_known_by_its_path_however_it_was_opened() {
        let opened =
            r#"json:{"backing": null, "driver": "qcow2", "file": {"driver": "file", "filename": "/pool/a.qcow2"}}"#;
        for name in ["/pool/a.qcow2", opened] {
            assert!(is_image(&json!({"file": name}), "/pool/a.qcow2"), "{name}");
            assert!(!is_image(&json!({"file": name}), "/pool/b.qcow2"), "{name}");
        }
        assert!(!is_image(&json!({}), "/pool/a.qcow2"));
    }
}
