//! modify-vm-spec: name, size, tags, description, of VMs that are off and of running ones.

use crate::lab::{Lab, SOON, TestVm, eventually, request};
use serde_json::{Value, json};
use std::fs;

pub fn domain<'a>(vm: &'a TestVm) -> &'a str {
    vm.created["domain"].as_str().unwrap()
}

/// The definition, with secrets.
pub fn definition(lab: &Lab, domain: &str) -> String {
    lab.node.virsh(&["dumpxml", "--inactive", "--security-info", domain])
}

/// Calls modify-vm-spec by id, since the name changes.
#[track_caller]
pub fn modify(vm: &TestVm, more: Value) -> Value {
    vm.lab.ok("modify-vm-spec", body(vm, more))
}

#[track_caller]
pub fn refused(vm: &TestVm, more: Value, status: u16, code: &str) -> Value {
    vm.lab.err("modify-vm-spec", body(vm, more), status, code)
}

fn body(vm: &TestVm, mut more: Value) -> Value {
    more["vm"] = json!(vm.id);
    more
}

pub fn describe(vm: &TestVm) -> Value {
    vm.lab.ok("describe-vm", json!({"vm": vm.id}))
}

/// So that `ready` waits for the next boot.
fn forget_boot(vm: &TestVm) {
    fs::write(vm.lab.node.dir.join(format!("pools/seeds/{}.serial.log", vm.id)), "").unwrap();
}

/// What the guest has of memory, whatever its kernel keeps.
fn memory_total_mib(vm: &TestVm) -> u64 {
    let text = vm.run("grep 'System RAM' /proc/iomem");
    let bytes = text.lines().map(|line| {
        let (first, last) = line.split_once(" :").unwrap().0.trim().split_once('-').unwrap();
        u64::from_str_radix(last, 16).unwrap() - u64::from_str_radix(first, 16).unwrap() + 1
    });
    bytes.sum::<u64>() >> 20
}

#[test]
fn name_tags_and_description_follow_at_once() {
    let lab = Lab::shared();
    let vm = lab.create_with("label", json!({"tags": {"old": "1"}, "description": "first"}));
    let other = lab.create("other");
    let (upper, fresh) = (vm.name.to_uppercase(), lab.name("fresh"));
    let agree = |name: &str, tags: Value, description: &str| {
        let described = describe(&vm);
        assert_eq!((&described["name"], &described["tags"]), (&json!(name), &tags));
        assert_eq!((&described["description"], &described["domain"]), (&json!(description), &json!(domain(&vm))));
        assert_eq!(lab.ok("list-vms", json!({"name": name}))["vms"][0]["id"], vm.id);
        assert_eq!(lab.node.virsh(&["desc", "--title", domain(&vm)]), name);
        assert_eq!(lab.node.virsh(&["desc", "--title", "--config", domain(&vm)]), name);
        let live = lab.node.virsh(&["metadata", domain(&vm), "urn:vmyard:domain:1"]);
        assert_eq!(lab.node.virsh(&["metadata", "--config", domain(&vm), "urn:vmyard:domain:1"]), live);
        assert!(live.contains(&format!("name=\"{name}\"")) && live.contains("<system-volume"), "{live}");
        assert_eq!(live.matches("<tag ").count(), tags.as_object().unwrap().len(), "{live}");
        assert_eq!(live.contains("<description>"), !description.is_empty(), "{live}");
    };
    agree(&vm.name, json!({"old": "1"}), "first");
    let answer = modify(&vm, json!({"name": upper, "tags": {"a/b": "<c & d>"}, "description": "one\n <two> & \"3\""}));
    assert_eq!((&answer["live"], &answer["pending"]), (&json!(["name", "tags", "description"]), &json!([])));
    assert_eq!(answer["vm"]["name"], upper);
    agree(&upper, json!({"a/b": "<c & d>"}), "one\n <two> & \"3\"");
    // Its old name is its own in another case; the other's is not, in none.
    modify(&vm, json!({"name": vm.name}));
    let taken = refused(&vm, json!({"name": other.name.to_uppercase()}), 409, "already_exists");
    assert!(taken["detail"].as_str().unwrap().contains("exists"), "{taken}");
    agree(&vm.name, json!({"a/b": "<c & d>"}), "one\n <two> & \"3\"");

    lab.ok("start-vm", json!({"vm": vm.id}));
    let answer = modify(&vm, json!({"name": fresh, "tags": {}, "description": "", "live": true}));
    assert_eq!((&answer["live"], &answer["vm"]["state"]), (&json!(["name", "tags", "description"]), &json!("running")));
    agree(&fresh, json!({}), "");
    lab.err("describe-vm", json!({"vm": vm.name}), 404, "not_found");
    // The old name is free, and the new one taken; a name from somebody else's metadata takes nothing.
    modify(&other, json!({"name": vm.name}));
    lab.err("create-vm", request(&fresh.to_uppercase(), json!({})), 409, "already_exists");
    // What somebody has taken away is made anew.
    lab.node.virsh(&["metadata", domain(&vm), "urn:vmyard:domain:1", "--remove", "--live", "--config"]);
    lab.node.virsh(&["desc", "--title", "--new-desc", "", "--live", "--config", domain(&vm)]);
    modify(&vm, json!({"tags": {"new": "2"}}));
    agree(&fresh, json!({"new": "2"}), "");
}

