//! What has happened is told, in its order, once, and to whoever comes back.

use crate::{
    access::{bare, code, token},
    lab::{
        Lab, SOON, Server, eventually,
        follower::{Follower, Sent},
        request,
        trouble::{Cramped, in_mounts_of, small_pool},
    },
};
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader},
    process::Stdio,
    time::{Duration, Instant},
};

/// Kind and what matters of it.
fn short(event: &Value) -> String {
    let details = &event["details"];
    let more = match event["kind"].as_str().unwrap() {
        "vm-state" => format!("{}>{}", details["before"].as_str().unwrap(), details["state"].as_str().unwrap()),
        "vm-added" => details["state"].as_str().unwrap().to_owned(),
        kind if kind.starts_with("task") => details["method"].as_str().unwrap().to_owned(),
        _ => String::new(),
    };
    format!("{} {more}", event["kind"].as_str().unwrap()).trim_end().to_owned()
}

fn is(kind: &'static str) -> impl Fn(&Sent) -> bool {
    move |sent| sent.kind == kind
}

fn shorts(events: &[Value]) -> Vec<String> {
    events.iter().map(short).collect()
}

#[track_caller]
fn in_order(events: &[Value]) {
    let ids: Vec<u64> = events.iter().map(|event| event["id"].as_u64().unwrap()).collect();
    assert!(ids.windows(2).all(|pair| pair[1] == pair[0] + 1), "{ids:?}");
}

#[test]
fn what_happens_to_a_vm() {
    let lab = Lab::own();
    let mut all = Follower::of(&lab.server, "?after=0");
    let begun = all.until(is("node-state"));
    assert!(shorts(&begun).contains(&"server-started".to_owned()), "{begun:?}");
    let vm = lab.create("told");
    let mut of_vm = Follower::of(&lab.server, &format!("?vm={}", vm.name.to_uppercase()));
    let domain = vm.created["domain"].as_str().unwrap().to_owned();
    vm.ok("start-vm", json!({}));
    vm.ok("pause-vm", json!({}));
    vm.ok("resume-vm", json!({}));
    vm.ok("reboot-vm", json!({"force": true}));
    lab.node.virsh(&["destroy", &domain]);
    let begun = Instant::now();
    let is_off = |sent: &Sent| sent.kind == "vm-state" && short(&sent.data) == "vm-state running>shutoff";
    let told = of_vm.until(is_off);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let expected = [
        "task-started start-vm",
        "vm-state shutoff>running",
        "task-done start-vm",
        "task-started pause-vm",
        "vm-state running>paused",
        "task-done pause-vm",
        "task-started resume-vm",
        "vm-state paused>running",
        "task-done resume-vm",
        "task-started reboot-vm",
        "vm-reboot",
        "task-done reboot-vm",
        "vm-state running>shutoff",
    ];
    let (mut told_kinds, mut expected) = (shorts(&told), expected.map(str::to_owned).to_vec());
    // What the index and the journal tell of one thing has no order between them.
    told_kinds.sort_unstable();
    // The BIOS resets the machine once more when it was reset.
    told_kinds.dedup();
    // What the index tells may be written a moment after a call is answered: the end of the creation, here.
    told_kinds.retain(|kind| !["vm-agent", "vm-state creating>shutoff"].contains(&kind.as_str()));
    expected.sort_unstable();
    assert_eq!(told_kinds, expected);
    let node = vm.created["node"].clone();
    for event in &told {
        assert_eq!(
            (&event["vm"], &event["vm_name"], &event["node"]),
            (&json!(vm.id), &json!(vm.name), &node),
            "{event}"
        );
        assert!(event["message"].as_str().unwrap().contains(&vm.name), "{event}");
    }
    assert_eq!(told.last().unwrap()["message"], format!("{}: running -> shutoff", vm.name));
    // A call that fails says why.
    vm.err("stop-vm", json!({}), 409, "wrong_state");
    let (id, name) = (vm.id.clone(), vm.name.clone());
    vm.delete();
    let is_gone = |sent: &Sent| sent.kind == "vm-removed" && sent.data["vm"] == *id;
    in_order(&all.until(is_gone));
    // Listed they are the same, also when the VM is gone.
    let listed = lab.ok("list-events", json!({"vm": id, "kinds": ["vm-state"]}));
    let states: Vec<String> = listed["events"].as_array().unwrap().iter().rev().map(short).collect();
    assert_eq!(states[0], "vm-state creating>shutoff");
    assert!(states.ends_with(&["vm-state shutoff>deleting".to_owned()]), "{states:?}");
    assert_eq!(listed["total"], states.len());
    let page = lab.ok("list-events", json!({"vm": name, "limit": 2}));
    let next = lab.ok("list-events", json!({"vm": name, "limit": 2, "cursor": page["next_cursor"]}));
    let id_of = |page: &Value, at: usize| page["events"][at]["id"].as_u64().unwrap();
    assert!(id_of(&page, 0) > id_of(&page, 1) && id_of(&page, 1) > id_of(&next, 0));
    let task = lab.ok("list-tasks", json!({"method": "delete-vm"}))["tasks"][0]["id"].clone();
    assert_eq!(lab.ok("list-events", json!({"task": task}))["total"], 2);
    assert_eq!(lab.ok("list-events", json!({"node": node, "until": "2020-01-01T00:00:00Z"}))["total"], 0);
}

