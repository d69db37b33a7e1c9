//! The life of a VM: create-vm, start-vm, stop-vm, delete-vm, list-vms, describe-vm, describe-vm-xml.

use crate::lab::{Answer, Lab, SOON, eventually};
use serde_json::{Value, json};
use std::{collections::HashSet, time::Duration};

#[test]
fn a_vm_lives_and_leaves_nothing() {
    let lab = Lab::own();
    let before = lab.files();
    let vm = lab.create_with("life", json!({"tags": {"role": "web"}, "description": "a <b> & c", "disk_gib": 1}));
    assert_eq!(vm.created["state"], "shutoff");
    assert_eq!(vm.created["tags"]["role"], "web");
    assert_eq!(vm.created["disks"][0]["size_gib"], 1.0);

    let vm = vm.start().ready();
    assert_eq!(vm.run("nproc"), "1");
    assert_eq!(vm.run("hostname"), vm.name);
    let address = vm.address();
    assert!(address.starts_with("192.168.122."), "{address}");
    let described = vm.describe();
    assert_eq!(described["state"], "running");
    assert_eq!(described["managed"], true);
    assert_eq!(described["stale"], false);
    assert_eq!(described["disks"][0]["role"], "system");
    assert_eq!(described["disks"][0]["device"], "vda");
    assert_eq!(described["disks"][0]["size_gib"], 1.0);
    assert_eq!(described["disks"].as_array().unwrap().len(), 1, "the seed is not listed");
    assert_eq!(described["networks"][0]["network"], "default");
    let learnt =
        |source: &str| described["networks"][0]["addresses"].as_array().unwrap().iter().any(|a| a["source"] == source);
    assert!(learnt("lease"), "{described}");
    eventually("the agent tells addresses", SOON, || {
        vm.describe()["networks"][0]["addresses"].as_array()?.iter().any(|a| a["source"] == "agent").then_some(())
    });

    let stopped = vm.ok("stop-vm", json!({}));
    assert_eq!((&stopped["forced"], &stopped["vm"]["state"]), (&json!(false), &json!("shutoff")));

    // What was written is there after the next boot.
    let vm = vm.start();
    vm.run("echo kept > /var/kept && sync");
    vm.ok("stop-vm", json!({}));
    let vm = vm.start();
    assert_eq!(vm.run("cat /var/kept"), "kept");

    vm.delete();
    assert_eq!(lab.files(), before);
    assert_eq!(lab.node.virsh(&["list", "--all", "--name"]), "");
}

#[test]
fn states_that_do_not_fit_are_refused() {
    let lab = Lab::shared();
    let vm = lab.create("states");
    vm.err("stop-vm", json!({}), 409, "wrong_state");
    vm.err("stop-vm", json!({"force": true}), 409, "wrong_state");
    let vm = vm.start();
    vm.err("start-vm", json!({}), 409, "wrong_state");
    vm.err("delete-vm", json!({}), 409, "wrong_state");
    let domain = vm.created["domain"].as_str().unwrap();
    lab.node.virsh(&["suspend", domain]);
    assert_eq!(vm.state(), "paused");
    let problem = vm.err("start-vm", json!({}), 409, "wrong_state");
    assert!(problem["hint"].as_str().unwrap().contains("resume-vm"), "{problem}");
    vm.err("delete-vm", json!({}), 409, "wrong_state");
    vm.err("stop-vm", json!({}), 409, "wrong_state");
    assert_eq!(vm.ok("stop-vm", json!({"force": true}))["forced"], true);
    assert_eq!(vm.state(), "shutoff");
}

#[test]
fn a_vm_is_rebooted_paused_and_resumed() {
    let lab = Lab::shared();
    let vm = lab.create("again");
    vm.err("reboot-vm", json!({}), 409, "wrong_state");
    vm.err("pause-vm", json!({}), 409, "wrong_state");
    vm.err("resume-vm", json!({}), 409, "wrong_state");
    let vm = vm.start().ready();
    let boot = || vm.run("cat /proc/sys/kernel/random/boot_id");
    let first = boot();
    let answer = vm.ok("reboot-vm", json!({}));
    assert_eq!((&answer["forced"], &answer["vm"]["state"]), (&json!(false), &json!("running")));
    let second =
        eventually("the guest is up again", Duration::from_secs(90), || Some(boot()).filter(|id| *id != first));
    let answer = vm.ok("reboot-vm", json!({"force": true}));
    assert_eq!(answer["forced"], true);
    eventually("the guest is up again", Duration::from_secs(90), || Some(boot()).filter(|id| *id != second));
    // In its firmware a guest hears nothing: it is reset when the time is over.
    vm.ok("stop-vm", json!({"force": true}));
    vm.ok("start-vm", json!({}));
    let answer = vm.ok("reboot-vm", json!({"timeout_s": 1}));
    assert_eq!(answer["forced"], true);
    let third =
        eventually("the guest is up again", Duration::from_secs(90), || Some(boot()).filter(|id| *id != second));

    assert_eq!(vm.ok("pause-vm", json!({}))["state"], "paused");
    vm.err("pause-vm", json!({}), 409, "wrong_state");
    vm.err("reboot-vm", json!({}), 409, "wrong_state");
    assert_eq!(vm.ok("resume-vm", json!({}))["state"], "running");
    assert_eq!(boot(), third, "the guest ran on where it was");
}

