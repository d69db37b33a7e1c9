//! `vmyard backup` and `vmyard restore`.

use crate::{
    lab::{Lab, SOON, Server, eventually},
    rebuild::{beside, is_same, known, lose, ok},
    two_nodes::two,
    volumes::{has, write},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    sync::atomic::{AtomicBool, Ordering},
};

fn path(lab: &Lab, name: &str) -> String {
    lab.dir.path.join(name).display().to_string()
}

/// Ids of what a method lists, under a field.
fn ids(lab: &Lab, method: &str, field: &str) -> Vec<Value> {
    let listed = lab.ok(method, json!({"limit": 1000}));
    listed[field].as_array().unwrap().iter().map(|one| one["id"].clone()).collect()
}

#[test]
fn all_of_it_is_back() {
    let mut lab = Lab::own();
    let vm = lab.create_with("kept", json!({"tags": {"a": "b"}}));
    vm.ok("create-snapshot", json!({"name": "one"}));
    let token = lab.ok("create-token", json!({"name": "ci", "role": "operator"}))["token"].as_str().unwrap().to_owned();
    lab.ok("create-webhook", json!({"name": "hook", "url": "http://127.0.0.1:9/", "kinds": ["vm-agent"]}));
    std::mem::forget(vm);
    let file = path(&lab, "backup.gz");
    let said = ok(&lab, &["backup", &file]);
    assert!(said.contains(" rows, ") && said.contains(" as of 20"), "{said}");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!fs::exists(format!("{file}.part")).unwrap());
    let lists = |lab: &Lab| {
        let audit = ids(lab, "list-audit", "audit");
        (
            ids(lab, "list-tokens", "tokens"),
            ids(lab, "list-webhooks", "webhooks"),
            ids(lab, "list-tasks", "tasks"),
            audit,
        )
    };
    let (before, listed) = (known(&lab, &[]), lists(&lab));

    // Not into a database that somebody works with, and not into one that has something.
    let (code, text) = beside(&lab, &["restore", &file]);
    assert!(code == 1 && text.contains("another vmyard serves with this database"), "{text}");
    assert!(lab.server.terminate());
    let (code, text) = beside(&lab, &["restore", &file]);
    assert!(code == 1 && text.contains("it knows 1 VMs") && text.contains("hint: stop its server"), "{text}");
    assert_eq!(ok(&lab, &["backup", &file]).split(' ').count(), said.split(' ').count());

    lose(&lab);
    // What isn't whole, or is no backup, leaves nothing behind.
    let whole = fs::read(&file).unwrap();
    for (name, bytes) in
        [("cut", &whole[..whole.len() / 2]), ("end", &whole[..whole.len() - 4]), ("text", b"hello"), ("empty", b"")]
    {
        let wrong = path(&lab, name);
        fs::write(&wrong, bytes).unwrap();
        let (code, text) = beside(&lab, &["restore", &wrong]);
        assert!(code == 1 && text.contains(name) && text.contains("can't be restored"), "{text}");
        assert!(!lab.dir.path.join("data/vmyard.db").exists(), "{name}");
    }
    let (code, text) = beside(&lab, &["restore", &path(&lab, "none")]);
    assert!(code == 1 && text.contains("none can't be restored: No such file"), "{text}");
    let (code, text) = beside(&lab, &["backup", &path(&lab, "nothing.gz")]);
    assert!(
        code == 1
            && text.contains("vmyard.db can't be opened")
            && text.contains("hint: ")
            && !lab.dir.path.join("data/vmyard.db").exists(),
        "{text}"
    );

    let said = ok(&lab, &["restore", &file]);
    assert!(
        said.contains("the database knows 1 VMs, 1 volumes, 1 snapshots, 1 templates") && !said.contains("note:"),
        "{said}"
    );
    lab.server = Server::start(&lab.dir.path, &[]);
    is_same(&known(&lab, &[]), &before);
    let now = lists(&lab);
    assert_eq!((&now.0, &now.1, &now.2), (&listed.0, &listed.1, &listed.2));
    assert!(listed.3.iter().all(|entry| now.3.contains(entry)));
    let answer = lab.server.post("list-vms", Some(&token), "application/json", "{}");
    assert_eq!(answer.status, 200, "{answer:?}");
    lab.ok("delete-vm", json!({"vm": before["vms"][0]["id"], "delete_snapshots": true}));
}

