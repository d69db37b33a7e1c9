//! What is wrong with a VM is said in a sentence, with the evidence.

use crate::{
    lab::{Lab, SOON, Server, TestVm, eventually, trouble::small_pool},
    random::register_blank,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use std::{fs, process::Command, time::Duration};

fn diagnose(lab: &Lab, vm: &str) -> Value {
    lab.ok("diagnose-vm", json!({"vm": vm}))
}

/// Waits for a verdict; the last diagnosis is told where it doesn't come.
#[track_caller]
fn verdict(lab: &Lab, vm: &str, code: &str, within: Duration) -> Value {
    let mut last = Value::Null;
    let deadline = std::time::Instant::now() + within;
    while std::time::Instant::now() < deadline {
        last = diagnose(lab, vm);
        if last["verdict"]["code"] == code {
            return last;
        }
        std::thread::sleep(Duration::from_millis(300));
    }
    panic!("no {code} within {within:?}: {last:#}");
}

fn text<'a>(diagnosis: &'a Value, pointer: &str) -> &'a str {
    diagnosis.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn lines(diagnosis: &Value, field: &str) -> String {
    diagnosis[field].as_array().unwrap().iter().filter_map(Value::as_str).collect::<Vec<_>>().join("\n")
}

/// A lab whose server sees the files that its libvirtd sees: QEMU's log, too.
fn in_its_mounts() -> Lab {
    let mut lab = Lab::own();
    let pid = lab.node.command("pid libvirtd");
    assert!(lab.server.terminate());
    lab.server = Server::start_within(&lab.dir.path, &["nsenter", "-t", &pid, "-m", "--"], &[]);
    lab
}

#[test]
fn from_off_to_fine() {
    let lab = in_its_mounts();
    let vm = lab.create("web");
    let off = diagnose(&lab, &vm.name);
    assert_eq!((text(&off, "/verdict/code"), text(&off, "/state")), ("off", "shutoff"), "{off:#}");
    let vm = vm.start();
    verdict(&lab, &vm.name, "booting", SOON);
    let vm = vm.ready();
    eventually("it has an address", SOON, || {
        let told = diagnose(&lab, &vm.name)["addresses"].to_string();
        told.contains("lease").then_some(())
    });
    let fine = verdict(&lab, &vm.name, "fine", SOON);
    assert_eq!((text(&fine, "/reason"), &fine["agent_connected"]), ("booted", &json!(true)), "{fine:#}");
    assert!(lines(&fine, "serial").contains("tiny: ready"), "{fine:#}");
    let log = lines(&fine, "qemu_log");
    assert!(log.contains("libvirt version") && log.contains("charserial0") && !log.contains("-device"), "{fine:#}");
    assert!(text(&fine, "/phases/0/what").ends_with("shutoff -> running") && fine["on_since"].is_string(), "{fine:#}");
    let sources: Vec<&str> =
        fine["addresses"].as_array().unwrap().iter().map(|address| address["source"].as_str().unwrap()).collect();
    assert!(sources.contains(&"lease"), "{fine:#}");
    assert_eq!(fine["disks"][0]["below"].as_array().unwrap().len(), 1, "{fine:#}");
    assert!(fine["pools"][0]["available_bytes"].as_u64().unwrap() > 0 && fine["tasks"][0]["method"] == "start-vm");
    assert_eq!(fine["screenshot_base64"], Value::Null);
    // With its screen, on the command line.
    let png = lab.dir.path.join("screen.png");
    let (code, out) = lab.server.cli(&["vm", "diagnose", &vm.name, "--screenshot", png.to_str().unwrap()]);
    assert!(code == 0 && out.contains("nothing is wrong with it") && out.contains("tiny: ready"), "{out}");
    assert!(std::fs::read(&png).unwrap().starts_with(b"\x89PNG"));
    let shown = lab.ok("diagnose-vm", json!({"vm": vm.name, "screenshot": true}));
    assert!(STANDARD.decode(text(&shown, "/screenshot_base64")).unwrap().starts_with(b"\x89PNG"));
    vm.ok("pause-vm", json!({}));
    assert_eq!(text(&diagnose(&lab, &vm.name), "/verdict/code"), "paused");
    vm.ok("resume-vm", json!({}));
    // A cable that is pulled.
    let mac = vm.created["networks"][0]["mac"].clone();
    vm.ok("modify-nic", json!({"mac": mac, "link": "down"}));
    verdict(&lab, &vm.name, "link-down", SOON);
    // cloud-init that has failed, as the agent tells.
    vm.run("mkdir -p /run/cloud-init; echo '{\"v1\":{\"datasource\":\"x\",\"errors\":[\"no package\"]}}' >/run/cloud-init/result.json");
    let failed = verdict(&lab, &vm.name, "cloud-init-failed", SOON);
    assert!(text(&failed, "/verdict/sentence").contains("no package"), "{failed:#}");
    assert_eq!(text(&failed, "/also/0/code"), "link-down");
    // Its QEMU goes.
    assert!(Command::new("kill").args(["-KILL", &vm.qemu()]).status().unwrap().success());
    let gone = verdict(&lab, &vm.name, "qemu-gone", SOON);
    assert!(text(&gone, "/verdict/hint").contains("start-vm"), "{gone:#}");
    // So does its image, and its domain.
    let path = vm.describe()["disks"][0]["path"].as_str().unwrap().to_owned();
    std::fs::rename(&path, format!("{path}.away")).unwrap();
    let gone = verdict(&lab, &vm.name, "image-gone", SOON);
    assert!(text(&gone, "/verdict/sentence").contains(&path), "{gone:#}");
    std::fs::rename(format!("{path}.away"), &path).unwrap();
    lab.node.virsh(&["undefine", vm.created["domain"].as_str().unwrap()]);
    verdict(&lab, &vm.name, "domain-gone", SOON);
    vm.ok("delete-vm", json!({}));
}

