//! VMs of others that are taken over, and VMs that are given back: the domain and its files stay as they are.

use crate::lab::{Lab, SOON, cached, eventually, request};
use serde_json::{Value, json};
use std::{fs, time::Duration};

const ELEMENT: &str = "urn:vmyard:domain:1";

fn xml(lab: &Lab, domain: &str) -> String {
    lab.node.virsh(&["dumpxml", "--inactive", "--security-info", domain])
}

/// The definition without our element, and without the emptiness that is left when there is nothing else in the metadata.
fn without_element(xml: &str) -> String {
    let lines = xml.lines().map(str::trim);
    let mut inside = false;
    let kept = lines.filter(|line| {
        inside |= line.starts_with("<vmyard:vm");
        let ours = inside;
        inside &= !(line.starts_with("</vmyard:vm>") || (line.starts_with("<vmyard:vm") && line.ends_with("/>")));
        !ours && !["<metadata>", "</metadata>", "<metadata/>"].contains(line)
    });
    kept.collect::<Vec<_>>().join("\n")
}

/// A VM as somebody makes one with virsh: two disks, one over the template's image, things that Vmyard knows nothing of.
fn theirs(lab: &Lab, name: &str) -> String {
    let pool = lab.node.dir.join("pools/default");
    let template = lab.ok("describe-template", json!({"template": "tiny"}))["copies"][0]["path"].clone();
    let (system, data) = (pool.join(format!("{name}.img")), pool.join(format!("{name}-data.raw")));
    let qemu_img =
        |args: &[&str]| assert!(lab.node.inside(&[], &[&["qemu-img", "create", "-q"], args].concat()).0, "{args:?}");
    qemu_img(&["-f", "qcow2", "-b", template.as_str().unwrap(), "-F", "qcow2", system.to_str().unwrap(), "1G"]);
    qemu_img(&["-f", "raw", data.to_str().unwrap(), "64M"]);
    let xml = format!(
        "<domain type='qemu'><name>{name}</name><title>An old one</title><memory unit='MiB'>64</memory><vcpu>1</vcpu>
         <metadata><other:thing xmlns:other='urn:other'>kept</other:thing></metadata>
         <cputune><shares>100</shares></cputune>
         <os><type arch='x86_64' machine='q35'>hvm</type></os><features><acpi/></features><devices>
         <disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{}'/><target dev='vda' bus='virtio'/></disk>
         <disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{}'/><target dev='vdb' bus='virtio'/></disk>
         <interface type='network'><source network='default'/><model type='virtio'/></interface>
         <serial type='pty'/><channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
         </devices></domain>",
        system.display(),
        data.display()
    );
    let file = lab.dir.path.join("theirs.xml");
    fs::write(&file, xml).unwrap();
    lab.node.virsh(&["define", file.to_str().unwrap()]);
    eventually("it is listed", SOON, || (lab.ok("list-vms", json!({"name": name}))["total"] == 1).then_some(()));
    lab.node.virsh(&["domuuid", name])
}