#[test]
fn a_name_is_won_once_by_a_rename() {
    let lab = Lab::shared();
    let vms: Vec<_> = (0..4).map(|_| lab.create("racer")).collect();
    let wanted = lab.name("prize");
    let answers: Vec<_> = std::thread::scope(|scope| {
        let call = |vm: &TestVm, upper: bool| {
            let name = if upper { wanted.to_uppercase() } else { wanted.clone() };
            lab.server.call("modify-vm-spec", json!({"vm": vm.id, "name": name}))
        };
        let calls: Vec<_> = vms.iter().enumerate().map(|(n, vm)| scope.spawn(move || call(vm, n % 2 == 0))).collect();
        let create = scope.spawn(|| lab.server.call("create-vm", request(&wanted, json!({}))));
        calls.into_iter().map(|call| call.join().unwrap()).chain([create.join().unwrap()]).collect()
    });
    assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 1, "{answers:?}");
    assert!(answers.iter().all(|answer| answer.status == 200 || answer.body["code"] == "already_exists"));
    assert_eq!(lab.ok("list-vms", json!({"name": wanted}))["total"], 1);
    if answers[4].status == 200 {
        lab.ok("delete-vm", json!({"vm": wanted}));
    }
}

#[test]
fn a_size_waits_for_the_next_boot() {
    let lab = Lab::shared();
    // One without headroom, one with.
    for more in [json!({}), json!({"max_vcpus": 2, "max_memory_mib": 192})] {
        let vm = lab.create_with("sized", more);
        let off = modify(&vm, json!({"vcpus": 2, "memory_mib": 160}));
        assert_eq!((&off["live"], &off["pending"]), (&json!(["vcpus", "memory_mib"]), &json!([])));
        assert_eq!((&off["vm"]["vcpus"], &off["vm"]["memory_mib"]), (&json!(2), &json!(160)));
        assert_eq!(off["vm"]["pending"], Value::Null);
        let vm = vm.start();
        let on = modify(&vm, json!({"vcpus": 3, "memory_mib": 256, "description": "grown"}));
        assert_eq!((&on["live"], &on["pending"]), (&json!(["description"]), &json!(["vcpus", "memory_mib"])));
        assert_eq!((&on["vm"]["vcpus"], &on["vm"]["memory_mib"]), (&json!(2), &json!(160)));
        assert_eq!(on["vm"]["pending"], json!({"vcpus": 3, "memory_mib": 256}));
        assert_eq!(lab.ok("list-vms", json!({"name": vm.name}))["vms"][0]["pending"], on["vm"]["pending"]);
        let runs = lab.node.virsh(&["dumpxml", domain(&vm)]);
        assert!(runs.contains("<memory unit='KiB'>163840<") && !runs.contains("current='3'"), "{runs}");
        // Back again to what runs: nothing waits any more.
        let back = modify(&vm, json!({"vcpus": 2}));
        assert_eq!((&back["live"], &back["vm"]["pending"]), (&json!(["vcpus"]), &json!({"memory_mib": 256})));
        // What somebody else has changed is shown as well.
        lab.node.virsh(&["setvcpus", domain(&vm), "1", "--config"]);
        assert_eq!(vm.describe()["pending"], json!({"vcpus": 1, "memory_mib": 256}));
        let (code, text) = lab.server.cli(&["vm", "show", &vm.name]);
        assert!(code == 0 && text.contains("next boot    1 vCPU, 256 MiB\n"), "{text}");
        modify(&vm, json!({"vcpus": 3}));

        vm.ok("stop-vm", json!({"force": true}));
        assert_eq!(vm.describe()["pending"], Value::Null);
        forget_boot(&vm);
        let vm = vm.start().ready();
        assert_eq!(vm.run("nproc"), "3");
        assert!((250..=256).contains(&memory_total_mib(&vm)), "{}", memory_total_mib(&vm));
        let described = vm.describe();
        assert_eq!((&described["vcpus"], &described["max_vcpus"]), (&json!(3), &json!(3)));
        assert_eq!((&described["memory_mib"], &described["max_memory_mib"]), (&json!(256), &json!(256)));
    }
}

