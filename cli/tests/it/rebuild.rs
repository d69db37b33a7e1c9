//! `vmyard rebuild`: the database is deleted, and made again from the manifests on the nodes.

use crate::{
    lab::{Lab, SOON, Server, eventually, request, server::VMYARD},
    snapshots::{agrees, agrees_on_disk},
    two_nodes::two,
    volumes::{has, write},
};
use serde_json::{Map, Value, json};
use std::{
    fs,
    process::{Command, Stdio},
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

/// Stops the server, has its database made again from nothing, and starts it. Returns what was said of it.
pub fn lose_and_rebuild(lab: &mut Lab) -> String {
    assert!(lab.server.terminate());
    lose(lab);
    let said = ok(lab, &["rebuild"]);
    lab.server = Server::start(&lab.dir.path, &[]);
    said
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
    let web =
        lab.create_with("web", json!({"tags": {"env": "prod"}, "description": "says \"<hello>\" & more: ünïcode"}));
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
    assert!(
        code == 1 && text.contains("it knows 2 VMs") && text.contains("hint: stop its server, move it away"),
        "{text}"
    );

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
    eventually("nothing is left", SOON, || lab.files().is_empty().then_some(()));
}

#[test]
fn a_server_that_was_killed_leaves_what_it_did_a_moment_before() {
    let mut lab = Lab::own();
    let vm = lab.create("killed");
    vm.ok("create-snapshot", json!({"name": "one"}));
    eventually("it is written", SOON, || {
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

/// A VM that is off, with a data volume and a snapshot; another volume that is nobody's.
fn scene(lab: &Lab) -> [Value; 2] {
    let vm = lab.ok("create-vm", request("scene", json!({})));
    let [data, _] = ["data", "spare"].map(|name| lab.ok("create-volume", json!({"name": name, "size_gib": 1})));
    lab.ok("attach-volume", json!({"vm": "scene", "volume": "data"}));
    write(&data, 1, "1M", "64k");
    lab.ok("create-snapshot", json!({"vm": "scene", "name": "one"}));
    let data = lab.ok("describe-volume", json!({"volume": "data"}));
    write(&data, 2, "1M", "64k");
    lab.ok("create-snapshot", json!({"vm": "scene", "name": "two"}));
    let data = lab.ok("describe-volume", json!({"volume": "data"}));
    write(&data, 3, "1M", "64k");
    [vm["id"].clone(), data["id"].clone()]
}

/// The files of the manifests on a node.
fn manifests(lab: &Lab) -> Vec<String> {
    let files = fs::read_dir(lab.node.dir.join("pools/seeds")).unwrap().flatten();
    files.map(|file| file.file_name().into_string().unwrap()).filter(|name| name.ends_with(".manifest")).collect()
}

/// The server dies in a call, and its database is lost with it: the manifest is of before the call, or somewhat later.
fn killed_and_lost(calls: &[(&str, Value, &[&str])]) {
    let mut lab = Lab::own();
    for (method, body, steps) in calls {
        for step in *steps {
            let what = format!("{method} {body}, killed after {step}");
            println!("{what}");
            let [vm, data] = scene(&lab);
            let before = manifests(&lab);
            lab.server.kill_and_restart(&[("VMYARD_CRASH_AT", &format!("{step}:after"))]);
            eventually("the server that has just started has written all", SOON, || {
                matches!(&manifests(&lab)[..], [one] if !before.contains(one)).then_some(())
            });
            assert_eq!(lab.server.call(method, body.clone()).status, 0, "{what}");
            lab.server.kill();
            lose(&lab);
            println!("{}", ok(&lab, &["rebuild"]));
            lab.server = Server::start(&lab.dir.path, &[]);
            // Nothing is in the way of anything, and the bytes are there.
            eventually("nothing is at work", SOON, || {
                let listed = lab.ok("list-snapshots", json!({"vm": vm, "limit": 100}));
                let all_ready = listed["snapshots"].as_array().unwrap().iter().all(|one| one["state"] == "ready");
                all_ready.then_some(())
            });
            agrees_on_disk(&lab, vm.as_str().unwrap());
            let reverted = *method == "revert-to-snapshot" && ["switch-disks", "record-revert"].contains(step);
            let volume = lab.ok("describe-volume", json!({"volume": data}));
            has(&volume, if reverted { 1 } else { 3 }, "1M", "64k");
            let gone = *method == "delete-vm" && *step != "mark-deleting";
            if !gone {
                let vm = lab.ok("describe-vm", json!({"vm": vm}));
                let is_renamed = *method == "modify-vm-spec";
                assert_eq!(vm["name"], if is_renamed { "renamed" } else { "scene" }, "{what}");
                let taken = lab.ok("create-snapshot", json!({"vm": vm["id"], "name": "after"}));
                lab.ok("delete-snapshot", json!({"vm": vm["id"], "snapshot": taken["id"]}));
                lab.ok("start-vm", json!({"vm": vm["id"]}));
                lab.ok("stop-vm", json!({"vm": vm["id"], "force": true}));
            }
            lab.ok("delete-vm", json!({"vm": vm, "delete_snapshots": true, "delete_volumes": true}));
            for volume in lab.ok("list-volumes", json!({}))["volumes"].as_array().unwrap() {
                if volume["id"].is_string() {
                    lab.ok("delete-volume", json!({"volume": volume["id"]}));
                }
            }
            let cleaned = lab.ok("clean-orphans", json!({}));
            // What was made in the last moment is in no manifest: that it may be Vmyard's is told, and it is left alone.
            let kept: Vec<_> =
                cleaned["kept"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap()).collect();
            assert!(kept.len() <= 2, "{what}: {kept:?}");
            kept.iter().for_each(|file| fs::remove_file(file).unwrap());
            lab.node.virsh(&["pool-refresh", "default"]);
            // They may have stood on others, which is looked at again at once by a server that has just started.
            if !kept.is_empty() {
                lab.server.kill_and_restart(&[]);
            }
            eventually("nothing is left", SOON, || lab.files().is_empty().then_some(()));
        }
    }
}

#[test]
fn killed_with_snapshots_at_work_and_the_database_lost() {
    let scene = |more: Value| {
        let mut body = json!({"vm": "scene"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    killed_and_lost(&[
        ("create-snapshot", scene(json!({"name": "three"})), &["make-overlay", "take-snapshot", "make-ready"]),
        ("revert-to-snapshot", scene(json!({"snapshot": "one"})), &["make-overlay", "switch-disks", "record-revert"]),
        ("delete-snapshot", scene(json!({"snapshot": "one"})), &["mark-deleting", "merge-images", "delete-images"]),
        ("delete-snapshot", scene(json!({"snapshot": "two"})), &["merge-images"]),
    ]);
}

#[test]
fn killed_at_other_work_and_the_database_lost() {
    killed_and_lost(&[
        ("attach-volume", json!({"vm": "scene", "volume": "spare"}), &["claim-volume", "attach-disk"]),
        (
            "detach-volume",
            json!({"vm": "scene", "volume": "data"}),
            &["mark-detaching", "update-definition", "release-volume"],
        ),
        ("modify-vm-spec", json!({"vm": "scene", "name": "renamed"}), &["change-metadata", "record-change"]),
        ("reset-vm-system", json!({"vm": "scene"}), &["switch-disks", "make-ready"]),
        ("delete-vm", json!({"vm": "scene"}), &["mark-deleting", "undefine-domain", "forget-vm"]),
    ]);
}

#[test]
fn without_a_manifest_a_vm_is_taken_over_as_it_was_called() {
    let mut lab = Lab::own();
    let vm = lab.create_with(
        "marked",
        json!({"tags": {"a": "b"}, "description": "more", "cloud_init": {"user": "me", "password": "secret-1"}}),
    );
    let (id, name) = (vm.id.clone(), vm.describe()["name"].clone());
    std::mem::forget(vm);
    assert!(lab.server.terminate());
    lose(&lab);
    for manifest in manifests(&lab) {
        fs::remove_file(lab.node.dir.join("pools/seeds").join(manifest)).unwrap();
    }
    let (code, text) = beside(&lab, &["rebuild"]);
    assert!(code == 1 && text.contains("there is no manifest") && text.contains("vmyard vm adopt"), "{text}");
    lab.server = Server::start(&lab.dir.path, &[]);
    // Its template is not known any more, and stands below its disk all the same.
    let seen = eventually("it is seen", SOON, || {
        Some(lab.server.call("describe-vm", json!({"vm": id})).body).filter(|vm| vm["managed"] == false)
    });
    assert!(seen["name"].as_str().unwrap().starts_with("marked"), "{seen}");
    let adopted = lab.ok("adopt-vm", json!({"vm": id}));
    assert_eq!(
        (&adopted["name"], &adopted["description"], &adopted["tags"]),
        (&name, &json!("more"), &json!({"a": "b"}))
    );
    lab.ok("delete-vm", json!({"vm": id}));
}

#[test]
fn nodes_that_were_added_are_found_again() {
    let (mut lab, second) = two();
    let vm = lab.create_with("far", json!({"node": "second"}));
    lab.ok("disable-node", json!({"node": "second"}));
    let before = known(&lab, &[]);
    std::mem::forget(vm);
    assert!(lab.server.terminate());
    lose(&lab);
    let done = ok(&lab, &["rebuild"]);
    let all = done.contains("node local: ") && done.contains("node second: ") && done.contains("knows 1 VMs");
    assert!(all, "{done}\n{}", lab.server.log());
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

#[test]
fn a_stop_writes_what_could_not_be_written_before() {
    let mut lab = Lab::own();
    let seeds = lab.node.dir.join("pools/seeds");
    let away = seeds.with_extension("away");
    let refused = || lab.server.log().matches("the manifest of a node is not written yet").count();
    fs::rename(&seeds, &away).unwrap();
    lab.ok("create-keypair", json!({"name": "late"}));
    // After the third the node is left alone for four seconds.
    eventually("attempts have failed", SOON, || (refused() >= 3).then_some(()));
    fs::rename(&away, &seeds).unwrap();
    // libvirt has stopped a pool that it could not look at.
    lab.node.virsh(&["pool-start", "vmyard-seeds"]);
    lose_and_rebuild(&mut lab);
    lab.ok("describe-keypair", json!({"keypair": "late"}));
}
