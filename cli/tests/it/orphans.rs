//! What is left over on nodes: list-orphans and clean-orphans.
//!
//! Orphans are made as they come about: a host is forgotten with its VMs (delete-node with `forget_vms`) and comes back.

use crate::lab::{Directory, Lab, NodeProcess, SOON, Server, eventually, request};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// A lab with a second node, `far`.
fn with_far() -> (Lab, NodeProcess) {
    let lab = Lab::own();
    let far = NodeProcess::start(&lab.dir.path.join("far"));
    lab.ok("add-node", far.add_request("far"));
    (lab, far)
}

/// Forgets the node `far` with all that is on it, and adds it again.
fn forget_and_add(lab: &Lab, far: &NodeProcess) {
    far.command("kill-libvirtd");
    eventually("the node is down", SOON, || {
        (lab.ok("describe-node", json!({"node": "far"}))["state"] == "down").then_some(())
    });
    lab.ok("disable-node", json!({"node": "far"}));
    lab.ok("delete-node", json!({"node": "far", "forget_vms": true}));
    far.command("start-libvirtd");
    lab.ok("add-node", far.add_request("far"));
}

#[track_caller]
fn orphans(lab: &Lab) -> Vec<Value> {
    let listed = lab.ok("list-orphans", json!({}));
    assert_eq!(listed["unreachable"], json!([]), "{listed}");
    listed["orphans"].as_array().unwrap().clone()
}

#[track_caller]
fn orphan(lab: &Lab, id: &str) -> Value {
    let all = orphans(lab);
    all.iter().find(|one| one["id"] == id).unwrap_or_else(|| panic!("{id} is not among {all:?}")).clone()
}

fn ids(rows: &Value) -> BTreeSet<String> {
    rows.as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
}

/// Why clean-orphans keeps what it is asked to delete.
#[track_caller]
fn kept(lab: &Lab, id: &str) -> String {
    let cleaned = lab.ok("clean-orphans", json!({"orphans": [id]}));
    assert_eq!(
        (ids(&cleaned["kept"]), &cleaned["deleted"]),
        (BTreeSet::from([id.to_owned()]), &json!([])),
        "{cleaned}"
    );
    cleaned["kept"][0]["why"].as_str().unwrap().to_owned()
}

fn files(node: &NodeProcess) -> Vec<PathBuf> {
    let pools = ["default", "seeds"].map(|pool| node.dir.join("pools").join(pool));
    let entries = pools.iter().flat_map(|pool| fs::read_dir(pool).unwrap());
    let all = entries.map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = all.filter(|path| path.extension().is_none_or(|end| end != "manifest")).collect();
    files.sort();
    files
}

fn overlay(path: &Path, backing: &str) {
    let status = Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", backing, path.to_str().unwrap()])
        .status();
    assert!(status.unwrap().success());
}

/// Defines a domain that Vmyard doesn't manage, with more in its XML.
fn define(lab: &Lab, node: &NodeProcess, name: &str, os: &str, more: &str) {
    let file = lab.dir.path.join(format!("{name}.xml"));
    let xml = format!(
        "<domain type='qemu'><name>{name}</name><memory unit='MiB'>64</memory><vcpu>1</vcpu>
         <os><type arch='x86_64' machine='q35'>hvm</type>{os}</os>{more}</domain>"
    );
    fs::write(&file, xml).unwrap();
    node.virsh(&["define", file.to_str().unwrap()]);
}

fn disk(path: &str) -> String {
    format!(
        "<devices><disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{path}'/>
         <target dev='vda' bus='virtio'/></disk></devices>"
    )
}