#[test]
fn more_is_plugged_live() {
    let lab = Lab::shared();
    let vm = lab.create_with("hot", json!({"max_vcpus": 3, "max_memory_mib": 512})).start().ready();
    let small = memory_total_mib(&vm);
    let unchanged = definition(&lab, domain(&vm));
    for (more, says) in [
        (json!({"vcpus": 4}), "max_vcpus is 3"),
        (json!({"memory_mib": 64}), "memory can't be unplugged"),
        (json!({"memory_mib": 640}), "max_memory_mib is 512"),
        (json!({"memory_mib": 192}), "in steps of 128 MiB (memory_mib is 128)"),
        // One that could be done doesn't go before one that can't.
        (json!({"vcpus": 2, "memory_mib": 1024, "name": "never", "tags": {"a": "b"}}), "max_memory_mib is 512"),
    ] {
        let mut more = more;
        more["live"] = json!(true);
        let problem = refused(&vm, more, 422, "unsupported");
        assert!(problem["detail"].as_str().unwrap().contains(says), "{problem}");
        assert!(problem["hint"].as_str().unwrap().contains("next boot"), "{problem}");
    }
    assert_eq!(definition(&lab, domain(&vm)), unchanged);
    assert_eq!(vm.run("nproc"), "1");

    let answer = modify(&vm, json!({"vcpus": 2, "memory_mib": 256, "live": true}));
    assert_eq!((&answer["live"], &answer["pending"]), (&json!(["vcpus", "memory_mib"]), &json!([])));
    assert_eq!((&answer["vm"]["vcpus"], &answer["vm"]["memory_mib"]), (&json!(2), &json!(256)));
    assert_eq!((&answer["vm"]["pending"], &answer["vm"]["max_memory_mib"]), (&Value::Null, &json!(512)));
    eventually("the guest has two CPUs", SOON, || (vm.run("nproc") == "2").then_some(()));
    eventually("the guest has the memory", SOON, || (memory_total_mib(&vm) >= small + 120).then_some(()));
    let problem = refused(&vm, json!({"vcpus": 1, "live": true}), 422, "unsupported");
    assert!(problem["detail"].as_str().unwrap().contains("CPUs can't be unplugged"), "{problem}");
    // Up to the maximum, a paused one too; then less for the next boot.
    lab.ok("pause-vm", json!({"vm": vm.id}));
    let answer = modify(&vm, json!({"vcpus": 3, "memory_mib": 512, "live": true}));
    assert_eq!((&answer["live"], &answer["vm"]["pending"]), (&json!(["vcpus", "memory_mib"]), &Value::Null));
    lab.ok("resume-vm", json!({"vm": vm.id}));
    eventually("the guest has all", SOON, || {
        (vm.run("nproc") == "3" && memory_total_mib(&vm) >= small + 370).then_some(())
    });
    let xml = lab.node.virsh(&["dumpxml", domain(&vm)]);
    assert_eq!(xml.matches("<memory model='dimm'>").count(), 2, "{xml}");
    assert!(!definition(&lab, domain(&vm)).contains("dimm"));

    // The next boot has the same, as plain memory.
    vm.ok("stop-vm", json!({}));
    forget_boot(&vm);
    let vm = vm.start().ready();
    assert_eq!(vm.run("nproc"), "3");
    assert!(memory_total_mib(&vm) >= small + 370);
    let described = vm.describe();
    assert_eq!((&described["memory_mib"], &described["max_memory_mib"]), (&json!(512), &json!(512)));
    let answer = modify(&vm, json!({"vcpus": 1, "memory_mib": 128}));
    assert_eq!(answer["vm"]["pending"], json!({"vcpus": 1, "memory_mib": 128}));
    // The headroom comes back with it.
    vm.ok("stop-vm", json!({"force": true}));
    let described = vm.describe();
    assert_eq!((&described["memory_mib"], &described["max_memory_mib"]), (&json!(128), &json!(512)));
    // Live makes no difference to a VM that is off.
    let answer = modify(&vm, json!({"memory_mib": 100, "live": true}));
    assert_eq!((&answer["live"], &answer["vm"]["memory_mib"]), (&json!(["memory_mib"]), &json!(100)));
    modify(&vm, json!({"memory_mib": 128}));
    assert_eq!(vm.ok("start-vm", json!({}))["vcpus"], 1);
}

