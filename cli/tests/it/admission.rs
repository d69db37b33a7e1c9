//! Capacity: two calls can't both take the last of it.

use crate::lab::Lab;
use serde_json::json;

#[test]
fn the_last_gibibyte_is_given_once() {
    // A node with a little over 1 GiB for guests, whatever the machine has.
    let memory = crate::lab::eventually("the machine's memory", crate::lab::SOON, || {
        let text = std::fs::read_to_string("/proc/meminfo").ok()?;
        text.split_whitespace().nth(1)?.parse::<u64>().ok()
    }) / 1024;
    let lab = Lab::with_settings(&format!("reserved_memory_mib = {}\ncpu_overcommit = 2.0", memory - 1100));
    let node = lab.ok("describe-node", json!({"node": "local"}));
    assert!((1000..1200).contains(&node["free_memory_mib"].as_u64().unwrap()), "{node}");

    let vms: Vec<_> = (0..2).map(|n| lab.create_with(&format!("half-{n}"), json!({"memory_mib": 600}))).collect();
    let answers: Vec<_> = std::thread::scope(|scope| {
        let calls: Vec<_> =
            vms.iter().map(|vm| scope.spawn(|| lab.server.call("start-vm", json!({"vm": vm.id})))).collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    let refused: Vec<_> = answers.iter().filter(|answer| answer.status != 200).collect();
    assert_eq!(refused.len(), 1, "{answers:?}");
    assert_eq!(refused[0].body["code"], "no_capacity");
    assert!(refused[0].body["detail"].as_str().unwrap().contains("600 MiB are asked for"), "{refused:?}");

    // A VM must be able to start when it is created; a paused one still holds its memory.
    lab.err(
        "create-vm",
        json!({"name": "more", "template": "tiny", "vcpus": 1, "memory_mib": 600}),
        409,
        "no_capacity",
    );
    let running = vms.iter().find(|vm| vm.state() == "running").unwrap();
    lab.node.virsh(&["suspend", running.created["domain"].as_str().unwrap()]);
    lab.err(
        "create-vm",
        json!({"name": "more", "template": "tiny", "vcpus": 1, "memory_mib": 600}),
        409,
        "no_capacity",
    );
    let cpus = node["cpus"].as_u64().unwrap();
    let many = json!({"name": "many", "template": "tiny", "vcpus": (cpus * 2).min(255), "memory_mib": 64});
    lab.err("create-vm", many, 409, "no_capacity");

    running.ok("stop-vm", json!({"force": true}));
    assert_eq!(lab.ok("describe-node", json!({"node": "local"}))["used_memory_mib"], 0);
    let other = vms.iter().find(|vm| vm.id != running.id).unwrap();
    other.ok("start-vm", json!({}));
}
