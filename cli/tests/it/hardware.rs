//! What a VM is made of: firmware, network interfaces, reserved addresses.

use crate::lab::{Lab, SOON, eventually};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

/// A disk that only UEFI can boot: a FAT file system whose boot program is a Linux kernel, which has nowhere to go once it
/// has been started.
fn efi_disk(dir: &Path) -> PathBuf {
    let debs = crate::lab::tiny().with_file_name("tiny").join("debs");
    let kernel = std::fs::read_dir(&debs).unwrap().map(|entry| entry.unwrap().path());
    let kernel = kernel.into_iter().find(|path| path.to_string_lossy().contains("linux-image")).expect("a kernel");
    let mut unpack = Command::new("dpkg-deb").arg("--fsys-tarfile").arg(kernel).stdout(Stdio::piped()).spawn().unwrap();
    let mut tar = Command::new("tar");
    tar.args(["-x", "--wildcards", "--strip-components=2", "./boot/vmlinuz-*"]).current_dir(dir);
    assert!(tar.stdin(unpack.stdout.take().unwrap()).status().unwrap().success());
    unpack.wait().unwrap();
    let kernel = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let kernel = kernel.into_iter().find(|path| path.to_string_lossy().contains("vmlinuz")).unwrap();
    let disk = dir.join("efi.raw");
    std::fs::File::create(&disk).unwrap().set_len(64 << 20).unwrap();
    let run = |program: &str, args: &[&str]| {
        let status = Command::new(program).arg("-i").arg(&disk).args(args).status().unwrap();
        assert!(status.success(), "{program} {args:?}");
    };
    run("mformat", &["-F", "::"]);
    run("mmd", &["::/EFI", "::/EFI/BOOT"]);
    run("mcopy", &[kernel.to_str().unwrap(), "::/EFI/BOOT/BOOTX64.EFI"]);
    disk
}

#[test]
fn a_guest_boots_by_uefi() {
    let lab = Lab::own();
    let disk = efi_disk(&lab.dir.path);
    lab.ok("register-template", json!({"name": "efi", "file": disk, "cloud_init": false}));
    let request = |name: &str, firmware: &str| json!({"name": name, "template": "efi", "vcpus": 1, "memory_mib": 256, "firmware": firmware});
    let before = lab.files();
    let vm = lab.ok("create-vm", request("modern", "uefi"));
    assert_eq!(vm["firmware"], "uefi");
    let id = vm["id"].as_str().unwrap();
    assert_eq!(lab.ok("start-vm", json!({"vm": id}))["firmware"], "uefi");
    let log = lab.node.dir.join(format!("pools/seeds/{id}.serial.log"));
    eventually("the disk's boot program was started by UEFI", Duration::from_secs(120), || {
        let text = String::from_utf8_lossy(&std::fs::read(&log).ok()?).into_owned();
        assert!(!text.contains("EFI Internal Shell"), "it found nothing to boot: {text}");
        text.contains("BdsDxe: starting Boot0001").then_some(())
    });
    // Its variables lie in the VM's pool, and nowhere else.
    let nvram = lab.node.dir.join(format!("pools/default/{id}.nvram.fd"));
    assert!(nvram.exists());
    lab.node.virsh(&["pool-refresh", "default"]);
    assert!(lab.node.virsh(&["vol-list", "default"]).contains(&format!("{id}.nvram.fd")));
    let volume = lab.ok("describe-volume", json!({"volume": format!("{id}.nvram.fd")}));
    assert_eq!(
        (&volume["state"], &volume["vm"], &volume["device"]),
        (&json!("attached"), &json!("modern"), &Value::Null)
    );
    let left = lab.node.inside(&[], &["ls", "/var/lib/libvirt/qemu/nvram"]);
    assert!(!left.1.contains(id), "{left:?}");
    lab.ok("stop-vm", json!({"vm": id, "force": true}));
    // A system that is made anew, over a raw template, gets variables that are new as well.
    lab.ok("reset-vm-system", json!({"vm": id}));
    assert!(!nvram.exists());
    let booted = std::fs::read(&log).unwrap().len();
    lab.ok("start-vm", json!({"vm": id}));
    eventually("the new disk is booted by UEFI", Duration::from_secs(120), || {
        let text = String::from_utf8_lossy(&std::fs::read(&log).ok()?[booted..]).into_owned();
        text.contains("BdsDxe: starting Boot0001").then_some(())
    });
    assert!(nvram.exists());
    lab.ok("stop-vm", json!({"vm": id, "force": true}));
    // Snapshots over a raw template: merged into, and onto it.
    for name in ["one", "two"] {
        lab.ok("create-snapshot", json!({"vm": id, "name": name}));
    }
    for name in ["two", "one"] {
        let gone = lab.ok("delete-snapshot", json!({"vm": id, "snapshot": name}));
        assert!(gone["pending"].is_null(), "{gone}");
    }
    lab.ok("delete-vm", json!({"vm": id}));
    eventually("no file of it is left", SOON, || (lab.files() == before).then_some(()));
    assert!(!lab.node.virsh(&["vol-list", "default"]).contains("nvram"));

    assert_eq!(lab.ok("create-vm", request("old", "bios"))["firmware"], "bios");
    lab.ok("delete-vm", json!({"vm": "old"}));
    let problem = lab.err("create-vm", request("odd", "coreboot"), 400, "invalid");
    assert_eq!(problem["errors"][0]["field"], "firmware");
}

