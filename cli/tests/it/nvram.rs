//! The variables of UEFI VMs in snapshots.

use crate::{
    lab::{Lab, SOON, eventually},
    random::register_blank,
};
use serde_json::{Value, json};
use std::{fs, path::PathBuf};

fn nvram(lab: &Lab, id: &Value) -> PathBuf {
    lab.node.dir.join(format!("pools/default/{}.nvram.fd", id.as_str().unwrap()))
}

/// Marks the variables as a guest does that changes them. Behind the last one there is room.
fn mark(lab: &Lab, vm: &Value, mark: u8) {
    let mut bytes = fs::read(nvram(lab, vm)).unwrap();
    *bytes.last_mut().unwrap() = mark;
    fs::write(nvram(lab, vm), bytes).unwrap();
}

fn marked(lab: &Lab, vm: &Value) -> Option<u8> {
    fs::read(nvram(lab, vm)).ok().map(|bytes| *bytes.last().unwrap())
}

/// All files of the kind in the pool.
fn files(lab: &Lab) -> usize {
    lab.files().iter().filter(|file| file.ends_with(".nvram.fd")).count()
}

/// A UEFI VM whose disk has nothing to boot.
fn uefi(lab: &Lab) -> Value {
    register_blank(lab);
    let request = json!({"name": "modern", "template": "blank", "vcpus": 1, "memory_mib": 128, "firmware": "uefi"});
    lab.ok("create-vm", request)["id"].clone()
}

#[test]
fn they_come_back_with_the_disks() {
    let lab = Lab::own();
    let vm = uefi(&lab);
    let with = |mut body: Value| {
        body["vm"] = vm.clone();
        body
    };
    lab.ok("create-snapshot", with(json!({"name": "unborn"})));
    lab.ok("start-vm", with(json!({})));
    lab.ok("create-snapshot", with(json!({"name": "awake", "memory": true})));
    lab.ok("stop-vm", with(json!({"force": true})));
    mark(&lab, &vm, 1);
    lab.ok("create-snapshot", with(json!({"name": "one"})));
    mark(&lab, &vm, 2);
    lab.ok("revert-to-snapshot", with(json!({"snapshot": "one", "backup": "two"})));
    assert_eq!(marked(&lab, &vm), Some(1));
    lab.ok("revert-to-snapshot", with(json!({"snapshot": "two"})));
    assert_eq!(marked(&lab, &vm), Some(2));
    // One that resumes has what QEMU had then.
    assert_eq!(lab.ok("revert-to-snapshot", with(json!({"snapshot": "awake"})))["vm"]["state"], "running");
    assert_eq!(marked(&lab, &vm), Some(0xff));
    lab.ok("stop-vm", with(json!({"force": true})));
    // A VM that had never been started had none: the next start makes new ones.
    lab.ok("revert-to-snapshot", with(json!({"snapshot": "unborn"})));
    assert_eq!(marked(&lab, &vm), None);
    lab.ok("start-vm", with(json!({})));
    lab.ok("stop-vm", with(json!({"force": true})));
    assert_eq!(marked(&lab, &vm), Some(0xff));
    // A VM of a snapshot has them too, and its own from then on.
    let child = lab.ok("create-vm-from-snapshot", with(json!({"snapshot": "two", "name": "child", "start": true})));
    assert_eq!((marked(&lab, &child["id"]), &child["state"]), (Some(2), &json!("running")));
    assert_eq!(lab.ok("list-orphans", json!({}))["total"], 0);
    lab.ok("stop-vm", json!({"vm": "child", "force": true}));
    lab.ok("delete-vm", json!({"vm": "child"}));
    // They go with their snapshots and their VM.
    eventually("what reverts have kept is gone", SOON, || (files(&lab) == 4).then_some(()));
    lab.ok("delete-snapshot", with(json!({"snapshot": "two"})));
    eventually("the copy is gone", SOON, || (files(&lab) == 3).then_some(()));
    lab.ok("delete-vm", with(json!({"delete_snapshots": true})));
    lab.ok("delete-template", json!({"template": "blank"}));
    crate::crash::nothing_is_left(&lab, "all of it");
}

#[test]
fn killed_while_they_are_kept_and_put_back() {
    let mut lab = Lab::own();
    let vm = uefi(&lab);
    lab.ok("start-vm", json!({"vm": vm}));
    lab.ok("stop-vm", json!({"vm": vm, "force": true}));
    let take = json!({"vm": vm, "name": "one"});
    mark(&lab, &vm, 1);
    for (method, body, steps) in [
        ("create-snapshot", &take, &["copy-nvram", "take-snapshot"][..]),
        ("revert-to-snapshot", &json!({"vm": vm, "snapshot": "one"}), &["keep-nvram", "restore-nvram", "switch-disks"]),
    ] {
        for step in steps {
            for (how, point) in [
                ("VMYARD_CRASH_AT", "before"),
                ("VMYARD_CRASH_AT", "after"),
                ("VMYARD_FAIL_AT", "after"),
                ("VMYARD_CRASH_AT", "undone"),
            ] {
                let (at, before) = (format!("{step}:{point}"), files(&lab));
                // It is undone only where something fails.
                let fail = format!("{step}:after");
                let env: &[(&str, &str)] = match point {
                    "undone" => &[(how, &at), ("VMYARD_FAIL_AT", &fail)],
                    _ => &[(how, &at)],
                };
                lab.server.kill_and_restart(env);
                let answer = lab.server.call(method, body.clone());
                assert!(answer.status != 200 || at == "take-snapshot:after", "{at}: {answer:?}");
                lab.server.kill_and_restart(&[]);
                lab.wait_for_tasks();
                if method == "create-snapshot" && lab.ok("list-snapshots", json!({"vm": vm}))["total"] != 0 {
                    // It was taken all the same.
                    lab.ok("delete-snapshot", json!({"vm": vm, "snapshot": "one"}));
                }
                assert_eq!(
                    marked(&lab, &vm),
                    Some(if method == "create-snapshot" { 1 } else { 2 }),
                    "{method} {how} {at}"
                );
                let what = format!("{method} {how} {at} leaves no file: {:?}", lab.files());
                eventually(&what, SOON, || (files(&lab) == before).then_some(()));
            }
        }
        if method == "create-snapshot" {
            lab.ok(method, body.clone());
            mark(&lab, &vm, 2);
        } else {
            lab.ok(method, body.clone());
            assert_eq!(marked(&lab, &vm), Some(1));
        }
    }
}
