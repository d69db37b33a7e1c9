//! The server killed, or failing, at every step of what it does with snapshots; libvirtd and QEMU killed under it.
//!
//! The guests have nothing to boot: what a guest would write to a running disk is written through its QEMU.

mod behind;
pub mod scene;

use crate::{
    crash::nothing_is_left,
    lab::{Lab, eventually},
};
use scene::{HOWS, POINTS, Scene, TREE};
use serde_json::json;
use std::time::Duration;

/// The moments of these steps at which the server is cut off: all of them, or those that matter most.
fn moments(steps: &[&str], all: bool) -> Vec<(&'static str, String)> {
    let mut moments = Vec::new();
    for step in steps {
        for point in POINTS {
            for how in HOWS {
                // What is before a step is after the one before; only the last step's two sides differ always.
                if all || how == HOWS[0] && (point == "after" || *step == "make-ready") {
                    moments.push((how, format!("{step}:{point}")));
                }
            }
        }
    }
    moments
}

/// Whether a snapshot that was cut off there is whole.
fn is_taken(at: &str) -> bool {
    at == "take-snapshot:after" || at.starts_with("make-ready")
}

fn cut_create(all: bool) {
    let mut lab = Lab::own();
    let mut scene = Scene::new(&mut lab);
    for (on, memory) in [(false, false), (true, false), (true, true)] {
        if on && !scene.on {
            scene.start();
        }
        let mut steps = vec!["record-snapshot", "make-overlay", "take-snapshot", "make-ready"];
        steps.extend(memory.then_some("keep-memory"));
        for (how, at) in moments(&steps, all) {
            let what = format!("{how} {at}, on: {on}, memory: {memory}");
            scene.write(1);
            let body = json!({"vm": "scene", "name": "one", "memory": memory});
            let done = scene.cut(how, &at, "create-snapshot", body.clone());
            assert_eq!(done, is_taken(&at), "{what}");
            scene.agrees(&what);
            scene.has(1, &what);
            if !done {
                assert!(scene.names().is_empty(), "{what}");
                scene.lab.ok("create-snapshot", body);
            }
            scene.write(2);
            assert_eq!(scene.names(), ["one"], "{what}");
            scene.agrees(&what);
            scene.snapshot_has("one", 1, &what);
            scene.has(2, &what);
            if memory && at.starts_with("take-snapshot") {
                scene.stop();
                scene.lab.ok("revert-to-snapshot", json!({"vm": "scene", "snapshot": "one"}));
                scene.on = true;
                scene.has(1, &what);
            }
            let gone = scene.lab.ok("delete-snapshot", json!({"vm": "scene", "snapshot": "one"}));
            assert!(gone["pending"].is_null(), "{what}: {gone}");
            scene.agrees(&what);
        }
    }
    scene.end();
}

#[test]
fn killed_while_taking() {
    cut_create(false);
}

#[test]
#[ignore = "all moments: minutes"]
fn killed_while_taking_at_every_moment() {
    cut_create(true);
}