#[test]
fn nothing_that_lives_is_listed() {
    let (lab, far) = with_far();
    let empty = |when: &str| assert_eq!(orphans(&lab), Vec::<Value>::new(), "{when}");
    empty("at first");
    let vm = lab.create_with("rich", json!({"firmware": "uefi"})).start();
    empty("a VM with UEFI runs");
    for name in ["data", "loose"] {
        lab.ok("create-volume", json!({"name": name, "size_gib": 1, "node": "local"}));
    }
    vm.ok("attach-volume", json!({"volume": "data"}));
    vm.ok("create-snapshot", json!({"name": "with-memory", "memory": true}));
    vm.ok("create-snapshot", json!({"name": "later"}));
    empty("snapshots, data volumes and memory");
    lab.ok("create-vm", request("away", json!({"node": "far"})));
    lab.ok("create-volume", json!({"name": "over", "template": "tiny", "node": "local"}));
    empty("a template with two copies");

    // Images are copied out of snapshots only where the node is this machine.
    let local = std::env::var_os("VMYARD_TEST_REMOTE").is_none();
    let template = if local { "of" } else { "tiny" };
    // Whatever is at work, while it is at work.
    std::thread::scope(|scope| {
        let work = scope.spawn(|| {
            for _ in 0..3 {
                lab.ok("clone-volume", json!({"volume": "over", "name": "copy"}));
                if local {
                    lab.ok("register-template", json!({"name": "of", "volume": "copy"}));
                }
                let more = json!({"template": template, "firmware": "uefi", "start": true, "node": "local"});
                lab.ok("create-vm", request("mayfly", more));
                lab.ok("create-snapshot", json!({"vm": "mayfly", "name": "s", "memory": true}));
                lab.ok("stop-vm", json!({"vm": "mayfly", "force": true}));
                lab.ok("revert-to-snapshot", json!({"vm": "mayfly", "snapshot": "s"}));
                lab.ok("stop-vm", json!({"vm": "mayfly", "force": true}));
                lab.ok("reset-vm-system", json!({"vm": "mayfly"}));
                lab.ok("delete-vm", json!({"vm": "mayfly", "delete_snapshots": true}));
                if local {
                    lab.ok("delete-template", json!({"template": "of"}));
                }
                lab.ok("delete-volume", json!({"volume": "copy"}));
            }
        });
        while !work.is_finished() {
            empty("while things come and go");
        }
        work.join().unwrap();
    });
    vm.ok("stop-vm", json!({"force": true}));
    vm.ok("revert-to-snapshot", json!({"snapshot": "later", "backup": "before"}));
    vm.ok("reset-vm-system", json!({}));
    empty("a revert and a reset");
    vm.ok("delete-snapshot", json!({"snapshot": "later"}));
    let id = vm.id.clone();
    lab.ok("delete-vm", json!({"vm": id}));
    empty("snapshots that outlive their VM");
    let before = files(&lab.node);
    let cleaned = lab.ok("clean-orphans", json!({}));
    assert_eq!((&cleaned["deleted"], &cleaned["kept"]), (&json!([]), &json!([])), "{cleaned}");
    assert_eq!(files(&lab.node), before);
    let snapshot = lab.ok("create-snapshot", json!({"vm": "away", "name": "stays"}))["id"].clone();
    lab.ok("delete-vm", json!({"vm": "away"}));
    // Without its VMs a host is taken away and comes back: the copy of the template there is nobody's then.
    lab.ok("disable-node", json!({"node": "far"}));
    let problem = lab.err("delete-node", json!({"node": "far"}), 409, "in_use");
    assert!(problem["detail"].as_str().unwrap().contains("snapshots of Vmyard's are on node far"), "{problem}");
    lab.ok("delete-snapshot", json!({"snapshot": snapshot}));
    lab.ok("delete-node", json!({"node": "far"}));
    empty("a node that is not known");
    // Its name says nothing: it may have another one now.
    lab.ok("add-node", far.add_request("elsewhere"));
    let left = orphans(&lab);
    assert_eq!(
        (left.len(), &left[0]["kind"], &left[0]["node"]),
        (1, &json!("template"), &json!("elsewhere")),
        "{left:?}"
    );
    assert_eq!(left[0]["cleanable"], true, "{left:?}");
}

