//! Templates: register-template, list-templates, describe-template, delete-template.

use crate::lab::{Lab, SOON, tiny};
use serde_json::json;
use std::{fs, path::Path, process::Command};

fn qemu_img(args: &[&str]) {
    let output = Command::new("qemu-img").args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn images_that_could_read_other_files_are_refused() {
    let lab = Lab::own();
    let images = lab.dir.path.join("images");
    fs::create_dir(&images).unwrap();
    let path = |name: &str| images.join(name).display().to_string();
    fs::write(path("secret"), vec![7; 4096]).unwrap();
    qemu_img(&["create", "-q", "-f", "qcow2", "-F", "raw", "-b", &path("secret"), &path("backed.qcow2"), "1M"]);
    qemu_img(&[
        "create",
        "-q",
        "-f",
        "qcow2",
        "-o",
        &format!("data_file={}", path("data"),),
        &path("split.qcow2"),
        "1M",
    ]);
    qemu_img(&["create", "-q", "-f", "vmdk", &path("other.vmdk"), "1M"]);
    fs::write(path("text"), "no image at all").unwrap();
    fs::write(path("cut.qcow2"), &fs::read(tiny()).unwrap()[..40]).unwrap();
    let mut unknown = fs::read(path("backed.qcow2")).unwrap();
    unknown[8..16].fill(0);
    unknown[72] = 0x80;
    fs::write(path("unknown.qcow2"), unknown).unwrap();

    let before = lab.files();
    for (name, why) in [
        ("backed.qcow2", "backing file"),
        ("split.qcow2", "external data file"),
        ("other.vmdk", "VMDK"),
        ("text", "raw disk"),
        ("cut.qcow2", "cut off"),
        ("unknown.qcow2", "not known"),
        ("missing", "no file"),
    ] {
        let problem = lab.err("register-template", json!({"name": "bad", "file": path(name)}), 400, "invalid");
        assert_eq!(problem["errors"][0]["field"], "file", "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(why), "{name}: {problem}");
    }
    lab.err("register-template", json!({"name": "bad", "file": "/nonexistent/dir/x.qcow2"}), 400, "invalid");
    lab.err("register-template", json!({"name": "bad", "file": "relative"}), 400, "invalid");
    lab.err("register-template", json!({"name": "bad", "file": "/tmp/../etc/shadow"}), 400, "invalid");
    lab.err("register-template", json!({"name": "bad", "file": images}), 400, "invalid");
    lab.err("register-template", json!({"name": "TINY", "file": tiny()}), 409, "already_exists");
    assert_eq!(lab.files(), before);
    assert_eq!(lab.ok("list-templates", json!({}))["total"], 1);
    assert!(!lab.node.virsh(&["pool-list", "--all", "--name"]).contains("lookup"));
    assert!(Path::new(&path("secret")).exists());
}

#[test]
fn a_raw_image_and_one_in_a_pool() {
    let lab = Lab::own();
    let raw = lab.node.dir.join("pools/default/plain.img").display().to_string();
    qemu_img(&["convert", "-f", "qcow2", "-O", "raw", tiny().to_str().unwrap(), &raw]);
    let template =
        lab.ok("register-template", json!({"name": "raw", "file": raw, "default_user": "tiny", "os": "tiny"}));
    assert_eq!(
        (&template["format"], &template["state"], &template["size_gib"]),
        (&json!("raw"), &json!("ready"), &json!(0.5))
    );
    fs::remove_file(&raw).unwrap();
    let path = template["copies"][0]["path"].as_str().unwrap();
    assert!(fs::metadata(path).unwrap().permissions().readonly());
    let vm = lab.create_with("raw", json!({"template": "raw"})).start().ready();
    assert_eq!(vm.run("nproc"), "1");
    vm.delete();
    lab.ok("delete-template", json!({"template": "raw"}));
    assert!(!Path::new(path).exists());
}

#[test]
fn a_template_in_use_stays() {
    let lab = Lab::shared();
    let name = lab.name("busy");
    let made = lab.server.call("register-template", json!({"name": name, "file": tiny(), "wait": false}));
    let task = made.body["task"]["id"].clone();
    let done = crate::lab::eventually("it is registered", SOON, || {
        let task = lab.ok("describe-task", json!({"task": task}));
        (task["state"] == "done").then_some(task)
    });
    assert_eq!(done["progress_percent"], 100.0, "{done}");
    let vm = lab.create_with("user", json!({"template": name, "disk_gib": 1}));
    assert_eq!(lab.ok("describe-template", json!({"template": name.to_uppercase()}))["vms"], 1);
    let problem = lab.err("delete-template", json!({"template": name}), 409, "in_use");
    assert!(problem["detail"].as_str().unwrap().contains('1'), "{problem}");
    vm.delete();
    lab.ok("delete-template", json!({"template": name}));
    lab.err("describe-template", json!({"template": name}), 404, "not_found");
    let request = json!({"name": "x", "template": name, "vcpus": 1, "memory_mib": 64});
    lab.err("create-vm", request, 404, "not_found");
}

#[test]
fn a_disk_smaller_than_its_template_is_refused() {
    let lab = Lab::own();
    let big = lab.dir.path.join("big.qcow2").display().to_string();
    qemu_img(&["create", "-q", "-f", "qcow2", &big, "3G"]);
    lab.ok("register-template", json!({"name": "big", "file": big}));
    let request = json!({"name": "x", "template": "big", "vcpus": 1, "memory_mib": 64, "disk_gib": 2});
    let problem = lab.err("create-vm", request, 400, "invalid");
    assert!(problem["errors"][0]["message"].as_str().unwrap().contains("at least 3"), "{problem}");
}

#[test]
fn what_something_else_stands_on_is_not_deleted() {
    let lab = Lab::own();
    let vm = lab.create("base");
    let disk = vm.describe()["disks"][0]["path"].as_str().unwrap().to_owned();
    let template =
        lab.ok("describe-template", json!({"template": "tiny"}))["copies"][0]["path"].as_str().unwrap().to_owned();
    let overlay = |name: &str, on: &str| {
        let path = lab.node.dir.join("pools/default").join(name).display().to_string();
        qemu_img(&["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", on, &path]);
        path
    };
    // Made past Vmyard and past libvirt: only the headers tell.
    let foreign = overlay("foreign.qcow2", &disk);
    let problem = vm.err("delete-vm", json!({}), 409, "in_use");
    assert!(problem["detail"].as_str().unwrap().contains(&foreign), "{problem}");
    assert_eq!(vm.state(), "shutoff");
    fs::remove_file(&foreign).unwrap();
    vm.delete();
    let foreign = overlay("other.qcow2", &template);
    let problem = lab.err("delete-template", json!({"template": "tiny"}), 409, "in_use");
    assert!(problem["detail"].as_str().unwrap().contains(&foreign), "{problem}");
    fs::remove_file(&foreign).unwrap();
    // A domain of somebody else that has a disk of ours.
    let vm = lab.create("lent");
    let disk = vm.describe()["disks"][0]["path"].as_str().unwrap().to_owned();
    let file = lab.dir.path.join("thief.xml");
    let xml = format!(
        "<domain type='qemu'><name>thief</name><memory unit='MiB'>64</memory><vcpu>1</vcpu>
         <os><type arch='x86_64' machine='q35'>hvm</type></os><devices><disk type='file' device='disk'>
         <driver name='qemu' type='qcow2'/><source file='{disk}'/><target dev='vda' bus='virtio'/></disk></devices></domain>"
    );
    fs::write(&file, xml).unwrap();
    lab.node.virsh(&["define", file.to_str().unwrap()]);
    crate::lab::eventually("the other domain is seen", SOON, || {
        (lab.ok("list-vms", json!({"name": "thief"}))["total"] == 1).then_some(())
    });
    let problem = vm.err("delete-vm", json!({}), 409, "in_use");
    assert!(problem["detail"].as_str().unwrap().contains("VM thief"), "{problem}");
    lab.node.virsh(&["undefine", "thief"]);
}
