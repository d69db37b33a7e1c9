//! Two nodes: add-node, enable-node, disable-node, delete-node; placement; templates copied from one to the other; one
//! node stopped or cut off in the middle of work.

use crate::{
    lab::{Lab, NodeProcess, SOON, eventually, large_image, request, takes},
    volumes::{has, write},
};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// A lab with a second node, which is reached by TCP.
pub fn two() -> (Lab, NodeProcess) {
    let lab = Lab::own();
    let second = NodeProcess::start_remote(&lab.dir.path.join("second"));
    let node = lab.ok("add-node", second.add_request("second"));
    assert_eq!((&node["state"], &node["enabled"], &node["configured"]), (&json!("up"), &json!(true), &json!(false)));
    (lab, second)
}

fn copies(lab: &Lab) -> Vec<String> {
    let template = lab.ok("describe-template", json!({"template": "tiny"}));
    let nodes = template["copies"].as_array().unwrap().iter().map(|copy| copy["node"].as_str().unwrap().to_owned());
    nodes.collect()
}

#[test]
fn a_vm_on_the_second_node_from_a_template_of_the_first_by_the_cli_alone() {
    let lab = Lab::own();
    let second = NodeProcess::start_remote(&lab.dir.path.join("second"));
    let pools = second.dir.join("pools").display().to_string();
    let (images, seeds) = (format!("{pools}/default"), format!("{pools}/seeds"));
    let cli = |args: &[&str]| {
        let (code, text) = lab.server.cli(args);
        assert_eq!(code, 0, "{args:?}: {text}");
        text
    };
    cli(&[
        "node",
        "add",
        "far",
        second.uri(),
        "--virt-type",
        "qemu",
        "--default-pool-path",
        &images,
        "--seed-pool-path",
        &seeds,
    ]);
    let nodes = cli(&["node", "list"]);
    assert!(nodes.contains("far") && nodes.contains("local"), "{nodes}");
    assert_eq!(copies(&lab), ["local"]);
    cli(&["vm", "create", "web", "--template", "tiny", "--vcpus", "1", "--memory", "128", "--node", "far", "--start"]);
    assert_eq!(copies(&lab), ["far", "local"]);
    let shown = cli(&["vm", "show", "web"]);
    assert!(shown.contains("far") && shown.contains("running"), "{shown}");
    let id = lab.ok("describe-vm", json!({"vm": "web"}))["id"].as_str().unwrap().to_owned();
    let log = second.dir.join(format!("pools/seeds/{id}.serial.log"));
    eventually("the guest is ready", Duration::from_secs(120), || {
        let text = std::fs::read(&log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).ok()?;
        text.contains("tiny: ready").then_some(())
    });
    cli(&["vm", "stop", "web"]);
    cli(&["vm", "delete", "web"]);
    // Its copy of the template stays, for the next one.
    assert_eq!(second.virsh(&["list", "--all", "--name"]), "");
    assert_eq!(second.virsh(&["vol-list", "default"]).lines().count(), 1);
    cli(&["template", "delete", "tiny"]);
    assert_eq!(second.virsh(&["vol-list", "default"]), "");
    cli(&["node", "disable", "far"]);
    cli(&["node", "delete", "far"]);
    assert!(!cli(&["node", "list"]).contains("far"));
}

