//! Tasks: describe-task, list-tasks, cancel-task, `wait: false`, locks, a graceful stop.

use crate::lab::{Lab, SOON, eventually, large_image};
use serde_json::{Value, json};

#[test]
fn a_call_that_does_not_wait() {
    let lab = Lab::shared();
    let name = lab.name("later");
    let answer = lab
        .server
        .call("create-vm", json!({"name": name, "template": "tiny", "vcpus": 1, "memory_mib": 64, "wait": false}));
    assert_eq!(answer.status, 202, "{answer:?}");
    let task = &answer.body["task"];
    assert_eq!((&task["method"], &task["target"]["name"]), (&json!("create-vm"), &json!(name)));
    let done = eventually("the task is done", SOON, || {
        let task = lab.ok("describe-task", json!({"task": task["id"]}));
        (task["state"] == "done").then_some(task)
    });
    assert_eq!(done["result"]["name"], name);
    assert_eq!(done["caller"], "admin");
    let steps: Vec<_> = done["steps"].as_array().unwrap().iter().map(|step| step["name"].as_str().unwrap()).collect();
    assert_eq!(steps, ["record-vm", "make-system-disk", "write-seed", "define-domain", "make-ready"]);
    let listed = lab.ok("list-tasks", json!({"target": done["target"]["id"]}));
    assert_eq!((&listed["total"], &listed["tasks"][0]["id"]), (&json!(1), &done["id"]));
    lab.ok("delete-vm", json!({"vm": name}));
    lab.err("describe-task", json!({"task": "6f1f3c1e-8a0b-4a7e-9d55-000000000001"}), 404, "not_found");
    lab.err("describe-task", json!({"task": "no-uuid"}), 400, "invalid");
}

#[test]
fn a_task_that_failed_says_why_and_what_was_undone() {
    let lab = Lab::own();
    // The pool's directory goes away between the check and the step.
    let vm = lab.create("witness");
    let default = lab.node.dir.join("pools/default");
    std::fs::rename(&default, lab.node.dir.join("pools/away")).unwrap();
    let problem = lab.err(
        "create-vm",
        json!({"name": "doomed", "template": "tiny", "vcpus": 1, "memory_mib": 64}),
        422,
        "unsupported",
    );
    assert!(problem["detail"].as_str().unwrap().contains("make volume"), "{problem}");
    assert_eq!(lab.ok("describe-task", json!({"task": problem["task"]}))["target"]["name"], "doomed");
    std::fs::rename(lab.node.dir.join("pools/away"), &default).unwrap();
    let task = eventually("the task is unwound", SOON, || {
        let tasks = lab.ok("list-tasks", json!({"state": "failed"}));
        tasks["tasks"].get(0).cloned()
    });
    let task = lab.ok("describe-task", json!({"task": task["id"]}));
    assert_eq!(task["error"]["code"], "unsupported");
    assert!(task["steps"].as_array().unwrap().iter().all(|step| step["state"] == "undone"), "{task}");
    lab.err("describe-vm", json!({"vm": "doomed"}), 404, "not_found");
    vm.delete();
}

#[test]
fn two_tasks_do_not_work_on_one_vm() {
    let lab = Lab::shared();
    let vm = lab.create("locked").start();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| lab.server.call("stop-vm", json!({"vm": vm.id, "timeout_s": 60})));
        let task = eventually("the stop is at work", SOON, || {
            let tasks = lab.ok("list-tasks", json!({"target": vm.id, "method": "stop-vm"}));
            tasks["tasks"].get(0).cloned()
        });
        let answer = lab.server.call("delete-vm", json!({"vm": vm.id}));
        // Unless the guest was quicker.
        if answer.status != 200 {
            assert_eq!((answer.body["code"].as_str(), &answer.body["task"]), (Some("busy"), &task["id"]), "{answer:?}");
        }
        waiting.join().unwrap();
    });
}

