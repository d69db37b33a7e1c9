//! attach-volume and detach-volume: hot and cold, in step, never twice, and never taken from a guest that holds on.

use crate::{
    lab::{Lab, SOON, TestVm, eventually},
    volumes::has,
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Instant};

fn volume(lab: &Lab, name: &str) -> Value {
    lab.ok("create-volume", json!({"name": lab.name(name), "size_gib": 1}))
}

fn state(lab: &Lab, volume: &Value) -> (String, Value, Value) {
    let now = lab.ok("describe-volume", json!({"volume": volume["id"]}));
    (now["state"].as_str().unwrap().to_owned(), now["vm"].clone(), now["device"].clone())
}

fn devices(vm: &TestVm<'_>) -> Vec<String> {
    let vm = vm.describe();
    vm["disks"].as_array().unwrap().iter().map(|disk| disk["device"].as_str().unwrap().to_owned()).collect()
}

/// The disks of the definition, which count from the next start on.
fn defined(vm: &TestVm<'_>) -> String {
    vm.lab.node.virsh(&["dumpxml", "--inactive", vm.created["domain"].as_str().unwrap()])
}

fn path(volume: &Value) -> &str {
    volume["path"].as_str().unwrap()
}

/// The name that the guest has for a volume's disk.
fn in_guest(vm: &TestVm<'_>, volume: &Value) -> String {
    let serial = volume["id"].as_str().unwrap().replace('-', "")[12..].to_owned();
    let line = format!("grep -l {serial} /sys/block/*/serial | cut -d/ -f4");
    eventually("the guest sees the disk", SOON, || Some(vm.run(&line)).filter(|name| !name.is_empty()))
}

#[test]
fn cold_and_back() {
    let lab = Lab::shared();
    let vm = lab.create("cold");
    let (one, two) = (volume(&lab, "one"), volume(&lab, "two"));
    let attached = vm.ok("attach-volume", json!({"volume": one["name"]}));
    let disk = attached["vm"]["disks"][1].clone();
    assert_eq!(
        (&disk["device"], &disk["volume"], &disk["role"], &disk["size_gib"], &disk["pool"]),
        (&json!("vdb"), &one["id"], &json!("data"), &json!(1.0), &json!("default"))
    );
    assert_eq!((&attached["volume"]["state"], &attached["volume"]["vm"]), (&json!("attached"), &json!(vm.name)));
    let problem = vm.err("attach-volume", json!({"volume": two["id"], "device": "vdb"}), 409, "in_use");
    assert!(problem["detail"].as_str().unwrap().contains("has a disk vdb already"), "{problem}");
    vm.ok("attach-volume", json!({"volume": two["id"], "device": "vdd"}));
    assert_eq!(devices(&vm), ["vda", "vdb", "vdd"]);
    assert!(defined(&vm).contains(path(&one)));
    // It is listed as the VM's, and stays it: nobody else gets it, nobody deletes it.
    vm.err("attach-volume", json!({"volume": one["id"]}), 409, "in_use");
    let other = lab.create("other");
    let problem = other.err("attach-volume", json!({"volume": one["id"]}), 409, "in_use");
    assert!(problem["detail"].as_str().unwrap().contains(&format!("VM {} has volume", vm.name)), "{problem}");
    lab.err("delete-volume", json!({"volume": one["id"]}), 409, "in_use");
    other.err("detach-volume", json!({"volume": one["id"]}), 409, "wrong_state");

    let detached = vm.ok("detach-volume", json!({"volume": one["id"]}));
    assert_eq!((&detached["volume"]["state"], &detached["volume"]["vm"]), (&json!("available"), &Value::Null));
    assert_eq!(devices(&vm), ["vda", "vdd"]);
    assert!(!defined(&vm).contains(path(&one)));
    vm.err("detach-volume", json!({"volume": one["id"]}), 409, "wrong_state");
    // The first free name is taken again.
    assert_eq!(other.ok("attach-volume", json!({"volume": one["id"]}))["volume"]["device"], "vdb");
    // Whoever took it away outside of Vmyard: detach-volume sets it free.
    lab.node.virsh(&["detach-disk", other.created["domain"].as_str().unwrap(), "vdb", "--config"]);
    assert_eq!(other.ok("detach-volume", json!({"volume": one["id"]}))["volume"]["state"], "available");
    // delete-vm keeps them, or takes them with it.
    other.ok("attach-volume", json!({"volume": one["id"]}));
    let deleted = lab.ok("delete-vm", json!({"vm": other.id, "delete_volumes": true}));
    assert_eq!(deleted["kept"], json!([]));
    lab.err("describe-volume", json!({"volume": one["id"]}), 404, "not_found");
    let deleted = lab.ok("delete-vm", json!({"vm": vm.id}));
    assert_eq!(deleted["kept"], json!([path(&two)]));
    assert_eq!(state(&lab, &two), ("available".to_owned(), Value::Null, Value::Null));
    lab.ok("delete-volume", json!({"volume": two["id"]}));
}

