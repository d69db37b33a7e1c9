//! reset-vm-password by virt-customize: where it can't be, and, where it is installed, in the image of the tiny guest.

use crate::lab::{Lab, TestVm, eventually};
use serde_json::{Value, json};
use std::{env, time::Duration};

pub fn is_installed() -> bool {
    let paths = env::var_os("PATH").unwrap();
    env::split_paths(&paths).any(|folder| folder.join("virt-customize").exists())
}

/// A VM without a seed, so that nothing else will do.
pub fn bare(lab: &Lab) -> TestVm<'_> {
    lab.ok("register-template", json!({"name": "bare", "file": crate::lab::tiny(), "cloud_init": false}));
    TestVm::new(lab, lab.ok("create-vm", json!({"name": "bare", "template": "bare", "vcpus": 1, "memory_mib": 128})))
}

#[test]
fn where_it_can_not_be() {
    let mut lab = Lab::own();
    drop(bare(&lab));
    lab.ok("create-vm", json!({"name": "off", "template": "bare", "vcpus": 1, "memory_mib": 128}));
    let reset = json!({"vm": "off", "user": "tiny", "method": "virt-customize"});
    lab.server.kill_and_restart(&[("PATH", "/nonexistent")]);
    let problem = lab.err("reset-vm-password", reset.clone(), 422, "unsupported");
    assert!(problem["detail"].as_str().unwrap().contains("guestfs-tools"), "{problem}");
    let problem = lab.err("reset-vm-password", json!({"vm": "off", "user": "tiny"}), 422, "unsupported");
    let detail = problem["detail"].as_str().unwrap();
    for method in ["guest-agent: ", "cloud-init: ", "virt-customize: "] {
        assert!(detail.contains(method), "{problem}");
    }
    lab.server.kill_and_restart(&[]);
    lab.ok("start-vm", json!({"vm": "off"}));
    let problem = lab.err("reset-vm-password", reset, 409, "wrong_state");
    assert!(problem["hint"].as_str().unwrap().contains("stop-vm"), "{problem}");

    // On another machine that isn't reached by ssh it isn't tried.
    let lab = Lab::remote();
    let vm = bare(&lab);
    let problem = vm.err("reset-vm-password", json!({"user": "tiny", "method": "virt-customize"}), 422, "unsupported");
    assert!(problem["detail"].as_str().unwrap().contains("reached by ssh"), "{problem}");
}

/// A call that may take longer than the server waits; its task.
pub fn finished(vm: &TestVm<'_>, method: &str, mut body: Value) -> Value {
    (body["vm"], body["wait"]) = (json!(vm.id), json!(false));
    let task = vm.lab.server.call(method, body).body["task"]["id"].clone();
    eventually(&format!("{method} has ended"), Duration::from_secs(1800), || {
        let task = vm.lab.ok("describe-task", json!({"task": task}));
        (task["state"] == "done" || task["state"] == "failed").then_some(task)
    })
}

#[test]
fn in_the_image() {
    if !is_installed() {
        return;
    }
    let lab = Lab::own();
    let vm = bare(&lab);
    let template = lab.ok("describe-template", json!({"template": "bare"}))["copies"][0]["path"].clone();
    let bytes = || std::fs::read(template.as_str().unwrap()).unwrap();
    let before = bytes();
    let reset = finished(&vm, "reset-vm-password", json!({"user": "bob"}));
    assert_eq!(reset["error"]["code"], "not_found", "{reset}");
    let reset = finished(&vm, "reset-vm-password", json!({"user": "tiny", "password": "offline '$6$' 1"}));
    let reset = &reset["result"];
    assert_eq!((&reset["method"], &reset["verified"]), (&json!("virt-customize"), &json!(true)));
    let skipped: Vec<&Value> = reset["tried"].as_array().unwrap().iter().map(|one| &one["outcome"]).collect();
    assert_eq!(skipped, ["skipped", "skipped", "applied"]);
    assert!(bytes() == before, "the template is as it was");
    let vm = vm.start().ready();
    assert!(vm.serial_login("tiny", "offline '$6$' 1"));
    lab.nowhere(&["offline '$6$' 1"]);
}