#[test]
fn nodes_come_and_go() {
    let (mut lab, second) = two();
    // A foreign domain on the new node is seen at once.
    let xml = lab.dir.path.join("foreign.xml");
    std::fs::write(
        &xml,
        "<domain type='qemu'><name>guest-of-others</name><memory unit='MiB'>32</memory><vcpu>1</vcpu>
         <os><type arch='x86_64' machine='q35'>hvm</type></os><devices/></domain>",
    )
    .unwrap();
    second.virsh(&["define", xml.to_str().unwrap()]);
    eventually("it is listed", SOON, || {
        let vms = lab.ok("list-vms", json!({"node": "second"}));
        (vms["vms"][0]["name"] == "guest-of-others").then_some(())
    });

    // The same host again, a name that is taken, URIs that won't do: nothing changes.
    let problem = lab.err("add-node", second.add_request("third"), 400, "invalid");
    assert_eq!(problem["errors"][0]["field"], "uri");
    assert!(problem["detail"].as_str().unwrap().contains("node second already"), "{problem}");
    lab.err("add-node", second.add_request("SECOND"), 409, "already_exists");
    for (uri, says) in [
        ("qemu+ext:///system?command=/bin/true", "transport"),
        ("qemu+ssh://host/system?command=/bin/true", "program to run"),
        ("lxc:///", "driver qemu"),
        ("nonsense", "must be a libvirt URI"),
    ] {
        let problem = lab.err("add-node", json!({"name": "third", "uri": uri}), 400, "invalid");
        assert_eq!(problem["errors"][0]["field"], "uri", "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(says), "{problem}");
    }
    let away = json!({"name": "third", "uri": "qemu+tcp://root:hunter2@127.0.0.1:1/system"});
    let problem = lab.err("add-node", away, 503, "node_unavailable");
    assert!(!problem.to_string().contains("hunter2"), "{problem}");
    assert_eq!(lab.ok("list-nodes", json!({}))["total"], 2);

    // It is there after a restart, and stays disabled.
    assert_eq!(lab.ok("disable-node", json!({"node": "second"}))["enabled"], false);
    lab.server.kill_and_restart(&[]);
    let node = lab.ok("describe-node", json!({"node": "second"}));
    assert_eq!((&node["enabled"], &node["configured"]), (&json!(false), &json!(false)));
    let problem = lab.err("create-vm", request("a", json!({"node": "second"})), 409, "wrong_state");
    assert!(problem["hint"].as_str().unwrap().contains("enable-node"), "{problem}");
    lab.ok("enable-node", json!({"node": "second"}));
    lab.ok("create-vm", request("a", json!({"node": "second"})));
    lab.err("delete-node", json!({"node": "second"}), 409, "wrong_state");
    lab.ok("disable-node", json!({"node": "second"}));
    let problem = lab.err("delete-node", json!({"node": "second"}), 409, "in_use");
    assert!(problem["detail"].as_str().unwrap().contains("1 VMs"), "{problem}");
    // A VM on a disabled node is worked with as before.
    lab.ok("start-vm", json!({"vm": "a"}));
    lab.ok("stop-vm", json!({"vm": "a", "force": true}));
    lab.ok("delete-vm", json!({"vm": "a"}));
    let problem = lab.err("delete-node", json!({"node": "local"}), 422, "unsupported");
    assert!(problem["detail"].as_str().unwrap().contains("configuration file"), "{problem}");
    lab.ok("delete-node", json!({"node": "second"}));
    lab.err("describe-node", json!({"node": "second"}), 404, "not_found");
    assert_eq!(lab.ok("list-vms", json!({}))["total"], 0);
    assert_eq!(copies(&lab), ["local"]);
    // The host itself is as it was.
    assert_eq!(second.virsh(&["list", "--all", "--name"]), "guest-of-others");
    lab.ok("add-node", second.add_request("again"));
    assert_eq!(lab.ok("list-vms", json!({}))["total"], 1);
    assert!(!lab.server.log().contains("hunter2"));
}

#[test]
fn the_node_with_the_most_free_memory_that_has_what_is_needed() {
    let (lab, second) = two();
    let place = |name: &str, more: Value| lab.ok("create-vm", request(name, more))["node"].as_str().unwrap().to_owned();
    // A running VM takes memory of its node, so the next goes to the other.
    let first = place("one", json!({"start": true}));
    let other = if first == "local" { "second" } else { "local" };
    assert_eq!(place("two", json!({"start": true})), other);
    assert_eq!(place("three", json!({"node": first})), first);
    // A pool, or a network, that only one node has.
    let pool = second.dir.join("pools/special");
    second.virsh(&["pool-create-as", "special", "dir", "--target", pool.to_str().unwrap(), "--build"]);
    assert_eq!(place("four", json!({"pool": "special"})), "second");
    let xml = lab.dir.path.join("net.xml");
    std::fs::write(&xml, "<network><name>only</name><bridge name='vyonly'/></network>").unwrap();
    lab.node.virsh(&["net-create", xml.to_str().unwrap()]);
    assert_eq!(place("five", json!({"networks": [{"network": "only"}]})), "local");
    // None has both; the answer says what each lacks.
    let both = request("six", json!({"pool": "special", "networks": [{"network": "only"}]}));
    let problem = lab.err("create-vm", both, 404, "not_found");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("local: ") && detail.contains("\"special\"") && detail.contains("\"only\""), "{problem}");
    let huge = request("six", json!({"memory_mib": 16_000_000}));
    lab.err("create-vm", huge, 409, "no_capacity");
    // A disabled node is chosen for nothing.
    lab.ok("disable-node", json!({"node": "second"}));
    for name in ["seven", "eight"] {
        assert_eq!(place(name, json!({"start": true})), "local");
    }
    lab.ok("disable-node", json!({"node": "local"}));
    let problem = lab.err("create-vm", request("nine", json!({})), 409, "wrong_state");
    assert!(problem["detail"].as_str().unwrap().contains("no node is enabled"), "{problem}");
    let vms = lab.ok("list-vms", json!({}));
    for vm in vms["vms"].as_array().unwrap() {
        if vm["state"] == "running" {
            lab.ok("stop-vm", json!({"vm": vm["id"], "force": true}));
        }
        lab.ok("delete-vm", json!({"vm": vm["id"]}));
    }
}

