//! attach-network, detach-network, modify-nic: hot and cold, in step, and with what is reserved for an interface.

use crate::lab::{Lab, SOON, TestVm, eventually};
use serde_json::{Value, json};

/// The interfaces as describe-vm tells them, by their hardware addresses.
fn macs(vm: &TestVm<'_>) -> Vec<String> {
    let vm = vm.describe();
    vm["networks"].as_array().unwrap().iter().map(|nic| nic["mac"].as_str().unwrap().to_owned()).collect()
}

fn xml(vm: &TestVm<'_>, which: &[&str]) -> String {
    vm.lab.node.virsh(&[&["dumpxml", vm.created["domain"].as_str().unwrap()], which].concat())
}

fn mac(reply: &Value) -> String {
    reply["nic"]["mac"].as_str().unwrap().to_owned()
}

fn reserved(lab: &Lab) -> String {
    lab.node.virsh(&["net-dumpxml", "default"])
}

#[test]
fn cold_and_back() {
    let lab = Lab::own();
    let vm = lab.create("cold");
    let fixed = json!({"network": "default", "mac": "52:54:00:AB:00:01", "ip": "192.168.122.44", "link": "down"});
    let attached = vm.ok("attach-network", fixed);
    assert_eq!(
        (&attached["nic"]["mac"], &attached["nic"]["ip"], &attached["nic"]["link"], &attached["nic"]["network"]),
        (&json!("52:54:00:ab:00:01"), &json!("192.168.122.44"), &json!("down"), &json!("default"))
    );
    assert!(reserved(&lab).contains("192.168.122.44"));
    let chosen = mac(&vm.ok("attach-network", json!({"network": "default"})));
    assert_eq!(macs(&vm)[1..], ["52:54:00:ab:00:01".to_owned(), chosen.clone()]);
    let up = vm.ok("modify-nic", json!({"mac": "52:54:00:AB:00:01", "link": "up", "rx_kb_per_s": 500}));
    assert_eq!((&up["nic"]["link"], &up["nic"]["rx_kb_per_s"]), (&json!("up"), &json!(500)));
    assert!(xml(&vm, &[]).contains("<inbound average='500'/>"));
    // Its own address is given back, and may be had again.
    let after = vm.ok("detach-network", json!({"mac": "52:54:00:ab:00:01"}));
    assert_eq!(after["networks"].as_array().unwrap().len(), 2);
    assert!(!reserved(&lab).contains("192.168.122.44"));
    let again = vm.ok("attach-network", json!({"network": "default", "ip": "192.168.122.44"}));
    assert_eq!(again["nic"]["ip"], "192.168.122.44");
    // What is left goes with the VM.
    vm.delete();
    assert!(!reserved(&lab).contains("192.168.122.44"));
}

#[test]
fn hot_and_back() {
    let lab = Lab::own();
    let vm =
        lab.create_with("hot", json!({"networks": [{"network": "default", "ip": "192.168.122.10"}]})).start().ready();
    let first = macs(&vm)[0].clone();
    let added = mac(&vm.ok("attach-network", json!({"network": "default", "ip": "192.168.122.66"})));
    assert!(xml(&vm, &["--inactive"]).contains(&added), "live and definition are in step");
    let device = |mac: &str| vm.run(&format!("grep -l {mac} /sys/class/net/*/address | cut -d/ -f5"));
    let name = eventually("the guest sees it", SOON, || Some(device(&added)).filter(|name| !name.is_empty()));
    // It carries: the address that is reserved for it comes by DHCP.
    vm.run(&format!("ip link set {name} up && udhcpc -n -q -i {name} 2>/dev/null || true"));
    let leased = eventually("it has a lease", SOON, || {
        Some(lab.node.virsh(&["net-dhcp-leases", "default"])).filter(|leases| leases.contains(&added))
    });
    assert!(leased.contains("192.168.122.66"), "{leased}");
    // The cable.
    let carrier = || vm.run(&format!("cat /sys/class/net/{name}/carrier"));
    assert_eq!(carrier(), "1");
    let down = vm.ok("modify-nic", json!({"mac": added, "link": "down"}));
    assert_eq!(down["nic"]["link"], "down");
    eventually("the guest sees the cable out", SOON, || (carrier() == "0").then_some(()));
    limits(&vm, &added);
    let up = vm.ok("modify-nic", json!({"mac": added, "link": "up"}));
    assert_eq!((&up["nic"]["rx_kb_per_s"], &up["nic"]["link"]), (&Value::Null, &json!("up")));
    eventually("the guest sees the cable in", SOON, || (carrier() == "1").then_some(()));

    let after = vm.ok("detach-network", json!({"mac": added, "timeout_s": 60}));
    assert_eq!(after["networks"].as_array().unwrap().len(), 1);
    assert_eq!(device(&added), "");
    assert!(!xml(&vm, &["--inactive"]).contains(&added) && !reserved(&lab).contains("192.168.122.66"));
    vm.err("detach-network", json!({"mac": added}), 404, "not_found");
    assert_eq!(macs(&vm), [first]);
}