#[test]
fn without_headroom_nothing_is_plugged() {
    let lab = Lab::shared();
    let vm = lab.create("plain").start();
    for more in [json!({"vcpus": 2}), json!({"memory_mib": 256})] {
        let mut more = more;
        more["live"] = json!(true);
        refused(&vm, more, 422, "unsupported");
    }
    let answer = modify(&vm, json!({"vcpus": 1, "memory_mib": 128, "live": true}));
    assert_eq!(answer["live"], json!(["vcpus", "memory_mib"]), "it has that much already");
}

#[test]
fn bad_input_changes_nothing() {
    let lab = Lab::shared();
    let vm = lab.create("strict");
    let before = (definition(&lab, domain(&vm)), describe(&vm)["name"].clone());
    for (more, field) in [
        (json!({"vcpus": 0}), "vcpus"),
        (json!({"vcpus": 10_000}), "vcpus"),
        (json!({"memory_mib": 1}), "memory_mib"),
        (json!({"memory_mib": 1_u64 << 40}), "memory_mib"),
        (json!({"name": "6f1f3c1e-8a0b-4a7e-9d55-000000000001"}), "name"),
        (json!({"name": "a b"}), "name"),
        (json!({"tags": {"a b": "c"}}), "tags"),
        (json!({"description": "bell \u{7}"}), "description"),
        (json!({"disk_gib": 5}), "disk_gib"),
        (json!({}), ""),
        (json!({"live": true, "name": null}), ""),
    ] {
        let problem = refused(&vm, more, 400, "invalid");
        assert_eq!(problem["errors"][0]["field"], field, "{problem}");
        let says = problem["detail"].as_str().unwrap();
        assert!(
            !field.is_empty() || says.contains("name, vcpus, memory_mib, tags, description, boot_order and autostart"),
            "{says}"
        );
    }
    let problem = refused(&vm, json!({"memory_mib": 10_000_000}), 409, "no_capacity");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("10000000 MiB are asked for") && detail.contains("free"), "{detail}");
    lab.err("modify-vm-spec", json!({"vm": "nobody", "vcpus": 2}), 404, "not_found");
    assert_eq!((definition(&lab, domain(&vm)), describe(&vm)["name"].clone()), before);
    // One that is undefined while it runs has no next boot.
    let vm = vm.start();
    lab.node.virsh(&["undefine", domain(&vm)]);
    refused(&vm, json!({"vcpus": 2}), 409, "wrong_state");
}

#[test]
fn only_vms_of_ours_are_modified() {
    let lab = Lab::own();
    let file = lab.dir.path.join("foreign.xml");
    fs::write(
        &file,
        "<domain type='qemu'><name>theirs</name><memory unit='MiB'>64</memory><vcpu>1</vcpu>
         <os><type arch='x86_64' machine='q35'>hvm</type></os><devices/></domain>",
    )
    .unwrap();
    lab.node.virsh(&["define", file.to_str().unwrap()]);
    eventually("it is listed", SOON, || (lab.ok("list-vms", json!({}))["total"] == 1).then_some(()));
    let problem = lab.err("modify-vm-spec", json!({"vm": "theirs", "vcpus": 2}), 422, "unsupported");
    assert!(problem["hint"].as_str().unwrap().contains("virsh edit theirs"), "{problem}");
    // Its name isn't free for one of ours.
    let vm = lab.create("ours");
    refused(&vm, json!({"name": "Theirs"}), 409, "already_exists");
}

