//! What the world does to a server at its work: full disks, a database that can't be written, a clock that is set back, a
//! libvirtd that dies in the middle, a QEMU that can't start.

use crate::{
    lab::{
        Lab, SOON, eventually, large_image, request, tiny,
        trouble::{Clock, Cramped, in_mounts_of, small_pool},
    },
    node_crash::hold,
    random::register_blank,
};
use serde_json::{Value, json};
use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::MetadataExt,
    process::{Command, Stdio},
    time::Duration,
};

#[test]
fn a_pool_that_is_full_in_the_middle() {
    let lab = Lab::own();
    let (pid, path) = (lab.node.command("pid libvirtd"), &small_pool(&lab.node, "1m"));
    let fill = format!("of={path}/fill");
    in_mounts_of(&pid, &["dd", "if=/dev/zero", &fill, "bs=4k"]);
    let problem = lab.err("create-vm", request("full", json!({"pool": "small"})), 409, "no_capacity");
    assert!(problem["detail"].as_str().unwrap().contains("No space left"), "{problem}");
    assert!(problem["hint"].as_str().unwrap().contains("pool"), "{problem}");
    lab.err("describe-vm", json!({"vm": "full"}), 404, "not_found");
    lab.node.virsh(&["pool-refresh", "small"]);
    assert!(!lab.node.virsh(&["vol-list", "small"]).contains("qcow2"));
    assert_eq!(lab.files(), Vec::<String>::new());
    // Not even its size is lied about: a template larger than the pool is refused before a byte is written.
    let problem =
        lab.err("register-template", json!({"name": "big", "file": tiny(), "pool": "small"}), 409, "no_capacity");
    assert!(problem["detail"].as_str().unwrap().contains("bytes free"), "{problem}");
    assert!(in_mounts_of(&pid, &["rm", &format!("{path}/fill")]));
    lab.ok("create-vm", request("full", json!({"pool": "small"})));
    lab.ok("delete-vm", json!({"vm": "full"}));
}

#[test]
fn a_seed_whose_last_bytes_find_no_room() {
    let lab = Lab::own();
    let (pid, seeds) = (lab.node.command("pid libvirtd"), lab.node.dir.join("pools/seeds"));
    let path = seeds.to_str().unwrap();
    assert!(in_mounts_of(&pid, &["mount", "-t", "tmpfs", "-o", "size=20k", "none", path]));
    let problem = lab.err("create-vm", request("blank", json!({})), 409, "no_capacity");
    assert!(problem["detail"].as_str().unwrap().contains("No space left"), "{problem}");
    // The node's manifest may be being written there.
    eventually("nobody writes there", SOON, || in_mounts_of(&pid, &["umount", path]).then_some(()));
    lab.ok("create-vm", request("blank", json!({})));
    lab.ok("delete-vm", json!({"vm": "blank"}));
}

/// The room is there when the copy begins, and somebody else takes it. libvirtd 11.3 ends of that, or hangs; 9.0 says so.
#[test]
fn a_copy_whose_room_is_taken_meanwhile() {
    let lab = Lab::own();
    let (pid, path) = (lab.node.command("namespace-pid"), &small_pool(&lab.node, "820m"));
    let image = lab.dir.path.join("large.raw");
    large_image(&image, 800 << 20);
    let body = json!({"name": "large", "file": image, "default_user": "nobody", "pool": "small"});
    let there = format!("/proc/{pid}/root{path}");
    let libvirtd = lab.node.command("pid libvirtd");
    let answer = std::thread::scope(|scope| {
        let call = scope.spawn(|| lab.server.call("register-template", body.clone()));
        eventually("the copy has begun", SOON, || {
            fs::read_dir(&there)
                .unwrap()
                .flatten()
                .any(|file| file.metadata().is_ok_and(|it| it.blocks() > 0))
                .then_some(())
        });
        let fill = format!("of={path}/fill");
        in_mounts_of(&pid, &["dd", "if=/dev/zero", &fill, "bs=1M"]);
        call.join().unwrap()
    });
    if answer.status == 503 {
        if fs::exists(format!("/proc/{libvirtd}")).unwrap() {
            lab.node.command("kill-libvirtd");
        }
        lab.node.command("start-libvirtd");
    } else {
        assert_eq!(answer.body["code"], "no_capacity", "{answer:?}");
    }
    eventually("nothing of the copy is left", SOON, || {
        fs::read_dir(&there).unwrap().flatten().all(|file| file.file_name() == "fill").then_some(())
    });
    eventually("its record is gone", SOON, || {
        (lab.server.call("describe-template", json!({"template": "large"})).status == 404).then_some(())
    });
    // libvirt has not looked since: refused all the same, and before a byte is written.
    let problem = lab.err("register-template", body.clone(), 409, "no_capacity");
    assert!(problem["detail"].as_str().unwrap().contains("bytes"), "{problem}");
    assert!(in_mounts_of(&pid, &["rm", &format!("{path}/fill")]));
    lab.node.virsh(&["pool-refresh", "small"]);
    lab.ok("register-template", body);
}

