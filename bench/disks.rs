//! Attaching, detaching, snapshots and reverts beside the raw calls, on two VMs of the same kind that take turns: one is
//! Vmyard's, on the other one the calls are made by hand.

use crate::{
    lab::{Lab, TestVm},
    table::{beside, timed},
};
use libvirt::{Connect, Domain, flags};
use serde_json::json;
use std::time::Duration;

/// Turns of each measurement. With each a snapshot's chain grows by one image.
const TURNS: usize = 11;
/// The budget of all of them.
const BUDGET: f64 = 1.3;

/// All of it.
pub fn all(lab: &Lab, raw: &Connect) {
    let (ours, theirs) = (lab.create("disks"), lab.create("by-hand"));
    let domain = raw.domain_by_name(theirs.created["domain"].as_str().unwrap()).unwrap();
    let mut by_hand = ByHand { raw, domain, disk: path(&theirs), made: 0 };
    snapshots("create-snapshot, off", &ours, || by_hand.freeze_off());
    reverts(&ours, &mut by_hand);
    let (ours, theirs) = (ours.start().ready(), theirs.start().ready());
    snapshots("create-snapshot, running", &ours, || by_hand.freeze_running());
    hot_plug(lab, &ours, &by_hand);
    drop(theirs);
    ours.ok("stop-vm", json!({"force": true}));
    lab.ok("delete-vm", json!({"vm": ours.id, "delete_snapshots": true}));
    std::mem::forget(ours);
}

fn path(vm: &TestVm<'_>) -> String {
    vm.describe()["disks"][0]["path"].as_str().unwrap().to_owned()
}

/// A VM whose disk is moved by hand.
struct ByHand<'a> {
    raw: &'a Connect,
    domain: Domain,
    disk: String,
    made: u32,
}

impl ByHand<'_> {
    /// Makes an overlay over an image; returns where it is.
    fn overlay(&mut self, backing: &str) -> String {
        self.made += 1;
        let xml = format!(
            "<volume><name>by-hand-{}.qcow2</name><capacity unit='bytes'>536870912</capacity><allocation>0</allocation>
             <target><format type='qcow2'/><compat>1.1</compat><permissions><mode>0600</mode></permissions></target>
             <backingStore><path>{backing}</path><format type='qcow2'/></backingStore></volume>",
            self.made
        );
        self.raw.pool_by_name("default").unwrap().create_volume(&xml, 0).unwrap().path().unwrap()
    }

    /// The definition's disk on another image.
    fn switch(&mut self, to: String) {
        let xml = self.domain.xml(flags::XML_INACTIVE | flags::XML_SECURE).unwrap();
        let (start, end) = (xml.find("<disk").unwrap(), xml.find("</disk>").unwrap() + 7);
        self.domain.update_device(&xml[start..end].replace(&self.disk, &to), flags::AFFECT_CONFIG).unwrap();
        self.disk = to;
    }

    fn freeze_off(&mut self) {
        let to = self.overlay(&self.disk.clone());
        self.switch(to);
    }

    fn freeze_running(&mut self) {
        let to = self.overlay(&self.disk.clone());
        let xml = format!(
            "<domainsnapshot><disks><disk name='vda' snapshot='external' type='file'><driver type='qcow2'/>
             <source file='{to}'/></disk><disk name='sda' snapshot='no'/></disks></domainsnapshot>"
        );
        let how = flags::SNAPSHOT_DISK_ONLY
            | flags::SNAPSHOT_ATOMIC
            | flags::SNAPSHOT_NO_METADATA
            | flags::SNAPSHOT_REUSE_EXT;
        self.domain.snapshot_create_xml(&xml, how).unwrap();
        self.disk = to;
    }

    /// Throws the newest overlay away and makes another one over the same image.
    fn revert(&mut self, frozen: &str) {
        let (to, old) = (self.overlay(frozen), self.disk.clone());
        self.switch(to);
        self.raw.volume_by_path(&old).unwrap().delete(0).unwrap();
    }
}

fn snapshots(what: &str, vm: &TestVm<'_>, mut by_hand: impl FnMut()) {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for turn in 0..TURNS {
        // The guest agent is not asked: neither is it by hand.
        let body = json!({"name": format!("{}-{turn}", what.replace([',', ' '], "")), "quiesce": "never"});
        ours.push(timed(|| vm.ok("create-snapshot", body)).1);
        theirs.push(timed(&mut by_hand).1);
    }
    beside(what, ours, theirs, BUDGET);
}

fn reverts(vm: &TestVm<'_>, by_hand: &mut ByHand<'_>) {
    let frozen = by_hand.disk.clone();
    by_hand.freeze_off();
    vm.ok("create-snapshot", json!({"name": "back"}));
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        ours.push(timed(|| vm.ok("revert-to-snapshot", json!({"snapshot": "back"}))).1);
        theirs.push(timed(|| by_hand.revert(&frozen)).1);
    }
    beside("revert-to-snapshot", ours, theirs, BUDGET);
}

fn hot_plug(lab: &Lab, vm: &TestVm<'_>, by_hand: &ByHand<'_>) {
    let (mine, other) = (volume(lab, "plugged"), volume(lab, "plugged-by-hand"));
    let disk = format!(
        "<disk type='file' device='disk'><driver name='qemu' type='qcow2' discard='unmap'/><source file='{other}'/>
         <target dev='vdb' bus='virtio'/><serial>by-hand</serial></disk>"
    );
    let both = flags::AFFECT_LIVE | flags::AFFECT_CONFIG;
    let domain = &by_hand.domain;
    let alias = || {
        let xml = domain.xml(0).unwrap();
        let at = xml.find(&other)?;
        let alias = xml[at..].split("<alias name='").nth(1)?.split('\'').next()?;
        Some(alias.to_owned())
    };
    let (mut attached, mut raw_attached, mut detached, mut raw_detached) = (vec![], vec![], vec![], vec![]);
    for _ in 0..TURNS {
        attached.push(timed(|| vm.ok("attach-volume", json!({"volume": mine}))).1);
        raw_attached.push(timed(|| domain.attach_device(&disk, both).unwrap()).1);
        // Until both guests have their disks, which is none of the calls' business.
        std::thread::sleep(Duration::from_secs(1));
        detached.push(timed(|| vm.ok("detach-volume", json!({"volume": mine}))).1);
        let by_hand = || {
            domain.detach_device_alias(&alias().unwrap(), flags::AFFECT_LIVE).unwrap();
            while alias().is_some() {
                std::thread::sleep(Duration::from_millis(2));
            }
            domain.detach_device(&disk, flags::AFFECT_CONFIG).unwrap();
        };
        raw_detached.push(timed(by_hand).1);
    }
    beside("attach-volume, running", attached, raw_attached, BUDGET);
    beside("detach-volume, running", detached, raw_detached, BUDGET);
    for name in [mine, "plugged-by-hand".to_owned()] {
        lab.ok("delete-volume", json!({"volume": name}));
    }
}

/// A volume's name for ours, its path for the one by hand.
fn volume(lab: &Lab, name: &str) -> String {
    let made = lab.ok("create-volume", json!({"name": name, "size_gib": 1}));
    made[if name.ends_with("hand") { "path" } else { "name" }].as_str().unwrap().to_owned()
}