fn cut_revert(all: bool) {
    let mut lab = Lab::own();
    let mut scene = Scene::new(&mut lab);
    scene.write(1);
    scene.lab.ok("create-snapshot", json!({"vm": "scene", "name": "plain"}));
    scene.start();
    scene.lab.ok("create-snapshot", json!({"vm": "scene", "name": "awake", "memory": true}));
    scene.write(2);
    scene.stop();
    let cases: [(&str, bool, &[&str]); 3] = [
        ("plain", false, &["make-overlay", "switch-disks", "record-revert"]),
        (
            "plain",
            true,
            &["record-snapshot", "make-overlay", "take-snapshot", "make-ready", "switch-disks", "record-revert"],
        ),
        ("awake", false, &["make-overlay", "switch-disks", "restore-memory", "record-revert"]),
    ];
    for (to, backup, steps) in cases {
        for (how, at) in moments(steps, all) {
            let what = format!("{how} {at}, to {to}, backup: {backup}");
            scene.write(2);
            let mut body = json!({"vm": "scene", "snapshot": to});
            if backup {
                body["backup"] = json!("before");
            }
            let done = scene.cut(how, &at, "revert-to-snapshot", body.clone());
            // The first step of a name is the backup's. What fails behind the point of no return is done all the same.
            let reverted = at == "record-revert:after";
            scene.on = done && to == "awake";
            assert_eq!(scene.lab.ok("describe-vm", json!({"vm": "scene"}))["state"] == "running", scene.on, "{what}");
            scene.has(if reverted { 1 } else { 2 }, &what);
            assert_eq!(done, reverted, "{what}");
            scene.agrees(&what);
            if scene.names().contains(&"before".to_owned()) {
                scene.snapshot_has("before", 2, &what);
                scene.lab.ok("delete-snapshot", json!({"vm": "scene", "snapshot": "before"}));
            }
            if !reverted {
                scene.lab.ok("revert-to-snapshot", body);
                scene.on = to == "awake";
                scene.has(1, &what);
            }
            if scene.names().contains(&"before".to_owned()) {
                scene.lab.ok("delete-snapshot", json!({"vm": "scene", "snapshot": "before"}));
            }
            if scene.on {
                scene.stop();
            }
            assert_eq!(scene.names(), ["plain", "awake"], "{what}");
            scene.agrees(&what);
        }
    }
    scene.end();
}

#[test]
fn killed_while_reverting() {
    cut_revert(false);
}

#[test]
#[ignore = "all moments: minutes"]
fn killed_while_reverting_at_every_moment() {
    cut_revert(true);
}

fn cut_delete(all: bool) {
    let mut lab = Lab::own();
    let mut scene = Scene::new(&mut lab);
    for on in [false, true] {
        if on {
            scene.start();
        }
        for (gone, _) in TREE {
            for (how, at) in moments(&["mark-deleting", "merge-images", "delete-images"], all) {
                let what = format!("{how} {at}, {gone}, on: {on}");
                let stayed = scene.delete_cut(gone, &what, |scene, body| {
                    scene.cut(how, &at, "delete-snapshot", body);
                });
                assert!(!stayed || at == "mark-deleting:before", "{what}");
            }
        }
    }
    scene.end();
}

#[test]
fn killed_while_deleting() {
    cut_delete(false);
}

#[test]
#[ignore = "all moments: minutes"]
fn killed_while_deleting_at_every_moment() {
    cut_delete(true);
}

#[test]
fn killed_while_a_vm_is_deleted_with_its_snapshots() {
    let mut lab = Lab::own();
    let steps =
        ["mark-deleting", "undefine-domain", "delete-system-disk", "delete-seed", "forget-vm", "delete-snapshots"];
    for at in steps.iter().flat_map(|step| POINTS.map(|point| format!("{step}:{point}"))) {
        let mut scene = Scene::new(&mut lab);
        for (name, pattern) in [("a", 1), ("b", 2)] {
            scene.write(pattern);
            scene.lab.ok("create-snapshot", json!({"vm": "scene", "name": name}));
        }
        scene.lab.ok("revert-to-snapshot", json!({"vm": "scene", "snapshot": "a"}));
        let body = json!({"vm": "scene", "delete_snapshots": true, "delete_volumes": true});
        scene.cut(HOWS[0], &at, "delete-vm", body.clone());
        if at == "mark-deleting:before" {
            scene.has(1, &at);
            scene.agrees(&at);
            scene.lab.ok("delete-vm", body);
            // Without a crash all is gone at once.
            lab.ok("delete-template", json!({"template": "blank"}));
        } else {
            eventually("its snapshots are gone", Duration::from_secs(100), || {
                (lab.server.call("delete-template", json!({"template": "blank"})).status == 200).then_some(())
            });
        }
        nothing_is_left(&lab, &format!("delete-vm with its snapshots killed at {at}"));
    }
}