#[test]
fn room_is_asked_for_by_the_difference() {
    let total = fs::read_to_string("/proc/meminfo").unwrap();
    let total = total.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024;
    let lab = Lab::with_settings(&format!("reserved_memory_mib = {}\ncpu_overcommit = 4.0", total - 1100));
    let node = || lab.ok("describe-node", json!({"node": "local"}));
    let free = node()["free_memory_mib"].as_u64().unwrap();
    let vm = lab.create_with("one", json!({"memory_mib": 512})).start();
    // All that is left beside its own: a VM that is on isn't counted twice.
    let plan = lab.ok("modify-vm-spec", json!({"vm": vm.id, "memory_mib": free, "plan": true}));
    let needs = &plan["plan"]["admission"];
    assert_eq!((&needs["memory_mib"], &needs["free_memory_mib"]), (&json!(free - 512), &json!(free - 512)));
    modify(&vm, json!({"memory_mib": free}));
    let problem = refused(&vm, json!({"memory_mib": free + 1}), 409, "no_capacity");
    assert!(problem["detail"].as_str().unwrap().contains(&format!("{} MiB more are asked for", free - 511)));
    let cpus = node()["cpus"].as_u64().unwrap() * 4;
    refused(&vm, json!({"vcpus": cpus + 1}), 409, "no_capacity");
    modify(&vm, json!({"vcpus": cpus, "memory_mib": 512}));
    // What it will take after its next boot is nobody's yet, and less is always granted.
    assert_eq!(node()["used_memory_mib"], 512);
    let other = lab.create_with("two", json!({"memory_mib": free - 600})).start();
    refused(&vm, json!({"memory_mib": 768}), 409, "no_capacity");
    modify(&vm, json!({"memory_mib": 256}));
    modify(&vm, json!({"name": "renamed", "vcpus": 1}));
    lab.ok("stop-vm", json!({"vm": vm.id, "force": true}));
    refused(&vm, json!({"memory_mib": 768}), 409, "no_capacity");
    modify(&vm, json!({"memory_mib": 128}));
    other.delete();
}

#[test]
fn on_the_command_line() {
    let lab = Lab::shared();
    let vm = lab.create_with("cli", json!({"tags": {"a": "b"}})).start();
    let cli = |args: &[&str]| {
        let (code, out, err) = lab.server.cli_apart(&[&["vm", "modify", &vm.id], args].concat());
        (code, out.trim_end().to_owned(), err)
    };
    let (code, out, err) = cli(&["--vcpus", "2", "--memory", "160", "--tag", "c=d", "--tag", "e=f", "--plan"]);
    assert_eq!(code, 0, "{err}");
    for line in
        ["at once      tags\n", "next start   vcpus\nnext start   memory_mib\n", "step         change-metadata\n"]
    {
        assert!(out.contains(line), "{out}");
    }
    assert!(out.contains("-  <vcpu placement='static'>1</vcpu>"), "{out}");
    let (code, out, err) = cli(&["--vcpus", "2", "--memory", "160", "--tag", "c=d", "--tag", "e=f"]);
    let wanted = format!("VM {} is running\nin effect: tags\nwaiting for its next boot: vcpus, memory", vm.name);
    assert_eq!((code, out), (0, wanted), "{err}");
    assert_eq!(describe(&vm)["tags"], json!({"c": "d", "e": "f"}));
    assert_eq!(cli(&["--no-tags", "--description", "some words"]).0, 0);
    assert_eq!((&describe(&vm)["tags"], &describe(&vm)["description"]), (&json!({}), &json!("some words")));
    let (code, _, err) = cli(&["--vcpus", "3", "--live"]);
    assert!(code == 1 && err.contains("hint: without live it takes effect at the next boot"), "{err}");
    assert_eq!(cli(&[]).0, 1);
    assert_eq!(cli(&["--no-tags", "--tag", "a=b"]).0, 2);
    let name = lab.name("renamed");
    assert_eq!(cli(&["--name", &name]).1, format!("VM {name} is running\nin effect: name"));
}