#[test]
fn what_changed_since_comes_from_the_nodes() {
    let mut lab = Lab::own();
    let [stays, goes] = ["stays", "goes"].map(|name| lab.create(name));
    let data = lab.ok("create-volume", json!({"name": "data", "size_gib": 1}));
    stays.ok("attach-volume", json!({"volume": "data"}));
    write(&data, 1, "1M", "64k");
    stays.ok("create-snapshot", json!({"name": "before"}));
    let file = path(&lab, "old.gz");
    ok(&lab, &["backup", &file]);

    stays.ok("delete-snapshot", json!({"snapshot": "before"}));
    stays.ok("create-snapshot", json!({"name": "since"}));
    write(&lab.ok("describe-volume", json!({"volume": "data"})), 2, "1M", "64k");
    stays.ok("modify-vm-spec", json!({"name": "renamed"}));
    goes.ok("delete-vm", json!({}));
    lab.ok("create-vm", crate::lab::request("came", json!({})));
    let before = known(&lab, &[]);
    let id = stays.id.clone();
    std::mem::forget((stays, goes));
    assert!(lab.server.terminate());
    lose(&lab);
    let said = ok(&lab, &["restore", &file]);
    assert!(said.contains("node local: its manifest is of") && said.contains("knows 2 VMs"), "{said}");
    lab.server = Server::start(&lab.dir.path, &[]);
    is_same(&known(&lab, &[]), &before);
    lab.ok("revert-to-snapshot", json!({"vm": id, "snapshot": "since"}));
    has(&lab.ok("describe-volume", json!({"volume": "data"})), 1, "1M", "64k");
    for vm in [id.as_str(), "came"] {
        lab.ok("delete-vm", json!({"vm": vm, "delete_snapshots": true, "delete_volumes": true}));
    }
    eventually("nothing is left", SOON, || lab.files().is_empty().then_some(()));
}

#[test]
fn consistent_while_others_write() {
    let mut lab = Lab::own();
    let stop = AtomicBool::new(false);
    let files: Vec<String> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..2)
            .map(|n| {
                let (lab, stop) = (&lab, &stop);
                scope.spawn(move || {
                    while !stop.load(Ordering::SeqCst) {
                        let vm = lab.create(&format!("busy-{n}"));
                        vm.ok("create-snapshot", json!({"name": "one"}));
                        vm.ok("delete-snapshot", json!({"snapshot": "one"}));
                    }
                })
            })
            .collect();
        let files = (0..8)
            .map(|n| {
                let file = path(&lab, &format!("busy-{n}.gz"));
                ok(&lab, &["backup", &file]);
                file
            })
            .collect();
        stop.store(true, Ordering::SeqCst);
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        files
    });
    assert!(lab.server.terminate());
    // What was at work then has come to an end since: nothing is taken back, and nothing is stuck.
    for file in files {
        lose(&lab);
        ok(&lab, &["restore", &file]);
        lab.server = Server::start(&lab.dir.path, &[]);
        for state in ["running", "unwinding"] {
            assert_eq!(lab.ok("list-tasks", json!({"state": state}))["total"], 0);
        }
        assert_eq!(lab.ok("list-vms", json!({}))["vms"], json!([]));
        assert_eq!(lab.ok("list-orphans", json!({}))["orphans"], json!([]));
        lab.create("works").ok("create-snapshot", json!({"name": "one"}));
        let last = lab.ok("list-vms", json!({}))["vms"].as_array().unwrap().len();
        assert_eq!(last, 0);
        eventually("its snapshot goes", SOON, || {
            let volumes = lab.ok("list-volumes", json!({}));
            let ours = volumes["volumes"].as_array().unwrap().iter().filter(|one| one["id"].is_string()).count();
            (ours == 0).then_some(())
        });
        assert!(lab.server.terminate());
    }
}