/// At any moment, not only between two steps: libvirt goes on with what a server asked that is dead.
#[test]
fn killed_in_the_middle_of_a_step() {
    let mut lab = Lab::own();
    let mut scene = Scene::new(&mut lab);
    scene.start();
    for round in 0..8_u64 {
        let what = format!("round {round}");
        scene.write(1);
        let memory = round % 2 == 1;
        let body = json!({"vm": "scene", "name": "one", "memory": memory});
        let url = (scene.lab.server.url.clone(), scene.lab.server.token.clone());
        let call = std::thread::spawn(move || scene::post(&url.0, &url.1, "create-snapshot", &body));
        std::thread::sleep(Duration::from_millis(60 + 35 * round));
        scene.lab.server.kill_and_restart(&[]);
        call.join().unwrap();
        scene.lab.wait_for_tasks();
        scene.write(2);
        scene.agrees(&what);
        if scene.names().is_empty() {
            scene.write(1);
            scene.lab.ok("create-snapshot", json!({"vm": "scene", "name": "one", "memory": memory}));
            scene.write(2);
        }
        scene.snapshot_has("one", 1, &what);
        scene.has(2, &what);
        scene.lab.ok("delete-snapshot", json!({"vm": "scene", "snapshot": "one"}));
        scene.agrees(&what);
    }
    // What it writes must be in a file that is still there.
    scene.stop();
    scene.has(2, "at the end");
    scene.end();
}

/// libvirt does what a server has asked for that is dead by now: here its QEMU hangs until the next server has looked at it.
#[test]
#[ignore = "waits for a QEMU that hangs: half a minute"]
fn killed_while_qemu_hangs() {
    let mut lab = Lab::own();
    let mut scene = Scene::new(&mut lab);
    scene.start();
    for round in 0..8_u64 {
        let what = format!("hangs, round {round}");
        scene.write(1);
        let images = scene.images();
        let body = json!({"vm": "scene", "name": "one", "memory": round % 2 == 1});
        let (url, token) = (scene.lab.server.url.clone(), scene.lab.server.token.clone());
        let call = std::thread::spawn(move || scene::post(&url, &token, "create-snapshot", &body));
        // Its overlays are there: what comes next is the snapshot itself.
        let end = std::time::Instant::now() + Duration::from_secs(5);
        while scene.images() < images + 2 && std::time::Instant::now() < end {}
        std::thread::sleep(Duration::from_millis(10 + 12 * round));
        let pid = scene.qemu().unwrap();
        scene::signal("-STOP", &pid);
        let goes_on = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_secs(3));
            scene::signal("-CONT", &pid);
        });
        scene.lab.server.kill_and_restart(&[]);
        call.join().unwrap();
        goes_on.join().unwrap();
        scene.lab.wait_for_tasks();
        scene.agrees(&what);
        scene.write(2);
        for name in scene.names() {
            scene.snapshot_has(&name, 1, &what);
            scene.lab.ok("delete-snapshot", json!({"vm": "scene", "snapshot": name}));
        }
        scene.has(2, &what);
    }
    // What it writes must be in a file that is still there.
    scene.stop();
    scene.has(2, "at the end");
    scene.end();
}