#[test]
fn what_a_host_has_that_was_forgotten_is_found_and_cleaned() {
    let (lab, far) = with_far();
    let vm = lab.ok("create-vm", request("lost", json!({"node": "far", "firmware": "uefi", "start": true})));
    lab.ok("create-snapshot", json!({"vm": "lost", "name": "s", "memory": true}));
    lab.ok("create-volume", json!({"name": "data", "size_gib": 1, "node": "far"}));
    lab.ok("attach-volume", json!({"vm": "lost", "volume": "data"}));
    lab.ok("create-vm", request("kept", json!({"node": "local"})));
    let local = files(&lab.node);
    forget_and_add(&lab, &far);
    let id = vm["id"].as_str().unwrap();

    // It runs: it and what it uses stay.
    let domain = orphan(&lab, id);
    assert_eq!(
        (&domain["kind"], &domain["domain"], &domain["cleanable"]),
        (&json!("domain"), &vm["domain"], &json!(false))
    );
    assert!(domain["why_not"].as_str().unwrap().contains("stop-vm"), "{domain}");
    let before = files(&far);
    let cleaned = lab.ok("clean-orphans", json!({}));
    let mut deleted: Vec<_> =
        cleaned["deleted"].as_array().unwrap().iter().map(|one| one["kind"].as_str().unwrap()).collect();
    deleted.sort();
    assert_eq!(deleted, ["memory", "nvram"], "{cleaned}");
    assert!(
        cleaned["kept"].to_string().contains(&format!("in use by domain {}", vm["domain"].as_str().unwrap())),
        "{cleaned}"
    );
    assert_eq!(files(&far).len(), before.len() - 2);

    // Off, with a state that its user has saved: libvirt would throw that away with the definition.
    let name = vm["domain"].as_str().unwrap();
    far.virsh(&["managedsave", name]);
    eventually("it is off", SOON, || (orphan(&lab, id)["cleanable"] == true).then_some(()));
    let cleaned = lab.ok("clean-orphans", json!({"node": "far"}));
    assert_eq!(cleaned["deleted"], json!([]), "{cleaned}");
    assert!(cleaned["kept"][0]["why"].as_str().unwrap().contains("managed save"), "{cleaned}");
    assert_eq!(files(&far).len(), before.len() - 2);
    far.virsh(&["managedsave-remove", name]);
    // With variables that Vmyard didn't make: libvirt would delete them with the definition.
    let theirs = lab.dir.path.join("theirs.fd");
    let own = far.dir.join(format!("pools/default/{id}.nvram.fd"));
    fs::copy(&own, &theirs).unwrap();
    let xml = far.virsh(&["dumpxml", "--inactive", name]).replace(own.to_str().unwrap(), theirs.to_str().unwrap());
    fs::write(lab.dir.path.join("edited.xml"), xml).unwrap();
    far.virsh(&["define", lab.dir.path.join("edited.xml").to_str().unwrap()]);

    let all = orphans(&lab);
    let kinds = |rows: &[Value]| -> Vec<String> {
        let mut kinds: Vec<_> = rows.iter().map(|one| one["kind"].as_str().unwrap().to_owned()).collect();
        kinds.sort();
        kinds
    };
    // Two images of the system disk, since there is a snapshot; the log of the serial line and the seed.
    assert_eq!(kinds(&all), ["domain", "nvram", "seed", "seed", "template", "volume", "volume", "volume"], "{all:?}");
    for one in &all {
        assert_eq!(
            (&one["cleanable"], &one["why_not"], &one["node"]),
            (&json!(true), &Value::Null, &json!("far")),
            "{one}"
        );
        assert!(one["made_at"].is_string() && one["made_by"]["task"].is_string(), "{one}");
        let evidence = one["evidence"].as_str().unwrap();
        assert!(evidence.contains(one["made_by"]["method"].as_str().unwrap()), "{one}");
        match one["kind"].as_str().unwrap() {
            "domain" => assert!(one["path"].is_null() && evidence.contains("create-vm of vm lost"), "{one}"),
            "template" => assert!(evidence.contains("copy-template of template tiny"), "{one}"),
            _ => assert!(one["pool"].is_string() && one["size_bytes"].is_u64() && one["path"] == one["id"], "{one}"),
        }
    }
    let of_kind = lab.ok("list-orphans", json!({"kind": "nvram", "node": "far"}));
    assert_eq!((&of_kind["total"], &of_kind["orphans"][0]["kind"]), (&json!(1), &json!("nvram")));
    assert_eq!(lab.ok("list-orphans", json!({"node": "local"}))["total"], 0);
    let page = lab.ok("list-orphans", json!({"limit": 5}));
    let rest = lab.ok("list-orphans", json!({"limit": 5, "cursor": page["next_cursor"]}));
    assert_eq!((page["orphans"].as_array().unwrap().len(), rest["orphans"].as_array().unwrap().len()), (5, 3));

    // What is below goes only together with what is above.
    let template = all.iter().find(|one| one["kind"] == "template").unwrap()["id"].as_str().unwrap();
    assert!(kept(&lab, template).contains("image "), "an image stands on the template's");
    let nvram = of_kind["orphans"][0]["id"].as_str().unwrap();
    let has = |one: &&Value, who: &str| one["referrers"].to_string().contains(who);
    let volume = all.iter().find(|one| one["kind"] == "volume" && has(one, "domain ")).unwrap()["id"].as_str().unwrap();
    assert!(kept(&lab, volume).contains("domain "), "the domain has it");
    let before = files(&far);
    let plan = lab.ok("clean-orphans", json!({"node": "far", "plan": true}))["plan"].clone();
    assert_eq!((plan["deletes"].as_array().unwrap().len(), &plan["deletes"][0]), (8, &json!(id)), "{plan}");
    assert_eq!((files(&far), orphans(&lab)), (before, all.clone()));
    let cleaned = lab.ok("clean-orphans", json!({"node": "far"}));
    assert_eq!(
        cleaned["deleted"].as_array().unwrap().iter().map(|one| &one["id"]).collect::<Vec<_>>(),
        plan["deletes"].as_array().unwrap().iter().collect::<Vec<_>>()
    );
    assert!(cleaned["freed_bytes"].as_u64().unwrap() > 0 && cleaned["kept"] == json!([]), "{cleaned}");
    assert_eq!((files(&far), far.virsh(&["list", "--all", "--name"])), (Vec::new(), String::new()));
    assert!(theirs.exists());
    assert_eq!(lab.ok("list-vms", json!({}))["total"], 1);
    assert_eq!(orphans(&lab), Vec::<Value>::new());
    // Again: there is nothing left, and what is named is not there.
    assert_eq!(lab.ok("clean-orphans", json!({}))["deleted"], json!([]));
    assert!(kept(&lab, nvram).contains("no such orphan"));
    assert_eq!(files(&lab.node), local);
    // The template is copied there again.
    lab.ok("create-vm", request("lost", json!({"node": "far"})));
    assert_eq!(orphans(&lab), Vec::<Value>::new());
}

