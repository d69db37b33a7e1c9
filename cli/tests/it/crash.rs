//! The server killed, or failing, at every step of what it does; libvirtd killed under it.

use crate::lab::{Lab, SOON, eventually};
use serde_json::json;
use std::time::{Duration, Instant};

const CREATE: [&str; 6] =
    ["record-vm", "make-system-disk", "write-seed", "define-domain", "start-domain", "make-ready"];
const DELETE: [&str; 5] = ["mark-deleting", "undefine-domain", "delete-system-disk", "delete-seed", "forget-vm"];

fn request(name: &str) -> serde_json::Value {
    json!({"name": name, "template": "tiny", "vcpus": 1, "memory_mib": 64, "start": true})
}

/// No domain, no volume, no seed, no row.
#[track_caller]
pub fn nothing_is_left(lab: &Lab, what: &str) {
    eventually(&format!("nothing is left after {what}: {:?}", lab.files()), SOON, || {
        let rows = lab.ok("list-vms", json!({}))["total"] == 0;
        let volumes = lab.ok("list-volumes", json!({}))["total"] == 0;
        let users = lab.ok("describe-template", json!({"template": "tiny"}))["vms"] == 0;
        let domains = lab.node.virsh(&["list", "--all", "--name"]).is_empty();
        let tasks = lab.ok("list-tasks", json!({"state": "running"}))["total"] == 0
            && lab.ok("list-tasks", json!({"state": "unwinding"}))["total"] == 0;
        (rows && volumes && users && domains && tasks && lab.files().is_empty()).then_some(())
    });
}

#[test]
fn killed_at_every_step_of_create_vm() {
    let mut lab = Lab::own();
    for step in CREATE {
        for point in ["before", "after"] {
            let at = format!("{step}:{point}");
            lab.server.kill_and_restart(&[("VMYARD_CRASH_AT", &at)]);
            assert_eq!(lab.server.call("create-vm", request("phoenix")).status, 0, "killed at {at}");
            lab.server.kill_and_restart(&[]);
            if at == "make-ready:after" {
                // The last write was the commit: the VM is whole.
                let vm = lab.ok("describe-vm", json!({"vm": "phoenix"}));
                assert_eq!(vm["state"], "running");
                let tasks = lab.ok("list-tasks", json!({"method": "create-vm", "limit": 1}));
                let task = lab.ok("describe-task", json!({"task": tasks["tasks"][0]["id"]}));
                assert_eq!((&task["state"], &task["result"]["id"]), (&json!("done"), &vm["id"]), "{task}");
            } else {
                nothing_is_left(&lab, &at);
                // The name can be used again.
                lab.ok("create-vm", request("phoenix"));
            }
            lab.ok("stop-vm", json!({"vm": "phoenix", "force": true}));
            lab.ok("delete-vm", json!({"vm": "phoenix"}));
            nothing_is_left(&lab, &format!("{at} and a second life"));
        }
    }
}

#[test]
fn killed_at_every_step_of_delete_vm() {
    let mut lab = Lab::own();
    for step in DELETE {
        for point in ["before", "after"] {
            let at = format!("{step}:{point}");
            lab.server.kill_and_restart(&[("VMYARD_CRASH_AT", &at)]);
            let vm = lab.ok("create-vm", json!({"name": "mayfly", "template": "tiny", "vcpus": 1, "memory_mib": 64}));
            assert_eq!(lab.server.call("delete-vm", json!({"vm": "mayfly"})).status, 0, "killed at {at}");
            lab.server.kill_and_restart(&[]);
            if at == "mark-deleting:before" {
                // Nothing was changed yet, so nothing is.
                assert_eq!(lab.ok("describe-vm", json!({"vm": vm["id"]}))["state"], "shutoff");
                lab.ok("delete-vm", json!({"vm": "mayfly"}));
            }
            nothing_is_left(&lab, &at);
        }
    }
}

#[test]
fn failing_at_every_step_and_killed_while_unwinding() {
    let mut lab = Lab::own();
    for step in CREATE {
        for point in ["before", "after"] {
            let at = format!("{step}:{point}");
            if at == "make-ready:after" {
                continue;
            }
            lab.server.kill_and_restart(&[("VMYARD_FAIL_AT", &at)]);
            let answer = lab.server.call("create-vm", request("icarus"));
            assert_eq!(answer.body["code"], "unsupported", "{at}: {answer:?}");
            nothing_is_left(&lab, &format!("a failure at {at}"));
        }
    }
    // Killed in the middle of the unwinding: each undo is done, not journalled, and done again.
    for step in &CREATE[..4] {
        let undone = format!("{step}:undone");
        lab.server.kill_and_restart(&[("VMYARD_FAIL_AT", "make-ready:before"), ("VMYARD_CRASH_AT", &undone)]);
        assert_eq!(lab.server.call("create-vm", request("icarus")).status, 0, "killed at {undone}");
        lab.server.kill_and_restart(&[]);
        nothing_is_left(&lab, &format!("a death at {undone}"));
    }
}

#[test]
fn killed_while_registering_a_template() {
    let mut lab = Lab::own();
    let tiny = crate::lab::tiny();
    for step in ["record-template", "open-image", "copy-image", "make-ready"] {
        for point in ["before", "after"] {
            let at = format!("{step}:{point}");
            lab.server.kill_and_restart(&[("VMYARD_CRASH_AT", &at)]);
            assert_eq!(
                lab.server.call("register-template", json!({"name": "second", "file": tiny})).status,
                0,
                "killed at {at}"
            );
            lab.server.kill_and_restart(&[]);
            if at == "make-ready:after" {
                assert_eq!(lab.ok("describe-template", json!({"template": "second"}))["state"], "ready");
            } else {
                eventually("the template is gone", SOON, || {
                    (lab.server.call("describe-template", json!({"template": "second"})).status == 404).then_some(())
                });
                assert_eq!(lab.files(), Vec::<String>::new(), "{at}");
                lab.ok("register-template", json!({"name": "second", "file": tiny}));
            }
            lab.ok("delete-template", json!({"template": "second"}));
            assert_eq!(lab.files(), Vec::<String>::new(), "{at}");
            assert!(!lab.node.virsh(&["pool-list", "--all", "--name"]).contains("lookup"));
        }
    }
}

