//! Snapshots: create-snapshot, list-snapshots, describe-snapshot, revert-to-snapshot, delete-snapshot.

use crate::{
    lab::{Lab, SOON, TestVm, eventually},
    volumes::{has, write},
};
use serde_json::{Value, json};
use std::{
    process::Command,
    time::{Duration, Instant},
};

/// A VM with a data volume that has a file system of its own kind: bytes at places.
pub fn with_data<'a>(lab: &'a Lab, name: &str) -> (TestVm<'a>, Value) {
    let vm = lab.create(name);
    let data = lab.ok("create-volume", json!({"name": lab.name("data"), "size_gib": 1}));
    vm.ok("attach-volume", json!({"volume": data["id"]}));
    (vm, data)
}

/// The volume as it is now: its image changes with each snapshot.
pub fn now(lab: &Lab, volume: &Value) -> Value {
    lab.ok("describe-volume", json!({"volume": volume["id"]}))
}

/// The images of a volume from the top down, as qemu-img reads them.
pub fn chain(volume: &Value) -> Vec<String> {
    read_chain(volume).unwrap_or_else(|why| panic!("{why}"))
}

fn read_chain(volume: &Value) -> Result<Vec<String>, String> {
    let path = volume["path"].as_str().unwrap();
    let output =
        Command::new("qemu-img").args(["info", "-U", "--output=json", "--backing-chain", path]).output().unwrap();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let images: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    Ok(images.iter().map(|image| image["filename"].as_str().unwrap().to_owned()).collect())
}

/// The tree in the database is the one on the disk, and the VM's disks stand on the snapshot that it is on.
#[track_caller]
pub fn agrees(lab: &Lab, vm: &str) {
    agrees_on_disk(lab, vm);
    let vm = lab.ok("describe-vm", json!({"vm": vm}));
    let snapshots = lab.ok("list-snapshots", json!({"vm": vm["id"]}));
    let Some(current) = snapshots["snapshots"].as_array().unwrap().iter().find(|one| one["current"] == true) else {
        return;
    };
    for disk in vm["disks"].as_array().unwrap() {
        let frozen = current["disks"].as_array().unwrap().iter().find(|one| one["volume"] == disk["volume"]);
        if let Some(frozen) = frozen {
            assert_eq!(
                Some(frozen["path"].as_str().unwrap()),
                chain(disk).get(1).map(String::as_str),
                "{current} {disk}"
            );
        }
    }
}