#[test]
fn what_vmyard_did_not_make_stays() {
    let lab = Lab::own();
    let vm = lab.create("ours").start();
    lab.ok("create-volume", json!({"name": "data", "size_gib": 1}));
    let foreign = lab.node.dir.join("pools/default/0193d1f0-6c1a-7a44-8d2e-0c3f5a5b7e11.qcow2");
    let seed = lab.node.dir.join("pools/seeds/0193d1f0-6c1a-7a44-8d2e-0c3f5a5b7e12.iso");
    let named = lab.node.dir.join("pools/default/old-web.qcow2");
    for path in [&foreign, &seed, &named] {
        fs::write(path, [7; 4096]).unwrap();
    }
    let metadata = "<metadata><vmyard:vm xmlns:vmyard='urn:vmyard:domain:1' name='x' created-at='1'/></metadata>";
    define(&lab, &lab.node, "likeness", "", metadata);
    let domain = lab.node.virsh(&["domuuid", "likeness"]);
    let wanted = BTreeSet::from([foreign.display().to_string(), seed.display().to_string(), domain]);
    let rows = lab.ok("list-orphans", json!({}))["orphans"].clone();
    assert_eq!(ids(&rows), wanted);
    for one in rows.as_array().unwrap() {
        assert_eq!((&one["cleanable"], &one["made_by"], &one["made_at"]), (&json!(false), &Value::Null, &Value::Null));
        assert!(one["why_not"].as_str().unwrap().contains("another Vmyard"), "{one}");
        assert!(kept(&lab, one["id"].as_str().unwrap()).contains("another Vmyard"));
    }
    let cleaned = lab.ok("clean-orphans", json!({}));
    assert_eq!((&cleaned["deleted"], ids(&cleaned["kept"])), (&json!([]), wanted), "{cleaned}");
    assert!(foreign.exists() && seed.exists() && named.exists());
    for other in [named.to_str().unwrap(), "/etc/passwd", "old-web.qcow2", &vm.id, &vm.name] {
        assert!(kept(&lab, other).contains("no such orphan"), "{other}");
    }

    // Another Vmyard on the same host knows of nothing here that it has made, and takes nothing away.
    let dir = Directory::new();
    fs::write(dir.path.join("vmyard.toml"), lab.node.config("")).unwrap();
    let other = Server::start(&dir.path, &[]);
    let before = files(&lab.node);
    let answer = eventually("the other one sees the node", SOON, || {
        let listed = other.call("list-orphans", json!({})).body;
        (listed["unreachable"] == json!([])).then_some(listed)
    });
    let seen = ids(&answer["orphans"]);
    let of_vm: BTreeSet<String> =
        before.iter().map(|path| path.display().to_string()).filter(|path| path.contains(&vm.id)).collect();
    assert!(seen.contains(&vm.id) && seen.is_superset(&of_vm), "{answer}");
    assert!(answer["orphans"].as_array().unwrap().iter().all(|one| one["cleanable"] == false), "{answer}");
    let cleaned = other.call("clean-orphans", json!({})).body;
    assert_eq!((&cleaned["deleted"], ids(&cleaned["kept"])), (&json!([]), seen), "{cleaned}");
    assert_eq!(files(&lab.node), before);
    assert_eq!(vm.state(), "running");
}