#[test]
fn a_qemu_that_cannot_start() {
    // More memory than the machine could ever have.
    let lab = Lab::with_settings("memory_overcommit = 1000.0");
    let huge = lab.ok("describe-node", json!({"node": "local"}))["free_memory_mib"].as_u64().unwrap().min(16_000_000);
    let vm = lab.create_with("huge", json!({"memory_mib": huge}));
    let answer = lab.server.call("start-vm", json!({"vm": vm.id}));
    assert_eq!((answer.status, &answer.body["code"]), (422, &json!("unsupported")), "{answer:?}");
    let detail = answer.body["detail"].as_str().unwrap();
    assert!(detail.contains("start domain") && detail.contains("memory"), "{detail}");
    assert_eq!(vm.state(), "shutoff");
    // What it was promised is free again.
    let free = lab.ok("describe-node", json!({"node": "local"}))["used_memory_mib"].clone();
    assert_eq!(free, 0);
    vm.delete();
    assert_eq!(lab.files(), Vec::<String>::new());
}

#[test]
fn libvirtd_killed_in_the_middle_of_a_start_a_stop_and_a_delete() {
    let lab = Lab::own();
    for (round, method) in ["start-vm", "stop-vm", "delete-vm"].into_iter().cycle().take(9).enumerate() {
        let name = format!("storm-{round}");
        let vm = lab.ok("create-vm", request(&name, json!({"start": method == "stop-vm"})));
        let force = if method == "stop-vm" { json!({"vm": name, "force": true}) } else { json!({"vm": name}) };
        std::thread::scope(|scope| {
            let call = scope.spawn(|| lab.server.call(method, force));
            std::thread::sleep(Duration::from_millis(10 + 40 * (round as u64 / 3)));
            lab.node.command("kill-libvirtd");
            lab.node.command("start-libvirtd");
            let answer = call.join().unwrap();
            assert!([200, 409, 422, 503, 504].contains(&answer.status), "{method}: {answer:?}");
            assert!(method == "stop-vm" || answer.status != 409, "{method}: {answer:?}");
        });
        // Whatever came of it: the list says what libvirt says, and the VM can be worked with.
        let domain = vm["domain"].as_str().unwrap();
        let state = eventually("list and libvirt agree", SOON, || {
            // In one call: a deletion may still go on.
            let listed = lab.node.virsh(&["list", "--all"]);
            let row = listed.lines().find(|line| line.split_whitespace().nth(1) == Some(domain));
            let real = row.map(|row| row.split_whitespace().skip(2).collect::<String>());
            let vms = lab.ok("list-vms", json!({"name": name}));
            let Some(vm) = vms["vms"].get(0) else { return real.is_none().then_some("gone".to_owned()) };
            let (state, stale) = (vm["state"].as_str().unwrap().to_owned(), vm["stale"] == true);
            (!stale && real.as_ref() == Some(&state)).then_some(state)
        });
        assert!(method == "delete-vm" || state != "gone", "{method}");
        if state == "running" {
            lab.ok("stop-vm", json!({"vm": name, "force": true}));
        }
        if state != "gone" {
            lab.ok("delete-vm", json!({"vm": name}));
        }
        assert_eq!(lab.files(), Vec::<String>::new(), "{method}");
    }
}