#[test]
fn taken_over_used_and_given_back() {
    let lab = Lab::own();
    let id = theirs(&lab, "old-web");
    let before = xml(&lab, "old-web");
    lab.err("create-snapshot", json!({"vm": "old-web", "name": "no"}), 422, "unsupported");
    let plan = lab.ok("adopt-vm", json!({"vm": "old-web", "plan": true}))["plan"].clone();
    assert_eq!(
        (&plan["steps"][0]["name"], &plan["steps"][1]["name"]),
        (&json!("mark-domain"), &json!("record-vm")),
        "{plan}"
    );
    assert_eq!(xml(&lab, "old-web"), before);

    let adopted =
        lab.ok("adopt-vm", json!({"vm": "OLD-WEB", "tags": {"team": "a"}, "description": "was there before"}));
    assert_eq!((&adopted["id"], &adopted["managed"], &adopted["template"]), (&json!(id), &json!(true), &json!("tiny")));
    assert_eq!((&adopted["tags"], &adopted["domain"]), (&json!({"team": "a"}), &json!("old-web")));
    let disks = adopted["disks"].as_array().unwrap();
    let role = |at: usize| (disks[at]["device"].as_str().unwrap(), disks[at]["role"].as_str().unwrap());
    assert_eq!((disks.len(), role(0), role(1)), (2, ("vda", "system"), ("vdb", "data")));
    let after = xml(&lab, "old-web");
    assert!(after.contains(ELEMENT) && after.contains("<other:thing"), "{after}");
    assert_eq!(without_element(&after), without_element(&before));
    let volume = lab.ok("describe-volume", json!({"volume": "old-web-vdb"}));
    assert_eq!(
        (&volume["format"], &volume["size_bytes"], &volume["vm"]),
        (&json!("raw"), &json!(64 << 20), &json!("old-web"))
    );
    // Its template can't go any more.
    lab.err("delete-template", json!({"template": "tiny"}), 409, "in_use");
    lab.err("adopt-vm", json!({"vm": "old-web"}), 409, "wrong_state");
    assert_eq!(lab.ok("list-orphans", json!({}))["total"], 0);

    lab.err("get-serial-log", json!({"vm": "old-web"}), 422, "unsupported");

    // It is like one of ours.
    lab.ok("modify-vm-spec", json!({"vm": "old-web", "memory_mib": 96, "name": "web"}));
    lab.ok("detach-volume", json!({"vm": "web", "volume": "old-web-vdb"}));
    lab.ok("attach-volume", json!({"vm": "web", "volume": "old-web-vdb"}));
    lab.ok("create-snapshot", json!({"vm": "web", "name": "first", "exclude_disks": ["vdb"]}));
    lab.err("release-vm", json!({"vm": "web"}), 409, "wrong_state");
    lab.ok("start-vm", json!({"vm": "web"}));
    lab.ok("delete-snapshot", json!({"vm": "web", "snapshot": "first"}));
    eventually("its snapshots are gone", SOON, || {
        (lab.ok("list-snapshots", json!({"vm": "web"}))["total"] == 0).then_some(())
    });
    lab.wait_for_tasks();

    // Given back while it runs.
    let files = lab.files();
    let released = lab.ok("release-vm", json!({"vm": "web"}));
    assert_eq!(
        (&released["id"], &released["domain"], &released["name"]),
        (&json!(id), &json!("old-web"), &json!("web"))
    );
    assert_eq!(released["disks"].as_array().unwrap().len(), 2);
    assert!(!xml(&lab, "old-web").contains(ELEMENT) && !lab.node.virsh(&["dumpxml", "old-web"]).contains(ELEMENT));
    assert_eq!(lab.files(), files);
    let listed = lab.ok("list-vms", json!({"managed": false}));
    assert_eq!((&listed["vms"][0]["id"], &listed["vms"][0]["state"]), (&json!(id), &json!("running")));
    assert_eq!(
        lab.ok("list-volumes", json!({}))["volumes"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|volume| !volume["id"].is_null())
            .count(),
        0
    );
    lab.err("release-vm", json!({"vm": "old-web"}), 409, "wrong_state");
    // And taken over again, by the command line, and deleted with all that it has.
    let (code, text) = lab.server.cli(&["vm", "adopt", "old-web", "--name", "again"]);
    assert!(code == 0 && text.contains("again"), "{text}");
    lab.ok("stop-vm", json!({"vm": "again", "force": true}));
    lab.ok("delete-vm", json!({"vm": "again", "delete_volumes": true}));
    assert_eq!(lab.files(), Vec::<String>::new());
}

#[test]
fn one_of_ours_is_given_back_and_taken_over() {
    let lab = Lab::own();
    let vm = lab.ok("create-vm", request("ours", json!({"start": true})));
    let domain = vm["domain"].as_str().unwrap();
    let files = lab.files();
    let (code, text) = lab.server.cli(&["vm", "release", "ours"]);
    assert!(code == 0 && text.contains(domain), "{text}");
    // Nothing of it is an orphan that may go.
    let orphans = lab.ok("clean-orphans", json!({}));
    assert_eq!(orphans["deleted"], json!([]), "{orphans}");
    assert_eq!(lab.files(), files);
    let adopted = lab.ok("adopt-vm", json!({"vm": domain, "name": "ours"}));
    assert_eq!(
        (&adopted["id"], &adopted["template"], &adopted["state"]),
        (&vm["id"], &json!("tiny"), &json!("running"))
    );
    lab.ok("stop-vm", json!({"vm": "ours", "force": true}));
    lab.ok("delete-vm", json!({"vm": "ours"}));
    assert_eq!(lab.files(), Vec::<String>::new());
}

#[test]
fn killed_in_the_middle() {
    let mut lab = Lab::own();
    let id = theirs(&lab, "cut-off");
    let before = xml(&lab, "cut-off");
    let managed = |lab: &Lab| lab.ok("describe-vm", json!({"vm": id}))["managed"] == true;
    let cut = |lab: &mut Lab, method: &str, step: &str, point: &str| {
        lab.server.kill_and_restart(&[("VMYARD_CRASH_AT", &format!("{step}:{point}"))]);
        eventually("it is there", SOON, || {
            (lab.server.call("describe-vm", json!({"vm": id})).status == 200).then_some(())
        });
        assert_eq!(lab.server.call(method, json!({"vm": id})).status, 0, "{step}:{point}");
        lab.server.kill_and_restart(&[]);
        eventually("it is there again", SOON, || {
            (lab.server.call("describe-vm", json!({"vm": id})).status == 200).then_some(())
        });
        lab.wait_for_tasks();
    };
    for (step, point, done) in [
        ("mark-domain", "before", false),
        ("mark-domain", "after", false),
        ("record-vm", "before", false),
        ("record-vm", "after", true),
    ] {
        cut(&mut lab, "adopt-vm", step, point);
        assert_eq!((managed(&lab), xml(&lab, "cut-off").contains(ELEMENT)), (done, done), "{step}:{point}");
        assert_eq!(without_element(&xml(&lab, "cut-off")), without_element(&before));
    }
    for (step, point, done) in [
        ("unmark-domain", "before", false),
        ("unmark-domain", "after", false),
        ("forget-vm", "before", false),
        ("forget-vm", "after", true),
    ] {
        cut(&mut lab, "release-vm", step, point);
        assert_eq!((managed(&lab), xml(&lab, "cut-off").contains(ELEMENT)), (!done, !done), "{step}:{point}");
    }
    assert_eq!(without_element(&xml(&lab, "cut-off")), without_element(&before));
    lab.ok("adopt-vm", json!({"vm": id}));
    lab.ok("delete-vm", json!({"vm": id, "delete_volumes": true}));
    assert_eq!(lab.files(), Vec::<String>::new());
}