/// The tree in the database is the one on the disk. A disk that was away at a revert may stand on another snapshot than its
/// VM is on. While a snapshot is hidden its images may be on their way out, so that it is looked at again.
#[track_caller]
pub fn agrees_on_disk(lab: &Lab, vm: &str) {
    let end = Instant::now() + Duration::from_secs(100);
    loop {
        let vm = lab.ok("describe-vm", json!({"vm": vm}));
        let listed = lab.ok("list-snapshots", json!({"vm": vm["id"]}));
        let snapshots = listed["snapshots"].as_array().unwrap();
        let Err(why) = agreement(lab, &vm, snapshots) else { return };
        let hidden = snapshots.iter().any(|one| one["state"] == "deleting");
        assert!(hidden && Instant::now() < end, "{why}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn agreement(lab: &Lab, vm: &Value, snapshots: &[Value]) -> Result<(), String> {
    for disk in vm["disks"].as_array().unwrap() {
        let volume = lab.ok("describe-volume", json!({"volume": disk["volume"]}));
        assert_eq!(volume["path"], disk["path"]);
        let below = &read_chain(&volume)?[1..];
        let told: Vec<_> =
            volume["backing_chain"].as_array().unwrap().iter().map(|layer| layer["path"].as_str().unwrap()).collect();
        if below != told {
            return Err(format!("{below:?}: {volume}"));
        }
    }
    for disk in snapshots.iter().flat_map(|one| one["disks"].as_array().unwrap()) {
        let images = read_chain(disk)?;
        if images.get(1).map(String::as_str) != disk["backing"].as_str() {
            return Err(format!("{images:?}: {disk}"));
        }
        let check = Command::new("qemu-img").args(["check", "-q", "-U", &images[0]]).status().unwrap();
        if !check.success() {
            return Err(format!("not clean: {images:?}"));
        }
    }
    Ok(())
}

#[test]
fn off_and_back_again() {
    let lab = Lab::own();
    let (vm, data) = with_data(&lab, "off");
    write(&now(&lab, &data), 1, "1M", "1M");
    let first = vm.ok("create-snapshot", json!({"name": "first", "description": "the one"}));
    assert_eq!(
        (
            &first["state"],
            &first["vm_state"],
            &first["pause_ms"],
            &first["memory"],
            &first["current"],
            &first["parent"]
        ),
        (&json!("ready"), &json!("shutoff"), &json!(0), &json!(false), &json!(true), &Value::Null)
    );
    assert_eq!(first["disks"].as_array().unwrap().len(), 2);
    agrees(&lab, &vm.name);
    vm.err("create-snapshot", json!({"name": "FIRST"}), 409, "already_exists");
    write(&now(&lab, &data), 2, "1M", "1M");
    let second = vm.ok("create-snapshot", json!({"name": "second"}));
    assert_eq!(second["parent"], first["id"]);
    write(&now(&lab, &data), 3, "1M", "1M");

    let back = vm.ok("revert-to-snapshot", json!({"snapshot": "first", "backup": "third"}));
    assert_eq!((&back["snapshot"]["id"], &back["snapshot"]["current"]), (&first["id"], &json!(true)));
    assert_eq!((&back["backup"]["name"], &back["backup"]["parent"]), (&json!("third"), &second["id"]));
    has(&now(&lab, &data), 1, "1M", "1M");
    agrees(&lab, &vm.name);
    for (name, pattern) in [("third", 3), ("second", 2), ("first", 1)] {
        vm.ok("revert-to-snapshot", json!({"snapshot": name}));
        has(&now(&lab, &data), pattern, "1M", "1M");
        agrees(&lab, &vm.name);
    }
    let listed = lab.ok("list-snapshots", json!({"vm": vm.id}));
    assert_eq!(listed["total"], 3);
    // What snapshots keep is no volume of its own.
    assert_eq!(lab.ok("list-volumes", json!({}))["total"], 2);
    let told = lab.ok("describe-snapshot", json!({"snapshot": second["id"]}));
    assert!(told["size_bytes"].as_u64().unwrap() > 1 << 20, "{told}");
    lab.err("describe-snapshot", json!({"snapshot": "second"}), 400, "invalid");
    // The volume is in snapshots: it stays, also when it is nobody's.
    vm.ok("detach-volume", json!({"volume": data["id"]}));
    let problem = lab.err("delete-volume", json!({"volume": data["id"]}), 409, "in_use");
    assert!(problem["detail"].as_str().unwrap().contains("snapshot first of VM"), "{problem}");
    let back = vm.ok("revert-to-snapshot", json!({"snapshot": "second"}));
    assert_eq!(back["left_out"], json!(["vdb"]));
    vm.ok("attach-volume", json!({"volume": data["id"]}));
    has(&now(&lab, &data), 1, "1M", "1M");

    // In the middle, the root, the leaf.
    vm.ok("revert-to-snapshot", json!({"snapshot": "third"}));
    for name in ["second", "first", "third"] {
        let gone = vm.ok("delete-snapshot", json!({"snapshot": name}));
        assert_eq!((&gone["name"], &gone["pending"]), (&json!(name), &Value::Null));
        agrees(&lab, &vm.name);
        has(&now(&lab, &data), 3, "1M", "1M");
    }
    assert_eq!(lab.ok("list-snapshots", json!({"vm": vm.id}))["total"], 0);
    let (name, data) = (vm.name.clone(), now(&lab, &data));
    assert_eq!(chain(&data).len(), 1);
    lab.ok("delete-vm", json!({"vm": name, "delete_volumes": true}));
    crate::crash::nothing_is_left(&lab, "snapshots");
}

/// The last of the numbered lines that a guest has written, as it says in a file.
pub fn at(vm: &TestVm<'_>) -> u64 {
    // Between two lines there may be none.
    eventually("it says where it is", SOON, || vm.run("cat /tmp/at 2>/dev/null || echo 0").parse().ok())
}

#[test]
fn under_a_running_guest() {
    let lab = Lab::own();
    let (vm, data) = with_data(&lab, "live");
    let vm = vm.start().ready();
    // Numbered lines, each written through, go on over everything that follows.
    vm.run("(i=0; while :; do i=$((i+1)); echo $i | dd of=/dev/vdb bs=512 seek=$i conv=sync,fsync,notrunc 2>/dev/null; echo $i >/tmp/at; done) >/dev/null 2>&1 &");
    let before = at(&vm);
    for (name, memory) in [("a", false), ("b", true), ("c", false), ("d", true)] {
        let taken = vm.ok("create-snapshot", json!({"name": name, "memory": memory}));
        assert_eq!((&taken["vm_state"], &taken["memory"]), (&json!("running"), &json!(memory)));
        let pause = taken["pause_ms"].as_u64().unwrap();
        // How long, and whether the agent answers in time, is asked where the machine is quiet: snapshots_live.rs.
        assert_eq!(pause > 0, memory, "{taken}");
        agrees(&lab, &vm.name);
    }
    let definition = lab.node.virsh(&["dumpxml", "--inactive", vm.created["domain"].as_str().unwrap()]);
    assert!(!definition.contains("<backingStore type"), "{definition}");
    // Merged while it writes: in the middle, the newest, the oldest.
    for name in ["b", "d", "a", "c"] {
        let gone = vm.ok("delete-snapshot", json!({"snapshot": name}));
        assert_eq!(gone["pending"], Value::Null, "{gone}");
        agrees(&lab, &vm.name);
    }
    assert_eq!(chain(&now(&lab, &data)).len(), 1);
    eventually("it goes on", SOON, || (at(&vm) > before + 50).then_some(()));
    // No line is lost.
    let last = at(&vm);
    let lines = vm.run(&format!("dd if=/dev/vdb bs=512 skip=1 count={last} 2>/dev/null | tr -d '\\000' | awk '$1 != NR {{ print \"lost \" NR; exit }} END {{ print NR }}'"));
    assert_eq!(lines, last.to_string());
    vm.ok("stop-vm", json!({"force": true}));
    lab.ok("delete-vm", json!({"vm": vm.id, "delete_volumes": true}));
    crate::crash::nothing_is_left(&lab, "live snapshots");
}

#[test]
fn a_guest_resumes_where_it_was() {
    let lab = Lab::own();
    let vm = lab.create("resumes").start().ready();
    vm.run("echo remembered >/tmp/in-memory; echo 1 >/root/on-disk; sync");
    let taken = vm.ok("create-snapshot", json!({"name": "awake", "memory": true}));
    vm.run("echo forgotten >/tmp/in-memory; echo 2 >/root/on-disk; sync");
    vm.ok("modify-vm-spec", json!({"description": "of today", "tags": {"when": "now"}}));
    vm.err("revert-to-snapshot", json!({"snapshot": "awake"}), 409, "wrong_state");
    vm.ok("stop-vm", json!({"force": true}));
    let back = vm.ok("revert-to-snapshot", json!({"snapshot": "awake"}));
    assert_eq!((&back["vm"]["state"], &back["snapshot"]["id"]), (&json!("running"), &taken["id"]));
    assert_eq!(vm.run("cat /tmp/in-memory /root/on-disk"), "remembered\n1");
    // What is said of it is of today, also in the running domain.
    assert_eq!((&back["vm"]["description"], &back["vm"]["tags"]["when"]), (&json!("of today"), &json!("now")));
    let live = lab.node.virsh(&["dumpxml", vm.created["domain"].as_str().unwrap()]);
    assert!(live.contains("of today") && live.contains("now"), "{live}");
    agrees(&lab, &vm.name);
    // Again, after the image below it was merged away, and paused.
    vm.ok("pause-vm", json!({}));
    vm.ok("create-snapshot", json!({"name": "asleep", "memory": true}));
    let gone = vm.ok("delete-snapshot", json!({"snapshot": "awake"}));
    assert!(gone["pending"].as_str().unwrap().contains("paused"), "{gone}");
    vm.ok("stop-vm", json!({"force": true}));
    eventually("it is merged", SOON, || (lab.ok("list-snapshots", json!({"vm": vm.id}))["total"] == 1).then_some(()));
    agrees(&lab, &vm.name);
    let back = vm.ok("revert-to-snapshot", json!({"snapshot": "asleep"}));
    assert_eq!(back["vm"]["state"], "paused");
    vm.ok("resume-vm", json!({}));
    assert_eq!(vm.run("cat /tmp/in-memory /root/on-disk"), "remembered\n1");
    vm.ok("stop-vm", json!({"force": true}));
    lab.ok("delete-vm", json!({"vm": vm.id, "delete_snapshots": true}));
    crate::crash::nothing_is_left(&lab, "memory snapshots");
}

#[test]
fn snapshots_outlive_their_vm() {
    let lab = Lab::own();
    let (vm, data) = with_data(&lab, "mortal");
    write(&now(&lab, &data), 5, "0", "1M");
    let one = vm.ok("create-snapshot", json!({"name": "one"}));
    vm.ok("create-snapshot", json!({"name": "two"}));
    write(&now(&lab, &data), 6, "0", "1M");
    lab.ok("delete-vm", json!({"vm": vm.id}));
    let listed = lab.ok("list-snapshots", json!({"vm": vm.id}));
    assert_eq!((&listed["total"], &listed["snapshots"][0]["current"]), (&json!(2), &json!(false)));
    // The template stays while its snapshots are there, and the data volume keeps what it had.
    lab.err("delete-template", json!({"template": "tiny"}), 409, "in_use");
    has(&now(&lab, &data), 6, "0", "1M");
    for id in [&one["id"], &listed["snapshots"][1]["id"]] {
        assert_eq!(lab.ok("delete-snapshot", json!({"snapshot": id}))["pending"], Value::Null);
        has(&now(&lab, &data), 6, "0", "1M");
    }
    lab.ok("delete-volume", json!({"volume": data["id"]}));
    crate::crash::nothing_is_left(&lab, "snapshots of a VM that is gone");
}

#[test]
fn what_can_not_be_frozen_is_refused() {
    let lab = Lab::own();
    let vm = lab.create("refused");
    vm.err("create-snapshot", json!({"name": "m", "memory": true}), 400, "invalid");
    vm.err("create-snapshot", json!({"name": "a/b"}), 400, "invalid");
    vm.err("revert-to-snapshot", json!({"snapshot": "nix"}), 404, "not_found");
    vm.err("delete-snapshot", json!({"snapshot": "nix"}), 404, "not_found");
    lab.err("list-snapshots", json!({"vm": "nix"}), 404, "not_found");
    let raw = lab.ok("create-volume", json!({"name": "raw", "size_gib": 1, "format": "raw"}));
    vm.ok("attach-volume", json!({"volume": raw["id"]}));
    let files = lab.files();
    let problem = vm.err("create-snapshot", json!({"name": "s"}), 422, "unsupported");
    assert!(
        problem["detail"].as_str().unwrap().contains("vdb")
            && problem["hint"].as_str().unwrap().contains("exclude_disks"),
        "{problem}"
    );
    assert_eq!(lab.files(), files);
    vm.err("create-snapshot", json!({"name": "s", "exclude_disks": ["vdc"]}), 400, "invalid");
    let taken = vm.ok("create-snapshot", json!({"name": "s", "exclude_disks": ["vdb"]}));
    assert_eq!(taken["disks"].as_array().unwrap().len(), 1);
    vm.ok("delete-snapshot", json!({"snapshot": "s"}));
    vm.ok("detach-volume", json!({"volume": raw["id"]}));
    // libvirt's own.
    let domain = vm.created["domain"].as_str().unwrap();
    lab.node.virsh(&["snapshot-create-as", domain, "theirs"]);
    let problem = vm.err("create-snapshot", json!({"name": "s"}), 422, "unsupported");
    assert!(problem["detail"].as_str().unwrap().contains("libvirt's own"), "{problem}");
    lab.node.virsh(&["snapshot-delete", domain, "theirs"]);
    // A disk that isn't ours.
    let foreign = lab.node.dir.join("foreign.qcow2");
    assert!(
        Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2", foreign.to_str().unwrap(), "1M"])
            .status()
            .unwrap()
            .success()
    );
    lab.node.virsh(&["attach-disk", domain, foreign.to_str().unwrap(), "vdb", "--config", "--subdriver", "qcow2"]);
    let problem = vm.err("create-snapshot", json!({"name": "s"}), 422, "unsupported");
    assert!(problem["detail"].as_str().unwrap().contains("no volume of Vmyard's"), "{problem}");
    vm.ok("create-snapshot", json!({"name": "s", "exclude_disks": ["vdb"]}));
    lab.node.virsh(&["detach-disk", domain, "vdb", "--config"]);
    // Without an agent there is no quiescing.
    let vm = vm.deaf().start();
    vm.err("create-snapshot", json!({"name": "q", "quiesce": "require"}), 409, "agent_unavailable");
    vm.err("create-snapshot", json!({"name": "q", "quiesce": "require", "memory": true}), 400, "invalid");
    assert_eq!(vm.ok("create-snapshot", json!({"name": "q"}))["quiesced"], false);
    vm.ok("stop-vm", json!({"force": true}));
    lab.ok("delete-vm", json!({"vm": vm.id, "delete_snapshots": true}));
}

#[test]
fn by_the_command_line() {
    let lab = Lab::shared();
    let vm = lab.create("cli-snaps");
    let run = |args: &[&str]| lab.server.cli(&[&["snapshot"], args].concat());
    let (code, text) = run(&["create", &vm.name, "one", "--description", "the first"]);
    assert_eq!((code, text), (0, format!("snapshot one of VM {} is taken; the guest stood still for 0 ms\n", vm.name)));
    assert_eq!(run(&["create", &vm.name, "two"]).0, 0);
    let (code, text) = run(&["revert", &vm.name, "one", "--backup", "three"]);
    assert_eq!((code, text), (0, format!("VM {} is shutoff, on snapshot one\n", vm.name)));
    let (_, tree) = run(&["tree", &vm.name]);
    let lines: Vec<_> = tree.lines().map(|line| line.split("  20").next().unwrap()).collect();
    assert_eq!(lines, ["one", "└─ two", "   └─ three"], "{tree}");
    assert!(tree.lines().next().unwrap().ends_with("<- the VM is here"), "{tree}");
    assert!(run(&["list", &vm.name, "-o", "wide"]).1.contains("the first"));
    assert!(run(&["show", &vm.name, "three"]).1.contains("before the revert to one"));
    assert!(run(&["delete", &vm.name, "two", "--plan"]).1.contains("merge-images"));
    assert_eq!(run(&["delete", &vm.name, "two"]), (0, "snapshot two is deleted\n".to_owned()));
    assert_eq!(run(&["create", &vm.name, "x", "--quiesce", "perhaps"]).0, 2);
    let (code, text) = run(&["revert", &vm.name, "two"]);
    assert!(code == 1 && text.contains("there is no snapshot"), "{text}");
    assert_eq!(lab.server.cli(&["vm", "delete", &vm.name, "--snapshots"]).0, 0);
    assert_eq!(lab.ok("list-snapshots", json!({"vm": vm.id}))["total"], 0);
}

#[test]
fn new_ones_are_made_of_them() {
    let lab = Lab::own();
    let (vm, data) = with_data(&lab, "mother");
    write(&now(&lab, &data), 4, "7M", "1M");
    let vm = vm.start().ready();
    vm.run("echo inherited >/root/mark && sync");
    let snapshot = vm.ok("create-snapshot", json!({"name": "seed"}));
    let from = |name: &str, more: Value| {
        let mut body = json!({"vm": vm.id, "snapshot": "seed", "name": name, "memory_mib": 128});
        more.as_object().unwrap().iter().for_each(|(key, value)| body[key] = value.clone());
        body
    };
    lab.err("create-vm-from-snapshot", from("child", json!({"disk_gib": 0})), 400, "invalid");
    lab.err("create-vm-from-snapshot", from(&vm.name, json!({})), 409, "already_exists");
    let child = TestVm::new(&lab, lab.ok("create-vm-from-snapshot", from("child", json!({"start": true})))).ready();
    assert_ne!(child.created["networks"][0]["mac"], vm.describe()["networks"][0]["mac"]);
    assert_eq!(child.run("cat /root/mark"), "inherited");
    let volume = lab.ok("describe-volume", json!({"volume": child.describe()["disks"][0]["volume"]}));
    assert_eq!(volume["backing"], snapshot["disks"][0]["path"]);
    let own = lab.ok("create-vm-from-snapshot", from("own", json!({"independent": true})));
    let disk = lab.ok("describe-volume", json!({"volume": own["disks"][0]["volume"]}));
    let template = lab.ok("describe-template", json!({"template": "tiny"}))["copies"][0]["path"].clone();
    assert_eq!(disk["backing_chain"].as_array().unwrap().len(), 1);
    assert_eq!(disk["backing"], template);

    // A volume of the data disk, as it was then.
    vm.run("dd if=/dev/zero of=/dev/vdb bs=1M count=16 conv=fsync 2>/dev/null");
    let copy = lab.ok("create-volume", json!({"name": "then", "snapshot": snapshot["id"], "device": "vdb"}));
    has(&now(&lab, &copy), 4, "7M", "1M");
    let problem =
        lab.err("create-volume", json!({"name": "x", "snapshot": snapshot["id"], "device": "vdc"}), 400, "invalid");
    assert!(problem["detail"].as_str().unwrap().contains("device: is vdc"), "{problem}");
    lab.err("create-volume", json!({"name": "x", "size_gib": 1, "device": "vdc"}), 400, "invalid");

    // They keep the images that they stand on, also when the snapshot and its VM are gone.
    let gone = vm.ok("delete-snapshot", json!({"snapshot": "seed"}));
    assert!(gone["pending"].as_str().unwrap().contains("images stand on"), "{gone}");
    vm.ok("stop-vm", json!({"force": true}));
    lab.ok("delete-vm", json!({"vm": vm.id, "delete_volumes": true}));
    assert_eq!(child.run("cat /root/mark"), "inherited");
    has(&now(&lab, &copy), 4, "7M", "1M");
    // With one left on each image they are merged with that, under the running guest and not.
    eventually("they are merged", SOON, || {
        let volume = now(&lab, &volume);
        (chain(&volume).len() == 2 && chain(&now(&lab, &copy)).len() == 1).then_some(())
    });
    assert_eq!(child.run("cat /root/mark"), "inherited");
    has(&now(&lab, &copy), 4, "7M", "1M");
    lab.ok("delete-volume", json!({"volume": "then"}));
    child.delete();
    lab.ok("delete-vm", json!({"vm": "own"}));
    crate::crash::nothing_is_left(&lab, "what was made of a snapshot");
}

#[test]
fn templates_are_made_of_them() {
    let lab = Lab::own();
    let vm = lab.create("model").start().ready();
    vm.run("echo built-in >/root/mark && sync");
    vm.ok("create-snapshot", json!({"name": "golden"}));
    let request =
        json!({"name": "golden", "vm": vm.id, "snapshot": "golden", "guest_agent": true, "default_user": "tiny"});
    let golden = lab.ok("register-template", request);
    let image = golden["copies"][0].clone();
    assert_eq!(chain(&image).len(), 1, "it stands on nothing");
    assert_eq!(golden["format"], "qcow2");
    // A volume that a guest writes to is refused; one that nobody has is not.
    let disk = vm.describe()["disks"][0]["volume"].clone();
    lab.err("register-template", json!({"name": "torn", "volume": disk}), 409, "wrong_state");
    vm.ok("stop-vm", json!({"force": true}));
    let (code, text) = lab.server.cli(&["template", "register", "whole", "--volume", disk.as_str().unwrap()]);
    assert!(code == 0 && text.ends_with("is ready\n"), "{text}");
    for bad in [
        json!({"name": "x"}),
        json!({"name": "x", "volume": "y", "snapshot": "z"}),
        json!({"name": "x", "volume": "y", "vm": "z"}),
    ] {
        lab.err("register-template", bad, 400, "invalid");
    }
    lab.err("register-template", json!({"name": "x", "volume": "nix"}), 404, "not_found");
    let child = lab.create_with("child", json!({"template": "golden"})).start().ready();
    assert_eq!(child.run("cat /root/mark"), "built-in");
    child.delete();
    lab.ok("delete-vm", json!({"vm": vm.id, "delete_snapshots": true}));
    for name in ["golden", "whole"] {
        lab.ok("delete-template", json!({"template": name}));
    }
    crate::crash::nothing_is_left(&lab, "templates of snapshots");
}