#[test]
fn killed_while_a_uefi_vm_with_an_address_is_made() {
    let mut lab = Lab::own();
    let request = json!({"name": "doomed", "template": "tiny", "vcpus": 1, "memory_mib": 128, "firmware": "uefi",
        "start": true, "networks": [{"network": "default", "ip": "192.168.122.50"}]});
    let before = lab.files();
    for at in ["reserve-address:before", "reserve-address:after", "keep-nvram:after", "start-domain:after"] {
        lab.server.kill_and_restart(&[("VMYARD_CRASH_AT", at)]);
        assert_eq!(lab.server.call("create-vm", request.clone()).status, 0, "{at}");
        lab.server.kill_and_restart(&[]);
        lab.wait_for_tasks();
        assert_eq!(lab.ok("list-vms", json!({}))["total"], 0, "{at}");
        assert_eq!(lab.files(), before, "{at}");
        assert_eq!(lab.node.virsh(&["list", "--all", "--name"]), "", "{at}");
        assert!(!lab.node.virsh(&["net-dumpxml", "default"]).contains("<host"), "{at}");
        assert!(!lab.node.virsh(&["net-dumpxml", "--inactive", "default"]).contains("<host"), "{at}");
    }
    // And a deletion that is cut off gives the address back as well.
    lab.ok("create-vm", request);
    assert!(lab.node.virsh(&["net-dumpxml", "default"]).contains("192.168.122.50"));
    lab.ok("stop-vm", json!({"vm": "doomed", "force": true}));
    for at in ["undefine-domain:after", "release-addresses:before"] {
        lab.server.kill_and_restart(&[("VMYARD_CRASH_AT", at)]);
        if at.starts_with("undefine") {
            assert_eq!(lab.server.call("delete-vm", json!({"vm": "doomed"})).status, 0, "{at}");
        }
    }
    lab.server.kill_and_restart(&[]);
    eventually("the deletion is finished", SOON, || (lab.ok("list-vms", json!({}))["total"] == 0).then_some(()));
    assert!(!lab.node.virsh(&["net-dumpxml", "default"]).contains("<host"));
    assert_eq!(lab.files(), before);
}