#[test]
fn a_vm_that_is_deleted_is_nobody_elses_on_its_way_out() {
    let mut lab = Lab::own();
    // Without them its node's word that the domain is gone always comes too late.
    lab.server.kill_and_restart(&[("VMYARD_DEAF", "1")]);
    lab.create("leaving").delete();
    let mut told = Follower::of(&lab.server, "?after=0");
    let told = told.until(is("vm-removed"));
    let states: Vec<String> = shorts(&told).into_iter().filter(|short| short.starts_with("vm-state")).collect();
    assert_eq!(states, ["vm-state creating>shutoff", "vm-state shutoff>deleting"]);
}

#[test]
fn a_task_that_fails_says_why() {
    let lab = Lab::own();
    let vm = lab.create("failing");
    let path = vm.describe()["disks"][0]["path"].as_str().unwrap().to_owned();
    std::fs::rename(&path, format!("{path}.away")).unwrap();
    let mut failures = Follower::of(&lab.server, "?kinds=task-failed,vm-removed");
    let problem = vm.err("start-vm", json!({}), 422, "unsupported");
    let told = failures.next().unwrap();
    assert_eq!((&told.data["details"]["error"]["code"], &told.data["task"]), (&json!("unsupported"), &problem["task"]));
    assert!(told.data["message"].as_str().unwrap().contains(&path), "{told:?}");
    std::fs::rename(format!("{path}.away"), &path).unwrap();
    vm.delete();
}

#[test]
fn who_comes_back_misses_nothing() {
    let mut lab = Lab::own();
    let mut first = Follower::of(&lab.server, "?after=0");
    first.until(is("node-state"));
    let (last, token) = (first.last, lab.server.token.clone());
    drop(first);
    // A server that is killed in the middle of a task, and one that stops as it should.
    let vms = ["one", "two"].map(|name| lab.ok("create-vm", request(name, json!({})))["id"].clone());
    lab.server.kill_and_restart(&[("VMYARD_CRASH_AT", "make-ready:after")]);
    assert_eq!(lab.server.call("create-vm", request("three", json!({}))).status, 0);
    lab.server.kill_and_restart(&[]);
    lab.ok("delete-vm", json!({"vm": vms[0]}));
    let ended = |sent: &Sent| sent.kind == "task-done" && sent.data["details"]["method"] == "delete-vm";
    let missed = Follower::with(&lab.server, "", &token, last).unwrap().until(ended);
    in_order(&missed);
    assert_eq!(missed[0]["id"].as_u64(), last.map(|last| last + 1));
    let kinds = shorts(&missed);
    let count = |kind: &str| kinds.iter().filter(|known| *known == kind).count();
    assert_eq!((count("server-started"), count("task-started create-vm"), count("task-done delete-vm")), (2, 3, 1));
    // What was cut off has an end, too.
    assert_eq!(count("task-done create-vm") + count("task-failed create-vm"), 3, "{kinds:?}");
    // A server that stops ends the stream, and doesn't wait for its clients.
    let mut open = Follower::of(&lab.server, "");
    let begun = Instant::now();
    assert!(lab.server.terminate());
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    while open.next().is_some() {}
    lab.server = crate::lab::Server::start(&lab.dir.path, &[]);
    // An id from another world: what is kept no longer, or isn't there yet.
    let mut foreign = Follower::with(&lab.server, "", &token, Some(1_000_000)).unwrap();
    let gap = foreign.next().unwrap();
    assert_eq!((gap.kind.as_str(), &gap.data["after"]), ("gap", &json!(1_000_000)));
    lab.ok("delete-vm", json!({"vm": vms[1]}));
    foreign.until(ended);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let (server, _dir) = bare();
    for (query, field) in [
        ("?after=-1", "after"),
        ("?after=x", "after"),
        ("?kinds=vm-state,junk", "kinds"),
        ("?what=1", "what"),
        ("?vm=a&vm=b&%00=1", "\0"),
    ] {
        let Err((status, problem)) = Follower::with(&server, query, &server.token, None) else { panic!("{query}") };
        assert_eq!((status, &problem["errors"][0]["field"]), (400, &json!(field)), "{query}: {problem}");
    }
    for body in [json!({"kinds": ["junk"]}), json!({"cursor": "junk"})] {
        assert_eq!(code(&server.call("list-events", body)), (400, "invalid"));
    }
    assert_eq!(Follower::with(&server, "", "wrong", None).err().unwrap().0, 401);
    assert_eq!(server.post("events", Some(&server.token), "application/json", "{}".to_owned()).status, 405);
    // A viewer may look, until the token is gone.
    let viewer = token(&server, "viewer", "viewer");
    let mut open = Follower::with(&server, "?kinds=vm-state", &viewer, None).unwrap();
    server.call("delete-token", json!({"token": "viewer"}));
    assert!(open.next().is_none());
    // So many at once, and no more; those that leave make room.
    let all: Vec<_> = (0..200).map(|_| Follower::of(&server, "")).collect();
    let (status, problem) = Follower::with(&server, "", &server.token, None).err().unwrap();
    assert_eq!((status, &problem["code"]), (409, &json!("busy")), "{problem}");
    drop(all);
    eventually("there is room again", SOON, || {
        // A client that is gone is noticed when something is sent.
        server.call("create-token", json!({"name": "noise", "role": "viewer"}));
        server.call("delete-token", json!({"token": "noise"}));
        Follower::with(&server, "", &server.token, None).ok().map(|_| ())
    });
}

