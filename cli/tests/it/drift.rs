//! What is changed outside of Vmyard is told in words; what Vmyard changes is not.

use crate::lab::{Lab, SOON, eventually, request};
use serde_json::{Value, json};
use std::{fs, time::Duration};

/// Defines a domain as somebody with an editor does.
fn edit(lab: &Lab, domain: &str, change: impl Fn(String) -> String) {
    let xml = lab.node.virsh(&["dumpxml", "--inactive", "--security-info", domain]);
    let file = lab.dir.path.join("edited.xml");
    let edited = change(xml.clone());
    assert_ne!(edited, xml);
    fs::write(&file, edited).unwrap();
    lab.node.virsh(&["define", file.to_str().unwrap()]);
}

/// 128 MiB become 160.
fn more_memory(xml: String) -> String {
    xml.replace(">131072<", ">163840<")
}

fn changed(lab: &Lab, vm: &str) -> Vec<Value> {
    let listed = lab.ok("list-events", json!({"vm": vm, "kinds": ["vm-changed"], "limit": 1000}));
    listed["events"].as_array().unwrap().clone()
}

#[track_caller]
fn told(lab: &Lab, vm: &str, words: &str) -> Value {
    eventually(&format!("{words:?} is told"), SOON, || {
        changed(lab, vm).into_iter().find(|event| event["message"].as_str().unwrap().contains(words))
    })
}

#[test]
fn in_words() {
    let lab = Lab::own();
    let vm = lab.create("edited");
    let domain = &vm.created["domain"].as_str().unwrap().to_owned();
    edit(&lab, domain, more_memory);
    let event = told(&lab, &vm.name, "memory 128 -> 160 MiB, changed outside Vmyard");
    assert_eq!(event["message"], format!("{}: memory 128 -> 160 MiB, changed outside Vmyard", vm.name));
    let change = json!({"field": "memory_mib", "before": 128, "now": 160});
    assert_eq!(event["details"], json!({"changes": [change], "while_not_running": false}));
    let shown = vm.describe();
    assert_eq!((&shown["memory_mib"], &shown["changed_outside"][0]["event"]), (&json!(160), &event["id"]));
    let (code, text) = lab.server.cli(&["vm", "show", &vm.name]);
    assert!(code == 0 && text.contains("memory 128 -> 160 MiB, changed outside Vmyard"), "{text}");
    let vm = vm.start();
    let mac = vm.created["networks"][0]["mac"].as_str().unwrap().to_owned();
    lab.node.virsh(&["domif-setlink", domain, &mac, "down"]);
    told(&lab, &vm.name, &format!("interface {mac} with its link down, changed outside Vmyard"));
    lab.node.virsh(&["detach-interface", domain, "network", "--mac", &mac, "--live", "--config"]);
    // A guest that hasn't booted doesn't let go of it at once.
    // That is seen by the first look after it, and told a moment later.
    eventually("both tell the same", SOON, || {
        let shown = vm.describe()["changed_outside"].as_array().unwrap().len();
        (shown == changed(&lab, &vm.id).len()).then_some(())
    });
    vm.ok("stop-vm", json!({"force": true}));
    vm.delete();
}

#[test]
fn what_vmyard_changes_is_not_told() {
    let lab = Lab::own();
    let vm = lab.create("ours");
    vm.ok("modify-vm-spec", json!({"memory_mib": 160, "vcpus": 2, "boot_order": ["network", "disk"]}));
    vm.ok("attach-network", json!({"network": "default", "link": "down"}));
    let volume = lab.ok("create-volume", json!({"name": "data", "size_gib": 1}))["id"].clone();
    vm.ok("attach-volume", json!({"volume": volume}));
    vm.ok("create-snapshot", json!({"name": "one"}));
    let vm = vm.start().ready();
    let mac = vm.describe()["networks"][1]["mac"].clone();
    vm.ok("modify-nic", json!({"mac": mac, "link": "up"}));
    vm.ok("detach-network", json!({"mac": mac}));
    vm.ok("create-snapshot", json!({"name": "two", "memory": true}));
    vm.ok("modify-vm-spec", json!({"memory_mib": 192}));
    vm.ok("delete-snapshot", json!({"snapshot": "one"}));
    vm.ok("stop-vm", json!({"force": true}));
    vm.ok("revert-to-snapshot", json!({"snapshot": "two"}));
    vm.ok("stop-vm", json!({"force": true}));
    vm.ok("reset-vm-system", json!({"delete_snapshots": true}));
    vm.ok("detach-volume", json!({"volume": volume}));
    lab.wait_for_tasks();
    let told = changed(&lab, &vm.id);
    assert!(told.is_empty(), "{told:?}");
    vm.delete();
}

#[test]
fn while_no_vmyard_runs() {
    let mut lab = Lab::own();
    let domain = |vm: &Value| vm["domain"].as_str().unwrap().to_owned();
    let one = lab.ok("create-vm", request("one", json!({})));
    let two = lab.ok("create-vm", request("two", json!({})));
    // One that the server was at work on when it died can't be told apart.
    std::thread::sleep(Duration::from_secs(6));
    lab.ok("modify-vm-spec", json!({"vm": "two", "memory_mib": 160}));
    assert!(lab.server.terminate());
    edit(&lab, &domain(&one), more_memory);
    lab.server = crate::lab::Server::start(&lab.dir.path, &[]);
    let event = told(&lab, "one", "memory 128 -> 160 MiB, changed while Vmyard was not running");
    assert_eq!(event["details"]["while_not_running"], true);
    // Once, however often it is started.
    for _ in 0..2 {
        lab.server.kill_and_restart(&[]);
        lab.ok("describe-vm", json!({"vm": "one"}));
    }
    assert_eq!(changed(&lab, "one").len(), 1);
    // What a server that is killed in the middle has changed is no change by others.
    for step in ["change-definition", "record-change"] {
        for point in ["before", "after"] {
            lab.server.kill_and_restart(&[("VMYARD_CRASH_AT", &format!("{step}:{point}"))]);
            let request = json!({"vm": "two", "memory_mib": if point == "before" { 256 } else { 192 }});
            assert_eq!(lab.server.call("modify-vm-spec", request).status, 0);
            lab.server.kill_and_restart(&[]);
            lab.wait_for_tasks();
            lab.ok("describe-vm", json!({"vm": "two"}));
        }
    }
    let told = changed(&lab, "two");
    assert!(told.is_empty(), "{told:?}");
    let _ = domain(&two);
    for vm in ["one", "two"] {
        lab.ok("delete-vm", json!({"vm": vm}));
    }
}

#[test]
fn of_vms_of_others_too() {
    let lab = Lab::own();
    let xml = "<domain type='qemu'><name>theirs</name><memory unit='KiB'>131072</memory><vcpu>1</vcpu>
               <os><type arch='x86_64' machine='q35'>hvm</type></os><devices/></domain>";
    let file = lab.dir.path.join("theirs.xml");
    fs::write(&file, xml).unwrap();
    lab.node.virsh(&["define", file.to_str().unwrap()]);
    eventually("it is listed", SOON, || (lab.ok("list-vms", json!({"name": "theirs"}))["total"] == 1).then_some(()));
    edit(&lab, "theirs", more_memory);
    told(&lab, "theirs", "memory 128 -> 160 MiB, changed outside Vmyard");
    lab.node.virsh(&["undefine", "theirs"]);
}
