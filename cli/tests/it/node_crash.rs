//! libvirtd or QEMU killed at every step of what the server does with snapshots, disks and systems: the server is held there
//! meanwhile. libvirtd is back before the server goes on, or only when the server has seen that it is away.

use crate::{
    crash::nothing_is_left,
    lab::{Answer, Lab, SOON, eventually, tiny, trouble},
    snapshots::{agrees, now},
    snapshots_crash::scene::{POINTS, Scene, signal},
    volumes::{has, write},
    volumes_crash::{has_it, start_holder},
};
use serde_json::{Value, json};
use std::fs;

/// When libvirtd is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Back {
    AtOnce,
    Later,
}

/// The moments of these steps.
fn points(steps: &[&str]) -> Vec<String> {
    steps.iter().flat_map(|step| POINTS.map(|point| format!("{step}:{point}"))).collect()
}

/// The moments of these steps, and when libvirtd comes back: both, or in turns.
fn moments(steps: &[&str], all: bool) -> Vec<(String, Back)> {
    let both = |(turn, at): (usize, String)| {
        let backs = [(at.clone(), Back::AtOnce), (at, Back::Later)];
        backs.into_iter().enumerate().filter(move |(which, _)| all || which % 2 == turn % 2).map(|(_, moment)| moment)
    };
    points(steps).into_iter().enumerate().flat_map(both).collect()
}

/// Kills libvirtd while the server is at a step of a call. Returns whether the call is done all the same.
#[track_caller]
fn cut(lab: &mut Lab, (at, back): &(String, Back), method: &str, body: Value) -> bool {
    let node = |lab: &Lab| lab.ok("describe-node", json!({"node": "local"}))["state"].clone();
    let held = |lab: &Lab| {
        lab.node.command("kill-libvirtd");
        if *back == Back::AtOnce {
            lab.node.command("start-libvirtd");
        }
    };
    let goes_on = |lab: &Lab| {
        if *back == Back::Later {
            eventually("the node is down", SOON, || (node(lab) == "down").then_some(()));
            lab.node.command("start-libvirtd");
        }
    };
    let answer = hold(lab, at, method, body, held, goes_on);
    let done = is_done(lab, at, method, &answer);
    // libvirt 9.0 may die once more of what it is asked right after its start.
    eventually("the node is up again", SOON, || {
        lab.node.command("revive-libvirtd");
        (node(lab) == "up").then_some(())
    });
    done
}

/// Holds the server at a step of a call, does something meanwhile, and lets it go on.
#[track_caller]
pub fn hold(
    lab: &mut Lab,
    at: &str,
    method: &str,
    body: Value,
    held: impl FnOnce(&Lab),
    goes_on: impl FnOnce(&Lab),
) -> Answer {
    lab.server.kill_and_restart(&[("VMYARD_STOP_AT", at)]);
    let lab = &*lab;
    let pid = lab.server.pid().to_string();
    std::thread::scope(|scope| {
        let mut call = Some(scope.spawn(|| lab.server.call(method, body)));
        eventually(&format!("the server is at {at} of {method}"), SOON, || {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            if let Some(ended) = call.take_if(|call| call.is_finished()) {
                panic!("{at} of {method} did not come: {:?}", ended.join().unwrap());
            }
            stat.rsplit_once(") ").unwrap().1.starts_with('T').then_some(())
        });
        held(lab);
        signal("-CONT", &pid);
        goes_on(lab);
        call.unwrap().join().unwrap()
    })
}

/// Whether a call with this answer, in which something was done to its node, is done all the same.
#[track_caller]
fn is_done(lab: &Lab, at: &str, method: &str, answer: &Answer) -> bool {
    assert!([200, 409, 422, 503].contains(&answer.status), "{at}: {answer:?}");
    lab.wait_for_tasks();
    let tasks = lab.ok("list-tasks", json!({"method": method, "limit": 1}));
    let task = lab.ok("describe-task", json!({"task": tasks["tasks"][0]["id"]}));
    let done = task["state"] == "done";
    assert!(done || task["state"] == "failed", "{at}: {task}");
    // An answer is no lie: what it calls done is, and what it calls failed is not.
    assert_eq!(done, answer.status == 200, "{at}: {answer:?} {task}");
    done
}