#[test]
fn what_happens_while_the_disk_is_full_is_told_afterwards() {
    let cramped = Cramped::start("2m", |node| format!("database = \"sqlite://SMALL/vmyard.db\"\n{node}"));
    let file = cramped.dir.path.join("outside.xml");
    let xml = "<domain type='qemu'><name>outside</name><memory unit='MiB'>64</memory><vcpu>1</vcpu>
               <os><type arch='x86_64' machine='q35'>hvm</type></os><devices/></domain>";
    std::fs::write(&file, xml).unwrap();
    let mut follower = Follower::of(&cramped.server, "?after=0");
    follower.until(is("node-state"));
    cramped.fill();
    let virsh = |args: &[&str]| cramped.node.virsh(args);
    let state = |state: &str| {
        eventually("it is seen", SOON, || {
            let vms = cramped.ok("list-vms", json!({"name": "outside"}));
            (vms["vms"][0]["state"] == state).then_some(())
        });
    };
    virsh(&["define", file.to_str().unwrap()]);
    state("shutoff");
    // What is left in the journal's file may do for some.
    for _ in 0..20 {
        virsh(&["start", "outside"]);
        state("running");
        virsh(&["destroy", "outside"]);
        state("shutoff");
    }
    assert!(cramped.server.log().contains("events can't be written now"), "{}", cramped.server.log());
    cramped.free();
    virsh(&["undefine", "outside"]);
    let told = follower.until(is("vm-removed"));
    in_order(&told);
    assert_eq!(shorts(&told).iter().filter(|kind| kind.starts_with("vm-state")).count(), 40);
}

#[test]
fn what_changed_while_libvirtd_was_away_is_told_when_it_is_back() {
    let lab = Lab::own();
    let vm = lab.create("killed").start();
    let mut follower = Follower::of(&lab.server, "");
    lab.node.command("kill-libvirtd");
    let lost = follower.until(is("node-state"));
    assert_eq!(lost.last().unwrap()["details"]["up"], false);
    let pid = vm.qemu();
    assert!(std::process::Command::new("kill").args(["-KILL", &pid]).status().unwrap().success());
    lab.node.command("start-libvirtd");
    let back = follower.until(is("vm-state"));
    assert_eq!(short(back.last().unwrap()), "vm-state running>shutoff");
    // One loss and one return, however often it was tried meanwhile.
    assert_eq!(shorts(&back).iter().filter(|kind| *kind == "node-state").count(), 1, "{back:?}");
    vm.delete();
}

