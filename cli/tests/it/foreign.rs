//! Domains that Vmyard didn't make, and what happens outside of it.

use crate::lab::{Lab, SOON, eventually};
use serde_json::json;
use std::fs;

#[test]
fn a_vm_made_by_virsh_is_listed_started_and_stopped() {
    let lab = Lab::own();
    let file = lab.dir.path.join("foreign.xml");
    fs::write(
        &file,
        "<domain type='qemu'><name>old web.1</name><memory unit='MiB'>64</memory><vcpu>1</vcpu>
         <os><type arch='x86_64' machine='q35'>hvm</type></os><devices/></domain>",
    )
    .unwrap();
    lab.node.virsh(&["define", file.to_str().unwrap()]);
    let id = lab.node.virsh(&["domuuid", "old web.1"]);
    let state = |wanted: &str| {
        eventually(&format!("it is listed as {wanted}"), SOON, || {
            let listed = lab.ok("list-vms", json!({"managed": false}));
            let vm = listed["vms"][0].clone();
            (vm["id"] == id && vm["state"] == wanted).then_some(vm)
        })
    };
    let vm = state("shutoff");
    assert_eq!((&vm["managed"], &vm["name"]), (&json!(false), &json!("old web.1")));
    lab.node.virsh(&["domrename", "old web.1", "old-web"]);
    let request = json!({"name": "Old-Web", "template": "tiny", "vcpus": 1, "memory_mib": 64});
    eventually("its name is taken", SOON, || {
        (lab.ok("list-vms", json!({"name": "old-web"}))["total"] == 1).then_some(())
    });
    lab.err("create-vm", request, 409, "already_exists");
    lab.node.virsh(&["domrename", "old-web", "old web.1"]);
    eventually("it has its name again", SOON, || {
        (lab.ok("list-vms", json!({"name": "old web.1"}))["total"] == 1).then_some(())
    });
    assert_eq!(lab.ok("start-vm", json!({"vm": "old web.1"}))["state"], "running");
    assert_eq!(lab.ok("stop-vm", json!({"vm": "old web.1", "force": true}))["vm"]["state"], "shutoff");
    // Its disks are not ours to delete.
    lab.err("delete-vm", json!({"vm": id}), 422, "unsupported");

    lab.node.virsh(&["start", "old web.1"]);
    state("running");
    lab.node.virsh(&["suspend", "old web.1"]);
    state("paused");
    lab.node.virsh(&["destroy", "old web.1"]);
    state("shutoff");
    lab.node.virsh(&["undefine", "old web.1"]);
    eventually("it is gone", SOON, || (lab.ok("list-vms", json!({}))["total"] == 0).then_some(()));
}

#[test]
fn a_vm_undefined_outside_can_still_be_deleted() {
    let lab = Lab::own();
    let vm = lab.create("pulled");
    lab.node.virsh(&["undefine", vm.created["domain"].as_str().unwrap()]);
    eventually("its state is unknown", SOON, || (vm.state() == "unknown").then_some(()));
    vm.err("start-vm", json!({}), 409, "wrong_state");
    vm.ok("delete-vm", json!({}));
    assert_eq!(lab.files(), Vec::<String>::new());
}

#[test]
fn a_guest_that_powers_itself_off_is_seen() {
    let lab = Lab::shared();
    let vm = lab.create("itself").start().ready();
    vm.begin("sleep 1; poweroff -f");
    eventually("it is off", SOON, || {
        (lab.ok("list-vms", json!({"name": vm.name}))["vms"][0]["state"] == "shutoff").then_some(())
    });
}