/// Limits of a running VM's interface, which Linux's traffic control then has; the link stays as it is. A kernel without the
/// parts of it that libvirt uses refuses them, and nothing changes.
fn limits(vm: &TestVm<'_>, mac: &str) {
    let body = json!({"mac": mac, "rx_kb_per_s": 500, "tx_kb_per_s": 250});
    let tap = vnet(&xml(vm, &[]), mac);
    let inside = |args: &[&str]| vm.lab.node.inside(&[], args);
    let can = inside(&["tc", "qdisc", "add", "dev", "lo", "root", "sfq"]).0;
    if !can {
        println!("this kernel has no sch_sfq: limits of a running VM can't be seen here");
        let problem = vm.err("modify-nic", body, 422, "unsupported");
        assert!(problem["hint"].as_str().unwrap().contains("sch_sfq"), "{problem}");
        for which in ["--security-info", "--inactive"] {
            assert!(!xml(vm, &[which]).contains("<bandwidth>"));
        }
        return;
    }
    vm.ok("modify-nic", body);
    for which in ["--security-info", "--inactive"] {
        let xml = xml(vm, &[which]);
        assert!(xml.contains("<inbound average='500'/>") && xml.contains("<outbound average='250'/>"), "{xml}");
        assert!(xml.contains("<link state='down'/>"), "{xml}");
    }
    let classes = || inside(&["tc", "class", "show", "dev", &tap]).1;
    assert!(classes().contains("rate 4Mbit"), "{}", classes());
    vm.ok("modify-nic", json!({"mac": mac, "rx_kb_per_s": 0, "tx_kb_per_s": 0}));
    assert!(!classes().contains("rate 4Mbit"), "{}", classes());
}

/// The device on the node of an interface.
fn vnet(xml: &str, mac: &str) -> String {
    let interface = &xml[xml.find(mac).unwrap()..];
    let rest = interface.split("<target dev='").nth(1).unwrap();
    rest.split('\'').next().unwrap().to_owned()
}

#[test]
fn a_guest_that_holds_on_keeps_it() {
    let lab = Lab::shared();
    let vm = lab.create("deaf-nic").deaf().start();
    let mac = macs(&vm)[0].clone();
    let problem = vm.err("detach-network", json!({"mac": mac, "timeout_s": 6}), 504, "timeout");
    assert!(problem["detail"].as_str().unwrap().contains("it stays attached"), "{problem}");
    assert_eq!(macs(&vm).len(), 1);
    assert!(xml(&vm, &["--inactive"]).contains(&mac));
    vm.ok("pause-vm", json!({}));
    vm.err("detach-network", json!({"mac": mac}), 409, "wrong_state");
    vm.ok("stop-vm", json!({"force": true}));
    vm.ok("detach-network", json!({"mac": mac}));
    assert!(macs(&vm).is_empty());
}

#[test]
fn what_does_not_fit_is_refused() {
    let lab = Lab::own();
    let vm = lab.create("strict");
    let own = macs(&vm)[0].clone();
    let field = |problem: &Value| problem["errors"][0]["field"].as_str().unwrap_or_default().to_owned();
    for body in [
        json!({"network": "default", "mac": "53:54:00:00:00:01"}),
        json!({"network": "default", "mac": "nix"}),
        json!({"network": "default", "mac": own}),
    ] {
        assert_eq!(field(&vm.err("attach-network", body, 400, "invalid")), "mac");
    }
    for ip in ["192.168.122.1", "10.0.0.1", "192.168.122.255"] {
        let problem = vm.err("attach-network", json!({"network": "default", "ip": ip}), 400, "invalid");
        assert_eq!(field(&problem), "ip", "{problem}");
    }
    vm.err("attach-network", json!({"network": "default", "link": "sideways"}), 400, "invalid");
    vm.err("attach-network", json!({"network": "nix"}), 404, "not_found");
    vm.err("attach-network", json!({}), 400, "invalid");
    vm.err("detach-network", json!({"mac": "52:54:00:00:00:99"}), 404, "not_found");
    vm.err("detach-network", json!({"mac": "first"}), 400, "invalid");
    vm.err("modify-nic", json!({"mac": own}), 400, "invalid");
    vm.err("modify-nic", json!({"mac": own, "rx_kb_per_s": 5_000_000}), 400, "invalid");
    vm.err("modify-nic", json!({"mac": own, "tx_kb_per_s": -1}), 400, "invalid");
    vm.err("modify-nic", json!({"mac": "52:54:00:00:00:99", "link": "up"}), 404, "not_found");
    assert_eq!(macs(&vm), [own]);
}

