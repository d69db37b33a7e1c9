//! Nodes: list-nodes, describe-node; one that is away stops nobody.

use crate::lab::{Directory, Lab, SOON, Server};
use serde_json::json;
use std::fs;

#[test]
fn a_node_tells_what_it_is() {
    let lab = Lab::shared();
    let nodes = lab.ok("list-nodes", json!({}));
    assert_eq!(nodes["total"], 1);
    let node = lab.ok("describe-node", json!({"node": "local"}));
    assert_eq!((&node["state"], &node["virt_type"], &node["arch"]), (&json!("up"), &json!("qemu"), &json!("x86_64")));
    assert_eq!(
        node["id"].as_str().unwrap(),
        lab.node.virsh(&["capabilities"]).split("<uuid>").nth(1).unwrap().split('<').next().unwrap()
    );
    assert_eq!(lab.ok("describe-node", json!({"node": node["id"]}))["name"], "local");
    assert!(lab.node.virsh(&["version"]).contains(node["libvirt_version"].as_str().unwrap()));
    // The host's own memory, not what virNodeGetInfo makes of it.
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap();
    let kib: u64 = meminfo.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert_eq!(node["memory_mib"].as_u64().unwrap(), kib / 1024);
    lab.err("describe-node", json!({"node": "nowhere"}), 404, "not_found");
}

#[test]
fn nodes_that_are_away_do_not_stop_the_server() {
    let dir = Directory::new();
    let config = "[nodes.refusing]\nuri = \"qemu+tcp://127.0.0.1:1/system\"\n\
                  [nodes.missing]\nuri = \"qemu+unix:///system?socket=/nonexistent/libvirt-sock\"\n\
                  [nodes.secret]\nuri = \"qemu+tcp://root:hunter2@127.0.0.1:1/system\"\n";
    fs::write(dir.path.join("vmyard.toml"), config).unwrap();
    let mut server = Server::start(&dir.path, &[]);
    for name in ["refusing", "missing"] {
        crate::lab::eventually("the node is known to be down", SOON, || {
            let node = server.call("describe-node", json!({"node": name})).body;
            (node["state"] == "down" && node["error"].is_string()).then_some(())
        });
    }
    let answer = server.call("list-vms", json!({}));
    assert_eq!((answer.status, &answer.body["total"]), (200, &json!(0)));
    let pools = server.call("list-storage-pools", json!({}));
    assert_eq!((pools.status, pools.body["unreachable"].as_array().unwrap().len()), (200, 3));
    let nodes = server.call("list-nodes", json!({})).body.to_string();
    assert!(!nodes.contains("hunter2") && !server.log().contains("hunter2"), "{nodes}");
    assert!(server.terminate(), "it ends well although nodes are away");
}

#[test]
fn two_servers_do_not_share_a_directory() {
    let lab = Lab::shared();
    let (code, text) = lab.server.cli(&["serve", "--listen", "127.0.0.1:0", "--node", "x=test:///default"]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("another vmyard"), "{text}");
    let (code, text) = lab.server.cli(&["serve", "--listen", "0.0.0.0:0", "--data-dir", "/tmp/vmyard-test-never"]);
    assert!(code == 1 && text.contains("--insecure"), "{text}");
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let dir = Directory::new();
    let file = dir.path.join("bad.toml");
    for (settings, key) in [
        ("uri = \"qemu:///system\"\ncpu_overcommit = -1.0", "nodes.n.cpu_overcommit"),
        ("uri = \"qemu:///system\"\nmemory_overcommit = nan", "nodes.n.memory_overcommit"),
        ("uri = \"qemu:///system\"\ncpu_overcommit = inf", "nodes.n.cpu_overcommit"),
        ("uri = \"junk\"", "nodes.n.uri"),
        ("uri = \"qemu:///system\"\ndefault_pool_path = \"images\"", "nodes.n.default_pool_path"),
        ("uri = \"qemu:///system\"\ncolour = 1", "colour"),
    ] {
        fs::write(&file, format!("[nodes.n]\n{settings}\n")).unwrap();
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_vmyard"))
            .args(["serve", "--listen", "127.0.0.1:0", "--config"])
            .arg(&file)
            .arg("--data-dir")
            .arg(dir.path.join("data"))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && text.contains(key), "{settings}: {text}");
    }
}

#[test]
fn a_remote_node_is_the_same_as_a_local_one() {
    // Its template is copied from a file in no pool, through libvirt's streams alone.
    let lab = Lab::remote();
    assert!(lab.ok("describe-node", json!({"node": "local"}))["uri"].as_str().unwrap().starts_with("qemu+tcp://"));
    assert!(!lab.node.virsh(&["pool-list", "--all", "--name"]).contains("lookup"));
    let vm = lab.create("far").start().ready();
    assert_eq!(vm.run("hostname"), vm.name);
    assert_eq!(vm.ok("stop-vm", json!({}))["forced"], false);
    vm.delete();
    assert_eq!(lab.files(), Vec::<String>::new());
}

/// How often the thread that waits for libvirt's events has slept.
fn sleeps(lab: &Lab) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{}/task", lab.server.pid())).unwrap();
    let statuses = tasks.map(|task| fs::read_to_string(task.unwrap().path().join("status")).unwrap_or_default());
    let status = statuses.into_iter().find(|status| status.contains("libvirt-events")).unwrap();
    let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn calls_do_not_wake_the_thread_of_events() {
    let lab = Lab::own();
    let before = sleeps(&lab);
    for _ in 0..100 {
        lab.ok("list-networks", json!({}));
    }
    let slept = sleeps(&lab) - before;
    // Keep-alive and what happens on the node do; libvirt's own loop is woken over a thousand times.
    assert!(slept < 50, "{slept} times");
}
