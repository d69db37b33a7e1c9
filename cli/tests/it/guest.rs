//! What a guest is given: hostname, user, password, keys, its own user-data.

use crate::lab::{Lab, SOON, login::KeyPair};
use serde_json::json;
use std::process::Command;

/// Every character that a shell, a YAML parser or crypt could stumble over.
const PASSWORD: &str = "p a$6$'\"\\: #&%!\u{e9}";

#[test]
fn a_login_with_the_password_and_with_the_key() {
    let lab = Lab::own();
    let key = KeyPair::make(&lab, "key");
    let vm = lab.create_with(
        "guest",
        json!({"cloud_init": {"hostname": "named", "user": "alice", "password": PASSWORD, "ssh_keys": [key.public],
               "user_data": "#!/bin/sh\necho \"it's mine\" > /var/mine\n"}}),
    );
    assert_eq!(vm.created["user"], "alice");
    let vm = vm.start().ready();
    assert_eq!(vm.run("hostname"), "named");
    assert_eq!(vm.run("cat /var/mine"), "it's mine");

    assert!(vm.ssh_key("alice", &key));
    assert!(vm.ssh_password("alice", PASSWORD));
    assert!(!vm.ssh_password("alice", "wrong"), "a wrong password is refused");
    // The password itself is nowhere: not in the log, not in the journal, not in the seed.
    lab.nowhere(&[PASSWORD]);
}

#[test]
fn a_template_without_cloud_init_takes_none() {
    let lab = Lab::shared();
    let name = lab.name("plain");
    lab.ok("register-template", json!({"name": name, "file": crate::lab::tiny(), "cloud_init": false}));
    let request = json!({"name": lab.name("bare"), "template": name, "vcpus": 1, "memory_mib": 64});
    let mut with_seed = request.clone();
    with_seed["cloud_init"] = json!({"user": "alice"});
    let problem = lab.err("create-vm", with_seed, 400, "invalid");
    assert_eq!(problem["errors"][0]["field"], "cloud_init");
    let vm = lab.ok("create-vm", request);
    let xml = lab.ok("describe-vm-xml", json!({"vm": vm["id"]}))["xml"].as_str().unwrap().to_owned();
    // The seed's drive; the one for ISO images is there, and empty.
    assert!(!xml.contains("dev='sda'") && !xml.contains(".iso"), "{xml}");
    lab.ok("delete-vm", json!({"vm": vm["id"]}));
    lab.ok("delete-template", json!({"template": name}));
}

#[test]
fn keys_and_passwords_need_a_user() {
    let lab = Lab::shared();
    let name = lab.name("userless");
    lab.ok("register-template", json!({"name": name, "file": crate::lab::tiny()}));
    let request =
        json!({"name": "nobody", "template": name, "vcpus": 1, "memory_mib": 64, "cloud_init": {"password": "x"}});
    assert_eq!(lab.err("create-vm", request, 400, "invalid")["errors"][0]["field"], "cloud_init.user");
    lab.ok("delete-template", json!({"template": name}));
}

#[test]
fn a_guest_agent_that_falls_silent_holds_up_nobody() {
    let lab = Lab::shared();
    let vm = lab.create("silent").start().ready();
    vm.begin("sleep 1; kill -STOP $(pidof qemu-ga)");
    let domain = vm.created["domain"].as_str().unwrap().to_owned();
    // libvirt itself says when it is silent.
    crate::lab::eventually("the agent is silent", SOON, || {
        let ping = [
            "-q",
            "-c",
            lab.node.uri(),
            "qemu-agent-command",
            "--timeout",
            "1",
            &domain,
            "{\"execute\":\"guest-ping\"}",
        ];
        let answered = Command::new("virsh").args(ping).output().unwrap().status.success();
        (!answered).then_some(())
    });
    let begun = std::time::Instant::now();
    assert_eq!(vm.state(), "running");
    assert_eq!(vm.ok("stop-vm", json!({}))["forced"], false, "the power button doesn't need the agent");
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
}
