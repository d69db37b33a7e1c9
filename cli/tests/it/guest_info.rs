//! What a guest's agent tells, and commands that it runs.

use crate::lab::{Lab, SOON, TestVm, eventually};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

fn exec(vm: &TestVm<'_>, command: &[&str], more: Value) -> Value {
    let mut body = json!({"command": command});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    vm.ok("exec-in-vm", body)
}

#[test]
fn a_guest_is_described() {
    let lab = Lab::shared();
    let vm = lab.create_with("told", json!({"cloud_init": {"hostname": "within", "user": "ann", "password": "x y z"}}));
    let off = vm.ok("describe-vm", json!({"guest_info": true}));
    assert_eq!((&off["guest"], off["guest_unavailable"].as_str()), (&Value::Null, Some("the VM is not running")));
    let vm = vm.start();
    let early = vm.ok("describe-vm", json!({"guest_info": true}));
    assert!(early["guest"].is_null() && early["guest_unavailable"].as_str().unwrap().contains("agent"), "{early}");
    let vm = vm.ready();
    let told = eventually("the guest tells of itself and its addresses", SOON, || {
        let vm = vm.ok("describe-vm", json!({"guest_info": true}));
        // The guest is ready before its DHCP server has answered.
        (!vm["guest"].is_null() && vm["networks"][0]["addresses"].to_string().contains("agent")).then_some(vm)
    });
    let guest = &told["guest"];
    assert_eq!((&guest["hostname"], &guest["os_id"]), (&json!("within"), &json!("vmyard-tiny")), "{guest}");
    assert_eq!(guest["machine"], "x86_64");
    let root = guest["file_systems"].as_array().unwrap().iter().find(|one| one["mountpoint"] == "/").unwrap();
    assert_eq!(root["kind"], "ext4");
    assert!(root["used_bytes"].as_u64().unwrap() < root["total_bytes"].as_u64().unwrap());
    assert_eq!((&guest["cloud_init"]["done"], &guest["cloud_init"]["errors"]), (&json!(true), &json!([])));
    assert!(told["guest_unavailable"].is_null() && guest["read_at"].is_string());
    // Who doesn't ask for it isn't told, and waits for nobody.
    let plain = vm.describe();
    assert!(plain["guest"].is_null() && plain["guest_unavailable"].is_null());
    vm.begin("sleep 1; kill -STOP $(pidof qemu-ga)");
    let begun = Instant::now();
    eventually("it is silent", Duration::from_secs(90), || {
        let begun = Instant::now();
        let vm = vm.ok("describe-vm", json!({"guest_info": true}));
        assert!(begun.elapsed() < Duration::from_secs(40), "{:?}", begun.elapsed());
        vm["guest"].is_null().then_some(())
    });
    assert!(begun.elapsed() < Duration::from_secs(90));
    let problem = vm.err("exec-in-vm", json!({"command": ["true"]}), 409, "agent_unavailable");
    assert!(problem["detail"].as_str().unwrap().contains("doesn't answer"), "{problem}");
}

#[test]
fn commands_run_without_a_shell() {
    let lab = Lab::own();
    let vm = lab.create("exec");
    vm.err("exec-in-vm", json!({"command": ["true"]}), 409, "wrong_state");
    for bad in [json!([]), json!([""]), json!(["a\u{0}"]), json!("ls")] {
        vm.err("exec-in-vm", json!({"command": bad}), 400, "invalid");
    }
    let vm = vm.start().ready();
    let done = exec(&vm, &["/bin/echo", "-n", "a $HOME `id` 'secret-word'"], json!({}));
    assert_eq!((&done["exit_code"], &done["signal"], &done["running"]), (&json!(0), &Value::Null, &json!(false)));
    assert_eq!((&done["stdout"], &done["stdout_encoding"]), (&json!("a $HOME `id` 'secret-word'"), &json!("text")));
    let done = exec(&vm, &["sh", "-c", "cat; echo oops >&2; exit 7"], json!({"stdin": "some text"}));
    assert_eq!(
        (&done["exit_code"], &done["stdout"], &done["stderr"]),
        (&json!(7), &json!("some text"), &json!("oops\n"))
    );
    let done = exec(&vm, &["printf", "\\377\\000"], json!({}));
    assert_eq!((&done["stdout"], &done["stdout_encoding"]), (&json!("/wA="), &json!("base64")));
    let done = exec(&vm, &["sh", "-c", "kill -9 $$"], json!({}));
    assert_eq!((&done["exit_code"], &done["signal"]), (&Value::Null, &json!(9)));
    let done = exec(&vm, &["sh", "-c", "yes | head -c 1200000"], json!({}));
    assert_eq!((&done["truncated"], done["stdout"].as_str().unwrap().len()), (&json!(true), 1 << 20));
    // More than the agent's answer can hold.
    let many = json!({"command": ["sh", "-c", "yes | head -c 4500000"]});
    let mut many = many;
    many["vm"] = json!(vm.name);
    // libvirt refuses it, or has given up on it before: a slow guest takes seconds for it.
    let answer = lab.server.call("exec-in-vm", many);
    assert!([409, 422].contains(&answer.status), "{answer:?}");
    assert!(answer.body["hint"].as_str().unwrap().contains("into a file"), "{answer:?}");
    eventually("the agent has recovered", Duration::from_secs(120), || {
        let body = json!({"vm": vm.name, "command": ["true"]});
        (lab.server.call("exec-in-vm", body).body["exit_code"] == 0).then_some(())
    });
    // One that takes longer goes on.
    let done = exec(&vm, &["sh", "-c", "sleep 5; echo late >/tmp/late"], json!({"timeout_s": 1}));
    assert_eq!((&done["running"], &done["exit_code"]), (&json!(true), &Value::Null));
    assert!(done["pid"].as_i64().unwrap() > 1);
    eventually("it ends", SOON, || (vm.run("cat /tmp/late || :") == "late").then_some(()));
    let problem = vm.err("exec-in-vm", json!({"command": ["/no/such/program"]}), 422, "unsupported");
    assert!(problem["detail"].as_str().unwrap().contains("refuses"), "{problem}");
    // No lock is held: the power is cut under it.
    let long = json!({"vm": vm.id, "command": ["sleep", "100"], "timeout_s": 100, "wait": false});
    let task = lab.server.call("exec-in-vm", long).body["task"]["id"].clone();
    vm.ok("stop-vm", json!({"force": true}));
    let ended = eventually("it is told", SOON, || {
        let task = lab.ok("describe-task", json!({"task": task}));
        (task["state"] == "failed").then_some(task)
    });
    // Before it has begun, or while it ran.
    let code = ended["error"]["code"].as_str().unwrap();
    assert!(["wrong_state", "agent_unavailable"].contains(&code), "{ended}");
    lab.nowhere(&["secret-word"]);
    // Not for operators.
    let token = lab.ok("create-token", json!({"name": "op", "role": "operator"}))["token"].as_str().unwrap().to_owned();
    let body = json!({"vm": vm.id, "command": ["true"]}).to_string();
    assert_eq!(lab.server.post("exec-in-vm", Some(&token), "application/json", body).status, 403);
}