#[test]
fn hot_and_back() {
    let lab = Lab::shared();
    let vm = lab.create("hot").start().ready();
    let data = volume(&lab, "hot-data");
    vm.ok("attach-volume", json!({"volume": data["id"]}));
    assert_eq!(devices(&vm), ["vda", "vdb"]);
    assert!(defined(&vm).contains(path(&data)), "live and definition are in step");
    let disk = in_guest(&vm, &data);
    vm.run(&format!("echo kept >/dev/{disk} && sync"));
    // It grows under the guest.
    let larger = lab.ok("resize-volume", json!({"volume": data["id"], "size_gib": 2}));
    assert_eq!((&larger["size_gib"], &larger["state"]), (&json!(2.0), &json!("attached")));
    eventually("the guest sees the new size", SOON, || {
        (vm.run(&format!("cat /sys/block/{disk}/size")) == "4194304").then_some(())
    });
    // A copy of what a guest writes to would be torn.
    let copy = json!({"volume": data["id"], "name": lab.name("torn")});
    let problem = lab.err("clone-volume", copy, 409, "wrong_state");
    assert!(problem["hint"].as_str().unwrap().contains("stop it first"), "{problem}");

    let detached = vm.ok("detach-volume", json!({"volume": data["id"], "timeout_s": 60}));
    assert_eq!(
        (&detached["volume"]["state"], detached["vm"]["disks"].as_array().unwrap().len()),
        (&json!("available"), 1)
    );
    assert_eq!(vm.run(&format!("ls /sys/block | grep -c {disk} || true")), "0");
    assert!(!defined(&vm).contains(path(&data)));
    // The second one needs another port than the first.
    let more = volume(&lab, "hot-more");
    vm.ok("attach-volume", json!({"volume": data["id"]}));
    vm.ok("attach-volume", json!({"volume": more["id"]}));
    let disk = in_guest(&vm, &data);
    assert_eq!(vm.run(&format!("head -c 4 /dev/{disk}")), "kept");
    vm.ok("stop-vm", json!({"force": true}));
    assert_eq!(devices(&vm), ["vda", "vdb", "vdc"]);
    vm.delete();
    for volume in [data, more] {
        lab.ok("delete-volume", json!({"volume": volume["id"]}));
    }
}