#[test]
#[ignore = "minutes, of a libvirtd that is killed again and again; what was found by it are the tests below, and `is_forgotten`"]
fn libvirtd_killed_while_taking_and_deleting() {
    let mut lab = Lab::own();
    let mut scene = Scene::new(&mut lab);
    scene.start();
    for round in 0..6_u64 {
        let what = format!("round {round}");
        scene.write_through(1);
        let calls = [
            ("create-snapshot", json!({"vm": "scene", "name": "one", "memory": round % 2 == 1})),
            ("delete-snapshot", json!({"vm": "scene", "snapshot": "one"})),
        ];
        for (method, body) in calls {
            let lab = &*scene.lab;
            let (answer, mut libvirtd) = std::thread::scope(|scope| {
                let call = scope.spawn(|| lab.server.call(method, body.clone()));
                std::thread::sleep(Duration::from_millis(20 + 40 * round));
                lab.node.command("kill-libvirtd");
                lab.node.command("start-libvirtd");
                let libvirtd = lab.node.command("pid libvirtd");
                (call.join().unwrap(), libvirtd)
            });
            assert!([200, 409, 422, 503, 504].contains(&answer.status), "{what}: {answer:?}");
            scene.wait_until_up(&mut libvirtd);
            scene.lab.wait_for_tasks();
            scene.wait_until_merged_while(&what, || scene.revive(&mut libvirtd));
            scene.wait_until_up(&mut libvirtd);
            scene.write_through(2);
            scene.start_anew_where_libvirt_lost_track();
            scene.agrees(&what);
            if method == "create-snapshot" && scene.names().is_empty() {
                scene.write_through(1);
                scene.lab.ok(method, body);
                scene.write_through(2);
            }
            if scene.names() == ["one"] {
                scene.snapshot_has("one", 1, &what);
            }
        }
        scene.has(2, &what);
        for name in scene.names() {
            scene.lab.ok("delete-snapshot", json!({"vm": "scene", "snapshot": name}));
        }
    }
    scene.stop();
    scene.has(2, "at the end");
    scene.end();
}

/// A libvirtd that is killed between the opening of the overlays and QEMU's snapshot leaves them open, some of them by half. Such a
/// QEMU may refuse to have its memory saved ever after: "bdrv_inactivate_all() failed".
#[test]
fn overlays_that_libvirt_has_left_open_are_closed() {
    let mut lab = Lab::own();
    let mut scene = Scene::new(&mut lab);
    scene.start();
    scene.write(1);
    let disks = scene.disks();
    scene.lab.server.kill_and_restart(&[(HOWS[0], "take-snapshot:before")]);
    let with_memory = json!({"vm": "scene", "name": "one", "memory": true});
    assert_eq!(scene.lab.server.call("create-snapshot", with_memory.clone()).status, 0);
    let open = scene.open_images();
    scene.open_behind_libvirt(&disks);
    scene.qmp("blockdev-del", json!({"node-name": "libvirt-91-format"}));
    assert_eq!(scene.open_images().len(), open.len() + 3);
    scene.lab.server.kill_and_restart(&[]);
    scene.lab.wait_for_tasks();
    assert!(scene.names().is_empty());
    scene.agrees("unwound");
    assert_eq!(scene.open_images(), open);
    scene.lab.ok("create-snapshot", with_memory);
    scene.write(2);
    scene.snapshot_has("one", 1, "taken after it");
    scene.stop();
    scene.has(2, "at the end");
    scene.end();
}

/// A libvirtd that is killed between QEMU's snapshot and its own note of it believes that there was none.
#[test]
fn a_snapshot_that_libvirt_forgot_is_taken_back() {
    let mut lab = Lab::own();
    let mut scene = Scene::new(&mut lab);
    scene.start();
    for what in ["first", "once more"] {
        scene.write(1);
        let disks = scene.disks();
        scene.lab.server.kill_and_restart(&[(HOWS[0], "take-snapshot:before")]);
        let answer = scene.lab.server.call("create-snapshot", json!({"vm": "scene", "name": "one"}));
        assert_eq!(answer.status, 0, "{answer:?}");
        scene.snapshot_behind_libvirt(&disks);
        scene.write(2);
        scene.lab.server.kill_and_restart(&[]);
        scene.lab.wait_for_tasks();
        assert!(scene.names().is_empty(), "{what}");
        scene.agrees(what);
        scene.has(2, what);
    }
    scene.lab.ok("create-snapshot", json!({"vm": "scene", "name": "one"}));
    scene.snapshot_has("one", 2, "taken after it");
    // What it wrote must be in a file that is still there.
    scene.stop();
    scene.has(2, "at the end");
    scene.end();
}