#[test]
fn what_others_use_stays_and_it_is_said_who() {
    let (lab, far) = with_far();
    let volumes: Vec<String> = (0..7)
        .map(|n| {
            let body = json!({"name": format!("v{n}"), "size_gib": 1, "node": "far"});
            lab.ok("create-volume", body)["path"].as_str().unwrap().to_owned()
        })
        .collect();
    forget_and_add(&lab, &far);
    assert!(orphans(&lab).iter().all(|one| one["cleanable"] == true));
    let names = |path: &str| path.rsplit('/').next().unwrap().to_owned();

    // By its definition: as a disk, as a volume of a pool, as a kernel; while it runs, though its definition has let go of it.
    define(&lab, &far, "has-it", "", &disk(&volumes[0]));
    let by_pool = format!(
        "<devices><disk type='volume' device='disk'><driver name='qemu' type='qcow2'/>
         <source pool='default' volume='{}'/><target dev='vda' bus='virtio'/></disk></devices>",
        names(&volumes[1])
    );
    define(&lab, &far, "by-pool", "", &by_pool);
    define(&lab, &far, "boots-it", &format!("<kernel>{}</kernel>", volumes[2]), "");
    define(&lab, &far, "runs-on-it", "", &disk(&volumes[3]));
    far.virsh(&["start", "runs-on-it"]);
    far.virsh(&["detach-disk", "runs-on-it", "vda", "--config"]);
    // By an image of somebody else's that stands on it, by its absolute or its relative path.
    let over = far.dir.join("pools/default/theirs.qcow2");
    overlay(&over, &volumes[4]);
    let relative = far.dir.join("pools/default/theirs-too.qcow2");
    overlay(&relative, &names(&volumes[5]));
    for (n, who) in [
        (0, "domain has-it"),
        (1, "domain by-pool"),
        (2, "domain boots-it"),
        (3, "domain runs-on-it"),
        (4, over.to_str().unwrap()),
        (5, relative.to_str().unwrap()),
    ] {
        let one = orphan(&lab, &volumes[n]);
        assert!(one["referrers"][0].as_str().unwrap().contains(who) && one["cleanable"] == false, "{one}");
        assert!(one["why_not"].as_str().unwrap().contains(who), "{one}");
        assert!(kept(&lab, &volumes[n]).contains(who), "{who}");
        assert!(Path::new(&volumes[n]).exists(), "{who}");
    }
    // What can't be seen may stand on any image.
    let stopped = far.dir.join("pools/stopped");
    far.virsh(&["pool-define-as", "stopped", "dir", "--target", stopped.to_str().unwrap()]);
    far.virsh(&["pool-build", "stopped"]);
    assert!(kept(&lab, &volumes[6]).contains("storage pool stopped is not active"));
    far.virsh(&["pool-undefine", "stopped"]);
    let outside = lab.dir.path.join("outside.qcow2");
    overlay(&outside, &volumes[6]);
    define(&lab, &far, "outsider", "", &disk(outside.to_str().unwrap()));
    assert!(kept(&lab, &volumes[6]).contains("of domain outsider lies in no storage pool"));
    far.virsh(&["undefine", "outsider"]);
    far.virsh(&["destroy", "runs-on-it"]);
    far.virsh(&["undefine", "has-it"]);
    far.virsh(&["vol-delete", "theirs.qcow2", "--pool", "default"]);
    let cleaned = lab.ok("clean-orphans", json!({}));
    let wanted = [0, 3, 4, 6].map(|n| volumes[n].clone());
    assert_eq!((ids(&cleaned["deleted"]), cleaned["kept"].as_array().unwrap().len()), (wanted.into(), 3), "{cleaned}");
    // The domains of others are as they were.
    assert_eq!(far.virsh(&["list", "--all", "--name"]).split_whitespace().count(), 3);
}

