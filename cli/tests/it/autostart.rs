//! VMs that start with their host.

use crate::{
    crash::nothing_is_left,
    lab::{Lab, SOON, eventually, request},
};
use serde_json::json;
use std::{fs, path::Path};

/// Makes libvirtd think that the host was booted: it has a mark in a directory that is empty after a boot.
fn forget_the_boot(dir: &Path) -> usize {
    let mut found = 0;
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() && !path.is_symlink() {
            found += forget_the_boot(&path);
        } else if entry.file_name() == "autostarted" {
            fs::remove_file(&path).unwrap();
            found += 1;
        }
    }
    found
}

#[test]
fn a_vm_starts_with_its_host() {
    let lab = Lab::own();
    let starts = lab.create_with("starts", json!({"autostart": true}));
    let stays = lab.create("stays");
    assert_eq!((&starts.created["autostart"], &stays.created["autostart"]), (&json!(true), &json!(false)));
    let told = |vm: &str, on: &str| lab.node.virsh(&["dominfo", vm]).contains(&format!("Autostart:      {on}"));
    let domain = |vm: &serde_json::Value| vm["domain"].as_str().unwrap().to_owned();
    let (first, second) = (domain(&starts.created), domain(&stays.created));
    assert!(told(&first, "enable") && told(&second, "disable"));
    // Changed, planned, and back.
    let changed = stays.ok("modify-vm-spec", json!({"autostart": true}));
    assert_eq!((&changed["vm"]["autostart"], &changed["live"]), (&json!(true), &json!(["autostart"])));
    let plan = stays.ok("modify-vm-spec", json!({"autostart": false, "plan": true}));
    assert_eq!(plan["plan"]["steps"][0]["name"], "set-autostart", "{plan}");
    assert!(told(&second, "enable"));
    let (code, text) = lab.server.cli(&["vm", "modify", &stays.name, "--autostart", "false"]);
    assert!(code == 0 && told(&second, "disable"), "{text}");
    // The host is booted.
    lab.node.command("kill-libvirtd");
    assert!(forget_the_boot(&lab.node.dir) > 0);
    lab.node.command("start-libvirtd");
    eventually("it has started", SOON, || (starts.state() == "running").then_some(()));
    assert_eq!(stays.state(), "shutoff");
    // Somebody else changes it.
    lab.node.virsh(&["autostart", &second]);
    eventually("it is told", SOON, || {
        // libvirt has no event for it: a look at the VM finds it, or a scan within a minute.
        stays.describe();
        let events = lab.ok("list-events", json!({"vm": stays.id, "kinds": ["vm-changed"]}));
        events["events"][0]["message"].as_str()?.contains("starts with its host, changed outside Vmyard").then_some(())
    });
    starts.ok("stop-vm", json!({"force": true}));
    starts.delete();
    stays.delete();
}

#[test]
fn killed_at_it() {
    let mut lab = Lab::own();
    for point in ["before", "after"] {
        lab.server.kill_and_restart(&[("VMYARD_CRASH_AT", &format!("set-autostart:{point}"))]);
        assert_eq!(lab.server.call("create-vm", request("made", json!({"autostart": true}))).status, 0);
        lab.server.kill_and_restart(&[]);
        lab.wait_for_tasks();
        nothing_is_left(&lab, point);
    }
    let vm = lab.ok("create-vm", request("changed", json!({})));
    let is_set =
        |lab: &Lab| lab.node.virsh(&["dominfo", vm["domain"].as_str().unwrap()]).contains("Autostart:      enable");
    for (at, set) in [
        ("set-autostart:before", false),
        ("set-autostart:after", false),
        ("record-change:before", false),
        ("record-change:after", true),
    ] {
        lab.server.kill_and_restart(&[("VMYARD_CRASH_AT", at)]);
        let change = json!({"vm": "changed", "autostart": true});
        assert_eq!(lab.server.call("modify-vm-spec", change).status, 0, "{at}");
        lab.server.kill_and_restart(&[]);
        lab.wait_for_tasks();
        assert_eq!(is_set(&lab), set, "{at}");
        eventually("it is shown", SOON, || {
            (lab.ok("describe-vm", json!({"vm": "changed"}))["autostart"] == set).then_some(())
        });
    }
    let told = lab.ok("list-events", json!({"kinds": ["vm-changed"]}));
    assert_eq!(told["total"], 0, "nobody else has changed anything: {told}");
    lab.ok("delete-vm", json!({"vm": "changed"}));
}
