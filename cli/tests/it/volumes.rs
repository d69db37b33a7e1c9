//! Volumes: create-volume, clone-volume, resize-volume, delete-volume, and what list-volumes and describe-volume tell.

use crate::lab::{Lab, vm::qemu_io};
use serde_json::{Value, json};
use std::{path::Path, process::Command};

/// What qemu-img says of an image.
fn info(volume: &Value) -> Value {
    let path = volume["path"].as_str().unwrap();
    let output = Command::new("qemu-img").args(["info", "--output=json", "-U", path]).output().unwrap();
    assert!(output.status.success(), "{path}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Writes bytes into a volume, as a guest would.
pub fn write(volume: &Value, pattern: u8, offset: &str, length: &str) {
    let line = format!("write -P {pattern} {offset} {length}");
    qemu_io(volume, &[], &line);
}

/// Fails unless the volume has these bytes there.
#[track_caller]
pub fn has(volume: &Value, pattern: u8, offset: &str, length: &str) {
    // A merge may be at work on it.
    let output = qemu_io(volume, &["-r", "-U"], &format!("read -P {pattern} {offset} {length}"));
    assert!(!output.contains("Pattern verification failed"), "{output}");
}

#[test]
fn blank_ones_grow_and_go() {
    let lab = Lab::shared();
    let name = lab.name("blank");
    let volume = lab.ok("create-volume", json!({"name": name, "size_gib": 3}));
    assert_eq!(
        (&volume["state"], &volume["format"], &volume["size_bytes"], &volume["pool"]),
        (&json!("available"), &json!("qcow2"), &json!(3_u64 << 30), &json!("default"))
    );
    assert!(volume["vm"].is_null() && volume["backing"].is_null() && volume["created_at"].is_string(), "{volume}");
    let image = info(&volume);
    assert_eq!((&image["format"], &image["virtual-size"]), (&json!("qcow2"), &json!(3_u64 << 30)));
    assert!(volume["allocation_bytes"].as_u64().unwrap() < 1 << 20, "{volume}");
    let described = lab.ok("describe-volume", json!({"volume": volume["id"]}));
    assert_eq!((&described["backing_chain"], &described["overlays"]), (&json!([]), &json!([])));
    // Names are one pool's, without case.
    lab.err("create-volume", json!({"name": name.to_uppercase(), "size_gib": 1}), 409, "already_exists");

    let larger = lab.ok("resize-volume", json!({"volume": name, "size_gib": 5}));
    assert_eq!((&larger["size_bytes"], &info(&volume)["virtual-size"]), (&json!(5_u64 << 30), &json!(5_u64 << 30)));
    let problem = lab.err("resize-volume", json!({"volume": name, "size_gib": 4}), 400, "invalid");
    assert!(problem["detail"].as_str().unwrap().contains("size_gib: must be at least 5"), "{problem}");
    assert_eq!(lab.ok("resize-volume", json!({"volume": name, "size_gib": 5}))["size_gib"], 5.0);
    let path = volume["path"].as_str().unwrap().to_owned();
    let gone = lab.ok("delete-volume", json!({"volume": name}));
    assert_eq!(gone, json!({"id": volume["id"], "name": name}));
    assert!(!Path::new(&path).exists());
    lab.err("describe-volume", json!({"volume": name}), 404, "not_found");
    lab.err("delete-volume", json!({"volume": name}), 404, "not_found");

    let raw = lab.ok("create-volume", json!({"name": name, "size_gib": 1, "format": "raw"}));
    assert_eq!((&raw["format"], &info(&raw)["format"]), (&json!("raw"), &json!("raw")));
    assert_eq!(lab.ok("resize-volume", json!({"volume": name, "size_gib": 2}))["size_gib"], 2.0);
    assert_eq!(info(&raw)["virtual-size"], 2_u64 << 30);
    lab.ok("delete-volume", json!({"volume": raw["id"]}));
}

#[test]
fn one_over_a_template_keeps_it() {
    let lab = Lab::own();
    let template = lab.ok("describe-template", json!({"template": "tiny"}));
    let volume = lab.ok("create-volume", json!({"name": "over", "template": "tiny", "size_gib": 2}));
    let path = &template["copies"][0]["path"];
    assert_eq!((&volume["backing"], &volume["template"], &volume["size_gib"]), (path, &template["id"], &json!(2.0)));
    let described = lab.ok("describe-volume", json!({"volume": "over"}));
    assert_eq!(
        (&described["backing_chain"][0]["path"], &described["backing_chain"][0]["format"]),
        (path, &json!("qcow2"))
    );
    let problem = lab.err("delete-template", json!({"template": "tiny"}), 409, "in_use");
    assert!(problem["detail"].as_str().unwrap().contains("1 volume"), "{problem}");
    // A copy of it stands on the template as well.
    let copy = lab.ok("clone-volume", json!({"volume": "over", "name": "copy"}));
    assert_eq!((&copy["backing"], &copy["template"]), (path, &template["id"]));
    lab.ok("delete-volume", json!({"volume": "over"}));
    lab.err("delete-template", json!({"template": "tiny"}), 409, "in_use");
    // What stands on a volume keeps it, whoever made it.
    let over_copy = lab.node.dir.join("pools/default/foreign.qcow2");
    let backing = copy["path"].as_str().unwrap();
    let status = Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", backing, over_copy.to_str().unwrap()])
        .status();
    assert!(status.unwrap().success());
    let problem = lab.err("delete-volume", json!({"volume": "copy"}), 409, "in_use");
    assert!(problem["detail"].as_str().unwrap().contains("foreign.qcow2"), "{problem}");
    assert_eq!(lab.ok("describe-volume", json!({"volume": "copy"}))["overlays"], json!([over_copy]));
    lab.node.virsh(&["vol-delete", "foreign.qcow2", "--pool", "default"]);
    lab.ok("delete-volume", json!({"volume": "copy"}));
    assert!(lab.files().is_empty(), "{:?}", lab.files());
    lab.ok("delete-template", json!({"template": "tiny"}));
}

#[test]
fn copies_have_the_same_bytes() {
    let lab = Lab::shared();
    let (name, copy) = (lab.name("original"), lab.name("copy"));
    for format in ["qcow2", "raw"] {
        let volume = lab.ok("create-volume", json!({"name": name, "size_gib": 1, "format": format}));
        write(&volume, 0xa5, "3M", "5M");
        write(&volume, 0x5a, "900M", "1M");
        let cloned = lab.ok("clone-volume", json!({"volume": name, "name": copy}));
        assert_eq!(
            (&cloned["format"], &cloned["size_bytes"], &cloned["state"]),
            (&json!(format), &json!(1 << 30), &json!("available"))
        );
        assert_ne!(cloned["id"], volume["id"]);
        for (pattern, offset, length) in [(0, "0", "3M"), (0xa5, "3M", "5M"), (0, "8M", "100M"), (0x5a, "900M", "1M")] {
            has(&cloned, pattern, offset, length);
        }
        // Holes stay holes: of a raw one with 6 MiB in it no more than that is taken.
        assert!(cloned["allocation_bytes"].as_u64().unwrap() < 16 << 20, "{cloned}");
        let task = lab.ok("list-tasks", json!({"method": "clone-volume", "limit": 1}))["tasks"][0].clone();
        assert_eq!(task["progress_percent"], 100.0, "{task}");
        lab.ok("delete-volume", json!({"volume": copy}));
        // The copy that is asked for with another size grows.
        let grown = lab.ok("create-volume", json!({"name": copy, "volume": name, "size_gib": 2}));
        assert_eq!(info(&grown)["virtual-size"], 2_u64 << 30);
        has(&grown, 0xa5, "3M", "5M");
        has(&grown, 0, "1500M", "1M");
        lab.ok("delete-volume", json!({"volume": copy}));
        lab.ok("delete-volume", json!({"volume": name}));
    }
}

#[test]
fn copies_go_into_other_pools() {
    let lab = Lab::own();
    let other = lab.node.dir.join("pools/other");
    lab.node.virsh(&["pool-create-as", "other", "dir", "--target", other.to_str().unwrap(), "--build"]);
    let volume = lab.ok("create-volume", json!({"name": "v", "size_gib": 1}));
    write(&volume, 7, "0", "1M");
    let copy = lab.ok("clone-volume", json!({"volume": "v", "name": "v", "pool": "other"}));
    assert_eq!(copy["pool"], "other");
    has(&copy, 7, "0", "1M");
    // One name in two pools: the pool tells them apart.
    let problem = lab.err("delete-volume", json!({"volume": "v"}), 409, "ambiguous");
    assert!(problem["detail"].as_str().unwrap().contains(copy["id"].as_str().unwrap()), "{problem}");
    lab.ok("delete-volume", json!({"volume": "v", "pool": "other"}));
    assert_eq!(lab.ok("describe-volume", json!({"volume": "v"}))["pool"], "default");
    lab.ok("delete-volume", json!({"volume": "v"}));
}

#[test]
fn what_makes_no_sense_is_refused() {
    let lab = Lab::shared();
    let name = lab.name("refused");
    let vm = lab.create("refuser");
    for (more, code, status, words) in [
        (json!({}), "invalid", 400, "size_gib: is needed"),
        (json!({"size_gib": 0}), "invalid", 400, "size_gib"),
        (json!({"size_gib": 1 << 20}), "invalid", 400, "size_gib"),
        (json!({"size_gib": 1, "format": "vmdk"}), "invalid", 400, "format"),
        (json!({"size_gib": 1, "template": "tiny", "volume": "x"}), "invalid", 400, "volume: can't be given together"),
        (json!({"template": "tiny", "format": "raw"}), "invalid", 400, "format: is given by the template"),
        (json!({"template": "nix"}), "not_found", 404, "template"),
        (json!({"volume": "nix"}), "not_found", 404, "volume"),
        (json!({"size_gib": 1, "pool": "nix"}), "not_found", 404, "storage pool"),
        (json!({"size_gib": 1, "pool": "vmyard-seeds"}), "invalid", 400, "pool"),
        (json!({"size_gib": 1, "node": "nix"}), "not_found", 404, "node"),
        (json!({"size_gib": 1, "more": 1}), "invalid", 400, "more"),
    ] {
        let mut request = more.clone();
        request["name"] = json!(name);
        let problem = lab.err("create-volume", request, status, code);
        assert!(problem["detail"].as_str().unwrap().contains(words), "{more}: {problem}");
    }
    for bad in ["", "a/b", "x\ny", "6f1f3c1e-8a0b-4a7e-9d55-000000000001"] {
        lab.err("create-volume", json!({"name": bad, "size_gib": 1}), 400, "invalid");
    }
    let template = lab.ok("describe-template", json!({"template": "tiny"}));
    let least = template["size_bytes"].as_u64().unwrap();
    assert!(least <= 1 << 30, "the tiny template fits into 1 GiB");
    // A template, a foreign volume, the disk of a VM.
    let problem = lab.err("delete-volume", json!({"volume": "tiny"}), 422, "unsupported");
    assert!(problem["hint"].as_str().unwrap().contains("create-volume"), "{problem}");
    let foreign = lab.name("foreign.img");
    lab.node.virsh(&["vol-create-as", "default", &foreign, "1M"]);
    let problem = lab.err("delete-volume", json!({"volume": foreign}), 422, "unsupported");
    assert!(problem["detail"].as_str().unwrap().contains("not made by Vmyard"), "{problem}");
    lab.node.virsh(&["vol-delete", &foreign, "--pool", "default"]);
    let disk = vm.describe()["disks"][0]["volume"].clone();
    let problem = lab.err("delete-volume", json!({"volume": disk}), 409, "in_use");
    assert!(problem["detail"].as_str().unwrap().contains("system disk of VM"), "{problem}");
    assert!(lab.ok("list-volumes", json!({"name": name}))["volumes"].as_array().unwrap().is_empty());
}

#[test]
fn lists_are_filtered() {
    let lab = Lab::shared();
    let (one, two) = (lab.name("filtered-qcow2"), lab.name("filtered-raw"));
    lab.ok("create-volume", json!({"name": one, "size_gib": 1}));
    lab.ok("create-volume", json!({"name": two, "size_gib": 1, "format": "raw"}));
    let names = |filter: Value| -> Vec<String> {
        let rows = lab.ok("list-volumes", filter)["volumes"].as_array().unwrap().clone();
        rows.iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(json!({"name": "FILTERED-"})), vec![one.clone(), two.clone()]);
    assert_eq!(names(json!({"name": "filtered-", "format": "raw"})), std::slice::from_ref(&two));
    assert_eq!(names(json!({"name": "filtered-", "state": "attached"})), Vec::<String>::new());
    assert_eq!(names(json!({"name": "filtered-", "state": "available", "pool": "default"})).len(), 2);
    let (code, text) = lab.server.cli(&["volume", "list", "--format", "raw", "--name", "filtered-"]);
    assert!(code == 0 && text.contains(&two) && !text.contains(&one), "{text}");
    assert_eq!(lab.server.cli(&["volume", "list", "--state", "lost"]).0, 2);
    for name in [one, two] {
        assert_eq!(lab.server.cli(&["volume", "delete", &name]), (0, format!("volume {name} is deleted\n")));
    }
}