#[test]
fn what_comes_into_use_while_others_are_deleted_stays() {
    let (lab, far) = with_far();
    for n in 0..30 {
        lab.ok("create-volume", json!({"name": format!("v{n}"), "size_gib": 1, "node": "far"}));
    }
    define(&lab, &far, "late", "", "<devices/>");
    forget_and_add(&lab, &far);
    let begin = || lab.server.call("clean-orphans", json!({"wait": false})).body["task"]["id"].clone();
    // One that is cancelled leaves the rest as it was.
    let cancelled = lab.ok("cancel-task", json!({"task": begin()}));
    assert_eq!(cancelled["state"], "failed", "{cancelled}");
    let rest = orphans(&lab);
    assert!(rest.len() > 3 && rest.iter().all(|one| one["cleanable"] == true), "{rest:?}");

    let plan = lab.ok("clean-orphans", json!({"plan": true}))["plan"]["deletes"].as_array().unwrap().clone();
    assert_eq!(plan.len(), rest.len());
    let last = plan[plan.len() - 1].as_str().unwrap();
    let task = begin();
    // The server stands still meanwhile, so that it has not come that far.
    let signal = |signal: &str| {
        assert!(Command::new("kill").args([signal, &lab.server.pid().to_string()]).status().unwrap().success());
    };
    signal("-STOP");
    far.virsh(&["attach-disk", "late", last, "vda", "--config", "--driver", "qemu", "--subdriver", "qcow2"]);
    signal("-CONT");
    let task = eventually("the others are deleted", Duration::from_secs(120), || {
        let task = lab.ok("describe-task", json!({"task": task}));
        (task["state"] == "done").then_some(task)
    });
    let cleaned = &task["result"];
    assert_eq!(
        (cleaned["deleted"].as_array().unwrap().len(), ids(&cleaned["kept"])),
        (plan.len() - 1, [last.to_owned()].into())
    );
    assert_eq!(cleaned["kept"][0]["why"], "in use by domain late", "{cleaned}");
    assert!(Path::new(last).exists());
}

#[test]
fn killed_or_failing_at_each_step() {
    let (mut lab, far) = with_far();
    for name in ["lost", "lost-too"] {
        lab.ok("create-vm", request(name, json!({"node": "far"})));
    }
    let files_of_far = files(&far).len();
    forget_and_add(&lab, &far);
    let all = orphans(&lab).len();
    assert_eq!(all, files_of_far + 2);
    for at in ["undefine-domain:before", "undefine-domain:after", "delete-file:before", "delete-file:after"] {
        let before = orphans(&lab).len();
        lab.server.kill_and_restart(&[("VMYARD_FAIL_AT", at)]);
        wait_for_far(&lab);
        let problem = lab.err("clean-orphans", json!({}), 422, "unsupported");
        let gone = if at.ends_with("after") { 1 } else { 0 };
        assert_eq!(orphans(&lab).len(), before - gone, "{at}: {problem}");
        let before = before - gone;
        lab.server.kill_and_restart(&[("VMYARD_CRASH_AT", at)]);
        wait_for_far(&lab);
        assert_eq!(lab.server.call("clean-orphans", json!({})).status, 0, "{at}");
        lab.server.kill_and_restart(&[]);
        wait_for_far(&lab);
        let task = lab.ok("list-tasks", json!({"method": "clean-orphans", "limit": 1}))["tasks"][0].clone();
        assert_eq!(task["state"], "failed", "{task}");
        assert_eq!(orphans(&lab).len(), before - gone, "{at}");
        assert!(orphans(&lab).iter().all(|one| one["cleanable"] == true), "{at}");
    }
    assert_eq!(lab.ok("clean-orphans", json!({}))["kept"], json!([]));
    assert_eq!((files(&far), orphans(&lab)), (Vec::new(), Vec::new()));
}

