//! `"plan": true` on every mutating method: nothing changes, and the call then does what the plan said.

use crate::lab::{Lab, SOON, TestVm, eventually, tiny};
use serde_json::{Value, json};
use std::{collections::BTreeSet, time::Duration};

/// Everything that a plan must leave as it is.
fn picture(lab: &Lab) -> (String, Vec<String>, String, Value, Value) {
    (
        lab.node.virsh(&["list", "--all"]),
        lab.files(),
        lab.node.virsh(&["net-dumpxml", "default"]),
        lab.ok("list-tasks", json!({}))["total"].clone(),
        json!([lab.ok("list-templates", json!({}))["total"], lab.ok("list-nodes", json!({}))["total"]]),
    )
}

/// Plans a call, sees that nothing has changed, makes the call, and compares. Returns the plan and the reply.
fn planned(lab: &Lab, seen: &mut BTreeSet<String>, method: &str, body: Value) -> (Value, Value) {
    let mut question = body.clone();
    question["plan"] = json!(true);
    quiet(lab);
    let before = picture(lab);
    let plan = lab.ok(method, question)["plan"].clone();
    assert_eq!(picture(lab), before, "the plan of {method} changed something");
    assert_eq!(plan["method"], method);
    let reply = lab.ok(method, body);
    let task = lab.ok("list-tasks", json!({"method": method, "limit": 1}))["tasks"][0]["id"].clone();
    let task = lab.ok("describe-task", json!({"task": task}));
    assert_eq!((&task["target"]["kind"], &task["target"]["name"]), (&plan["target"]["kind"], &plan["target"]["name"]));
    let mut done = task["steps"].as_array().unwrap().iter().map(|step| step["name"].as_str().unwrap()).peekable();
    for step in plan["steps"].as_array().unwrap() {
        match step["only_if"].is_null() {
            true => assert_eq!(done.next(), step["name"].as_str(), "{method}: {plan} {task}"),
            false => drop(done.next_if(|name| step["name"] == *name)),
        }
    }
    assert_eq!(done.next(), None, "{method}: {plan} {task}");
    seen.insert(method.to_owned());
    (plan, reply)
}

/// Waits until every image in the pool is somebody's: what a revert or a reset leaves behind goes after its answer.
fn quiet(lab: &Lab) {
    let rows = |method: &str, body: Value, field: &str| lab.ok(method, body)[field].as_array().unwrap().clone();
    let path = |one: &Value| one["path"].as_str().unwrap_or_default().to_owned();
    eventually("every image is somebody's", SOON, || {
        let mut known: BTreeSet<String> = rows("list-volumes", json!({}), "volumes").iter().map(path).collect();
        for vm in rows("list-vms", json!({}), "vms") {
            for snapshot in rows("list-snapshots", json!({"vm": vm["id"]}), "snapshots") {
                known.extend(snapshot["disks"].as_array().unwrap().iter().map(path));
            }
        }
        for template in rows("list-templates", json!({}), "templates") {
            known.extend(template["copies"].as_array().unwrap().iter().map(path));
        }
        let images = lab.files().into_iter().filter(|file| file.ends_with(".qcow2"));
        images.into_iter().all(|image| known.contains(&image)).then_some(())
    });
}