#[test]
fn a_kernel_that_panics() {
    let lab = Lab::own();
    let vm = lab.create("panics").start().ready();
    vm.begin("sleep 5; echo c >/proc/sysrq-trigger");
    let panic = verdict(&lab, &vm.name, "kernel-panic", SOON);
    assert!(text(&panic, "/verdict/sentence").contains("sysrq triggered crash"), "{panic:#}");
    vm.ok("stop-vm", json!({"force": true}));
    vm.delete();
}

#[test]
fn a_disk_without_a_system() {
    let lab = Lab::with_settings("\n[metrics]\ninterval_s = 1\n");
    register_blank(&lab);
    let vm =
        lab.ok("create-vm", json!({"name": "blank", "template": "blank", "vcpus": 1, "memory_mib": 64, "start": true}));
    let vm = TestVm::new(&lab, vm);
    let nothing = verdict(&lab, "blank", "nothing-to-boot", SOON);
    assert!(text(&nothing, "/verdict/hint").contains("attach-iso"), "{nothing:#}");
    vm.ok("stop-vm", json!({"force": true}));
    vm.delete();
}

#[test]
fn a_guest_without_an_address_or_an_agent() {
    let lab = Lab::own();
    // Nobody gives addresses here.
    let network = lab.dir.path.join("silent.xml");
    fs::write(&network, "<network><name>silent</name><bridge name='virbr-silent'/></network>").unwrap();
    lab.node.virsh(&["net-define", network.to_str().unwrap()]);
    lab.node.virsh(&["net-start", "silent"]);
    let vm = lab.create_with("lonely", json!({"networks": [{"network": "silent"}]})).start().ready();
    // Then the agent goes, too: a minute later that is no beginning any more.
    vm.begin(
        "(sleep 5; ip addr flush dev eth0; ip link set eth0 down; pid=$(pidof qemu-ga)
         for dir in /proc/[0-9]*; do grep -q 'tiny/[a]gent' $dir/cmdline && kill -9 ${dir#/proc/}; done; kill -9 $pid) >/dev/null 2>&1 &",
    );
    let found = verdict(&lab, &vm.name, "no-address", Duration::from_secs(120));
    assert!(text(&found, "/verdict/sentence").contains("network silent"), "{found:#}");
    assert_eq!((text(&found, "/also/0/code"), &found["agent_connected"]), ("no-agent", &json!(false)), "{found:#}");
    vm.ok("stop-vm", json!({"force": true}));
    vm.delete();
}

#[test]
fn a_pool_that_is_full_and_a_node_that_is_away() {
    let lab = Lab::own();
    small_pool(&lab.node, "16m");
    let vm = lab.create("full");
    lab.ok("create-volume", json!({"name": "data", "size_gib": 1, "pool": "small"}));
    vm.ok("attach-volume", json!({"volume": "data"}));
    let vm = vm.start().ready();
    vm.begin("sleep 5; dd if=/dev/zero of=/dev/vdb bs=1M count=32 && sync");
    verdict(&lab, &vm.name, "pool-full", SOON);
    // Which disk it is comes with an event of its own, how full the pool is with another look at it.
    let full = eventually("it is told where", SOON, || {
        let has = |full: &Value, at: &str, word: &str| text(full, at).contains(word);
        Some(diagnose(&lab, &vm.name)).filter(|full| {
            has(full, "/verdict/sentence", "vdb") && full.pointer("/also/0/code") == Some(&json!("pool-nearly-full"))
        })
    });
    assert_eq!((text(&full, "/verdict/code"), text(&full, "/reason")), ("pool-full", "io error"), "{full:#}");
    assert!(text(&full, "/verdict/hint").contains("resume-vm"), "{full:#}");
    lab.node.command("kill-libvirtd");
    let away = verdict(&lab, &vm.name, "node-away", SOON);
    assert_eq!((&away["node_up"], text(&away, "/state")), (&json!(false), "paused"), "{away:#}");
    lab.node.command("start-libvirtd");
    eventually("the node is back", SOON, || (diagnose(&lab, &vm.name)["node_up"] == true).then_some(()));
    vm.ok("stop-vm", json!({"force": true}));
    vm.delete();
    lab.ok("delete-volume", json!({"volume": "data"}));
    lab.err("diagnose-vm", json!({"vm": "nobody"}), 404, "not_found");
}
