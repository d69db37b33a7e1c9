//! What cloud-init is given: fixed addresses, network-config, vendor-data, and what is told of it; what is refused.

use crate::{
    access::is_nowhere,
    lab::{Lab, SOON, TestVm, eventually},
};
use serde_json::{Value, json};
use std::{fs, time::Duration};

/// A line that is long enough to be looked for in files, and to be found in none.
const SECRET: &str = "hunter2-hunter2-hunter2-hunter2-hunter2-hunter2";

/// Starts it and waits until the guest has come up once more.
fn boot(vm: &TestVm) {
    let logged = vm.serial_log().len();
    vm.ok("start-vm", json!({}));
    eventually("it is ready again", Duration::from_secs(120), || {
        vm.serial_log()[logged..].contains("tiny: ready").then_some(())
    });
}

/// Waits until the guest answers there: its sshd makes a key first.
fn answers(lab: &Lab, address: &str) {
    let ask = || lab.node.inside(&[], &["ssh-keyscan", "-T", "30", address]).1;
    eventually(&format!("{address} answers"), SOON, || ask().contains("ssh-ed25519").then_some(()));
}

#[test]
fn interfaces_have_fixed_addresses() {
    let lab = Lab::own();
    let networks = json!([
        {"network": "default", "addresses": ["192.168.122.201/24"], "gateway": "192.168.122.1", "nameservers": ["192.168.122.1"]},
        {"network": "default", "mac": "52:54:00:AB:00:01", "addresses": ["10.9.8.7/24", "10.9.7.7/24"]},
        {"network": "default"},
    ]);
    let vm = lab.create_with("fixed", json!({"networks": networks, "disk_gib": 1})).start().ready();
    let addresses = |nic: &str| vm.run(&format!("ip -o -4 addr show {nic}"));
    let check = || {
        assert!(addresses("eth0").contains("192.168.122.201/24"), "{}", addresses("eth0"));
        assert!(addresses("eth1").contains("10.9.8.7/24") && addresses("eth1").contains("10.9.7.7/24"));
        eventually("the third has one by DHCP", SOON, || addresses("eth2").contains("192.168.122.").then_some(()));
        let routes = vm.run("ip route");
        assert!(routes.contains("default via 192.168.122.1 dev eth0"), "{routes}");
        assert!(vm.run("cat /etc/resolv.conf").contains("nameserver 192.168.122.1"));
        answers(&lab, "192.168.122.201");
    };
    check();
    let given = &vm.created["cloud_init"];
    assert!(given["network_config_bytes"].as_u64().unwrap() > 100, "{given}");
    assert_eq!((&given["user"], &given["hostname"]), (&json!("tiny"), &json!(vm.name)));
    // A system that is made anew reads the same seed.
    vm.run("touch /root/mark && sync");
    vm.ok("stop-vm", json!({"force": true}));
    let reset = vm.ok("reset-vm-system", json!({}));
    assert_eq!(&reset["cloud_init"], given);
    boot(&vm);
    assert_eq!(vm.run("ls /root/mark 2>/dev/null || echo gone"), "gone");
    check();
}

