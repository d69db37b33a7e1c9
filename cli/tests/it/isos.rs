//! ISO images: create-vm with one and a blank disk, attach-iso, eject-iso, and what a VM boots from.

pub mod image;

use crate::lab::{Lab, SOON, TestVm, eventually, request};
use serde_json::{Value, json};
use std::fs;

/// Puts an ISO image into the pool, as an administrator would.
fn iso(lab: &Lab, name: &str) -> String {
    let path = lab.node.dir.join("pools/default").join(name);
    fs::write(&path, image::installer()).unwrap();
    lab.node.virsh(&["pool-refresh", "default"]);
    path.display().to_string()
}

fn xml(vm: &TestVm<'_>, which: &str) -> String {
    vm.lab.node.virsh(&["dumpxml", vm.created["domain"].as_str().unwrap(), which])
}

fn says(vm: &TestVm<'_>, line: &str, times: usize) {
    eventually(&format!("it says {line:?} {times} times: {}", vm.serial_log()), SOON, || {
        (vm.serial_log().matches(line).count() >= times).then_some(())
    });
}

#[test]
fn a_system_is_installed() {
    let lab = Lab::own();
    let path = iso(&lab, "install.iso");
    let blank = json!({"name": "new", "iso": "install.iso", "disk_gib": 1, "vcpus": 1, "memory_mib": 64});
    let vm = TestVm::new(&lab, lab.ok("create-vm", blank));
    assert_eq!(
        (&vm.created["iso"], &vm.created["boot_order"], &vm.created["template"], &vm.created["state"]),
        (&json!(path), &json!(["disk", "cdrom"]), &Value::Null, &json!("shutoff"))
    );
    assert_eq!(vm.created["disks"][0]["size_gib"], 1.0);
    // The disk has nothing to boot, so the installer runs; it resets the machine, and the disk is what boots then.
    let vm = vm.start();
    says(&vm, image::INSTALLING, 1);
    says(&vm, image::INSTALLED, 1);
    // The image goes under the running guest, and the system stays.
    let ejected = vm.ok("eject-iso", json!({}));
    assert_eq!(ejected["iso"], Value::Null);
    for which in ["--security-info", "--inactive"] {
        assert!(!xml(&vm, which).contains("install.iso"), "{which}");
    }
    let problem = vm.err("eject-iso", json!({}), 409, "wrong_state");
    assert!(problem["detail"].as_str().unwrap().contains("is empty"), "{problem}");
    vm.ok("attach-iso", json!({"iso": "install.iso"}));
    assert!(xml(&vm, "--security-info").contains("install.iso") && xml(&vm, "--inactive").contains("install.iso"));
    // The other way round it would install again: that waits for the next boot.
    let changed = vm.ok("modify-vm-spec", json!({"boot_order": ["cdrom", "disk"]}));
    assert_eq!((&changed["pending"], &changed["live"]), (&json!(["boot_order"]), &json!([])));
    assert_eq!(changed["vm"]["pending"], json!({"boot_order": ["cdrom", "disk"]}));
    assert_eq!(changed["vm"]["boot_order"], json!(["disk", "cdrom"]));
    vm.ok("stop-vm", json!({"force": true}));
    assert_eq!(vm.describe()["boot_order"], json!(["cdrom", "disk"]));
    let vm = vm.start();
    says(&vm, image::INSTALLING, 2);
    vm.ok("stop-vm", json!({"force": true}));
    let back = vm.ok("modify-vm-spec", json!({"boot_order": ["disk"]}));
    assert_eq!(back["live"], json!(["boot_order"]));

    // It has snapshots as any other, a VM of one stands on no template, and a template can be made of its disk.
    vm.ok("create-snapshot", json!({"name": "done"}));
    let copy =
        lab.ok("create-vm-from-snapshot", json!({"vm": vm.id, "snapshot": "done", "name": "copy", "start": true}));
    let copy = TestVm::new(&lab, copy);
    assert_eq!((&copy.created["template"], &copy.created["iso"]), (&Value::Null, &Value::Null));
    says(&copy, image::INSTALLED, 1);
    copy.delete();
    let vm = vm.start();
    let said = vm.serial_log().matches(image::INSTALLED).count();
    says(&vm, image::INSTALLED, said.max(1));
    vm.ok("stop-vm", json!({"force": true}));
    let problem = vm.err("reset-vm-system", json!({}), 422, "unsupported");
    assert!(problem["hint"].as_str().unwrap().contains("name one"), "{problem}");
    let plain = json!({"name": "plain", "vm": vm.id, "snapshot": "done", "cloud_init": false});
    lab.ok("register-template", plain);
    let reset = vm.ok("reset-vm-system", json!({"template": "plain"}));
    assert_eq!(reset["template"], "plain");
    lab.ok("delete-vm", json!({"vm": vm.id, "delete_snapshots": true}));
    assert!(fs::exists(path).unwrap(), "it is the administrator's");
}