#[test]
fn a_stop_of_the_server_waits_for_its_tasks() {
    let mut lab = Lab::own();
    let request =
        json!({"name": "last", "template": "tiny", "vcpus": 1, "memory_mib": 64, "start": true, "wait": false});
    assert_eq!(lab.server.call("create-vm", request).status, 202);
    assert!(lab.server.terminate(), "it ends well");
    lab.server.kill_and_restart(&[]);
    assert_eq!(lab.ok("describe-vm", json!({"vm": "last"}))["state"], "running");
    assert_eq!(lab.ok("list-tasks", json!({"method": "create-vm"}))["tasks"][0]["state"], "done");
}

#[test]
fn a_call_under_a_client_token_is_done_once() {
    let lab = Lab::own();
    let request = json!({"name": "once", "template": "tiny", "vcpus": 1, "memory_mib": 64, "client_token": "t-1"});
    let answers: Vec<_> = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..8).map(|_| scope.spawn(|| lab.server.call("create-vm", request.clone()))).collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    assert!(answers.iter().all(|answer| answer.status == 200 && answer.body == answers[0].body), "{answers:?}");
    assert_eq!(lab.ok("list-tasks", json!({"method": "create-vm"}))["total"], 1);
    // The answer is the first one, whatever has become of the VM.
    lab.ok("delete-vm", json!({"vm": "once", "client_token": "t-1"}));
    assert_eq!(lab.ok("create-vm", request.clone())["id"], answers[0].body["id"]);
    assert_eq!(lab.ok("list-vms", json!({}))["total"], 0);

    let mut other = request.clone();
    other["vcpus"] = json!(2);
    lab.err("create-vm", other, 409, "token_reused");
    // What was refused before it became a task may be tried again under its token.
    let mut bad = request.clone();
    bad["client_token"] = json!("t-2");
    bad["template"] = json!("nix");
    lab.err("create-vm", bad.clone(), 404, "not_found");
    bad["template"] = json!("tiny");
    lab.ok("create-vm", bad);
    // Not waited for, asked again: the same task.
    let mut later = request;
    later["client_token"] = json!("t-3");
    later["name"] = json!("later");
    later["wait"] = json!(false);
    let (first, second) = (lab.server.call("create-vm", later.clone()), lab.server.call("create-vm", later));
    assert_eq!(first.status, 202);
    let id = |answer: &crate::lab::Answer| match answer.status {
        202 => answer.body["task"]["target"]["id"].clone(),
        _ => answer.body["id"].clone(),
    };
    assert_eq!(id(&first), id(&second));
    lab.err("start-vm", json!({"vm": "later", "client_token": ""}), 400, "invalid");
}

#[test]
fn a_wait_for_a_guest_can_be_cancelled() {
    let lab = Lab::shared();
    let vm = lab.create("patient").deaf().start();
    std::thread::scope(|scope| {
        let stop = scope.spawn(|| lab.server.call("stop-vm", json!({"vm": vm.id, "timeout_s": 120})));
        let task = running(&lab, "stop-vm", &vm.id);
        let cancelled = lab.ok("cancel-task", json!({"task": task}));
        assert_eq!((&cancelled["id"], &cancelled["state"]), (&task, &json!("failed")), "{cancelled}");
        let answer = stop.join().unwrap();
        assert_eq!((answer.status, &answer.body["code"]), (409, &json!("wrong_state")), "{answer:?}");
        assert!(answer.body["detail"].as_str().unwrap().contains("cancelled"), "{answer:?}");
        let problem = lab.err("cancel-task", json!({"task": task}), 409, "wrong_state");
        assert!(problem["detail"].as_str().unwrap().contains("has ended"), "{problem}");
    });
    // The VM goes on, and its lock is free.
    assert_eq!(lab.ok("describe-vm", json!({"vm": vm.id}))["state"], "running");
    lab.ok("stop-vm", json!({"vm": vm.id, "force": true}));
    vm.delete();
    lab.err("cancel-task", json!({"task": "6f1f3c1e-8a0b-4a7e-9d55-000000000001"}), 404, "not_found");
    lab.err("cancel-task", json!({"task": "x"}), 400, "invalid");
}