#[test]
fn a_guest_that_holds_on_keeps_it() {
    let lab = Lab::shared();
    let vm = lab.create("deaf").deaf();
    let data = volume(&lab, "held");
    vm.ok("attach-volume", json!({"volume": data["id"]}));
    let vm = vm.start();
    let problem = vm.err("detach-volume", json!({"volume": data["id"], "timeout_s": 6}), 504, "timeout");
    assert!(problem["detail"].as_str().unwrap().contains("it stays attached"), "{problem}");
    assert!(problem["hint"].as_str().unwrap().contains("force"), "{problem}");
    assert_eq!(state(&lab, &data), ("attached".to_owned(), json!(vm.name), json!("vdb")));
    assert_eq!(devices(&vm), ["vda", "vdb"]);
    assert!(defined(&vm).contains(path(&data)));
    // One that is paused can't let go either.
    vm.ok("pause-vm", json!({}));
    vm.err("detach-volume", json!({"volume": data["id"]}), 409, "wrong_state");
    vm.ok("resume-vm", json!({}));

    // By force it leaves the definition; the guest has it until it is off.
    let forced = vm.ok("detach-volume", json!({"volume": data["id"], "force": true, "timeout_s": 1}));
    assert_eq!(forced["volume"]["state"], "detaching");
    assert!(!defined(&vm).contains(path(&data)));
    assert_eq!(devices(&vm), ["vda", "vdb"], "the guest has it in its hands");
    let other = lab.create("heir");
    let problem = other.err("attach-volume", json!({"volume": data["id"]}), 409, "in_use");
    assert!(problem["detail"].as_str().unwrap().contains("has not let go of"), "{problem}");
    lab.err("delete-volume", json!({"volume": data["id"]}), 409, "in_use");
    let listed = lab.ok("list-volumes", json!({"state": "detaching"}));
    assert_eq!(listed["volumes"][0]["id"], data["id"]);
    vm.ok("stop-vm", json!({"force": true}));
    eventually("it is free", SOON, || (state(&lab, &data).0 == "available").then_some(()));
    other.ok("attach-volume", json!({"volume": data["id"]}));
    lab.ok("delete-vm", json!({"vm": other.id, "delete_volumes": true}));
}

#[test]
fn of_twenty_calls_one_gets_it() {
    let lab = Lab::own();
    let vms: Vec<_> = (0..4).map(|n| lab.create(&format!("racer{n}"))).collect();
    let data = lab.ok("create-volume", json!({"name": "prize", "size_gib": 1}));
    let mut codes: BTreeMap<String, usize> = BTreeMap::new();
    std::thread::scope(|scope| {
        let calls: Vec<_> = (0..20)
            .map(|n| {
                let (lab, vm, volume) = (&lab, &vms[n % vms.len()].id, &data["id"]);
                scope.spawn(move || lab.server.call("attach-volume", json!({"vm": vm, "volume": volume})))
            })
            .collect();
        for call in calls {
            let answer = call.join().unwrap();
            let code = answer.body["code"].as_str().map_or_else(|| answer.status.to_string(), str::to_owned);
            *codes.entry(code).or_default() += 1;
        }
    });
    assert_eq!(codes.get("200"), Some(&1), "{codes:?}");
    assert!(codes.keys().all(|code| ["200", "busy", "in_use"].contains(&code.as_str())), "{codes:?}");
    let with_it = vms.iter().filter(|vm| defined(vm).contains(path(&data))).count();
    assert_eq!(with_it, 1, "a volume is one VM's");
}

#[test]
fn what_does_not_fit_is_refused() {
    let lab = Lab::own();
    let vm = lab.create("strict");
    let data = volume(&lab, "unfit");
    for device in ["vda", "sdb", "vdB", "vdaa", ""] {
        vm.err("attach-volume", json!({"volume": data["id"], "device": device}), 400, "invalid");
    }
    vm.err("attach-volume", json!({"volume": "nix"}), 404, "not_found");
    lab.err("attach-volume", json!({"vm": "nix", "volume": data["id"]}), 404, "not_found");
    let problem = vm.err("attach-volume", json!({"volume": "tiny"}), 422, "unsupported");
    assert!(problem["detail"].as_str().unwrap().contains("is a template"), "{problem}");
    // A file outside of all pools has no name here; one that somebody put into a pool has no id.
    let outside = lab.node.dir.join("outside.raw");
    std::fs::write(&outside, [0; 512]).unwrap();
    vm.err("attach-volume", json!({"volume": outside}), 404, "not_found");
    lab.node.virsh(&["vol-create-as", "default", "foreign.img", "1M"]);
    vm.err("attach-volume", json!({"volume": "foreign.img"}), 422, "unsupported");
    // The system disk stays where it is.
    let system = vm.describe()["disks"][0]["volume"].clone();
    let problem = vm.err("detach-volume", json!({"volume": system}), 422, "unsupported");
    assert!(problem["detail"].as_str().unwrap().contains("system disk"), "{problem}");
    let other = lab.create("thief");
    other.err("attach-volume", json!({"volume": system}), 409, "in_use");
    // What virsh has given to a domain is not given away a second time.
    let domain = other.created["domain"].as_str().unwrap();
    lab.node.virsh(&["attach-disk", domain, path(&data), "vdb", "--config", "--subdriver", "qcow2"]);
    eventually("it is seen", SOON, || (devices(&other).len() == 2).then_some(()));
    let problem = vm.err("attach-volume", json!({"volume": data["id"]}), 409, "in_use");
    assert!(problem["detail"].as_str().unwrap().contains("not done by Vmyard"), "{problem}");
    lab.err("delete-volume", json!({"volume": data["id"]}), 409, "in_use");
    // An image that is gone.
    let lost = volume(&lab, "lost");
    lab.node.virsh(&["vol-delete", path(&lost)]);
    let problem = vm.err("attach-volume", json!({"volume": lost["id"]}), 409, "wrong_state");
    assert!(problem["detail"].as_str().unwrap().contains("is not there"), "{problem}");
    lab.ok("delete-volume", json!({"volume": lost["id"]}));
}

