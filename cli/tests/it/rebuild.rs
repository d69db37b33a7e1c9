//! `vmyard rebuild`: the database is deleted, and made again from the manifests on the nodes.

use crate::{
    lab::{
        Lab, NodeProcess, Server, eventually,
        server::VMYARD,
    },
    snapshots::agrees,
    volumes::{has, write},
};
use serde_json::{Map, Value, json};
use std::{
    fs,
    process::{Command, Stdio},
    time::Duration,
};

/// Runs a command that works on the database of a lab's server, beside it.
pub fn beside(lab: &Lab, args: &[&str]) -> (i32, String) {
    let mut command = Command::new(VMYARD);
    command.args(args).arg("--config").arg(lab.dir.path.join("vmyard.toml"));
    let output = command.arg("--data-dir").arg(lab.dir.path.join("data")).stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code().unwrap(), text)
}

#[track_caller]
pub fn ok(lab: &Lab, args: &[&str]) -> String {
    let (code, text) = beside(lab, args);
    assert_eq!(code, 0, "{args:?}: {text}");
    text
}

/// Deletes the database.
pub fn lose(lab: &Lab) {
    for end in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(lab.dir.path.join(format!("data/vmyard.db{end}")));
    }
}

/// What the server knows of everything that nodes have, without what changes by itself.
pub fn known(lab: &Lab, gone: &[&str]) -> Value {
    let all = |method: &str, field: &str| {
        let listed = lab.ok(method, json!({"limit": 1000}));
        listed[field].as_array().unwrap().clone()
    };
    let mut known = Map::new();
    let vms = all("list-vms", "vms");
    let ids: Vec<String> = vms.iter().map(|vm| vm["id"].as_str().unwrap().to_owned()).collect();
    let described = ids.iter().map(|id| lab.ok("describe-vm", json!({"vm": id})));
    known.insert("vms".to_owned(), described.collect());
    for id in ids.iter().map(String::as_str).chain(gone.iter().copied()) {
        known.insert(format!("snapshots of {id}"), lab.ok("list-snapshots", json!({"vm": id}))["snapshots"].clone());
    }
    known.insert("volumes".to_owned(), all("list-volumes", "volumes").into());
    known.insert("templates".to_owned(), all("list-templates", "templates").into());
    known.insert("keypairs".to_owned(), all("list-keypairs", "keypairs").into());
    let mut known = Value::Object(known);
    forget_what_changes(&mut known);
    known
}

fn forget_what_changes(value: &mut Value) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(forget_what_changes),
        Value::Object(fields) => {
            for volatile in ["observed_at", "allocation_bytes", "usage", "changed_outside", "credential_checks"] {
                fields.remove(volatile);
            }
            fields.values_mut().for_each(forget_what_changes);
        }
        _ => {}
    }
}

/// The same, and where it isn't, which part.
#[track_caller]
pub fn is_same(now: &Value, before: &Value) {
    for (part, before) in before.as_object().unwrap() {
        let now = &now[part];
        assert_eq!(now, before, "{part}");
    }
    assert_eq!(now.as_object().unwrap().len(), before.as_object().unwrap().len());
}

