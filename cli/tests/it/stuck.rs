//! Work that takes long on a node, or never ends, keeps nobody else from theirs.

use crate::{
    crash::nothing_is_left,
    lab::{Lab, SOON, TestVm, eventually},
};
use serde_json::{Value, json};
use std::{
    process::Command,
    time::{Duration, Instant},
};

/// QEMUs that hang: half of them in a merge, half in a snapshot with memory, each more than a node has threads of a kind.
const HUNG: usize = 10;

fn signal(vm: &TestVm<'_>, signal: &str) {
    assert!(Command::new("kill").args([signal, &vm.qemu()]).status().unwrap().success());
}

#[test]
fn jobs_of_hung_qemus_keep_nobody() {
    let lab = Lab::own();
    let vms: Vec<_> = (0..HUNG).map(|n| lab.create(&format!("hung{n}")).start()).collect();
    for vm in &vms {
        vm.ok("create-snapshot", json!({"name": "a", "quiesce": "never"}));
        signal(vm, "-STOP");
    }
    let begin = |(n, vm): (usize, &TestVm<'_>)| {
        let (method, mut body) = match n % 2 {
            0 => ("delete-snapshot", json!({"snapshot": "a"})),
            _ => ("create-snapshot", json!({"name": "b", "memory": true})),
        };
        (body["vm"], body["wait"]) = (json!(vm.id), json!(false));
        let begun = lab.server.call(method, body);
        assert_eq!(begun.status, 202, "{begun:?}");
        begun.body["task"]["id"].clone()
    };
    let tasks: Vec<Value> = vms.iter().enumerate().map(begin).collect();
    eventually("they are at work", SOON, || {
        let is_at_work = |task: &Value| {
            let steps = lab.ok("describe-task", json!({"task": task}))["steps"].to_string();
            steps.contains("merge-images") || steps.contains("take-snapshot")
        };
        tasks.iter().all(is_at_work).then_some(())
    });
    let begun = Instant::now();
    let other = lab.create("other").start();
    assert_eq!(other.state(), "running");
    other.ok("create-snapshot", json!({"name": "a", "quiesce": "never"}));
    other.ok("stop-vm", json!({"force": true}));
    other.ok("delete-vm", json!({"delete_snapshots": true}));
    std::mem::forget(other);
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    for vm in &vms {
        signal(vm, "-CONT");
    }
    for task in &tasks {
        let ended = eventually("it ends", SOON, || {
            let task = lab.ok("describe-task", json!({"task": task}));
            (task["state"] != "running").then_some(task)
        });
        assert_eq!(ended["state"], "done", "{ended}");
    }
    for vm in vms {
        lab.ok("stop-vm", json!({"vm": vm.id, "force": true}));
        lab.ok("delete-vm", json!({"vm": vm.id, "delete_snapshots": true}));
        std::mem::forget(vm);
    }
    nothing_is_left(&lab, "jobs of QEMUs that hung");
}