#[test]
fn several_interfaces_and_a_reserved_address() {
    let lab = Lab::own();
    let nic = |more: Value| {
        let mut nic = json!({"network": "default"});
        nic.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        nic
    };
    let nics =
        json!([nic(json!({"ip": "192.168.122.77", "mac": "52:54:00:00:77:77"})), nic(json!({"ip": "192.168.122.78"}))]);
    let vm = lab.create_with("homed", json!({"networks": nics})).start().ready();
    assert_eq!(vm.created["networks"].as_array().unwrap().len(), 2);
    assert_eq!(vm.describe()["networks"][0]["ip"], "192.168.122.77");
    assert_eq!(vm.describe()["networks"][1]["ip"], "192.168.122.78");
    assert_eq!(vm.address(), "192.168.122.77");
    eventually("it has it", SOON, || vm.run("ip -4 addr").contains("192.168.122.77/24").then_some(()));

    let refused = |nics: Value, field: &str, says: &str| {
        let request = json!({"name": "other", "template": "tiny", "vcpus": 1, "memory_mib": 64, "networks": nics});
        let problem = lab.err("create-vm", request, 400, "invalid");
        assert_eq!(problem["errors"][0]["field"], field, "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(says), "{problem}");
    };
    refused(json!([nic(json!({"ip": "192.168.122.77"}))]), "networks[0].ip", &vm.name);
    refused(json!([nic(json!({"ip": "192.168.122.1"}))]), "networks[0].ip", "192.168.122.1/24");
    refused(json!([nic(json!({"ip": "192.168.122.255"}))]), "networks[0].ip", "not an address for guests");
    refused(json!([nic(json!({})), nic(json!({"ip": "10.0.0.5"}))]), "networks[1].ip", "10.0.0.5");
    refused(json!([nic(json!({"ip": "fd00::5"}))]), "networks[0].ip", "IPv4");
    refused(
        json!([nic(json!({"ip": "192.168.122.9"})), nic(json!({"ip": "192.168.122.9"}))]),
        "networks[1].ip",
        "another interface",
    );
    // The address of a guest that has it by chance.
    let chance = lab.create("chance").start().ready();
    let leased = chance.address();
    refused(json!([nic(json!({"ip": leased}))]), "networks[0].ip", &chance.name);
    chance.delete();
    vm.delete();
    for part in [&["net-dumpxml", "default"][..], &["net-dumpxml", "--inactive", "default"]] {
        assert!(!lab.node.virsh(part).contains("<host"));
    }

    // A network that libvirt serves no DHCP on can't keep one.
    let xml = lab.dir.path.join("net.xml");
    std::fs::write(&xml, "<network><name>bare</name><bridge name='vybare'/></network>").unwrap();
    lab.node.virsh(&["net-create", xml.to_str().unwrap()]);
    let request = json!({"name": "other", "template": "tiny", "vcpus": 1, "memory_mib": 64,
        "networks": [{"network": "bare", "ip": "10.0.0.5"}]});
    let problem = lab.err("create-vm", request, 422, "unsupported");
    assert!(problem["detail"].as_str().unwrap().contains("DHCP"), "{problem}");
    assert_eq!(lab.ok("list-vms", json!({}))["total"], 0);
}

#[test]
fn one_address_is_promised_once() {
    let lab = Lab::shared();
    let name = lab.name("race");
    let answers: Vec<_> = std::thread::scope(|scope| {
        let call = |number: usize| {
            let request = json!({"name": format!("{name}-{number}"), "template": "tiny", "vcpus": 1, "memory_mib": 64,
                "networks": [{"network": "default", "ip": "192.168.122.88"}]});
            lab.server.call("create-vm", request)
        };
        let calls: Vec<_> = (0..6).map(|number| scope.spawn(move || call(number))).collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    let made: Vec<_> = answers.iter().filter(|answer| answer.status == 200).collect();
    assert_eq!(made.len(), 1, "{answers:?}");
    assert!(answers.iter().all(|answer| answer.status == 200 || answer.body["code"] == "invalid"), "{answers:?}");
    lab.ok("delete-vm", json!({"vm": made[0].body["id"]}));
}
