//! What happens on a node outside of Vmyard is seen: by events, and by scans where events don't tell.

use crate::{
    crash::nothing_is_left,
    lab::{Lab, SOON, eventually},
    snapshots::{agrees, with_data},
};
use serde_json::{Value, json};
use std::{
    fs,
    time::{Duration, Instant},
};

/// What a scan may take beside the time between two, on a loaded machine.
const SLACK: Duration = Duration::from_secs(3);

fn xml(name: &str, memory_mib: u32) -> String {
    format!(
        "<domain type='qemu'><name>{name}</name><memory unit='MiB'>{memory_mib}</memory><vcpu>1</vcpu>
         <os><type arch='x86_64' machine='q35'>hvm</type></os><devices/></domain>"
    )
}

/// Runs virsh, and waits until list-vms shows what came of it. Returns how long that took.
#[track_caller]
fn seen(lab: &Lab, args: &[&str], shown: impl Fn(&Value) -> bool) -> Duration {
    lab.node.virsh(args);
    let begun = Instant::now();
    eventually(&format!("{args:?} is seen"), SOON, || {
        shown(&lab.ok("list-vms", json!({"name": "outside"}))["vms"]).then_some(())
    });
    begun.elapsed()
}

fn all_that_virsh_does(lab: &Lab) -> Vec<Duration> {
    let file = lab.dir.path.join("outside.xml");
    fs::write(&file, xml("outside", 64)).unwrap();
    let state = |wanted: &'static str| move |vms: &Value| vms[0]["state"] == wanted;
    vec![
        seen(lab, &["define", file.to_str().unwrap()], state("shutoff")),
        seen(lab, &["start", "outside"], state("running")),
        seen(lab, &["suspend", "outside"], state("paused")),
        seen(lab, &["resume", "outside"], state("running")),
        seen(lab, &["destroy", "outside"], state("shutoff")),
        seen(lab, &["undefine", "outside"], |vms| vms.as_array().unwrap().is_empty()),
    ]
}

#[test]
fn events_tell_within_a_second() {
    let lab = Lab::own();
    let mut times = all_that_virsh_does(&lab);
    let file = lab.dir.path.join("outside.xml");
    lab.node.virsh(&["define", file.to_str().unwrap()]);
    let id = lab.node.virsh(&["domuuid", "outside"]);
    let renamed = xml("outside", 96).replace("</name>", &format!("</name><uuid>{id}</uuid>"));
    fs::write(&file, renamed).unwrap();
    times.push(seen(&lab, &["define", file.to_str().unwrap()], |vms| vms[0]["memory_mib"] == 96));
    times.sort_unstable();
    // The slowest may have waited for the machine.
    assert!(times[times.len() / 2] < Duration::from_secs(1), "{times:?}");
}

#[test]
fn one_scan_finds_what_no_event_told() {
    let mut lab = Lab::own();
    let file = lab.dir.path.join("vmyard.toml");
    let settings = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("scan_interval_s = 2\n{settings}")).unwrap();
    lab.server.kill_and_restart(&[("VMYARD_DEAF", "1")]);
    let times = all_that_virsh_does(&lab);
    let mut sorted = times.clone();
    sorted.sort_unstable();
    // The slowest may have waited for the machine.
    assert!(sorted[sorted.len() / 2] < Duration::from_secs(2) + SLACK, "{times:?}");
    assert!(times.iter().max().unwrap() > &Duration::from_millis(300), "no event told: {times:?}");
}

#[test]
fn what_changed_while_libvirtd_was_away_is_seen_when_it_is_back() {
    let lab = Lab::own();
    let vm = lab.create("stays");
    for name in ["outside-changed", "outside-gone"] {
        let file = lab.dir.path.join("define.xml");
        fs::write(&file, xml(name, 64)).unwrap();
        lab.node.virsh(&["define", file.to_str().unwrap()]);
    }
    let listed = |shown: &dyn Fn(&[Value]) -> bool| {
        let vms = lab.ok("list-vms", json!({}))["vms"].as_array().unwrap().clone();
        shown(&vms).then_some(vms)
    };
    let fresh = |vm: &Value| vm["stale"] == false;
    eventually("all are listed", SOON, || listed(&|vms| vms.len() == 3 && vms.iter().all(fresh)));
    lab.node.command("kill-libvirtd");
    let stale = eventually("all are stale", SOON, || listed(&|vms| !vms.iter().any(fresh)));
    assert!(stale.len() == 3 && stale.iter().all(|vm| vm["state"] == "shutoff" && vm["observed_at"].is_string()));

    let file = |name: &str| lab.node.dir.join(format!("etc/qemu/{name}.xml"));
    let changed = fs::read_to_string(file("outside-changed")).unwrap().replace(">65536<", ">98304<");
    fs::write(file("outside-changed"), changed).unwrap();
    fs::remove_file(file("outside-gone")).unwrap();
    lab.node.command("start-libvirtd");
    eventually("all are fresh", SOON, || listed(&|vms| vms.iter().all(fresh)));
    eventually("what changed is shown", SOON, || {
        listed(&|vms| vms.len() == 2 && vms[0]["memory_mib"] == 96 && vms[1]["name"] == vm.name)
    });
}

