//! Passwords and keys on a real cloud image: Debian with cloud-init, the guest agent and sshd (`scripts/debian-template`). A boot takes
//! a minute and a half under emulation.

use crate::{
    credentials_boot::settled,
    credentials_offline::finished,
    lab::{Lab, TestVm, eventually, login::KeyPair},
};
use serde_json::{Value, json};
use std::time::Duration;

/// How long a boot may take on a loaded machine.
const BOOT: Duration = Duration::from_secs(900);
/// Every character that a shell, a YAML parser or crypt could stumble over.
const ODD: &str = "p a$6$x'\"\\: #&%!`id`\u{e9}\u{4e2d}";

/// A running VM of the image with the user alice.
fn debian<'a>(lab: &'a Lab, key: &KeyPair) -> TestVm<'a> {
    let file = crate::lab::cached("debian.qcow2", "debian-template");
    lab.ok("register-template", json!({"name": "debian", "file": file, "os": "debian12", "guest_agent": true}));
    let cloud_init = json!({"user": "alice", "password": "the old one", "ssh_keys": [key.public],
        "user_data": "#!/bin/sh\necho once >>/var/mine\n"});
    let body = json!({"name": "debian", "template": "debian", "vcpus": 2, "memory_mib": 1024, "cloud_init": cloud_init,
        "start": true});
    let vm = TestVm::new(lab, lab.ok("create-vm", body));
    booted(&vm);
    vm
}

/// Waits until the guest has booted, and its cloud-init is done.
fn booted(vm: &TestVm<'_>) {
    let reset = json!({"vm": vm.id, "user": "alice", "method": "guest-agent", "plan": true});
    eventually("its agent answers", BOOT, || {
        (vm.lab.server.call("reset-vm-password", reset.clone()).status == 200).then_some(())
    });
    eventually("cloud-init is done", BOOT, || {
        (!vm.run("ls /run/cloud-init/result.json 2>/dev/null || :").is_empty()).then_some(())
    });
}

/// What a reset must leave as it is.
fn kept(vm: &TestVm<'_>) -> String {
    vm.run("cat /var/mine; md5sum /etc/ssh/ssh_host_*_key; hostname; cat /var/lib/cloud/data/instance-id; getent passwd alice")
}

#[test]
#[ignore = "boots a real cloud image twice: minutes"]
fn credentials_of_a_cloud_image() {
    let lab = Lab::own();
    let [old, by_agent, by_seed] = ["old", "agent", "seed"].map(|name| KeyPair::make(&lab, name));
    let vm = debian(&lab, &old);
    let before = kept(&vm);
    assert!(vm.serial_login("alice", "the old one") && vm.ssh_key("alice", &old));

    // The guest agent: at once.
    let reset = vm.ok("reset-vm-password", json!({"user": "alice"}));
    let made = reset["password"].as_str().unwrap().to_owned();
    assert_eq!((&reset["method"], &reset["verified"]), (&json!("guest-agent"), &json!(true)));
    assert!(!vm.serial_login("alice", "the old one") && vm.serial_login("alice", &made));
    assert!(vm.ssh_password("alice", &made));
    let keys = |key: &KeyPair| json!({"user": "alice", "ssh_keys": [key.public]});
    assert_eq!(vm.ok("reset-vm-keypair", keys(&by_agent))["method"], "guest-agent");
    assert!(!vm.ssh_key("alice", &old) && vm.ssh_key("alice", &by_agent));
    vm.err("reset-vm-password", json!({"user": "bob"}), 404, "not_found");

    // cloud-init: at the next boot, which is asked for.
    let password = json!({"user": "alice", "password": ODD, "method": "cloud-init"});
    assert_eq!(vm.ok("reset-vm-password", password)["applied"], "next_boot");
    vm.ok("reset-vm-password", json!({"user": "bob", "method": "cloud-init"}));
    let mut body = keys(&by_seed);
    (body["method"], body["reboot"]) = (json!("cloud-init"), json!(true));
    assert_eq!(vm.ok("reset-vm-keypair", body)["reboot_asked"], true);
    eventually("all is settled", BOOT, || {
        let checks = vm.describe()["credential_checks"].clone();
        checks.as_array().unwrap().iter().all(|check| check["state"] != "pending").then_some(())
    });
    for kind in ["password", "ssh_keys"] {
        let check = settled(&vm, "alice", kind);
        assert_eq!((&check["state"], &check["reason"]), (&json!("verified"), &Value::Null), "{check}");
    }
    assert_eq!(settled(&vm, "bob", "password")["state"], "failed");
    booted(&vm);
    assert!(!vm.serial_login("alice", &made) && vm.serial_login("alice", ODD));
    assert!(!vm.ssh_key("alice", &by_agent) && vm.ssh_key("alice", &by_seed));
    assert_eq!(vm.run("stat -c '%a %U' /home/alice/.ssh/authorized_keys"), "600 alice");
    assert_eq!(kept(&vm), before, "the user's script didn't run again, and the host keys are the same");
    lab.nowhere(&[&made, ODD]);
}

#[test]
#[ignore = "boots a real cloud image twice, and starts small guests of virt-customize's between: minutes"]
fn credentials_of_a_cloud_image_that_is_off() {
    let lab = Lab::own();
    let [old, new] = ["old", "new"].map(|name| KeyPair::make(&lab, name));
    let vm = debian(&lab, &old);
    let before = kept(&vm);
    assert!(vm.ssh_key("alice", &old));
    vm.ok("stop-vm", json!({}));
    vm.ok("create-snapshot", json!({"name": "before"}));
    let password = "offline '$6$' 1";
    let reset = json!({"user": "alice", "password": password, "method": "virt-customize"});
    let reset = finished(&vm, "reset-vm-password", reset)["result"].clone();
    assert_eq!((&reset["applied"], &reset["verified"]), (&json!("now"), &json!(true)), "{}", reset["tried"]);
    let keys = json!({"user": "alice", "ssh_keys": [new.public], "method": "virt-customize"});
    assert_eq!(finished(&vm, "reset-vm-keypair", keys)["result"]["verified"], true);
    vm.ok("start-vm", json!({}));
    booted(&vm);
    assert!(!vm.serial_login("alice", "the old one") && vm.serial_login("alice", password));
    assert!(!vm.ssh_key("alice", &old) && vm.ssh_key("alice", &new));
    let modes = vm.run("stat -c '%a %U' /home/alice/.ssh/authorized_keys; stat -c '%a %G' /etc/shadow");
    assert_eq!(modes, "600 alice\n640 shadow");
    assert_eq!(kept(&vm), before);
    lab.nowhere(&[password]);
}