fn take(all: bool) {
    let mut lab = Lab::own();
    let mut scene = Scene::new(&mut lab);
    for (on, memory) in [(false, false), (true, false), (true, true)] {
        if on && !scene.on {
            scene.start();
        }
        let mut steps = vec!["record-snapshot", "make-overlay", "take-snapshot", "make-ready"];
        steps.extend(memory.then_some("keep-memory"));
        for moment in moments(&steps, all) {
            let what = format!("{moment:?}, on: {on}, memory: {memory}");
            scene.write(1);
            let body = json!({"vm": "scene", "name": "one", "memory": memory});
            if !cut(scene.lab, &moment, "create-snapshot", body.clone()) {
                assert!(scene.names().is_empty(), "{what}");
                scene.agrees(&what);
                scene.has(1, &what);
                scene.lab.ok("create-snapshot", body);
            }
            scene.write(2);
            assert_eq!(scene.names(), ["one"], "{what}");
            scene.agrees(&what);
            scene.snapshot_has("one", 1, &what);
            scene.has(2, &what);
            scene.lab.ok("delete-snapshot", json!({"vm": "scene", "snapshot": "one"}));
            scene.agrees(&what);
        }
    }
    scene.end();
}

#[test]
fn taking_a_snapshot() {
    take(false);
}

#[test]
#[ignore = "all moments: minutes"]
fn taking_a_snapshot_at_every_moment() {
    take(true);
}

fn revert(all: bool) {
    let mut lab = Lab::own();
    let mut scene = Scene::new(&mut lab);
    scene.write(1);
    scene.lab.ok("create-snapshot", json!({"vm": "scene", "name": "plain"}));
    scene.start();
    scene.lab.ok("create-snapshot", json!({"vm": "scene", "name": "awake", "memory": true}));
    scene.write(2);
    scene.stop();
    let cases: [(&str, &[&str]); 2] = [
        ("plain", &["make-overlay", "switch-disks", "record-revert"]),
        ("awake", &["make-overlay", "switch-disks", "restore-memory", "record-revert"]),
    ];
    for (to, steps) in cases {
        for moment in moments(steps, all) {
            let what = format!("{moment:?}, to {to}");
            scene.write(2);
            let body = json!({"vm": "scene", "snapshot": to});
            let done = cut(scene.lab, &moment, "revert-to-snapshot", body.clone());
            scene.on = done && to == "awake";
            let state = scene.lab.ok("describe-vm", json!({"vm": "scene"}))["state"].clone();
            assert_eq!(state == "running", scene.on, "{what}: {state}");
            scene.has(if done { 1 } else { 2 }, &what);
            scene.agrees(&what);
            if !done {
                scene.lab.ok("revert-to-snapshot", body);
                scene.on = to == "awake";
                scene.has(1, &what);
            }
            if scene.on {
                scene.stop();
            }
            scene.agrees(&what);
        }
    }
    scene.end();
}

#[test]
fn reverting() {
    revert(false);
}

#[test]
#[ignore = "all moments: minutes"]
fn reverting_at_every_moment() {
    revert(true);
}

fn delete(all: bool) {
    let mut lab = Lab::own();
    let mut scene = Scene::new(&mut lab);
    for on in [false, true] {
        if on {
            scene.start();
        }
        let gone = if on { ["leaf", "root"] } else { ["middle", "leaf"] };
        for gone in gone {
            for moment in moments(&["mark-deleting", "merge-images", "delete-images"], all) {
                let what = format!("{moment:?}, {gone}, on: {on}");
                scene.delete_cut(gone, &what, |scene, body| {
                    let done = cut(scene.lab, &moment, "delete-snapshot", body);
                    assert_eq!(done, !scene.names().contains(&gone.to_owned()), "{what}");
                });
            }
        }
    }
    scene.end();
}