#[test]
fn vendor_data_and_a_network_config_are_applied_and_not_shown() {
    let lab = Lab::own();
    let (first, second) = ("52:54:00:ab:00:11", "52:54:00:ab:00:12");
    let key = lab.ok("create-keypair", json!({"name": "ann"}));
    let user_data = format!("#cloud-config\nruncmd:\n- [sh, -c, 'echo {SECRET} | md5sum >/var/user']\n");
    let vendor_data = format!("#!/bin/sh\necho {SECRET} | md5sum >/var/vendor\n");
    let cloud_init = json!({
        "hostname": "named.example", "user": "ann", "password": SECRET, "keypairs": ["ann"],
        "user_data": user_data, "vendor_data": vendor_data,
        "network_config": {"version": 2, "renderer": "networkd", "ethernets": {
            "lan": {"match": {"macaddress": second}, "addresses": ["192.168.122.202/24"], "routes": [{"to": "default", "via": "192.168.122.1"}]},
            "wan": {"match": {"macaddress": first}, "dhcp4": true},
        }},
    });
    let networks = json!([{"network": "default", "mac": first}, {"network": "default", "mac": second}]);
    let vm = lab.create_with("given", json!({"networks": networks, "cloud_init": cloud_init})).start().ready();
    eventually("the first has an address by DHCP", SOON, || {
        vm.run("ip -o -4 addr show eth0").contains("192.168.122.").then_some(())
    });
    assert!(vm.run("ip -o -4 addr show eth1").contains("192.168.122.202/24"));
    answers(&lab, "192.168.122.202");
    assert_eq!(vm.run("hostname"), "named");
    assert_eq!(vm.run("cat /var/vendor"), vm.run("cat /var/user"));

    let given = vm.describe()["cloud_init"].clone();
    let network_config_bytes = given["network_config_bytes"].clone();
    assert!(network_config_bytes.as_u64().unwrap() > 100, "{given}");
    let told = json!({"hostname": "named.example", "user": "ann", "password": true, "ssh_key_fingerprints": [key["fingerprint"]],
        "user_data_bytes": user_data.len(), "vendor_data_bytes": vendor_data.len(), "network_config_bytes": network_config_bytes});
    assert_eq!(given, told);
    let shown = lab.server.cli(&["vm", "show", &vm.name]).1;
    assert!(shown.contains("hostname named.example, user ann with a password, user-data of"), "{shown}");
    assert!(shown.contains(key["fingerprint"].as_str().unwrap()), "{shown}");
    // It is in the seed, for the guest, and nowhere else.
    is_nowhere(&lab.dir.path.join("data"), SECRET, &["vmyard.db", "vmyard.db-wal"]);
    assert!(!lab.server.log().contains(SECRET));
    let task = lab.ok("list-tasks", json!({"method": "create-vm", "limit": 1}));
    for answer in [task, lab.ok("list-audit", json!({})), lab.ok("list-vms", json!({}))] {
        assert!(!answer.to_string().contains(SECRET), "{answer}");
    }

    // A VM made of a snapshot is given its own.
    vm.ok("stop-vm", json!({"force": true}));
    vm.ok("create-snapshot", json!({"name": "base"}));
    let child = json!({"vm": vm.id, "snapshot": "base", "name": "child",
        "networks": [{"network": "default", "addresses": ["192.168.122.203/24"]}],
        "cloud_init": {"vendor_data": "#!/bin/sh\necho child >/var/vendor\n"}});
    let child = TestVm::new(&lab, lab.ok("create-vm-from-snapshot", child)).start().ready();
    assert_eq!(child.created["cloud_init"]["vendor_data_bytes"], 34);
    assert_eq!((child.run("cat /var/vendor"), child.run("hostname")), ("child".to_owned(), "child".to_owned()));
    answers(&lab, "192.168.122.203");
}