#[test]
fn a_task_that_was_at_work_ends() {
    let mut lab = Lab::own();
    crate::random::register_blank(&lab);
    let request = json!({"name": "deaf", "template": "blank", "vcpus": 1, "memory_mib": 64, "start": true});
    lab.ok("create-vm", request);
    // Nothing in there listens.
    let asked = lab.server.call("stop-vm", json!({"vm": "deaf", "timeout_s": 600, "wait": false}));
    assert_eq!(asked.status, 202, "{asked:?}");
    let task = asked.body["task"]["id"].clone();
    let file = path(&lab, "at-work.gz");
    ok(&lab, &["backup", &file]);
    lab.server.kill();
    lose(&lab);
    ok(&lab, &["restore", &file]);
    lab.server = Server::start(&lab.dir.path, &[]);
    let ended = lab.ok("describe-task", json!({"task": task}));
    assert_eq!(ended["state"], "failed");
    assert!(ended["error"]["detail"].as_str().unwrap().contains("when a backup was made"), "{ended}");
    lab.ok("stop-vm", json!({"vm": "deaf", "force": true}));
    lab.ok("delete-vm", json!({"vm": "deaf"}));
}

#[test]
fn nothing_is_taken_back_for_what_was_at_work() {
    let mut lab = Lab::own();
    lab.server.kill_and_restart(&[("VMYARD_CRASH_AT", "make-ready:before")]);
    assert_eq!(lab.server.call("create-vm", crate::lab::request("made", json!({}))).status, 0);
    // All of the VM is there, and its task would be taken back by the next server: a backup of such a moment has it so.
    let file = path(&lab, "made.gz");
    ok(&lab, &["backup", &file]);
    lose(&lab);
    ok(&lab, &["restore", &file, "--no-nodes"]);
    lab.server = Server::start(&lab.dir.path, &[]);
    lab.wait_for_tasks();
    assert_eq!(lab.ok("list-tasks", json!({"method": "create-vm"}))["tasks"][0]["state"], "failed");
    lab.ok("start-vm", json!({"vm": "made"}));
    lab.ok("stop-vm", json!({"vm": "made", "force": true}));
    lab.ok("delete-vm", json!({"vm": "made"}));
}

#[test]
fn a_node_that_is_away_is_not_passed_over() {
    let (mut lab, second) = two();
    let vm = lab.create_with("far", json!({"node": "second"}));
    let id = vm.id.clone();
    let file = path(&lab, "two.gz");
    ok(&lab, &["backup", &file]);
    vm.ok("modify-vm-spec", json!({"name": "since"}));
    std::mem::forget(vm);
    assert!(lab.server.terminate());
    lose(&lab);
    second.command("kill-libvirtd");
    let (code, text) = beside(&lab, &["restore", &file]);
    assert!(code == 1 && text.contains("node second") && text.contains("--without"), "{text}");
    // Nothing of it stays, so it can be tried again.
    assert!(!lab.dir.path.join("data/vmyard.db").exists());
    let said = ok(&lab, &["restore", &file, "--without", "second"]);
    assert!(said.contains("knows 1 VMs"), "{said}");
    second.command("start-libvirtd");
    lab.server = Server::start(&lab.dir.path, &[]);
    lab.wait_for_node("second");
    // As it was then; and the manifest of the Vmyard before is still there.
    assert!(lab.ok("describe-vm", json!({"vm": id}))["name"].as_str().unwrap().starts_with("far"));
    let whose = || -> BTreeSet<String> {
        let names = second.virsh(&["vol-list", "vmyard-seeds"]);
        let manifests =
            names.split_whitespace().filter(|word| word.starts_with("vmyard-") && word.ends_with(".manifest"));
        // Without its number.
        manifests.filter_map(|name| Some(name.rsplit_once('-')?.0.to_owned())).collect()
    };
    eventually("there are the manifests of two", SOON, || (whose().len() == 2).then_some(()));
    assert!(lab.server.log().contains("the manifest of another Vmyard"));
    lab.ok("delete-vm", json!({"vm": id}));
}