#[test]
fn what_does_not_fit_is_refused() {
    let lab = Lab::own();
    iso(&lab, "there.iso");
    fs::write(lab.node.dir.join("pools/default/not.iso"), vec![0; 40_000]).unwrap();
    fs::write(lab.node.dir.join("pools/default/short.iso"), b"CD001").unwrap();
    lab.node.virsh(&["pool-refresh", "default"]);
    let field = |problem: &Value| problem["errors"][0]["field"].as_str().unwrap_or_default().to_owned();
    let refused = |more: Value, status: u16, code: &str| {
        let mut body = json!({"name": "new", "vcpus": 1, "memory_mib": 64});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        field(&lab.err("create-vm", body, status, code))
    };
    assert_eq!(refused(json!({}), 400, "invalid"), "template");
    assert_eq!(refused(json!({"iso": "there.iso"}), 400, "invalid"), "disk_gib");
    assert_eq!(refused(json!({"iso": "not.iso", "disk_gib": 1}), 400, "invalid"), "iso");
    assert_eq!(refused(json!({"iso": "short.iso", "disk_gib": 1}), 400, "invalid"), "iso");
    refused(json!({"iso": "nix.iso", "disk_gib": 1}), 404, "not_found");
    refused(json!({"iso": "../there.iso", "disk_gib": 1}), 404, "not_found");
    refused(json!({"iso": "there.iso", "iso_pool": "nix", "disk_gib": 1}), 404, "not_found");
    let with_seed = json!({"iso": "there.iso", "disk_gib": 1, "cloud_init": {"user": "ann"}});
    assert_eq!(refused(with_seed, 400, "invalid"), "cloud_init");
    for order in [json!([]), json!(["disk", "disk"]), json!(["floppy"]), json!("disk")] {
        assert!(refused(json!({"template": "tiny", "boot_order": order}), 400, "invalid").starts_with("boot_order"));
    }
    let alone = json!({"template": "tiny", "boot_order": ["network"], "networks": []});
    assert_eq!(refused(alone, 400, "invalid"), "boot_order");

    let vm = lab.create_with("strict", json!({"networks": []}));
    let own = vm.describe()["disks"][0]["path"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
    assert_eq!(field(&vm.err("attach-iso", json!({"iso": own}), 400, "invalid")), "iso");
    vm.err("attach-iso", json!({"iso": "nix.iso"}), 404, "not_found");
    vm.err("attach-iso", json!({}), 400, "invalid");
    let problem = vm.err("modify-vm-spec", json!({"boot_order": ["network", "disk"]}), 422, "unsupported");
    assert!(problem["detail"].as_str().unwrap().contains("no network interface"), "{problem}");
    // A VM whose drive somebody has taken away gets a new one, when it is off.
    let domain = vm.created["domain"].as_str().unwrap();
    lab.node.virsh(&["detach-disk", domain, "sdb", "--config"]);
    vm.err("eject-iso", json!({}), 409, "wrong_state");
    let vm = vm.start();
    let problem = vm.err("attach-iso", json!({"iso": "there.iso"}), 422, "unsupported");
    assert!(problem["hint"].as_str().unwrap().contains("stop it first"), "{problem}");
    vm.ok("stop-vm", json!({"force": true}));
    assert!(vm.ok("attach-iso", json!({"iso": "there.iso"}))["iso"].as_str().unwrap().ends_with("/there.iso"));
    // Two VMs may have the same image, also both while they run.
    let other = lab.create_with("other", json!({"iso": "there.iso", "start": true}));
    vm.start();
    assert_eq!(other.state(), "running");
}

#[test]
fn killed_while_it_changes() {
    let mut lab = Lab::own();
    let path = iso(&lab, "cut.iso");
    let id = lab.ok("create-vm", request("cut", json!({"start": true})))["id"].clone();
    let there = |lab: &Lab| {
        let vm = lab.ok("describe-vm", json!({"vm": id}));
        let defined = lab.node.virsh(&["dumpxml", vm["domain"].as_str().unwrap(), "--inactive"]).contains("cut.iso");
        assert_eq!(vm["iso"] == json!(path), defined, "{vm}");
        defined
    };
    for (method, body, before) in
        [("attach-iso", json!({"vm": id, "iso": "cut.iso"}), false), ("eject-iso", json!({"vm": id}), true)]
    {
        for how in ["VMYARD_CRASH_AT", "VMYARD_FAIL_AT"] {
            for point in ["before", "after"] {
                lab.server.kill_and_restart(&[(how, &format!("change-medium:{point}"))]);
                let answer = lab.server.call(method, body.clone());
                assert_ne!(answer.status, 200, "{answer:?}");
                lab.server.kill_and_restart(&[]);
                lab.wait_for_tasks();
                assert_eq!(there(&lab), before, "{method} {how} {point}");
            }
        }
        lab.ok(method, body);
        assert_eq!(there(&lab), !before);
    }
    // The boot order, too.
    lab.server.kill_and_restart(&[("VMYARD_CRASH_AT", "change-boot-order:after")]);
    let answer = lab.server.call("modify-vm-spec", json!({"vm": id, "boot_order": ["network"]}));
    assert_eq!(answer.status, 0, "{answer:?}");
    lab.server.kill_and_restart(&[]);
    eventually("it is taken back", SOON, || {
        let vm = lab.ok("describe-vm", json!({"vm": id}));
        (vm["pending"].is_null() && vm["boot_order"] == json!(["disk"])).then_some(())
    });
}

#[test]
fn by_the_command_line() {
    let lab = Lab::own();
    let path = iso(&lab, "cli.iso");
    let create = ["vm", "create", "cli", "--iso", "cli.iso", "--disk", "1", "--memory", "64", "--boot", "cdrom,disk"];
    let (code, text) = lab.server.cli(&create);
    assert!(code == 0 && text.starts_with("VM cli ("), "{text}");
    assert_eq!(lab.server.cli(&["iso", "eject", "cli"]), (0, "VM cli is shutoff, its CD-ROM drive is empty\n".into()));
    let attached = lab.server.cli(&["iso", "attach", "cli.iso", "cli"]);
    assert_eq!(attached, (0, format!("VM cli is shutoff, with {path} in its CD-ROM drive\n")));
    let (code, text) = lab.server.cli(&["vm", "modify", "cli", "--boot", "disk"]);
    assert!(code == 0 && text.ends_with("in effect: boot order\n"), "{text}");
    let (code, text) = lab.server.cli(&["vm", "show", "cli"]);
    assert!(code == 0 && text.contains(&path), "{text}");
    assert_eq!(lab.server.cli(&["vm", "create", "none"]).0, 2);
    lab.ok("delete-vm", json!({"vm": "cli"}));
}