#[test]
fn what_changed_while_the_server_was_not_running_is_told_by_the_next() {
    let mut lab = Lab::own();
    let killed = lab.create("killed").start();
    let off = lab.create("off");
    let (id, pid, other) = (killed.id.clone(), killed.qemu(), off.id.clone());
    let domain = killed.created["domain"].as_str().unwrap().to_owned();
    std::mem::forget((killed, off));
    let told = |lab: &Lab, id: &str| {
        let listed = lab.ok("list-events", json!({"vm": id, "kinds": ["vm-state"]}));
        listed["events"].as_array().unwrap().clone()
    };
    // Written a moment after the answer.
    eventually("the start is told", SOON, || {
        told(&lab, &id).first().filter(|event| event["details"]["state"] == "running").map(drop)
    });
    let before = told(&lab, &id).len();
    assert!(lab.server.terminate());
    assert!(std::process::Command::new("kill").args(["-KILL", &pid]).status().unwrap().success());
    // Else the next server may see that for itself.
    eventually("libvirtd knows it", SOON, || (lab.node.virsh(&["domstate", &domain]) == "shut off").then_some(()));
    lab.server = Server::start(&lab.dir.path, &[]);
    let event = eventually("it is told", SOON, || {
        let now = told(&lab, &id);
        (now.len() > before).then(|| now[0].clone())
    });
    assert_eq!(event["details"], json!({"before": "running", "state": "shutoff", "while_not_running": true}));
    assert!(
        event["message"].as_str().unwrap().ends_with("running -> shutoff, while Vmyard was not running"),
        "{event}"
    );
    // What is as it was is told by nobody, also the next time.
    let others = told(&lab, &other).len();
    lab.server.kill_and_restart(&[]);
    assert_eq!((told(&lab, &id).len(), told(&lab, &other).len()), (before + 1, others));
    for vm in [id, other] {
        lab.ok("delete-vm", json!({"vm": vm}));
    }
}

#[test]
fn a_pool_that_is_full_pauses_a_vm_and_says_how_it_goes_on() {
    let lab = Lab::own();
    let (pid, path) = (lab.node.command("pid libvirtd"), small_pool(&lab.node, "16m"));
    let vm = lab.create("filling");
    let volume = lab.ok("create-volume", json!({"name": "data", "size_gib": 1, "pool": "small"}));
    vm.ok("attach-volume", json!({"volume": "data"}));
    let vm = vm.start().ready();
    let mut follower = Follower::of(&lab.server, "?kinds=vm-io-error,vm-state");
    vm.begin("sleep 1; dd if=/dev/zero of=/dev/vdb bs=1M count=32 && sync && touch /run/written");
    let told = follower.until(|sent| sent.data["details"]["state"] == "paused");
    let errors: Vec<&Value> = told.iter().filter(|event| event["kind"] == "vm-io-error").collect();
    assert_eq!(errors.len(), 1, "{told:?}");
    let details = json!({"device": "vdb", "path": volume["path"], "no_space": true, "paused": true});
    assert_eq!((&errors[0]["details"], &errors[0]["vm"]), (&details, &json!(vm.id)));
    assert!(errors[0]["message"].as_str().unwrap().contains("resume-vm"), "{:?}", errors[0]);
    // It does go on.
    assert!(in_mounts_of(&pid, &["mount", "-o", "remount,size=64m", &path]));
    vm.ok("resume-vm", json!({}));
    eventually("all is written", SOON, || {
        vm.run("ls /run/written 2>/dev/null || true").starts_with("/run/written").then_some(())
    });
    vm.delete();
    lab.ok("delete-volume", json!({"volume": "data"}));
}

#[test]
fn on_the_command_line() {
    let mut lab = Lab::own();
    let mut child = lab.server.command(env!("CARGO_BIN_EXE_vmyard"));
    let mut child =
        child.args(["events", "-f", "--kind", "vm-added,vm-removed"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut line = move || lines.next().unwrap().unwrap();
    eventually("it follows", SOON, || lab.server.log().contains("path=\"/api/events\"").then_some(()));
    let name = "shown";
    lab.ok("create-vm", request(name, json!({})));
    assert!(line().ends_with(&format!("vm-added       {name}: is there, creating")));
    // At the same address: a client that follows finds it again.
    lab.server.kill_and_restart_there();
    lab.ok("delete-vm", json!({"vm": name}));
    assert!(line().ends_with(&format!("{name}: is gone")));
    child.kill().unwrap();
    child.wait().unwrap();
    let (code, text) = lab.server.cli(&["events", "--vm", name, "--kind", "vm-added,vm-removed"]);
    assert!(code == 0 && text.contains("is gone") && text.contains("is there") && !text.contains("task-"), "{text}");
    let (code, text) = lab.server.cli(&["events", "--last", "1h", "--limit", "1", "-o", "json"]);
    let listed: Value = serde_json::from_str(&text).unwrap();
    assert!(code == 0 && listed["events"].as_array().unwrap().len() == 1, "{text}");
    let (code, text) = lab.server.cli(&["events", "--kind", "junk"]);
    assert!(code == 2 && text.contains("vm-state"), "{text}");
}
