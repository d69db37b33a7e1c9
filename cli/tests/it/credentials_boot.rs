//! reset-vm-password and reset-vm-keypair by cloud-init: at the guest's next boot, and what is known of it then. The tiny guest reads
//! the seed as cloud-init does, and leaves the same marks; `debian.rs` has the same with cloud-init itself.

use crate::lab::{Lab, TestVm, eventually, login::KeyPair, request};
use serde_json::{Value, json};
use std::{fs, time::Duration};

/// Every character that a shell, a YAML parser or crypt could stumble over.
const ODD: &str = "p a$6$x'\"\\: #&%!`id`\u{e9}\u{4e2d}";
/// How long a boot and the look at what came of it may take on a loaded machine.
const BOOT: Duration = Duration::from_secs(180);

/// Waits until the last reset of the VM is settled; returns how.
pub fn settled(vm: &TestVm<'_>, user: &str, kind: &str) -> Value {
    eventually("the reset is settled", BOOT, || {
        let checks = vm.describe()["credential_checks"].clone();
        let check = checks.as_array().unwrap().iter().find(|check| check["user"] == user && check["kind"] == kind);
        check.filter(|check| check["state"] != "pending").cloned()
    })
}

/// The seeds of a VM on its node, and the one in its drive.
fn seeds(lab: &Lab, vm: &Value) -> (Vec<String>, String) {
    let folder = lab.node.dir.join("pools/seeds");
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path().display().to_string());
    let id = vm["id"].as_str().unwrap();
    let mut seeds: Vec<String> = names.filter(|name| name.contains(id) && name.ends_with(".iso")).collect();
    seeds.sort();
    let domain = vm["domain"].as_str().unwrap();
    let in_drive = |which: &[&str]| {
        let list = lab.node.virsh(&[&["domblklist", domain], which].concat());
        let line = list.lines().find(|line| line.trim_start().starts_with("sda")).unwrap().to_owned();
        line.split_whitespace().last().unwrap().to_owned()
    };
    let (live, defined) = (in_drive(&[]), in_drive(&["--inactive"]));
    assert_eq!(live, defined);
    (seeds, live)
}

