//! reset-vm-password and reset-vm-keypair by the guest agent.

use crate::lab::{Lab, SOON, TestVm, eventually, login::KeyPair};
use serde_json::{Value, json};
use std::{
    fs,
    time::{Duration, Instant},
};

/// Every character that a shell or crypt could stumble over.
const ODD: &str = "p a$6$x'\"\\: #&%!`id`\u{e9}\u{4e2d}";

fn audited(lab: &Lab, method: &str) -> Vec<Value> {
    lab.ok("list-audit", json!({"method": method}))["audit"].as_array().unwrap().clone()
}

#[test]
fn a_password_and_a_key_by_the_agent() {
    let lab = Lab::own();
    let [old, new] = ["old", "new"].map(|name| KeyPair::make(&lab, name));
    let user = json!({"user": "alice", "password": "the old one", "ssh_keys": [old.public]});
    let vm = lab.create_with("agent", json!({"cloud_init": user, "start": true})).ready();
    assert!(vm.serial_login("alice", "the old one") && vm.ssh_key("alice", &old));

    // Made by Vmyard, and told once.
    let reset = vm.ok("reset-vm-password", json!({"user": "alice"}));
    let made = reset["password"].as_str().unwrap().to_owned();
    assert!(made.len() >= 20 && reset["secret_expired"] == false, "{reset}");
    let used = json!([{"method": "guest-agent", "outcome": "applied", "reason": null}]);
    assert_eq!((&reset["method"], &reset["tried"], &reset["warnings"]), (&json!("guest-agent"), &used, &json!([])));
    assert_eq!((&reset["applied"], &reset["verified"]), (&json!("now"), &json!(true)));
    assert_eq!((&reset["vm"]["name"], &reset["user"]), (&json!(vm.name), &json!("alice")));
    assert!(!vm.serial_login("alice", "the old one"), "the old one is refused");
    assert!(vm.serial_login("alice", &made));

    // Given, with all that a shell could stumble over.
    let reset = vm.ok("reset-vm-password", json!({"user": "alice", "password": ODD, "method": "guest-agent"}));
    assert_eq!((&reset["password"], &reset["secret_expired"]), (&Value::Null, &json!(false)));
    assert!(!vm.serial_login("alice", &made) && vm.serial_login("alice", ODD) && vm.ssh_password("alice", ODD));
    let weak = vm.ok("reset-vm-password", json!({"user": "alice", "password": "alice", "client_token": "weak"}));
    assert_eq!(weak["warnings"].as_array().unwrap().len(), 3, "{weak}");
    assert!(vm.serial_login("alice", "alice"));

    lab.ok("import-keypair", json!({"name": "new", "public_key": new.public}));
    let keys = json!({"user": "alice", "ssh_keys": [new.public], "keypairs": ["new"]});
    let reset = vm.ok("reset-vm-keypair", keys);
    assert_eq!((&reset["method"], &reset["verified"]), (&json!("guest-agent"), &json!(true)));
    assert_eq!(reset["ssh_keys"], json!([new.public]));
    assert!(!vm.ssh_key("alice", &old), "the old key is refused");
    assert!(vm.ssh_key("alice", &new));
    assert_eq!(vm.run("stat -c '%a %U' /home/alice/.ssh/authorized_keys"), "600 alice");

    // Who didn't wait is told by the task, for a while, and nobody else ever.
    let task = lab.server.call("reset-vm-password", json!({"vm": vm.id, "user": "alice", "wait": false})).body;
    let told = eventually("it is done", SOON, || {
        let task = lab.ok("describe-task", json!({"task": task["task"]["id"]}));
        task["result"]["password"].as_str().map(str::to_owned)
    });
    assert!(vm.serial_login("alice", &told));
    assert_eq!(audited(&lab, "reset-vm-password").len(), 4);
    lab.nowhere(&[&made, &told, ODD]);
}