/// Opens images in the running QEMU under the next names that libvirt will use, as one did that died before it had written down
/// how far it had counted.
fn leave_images(lab: &Lab, domain: &str) {
    let ask = |command: Value| lab.node.virsh(&["qemu-monitor-command", domain, &command.to_string()]);
    let nodes: Value = serde_json::from_str(&ask(json!({"execute": "query-named-block-nodes"}))).unwrap();
    let number = |node: &Value| node["node-name"].as_str()?.strip_prefix("libvirt-")?.split('-').next()?.parse().ok();
    let last: u64 = nodes["return"].as_array().unwrap().iter().filter_map(number).max().unwrap();
    for next in last + 1..=last + 3 {
        for layer in ["storage", "format"] {
            let name = format!("libvirt-{next}-{layer}");
            let arguments = json!({"driver": "null-co", "read-zeroes": true, "node-name": name});
            let said = ask(json!({"execute": "blockdev-add", "arguments": arguments}));
            assert!(!said.contains("error"), "{said}");
        }
    }
}

#[test]
fn images_that_a_dead_libvirtd_left_open() {
    let lab = Lab::own();
    register_blank(&lab);
    let vm = lab.ok("create-vm", json!({"name": "left", "template": "blank", "vcpus": 1, "memory_mib": 64}));
    let domain = vm["domain"].as_str().unwrap();
    lab.ok("create-volume", json!({"name": "data", "size_gib": 1}));
    lab.ok("start-vm", json!({"vm": "left"}));
    for memory in [false, true] {
        leave_images(&lab, domain);
        lab.ok("create-snapshot", json!({"vm": "left", "name": format!("memory-{memory}"), "memory": memory}));
    }
    leave_images(&lab, domain);
    lab.ok("attach-volume", json!({"vm": "left", "volume": "data"}));
}