#[test]
fn killed_at_every_step() {
    let mut lab = Lab::own();
    let nic = json!({"network": "default", "ip": "192.168.122.10"});
    let request = crate::lab::request("cut", json!({"start": true, "networks": [nic]}));
    let id = lab.ok("create-vm", request)["id"].as_str().unwrap().to_owned();
    let log = lab.node.dir.join(format!("pools/seeds/{id}.serial.log"));
    eventually("the guest is ready", 2 * SOON, || {
        std::fs::read(&log).is_ok_and(|log| String::from_utf8_lossy(&log).contains("tiny: ready")).then_some(())
    });
    let xml = |lab: &Lab, which: &str| lab.node.virsh(&["dumpxml", &domain(lab, &id), which]);
    let own = lab.ok("describe-vm", json!({"vm": id}))["networks"][0]["mac"].clone();
    cut(&mut lab, "change-interface:after", "modify-nic", &json!({"vm": id, "mac": own, "link": "down"}));
    assert_eq!(lab.ok("describe-vm", json!({"vm": id}))["networks"][0]["link"], "up");
    assert!(["--security-info", "--inactive"].iter().all(|which| !xml(&lab, which).contains("state='down'")));
    for step in ["record-address", "reserve-address", "attach-interface"] {
        for point in ["before", "after"] {
            let at = format!("{step}:{point}");
            let mac = "52:54:00:ab:00:07";
            let body = json!({"vm": id, "network": "default", "mac": mac, "ip": "192.168.122.70"});
            cut(&mut lab, &at, "attach-network", &body);
            let is_there = lab.ok("describe-vm", json!({"vm": id}))["networks"].as_array().unwrap().len() == 2;
            assert_eq!(is_there, at == "attach-interface:after", "{at}");
            for which in ["--security-info", "--inactive"] {
                assert_eq!(xml(&lab, which).contains(mac), is_there, "{at} {which}");
            }
            assert_eq!(reserved(&lab).contains("192.168.122.70"), is_there, "{at}");
            if !is_there {
                // Nothing of it is left that would be in the way.
                lab.ok("attach-network", body);
            }
            let detach = json!({"vm": id, "mac": mac, "timeout_s": 60});
            match step {
                "record-address" => cut(&mut lab, &format!("ask-guest:{point}"), "detach-network", &detach),
                "reserve-address" => cut(&mut lab, &format!("update-definition:{point}"), "detach-network", &detach),
                _ => cut(&mut lab, &format!("release-address:{point}"), "detach-network", &detach),
            }
            let vm = lab.ok("describe-vm", json!({"vm": id}));
            let stays = vm["networks"].as_array().unwrap().len() == 2;
            assert_eq!(stays, (step, point) == ("record-address", "before"), "{at} {vm}");
            assert_eq!(xml(&lab, "--inactive").contains(mac), stays, "{at}");
            assert_eq!(reserved(&lab).contains("192.168.122.70"), stays, "{at}");
            if stays {
                lab.ok("detach-network", detach);
            }
        }
    }
}

fn domain(lab: &Lab, vm: &str) -> String {
    lab.ok("describe-vm", json!({"vm": vm}))["domain"].as_str().unwrap().to_owned()
}

/// Kills the server at a step of a call, starts it again, and waits until it has brought it to one of its ends.
fn cut(lab: &mut Lab, at: &str, method: &str, body: &Value) {
    lab.server.kill_and_restart(&[("VMYARD_CRASH_AT", at)]);
    let answer = lab.server.call(method, body.clone());
    assert_eq!(answer.status, 0, "{at}: {answer:?}");
    lab.server.kill_and_restart(&[]);
    lab.wait_for_tasks();
}

#[test]
fn by_the_command_line() {
    let lab = Lab::shared();
    let vm = lab.create("cli-nic");
    let (code, text) = lab.server.cli(&["nic", "attach", &vm.name, "default", "--down"]);
    let mac = macs(&vm)[1].clone();
    let said = |more: &str| format!("interface {mac} of VM {} is on network default, {more}\n", vm.name);
    assert_eq!((code, text), (0, said("link down")));
    let modified = lab.server.cli(&["nic", "modify", &vm.name, &mac, "--link", "up", "--rx", "500"]);
    assert_eq!(modified, (0, said("link up, at most 500 kB/s to the guest")));
    let (code, text) = lab.server.cli(&["nic", "modify", &vm.name, &mac]);
    assert!(code == 1 && text.contains("at least one of link"), "{text}");
    assert!(lab.server.cli(&["nic", "detach", &vm.name, &mac, "--plan"]).1.contains("update-definition"));
    let (code, text) = lab.server.cli(&["nic", "detach", &vm.name, &mac]);
    assert!(code == 0 && text.ends_with("its interface is gone\n"), "{text}");
    vm.delete();
}
