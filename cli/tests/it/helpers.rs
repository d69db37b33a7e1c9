//! Domains of our own in which images are merged that no VM is on, where `qemu-img` can't be run: on nodes that are reached by TCP.

use crate::{
    crash::nothing_is_left,
    lab::{Lab, SOON, eventually},
    snapshots::{agrees, chain, now, with_data},
    volumes::{has, write},
};
use serde_json::{Value, json};
use std::process::Command;

/// What takes so long to merge that something can happen meanwhile.
const MUCH: &str = "900M";

/// A helper of another installation.
const THEIRS: &str = "vmyard-helper-theirs";

/// The helpers on the lab's node that are ours.
fn helpers(lab: &Lab) -> Vec<String> {
    let names = lab.node.virsh(&["list", "--name"]);
    names.lines().filter(|name| name.starts_with("vmyard-helper-") && *name != THEIRS).map(str::to_owned).collect()
}

/// A VM that is off whose data volume has much above a snapshot `a`.
fn with_much(lab: &Lab, name: &str) -> (String, Value) {
    let (vm, data) = with_data(lab, name);
    write(&now(lab, &data), 1, "0", "1M");
    vm.ok("create-snapshot", json!({"name": "a"}));
    write(&now(lab, &data), 2, "1M", MUCH);
    let name = vm.name.clone();
    // It is deleted by the test.
    std::mem::forget(vm);
    (name, data)
}

/// Begins to delete the snapshot, and returns when a helper is at work on the volume.
fn delete_and_wait_for_a_helper(lab: &Lab, vm: &str) {
    let begun = lab.server.call("delete-snapshot", json!({"vm": vm, "snapshot": "a", "wait": false}));
    assert_eq!(begun.status, 202, "{begun:?}");
    eventually("a helper is at work on the data", SOON, || {
        let name = helpers(lab).pop()?;
        // It may be the one of the system disk, which is gone in a moment.
        let virsh = ["-q", "-c", lab.node.uri(), "domblkinfo", &name, "vda"];
        let disk = Command::new("virsh").args(virsh).output().unwrap().stdout;
        String::from_utf8_lossy(&disk).contains(&(1_u64 << 30).to_string()).then_some(())
    });
}

fn is_whole(lab: &Lab, vm: &str, data: &Value) {
    eventually("it is merged", SOON, || (lab.ok("list-snapshots", json!({"vm": vm}))["total"] == 0).then_some(()));
    let data = now(lab, data);
    has(&data, 1, "0", "1M");
    has(&data, 2, "1M", MUCH);
    assert_eq!(chain(&data).len(), 1);
    agrees(lab, vm);
    assert!(helpers(lab).is_empty());
    lab.ok("delete-vm", json!({"vm": vm, "delete_volumes": true}));
}

#[test]
fn nobody_sees_one() {
    let lab = Lab::remote();
    let (vm, data) = with_much(&lab, "seen");
    delete_and_wait_for_a_helper(&lab, &vm);
    let listed = lab.ok("list-vms", json!({}));
    assert_eq!(listed["total"], 1, "{listed}");
    // Who wants the VM meanwhile is told who has it.
    let problem = lab.err("start-vm", json!({"vm": vm}), 409, "busy");
    assert!(problem["detail"].as_str().unwrap().contains("delete-snapshot"), "{problem}");
    is_whole(&lab, &vm, &data);
    let told = lab.ok("list-events", json!({"limit": 1000})).to_string();
    assert!(!told.contains("vmyard-helper"), "{told}");
    nothing_is_left(&lab, "a helper that nobody saw");
}

#[test]
fn the_server_is_killed_meanwhile() {
    let mut lab = Lab::remote();
    let (vm, data) = with_much(&lab, "cut");
    delete_and_wait_for_a_helper(&lab, &vm);
    lab.server.kill_and_restart(&[]);
    is_whole(&lab, &vm, &data);
    nothing_is_left(&lab, "a helper whose server was killed");
}

#[test]
fn libvirtd_is_killed_meanwhile() {
    let lab = Lab::remote();
    let (vm, data) = with_much(&lab, "left");
    // Somebody else's is none of ours.
    let theirs = format!(
        "<domain type='qemu'><name>{THEIRS}</name><memory unit='MiB'>32</memory>
         <os><type arch='x86_64' machine='q35'>hvm</type></os></domain>"
    );
    let file = lab.dir.path.join("theirs.xml");
    std::fs::write(&file, theirs).unwrap();
    lab.node.virsh(&["create", "--paused", file.to_str().unwrap()]);
    delete_and_wait_for_a_helper(&lab, &vm);
    lab.node.command("kill-libvirtd");
    lab.node.command("start-libvirtd");
    is_whole(&lab, &vm, &data);
    assert_eq!(lab.ok("list-vms", json!({}))["total"], 0);
    lab.node.virsh(&["destroy", THEIRS]);
    nothing_is_left(&lab, "a helper whose libvirtd was killed");
}

#[test]
fn one_does_it_where_there_is_no_qemu_img() {
    let mut lab = Lab::own();
    lab.server.kill_and_restart(&[("PATH", "/nowhere")]);
    let (vm, data) = with_data(&lab, "bare");
    write(&now(&lab, &data), 1, "0", "1M");
    vm.ok("create-snapshot", json!({"name": "a"}));
    write(&now(&lab, &data), 2, "1M", "1M");
    let (frozen, deleted) = (now(&lab, &data)["backing"].clone(), vm.ok("delete-snapshot", json!({"snapshot": "a"})));
    assert_eq!(deleted["pending"], Value::Null, "{deleted}");
    let data = now(&lab, &data);
    // qemu-img would have kept the upper image.
    assert_eq!(data["path"], frozen);
    has(&data, 1, "0", "1M");
    has(&data, 2, "1M", "1M");
    agrees(&lab, &vm.name);
    lab.ok("delete-vm", json!({"vm": vm.id, "delete_volumes": true}));
    std::mem::forget(vm);
    nothing_is_left(&lab, "images that were merged without qemu-img");
}
