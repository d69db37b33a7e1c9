//! A storage pool that gets full in the middle of what is done with snapshots.

use crate::{
    lab::{Lab, Server, eventually, trouble::small_pool},
    random::register_blank,
};
use serde_json::{Value, json};
use std::{process::Command, time::Duration};

/// A node with a pool `small`, on a file system of 100 MiB that only the node and the server see.
struct Full {
    lab: Lab,
    pid: String,
    path: String,
}

impl Full {
    fn new() -> Full {
        let mut lab = Lab::own();
        let (pid, path) = (lab.node.command("pid libvirtd"), small_pool(&lab.node, "100m"));
        assert!(lab.server.terminate());
        lab.server = Server::start_within(&lab.dir.path, &["nsenter", "-t", &pid, "-m", "--"], &[]);
        let full = Full { lab, pid, path };
        register_blank(&full.lab);
        let vm = json!({"name": "full", "template": "blank", "vcpus": 1, "memory_mib": 64, "pool": "small"});
        full.lab.ok("create-vm", vm);
        full.lab.ok("create-volume", json!({"name": "data", "size_gib": 1, "pool": "small"}));
        full.lab.ok("attach-volume", json!({"vm": "full", "volume": "data"}));
        full
    }

    /// Runs a program where the file system is; returns what it prints.
    #[track_caller]
    fn run(&self, args: &[&str]) -> String {
        let output = Command::new("nsenter").args(["-t", &self.pid, "-m", "--"]).args(args).output().unwrap();
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{args:?}: {text}");
        text
    }

    /// Fills the pool but for so many KiB. libvirt is not told.
    fn fill(&self, but_for_kib: u64) {
        let free = self.run(&["stat", "-f", "-c", "%a %S", &self.path]);
        let (blocks, size) = free.trim().split_once(' ').unwrap();
        let free = blocks.parse::<u64>().unwrap() * size.parse::<u64>().unwrap() / 1024;
        self.run(&["fallocate", "-l", &format!("{}K", free - but_for_kib), &format!("{}/fill", self.path)]);
    }

    fn empty(&self) {
        self.run(&["rm", &format!("{}/fill", self.path)]);
    }

    fn files(&self) -> String {
        self.run(&["ls", &self.path])
    }

    /// Does something with 8 MiB of the data volume.
    #[track_caller]
    fn data(&self, what: &str, pattern: u8, place: &str) {
        let volume = self.lab.ok("describe-volume", json!({"volume": "data"}));
        let line = format!("{what} -P {pattern} {place} 8M");
        // A merge may be at work on it.
        let how: &[&str] = if what == "read" { &["-r", "-U"] } else { &[] };
        let path = volume["path"].as_str().unwrap();
        let said = self.run(&[&["qemu-io"], how, &["-f", "qcow2", "-c", &line, path]].concat());
        assert!(!said.contains("failed"), "{line}: {said}");
    }

    fn snapshots(&self) -> Vec<Value> {
        self.lab.ok("list-snapshots", json!({"vm": "full"}))["snapshots"].as_array().unwrap().clone()
    }

    fn wait_until_gone(&self) {
        eventually("the snapshot is gone", Duration::from_secs(100), || self.snapshots().is_empty().then_some(()));
    }
}

#[test]
fn the_memory_finds_no_room() {
    let full = Full::new();
    let lab = &full.lab;
    lab.ok("start-vm", json!({"vm": "full"}));
    let (before, body) = (full.files(), json!({"vm": "full", "name": "awake", "memory": true}));
    // The overlays fit, the memory doesn't.
    full.fill(1024);
    let problem = lab.err("create-snapshot", body.clone(), 409, "no_capacity");
    assert!(full.snapshots().is_empty(), "{problem}");
    assert_eq!(lab.ok("describe-vm", json!({"vm": "full"}))["state"], "running");
    full.empty();
    assert_eq!(full.files(), before);
    // Now libvirt knows: refused before anything is made.
    full.fill(1024);
    lab.node.virsh(&["pool-refresh", "small"]);
    let problem = lab.err("create-snapshot", body.clone(), 409, "no_capacity");
    assert!(problem["detail"].as_str().unwrap().contains("the memory may take 64"), "{problem}");
    full.empty();
    lab.node.virsh(&["pool-refresh", "small"]);
    lab.ok("create-snapshot", body);
    lab.ok("stop-vm", json!({"vm": "full", "force": true}));
    lab.ok("delete-vm", json!({"vm": "full", "delete_snapshots": true, "delete_volumes": true}));
    assert_eq!(full.files(), "");
}

#[test]
fn a_merge_and_a_copy_find_no_room() {
    let full = Full::new();
    let lab = &full.lab;
    full.data("write", 1, "0");
    lab.ok("create-snapshot", json!({"vm": "full", "name": "one"}));
    full.data("write", 2, "16M");
    full.fill(2048);
    lab.err("clone-volume", json!({"volume": "data", "name": "copy"}), 409, "no_capacity");
    lab.err("describe-volume", json!({"volume": "copy"}), 404, "not_found");
    // What the upper image needs of the lower one doesn't fit: it goes when it does.
    let gone = lab.ok("delete-snapshot", json!({"vm": "full", "snapshot": "one"}));
    assert!(gone["pending"].as_str().is_some_and(|why| why.contains("No space left")), "{gone}");
    assert_eq!(full.snapshots()[0]["state"], "deleting");
    lab.err("describe-snapshot", json!({"vm": "full", "snapshot": "one"}), 404, "not_found");
    full.data("read", 1, "0");
    full.data("read", 2, "16M");
    full.empty();
    full.wait_until_gone();
    full.data("read", 1, "0");
    full.data("read", 2, "16M");
    // Running, the lower one grows.
    lab.ok("create-snapshot", json!({"vm": "full", "name": "two"}));
    full.data("write", 3, "32M");
    lab.ok("start-vm", json!({"vm": "full"}));
    full.fill(1024);
    let gone = lab.ok("delete-snapshot", json!({"vm": "full", "snapshot": "two"}));
    assert!(gone["pending"].is_string(), "{gone}");
    assert_eq!(lab.ok("describe-vm", json!({"vm": "full"}))["state"], "running");
    full.empty();
    full.wait_until_gone();
    lab.ok("stop-vm", json!({"vm": "full", "force": true}));
    for (pattern, place) in [(1, "0"), (2, "16M"), (3, "32M")] {
        full.data("read", pattern, place);
    }
    lab.ok("delete-vm", json!({"vm": "full", "delete_volumes": true}));
    assert_eq!(full.files(), "");
}