#[test]
fn a_guest_that_does_not_listen_is_forced_off() {
    let lab = Lab::shared();
    let vm = lab.create("deaf").deaf().start();
    let stopped = vm.ok("stop-vm", json!({"timeout_s": 1}));
    assert_eq!(stopped["forced"], true, "{stopped}");
    assert_eq!(vm.state(), "shutoff");
}

#[test]
fn a_forced_stop_ends_a_waiting_one() {
    let lab = Lab::shared();
    let vm = lab.create("superseded").start();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| lab.server.call("stop-vm", json!({"vm": vm.id, "timeout_s": 300})));
        eventually("the stop waits", SOON, || {
            let tasks = lab.ok("list-tasks", json!({"target": vm.id, "method": "stop-vm", "state": "running"}));
            (tasks["total"] == 1).then_some(())
        });
        // The guest may still hear the button: either the first has ended well, or it was superseded.
        let second: Answer = lab.server.call("stop-vm", json!({"vm": vm.id, "force": true}));
        let first = waiting.join().unwrap();
        assert!(first.status == 200 || first.body["code"] == "wrong_state", "{first:?}");
        assert!(second.status == 200 || first.status == 200, "{second:?}");
    });
    assert_eq!(vm.state(), "shutoff");
}

#[test]
fn one_name_is_won_once() {
    let lab = Lab::shared();
    let name = lab.name("contested");
    let request = json!({"name": name, "template": "tiny", "vcpus": 1, "memory_mib": 64});
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..50)
            .map(|n| {
                let mut request = request.clone();
                // Without case it is the same name.
                if n % 2 == 1 {
                    request["name"] = json!(name.to_uppercase());
                }
                scope.spawn(|| lab.server.call("create-vm", request))
            })
            .collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    let (won, lost): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 200);
    assert_eq!(won.len(), 1);
    assert!(lost.iter().all(|answer| answer.body["code"] == "already_exists"), "{lost:?}");
    let listed = lab.ok("list-vms", json!({"name": name}));
    assert_eq!(listed["total"], 1);
    lab.ok("delete-vm", json!({"vm": won[0].body["id"]}));
}

#[test]
fn virsh_sees_what_the_api_describes() {
    let lab = Lab::shared();
    let vm = lab.create_with("same", json!({"max_vcpus": 3, "max_memory_mib": 256, "tags": {"a": "b"}})).start();
    let domain = vm.created["domain"].as_str().unwrap();
    assert!(domain.starts_with(&vm.name) && domain.ends_with(&vm.id[..8]), "{domain}");
    assert_eq!(lab.node.virsh(&["domuuid", domain]), vm.id);
    assert_eq!(lab.node.virsh(&["domstate", domain]), "running");
    let xml = vm.ok("describe-vm-xml", json!({}))["xml"].as_str().unwrap().to_owned();
    assert_eq!(xml.trim(), lab.node.virsh(&["dumpxml", domain]).trim());
    let inactive = vm.ok("describe-vm-xml", json!({"inactive": true}))["xml"].as_str().unwrap().to_owned();
    assert_eq!(inactive.trim(), lab.node.virsh(&["dumpxml", "--inactive", domain]).trim());
    assert!(!inactive.contains("passwd="));
    let secret =
        vm.ok("describe-vm-xml", json!({"inactive": true, "secrets": true}))["xml"].as_str().unwrap().to_owned();
    // VNC is locked by a password that has expired.
    assert!(secret.contains("passwd=") && secret.contains("passwdValidTo="), "{secret}");
    assert!(xml.matches("model='pcie-root-port'").count() >= 16 + 5, "spare ports for hot-plug");
    let described = vm.describe();
    assert_eq!((&described["vcpus"], &described["max_vcpus"]), (&json!(1), &json!(3)));
    assert_eq!((&described["memory_mib"], &described["max_memory_mib"]), (&json!(128), &json!(256)));
    assert_eq!(lab.node.virsh(&["desc", domain, "--title"]), vm.name);
}