#[test]
fn what_cannot_be_reset_is_told() {
    let lab = Lab::own();
    let key = KeyPair::make(&lab, "key");
    let vm = lab.create_with("strict", json!({"cloud_init": {"user": "alice", "password": "the old one"}}));
    let password = |more: Value| merged(json!({"user": "alice", "password": "another one 1"}), more);
    let keys = json!({"user": "alice", "ssh_keys": [key.public]});
    for (method, body) in [("reset-vm-password", password(json!({}))), ("reset-vm-keypair", keys.clone())] {
        let problem = vm.err(method, merged(body, json!({"method": "guest-agent"})), 409, "wrong_state");
        assert!(problem["hint"].as_str().unwrap().contains("start-vm"), "{problem}");
    }
    for bad in ["a\nb", "a\u{0}b", ""] {
        let problem = vm.err("reset-vm-password", password(json!({"password": bad})), 400, "invalid");
        assert_eq!(problem["errors"][0]["field"], "password");
    }
    for bad in ["", "-a", "a:b", "a b", "a\nb", "é"] {
        let problem = vm.err("reset-vm-password", password(json!({"user": bad})), 400, "invalid");
        assert_eq!(problem["errors"][0]["field"], "user");
    }
    for bad in [json!([]), json!(["nonsense"])] {
        vm.err("reset-vm-keypair", json!({"user": "alice", "ssh_keys": bad}), 400, "invalid");
    }
    vm.err("reset-vm-keypair", json!({"user": "alice", "keypairs": ["none"]}), 404, "not_found");
    vm.err("reset-vm-password", password(json!({"method": "magic"})), 400, "invalid");
    lab.err("reset-vm-password", json!({"vm": "none", "user": "alice"}), 404, "not_found");

    let vm = vm.start().ready();
    let shadow = vm.run("cat /etc/shadow /etc/passwd; find /home");
    for (method, body) in [
        ("reset-vm-password", password(json!({"user": "bob"}))),
        ("reset-vm-keypair", merged(keys, json!({"user": "bob"}))),
    ] {
        let problem = vm.err(method, body, 404, "not_found");
        assert!(problem["detail"].as_str().unwrap().contains("guest user \"bob\""), "{problem}");
    }
    assert_eq!(vm.run("cat /etc/shadow /etc/passwd; find /home"), shadow, "nothing has changed");
    vm.ok("pause-vm", json!({}));
    let problem = vm.err("reset-vm-password", password(json!({"method": "guest-agent"})), 409, "wrong_state");
    assert!(problem["hint"].as_str().unwrap().contains("resume-vm"), "{problem}");
    vm.ok("resume-vm", json!({}));

    let windows = json!({"name": "windows", "file": crate::lab::tiny(), "os": "Windows-Server-2025"});
    lab.ok("register-template", windows);
    let body = json!({"name": "win", "template": "windows", "vcpus": 1, "memory_mib": 64});
    lab.ok("create-vm", body);
    let problem = lab.err(
        "reset-vm-keypair",
        json!({"vm": "win", "user": "Administrator", "ssh_keys": [key.public]}),
        422,
        "unsupported",
    );
    assert!(problem["hint"].as_str().unwrap().contains("reset-vm-password"), "{problem}");
}

#[test]
fn a_setting_refuses_short_passwords() {
    let mut lab = Lab::own();
    let id = lab.ok("create-vm", crate::lab::request("short", json!({})))["id"].clone();
    let path = lab.dir.path.join("vmyard.toml");
    let config = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("min_password_length = 14\n{config}")).unwrap();
    lab.server.kill_and_restart(&[]);
    let reset = |password: &str| json!({"vm": id, "user": "alice", "password": password, "method": "guest-agent"});
    let problem = lab.err("reset-vm-password", reset("13 characters"), 400, "invalid");
    assert!(problem["detail"].as_str().unwrap().contains("min_password_length"), "{problem}");
    // It is long enough, but the VM is off.
    lab.err("reset-vm-password", reset("14 characters."), 409, "wrong_state");
    let create =
        |password: &str| crate::lab::request("second", json!({"cloud_init": {"user": "alice", "password": password}}));
    let problem = lab.err("create-vm", create("13 characters"), 400, "invalid");
    assert_eq!(problem["errors"][0]["field"], "cloud_init.password", "{problem}");
    lab.ok("create-vm", create("14 characters."));
}

fn merged(mut body: Value, more: Value) -> Value {
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

/// Puts something of the guest's in place of the program with which its agent sets passwords.
fn broken(vm: &TestVm<'_>, script: &str) {
    vm.run(&format!("mv /usr/sbin/chpasswd /run/chpasswd; printf '#!/bin/sh\\n{script}\\n' >/usr/sbin/chpasswd; chmod 755 /usr/sbin/chpasswd"));
}

#[test]
fn an_agent_that_does_not_answer() {
    let lab = Lab::shared();
    let vm =
        lab.create_with("mute", json!({"cloud_init": {"user": "alice", "password": "the old one"}, "start": true}));
    let vm = vm.ready();
    let reset = json!({"user": "alice", "password": "another one 1", "method": "guest-agent"});
    let unavailable = |vm: &TestVm<'_>, text: &str| {
        let begun = Instant::now();
        let problem = vm.err("reset-vm-password", reset.clone(), 409, "agent_unavailable");
        assert!(problem["detail"].as_str().unwrap().contains(text), "{problem}");
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
        vm.ok("describe-vm", json!({}));
    };
    // It dies while it works on it, and is started again by the guest.
    broken(&vm, "kill -9 $(pidof qemu-ga)");
    unavailable(&vm, "fell silent meanwhile");
    vm.run("mv /run/chpasswd /usr/sbin/chpasswd");
    // It hangs while it works on it.
    broken(&vm, "exec sleep 300");
    unavailable(&vm, "fell silent meanwhile");
    // It is there, and says nothing; on a busy machine the call before may not have got as far as that program.
    crate::lab::eventually("it hangs", Duration::from_secs(100), || {
        let problem = vm.err("reset-vm-password", reset.clone(), 409, "agent_unavailable");
        problem["detail"].as_str()?.contains("doesn't answer").then_some(())
    });
    vm.ok("stop-vm", json!({"force": true}));
    lab.ok("start-vm", json!({"vm": vm.id}));
    // It isn't there yet: it doesn't answer. A guest that has booted within that wait hangs in the broken program as before.
    unavailable(&vm, "the guest agent of VM");
}