#[test]
fn a_copy_of_bytes_can_be_cancelled() {
    let lab = Lab::own();
    let image = lab.node.dir.join("large.raw");
    large_image(&image, 2 << 30);
    let request = json!({"name": "large", "file": image, "os": "linux", "wait": false});
    let answer = lab.server.call("register-template", request);
    assert_eq!(answer.status, 202, "{answer:?}");
    let task = &answer.body["task"]["id"];
    eventually("bytes are copied", SOON, || {
        let task = lab.ok("describe-task", json!({"task": task}));
        (task["steps"].as_array().unwrap().len() == 3).then_some(())
    });
    let cancelled = lab.ok("cancel-task", json!({"task": task}));
    assert_eq!(cancelled["state"], "failed", "{cancelled}");
    assert!(cancelled["error"]["detail"].as_str().unwrap().contains("cancelled"), "{cancelled}");
    assert!(cancelled["steps"].as_array().unwrap().iter().all(|step| step["state"] == "undone"), "{cancelled}");
    lab.err("describe-template", json!({"template": "large"}), 404, "not_found");
    assert!(!lab.files().iter().any(|file| file.contains("raw") && !file.contains("large")), "{:?}", lab.files());
}

#[test]
fn a_cancelled_task_never_ends_well() {
    let lab = Lab::shared();
    let vm = lab.create("contested");
    for _ in 0..5 {
        let answer = lab.server.call("start-vm", json!({"vm": vm.id, "wait": false}));
        let task = &answer.body["task"]["id"];
        let cancel = lab.server.call("cancel-task", json!({"task": task}));
        let task = eventually("the start has ended", SOON, || {
            let task = lab.ok("describe-task", json!({"task": task}));
            (task["finished_at"] != json!(null)).then_some(task)
        });
        let power = if task["state"] == "done" { "running" } else { "shutoff" };
        assert_eq!(vm.state(), power, "{task}");
        match cancel.status {
            200 => assert_eq!((&cancel.body["state"], power), (&json!("failed"), "shutoff"), "{cancel:?}"),
            _ => assert_eq!((&cancel.body["code"], power), (&json!("wrong_state"), "running"), "{cancel:?}"),
        }
        if power == "running" {
            lab.ok("stop-vm", json!({"vm": vm.id, "force": true}));
        }
    }
    vm.delete();
}

/// A cancel-task is a task itself, and may be cancelled while it waits; when it no longer waits, it is too late.
#[test]
fn nor_does_a_cancelled_cancel_task() {
    let lab = Lab::own();
    let vm = lab.create("undecided").deaf().start();
    let begin = |method: &str, body: Value| {
        let answer = lab.server.call(method, body);
        assert_eq!(answer.status, 202, "{answer:?}");
        answer.body["task"]["id"].clone()
    };
    for round in 0..20 {
        let stop = begin("stop-vm", json!({"vm": vm.id, "timeout_s": 60, "wait": false}));
        let first = begin("cancel-task", json!({"task": stop, "wait": false}));
        std::thread::sleep(std::time::Duration::from_millis(round % 5));
        let second = lab.server.call("cancel-task", json!({"task": first}));
        match second.status {
            200 => assert_eq!(second.body["state"], "failed", "{second:?}"),
            _ => assert_eq!(second.body["code"], "wrong_state", "{second:?}"),
        }
        // Whether or not it was waited for: the stop was told.
        lab.wait_for_tasks();
        assert_eq!(lab.ok("describe-task", json!({"task": stop}))["state"], "failed");
    }
    vm.ok("stop-vm", json!({"force": true}));
}

/// The task of this method that is at work on a VM.
fn running(lab: &Lab, method: &str, vm: &str) -> serde_json::Value {
    eventually("the task is at work", SOON, || {
        let tasks = lab.ok("list-tasks", json!({"target": vm, "method": method, "state": "running"}));
        let task = tasks["tasks"].get(0)?["id"].clone();
        let begun = lab.ok("describe-task", json!({"task": task}))["steps"].as_array().is_some_and(|s| !s.is_empty());
        begun.then_some(task)
    })
}