#[test]
fn as_many_as_there_are_ports() {
    let lab = Lab::own();
    let vm = lab.create("many").start();
    let mut attached = 0;
    let problem = loop {
        let data = lab.ok("create-volume", json!({"name": format!("v{attached}"), "size_gib": 1}));
        let answer = lab.server.call("attach-volume", json!({"vm": vm.id, "volume": data["id"]}));
        match answer.status {
            200 => attached += 1,
            _ => break answer.body,
        }
        assert!(attached < 30);
    };
    assert!(attached >= 15, "{attached}");
    assert_eq!(problem["code"], "unsupported", "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("no free PCI port"), "{problem}");
    // Nothing of the one that failed is left.
    let last = format!("v{attached}");
    assert_eq!(lab.ok("describe-volume", json!({"volume": last}))["state"], "available");
    assert_eq!(devices(&vm).len(), attached + 1);
    // It starts with all of them.
    vm.ok("stop-vm", json!({"force": true}));
    let vm = vm.start();
    assert_eq!(devices(&vm).len(), attached + 1);
}

#[test]
fn by_the_command_line() {
    let lab = Lab::shared();
    let vm = lab.create("cli-disk");
    let (name, copy) = (lab.name("cli-data"), lab.name("cli-copy"));
    let (code, text) = lab.server.cli(&["volume", "create", &name, "--size", "1"]);
    assert!(
        code == 0 && text.starts_with(&format!("volume {name} (")) && text.ends_with(") of 1.0 GiB is available\n"),
        "{text}"
    );
    let (code, text) = lab.server.cli(&["volume", "attach", &name, &vm.name]);
    assert!(code == 0 && text.ends_with(&format!("is attached as vdb of VM {}\n", vm.name)), "{text}");
    assert!(lab.server.cli(&["volume", "resize", &name, "2"]).1.contains("of 2.0 GiB is attached as vdb"));
    let (code, text) = lab.server.cli(&["volume", "clone", &name, &copy]);
    assert!(code == 0 && text.contains("is available"), "{text}");
    assert!(lab.server.cli(&["volume", "show", &name]).1.contains("vdb"));
    assert!(lab.server.cli(&["volume", "detach", &name, &vm.name]).1.ends_with("is available\n"));
    assert!(
        lab.server.cli(&["volume", "attach", &copy, &vm.name, "--device", "vdc", "--plan"]).1.contains("attach-disk")
    );
    let (code, text) = lab.server.cli(&["volume", "attach", &copy, &vm.name, "--device", "vda"]);
    assert!(code == 1 && text.contains("vdb to vdz"), "{text}");
    lab.server.cli(&["volume", "attach", &copy, &vm.name]);
    assert_eq!(lab.server.cli(&["vm", "delete", &vm.name, "--volumes"]), (0, format!("VM {} is deleted\n", vm.name)));
    lab.err("describe-volume", json!({"volume": copy}), 404, "not_found");
    let has_name = lab.ok("describe-volume", json!({"volume": name}));
    has(&has_name, 0, "0", "1M");
    assert_eq!(lab.server.cli(&["volume", "delete", &name]), (0, format!("volume {name} is deleted\n")));
}

#[test]
fn what_goes_through_is_limited() {
    let lab = Lab::own();
    let vm = lab.create("slow").start().ready();
    let data = volume(&lab, "slow-data");
    vm.ok("attach-volume", json!({"volume": data["id"]}));
    let disk = in_guest(&vm, &data);
    // Seconds that 8 MiB take, through to the disk; by our clock, since a guest's loses time where the machine is busy.
    let write = || -> f64 {
        let begun = Instant::now();
        vm.run(&format!("dd if=/dev/zero of=/dev/{disk} bs=1M count=8 conv=fsync 2>/dev/null"));
        begun.elapsed().as_secs_f64()
    };
    let limited = vm.ok("modify-disk", json!({"device": "vdb", "write_bytes_per_s": 1 << 20, "read_iops": 900}));
    let limits = json!({"total_iops": null, "read_iops": 900, "write_iops": null,
        "total_bytes_per_s": null, "read_bytes_per_s": null, "write_bytes_per_s": 1 << 20});
    assert_eq!((&limited["disks"][1]["limits"], &limited["disks"][0]["limits"]), (&limits, &Value::Null));
    let slow = write();
    assert!(slow > 5.0, "{slow} s");
    // It stays through snapshots and merges, and what is not named stays.
    vm.ok("create-snapshot", json!({"name": "between"}));
    assert_eq!(vm.ok("delete-snapshot", json!({"snapshot": "between"}))["pending"], Value::Null);
    let tuned = || lab.node.virsh(&["blkdeviotune", vm.created["domain"].as_str().unwrap(), "vdb"]);
    assert!(tuned().contains(&format!("write_bytes_sec: {}", 1 << 20)), "{}", tuned());
    assert_eq!(vm.describe()["disks"][1]["limits"], limits);
    let slow = write();
    // Whether it lasts tells a limit that is gone from a queue that QEMU has let go at once, as it does when a disk's images change.
    assert!(slow > 5.0, "{slow} s, and then {} s; {}", write(), tuned());
    assert!(defined(&vm).contains("<read_iops_sec>900</read_iops_sec>"));
    let field = |more: Value| {
        let mut body = json!({"device": "vdb"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        vm.err("modify-disk", body, 400, "invalid")["errors"][0]["field"].as_str().unwrap().to_owned()
    };
    assert_eq!(field(json!({})), "");
    assert_eq!(field(json!({"total_iops": 100})), "total_iops");
    assert_eq!(field(json!({"total_bytes_per_s": 100})), "total_bytes_per_s");
    assert_eq!(field(json!({"read_iops": 2_000_000_000})), "read_iops");
    assert_eq!(field(json!({"device": "sda", "read_iops": 1})), "device");
    vm.err("modify-disk", json!({"device": "vdc", "read_iops": 1}), 404, "not_found");
    assert_eq!(vm.describe()["disks"][1]["limits"], limits);
    // Totals take the place of the others when those go.
    let total = json!({"device": "vdb", "write_bytes_per_s": 0, "read_iops": 0, "total_iops": 10_000});
    let limited = vm.ok("modify-disk", total);
    assert_eq!(limited["disks"][1]["limits"]["total_iops"], 10_000);
    let (code, text) = lab.server.cli(&["volume", "limit", &vm.name, "vdb", "--iops", "0", "--bytes", "500000000"]);
    assert_eq!((code, text), (0, format!("VM {} is running\nvdb: total_bytes_per_s 500000000\n", vm.name)));
    assert!(lab.server.cli(&["vm", "show", &vm.name]).1.contains("total_bytes_per_s 500000000"));
    vm.ok("modify-disk", json!({"device": "vdb", "total_bytes_per_s": 0}));
    assert_eq!(vm.describe()["disks"][1]["limits"], Value::Null);
    eventually("nothing limits it", SOON, || (write() < 5.0).then_some(()));
}