#[test]
fn a_lost_database_is_made_again() {
    let mut lab = Lab::own();
    let web = lab.create_with("web", json!({"tags": {"env": "prod"}, "description": "says \"<hello>\" & more: ünïcode"}));
    let data = lab.ok("create-volume", json!({"name": "data", "size_gib": 1}));
    web.ok("attach-volume", json!({"volume": "data"}));
    write(&lab.ok("describe-volume", json!({"volume": "data"})), 1, "1M", "1M");
    web.ok("create-snapshot", json!({"name": "first", "description": "the first"}));
    write(&lab.ok("describe-volume", json!({"volume": "data"})), 2, "1M", "1M");
    web.ok("create-snapshot", json!({"name": "second"}));
    web.ok("revert-to-snapshot", json!({"snapshot": "first"}));
    web.ok("create-snapshot", json!({"name": "branch"}));
    web.ok("create-snapshot", json!({"name": "leaf"}));
    web.ok("delete-snapshot", json!({"snapshot": "branch"}));
    web.ok("modify-vm-spec", json!({"name": "renamed", "memory_mib": 192}));
    lab.ok("create-volume", json!({"name": "spare", "size_gib": 1, "format": "raw"}));
    lab.ok("create-volume", json!({"name": "clone", "template": "tiny"}));
    lab.ok("register-template", json!({"name": "golden", "volume": "clone"}));
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti me";
    lab.ok("import-keypair", json!({"name": "laptop", "public_key": key}));
    let from_golden = lab.create_with("golden", json!({"template": "golden", "firmware": "uefi"}));
    let gone = lab.create("gone");
    gone.ok("create-snapshot", json!({"name": "kept"}));
    let gone_id = gone.id.clone();
    lab.ok("delete-vm", json!({"vm": gone_id}));
    std::mem::forget(gone);
    let before = known(&lab, &[&gone_id]);
    let (web_id, golden_id) = (web.id.clone(), from_golden.id.clone());
    std::mem::forget((web, from_golden));

    assert!(lab.server.terminate());
    lose(&lab);
    let plan = ok(&lab, &["rebuild", "--plan"]);
    assert!(plan.contains("would know 2 VMs, 5 volumes, 4 snapshots, 2 templates, 1 keypairs"), "{plan}");
    assert!(!lab.dir.path.join("data/vmyard.db").exists());
    let done = ok(&lab, &["rebuild"]);
    assert!(done.contains("knows 2 VMs") && !done.contains("note:"), "{done}");
    // It isn't empty any more.
    let (code, text) = beside(&lab, &["rebuild"]);
    assert!(code == 1 && text.contains("it knows 2 VMs") && text.contains("hint: stop its server, move it away"), "{text}");

    lab.server = Server::start(&lab.dir.path, &[]);
    is_same(&known(&lab, &[&gone_id]), &before);
    agrees(&lab, &web_id);
    // All of it can be worked with.
    assert_eq!(lab.ok("list-orphans", json!({}))["orphans"], json!([]));
    lab.ok("revert-to-snapshot", json!({"vm": web_id, "snapshot": "second"}));
    has(&lab.ok("describe-volume", json!({"volume": data["id"]})), 2, "1M", "1M");
    lab.ok("start-vm", json!({"vm": golden_id}));
    lab.ok("stop-vm", json!({"vm": golden_id, "force": true}));
    lab.ok("create-vm-from-snapshot", json!({"name": "reborn", "vm": gone_id, "snapshot": "kept"}));
    lab.ok("delete-vm", json!({"vm": "reborn"}));
    for name in [&web_id, &golden_id] {
        lab.ok("delete-vm", json!({"vm": name, "delete_volumes": true, "delete_snapshots": true}));
    }
    lab.ok("delete-snapshot", json!({"vm": gone_id, "snapshot": "kept"}));
    for volume in ["spare", "clone"] {
        lab.ok("delete-volume", json!({"volume": volume}));
    }
    lab.ok("delete-template", json!({"template": "golden"}));
    eventually("nothing is left", Duration::from_secs(20), || lab.files().is_empty().then_some(()));
}

#[test]
fn a_server_that_was_killed_leaves_what_it_did_a_moment_before() {
    let mut lab = Lab::own();
    let vm = lab.create("killed");
    vm.ok("create-snapshot", json!({"name": "one"}));
    eventually("it is written", Duration::from_secs(10), || {
        beside(&lab, &["rebuild", "--plan"]).1.contains("1 VMs, 1 volumes, 1 snapshots").then_some(())
    });
    let before = known(&lab, &[]);
    std::mem::forget(vm);
    lab.server.kill();
    lose(&lab);
    ok(&lab, &["rebuild"]);
    lab.server = Server::start(&lab.dir.path, &[]);
    is_same(&known(&lab, &[]), &before);
}

#[test]
fn nodes_that_were_added_are_found_again() {
    let mut lab = Lab::own();
    let second = NodeProcess::start_remote(&lab.dir.path.join("second"));
    lab.ok("add-node", second.add_request("second"));
    let vm = lab.create_with("far", json!({"node": "second"}));
    lab.ok("disable-node", json!({"node": "second"}));
    let before = known(&lab, &[]);
    std::mem::forget(vm);
    assert!(lab.server.terminate());
    lose(&lab);
    let done = ok(&lab, &["rebuild"]);
    assert!(done.contains("node local: ") && done.contains("node second: ") && done.contains("knows 1 VMs"), "{done}");
    lab.server = Server::start(&lab.dir.path, &[]);
    let node = lab.ok("describe-node", json!({"node": "second"}));
    assert_eq!((&node["enabled"], &node["configured"]), (&json!(false), &json!(false)));
    is_same(&known(&lab, &[]), &before);
    assert!(lab.server.terminate());

    // One that is away is not passed over in silence.
    lose(&lab);
    second.command("kill-libvirtd");
    let (code, text) = beside(&lab, &["rebuild"]);
    assert!(code == 1 && text.contains("node second") && text.contains("--without"), "{text}");
    let done = ok(&lab, &["rebuild", "--without", "second"]);
    assert!(done.contains("knows 0 VMs"), "{done}");
}