#[test]
fn a_template_is_copied_once_however_many_wait_for_it() {
    let (lab, second) = two();
    let answers: Vec<_> = std::thread::scope(|scope| {
        let call = |number: usize| {
            let request = request(&format!("crowd-{number}"), json!({"node": "second"}));
            lab.server.call("create-vm", request)
        };
        let calls: Vec<_> = (0..8).map(|number| scope.spawn(move || call(number))).collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    assert_eq!(lab.ok("list-tasks", json!({"method": "copy-template"}))["total"], 1);
    assert_eq!(second.virsh(&["vol-list", "default"]).lines().count(), 9);
    // The copy is the image, byte for byte.
    let template = lab.ok("describe-template", json!({"template": "tiny"}));
    let paths: Vec<_> =
        template["copies"].as_array().unwrap().iter().map(|copy| copy["path"].as_str().unwrap()).collect();
    assert_eq!(paths.len(), 2);
    assert!(std::fs::read(paths[0]).unwrap() == std::fs::read(paths[1]).unwrap());
    for number in 0..8 {
        lab.ok("delete-vm", json!({"vm": format!("crowd-{number}")}));
    }
}

#[test]
fn cut_off_in_the_middle_of_a_copy() {
    let (lab, second) = two();
    // A large image, which takes a while.
    let image = lab.dir.path.join("large.raw");
    large_image(&image, 2 << 30);
    lab.ok("register-template", json!({"name": "large", "file": image, "node": "local", "cloud_init": false}));
    let before = second.virsh(&["vol-list", "default"]);
    let create = |name: &str| {
        let mut body = request(name, json!({"node": "second", "wait": false}));
        body["template"] = json!("large");
        lab.server.call("create-vm", body).body["task"]["id"].clone()
    };
    let ended = |task: &Value| {
        eventually("the task has ended", 3 * SOON, || {
            let task = lab.ok("describe-task", json!({"task": task}));
            (task["finished_at"] != Value::Null).then_some(task)
        })
    };
    let progress = |task: &Value| {
        eventually("bytes are copied", SOON, || {
            let task = lab.ok("describe-task", json!({"task": task}));
            task["progress_percent"].as_f64().filter(|percent| *percent >= 1.0)
        })
    };
    // One of two waiters is cancelled: the copy, and the other, go on. Then the node is cut off.
    let (first, second_task) = (create("one"), create("two"));
    progress(&first);
    progress(&second_task);
    assert_eq!(lab.ok("cancel-task", json!({"task": first}))["state"], "failed");
    assert_eq!(lab.ok("describe-task", json!({"task": second_task}))["state"], "running");
    second.cut_off(true);
    takes("list-vms", Duration::from_millis(100), || assert_eq!(lab.ok("list-vms", json!({}))["total"], 1));
    // What needs the other node only is not held up.
    lab.ok("create-vm", request("meanwhile", json!({"node": "local", "start": true})));
    eventually("the node is known to be away", SOON, || {
        (lab.ok("describe-node", json!({"node": "second"}))["state"] == "down").then_some(())
    });
    lab.err("create-vm", request("three", json!({"node": "second"})), 503, "node_unavailable");
    assert_eq!(lab.ok("create-vm", request("placed", json!({})))["node"], "local");
    second.cut_off(false);
    let task = ended(&second_task);
    assert_eq!((&task["state"], &task["error"]["code"]), (&json!("failed"), &json!("node_unavailable")), "{task}");
    // The copy that was cut is taken back, and the next call makes a new one.
    eventually("nothing is left of it", SOON, || {
        let open = lab.ok("list-tasks", json!({"state": "unwinding"}))["total"] == 0;
        second.virsh(&["pool-refresh", "default"]);
        (open && second.virsh(&["vol-list", "default"]) == before).then_some(())
    });
    lab.err("describe-vm", json!({"vm": "two"}), 404, "not_found");
    let task = ended(&create("four"));
    assert_eq!(task["state"], "done", "{task}");
    for vm in ["meanwhile", "placed", "four"] {
        lab.server.call("stop-vm", json!({"vm": vm, "force": true}));
        lab.ok("delete-vm", json!({"vm": vm}));
    }
}

#[test]
fn killed_in_the_middle_of_a_copy() {
    let (mut lab, second) = two();
    for at in ["copy-image:before", "copy-image:after", "record-copy:before", "record-copy:after"] {
        lab.server.kill_and_restart(&[("VMYARD_CRASH_AT", at)]);
        assert_eq!(lab.server.call("create-vm", request("doomed", json!({"node": "second"}))).status, 0, "{at}");
        lab.server.kill_and_restart(&[]);
        lab.wait_for_tasks();
        assert_eq!(lab.ok("list-vms", json!({}))["total"], 0, "{at}");
        second.virsh(&["pool-refresh", "default"]);
        // What was recorded is done; everything before is taken back.
        let there = usize::from(at == "record-copy:after");
        assert_eq!(second.virsh(&["vol-list", "default"]).lines().count(), there, "{at}");
        assert_eq!(copies(&lab).len(), 1 + there, "{at}");
    }
}

#[test]
fn stopped_and_brought_back_in_the_middle_of_work() {
    let (lab, second) = two();
    lab.ok("create-vm", request("far", json!({"node": "second", "start": true})));
    second.command("kill-libvirtd");
    eventually("the row is stale", SOON, || {
        let vms = lab.ok("list-vms", json!({}));
        (vms["vms"][0]["stale"] == true && vms["vms"][0]["state"] == "running").then_some(())
    });
    takes("list-vms", Duration::from_millis(100), || drop(lab.ok("list-vms", json!({}))));
    eventually("changes are refused", SOON, || {
        let answer = lab.server.call("stop-vm", json!({"vm": "far", "force": true}));
        assert_eq!((answer.status, &answer.body["code"]), (503, &json!("node_unavailable")), "{answer:?}");
        Some(())
    });
    assert_eq!(lab.ok("create-vm", request("near", json!({})))["node"], "local");
    second.command("start-libvirtd");
    eventually("it is back", SOON, || {
        let vm = lab.ok("describe-vm", json!({"vm": "far"}));
        (vm["stale"] == false && vm["state"] == "running").then_some(())
    });
    for vm in ["far", "near"] {
        lab.server.call("stop-vm", json!({"vm": vm, "force": true}));
        lab.ok("delete-vm", json!({"vm": vm}));
    }
}

#[test]
fn a_host_that_accepts_and_never_answers_hurts_nobody() {
    let lab = Lab::shared();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("qemu+tcp://127.0.0.1:{}/system", silent.local_addr().unwrap().port());
    std::thread::scope(|scope| {
        let adding = scope.spawn(|| lab.server.call("add-node", json!({"name": lab.name("silent"), "uri": uri})));
        std::thread::sleep(Duration::from_millis(300));
        let begun = Instant::now();
        lab.ok("list-vms", json!({}));
        lab.ok("list-storage-pools", json!({}));
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        let answer = adding.join().unwrap();
        assert_eq!((answer.status, &answer.body["code"]), (503, &json!("node_unavailable")), "{answer:?}");
        assert!(answer.body["detail"].as_str().unwrap().contains("15 s"), "{answer:?}");
    });
    assert_eq!(lab.ok("list-nodes", json!({}))["total"], 1);
}

#[test]
fn one_host_under_two_names_counts_once() {
    let dir = crate::lab::Directory::new();
    let node = NodeProcess::start(&dir.path.join("node"));
    let config = node.config("");
    let twice = format!("{config}\n{}", config.replace("[nodes.local]", "[nodes.twin]"));
    std::fs::write(dir.path.join("vmyard.toml"), twice).unwrap();
    let server = crate::lab::Server::start(&dir.path, &[]);
    let call = |method: &str, body: Value| {
        let answer = server.call(method, body);
        assert_eq!(answer.status, 200, "{method}: {answer:?}");
        answer.body
    };
    eventually("the second is found out", SOON, || {
        let twin = call("describe-node", json!({"node": "twin"}));
        let says = twin["error"].as_str()?.contains("same host as node local");
        (twin["state"] == "down" && says).then_some(())
    });
    call("register-template", json!({"name": "tiny", "file": crate::lab::tiny(), "node": "local"}));
    for name in ["one", "two"] {
        assert_eq!(call("create-vm", request(name, json!({})))["node"], "local");
    }
    assert_eq!(call("list-vms", json!({}))["total"], 2);
    for name in ["one", "two"] {
        call("delete-vm", json!({"vm": name}));
    }
}

#[test]
fn a_host_that_is_gone_for_good_is_forgotten_with_its_vms() {
    let (lab, second) = two();
    let lost = lab.ok("create-vm", request("lost", json!({"node": "second", "start": true})));
    lab.ok("create-vm", request("kept", json!({"node": "local"})));
    // What a cut-off create has to take back there would be tried for ever.
    let cut = lab.server.call("create-vm", request("cut", json!({"node": "second", "start": true, "wait": false})));
    second.command("kill-libvirtd");
    eventually("the create has failed, or was quicker", SOON, || {
        let task = lab.ok("describe-task", json!({"task": cut.body["task"]["id"]}));
        (task["state"] != "running").then_some(())
    });
    lab.ok("disable-node", json!({"node": "second"}));
    let problem = lab.err("delete-node", json!({"node": "second"}), 409, "in_use");
    assert!(problem["detail"].as_str().unwrap().contains("forget_vms"), "{problem}");
    let deleted = lab.ok("delete-node", json!({"node": "second", "forget_vms": true}));
    assert!(deleted["forgotten_vms"].as_array().unwrap().contains(&json!("lost")), "{deleted}");
    let vms = lab.ok("list-vms", json!({}));
    assert_eq!((&vms["total"], &vms["vms"][0]["name"]), (&json!(1), &json!("kept")), "{vms}");
    assert_eq!(copies(&lab), ["local"]);
    eventually("no task is left open", SOON, || {
        let open = |state: &str| lab.ok("list-tasks", json!({"state": state}))["total"].as_u64();
        (open("running")? + open("unwinding")? == 0).then_some(())
    });
    // Its name is free, and the host, should it come back, has what it had.
    lab.ok("create-vm", request("lost", json!({})));
    second.command("start-libvirtd");
    lab.ok("add-node", second.add_request("second"));
    let back = lab.ok("describe-vm", json!({"vm": lost["id"]}));
    assert_eq!((&back["managed"], &back["state"]), (&json!(false), &json!("running")));
    lab.ok("disable-node", json!({"node": "second"}));
    lab.err("delete-node", json!({"node": "second", "forget_vms": true}), 409, "wrong_state");
    lab.ok("delete-node", json!({"node": "second"}));
    for vm in ["lost", "kept"] {
        lab.ok("delete-vm", json!({"vm": vm}));
    }
}

#[test]
fn killed_while_nodes_come_and_go() {
    let mut lab = Lab::own();
    let second = NodeProcess::start_remote(&lab.dir.path.join("second"));
    let crash = |lab: &mut Lab, at: &str, method: &str, body: Value, libvirtd: &str| {
        lab.server.kill_and_restart(&[("VMYARD_CRASH_AT", at)]);
        eventually("the nodes are up", SOON, || {
            let nodes = lab.ok("list-nodes", json!({}));
            nodes["nodes"].as_array()?.iter().all(|node| node["state"] == "up").then_some(())
        });
        assert_eq!(lab.server.call(method, body).status, 0, "{at}");
        if !libvirtd.is_empty() {
            second.command(libvirtd);
        }
        lab.server.kill_and_restart(&[]);
        lab.wait_for_tasks();
        let task = lab.ok("list-tasks", json!({"method": method}))["tasks"][0].clone();
        let total = lab.ok("list-nodes", json!({}))["total"].as_u64().unwrap();
        (task["state"].as_str().unwrap().to_owned(), total)
    };
    let add = second.add_request("second");
    assert_eq!(crash(&mut lab, "record-node:before", "add-node", add.clone(), ""), ("failed".to_owned(), 1));
    // Added is added, though its host goes away before the server is back.
    assert_eq!(crash(&mut lab, "record-node:after", "add-node", add, "kill-libvirtd"), ("done".to_owned(), 2));
    second.command("start-libvirtd");
    let node = json!({"node": "second"});
    crash(&mut lab, "disable-node:after", "disable-node", node.clone(), "");
    assert_eq!(lab.ok("describe-node", node.clone())["enabled"], false);
    assert_eq!(crash(&mut lab, "forget-node:before", "delete-node", node.clone(), "").1, 2);
    assert_eq!(crash(&mut lab, "forget-node:after", "delete-node", node, "").1, 1);
}

#[test]
fn volumes_of_two_nodes() {
    let (lab, second) = two();
    // Each node has a pool of that name.
    let problem = lab.err("create-volume", json!({"name": "data", "size_gib": 1}), 409, "ambiguous");
    assert!(problem["detail"].as_str().unwrap().contains("on second"), "{problem}");
    for (name, format) in [("data", "qcow2"), ("raw", "raw")] {
        let data = lab.ok("create-volume", json!({"name": name, "size_gib": 1, "format": format, "node": "local"}));
        write(&data, 0x3c, "9M", "2M");
        let copy = lab.ok("clone-volume", json!({"volume": name, "name": format!("{name}-copy"), "node": "second"}));
        assert_eq!(
            (&copy["node"], &copy["format"], &copy["size_gib"]),
            (&json!("second"), &json!(format), &json!(1.0))
        );
        assert!(copy["path"].as_str().unwrap().starts_with(second.dir.to_str().unwrap()), "{copy}");
        has(&copy, 0x3c, "9M", "2M");
        has(&copy, 0, "11M", "100M");
        assert!(copy["allocation_bytes"].as_u64().unwrap() < 16 << 20, "{copy}");
    }
    // What stands on a template of one node can't go to the other.
    lab.ok("create-volume", json!({"name": "over", "template": "tiny", "node": "local"}));
    let clone = json!({"volume": "over", "name": "x", "node": "second"});
    let problem = lab.err("clone-volume", clone, 422, "unsupported");
    assert!(problem["detail"].as_str().unwrap().contains("stands on"), "{problem}");
    // A VM has volumes of its own node only.
    let vm = lab.ok("create-vm", request("far", json!({"node": "second"})))["id"].clone();
    let problem = lab.err("attach-volume", json!({"vm": vm, "volume": "data"}), 422, "unsupported");
    let (detail, hint) = (problem["detail"].as_str().unwrap(), problem["hint"].as_str().unwrap());
    assert!(detail.contains("is on node local") && hint.contains("clone-volume"), "{problem}");
    lab.ok("attach-volume", json!({"vm": vm, "volume": "data-copy"}));
    // A node with volumes is not forgotten.
    lab.ok("delete-vm", json!({"vm": vm}));
    lab.ok("disable-node", json!({"node": "second"}));
    lab.err("delete-node", json!({"node": "second"}), 409, "in_use");
    for name in ["data", "data-copy", "raw", "raw-copy", "over"] {
        lab.ok("delete-volume", json!({"volume": name}));
    }
    lab.ok("delete-node", json!({"node": "second"}));
}