/// The same of a merge: libvirt goes on to say that the guest is on the upper image.
#[test]
fn a_merge_that_libvirt_forgot_keeps_what_was_written() {
    let mut lab = Lab::own();
    let mut scene = Scene::new(&mut lab);
    scene.start();
    scene.write(1);
    scene.lab.ok("create-snapshot", json!({"vm": "scene", "name": "one"}));
    scene.write(2);
    let disks = scene.disks();
    scene.lab.server.kill_and_restart(&[(HOWS[0], "merge-images:before")]);
    let answer = scene.lab.server.call("delete-snapshot", json!({"vm": "scene", "snapshot": "one"}));
    assert_eq!(answer.status, 0, "{answer:?}");
    scene.merge_behind_libvirt(&disks);
    scene.write(3);
    scene.lab.server.kill_and_restart(&[]);
    scene.wait_until_merged("the merge");
    scene.has(3, "running");
    scene.stop();
    scene.has(3, "off");
    scene.start();
    scene.has(3, "on again");
    scene.agrees("at the end");
    scene.stop();
    scene.has(3, "at the end");
    scene.end();
}

#[test]
fn qemu_killed_right_after_an_answer() {
    let mut lab = Lab::own();
    let mut scene = Scene::new(&mut lab);
    for round in 0..4_u8 {
        let what = format!("round {round}");
        scene.start();
        scene.write_through(1);
        scene.lab.ok("create-snapshot", json!({"vm": "scene", "name": "one", "memory": round % 2 == 1}));
        scene.kill_qemu();
        scene.agrees(&what);
        scene.snapshot_has("one", 1, &what);
        scene.has(1, &what);
        scene.start();
        scene.lab.ok("create-snapshot", json!({"vm": "scene", "name": "two"}));
        scene.write_through(2);
        let gone = if round < 2 { "one" } else { "two" };
        scene.lab.ok("delete-snapshot", json!({"vm": "scene", "snapshot": gone}));
        scene.kill_qemu();
        scene.agrees(&what);
        scene.has(2, &what);
        scene.snapshot_has(if round < 2 { "two" } else { "one" }, 1, &what);
        for name in scene.names() {
            scene.lab.ok("delete-snapshot", json!({"vm": "scene", "snapshot": name}));
        }
        scene.agrees(&what);
        scene.has(2, &what);
    }
    scene.start();
    scene.has(2, "it starts");
    scene.stop();
    scene.end();
}

#[test]
fn twenty_calls_at_once() {
    let mut lab = Lab::own();
    let mut scene = Scene::new(&mut lab);
    for on in [false, true] {
        if on {
            scene.start();
        }
        scene.write(1);
        scene.lab.ok("create-snapshot", json!({"vm": "scene", "name": "base"}));
        let lab = &*scene.lab;
        std::thread::scope(|scope| {
            for caller in 0..20_u64 {
                scope.spawn(move || {
                    for turn in 0..3 {
                        let name = format!("s{}", (caller + turn) % 5);
                        let (method, body) = match (caller + turn) % 3 {
                            0 => ("create-snapshot", json!({"vm": "scene", "name": name})),
                            1 => ("delete-snapshot", json!({"vm": "scene", "snapshot": name})),
                            _ => ("revert-to-snapshot", json!({"vm": "scene", "snapshot": "base"})),
                        };
                        let answer = lab.server.call(method, body);
                        assert!([200, 404, 409].contains(&answer.status), "{method} {name}: {answer:?}");
                    }
                });
            }
        });
        scene.has(1, "after all calls");
        scene.agrees("after all calls");
        for name in scene.names() {
            scene.lab.ok("delete-snapshot", json!({"vm": "scene", "snapshot": name}));
        }
        eventually("all are gone", Duration::from_secs(100), || scene.names().is_empty().then_some(()));
        scene.wait_until_merged("after all calls");
    }
    scene.stop();
    scene.has(1, "at the end");
    scene.end();
}
