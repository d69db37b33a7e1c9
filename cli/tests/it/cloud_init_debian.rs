//! A real cloud-init, on Debian's cloud image: that it takes what the tiny guest takes, and how it merges what several say.

use crate::lab::{Lab, TestVm, eventually, tiny};
use serde_json::json;
use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

/// How long a boot may take on a loaded machine.
const BOOT: Duration = Duration::from_secs(900);

#[test]
#[ignore = "boots a real cloud image: minutes"]
fn a_cloud_image_takes_it_all() {
    let lab = Lab::own();
    let image = tiny().with_file_name("debian.qcow2");
    lab.ok(
        "register-template",
        json!({"name": "debian", "file": image, "default_user": "debian", "guest_agent": true}),
    );
    let key = lab.ok("create-keypair", json!({"name": "rsa", "algorithm": "rsa"}));
    let private = lab.dir.path.join("rsa").display().to_string();
    fs::write(&private, key["private_key"].as_str().unwrap()).unwrap();
    fs::set_permissions(&private, fs::Permissions::from_mode(0o600)).unwrap();
    let user_data = "#cloud-config\nusers:\n- name: second\n  gecos: of the user-data\nruncmd:\n- [sh, -c, 'echo user >>/var/said']\n";
    let vendor_data = "#cloud-config\nusers:\n- name: third\ntimezone: Asia/Shanghai\nwrite_files:\n- {path: /var/vendor, content: vendor}\n";
    let networks = json!([
        {"network": "default", "addresses": ["192.168.123.7/24", "192.168.122.211/24", "fd00::7/64"], "gateway": "192.168.122.1", "nameservers": ["192.168.122.1"]},
        {"network": "default", "addresses": ["10.9.8.7/24"]},
        {"network": "default"},
    ]);
    let cloud_init = json!({"hostname": "named", "user": "ann", "keypairs": ["rsa"], "password": "p a$6$'\"\\: #\u{e9}",
        "user_data": user_data, "vendor_data": vendor_data});
    let body = json!({"name": "debian", "template": "debian", "vcpus": 2, "memory_mib": 1024, "networks": networks,
        "cloud_init": cloud_init, "start": true});
    let vm = TestVm::new(&lab, lab.ok("create-vm", body));
    eventually("its agent answers", BOOT, || {
        let ping = [
            "-q",
            "-c",
            lab.node.uri(),
            "qemu-agent-command",
            vm.created["domain"].as_str().unwrap(),
            "{\"execute\":\"guest-ping\"}",
        ];
        std::process::Command::new("virsh").args(ping).output().unwrap().status.success().then_some(())
    });
    eventually("cloud-init is done", BOOT, || {
        (!vm.run("ls /run/cloud-init/result.json 2>/dev/null || :").is_empty()).then_some(())
    });
    let seen = vm.run(
        "cat /etc/network/interfaces.d/* /etc/netplan/* 2>/dev/null; ip -o addr; ip route; getent passwd | tail -4",
    );
    println!("{seen}");
    let addresses = |nic: &str| vm.run(&format!("ip -o addr show {nic}"));
    assert!(addresses("eth0").contains("192.168.122.211/24") && addresses("eth0").contains("fd00::7/64"));
    assert!(addresses("eth1").contains("10.9.8.7/24"), "{}", addresses("eth1"));
    assert!(addresses("eth2").contains("192.168.122."), "{}", addresses("eth2"));
    assert!(vm.run("ip route").contains("default via 192.168.122.1 dev eth0"));
    assert_eq!(vm.run("cat /var/said"), "user");
    assert_eq!(vm.run("cat /var/vendor"), "vendor");
    assert_eq!(vm.run("readlink /etc/localtime"), "/usr/share/zoneinfo/Asia/Shanghai");
    for user in ["ann", "second"] {
        assert_eq!(vm.run(&format!("id -un {user}")), user);
    }
    let only = ["-i", &private, "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes"];
    assert_eq!(vm.ssh("ann", &[], &only, "sudo id -un"), (true, "root".to_owned()));
}