#[test]
fn deleting_a_snapshot() {
    delete(false);
}

#[test]
#[ignore = "all moments: minutes"]
fn deleting_a_snapshot_at_every_moment() {
    delete(true);
}

#[test]
fn resetting() {
    let mut lab = Lab::own();
    lab.ok("register-template", json!({"name": "other", "file": tiny()}));
    let vm = lab.ok("create-vm", json!({"name": "phoenix", "template": "tiny", "vcpus": 1, "memory_mib": 64}));
    let volume = json!({"id": vm["disks"][0]["volume"]});
    for moment in moments(&["make-overlay", "switch-disks", "change-metadata", "make-ready"], true) {
        let what = format!("{moment:?}");
        write(&now(&lab, &volume), 7, "0", "64k");
        let done = cut(&mut lab, &moment, "reset-vm-system", json!({"vm": "phoenix", "template": "other"}));
        // The second template's, and the disk.
        eventually(&format!("one image is left: {what}: {:?}", lab.files()), SOON, || {
            (lab.files().iter().filter(|file| file.ends_with(".qcow2")).count() == 2).then_some(())
        });
        agrees(&lab, "phoenix");
        let name = if done { "other" } else { "tiny" };
        let template = lab.ok("describe-template", json!({"template": name}))["copies"][0]["path"].clone();
        let disk = now(&lab, &volume);
        assert_eq!(disk["backing"], template, "{what}");
        assert_eq!(lab.ok("describe-vm", json!({"vm": "phoenix"}))["template"], name, "{what}");
        if done {
            lab.ok("reset-vm-system", json!({"vm": "phoenix", "template": "tiny"}));
        } else {
            has(&disk, 7, "0", "64k");
        }
    }
    lab.ok("delete-vm", json!({"vm": "phoenix"}));
    lab.ok("delete-template", json!({"template": "other"}));
    nothing_is_left(&lab, "resets");
}

