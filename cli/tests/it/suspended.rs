//! VMs that are suspended with their memory, by `virsh managedsave` or by `libvirt-guests` when their host is shut down: they go on from
//! there with the disks and devices that they had, so nothing of those may change meanwhile.

use crate::{
    crash::nothing_is_left,
    lab::{Lab, SOON, TestVm, eventually},
    snapshots::{agrees, with_data},
};
use serde_json::json;

fn suspend(lab: &Lab, vm: &TestVm<'_>) {
    lab.node.virsh(&["managedsave", vm.created["domain"].as_str().unwrap()]);
    eventually("it is off", SOON, || (vm.state() == "shutoff").then_some(()));
}

#[test]
fn nothing_changes_under_one() {
    let lab = Lab::own();
    let (vm, data) = with_data(&lab, "asleep");
    let other = lab.ok("create-volume", json!({"name": "other", "size_gib": 1}));
    vm.ok("create-snapshot", json!({"name": "old"}));
    let vm = vm.start().ready();
    vm.run("echo in-memory >/tmp/mark");
    suspend(&lab, &vm);
    let before = lab.node.virsh(&["dumpxml", vm.created["domain"].as_str().unwrap()]);
    let files = lab.files();
    let mac = vm.describe()["networks"][0]["mac"].clone();
    let of_vm = [
        ("create-snapshot", json!({"name": "new"})),
        ("revert-to-snapshot", json!({"snapshot": "old"})),
        ("reset-vm-system", json!({})),
        ("attach-volume", json!({"volume": other["id"]})),
        ("detach-volume", json!({"volume": data["id"]})),
        ("attach-network", json!({"network": "default"})),
        ("modify-nic", json!({"mac": mac, "link": "down"})),
        ("detach-network", json!({"mac": mac})),
        ("modify-disk", json!({"device": "vdb", "read_iops": 100})),
        ("attach-iso", json!({"iso": "none.iso"})),
        ("modify-vm-spec", json!({"vcpus": 2})),
        ("modify-vm-spec", json!({"boot_order": ["network", "disk"]})),
    ];
    for (method, body) in of_vm {
        let problem = vm.err(method, body, 409, "wrong_state");
        assert!(problem["detail"].as_str().unwrap().contains("is suspended with its memory"), "{method}: {problem}");
        assert!(problem["hint"].as_str().unwrap().contains("start-vm"), "{method}: {problem}");
    }
    for (method, body) in [
        ("resize-volume", json!({"volume": data["id"], "size_gib": 2})),
        ("clone-volume", json!({"volume": data["id"], "name": "copy"})),
        ("register-template", json!({"volume": data["id"], "name": "copy"})),
    ] {
        let problem = lab.err(method, body, 409, "wrong_state");
        assert!(problem["detail"].as_str().unwrap().contains("is suspended with its memory"), "{method}: {problem}");
    }
    assert_eq!(lab.node.virsh(&["dumpxml", vm.created["domain"].as_str().unwrap()]), before);
    assert_eq!(lab.files(), files);
    // What its guest doesn't see can change. The images below its disks stay.
    vm.ok("modify-vm-spec", json!({"tags": {"kept": "yes"}}));
    let gone = vm.ok("delete-snapshot", json!({"snapshot": "old"}));
    assert!(gone["pending"].as_str().unwrap().contains("suspended with its memory"), "{gone}");

    let vm = vm.start();
    assert_eq!(vm.run("cat /tmp/mark"), "in-memory");
    assert_eq!(vm.describe()["tags"]["kept"], "yes");
    eventually("it is merged", SOON, || (lab.ok("list-snapshots", json!({"vm": vm.id}))["total"] == 0).then_some(()));
    agrees(&lab, &vm.name);
    assert_eq!(vm.run("cat /tmp/mark"), "in-memory");
    // Who drops the memory has an ordinary VM.
    suspend(&lab, &vm);
    lab.node.virsh(&["managedsave-remove", vm.created["domain"].as_str().unwrap()]);
    assert_eq!(vm.ok("modify-vm-spec", json!({"vcpus": 2}))["vm"]["vcpus"], 2);
    let vm = vm.start().ready();
    assert_eq!(vm.run("cat /tmp/mark || echo forgotten"), "forgotten");
    // Who deletes one doesn't want its memory any more.
    suspend(&lab, &vm);
    // A libvirtd that was restarted since doesn't know why it is off.
    lab.node.command("kill-libvirtd");
    lab.node.command("start-libvirtd");
    let told = eventually("it is told to be suspended", SOON, || {
        let told = vm.ok("diagnose-vm", json!({}));
        (told["reason"] == "saved").then_some(told)
    });
    assert!(told["verdict"]["sentence"].as_str().unwrap().contains("suspended with its memory"), "{told}");
    lab.ok("delete-vm", json!({"vm": vm.id, "delete_volumes": true}));
    std::mem::forget(vm);
    lab.ok("delete-volume", json!({"volume": other["id"]}));
    nothing_is_left(&lab, "one that was suspended");
    let saved = lab.node.dir.join("lib/qemu/save");
    let left: Vec<_> = std::fs::read_dir(saved).into_iter().flatten().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}