#[test]
fn libvirtd_is_restarted_meanwhile() {
    let lab = Lab::own();
    let id = theirs(&lab, "shaken");
    for round in 0..8 {
        let managed = lab.ok("describe-vm", json!({"vm": id}))["managed"] == true;
        let method = if managed { "release-vm" } else { "adopt-vm" };
        std::thread::scope(|scope| {
            let called = scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(round * 3));
                lab.server.call(method, json!({"vm": id}))
            });
            lab.node.command("kill-libvirtd");
            lab.node.command("start-libvirtd");
            let answer = called.join().unwrap();
            assert!([200, 409, 503, 504].contains(&answer.status), "{method}: {answer:?}");
        });
        eventually("it is fresh", SOON, || (lab.ok("describe-vm", json!({"vm": id}))["stale"] == false).then_some(()));
        lab.wait_for_tasks();
        let managed = lab.ok("describe-vm", json!({"vm": id}))["managed"] == true;
        assert_eq!(xml(&lab, "shaken").contains(ELEMENT), managed, "{method}, round {round}");
    }
    if lab.ok("describe-vm", json!({"vm": id}))["managed"] == false {
        lab.ok("adopt-vm", json!({"vm": id}));
    }
    lab.ok("delete-vm", json!({"vm": id, "delete_volumes": true}));
    assert_eq!(lab.files(), Vec::<String>::new());
}

#[test]
fn what_cannot_be_taken_over() {
    let lab = Lab::own();
    let define = |xml: String| {
        let file = lab.dir.path.join("odd.xml");
        fs::write(&file, xml).unwrap();
        lab.node.virsh(&["define", file.to_str().unwrap()]);
    };
    let domain = |name: &str, more: &str| {
        format!(
            "<domain type='qemu'><name>{name}</name><memory unit='MiB'>64</memory><vcpu>1</vcpu>
             <os><type arch='x86_64' machine='q35'>hvm</type></os><devices>{more}</devices></domain>"
        )
    };
    let disk = |path: &str| {
        format!("<disk type='file' device='disk'><source file='{path}'/><target dev='vda' bus='virtio'/></disk>")
    };
    let listed = |name: &str| {
        eventually("it is listed", SOON, || (lab.ok("list-vms", json!({"name": name}))["total"] == 1).then_some(()));
    };
    // A name that is none here, and then another one.
    define(domain("old web", ""));
    listed("old web");
    let problem = lab.err("adopt-vm", json!({"vm": "old web"}), 400, "invalid");
    assert_eq!(problem["errors"][0]["field"], "name", "{problem}");
    let ours = lab.create("taken");
    lab.err("adopt-vm", json!({"vm": "old web", "name": ours.name.to_uppercase()}), 409, "already_exists");
    assert_eq!(lab.ok("adopt-vm", json!({"vm": "old web", "name": "web"}))["domain"], "old web");
    lab.ok("release-vm", json!({"vm": "web"}));
    // A disk in no pool, and one that is somebody's.
    let outside = lab.dir.path.join("outside.img");
    fs::copy(cached("tiny.qcow2", "template"), &outside).unwrap();
    define(domain("outside", &disk(outside.to_str().unwrap())));
    listed("outside");
    let problem = lab.err("adopt-vm", json!({"vm": "outside"}), 422, "unsupported");
    assert!(problem["hint"].as_str().unwrap().contains("pool-create-as"), "{problem}");
    define(domain("thief", &disk(ours.describe()["disks"][0]["path"].as_str().unwrap())));
    listed("thief");
    lab.err("adopt-vm", json!({"vm": "thief"}), 409, "in_use");
    // One that is gone when it is off.
    let file = lab.dir.path.join("transient.xml");
    fs::write(&file, domain("transient", "")).unwrap();
    lab.node.virsh(&["create", file.to_str().unwrap()]);
    listed("transient");
    lab.err("adopt-vm", json!({"vm": "transient"}), 409, "wrong_state");
    lab.node.virsh(&["destroy", "transient"]);
    let none: Value = json!({"vm": "nobody"});
    lab.err("adopt-vm", none.clone(), 404, "not_found");
    lab.err("release-vm", none, 404, "not_found");
    for name in ["old web", "outside", "thief"] {
        lab.node.virsh(&["undefine", name]);
    }
    eventually("the thief is gone", SOON, || {
        (lab.ok("list-vms", json!({"name": "thief"}))["total"] == 0).then_some(())
    });
    ours.delete();
}