/// What store, index and domain say of a VM, but for when.
fn picture(lab: &Lab, id: &str, domain: &str) -> Value {
    let vm = lab.ok("describe-vm", json!({"vm": id}));
    let fields = ["name", "tags", "description", "max_vcpus", "max_memory_mib"].map(|field| vm[field].clone());
    let next =
        |field: &str| if vm["pending"][field].is_null() { vm[field].clone() } else { vm["pending"][field].clone() };
    json!([fields, next("vcpus"), next("memory_mib"), vm["memory_mib"], definition(lab, domain)])
}

/// The title is the store's name, and the tags in the metadata are the store's.
#[track_caller]
fn in_step(lab: &Lab, id: &str, domain: &str, what: &str) {
    let vm = lab.ok("describe-vm", json!({"vm": id}));
    assert_eq!(lab.node.virsh(&["desc", "--title", domain]), vm["name"].as_str().unwrap(), "{what}");
    let ours = lab.node.virsh(&["metadata", domain, "urn:vmyard:domain:1"]);
    assert_eq!(ours.matches("<tag ").count(), vm["tags"].as_object().unwrap().len(), "{what}: {ours}");
    lab.ok("list-vms", json!({"name": vm["name"]}));
}

const OFF: [&str; 3] = ["change-metadata", "change-definition", "record-change"];
const LIVE: [&str; 5] = ["change-metadata", "change-definition", "plug-memory", "plug-vcpus", "record-change"];

#[test]
fn killed_at_every_step_of_a_change() {
    let mut lab = Lab::own();
    let with = json!({"max_vcpus": 8, "max_memory_mib": 512, "tags": {"a": "b"}});
    let vm = lab.ok("create-vm", request("phoenix", with));
    let (id, domain) = (vm["id"].as_str().unwrap(), vm["domain"].as_str().unwrap());
    let mut vcpus = 1;
    for (steps, live) in [(&OFF[..], false), (&LIVE[..], true)] {
        if live {
            lab.ok("start-vm", json!({"vm": id}));
            std::mem::forget(TestVm::new(&lab, vm.clone()).ready());
        }
        for step in steps {
            for point in ["before", "after"] {
                let at = format!("{step}:{point}");
                let before = picture(&lab, id, domain);
                // What was plugged once can't be unplugged.
                if live {
                    vcpus = lab.ok("describe-vm", json!({"vm": id}))["vcpus"].as_u64().unwrap() + 1;
                }
                let wanted = if live { vcpus } else { 9 };
                let change = json!({"vm": id, "name": format!("{step}-{live}"), "tags": {}, "description": at,
                    "vcpus": wanted, "memory_mib": 256, "live": live});
                lab.server.kill_and_restart(&[("VMYARD_CRASH_AT", &at)]);
                assert_eq!(lab.server.call("modify-vm-spec", change.clone()).status, 0, "killed at {at}");
                lab.server.kill_and_restart(&[]);
                lab.wait_for_tasks();
                in_step(&lab, id, domain, &at);
                let task =
                    lab.ok("list-tasks", json!({"method": "modify-vm-spec", "limit": 1}))["tasks"][0]["id"].clone();
                let task = lab.ok("describe-task", json!({"task": task}));
                if at == "record-change:after" {
                    let result = &task["result"];
                    assert_eq!((&task["state"], &result["vm"]["name"]), (&json!("done"), &change["name"]), "{task}");
                    assert_eq!(result["live"], json!(["name", "vcpus", "memory_mib", "tags", "description"]));
                    let now = lab.ok("describe-vm", json!({"vm": id}));
                    assert_eq!((&now["vcpus"], &now["memory_mib"]), (&json!(wanted), &json!(256)), "{now}");
                    assert_eq!(now["pending"], Value::Null);
                    if !live {
                        let back =
                            json!({"vm": id, "name": "phoenix", "tags": {"a": "b"}, "vcpus": 1, "memory_mib": 128});
                        lab.ok("modify-vm-spec", back);
                    }
                } else {
                    assert_eq!(task["state"], "failed", "{at}: {task}");
                    assert_eq!(picture(&lab, id, domain), before, "{at}");
                }
            }
        }
    }
}