#[test]
fn libvirtd_restarted_under_a_running_vm() {
    let lab = Lab::own();
    let vm = lab.create("steady").start().ready();
    let qemu = vm.run("cat /proc/sys/kernel/random/boot_id");
    let begun = Instant::now();
    lab.node.command("kill-libvirtd");
    lab.node.command("start-libvirtd");
    // The very next call works: it waits for a connection that was lost less than three seconds ago.
    if begun.elapsed() > Duration::from_secs(1) {
        lab.wait_for_node("local");
    }
    let other = lab.create("next");
    assert_eq!(vm.state(), "running");
    assert_eq!(vm.run("cat /proc/sys/kernel/random/boot_id"), qemu, "the guest was not touched");
    // Events come again: what virsh does is seen.
    lab.node.virsh(&["start", other.created["domain"].as_str().unwrap()]);
    eventually("the start is seen", SOON, || {
        let listed = lab.ok("list-vms", json!({"name": other.name}));
        (listed["vms"][0]["state"] == "running").then_some(())
    });
}

#[test]
fn libvirtd_away_for_a_while() {
    let lab = Lab::own();
    let vm = lab.create("patient");
    lab.node.command("kill-libvirtd");
    let mut quickest = SOON;
    eventually("the list says stale", SOON, || {
        let begun = Instant::now();
        let listed = lab.ok("list-vms", json!({"name": vm.name}));
        quickest = quickest.min(begun.elapsed());
        (listed["vms"][0]["stale"] == true).then_some(())
    });
    assert!(quickest < Duration::from_secs(2), "a list waits for nobody: {quickest:?}");
    let problem = vm.err("start-vm", json!({}), 503, "node_unavailable");
    assert!(problem["hint"].as_str().is_some(), "{problem}");
    lab.err("create-vm", request("unborn"), 503, "node_unavailable");
    assert_eq!(lab.ok("describe-vm", json!({"vm": vm.name}))["stale"], true);
    assert_eq!(lab.ok("describe-node", json!({"node": "local"}))["state"], "down");
    lab.node.command("start-libvirtd");
    eventually("the node is back", SOON, || {
        (lab.ok("list-vms", json!({"name": vm.name}))["vms"][0]["stale"] == false).then_some(())
    });
    vm.start().delete();
    nothing_is_left(&lab, "an outage");
}

#[test]
fn libvirtd_killed_in_the_middle_of_work() {
    let lab = Lab::own();
    for round in 0..4u64 {
        let name = format!("storm-{round}");
        std::thread::scope(|scope| {
            let create = scope.spawn(|| lab.server.call("create-vm", request(&name)));
            std::thread::sleep(Duration::from_millis(30 + 60 * round));
            lab.node.command("kill-libvirtd");
            lab.node.command("start-libvirtd");
            let answer = create.join().unwrap();
            assert!([200, 422, 503, 504].contains(&answer.status), "{answer:?}");
            if answer.status == 200 {
                lab.wait_for_node("local");
                lab.ok("stop-vm", json!({"vm": name, "force": true}));
                lab.ok("delete-vm", json!({"vm": name}));
            }
        });
        nothing_is_left(&lab, &name);
    }
}

#[test]
fn killed_while_a_stop_waits_and_libvirtd_restarted_under_a_reboot() {
    let mut lab = Lab::own();
    let vm =
        lab.ok("create-vm", json!({"name": "held", "template": "tiny", "vcpus": 1, "memory_mib": 128, "start": true}));
    // Paused past Vmyard, the guest hears no button: the stop waits.
    let domain = vm["domain"].as_str().unwrap().to_owned();
    let stop = json!({"vm": "held", "timeout_s": 300, "wait": false});
    let task = lab.server.call("stop-vm", stop).body["task"]["id"].clone();
    lab.node.virsh(&["suspend", &domain]);
    lab.server.kill_and_restart(&[]);
    let ended = eventually("the task has ended", SOON, || {
        let task = lab.ok("describe-task", json!({"task": task}));
        (task["state"] != "running").then_some(task)
    });
    // Unless the guest was quicker than the pause and the kill.
    if lab.ok("describe-vm", json!({"vm": "held"}))["state"] == "paused" {
        assert_eq!(ended["state"], "failed", "{ended}");
        assert!(ended["error"]["detail"].as_str().unwrap().contains("may have happened"), "{ended}");
        lab.ok("stop-vm", json!({"vm": "held", "force": true}));
    }
    lab.ok("start-vm", json!({"vm": "held"}));
    std::thread::scope(|scope| {
        let reboot = scope.spawn(|| lab.server.call("reboot-vm", json!({"vm": "held", "timeout_s": 8})));
        std::thread::sleep(Duration::from_millis(200));
        lab.node.command("kill-libvirtd");
        lab.node.command("start-libvirtd");
        let answer = reboot.join().unwrap();
        assert!([200, 409, 503].contains(&answer.status), "{answer:?}");
    });
    assert_eq!(lab.ok("describe-vm", json!({"vm": "held"}))["state"], "running");
    lab.ok("stop-vm", json!({"vm": "held", "force": true}));
    lab.ok("delete-vm", json!({"vm": "held"}));
    nothing_is_left(&lab, "a stop and a reboot that were cut off");
}