fn wait_for_far(lab: &Lab) {
    lab.wait_for_node("far");
}

#[test]
fn nodes_that_are_away_are_named_and_only_administrators_clean() {
    let (lab, far) = with_far();
    let path = lab.ok("create-volume", json!({"name": "v", "size_gib": 1, "node": "far"}))["path"].clone();
    forget_and_add(&lab, &far);
    let token = |role: &str| {
        let made = lab.ok("create-token", json!({"name": role, "role": role}));
        made["token"].as_str().unwrap().to_owned()
    };
    let call = |token: &str, method: &str| lab.server.post(method, Some(token), "application/json", "{}".to_owned());
    let (viewer, operator) = (token("viewer"), token("operator"));
    assert_eq!(call(&viewer, "list-orphans").body["orphans"][0]["id"], path);
    for token in [&viewer, &operator] {
        assert_eq!(call(token, "clean-orphans").body["code"], "forbidden");
    }
    lab.err("list-orphans", json!({"node": "nix"}), 404, "not_found");
    lab.err("clean-orphans", json!({"node": "nix"}), 404, "not_found");
    for body in [json!({"orphans": []}), json!({"orphans": [""]}), json!({"kind": "dog"}), json!({"more": 1})] {
        lab.err("clean-orphans", body, 400, "invalid");
    }
    let (code, text) = lab.server.cli(&["orphan", "list", "--kind", "volume"]);
    assert!(code == 0 && text.contains(path.as_str().unwrap()) && text.contains("yes"), "{text}");
    assert_eq!(lab.server.cli(&["orphan", "clean"]).0, 2);
    let (code, text) = lab.server.cli(&["orphan", "clean", "--all", "--plan"]);
    assert!(code == 0 && text.contains(&format!("deletes      {}", path.as_str().unwrap())), "{text}");

    far.command("kill-libvirtd");
    eventually("the node is down", SOON, || {
        (lab.ok("describe-node", json!({"node": "far"}))["state"] == "down").then_some(())
    });
    let listed = lab.ok("list-orphans", json!({}));
    assert_eq!((&listed["unreachable"], &listed["orphans"]), (&json!(["far"]), &json!([])), "{listed}");
    let cleaned = lab.ok("clean-orphans", json!({}));
    assert_eq!((&cleaned["unreachable"], &cleaned["deleted"]), (&json!(["far"]), &json!([])), "{cleaned}");
    assert!(Path::new(path.as_str().unwrap()).exists());
    far.command("start-libvirtd");
    wait_for_far(&lab);
    let (code, text) = lab.server.cli(&["orphan", "clean", path.as_str().unwrap()]);
    assert!(code == 0 && text.starts_with("1 orphan is deleted ("), "{text}");
    assert_eq!(files(&far), Vec::<PathBuf>::new());
}

#[test]
fn what_is_gone_is_forgotten() {
    let (mut lab, far) = with_far();
    let path = lab.ok("create-volume", json!({"name": "v", "size_gib": 1, "node": "far"}))["path"].clone();
    let vm = lab.ok("create-vm", request("uefi", json!({"node": "local", "firmware": "uefi"})));
    forget_and_add(&lab, &far);
    let path = path.as_str().unwrap();
    assert_eq!(orphan(&lab, path)["cleanable"], true);
    let bytes = fs::read(path).unwrap();
    fs::remove_file(path).unwrap();
    assert_eq!(orphans(&lab), Vec::<Value>::new());
    // Each time that a node comes up it is looked at. Of the VM that was never started the NVRAM isn't gone, but not there yet.
    lab.server.kill_and_restart(&[]);
    eventually("it is forgotten", SOON, || {
        let log = lab.server.log();
        log.lines()
            .any(|line| line.contains("what is gone from the node is forgotten") && line.contains("far"))
            .then_some(())
    });
    // Another file of its name isn't Vmyard's.
    fs::write(path, &bytes).unwrap();
    assert!(kept(&lab, path).contains("another Vmyard"));
    lab.ok("start-vm", json!({"vm": "uefi"}));
    assert!(lab.node.dir.join(format!("pools/default/{}.nvram.fd", vm["id"].as_str().unwrap())).exists());
    assert_eq!(lab.ok("list-orphans", json!({"node": "local"}))["total"], 0);
}