#[test]
fn attaching_and_detaching() {
    let mut lab = Lab::own();
    let data = lab.ok("create-volume", json!({"name": "data", "size_gib": 1}));
    let path = data["path"].as_str().unwrap();
    write(&data, 9, "5M", "1M");
    let vm = lab.ok("create-vm", json!({"name": "holder", "template": "tiny", "vcpus": 1, "memory_mib": 128}));
    let body = json!({"vm": "holder", "volume": "data"});
    for running in [false, true] {
        if running {
            start_holder(&lab, &vm);
        }
        for moment in moments(&["claim-volume", "attach-disk"], true) {
            let what = format!("attach, {moment:?}, running: {running}");
            let done = cut(&mut lab, &moment, "attach-volume", body.clone());
            assert_eq!(has_it(&lab, &vm, path, &what), done, "{what}");
            if !done {
                lab.ok("attach-volume", body.clone());
            }
            lab.ok("detach-volume", body.clone());
        }
        let steps: &[&str] = match running {
            true => &["mark-detaching", "ask-guest", "update-definition", "release-volume"],
            false => &["mark-detaching", "update-definition", "release-volume"],
        };
        for moment in moments(steps, true) {
            let what = format!("detach, {moment:?}, running: {running}");
            lab.ok("attach-volume", body.clone());
            let done = cut(&mut lab, &moment, "detach-volume", body.clone());
            let attached = has_it(&lab, &vm, path, &what);
            assert!(!done || !attached, "{what}");
            if attached {
                lab.ok("detach-volume", body.clone());
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
fn qemu_killed_while_snapshots_are_taken_and_deleted() {
    let mut lab = Lab::own();
    let mut scene = Scene::new(&mut lab);
    for memory in [false, true] {
        let mut steps = vec!["record-snapshot", "make-overlay", "take-snapshot", "make-ready"];
        steps.extend(memory.then_some("keep-memory"));
        for at in points(&steps) {
            let what = format!("taken, QEMU killed {at}, memory: {memory}");
            scene.start();
            scene.write_through(1);
            let qemu = scene.qemu().unwrap();
            let body = json!({"vm": "scene", "name": "one", "memory": memory});
            let answer = hold(scene.lab, &at, "create-snapshot", body, |_| signal("-9", &qemu), |_| ());
            let done = is_done(scene.lab, &at, "create-snapshot", &answer);
            scene.is_off();
            assert_eq!(scene.names(), if done { &["one"][..] } else { &[] }, "{what}");
            scene.agrees(&what);
            scene.has(1, &what);
            if done {
                scene.snapshot_has("one", 1, &what);
                scene.lab.ok("delete-snapshot", json!({"vm": "scene", "snapshot": "one"}));
            }
        }
    }
    for gone in ["root", "leaf"] {
        for at in points(&["mark-deleting", "merge-images", "delete-images"]) {
            let what = format!("{gone} deleted, QEMU killed {at}");
            scene.start();
            for (name, pattern) in [("root", 1), ("leaf", 2)] {
                scene.write_through(pattern);
                scene.lab.ok("create-snapshot", json!({"vm": "scene", "name": name}));
            }
            scene.write_through(3);
            let qemu = scene.qemu().unwrap();
            let body = json!({"vm": "scene", "snapshot": gone});
            let answer = hold(scene.lab, &at, "delete-snapshot", body, |_| signal("-9", &qemu), |_| ());
            is_done(scene.lab, &at, "delete-snapshot", &answer);
            scene.is_off();
            scene.wait_until_merged(&what);
            for (name, pattern) in [("root", 1), ("leaf", 2)] {
                if scene.names().contains(&name.to_owned()) {
                    scene.snapshot_has(name, pattern, &what);
                    scene.lab.ok("delete-snapshot", json!({"vm": "scene", "snapshot": name}));
                }
            }
            scene.wait_until_merged(&what);
            scene.has(3, &what);
            scene.agrees(&what);
        }
    }
    scene.start();
    scene.has(3, "it starts");
    scene.end();
}

#[test]
fn qemu_killed_while_a_volume_is_attached_and_detached() {
    let mut lab = Lab::own();
    let data = lab.ok("create-volume", json!({"name": "data", "size_gib": 1}));
    let path = data["path"].as_str().unwrap();
    write(&data, 9, "5M", "1M");
    let vm = lab.ok("create-vm", json!({"name": "holder", "template": "tiny", "vcpus": 1, "memory_mib": 128}));
    let domain = vm["domain"].as_str().unwrap();
    let body = json!({"vm": "holder", "volume": "data"});
    let calls = [
        ("attach-volume", points(&["claim-volume", "attach-disk"])),
        ("detach-volume", points(&["mark-detaching", "ask-guest", "update-definition", "release-volume"])),
    ];
    for (method, points) in calls {
        for at in points {
            let what = format!("{method}, QEMU killed {at}");
            if method == "detach-volume" {
                lab.ok("attach-volume", body.clone());
            }
            start_holder(&lab, &vm);
            let mark = format!("guest={domain}");
            let qemu = trouble::qemus(&[&mark, &lab.node.dir.display().to_string()]).pop().unwrap();
            let answer = hold(&mut lab, &at, method, body.clone(), |_| signal("-9", &qemu), |_| ());
            let done = is_done(&lab, &at, method, &answer);
            eventually("it is off", SOON, || {
                (lab.ok("describe-vm", json!({"vm": "holder"}))["state"] == "shutoff").then_some(())
            });
            let attached = has_it(&lab, &vm, path, &what);
            assert!(!done || attached == (method == "attach-volume"), "{what}");
            has(&data, 9, "5M", "1M");
            if attached {
                lab.ok("detach-volume", body.clone());
            }
        }
    }
    lab.ok("delete-vm", json!({"vm": "holder"}));
    lab.ok("delete-volume", json!({"volume": "data"}));
    nothing_is_left(&lab, "all of it");
}
