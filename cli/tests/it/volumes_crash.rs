//! The server killed, or failing, at every step of what it does with volumes.

use crate::{
    crash::nothing_is_left,
    lab::{Lab, eventually},
    volumes::{has, write},
};
use serde_json::{Value, json};
use std::time::Duration;

/// Kills the server at a step of a call, or lets it fail there, and starts it again.
fn cut(lab: &mut Lab, how: &str, at: &str, method: &str, body: Value) {
    lab.server.kill_and_restart(&[(how, at)]);
    let answer = lab.server.call(method, body);
    assert_ne!(answer.status, 200, "{how} {at}: {answer:?}");
    lab.server.kill_and_restart(&[]);
    lab.wait_for_tasks();
}

/// What the store, the definition and the running domain say of who has the volume; panics when they differ.
#[track_caller]
pub fn has_it(lab: &Lab, vm: &Value, path: &str, what: &str) -> bool {
    let domain = vm["domain"].as_str().unwrap();
    let defined = lab.node.virsh(&["dumpxml", "--inactive", domain]).contains(path);
    let live = lab.node.virsh(&["dumpxml", domain]).contains(path);
    let told = lab.ok("describe-volume", json!({"volume": "data"}));
    let shown = lab.ok("describe-vm", json!({"vm": vm["id"]}))["disks"].to_string().contains(path);
    let state = if defined { "attached" } else { "available" };
    assert_eq!((told["state"].as_str().unwrap(), live, shown), (state, defined, defined), "{what}: {told}");
    defined
}

/// Starts the VM `holder`, and waits until its guest is ready.
pub fn start_holder(lab: &Lab, vm: &Value) {
    let log = lab.node.dir.join(format!("pools/seeds/{}.serial.log", vm["id"].as_str().unwrap()));
    let logged = std::fs::metadata(&log).map_or(0, |log| log.len()) as usize;
    lab.ok("start-vm", json!({"vm": "holder"}));
    eventually("the guest is ready", Duration::from_secs(120), || {
        let bytes = std::fs::read(&log).ok()?;
        String::from_utf8_lossy(bytes.get(logged..)?).contains("tiny: ready").then_some(())
    });
}

#[test]
fn killed_at_every_step_of_making_and_deleting() {
    let mut lab = Lab::own();
    let calls = [
        ("create-volume", json!({"name": "blank", "size_gib": 1}), &["record-volume", "make-volume", "make-ready"][..]),
        ("create-volume", json!({"name": "over", "template": "tiny"}), &["record-volume", "make-volume", "make-ready"]),
        (
            "create-volume",
            json!({"name": "copy", "volume": "data", "size_gib": 2}),
            &["record-volume", "copy-volume", "grow-volume", "make-ready"],
        ),
    ];
    for (method, body, steps) in calls {
        for at in steps.iter().flat_map(|step| [format!("{step}:before"), format!("{step}:after")]) {
            for how in ["VMYARD_CRASH_AT", "VMYARD_FAIL_AT"] {
                if how == "VMYARD_FAIL_AT" && at == "make-ready:after" {
                    continue;
                }
                let data = lab.ok("create-volume", json!({"name": "data", "size_gib": 1}));
                write(&data, 3, "0", "1M");
                cut(&mut lab, how, &at, method, body.clone());
                let name = &body["name"];
                if at == "make-ready:after" {
                    let tasks = lab.ok("list-tasks", json!({"method": method, "limit": 1}));
                    let task = lab.ok("describe-task", json!({"task": tasks["tasks"][0]["id"]}));
                    assert_eq!((&task["state"], &task["result"]["name"]), (&json!("done"), name), "{task}");
                    lab.ok("delete-volume", json!({"volume": name}));
                }
                lab.err("describe-volume", json!({"volume": name}), 404, "not_found");
                has(&data, 3, "0", "1M");
                lab.ok("delete-volume", json!({"volume": "data"}));
                nothing_is_left(&lab, &format!("{method} with {how} {at}"));
            }
        }
    }
    for at in ["mark-deleting", "delete-image", "forget-volume"]
        .iter()
        .flat_map(|step| [format!("{step}:before"), format!("{step}:after")])
    {
        let data = lab.ok("create-volume", json!({"name": "data", "size_gib": 1}));
        cut(&mut lab, "VMYARD_CRASH_AT", &at, "delete-volume", json!({"volume": "data"}));
        if at == "mark-deleting:before" {
            assert_eq!(lab.ok("describe-volume", json!({"volume": "data"}))["state"], "available");
            has(&data, 0, "0", "1M");
            lab.ok("delete-volume", json!({"volume": "data"}));
        }
        nothing_is_left(&lab, &format!("delete-volume killed at {at}"));
    }
}

