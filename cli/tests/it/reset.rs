//! reset-vm-system: the system disk back to its template, all else as it is.

use crate::{
    lab::{Lab, SOON, eventually, tiny},
    snapshots::{agrees, chain, now},
    volumes::{has, write},
};
use serde_json::json;
use std::time::Duration;

#[test]
fn a_system_is_made_anew() {
    let lab = Lab::own();
    lab.ok("register-template", json!({"name": "other", "file": tiny(), "guest_agent": true}));
    let vm = lab.create_with("reset", json!({"disk_gib": 1, "tags": {"a": "b"}, "description": "kept"}));
    let data = lab.ok("create-volume", json!({"name": "data", "size_gib": 1}));
    vm.ok("attach-volume", json!({"volume": "data"}));
    write(&now(&lab, &data), 8, "0", "1M");
    let before = vm.describe();
    let vm = vm.start().ready();
    vm.run("echo old >/root/mark && sync");
    vm.err("reset-vm-system", json!({}), 409, "wrong_state");
    vm.ok("create-snapshot", json!({"name": "old"}));
    vm.ok("stop-vm", json!({"force": true}));
    vm.err("reset-vm-system", json!({"template": "nix"}), 404, "not_found");

    let reset = vm.ok("reset-vm-system", json!({}));
    for field in ["id", "name", "domain", "vcpus", "memory_mib", "tags", "description", "template", "created_at"] {
        assert_eq!(reset[field], before[field], "{field}");
    }
    assert_eq!(reset["networks"][0]["mac"], before["networks"][0]["mac"]);
    assert_eq!(reset["disks"][0]["size_gib"], 1.0);
    assert_eq!(reset["disks"][0]["volume"], before["disks"][0]["volume"]);
    let system = now(&lab, &json!({"id": reset["disks"][0]["volume"]}));
    assert_eq!(chain(&system).len(), 2);
    has(&now(&lab, &data), 8, "0", "1M");
    let logged = vm.serial_log().len();
    vm.ok("start-vm", json!({}));
    eventually("the new system is ready", Duration::from_secs(120), || {
        vm.serial_log()[logged..].contains("tiny: ready").then_some(())
    });
    assert_eq!(vm.run("ls /root/mark 2>/dev/null || echo gone"), "gone");
    vm.ok("stop-vm", json!({"force": true}));

    // A snapshot leads back to the old system.
    vm.ok("revert-to-snapshot", json!({"snapshot": "old"}));
    agrees(&lab, &vm.name);
    let vm = vm.start();
    assert_eq!(vm.run("cat /root/mark"), "old");
    vm.ok("stop-vm", json!({"force": true}));

    // Another template, and without the snapshots.
    let other = lab.ok("describe-template", json!({"template": "other"}));
    let (code, text) = lab.server.cli(&["vm", "reset", &vm.name, "--template", "other", "--snapshots"]);
    assert_eq!((code, text), (0, format!("VM {} is set back to template other\n", vm.name)));
    assert_eq!(lab.ok("list-snapshots", json!({"vm": vm.id}))["total"], 0);
    let system = now(&lab, &json!({"id": before["disks"][0]["volume"]}));
    assert_eq!(system["backing"], other["copies"][0]["path"]);
    assert!(vm.ok("describe-vm-xml", json!({}))["xml"].as_str().unwrap().contains(other["id"].as_str().unwrap()));
    lab.ok("delete-template", json!({"template": "tiny"}));
    lab.err("delete-template", json!({"template": "other"}), 409, "in_use");
    lab.ok("delete-vm", json!({"vm": vm.id, "delete_volumes": true}));
    lab.ok("delete-template", json!({"template": "other"}));
}

#[test]
fn killed_at_every_step_of_a_reset() {
    let mut lab = Lab::own();
    lab.ok("register-template", json!({"name": "other", "file": tiny()}));
    let vm = lab.ok("create-vm", json!({"name": "phoenix", "template": "tiny", "vcpus": 1, "memory_mib": 64}));
    let volume = json!({"id": vm["disks"][0]["volume"]});
    let template =
        |lab: &Lab, name: &str| lab.ok("describe-template", json!({"template": name}))["copies"][0]["path"].clone();
    for step in ["make-overlay", "switch-disks", "change-metadata", "make-ready"] {
        for point in ["before", "after"] {
            let at = format!("{step}:{point}");
            write(&now(&lab, &volume), 7, "0", "64k");
            lab.server.kill_and_restart(&[("VMYARD_CRASH_AT", &at)]);
            let answer = lab.server.call("reset-vm-system", json!({"vm": "phoenix", "template": "other"}));
            assert_eq!(answer.status, 0, "killed at {at}");
            lab.server.kill_and_restart(&[]);
            eventually(&format!("one image is left after {at}: {:?}", lab.files()), SOON, || {
                let open = lab.ok("list-tasks", json!({"state": "unwinding"}))["total"] == 0
                    && lab.ok("list-tasks", json!({"state": "running"}))["total"] == 0;
                let images = lab.files().iter().filter(|file| file.ends_with(".qcow2")).count();
                // The second template's, and the disk.
                (open && images == 2).then_some(())
            });
            agrees(&lab, "phoenix");
            let is_new = at == "make-ready:after";
            let (name, disk) = (if is_new { "other" } else { "tiny" }, now(&lab, &volume));
            assert_eq!(disk["backing"], template(&lab, name), "{at}");
            assert_eq!(lab.ok("describe-vm", json!({"vm": "phoenix"}))["template"], name, "{at}");
            if is_new {
                lab.ok("reset-vm-system", json!({"vm": "phoenix", "template": "tiny"}));
            } else {
                has(&disk, 7, "0", "64k");
            }
        }
    }
    lab.ok("delete-vm", json!({"vm": "phoenix"}));
    lab.ok("delete-template", json!({"template": "other"}));
    crate::crash::nothing_is_left(&lab, "resets");
}
