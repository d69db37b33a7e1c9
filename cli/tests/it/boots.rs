//! A guest boots, and has its files, after each operation on its disks whose server was killed in the middle of it.

use crate::{
    lab::{Lab, SOON, TestVm, eventually},
    snapshots::agrees,
    snapshots_crash::scene::POINTS,
};
use serde_json::{Value, json};

struct Operation {
    method: &'static str,
    body: Value,
    steps: &'static [&'static str],
    /// The moment of those that is always tried.
    one: &'static str,
}

fn operations() -> [Operation; 6] {
    let operation = |method, body, steps, one| Operation { method, body, steps, one };
    let volume = || json!({"vm": "guest", "volume": "data"});
    let base = || json!({"vm": "guest", "snapshot": "base"});
    [
        operation(
            "create-snapshot",
            json!({"vm": "guest", "name": "one"}),
            &["record-snapshot", "make-overlay", "take-snapshot", "make-ready"],
            "take-snapshot:after",
        ),
        operation(
            "revert-to-snapshot",
            base(),
            &["make-overlay", "switch-disks", "record-revert"],
            "switch-disks:after",
        ),
        operation(
            "reset-vm-system",
            json!({"vm": "guest"}),
            &["make-overlay", "switch-disks", "make-ready"],
            "switch-disks:after",
        ),
        operation("attach-volume", volume(), &["claim-volume", "attach-disk"], "attach-disk:before"),
        operation(
            "detach-volume",
            volume(),
            &["mark-detaching", "update-definition", "release-volume"],
            "update-definition:before",
        ),
        operation("delete-snapshot", base(), &["mark-deleting", "merge-images", "delete-images"], "merge-images:after"),
    ]
}

/// Runs a line in the guest, which is started for it as soon as a deletion that was cut off has gone on.
fn in_guest(lab: &Lab, line: &str) -> String {
    let started = eventually("nobody is at work on it", SOON, || {
        let answer = lab.server.call("start-vm", json!({"vm": "guest"}));
        assert!(answer.status == 200 || answer.body["code"] == "busy", "{answer:?}");
        (answer.status == 200).then_some(answer.body)
    });
    let vm = TestVm::new(lab, started);
    let said = vm.run(line);
    lab.ok("stop-vm", json!({"vm": "guest", "force": true}));
    std::mem::forget(vm);
    said
}

/// Makes what the operation needs; what is there already stays.
fn prepare(lab: &Lab, method: &str) {
    let has = |method: &str, field: &str, of: Value| lab.ok(method, of)[field].as_array().unwrap().len();
    if has("list-snapshots", "snapshots", json!({"vm": "guest"})) == 0 && method != "create-snapshot" {
        lab.ok("create-snapshot", json!({"vm": "guest", "name": "base"}));
    }
    let attached = lab.ok("describe-volume", json!({"volume": "data"}))["state"] == "attached";
    let wanted = method == "detach-volume";
    let change = if wanted { "attach-volume" } else { "detach-volume" };
    if wanted != attached && (wanted || method == "attach-volume") {
        lab.ok(change, json!({"vm": "guest", "volume": "data"}));
    }
}

fn boots(all: bool) {
    let mut lab = Lab::own();
    lab.ok("create-vm", json!({"name": "guest", "template": "tiny", "vcpus": 1, "memory_mib": 128}));
    lab.ok("create-volume", json!({"name": "data", "size_gib": 1}));
    in_guest(&lab, "echo kept >/root/mark && sync");
    for Operation { method, body, steps, one } in operations() {
        let moments = steps.iter().flat_map(|step| POINTS.map(|point| format!("{step}:{point}")));
        for at in moments.filter(|at| all || at == one) {
            let what = format!("{method} killed at {at}");
            prepare(&lab, method);
            lab.server.kill_and_restart(&[("VMYARD_CRASH_AT", &at)]);
            assert_eq!(lab.server.call(method, body.clone()).status, 0, "{what}");
            lab.server.kill_and_restart(&[]);
            lab.wait_for_tasks();
            let tasks = lab.ok("list-tasks", json!({"method": method, "limit": 1}));
            let done = lab.ok("describe-task", json!({"task": tasks["tasks"][0]["id"]}))["state"] == "done";
            let wanted = if method == "reset-vm-system" && done { "none" } else { "kept" };
            assert_eq!(in_guest(&lab, "cat /root/mark 2>/dev/null || echo none"), wanted, "{what}");
            agrees(&lab, "guest");
            match method {
                "create-snapshot" if done => lab.ok("delete-snapshot", json!({"vm": "guest", "snapshot": "one"})),
                "reset-vm-system" if done => lab.ok("revert-to-snapshot", json!({"vm": "guest", "snapshot": "base"})),
                _ => Value::Null,
            };
        }
    }
}

#[test]
fn a_guest_boots_after_each_operation_that_was_cut_off() {
    boots(false);
}

#[test]
#[ignore = "all moments: minutes"]
fn a_guest_boots_after_each_operation_that_was_cut_off_at_every_moment() {
    boots(true);
}