#[test]
fn killed_at_every_step_of_attach_and_detach() {
    let mut lab = Lab::own();
    let data = lab.ok("create-volume", json!({"name": "data", "size_gib": 1}));
    let path = data["path"].as_str().unwrap();
    write(&data, 9, "5M", "1M");
    let request = json!({"name": "holder", "template": "tiny", "vcpus": 1, "memory_mib": 128});
    let vm = lab.ok("create-vm", request);
    let body = json!({"vm": "holder", "volume": "data"});
    for running in [false, true] {
        if running {
            start_holder(&lab, &vm);
        }
        for at in
            ["claim-volume", "attach-disk"].iter().flat_map(|step| [format!("{step}:before"), format!("{step}:after")])
        {
            for how in ["VMYARD_CRASH_AT", "VMYARD_FAIL_AT"] {
                cut(&mut lab, how, &at, "attach-volume", body.clone());
                let attached = has_it(&lab, &vm, path, &format!("attach, {how} {at}, running: {running}"));
                assert_eq!(attached, at == "attach-disk:after", "{at}");
                if attached {
                    lab.ok("detach-volume", body.clone());
                }
                // Whatever was left, it can be attached and detached again.
                lab.ok("attach-volume", body.clone());
                lab.ok("detach-volume", body.clone());
            }
        }
        let steps: &[&str] = match running {
            true => &["mark-detaching", "ask-guest", "update-definition", "release-volume"],
            false => &["mark-detaching", "update-definition", "release-volume"],
        };
        for at in steps.iter().flat_map(|step| [format!("{step}:before"), format!("{step}:after")]) {
            for how in ["VMYARD_CRASH_AT", "VMYARD_FAIL_AT"] {
                lab.ok("attach-volume", body.clone());
                cut(&mut lab, how, &at, "detach-volume", body.clone());
                // A guest that has let go has let go: that is not taken back.
                let what = format!("detach, {how} {at}, running: {running}");
                let let_go = match at.split_once(':').unwrap() {
                    ("mark-detaching", _) | ("ask-guest", "before") => false,
                    ("update-definition", "before") => running,
                    _ => true,
                };
                assert_eq!(has_it(&lab, &vm, path, &what), !let_go, "{what}");
                if !let_go {
                    lab.ok("detach-volume", body.clone());
                }
            }
        }
    }
    lab.ok("stop-vm", json!({"vm": "holder", "force": true}));
    has(&data, 9, "5M", "1M");
    lab.ok("delete-vm", json!({"vm": "holder"}));
    lab.ok("delete-volume", json!({"volume": "data"}));
    nothing_is_left(&lab, "all of it");
}

#[test]
fn killed_while_a_vm_is_deleted_with_its_volumes() {
    let mut lab = Lab::own();
    let steps =
        ["mark-deleting", "undefine-domain", "delete-system-disk", "delete-volumes", "delete-seed", "forget-vm"];
    for at in steps.iter().flat_map(|step| [format!("{step}:before"), format!("{step}:after")]) {
        let vm = lab.ok("create-vm", json!({"name": "mayfly", "template": "tiny", "vcpus": 1, "memory_mib": 64}));
        lab.ok("create-volume", json!({"name": "data", "size_gib": 1}));
        lab.ok("attach-volume", json!({"vm": "mayfly", "volume": "data"}));
        let body = json!({"vm": "mayfly", "delete_volumes": true});
        cut(&mut lab, "VMYARD_CRASH_AT", &at, "delete-vm", body.clone());
        if at == "mark-deleting:before" {
            assert_eq!(lab.ok("describe-vm", json!({"vm": vm["id"]}))["disks"][1]["device"], "vdb");
            assert_eq!(lab.ok("describe-volume", json!({"volume": "data"}))["state"], "attached");
            lab.ok("delete-vm", body);
        }
        nothing_is_left(&lab, &format!("delete-vm with its volumes killed at {at}"));
    }
}

#[test]
fn killed_while_something_is_made_of_a_snapshot() {
    let mut lab = Lab::own();
    let vm = lab.ok("create-vm", json!({"name": "model", "template": "tiny", "vcpus": 1, "memory_mib": 64}));
    lab.ok("create-snapshot", json!({"vm": "model", "name": "golden"}));
    let of = json!({"vm": "model", "snapshot": "golden", "name": "made"});
    let mut own = of.clone();
    own["independent"] = json!(true);
    let calls = [
        ("create-volume", "describe-volume", of.clone(), &["record-volume", "make-volume", "make-ready"][..]),
        (
            "register-template",
            "describe-template",
            of,
            &["record-template", "make-overlay", "flatten-image", "copy-image", "delete-overlay", "make-ready"],
        ),
        (
            "create-vm-from-snapshot",
            "describe-vm",
            own,
            &["record-vm", "make-system-disk", "make-independent", "define-domain", "make-ready"],
        ),
    ];
    let before = lab.files();
    for (method, describe, body, steps) in calls {
        let object = describe.trim_start_matches("describe-");
        for at in steps.iter().flat_map(|step| [format!("{step}:before"), format!("{step}:after")]) {
            cut(&mut lab, "VMYARD_CRASH_AT", &at, method, body.clone());
            if at == "make-ready:after" {
                let made = lab.ok(describe, json!({object: "made"}));
                let tasks = lab.ok("list-tasks", json!({"method": method, "limit": 1}));
                let task = lab.ok("describe-task", json!({"task": tasks["tasks"][0]["id"]}));
                assert_eq!((&task["state"], &task["result"]["id"]), (&json!("done"), &made["id"]), "{task}");
                lab.ok(&format!("delete-{object}"), json!({object: "made"}));
            }
            lab.err(describe, json!({object: "made"}), 404, "not_found");
            assert_eq!(lab.files(), before, "{method} killed at {at}");
        }
    }
    // Nothing holds the snapshot any more.
    let gone = lab.ok("delete-snapshot", json!({"vm": vm["id"], "snapshot": "golden"}));
    assert_eq!(gone["pending"], Value::Null, "{gone}");
    lab.ok("delete-vm", json!({"vm": "model"}));
    nothing_is_left(&lab, "what was made of a snapshot");
}