/// What a process has open, its threads, and its memory in MiB.
fn holds(lab: &Lab) -> (usize, usize, u64) {
    let count = |what: &str| fs::read_dir(format!("/proc/{}/{what}", lab.server.pid())).unwrap().count();
    (count("fd"), count("task"), lab.server.memory_mib())
}

#[test]
#[ignore = "a libvirtd that restarts for a minute: `make test-full`"]
fn libvirtd_restarted_again_and_again_under_load() {
    let lab = Lab::with_settings("\n[metrics]\ninterval_s = 1\n");
    let vms: Vec<_> = (0..4).map(|_| lab.create("churn")).collect();
    let restart = || {
        lab.node.command("kill-libvirtd");
        lab.node.command("start-libvirtd");
    };
    restart();
    lab.wait_for_node("local");
    let before = holds(&lab);
    let over = std::sync::atomic::AtomicBool::new(false);
    let is_over = || over.load(std::sync::atomic::Ordering::SeqCst);
    let calls = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for vm in &vms {
            let (is_over, calls) = (&is_over, &calls);
            scope.spawn(move || {
                let mut turn = 0;
                while !is_over() {
                    let (method, body) = [
                        ("start-vm", json!({"vm": vm.id})),
                        ("describe-vm", json!({"vm": vm.id})),
                        ("describe-vm-metrics", json!({"vm": vm.id, "history": true})),
                        ("modify-vm-spec", json!({"vm": vm.id, "description": format!("turn {turn}")})),
                        ("stop-vm", json!({"vm": vm.id, "force": true})),
                    ][turn % 5]
                        .clone();
                    let answer = vm.lab.server.call(method, body);
                    // Whatever libvirtd's death does to a call, its answer says so, and it is no fault of ours.
                    assert!(answer.status != 500 && answer.status != 0, "{method}: {answer:?}");
                    turn += 1;
                    calls.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                }
            });
        }
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_secs(5));
            restart();
            let listed = Instant::now();
            assert_eq!(lab.ok("list-vms", json!({}))["total"], 4);
            assert!(listed.elapsed() < Duration::from_secs(2), "{:?}", listed.elapsed());
        }
        over.store(true, std::sync::atomic::Ordering::SeqCst);
    });
    lab.wait_for_tasks();
    // What is shown is what is there.
    eventually("all is as libvirt says", SOON, || {
        let vms = lab.ok("list-vms", json!({}))["vms"].clone();
        let same = vms.as_array().unwrap().iter().all(|vm| {
            let told = lab.node.virsh(&["domstate", vm["domain"].as_str().unwrap()]);
            told.replace("shut off", "shutoff") == vm["state"].as_str().unwrap() && vm["stale"] == false
        });
        same.then_some(())
    });
    let after = eventually("nothing is left open", SOON, || {
        let after = holds(&lab);
        // Connections that are opened when they are needed may have been opened by now.
        (after.0 <= before.0 + 40 && after.1 <= before.1 + 4).then_some(after)
    });
    println!("{} calls; files, threads and MiB: {before:?} before, {after:?} after", calls.into_inner());
    assert!(after.2 < before.2 + 20, "{before:?} {after:?}");
}

/// A copy or a backup of a disk that somebody makes with other tools goes on; what can't be done beside it waits.
#[test]
fn a_block_job_of_somebody_else_is_left_alone() {
    let lab = Lab::own();
    let (vm, data) = with_data(&lab, "copied");
    let vm = vm.start().ready();
    vm.ok("create-snapshot", json!({"name": "a"}));
    let (domain, copy) = (vm.created["domain"].as_str().unwrap(), lab.node.dir.join("copy.qcow2"));
    lab.node.virsh(&["blockcopy", domain, "vdb", copy.to_str().unwrap(), "--format", "qcow2", "--transient-job"]);
    let is_there = || lab.node.virsh(&["dumpxml", domain]).contains("<mirror type='file'");
    assert!(is_there());
    let gone = vm.ok("delete-snapshot", json!({"snapshot": "a"}));
    assert!(gone["pending"].as_str().unwrap().contains("block job"), "{gone}");
    for (method, body) in [
        ("create-snapshot", json!({"vm": vm.id, "name": "b"})),
        ("resize-volume", json!({"volume": data["id"], "size_gib": 2})),
    ] {
        let answer = lab.server.call(method, body);
        assert!([409, 422].contains(&answer.status), "{method}: {answer:?}");
        assert!(answer.body["detail"].as_str().unwrap().contains("block"), "{method}: {answer:?}");
    }
    assert!(is_there());
    lab.node.virsh(&["blockjob", domain, "vdb", "--abort"]);
    eventually("it is merged", Duration::from_secs(100), || {
        (lab.ok("list-snapshots", json!({"vm": vm.id}))["total"] == 0).then_some(())
    });
    agrees(&lab, &vm.name);
    lab.ok("stop-vm", json!({"vm": vm.id, "force": true}));
    lab.ok("delete-vm", json!({"vm": vm.id, "delete_volumes": true}));
    std::mem::forget(vm);
    nothing_is_left(&lab, "a disk that somebody copied");
}