#[test]
fn a_password_and_a_key_at_the_next_boot() {
    let lab = Lab::own();
    let [old, new] = ["old", "new"].map(|name| KeyPair::make(&lab, name));
    let cloud_init = json!({"user": "alice", "password": "the old one", "ssh_keys": [old.public],
        "user_data": "#!/bin/sh\necho once >>/var/mine\n"});
    let vm = lab.create_with("boot", json!({"cloud_init": cloud_init, "start": true})).ready();
    let kept = || {
        vm.run(
            "until ls /etc/dropbear/*_host_key >/dev/null 2>&1; do sleep 1; done
             cat /var/mine; md5sum /etc/dropbear/*_host_key; hostname",
        )
    };
    let before = kept();

    let reset = vm.ok("reset-vm-password", json!({"user": "alice", "password": ODD, "method": "cloud-init"}));
    assert_eq!((&reset["method"], &reset["applied"]), (&json!("cloud-init"), &json!("next_boot")));
    assert_eq!((&reset["verified"], &reset["reboot_asked"]), (&json!(false), &json!(false)));
    let check = &vm.describe()["credential_checks"][0];
    assert_eq!(
        (&check["state"], &check["kind"], &check["user"]),
        (&json!("pending"), &json!("password"), &json!("alice"))
    );
    assert_eq!(reset["vm"]["credential_checks"][0], *check);
    // The guest goes on with the old ones until it boots.
    assert!(vm.serial_login("alice", "the old one"));
    let keys = json!({"user": "alice", "ssh_keys": [new.public], "method": "cloud-init", "reboot": true});
    assert_eq!(vm.ok("reset-vm-keypair", keys)["reboot_asked"], true);
    for kind in ["password", "ssh_keys"] {
        let check = settled(&vm, "alice", kind);
        assert_eq!((&check["state"], &check["reason"]), (&json!("verified"), &Value::Null), "{check}");
        assert!(check["checked_at"].is_string());
    }
    assert!(!vm.serial_login("alice", "the old one"), "the old one is refused");
    assert!(vm.serial_login("alice", ODD));
    assert!(!vm.ssh_key("alice", &old), "the old key is refused");
    assert!(vm.ssh_key("alice", &new));
    assert_eq!(vm.run("stat -c '%a %U' /home/alice/.ssh/authorized_keys"), "600 alice");
    assert_eq!(kept(), before, "the user's script didn't run again, and the host keys are the same");

    // Off, nothing else will do.
    vm.ok("stop-vm", json!({"force": true}));
    let reset = vm.ok("reset-vm-password", json!({"user": "alice", "reboot": true}));
    let made = reset["password"].as_str().unwrap().to_owned();
    assert_eq!((&reset["method"], &reset["reboot_asked"]), (&json!("cloud-init"), &json!(false)));
    assert_eq!(
        (&reset["tried"][0]["method"], &reset["tried"][0]["outcome"]),
        (&json!("guest-agent"), &json!("skipped"))
    );
    assert!(reset["tried"][0]["reason"].as_str().unwrap().contains("is shutoff"), "{reset}");
    vm.ok("start-vm", json!({}));
    assert_eq!(settled(&vm, "alice", "password")["state"], "verified");
    assert!(!vm.serial_login("alice", ODD) && vm.serial_login("alice", &made));

    // What waits doesn't come over what the agent has set since.
    let waiting = "waits in vain 1";
    vm.ok("reset-vm-password", json!({"user": "alice", "password": waiting, "method": "cloud-init"}));
    let reset = vm.ok("reset-vm-password", json!({"user": "alice", "password": "by the agent 1"}));
    assert_eq!((&reset["method"], &reset["verified"]), (&json!("guest-agent"), &json!(true)));
    let checks = vm.describe()["credential_checks"].clone();
    assert!(checks.as_array().unwrap().iter().all(|check| check["kind"] == "ssh_keys"), "{checks}");
    let ready = vm.serial_log().matches("tiny: ready").count();
    vm.ok("reboot-vm", json!({}));
    eventually("it is ready again", BOOT, || (vm.serial_log().matches("tiny: ready").count() > ready).then_some(()));
    assert!(!vm.serial_login("alice", waiting) && vm.serial_login("alice", "by the agent 1"));
    let (files, in_drive) = seeds(&lab, &vm.describe());
    assert_eq!(files, [in_drive], "no seed is left behind");
    lab.nowhere(&[ODD, &made, waiting, "by the agent 1"]);
}

#[test]
fn before_the_first_boot_and_for_nobody() {
    let lab = Lab::shared();
    let vm = lab.create_with("fresh", json!({"cloud_init": {"user": "alice", "password": "the old one"}}));
    let reset = vm.ok("reset-vm-password", json!({"user": "alice", "password": "the new one 1"}));
    assert_eq!(reset["method"], "cloud-init");
    // Of a user that nobody makes it is told after the boot.
    vm.ok("reset-vm-password", json!({"user": "bob", "password": "the new one 1"}));
    let vm = vm.start();
    assert_eq!(settled(&vm, "alice", "password")["state"], "verified");
    let check = settled(&vm, "bob", "password");
    assert_eq!(check["state"], "failed", "{check}");
    assert!(check["reason"].as_str().unwrap().contains("is there a user bob"), "{check}");
    let vm = vm.ready();
    assert!(!vm.serial_login("alice", "the old one") && vm.serial_login("alice", "the new one 1"));

    // A user's name that no Unix knows, and a VM without a seed.
    vm.err("reset-vm-password", json!({"user": "Administrator", "method": "cloud-init"}), 400, "invalid");
    let name = lab.name("seedless");
    lab.ok("register-template", json!({"name": name, "file": crate::lab::tiny(), "cloud_init": false}));
    let bare = json!({"name": lab.name("bare"), "template": name, "vcpus": 1, "memory_mib": 64});
    let bare = TestVm::new(&lab, lab.ok("create-vm", bare));
    let problem = bare.err("reset-vm-password", json!({"user": "tiny", "method": "cloud-init"}), 422, "unsupported");
    assert!(problem["detail"].as_str().unwrap().contains("no seed"), "{problem}");
    bare.delete();
    lab.ok("delete-template", json!({"template": name}));
}

#[test]
fn killed_while_it_resets() {
    let mut lab = Lab::own();
    let id = lab.ok("create-vm", request("cut", json!({"start": true})))["id"].clone();
    let vm = |lab: &Lab| lab.ok("describe-vm", json!({"vm": id}));
    let before = seeds(&lab, &vm(&lab));
    let body = json!({"vm": id, "user": "tiny", "password": "the new one 1", "method": "cloud-init"});
    for how in ["VMYARD_CRASH_AT", "VMYARD_FAIL_AT"] {
        for point in
            ["write-seed:before", "write-seed:after", "change-seed:before", "change-seed:after", "record-reset:before"]
        {
            lab.server.kill_and_restart(&[(how, point)]);
            let answer = lab.server.call("reset-vm-password", body.clone());
            assert_ne!(answer.status, 200, "{answer:?}");
            lab.server.kill_and_restart(&[]);
            lab.wait_for_tasks();
            assert_eq!(seeds(&lab, &vm(&lab)), before, "{how} {point}");
            assert_eq!(vm(&lab)["credential_checks"], json!([]), "{how} {point}");
        }
    }
    // From there it is made, whatever befalls the server.
    for how in ["VMYARD_CRASH_AT", "VMYARD_FAIL_AT"] {
        let before = seeds(&lab, &vm(&lab)).1;
        lab.server.kill_and_restart(&[(how, "record-reset:after")]);
        lab.server.call("reset-vm-password", body.clone());
        lab.server.kill_and_restart(&[]);
        lab.wait_for_tasks();
        let (files, in_drive) = seeds(&lab, &vm(&lab));
        assert!(in_drive != before && files.contains(&in_drive), "{how}: {files:?} {in_drive}");
        assert_eq!(vm(&lab)["credential_checks"][0]["state"], "pending");
        let task = lab.ok("list-tasks", json!({"method": "reset-vm-password", "limit": 1}))["tasks"][0]["id"].clone();
        let task = lab.ok("describe-task", json!({"task": task}));
        assert_eq!((&task["state"], &task["result"]["applied"]), (&json!("done"), &json!("next_boot")), "{task}");
    }
    lab.ok("stop-vm", json!({"vm": id, "force": true}));
    lab.ok("delete-vm", json!({"vm": id}));
    assert_eq!(lab.files(), [""; 0], "all seeds go with the VM");
}