#[test]
fn a_network_config_from_a_file_of_netplans() {
    let lab = Lab::own();
    let file = |name: &str, text: &str| {
        let path = lab.dir.path.join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    // Numbers with colons, and yes and no, are what YAML 1.1 and 1.2 read in two ways.
    let good = "network:\n  version: 2\n  renderer: networkd\n  ethernets:\n    a:\n      match: {macaddress: 52:54:00:12:34:56}\n      \
                dhcp4: no\n      addresses: [192.168.122.204/24]\n";
    let vm = |name: &str, config: &str| {
        let network = "default,mac=52:54:00:12:34:56";
        let config = ["--network", network, "--network-config", config];
        lab.server.cli_apart(&[&["vm", "create", name, "--template", "tiny", "--memory", "128"][..], &config].concat())
    };
    let (code, text, error) = vm("planned", &file("good.yaml", good));
    assert!(code == 0, "{text}{error}");
    let planned = TestVm::new(&lab, lab.ok("describe-vm", json!({"vm": "planned"}))).start().ready();
    assert!(planned.run("ip -o -4 addr show eth0").contains("192.168.122.204/24"));
    for (wrong, why) in [
        ("network: [", "network-config"),
        ("version: 2\nwifis: {a: {}}\n", "wifis"),
        ("version: 1\nconfig: []\n", "config"),
        ("version: 2\nethernets: {a: {addresses: [10.0.0.1]}}\n", "prefix length"),
    ] {
        let (code, text, error) = vm("wrong", &file("wrong.yaml", wrong));
        assert!(code != 0 && error.contains(why) || error.contains("wrong.yaml"), "{wrong}: {code} {text} {error}");
    }
    let args = ["vm", "create", "fixed", "--template", "tiny", "--memory", "128"];
    let fixed = ["--network", "default,address=192.168.122.205/24,gateway=192.168.122.1,dns=192.168.122.1"];
    let vendor = file("vendor", "#!/bin/sh\n");
    assert_eq!(lab.server.cli(&[&args[..], &fixed, &["--vendor-data", &vendor]].concat()).0, 0);
    let given = lab.ok("describe-vm", json!({"vm": "fixed"}))["cloud_init"].clone();
    assert_eq!((&given["vendor_data_bytes"], given["network_config_bytes"].is_u64()), (&json!(10), true), "{given}");
}

#[test]
fn what_cloud_init_could_not_use_is_refused() {
    let lab = Lab::own();
    let refused = |more: Value| {
        let problem = lab.err("create-vm", crate::lab::request("wrong", more), 400, "invalid");
        let error = &problem["errors"][0];
        (error["field"].as_str().unwrap().to_owned(), error["message"].as_str().unwrap().to_owned())
    };
    let network = |network: Value| json!({"cloud_init": {"network_config": network}});
    let ethernet = |device: Value| network(json!({"version": 2, "ethernets": {"eth0": device}}));
    let nic = |more: Value| {
        let mut nic = json!({"network": "default"});
        nic.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"networks": [{"network": "default", "addresses": ["10.0.0.1/24"]}, nic]})
    };
    let data = |field: &str, text: String| json!({"cloud_init": {field: text}});
    let large = format!("#cloud-config\n# {}", "x".repeat(262_144));
    let wide = format!("#cloud-config\n# {}", "ü".repeat(140_000));
    for (request, field, why) in [
        (data("user_data", large.clone()), "cloud_init.user_data", "at most 262144 bytes, has 262160"),
        (data("user_data", wide), "cloud_init.user_data", "at most 262144 bytes, has 280016"),
        (data("vendor_data", large), "cloud_init.vendor_data", "at most 262144 bytes"),
        (data("vendor_data", "hello".to_owned()), "cloud_init.vendor_data", "must begin with one of"),
        (
            data("user_data", "#cloud-config\nusers: [a\n".to_owned()),
            "cloud_init.user_data",
            "unclosed bracket '[' at line 2, column 8",
        ),
        (data("user_data", "#cloud-config\n- a\n".to_owned()), "cloud_init.user_data", "line 2"),
        (data("vendor_data", "#cloud-config\na: 1\na: 2\n".to_owned()), "cloud_init.vendor_data", "duplicate"),
        (data("password", "two\nlines".to_owned()), "cloud_init.password", "line break"),
        (data("password", String::new()), "cloud_init.password", "1 to 256 characters"),
        (data("password", "\u{20ac}".repeat(200)), "cloud_init.password", "at most 511 bytes, has 200 and 600"),
        (data("hostname", "a_b".to_owned()), "cloud_init.hostname", "RFC 1123"),
        (network(json!({"version": 1, "config": []})), "cloud_init.network_config.config", ""),
        (network(json!({"version": 1})), "cloud_init.network_config.version", "must be 2"),
        (network(json!({"version": 2})), "cloud_init.network_config", "names no interface"),
        (network(json!({"ethernets": {}})), "cloud_init.network_config.version", ""),
        (network(json!({"version": 2, "wifis": {}})), "cloud_init.network_config.wifis", ""),
        (network(json!({"network": {"version": 2}})), "cloud_init.network_config.network", ""),
        (network(json!("version: 2")), "cloud_init.network_config", "must be an object"),
        (network(json!({"version": 2, "ethernets": {"a b": {}}})), "cloud_init.network_config.ethernets", "\"a b\""),
        (network(json!({"version": 2, "ethernets": {"a": []}})), "cloud_init.network_config.ethernets.a", "object"),
        (
            ethernet(json!({"addresses": ["10.0.0.7"]})),
            "cloud_init.network_config.ethernets",
            "eth0.addresses[0] must be",
        ),
        (ethernet(json!({"dhcp4": "no"})), "cloud_init.network_config.ethernets", "eth0.dhcp4 must be true or false"),
        (ethernet(json!({"gateway4": "10.0.0"})), "cloud_init.network_config.ethernets", "eth0.gateway4"),
        (ethernet(json!({"x": "x".repeat(70_000)})), "cloud_init.network_config", "at most 65536 bytes"),
        (nic(json!({"addresses": ["10.0.0.1/24"]})), "networks[1].addresses", "there twice"),
        (nic(json!({"addresses": ["10.0.0.300/24"]})), "networks[1].addresses[0]", "prefix length"),
        (nic(json!({"addresses": ["10.0.0.2"]})), "networks[1].addresses[0]", "prefix length"),
        (nic(json!({"gateway": "10.0.0.1"})), "networks[1].gateway", "with addresses"),
        (nic(json!({"nameservers": ["10.0.0.1"]})), "networks[1].nameservers", "with addresses"),
        (nic(json!({"addresses": ["10.1.0.1/24"], "gateway": "10.0.0.1"})), "networks[1].gateway", "in none"),
        (nic(json!({"addresses": ["10.1.0.1/24"], "gateway": "fd00::1"})), "networks[1].gateway", "in none"),
        (nic(json!({"addresses": ["10.1.0.1/24"], "ip": "192.168.122.9"})), "networks[1].addresses", "beside ip"),
    ] {
        let (at, message) = refused(request.clone());
        let short = request.to_string().chars().take(200).collect::<String>();
        assert!(at == field && message.contains(why), "{short}: {at}: {message}");
    }
    let mut both = nic(json!({}));
    both["cloud_init"] = json!({"network_config": {"version": 2, "ethernets": {"a": {}}}});
    assert_eq!(refused(both).0, "networks[0].addresses");
    // Wrong keys are refused as those of import-keypair, and what is in them isn't said again.
    let key = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmU\n";
    let (at, message) = refused(json!({"cloud_init": {"ssh_keys": [key]}}));
    assert!(
        at == "cloud_init.ssh_keys[0]" && message.contains("private key") && !message.contains("b3Bl"),
        "{message}"
    );
    let (at, message) = refused(json!({"cloud_init": {"ssh_keys": ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA x"]}}));
    assert!(at == "cloud_init.ssh_keys[0]" && message.contains("whole"), "{message}");
    // A secret in YAML that can't be read stays secret.
    let (_, message) = refused(data("user_data", format!("#cloud-config\npassword: {SECRET}\nchpasswd: [{SECRET}\n")));
    assert!(!message.contains("hunter2"), "{message}");

    // Nothing reads it.
    lab.ok("register-template", json!({"name": "plain", "file": crate::lab::tiny(), "cloud_init": false}));
    let none = |more: Value, field: &str| {
        let mut more = more;
        more["template"] = json!("plain");
        let (at, message) = refused(more);
        assert!(at == field && message.contains("plain has no cloud-init"), "{at}: {message}");
    };
    for (given, value) in [
        ("hostname", json!("a")),
        ("keypairs", json!(["lost"])),
        ("vendor_data", json!("#!/bin/sh\n")),
        ("network_config", json!({"version": 2, "ethernets": {"a": {}}})),
    ] {
        none(json!({"cloud_init": {given: value}}), "cloud_init");
    }
    none(nic(json!({})), "networks[0].addresses");
    let plain = lab.ok("create-vm", crate::lab::request("plain", json!({"template": "plain"})));
    assert_eq!(plain["cloud_init"], Value::Null);
    lab.ok("delete-vm", json!({"vm": "plain"}));
    assert_eq!(lab.ok("list-vms", json!({}))["total"], 0);
}