#[test]
fn failing_at_every_step_of_a_change_and_killed_while_it_is_put_back() {
    let mut lab = Lab::own();
    let vm = lab.ok("create-vm", request("icarus", json!({"max_vcpus": 8, "max_memory_mib": 512, "start": true})));
    let (id, domain) = (vm["id"].as_str().unwrap(), vm["domain"].as_str().unwrap());
    std::mem::forget(TestVm::new(&lab, vm.clone()).ready());
    let before = picture(&lab, id, domain);
    let change = |vcpus: u32| json!({"vm": id, "name": "sun", "tags": {"a": "b"}, "vcpus": vcpus, "memory_mib": 256, "live": true});
    let mut vcpus = 1;
    for step in LIVE {
        for point in ["before", "after"] {
            let at = format!("{step}:{point}");
            if at == "record-change:after" {
                continue;
            }
            vcpus += 1;
            lab.server.kill_and_restart(&[("VMYARD_FAIL_AT", &at)]);
            lab.err("modify-vm-spec", change(vcpus), 422, "unsupported");
            lab.wait_for_tasks();
            in_step(&lab, id, domain, &at);
            assert_eq!(picture(&lab, id, domain), before, "{at}");
        }
        vcpus = lab.ok("describe-vm", json!({"vm": id}))["vcpus"].as_u64().unwrap() as u32;
    }
    // Each undo is done, not journalled, and done again; nobody comes between.
    for step in &LIVE[..3] {
        let undone = format!("{step}:undone");
        lab.server.kill_and_restart(&[("VMYARD_FAIL_AT", "plug-vcpus:before"), ("VMYARD_CRASH_AT", &undone)]);
        assert_eq!(lab.server.call("modify-vm-spec", change(7)).status, 0, "killed at {undone}");
        lab.server.kill_and_restart(&[]);
        lab.wait_for_tasks();
        in_step(&lab, id, domain, &undone);
        assert_eq!(picture(&lab, id, domain), before, "{undone}");
    }
    // What is recorded is done, whatever comes after it.
    lab.server.kill_and_restart(&[("VMYARD_FAIL_AT", "record-change:after")]);
    let answer = lab.ok("modify-vm-spec", change(7));
    assert_eq!((&answer["vm"]["name"], &answer["vm"]["vcpus"]), (&json!("sun"), &json!(7)));
    assert_eq!(answer["live"], json!(["name", "vcpus", "memory_mib", "tags"]));
    in_step(&lab, id, domain, "a failure after the end");
}

#[test]
fn what_is_taken_back_late_comes_over_nothing_new() {
    let mut lab = Lab::own();
    let vm = lab.ok("create-vm", request("late", json!({"tags": {"a": "b"}})));
    let (id, domain) = (vm["id"].as_str().unwrap(), vm["domain"].as_str().unwrap());
    lab.server.kill_and_restart(&[("VMYARD_CRASH_AT", "change-definition:after")]);
    assert_eq!(lab.server.call("modify-vm-spec", json!({"vm": id, "name": "lost", "vcpus": 3})).status, 0);
    lab.node.command("kill-libvirtd");
    lab.server.kill_and_restart(&[]);
    // The node is away, so nothing can be put back yet; until it is, nobody else has the VM.
    let problem = lab.err("modify-vm-spec", json!({"vm": id, "vcpus": 2}), 409, "busy");
    assert!(problem["task"].is_string(), "{problem}");
    lab.err("start-vm", json!({"vm": id}), 409, "busy");
    lab.node.command("start-libvirtd");
    let answer = eventually("it was put back", SOON, || {
        let answer = lab.server.call("modify-vm-spec", json!({"vm": id, "vcpus": 2, "description": "after"}));
        assert!(answer.status == 200 || answer.body["code"] == "busy", "{answer:?}");
        (answer.status == 200).then_some(answer.body)
    });
    lab.wait_for_tasks();
    assert_eq!((&answer["vm"]["name"], &answer["vm"]["vcpus"]), (&json!("late"), &json!(2)));
    let now = lab.ok("describe-vm", json!({"vm": id}));
    assert_eq!((&now["vcpus"], &now["description"]), (&json!(2), &json!("after")));
    in_step(&lab, id, domain, "an undo that came late");
}