#[test]
fn lists_are_filtered_sorted_and_paged() {
    let lab = Lab::shared();
    let mark = lab.name("page");
    let vms: Vec<_> = (0..5)
        .map(|n| {
            lab.create_with(
                &format!("{mark}-{n}"),
                json!({"memory_mib": 64, "tags": {"page": mark, "odd": (n % 2).to_string()}}),
            )
        })
        .collect();
    let all = |more: Value| {
        let (mut seen, mut cursor) = (Vec::new(), Value::Null);
        loop {
            let mut request = json!({"tags": {"page": mark}, "limit": 2, "cursor": cursor});
            request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let page = lab.ok("list-vms", request);
            seen.extend(page["vms"].as_array().unwrap().iter().map(|vm| vm["name"].as_str().unwrap().to_owned()));
            cursor = page["next_cursor"].clone();
            if cursor.is_null() {
                return seen;
            }
        }
    };
    let names: Vec<_> = vms.iter().map(|vm| vm.name.clone()).collect();
    assert_eq!(all(json!({})), names);
    let mut reversed = names.clone();
    reversed.reverse();
    assert_eq!(all(json!({"sort": "-name"})), reversed);
    assert_eq!(all(json!({"sort": "-created_at"})), reversed);
    let by_tag = all(json!({"sort": "tag:odd"}));
    assert_eq!(by_tag.iter().collect::<HashSet<_>>().len(), 5);
    assert_eq!(by_tag[0], names[0]);
    assert_eq!(by_tag[4], names[3]);
    assert_eq!(lab.ok("list-vms", json!({"name": mark.to_uppercase()}))["total"], 5);
    assert_eq!(lab.ok("list-vms", json!({"tags": {"page": mark, "odd": "1"}}))["total"], 2);
    assert_eq!(lab.ok("list-vms", json!({"tags": {"page": mark}, "state": "running"}))["total"], 0);
    assert_eq!(lab.ok("list-vms", json!({"tags": {"page": mark}, "state": "shutoff", "node": "local"}))["total"], 5);
    lab.err("list-vms", json!({"sort": "colour"}), 400, "invalid");
    lab.err("list-vms", json!({"cursor": "!"}), 400, "invalid");
    lab.err("list-vms", json!({"node": "nowhere"}), 404, "not_found");
}

#[test]
fn a_start_that_fails_leaves_the_vm_off_and_says_why() {
    let lab = Lab::shared();
    let vm = lab.create("broken");
    let path = vm.describe()["disks"][0]["path"].as_str().unwrap().to_owned();
    std::fs::rename(&path, format!("{path}.away")).unwrap();
    let problem = vm.err("start-vm", json!({}), 422, "unsupported");
    assert!(problem["detail"].as_str().unwrap().contains(&path), "{problem}");
    assert_eq!(vm.state(), "shutoff");
    std::fs::rename(format!("{path}.away"), &path).unwrap();
    vm.start().delete();
}

#[test]
fn a_hung_qemu_costs_only_its_own_vm() {
    let lab = Lab::own();
    let hung = lab.create("hung").start();
    let pid = hung.qemu();
    let signal =
        |name: &str| assert!(std::process::Command::new("kill").args([name, &pid]).status().unwrap().success());
    signal("-STOP");
    std::thread::scope(|scope| {
        // Callers who give up one after another, as users do.
        let calls: Vec<_> = (0..5)
            .map(|_| scope.spawn(|| lab.server.call("stop-vm", json!({"vm": hung.id, "timeout_s": 1, "wait": false}))))
            .collect();
        for _ in 0..4 {
            let begun = std::time::Instant::now();
            let other = lab.create("other");
            other.ok("start-vm", json!({}));
            other.delete();
            assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
        }
        calls.into_iter().for_each(|call| drop(call.join().unwrap()));
    });
    assert_eq!(lab.ok("list-storage-pools", json!({}))["unreachable"], json!([]));
    // A forced stop takes the place of one that waits, and needs no answer of QEMU's.
    let begun = std::time::Instant::now();
    let answer = lab.server.call("stop-vm", json!({"vm": hung.id, "force": true}));
    assert!(answer.status == 200 || hung.state() == "shutoff", "{answer:?}");
    assert!(begun.elapsed() < Duration::from_secs(40), "{:?}", begun.elapsed());
}