#[test]
fn what_is_planned_is_done() {
    let lab = Lab::own();
    let seen = &mut BTreeSet::new();
    let (plan, template) = planned(&lab, seen, "register-template", json!({"name": "second", "file": tiny()}));
    assert_eq!(plan["allocates_bytes"].as_u64().unwrap(), std::fs::metadata(tiny()).unwrap().len());
    assert_eq!((&plan["node"], &template["name"]), (&json!("local"), &json!("second")));

    let request =
        json!({"name": "web", "template": "second", "vcpus": 2, "memory_mib": 96, "disk_gib": 1, "start": true});
    let (plan, vm) = planned(&lab, seen, "create-vm", request.clone());
    assert_eq!((&plan["admission"]["vcpus"], &plan["admission"]["memory_mib"]), (&json!(2), &json!(96)));
    assert!(plan["admission"]["free_memory_mib"].as_u64().unwrap() >= 96);
    assert!(plan["grows_to_bytes"].as_u64().unwrap() >= 1 << 30, "{plan}");
    let diff = plan["xml_diff"].as_str().unwrap();
    assert!(diff.starts_with("--- /dev/null\n+++ domain.xml\n@@ "), "{diff}");
    assert!(diff.contains("+  <title>web</title>\n") && diff.contains("passwd=\"\""), "{diff}");
    // A plan refuses what the call would refuse.
    let mut again = request;
    again["plan"] = json!(true);
    lab.err("create-vm", again.clone(), 409, "already_exists");
    again["name"] = json!("other");
    again["memory_mib"] = json!(10_000_000);
    lab.err("create-vm", again, 409, "no_capacity");

    let guest = TestVm::new(&lab, vm.clone());
    let vm = &vm["id"];
    let change = json!({"vm": vm, "name": "web-2", "vcpus": 1, "memory_mib": 128, "tags": {"a": "b"}});
    let (plan, modified) = planned(&lab, seen, "modify-vm-spec", change);
    assert_eq!((&plan["live"], &plan["pending"]), (&modified["live"], &modified["pending"]));
    assert_eq!(modified["pending"], json!(["vcpus", "memory_mib"]));
    let diff = plan["xml_diff"].as_str().unwrap();
    assert!(
        diff.contains("-  <title>web</title>\n+  <title>web-2</title>\n") && diff.contains("current='1'>2<"),
        "{diff}"
    );
    assert_eq!(plan["admission"]["memory_mib"], 32, "the difference");
    lab.ok("modify-vm-spec", json!({"vm": vm, "name": "web", "vcpus": 2, "memory_mib": 96}));
    let user = json!({"vm": vm, "user": "tiny", "method": "guest-agent"});
    // What it has said tells more than that no agent answers.
    std::mem::forget(guest.ready());
    eventually("the agent answers", Duration::from_secs(120), || {
        let mut plan = user.clone();
        plan["plan"] = json!(true);
        (lab.server.call("reset-vm-password", plan).status == 200).then_some(())
    });
    let (plan, reset) = planned(&lab, seen, "reset-vm-password", user.clone());
    assert!(!plan.to_string().contains(reset["password"].as_str().unwrap()), "{plan}");
    let mut at_boot = user.clone();
    at_boot["method"] = json!("cloud-init");
    let (plan, reset) = planned(&lab, seen, "reset-vm-password", at_boot.clone());
    assert_eq!((plan["steps"].as_array().unwrap().len(), &reset["applied"]), (3, &json!("next_boot")), "{plan}");
    // What waits for a boot is taken out again.
    let (plan, _) = planned(&lab, seen, "reset-vm-password", user.clone());
    assert_eq!(plan["steps"].as_array().unwrap().len(), 4, "{plan}");
    let mut keys = user;
    keys["ssh_keys"] =
        json!(["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti planned"]);
    planned(&lab, seen, "reset-vm-keypair", keys);
    planned(&lab, seen, "exec-in-vm", json!({"vm": vm, "command": ["true"]}));
    at_boot["reboot"] = json!(true);
    planned(&lab, seen, "reset-vm-password", at_boot);
    let data = json!({"vm": vm, "volume": "data"});
    let (plan, _) = planned(&lab, seen, "create-volume", json!({"name": "data", "size_gib": 1}));
    assert_eq!((&plan["allocates_bytes"], &plan["grows_to_bytes"]), (&json!(0), &json!(1 << 30)));
    planned(&lab, seen, "create-volume", json!({"name": "over", "template": "second"}));
    planned(&lab, seen, "clone-volume", json!({"volume": "data", "name": "copy"}));
    planned(&lab, seen, "create-volume", json!({"name": "larger", "volume": "copy", "size_gib": 2}));
    planned(&lab, seen, "create-snapshot", json!({"vm": vm, "name": "with-memory", "memory": true}));
    planned(&lab, seen, "delete-snapshot", json!({"vm": vm, "snapshot": "with-memory"}));
    planned(&lab, seen, "attach-volume", data.clone());
    planned(&lab, seen, "resize-volume", json!({"volume": "data", "size_gib": 2}));
    planned(&lab, seen, "detach-volume", json!({"vm": vm, "volume": "data", "force": true, "timeout_s": 1}));
    for name in ["over", "copy", "larger"] {
        planned(&lab, seen, "delete-volume", json!({"volume": name}));
    }
    let (_, attached) = planned(&lab, seen, "attach-network", json!({"vm": vm, "network": "default"}));
    let mac = &attached["nic"]["mac"];
    planned(&lab, seen, "modify-nic", json!({"vm": vm, "mac": mac, "link": "down"}));
    planned(&lab, seen, "modify-disk", json!({"vm": vm, "device": "vda", "total_iops": 5000}));
    let (plan, _) = planned(&lab, seen, "modify-vm-spec", json!({"vm": vm, "boot_order": ["network", "disk"]}));
    assert!(plan["xml_diff"].as_str().unwrap().contains("<boot order='2'/>"), "{plan}");
    let image = lab.node.dir.join("pools/default/planned.iso");
    std::fs::write(image, crate::isos::image::installer()).unwrap();
    lab.node.virsh(&["pool-refresh", "default"]);
    planned(&lab, seen, "attach-iso", json!({"vm": vm, "iso": "planned.iso"}));
    planned(&lab, seen, "eject-iso", json!({"vm": vm}));
    planned(&lab, seen, "pause-vm", json!({"vm": vm}));
    planned(&lab, seen, "resume-vm", json!({"vm": vm}));
    let (plan, _) = planned(&lab, seen, "reboot-vm", json!({"vm": vm, "timeout_s": 1}));
    assert_eq!(plan["steps"][1], json!({"name": "reset", "only_if": "the guest has not rebooted after 1 s"}), "{plan}");
    planned(&lab, seen, "reboot-vm", json!({"vm": vm, "force": true}));
    // A planned stop by force ends no stop that waits.
    let waiting = lab.server.call("stop-vm", json!({"vm": vm, "timeout_s": 60, "wait": false}));
    let forced = lab.ok("stop-vm", json!({"vm": vm, "force": true, "plan": true}));
    assert_eq!(forced["plan"]["steps"], json!([{"name": "cut-power", "only_if": null}]));
    assert_eq!(lab.ok("describe-task", json!({"task": waiting.body["task"]["id"]}))["state"], "running");
    planned(&lab, seen, "cancel-task", json!({"task": waiting.body["task"]["id"]}));
    planned(&lab, seen, "stop-vm", json!({"vm": vm, "timeout_s": 1}));
    let (plan, _) = planned(&lab, seen, "start-vm", json!({"vm": vm}));
    assert_eq!(plan["admission"]["memory_mib"], 96);
    planned(&lab, seen, "stop-vm", json!({"vm": vm, "force": true}));
    planned(&lab, seen, "detach-network", json!({"vm": vm, "mac": mac}));
    let fixed = json!({"vm": vm, "network": "default", "ip": "192.168.122.60"});
    let (_, attached) = planned(&lab, seen, "attach-network", fixed);
    planned(&lab, seen, "detach-network", json!({"vm": vm, "mac": attached["nic"]["mac"]}));
    planned(&lab, seen, "attach-volume", data.clone());
    planned(&lab, seen, "detach-volume", data.clone());
    planned(&lab, seen, "attach-volume", data);
    planned(&lab, seen, "create-snapshot", json!({"vm": vm, "name": "off"}));
    let child = json!({"vm": vm, "snapshot": "off", "name": "child", "independent": true});
    planned(&lab, seen, "create-vm-from-snapshot", child);
    for of in [json!({"name": "of", "volume": "data"}), json!({"name": "of", "vm": vm, "snapshot": "off"})] {
        planned(&lab, seen, "register-template", of);
        planned(&lab, seen, "delete-template", json!({"template": "of"}));
    }
    planned(&lab, seen, "delete-vm", json!({"vm": "child"}));
    planned(&lab, seen, "create-volume", json!({"name": "then", "vm": vm, "snapshot": "off"}));
    planned(&lab, seen, "delete-volume", json!({"volume": "then"}));
    planned(&lab, seen, "revert-to-snapshot", json!({"vm": vm, "snapshot": "off", "backup": "before"}));
    planned(&lab, seen, "delete-snapshot", json!({"vm": vm, "snapshot": "before"}));
    planned(&lab, seen, "reset-vm-system", json!({"vm": vm}));
    planned(&lab, seen, "reset-vm-system", json!({"vm": vm, "template": "tiny", "delete_snapshots": true}));
    let console = lab.ok("get-serial-console", json!({"vm": vm, "wait_for_start": true, "record": true}));
    drop(crate::lab::Socket::open(console["websocket_url"].as_str().unwrap()).unwrap());
    planned(&lab, seen, "delete-recording", json!({"recording": console["recording"]}));
    planned(&lab, seen, "release-vm", json!({"vm": vm}));
    planned(&lab, seen, "adopt-vm", json!({"vm": vm, "name": "web"}));
    let (plan, _) =
        planned(&lab, seen, "delete-vm", json!({"vm": vm, "delete_volumes": true, "delete_snapshots": true}));
    let diff = plan["xml_diff"].as_str().unwrap();
    assert!(diff.starts_with("--- domain.xml\n+++ /dev/null\n") && !diff.contains("passwd="), "{diff}");
    planned(&lab, seen, "delete-template", json!({"template": "second"}));
    let (plan, _) = planned(&lab, seen, "create-token", json!({"name": "ann", "role": "viewer"}));
    assert!(!plan.to_string().contains("vmy_"), "{plan}");
    let (plan, _) = planned(&lab, seen, "create-webhook", json!({"name": "hook", "url": "http://127.0.0.1:1/"}));
    assert!(!plan.to_string().contains("whsec_"), "{plan}");
    planned(&lab, seen, "delete-webhook", json!({"webhook": "hook"}));
    let (plan, _) = planned(&lab, seen, "create-keypair", json!({"name": "ann", "algorithm": "rsa"}));
    assert!(!plan.to_string().contains("PRIVATE KEY"), "{plan}");
    let key = lab.ok("describe-keypair", json!({"keypair": "ann"}))["public_key"].clone();
    planned(&lab, seen, "import-keypair", json!({"name": "twin", "public_key": key}));
    planned(&lab, seen, "delete-keypair", json!({"keypair": "twin"}));
    planned(&lab, seen, "delete-token", json!({"token": "ann"}));

    let second = crate::lab::NodeProcess::start(&lab.dir.path.join("second"));
    planned(&lab, seen, "add-node", second.add_request("second"));
    planned(&lab, seen, "disable-node", json!({"node": "second"}));
    planned(&lab, seen, "enable-node", json!({"node": "second"}));
    // With a template that has to be copied first.
    let far = json!({"name": "far", "template": "tiny", "vcpus": 1, "memory_mib": 96, "node": "second"});
    let (plan, _) = planned(&lab, seen, "create-vm", far);
    let image = std::fs::metadata(tiny()).unwrap().len();
    assert!(plan["allocates_bytes"].as_u64().unwrap() > image, "{plan}");
    planned(&lab, seen, "delete-vm", json!({"vm": "far"}));
    lab.ok("disable-node", json!({"node": "second"}));
    planned(&lab, seen, "delete-node", json!({"node": "second"}));
    // Its copy of the template is left there, which is seen when it comes back.
    lab.ok("add-node", second.add_request("second"));
    let (plan, cleaned) = planned(&lab, seen, "clean-orphans", json!({"node": "second"}));
    assert_eq!(plan["deletes"], json!([cleaned["deleted"][0]["id"]]), "{plan} {cleaned}");
    assert_eq!(plan["steps"], json!([{"name": "delete-file", "only_if": null}]), "{plan}");

    // No mutating method was left out.
    let document: Value =
        serde_json::from_str(&std::fs::read_to_string(crate::lab::root().join("openapi.json")).unwrap()).unwrap();
    let mutating = document["paths"].as_object().unwrap().iter().filter(|(_, path)| {
        let answers = path["post"]["responses"].as_object().unwrap();
        answers.contains_key("202")
    });
    let mutating: BTreeSet<String> = mutating.map(|(path, _)| path.trim_start_matches("/api/").to_owned()).collect();
    assert_eq!(*seen, mutating);
}

#[test]
fn plans_keep_nothing_from_others() {
    let lab = Lab::shared();
    let name = lab.name("wanted");
    let request = json!({"name": name, "template": "tiny", "vcpus": 1, "memory_mib": 64,
        "networks": [{"network": "default", "mac": "52:54:00:aa:bb:01"}]});
    let mut plan = request.clone();
    plan["plan"] = json!(true);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..10 {
                    lab.server.call("create-vm", plan.clone());
                }
            });
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
        lab.ok("create-vm", request);
    });
    lab.ok("delete-vm", json!({"vm": name}));
}