#[test]
fn a_database_whose_disk_is_full_and_one_that_is_read_only() {
    let cramped = Cramped::start("2m", |node| format!("database = \"sqlite://SMALL/vmyard.db\"\n{node}"));
    let call = |method: &str, body: Value| cramped.server.call(method, body);
    let ok = |method: &str, body: Value| cramped.ok(method, body);
    ok("register-template", json!({"name": "tiny", "file": tiny()}));
    ok("create-vm", request("before", json!({})));
    cramped.fill();
    // What is left in the journal's file may do for some more.
    let refused = (0..200).find_map(|number| {
        let answer = call("create-vm", request(&format!("vm-{number}"), json!({})));
        (answer.status != 200).then_some(answer)
    });
    let refused = refused.expect("a full disk is noticed");
    assert_eq!((refused.status, &refused.body["code"]), (503, &json!("node_unavailable")), "{refused:?}");
    assert!(refused.body["detail"].as_str().unwrap().contains("disk is full"), "{refused:?}");
    // What only asks is answered as before.
    ok("list-vms", json!({"limit": 1000}));
    cramped.free();
    // With room again everything goes on, and what was cut off is taken back.
    eventually("nothing is half-made", SOON, || {
        let vms = call("list-vms", json!({"limit": 1000})).body;
        let all_whole = vms["vms"].as_array()?.iter().all(|vm| vm["state"] == "shutoff");
        let domains = cramped.node.virsh(&["list", "--all", "--name"]).lines().filter(|line| !line.is_empty()).count();
        let open = call("list-tasks", json!({"state": "unwinding"})).body["total"].as_u64()?
            + call("list-tasks", json!({"state": "running"})).body["total"].as_u64()?;
        (all_whole && open == 0 && vms["total"].as_u64()? == domains as u64).then_some(())
    });
    ok("create-vm", request("after", json!({})));
    let vms = call("list-vms", json!({"limit": 1000})).body["vms"].clone();
    for vm in vms.as_array().unwrap() {
        ok("delete-vm", json!({"vm": vm["id"]}));
    }
    let Cramped { server, node: _node, dir, path } = cramped;
    drop(server);

    // One that can't be written from the start: the server says so and ends.
    let output = Command::new("unshare")
        .args(["-m", "--propagation", "private", "sh", "-c"])
        .arg("mount -t tmpfs -o ro none \"$0\" && exec \"$@\"")
        .args([&path, env!("CARGO_BIN_EXE_vmyard"), "serve", "--listen", "127.0.0.1:0", "--config"])
        .arg(dir.path.join("vmyard.toml"))
        .arg("--data-dir")
        .arg(dir.path.join("data"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains("the server's database can't be used"), "{text}");
}

/// Begins a write to a database, and says so; it ends with the standard input.
const KEEPS_LOCKED: &str = "import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute('begin immediate')
print('locked', flush=True)
sys.stdin.read()";

#[test]
fn the_beginning_and_the_end_of_a_task_that_the_database_does_not_take() {
    let mut lab = Lab::own();
    lab.ok("create-volume", json!({"name": "grown", "size_gib": 1}));
    let (database, mut other) = (lab.dir.path.join("data/vmyard.db"), None);
    let lock = |_: &Lab| {
        let mut python = Command::new("python3")
            .args(["-c", KEEPS_LOCKED, database.to_str().unwrap()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        BufReader::new(python.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, "locked\n");
        other = Some(python);
    };
    let body = json!({"volume": "grown", "size_gib": 2});
    let answer = hold(&mut lab, "record-size:after", "resize-volume", body, lock, |_| {});
    // It is done, and said so, though the journal can't say it yet.
    assert_eq!(answer.status, 200, "{answer:?}");
    let tasks = lab.ok("list-tasks", json!({"method": "resize-volume"}));
    let task = json!({"task": tasks["tasks"][0]["id"]});
    assert_eq!(lab.ok("describe-task", task.clone())["state"], "running");
    // A task that can't begin never was.
    let problem = lab.err("create-vm", request("later", json!({})), 503, "node_unavailable");
    assert!(problem["task"].is_null() && problem["detail"].as_str().unwrap().contains("locked"), "{problem}");
    let mut other = other.unwrap();
    drop(other.stdin.take());
    assert!(other.wait().unwrap().success());
    let ended = eventually("its end is journalled", SOON, || {
        let task = lab.ok("describe-task", task.clone());
        (task["state"] == "done").then_some(task)
    });
    assert_eq!(ended["result"], answer.body);
    assert_eq!(lab.ok("list-tasks", json!({"method": "create-vm"}))["total"], 0);
    lab.err("describe-vm", json!({"vm": "later"}), 404, "not_found");
    lab.ok("delete-volume", json!({"volume": "grown"}));
    assert_eq!(lab.files(), Vec::<String>::new());
    lab.ok("create-vm", request("later", json!({})));
    lab.ok("delete-vm", json!({"vm": "later"}));
}

#[test]
fn a_clock_that_is_set_back() {
    let mut lab = Lab::own();
    let clock = Clock::new(&lab.dir.path);
    lab.server.kill_and_restart(&clock.env());
    let first = lab.ok("create-vm", request("first", json!({"client_token": "t"})));
    clock.set("-3h");
    let second = lab.ok("create-vm", request("second", json!({"start": true})));
    let at = |vm: &Value| vm["created_at"].as_str().unwrap().to_owned();
    assert!(at(&second) < at(&first), "the clock was not set back: {second}");
    assert_eq!(lab.ok("create-vm", request("first", json!({"client_token": "t"})))["id"], first["id"]);
    let vms = lab.ok("list-vms", json!({"sort": "-created_at"}));
    assert_eq!((&vms["vms"][0]["id"], &vms["vms"][1]["id"]), (&first["id"], &second["id"]));
    assert_eq!(lab.ok("stop-vm", json!({"vm": "second", "force": true}))["vm"]["state"], "shutoff");
    assert_eq!(lab.ok("list-tasks", json!({}))["total"], 4);
    // A server that dies and comes back before it was started, as far as the clock goes, takes everything up.
    let crash = [&clock.env()[..], &[("VMYARD_CRASH_AT", "define-domain:after")]].concat();
    lab.server.kill_and_restart(&crash);
    clock.set("-6h");
    assert_eq!(lab.server.call("create-vm", request("third", json!({}))).status, 0);
    clock.set("-9h");
    lab.server.kill_and_restart(&clock.env());
    lab.wait_for_tasks();
    assert_eq!(lab.ok("list-vms", json!({}))["total"], 2);
    lab.ok("create-token", json!({"name": "t", "role": "viewer"}));
    for vm in ["first", "second"] {
        lab.ok("delete-vm", json!({"vm": vm}));
    }
    assert_eq!(lab.files(), Vec::<String>::new());
}
