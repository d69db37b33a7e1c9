//! At the end: what the store, libvirt and the pools have, side by side.

use super::{
    Stage,
    model::{Op, Says, State},
};
use crate::lab::{Lab, eventually, trouble};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// How long the last tasks, deletions and unwindings may take.
const END: Duration = Duration::from_secs(120);

/// Everything that is there is listed, everything that is listed is there, in the state that the model expects.
pub fn all_agree(stage: &Stage) {
    let lab = &*stage.lab();
    nothing_is_at_work(lab);
    let vms = lab.ok("list-vms", json!({"limit": 1000}))["vms"].as_array().unwrap().clone();
    domains_agree(lab, &vms);
    definitions_agree(lab, &vms);
    files_agree(lab, &vms);
    volumes_agree(lab, &vms);
    addresses_agree(lab, &vms);
    counts_agree(lab, &vms);
    for name in stage.vms.keys() {
        let row = vms.iter().find(|vm| vm["name"] == **name);
        let state = row.map_or(State::Absent, |row| State::of(row["state"].as_str().unwrap()).unwrap());
        let call = stage.vm(name).begin(Op::Look, "the end".to_owned());
        let fits = stage.vm(name).end(call, Says::Seen(state), None, "the end");
        fits.unwrap_or_else(|error| panic!("{error}"));
    }
}

/// After all are deleted there is nothing at all.
pub fn nothing_is_left(stage: &Stage) {
    let lab = &*stage.lab();
    for vm in lab.ok("list-vms", json!({"limit": 1000}))["vms"].as_array().unwrap() {
        if vm["state"] != "shutoff" {
            lab.ok("stop-vm", json!({"vm": vm["id"], "force": true}));
        }
        lab.ok("delete-vm", json!({"vm": vm["id"]}));
    }
    lab.ok("delete-template", json!({"template": "blank"}));
    crate::crash::nothing_is_left(lab, "all of it");
    let told = lab.ok("list-events", json!({"kinds": ["vm-changed"]}));
    assert_eq!(told["total"], 0, "nobody else has changed anything: {told}");
    lab.node.virsh(&["pool-refresh", "default"]);
    assert_eq!(lab.node.virsh(&["vol-list", "default"]).lines().count(), 1, "only the template's image");
    assert_eq!(reserved(lab), BTreeSet::new());
    eventually("no QEMU is left", END, || qemus(lab).is_empty().then_some(()));
}

fn nothing_is_at_work(lab: &Lab) {
    let total = |state: &str| lab.ok("list-tasks", json!({"state": state}))["total"].as_u64().unwrap();
    eventually("no task is at work, and no deletion", END, || {
        let vms = lab.ok("list-vms", json!({"limit": 1000}));
        let known = |vm: &Value| State::of(vm["state"].as_str().unwrap()).is_some() && vm["stale"] == false;
        let settled = vms["vms"].as_array().unwrap().iter().all(known);
        (settled && total("running") == 0 && total("unwinding") == 0).then_some(())
    });
}

fn texts(vms: &[Value], key: &str) -> BTreeSet<String> {
    vms.iter().map(|vm| vm[key].as_str().unwrap().to_owned()).collect()
}

/// virsh lists the same domains, in the same states; each that is on has a QEMU, and there is no other.
fn domains_agree(lab: &Lab, vms: &[Value]) {
    let of_virsh = |lab: &Lab| -> BTreeMap<String, String> {
        let ids = lab.node.virsh(&["list", "--all", "--uuid"]);
        let state = |id: &str| lab.node.virsh(&["domstate", id]).replace("shut off", "shutoff");
        ids.split_whitespace().map(|id| (id.to_owned(), state(id))).collect()
    };
    let text = |vm: &Value, key: &str| vm[key].as_str().unwrap().to_owned();
    let listed: BTreeMap<String, String> = vms.iter().map(|vm| (text(vm, "id"), text(vm, "state"))).collect();
    assert_eq!(listed, of_virsh(lab), "list-vms and virsh list");
    let on = vms.iter().filter(|vm| vm["state"] != "shutoff").count();
    assert_eq!(qemus(lab).len(), on, "{:?}", qemus(lab));
}

/// Each definition has the VM's name, description and tags, and the virtual CPUs that it has or that wait for its next boot.
fn definitions_agree(lab: &Lab, vms: &[Value]) {
    for vm in vms {
        let domain = vm["domain"].as_str().unwrap();
        let xml = lab.node.virsh(&["dumpxml", "--inactive", domain]);
        let vcpus = if vm["pending"]["vcpus"].is_null() { &vm["vcpus"] } else { &vm["pending"]["vcpus"] };
        let (current, all) = (format!(" current='{vcpus}'>"), format!("<vcpu placement='static'>{vcpus}<"));
        assert!(xml.contains(&current) || xml.contains(&all), "{vm}: {xml}");
        let mut said = vec![format!("<title>{}</title>", vm["name"].as_str().unwrap())];
        said.extend(vm["tags"].as_object().unwrap().iter().map(|(key, value)| format!("key=\"{key}\" value={value}")));
        let description = vm["description"].as_str().unwrap();
        said.extend((!description.is_empty()).then(|| format!("description>{description}</")));
        for text in said {
            assert!(xml.contains(&text), "{vm}: {text} is not in {xml}");
        }
    }
}

/// Each file in the pools is a listed VM's, and each VM has its disk and its seed.
fn files_agree(lab: &Lab, vms: &[Value]) {
    let disks: BTreeMap<String, &Value> =
        vms.iter().map(|vm| (vm["disks"][0]["path"].as_str().unwrap().to_owned(), vm)).collect();
    let image = lab.ok("describe-template", json!({"template": "blank"}))["copies"][0]["path"].clone();
    let files: BTreeSet<String> = lab.files().into_iter().filter(|path| image != **path).collect();
    for path in &files {
        let name = path.rsplit('/').next().unwrap();
        let of = |vm: &&Value| name.starts_with(vm["id"].as_str().unwrap());
        let uefi = |vm: &Value| vm["firmware"] == "uefi";
        let known = match vms.iter().find(of) {
            Some(vm) => {
                name.ends_with(".iso") || name.ends_with(".serial.log") || name.ends_with(".nvram.fd") && uefi(vm)
            }
            None => disks.contains_key(path),
        };
        assert!(known, "{path} is nobody's; of {vms:?}");
    }
    for (disk, vm) in &disks {
        assert!(files.contains(disk), "{vm} has no disk");
        let seed = format!("/{}.iso", vm["id"].as_str().unwrap());
        assert!(files.iter().any(|path| path.ends_with(&seed)), "{vm} has no seed");
    }
    let (listed, there) = (pool_files(lab), files.iter().filter(|path| path.contains("/default/")).count());
    assert_eq!(listed.len(), there + 2, "libvirt's list {listed:?} and the directory, the templates' images aside");
}

fn pool_files(lab: &Lab) -> Vec<String> {
    lab.node.virsh(&["pool-refresh", "default"]);
    lab.node
        .virsh(&["vol-list", "default"])
        .lines()
        .map(|line| line.split_whitespace().next().unwrap().to_owned())
        .collect()
}

/// Each VM has one system disk in list-volumes, and each volume there has a VM.
fn volumes_agree(lab: &Lab, vms: &[Value]) {
    let volumes = lab.ok("list-volumes", json!({"limit": 1000}))["volumes"].as_array().unwrap().clone();
    assert!(volumes.iter().all(|volume| volume["state"] == "attached" && volume["vm"].is_string()), "{volumes:?}");
    // UEFI's variables have no id.
    let volumes: Vec<Value> = volumes.into_iter().filter(|volume| volume["id"].is_string()).collect();
    assert_eq!(volumes.len(), vms.len(), "{volumes:?}");
    assert_eq!(texts(&volumes, "vm"), texts(vms, "name"));
    let paths: BTreeSet<String> = vms.iter().map(|vm| vm["disks"][0]["path"].as_str().unwrap().to_owned()).collect();
    assert_eq!(texts(&volumes, "path"), paths);
}

/// The network keeps the addresses of the listed VMs, and no other.
fn addresses_agree(lab: &Lab, vms: &[Value]) {
    let nics = vms.iter().flat_map(|vm| vm["networks"].as_array().unwrap());
    let listed: BTreeSet<String> =
        nics.filter_map(|nic| Some(format!("{} {}", nic["mac"].as_str()?, nic["ip"].as_str()?))).collect();
    assert_eq!(reserved(lab), listed);
}

/// The addresses that the network reserves, in its definition and now.
fn reserved(lab: &Lab) -> BTreeSet<String> {
    let of = |part: &[&str]| -> BTreeSet<String> {
        let xml = lab.node.virsh(part);
        let hosts = xml.lines().filter(|line| line.trim_start().starts_with("<host "));
        let value = |line: &str, key: &str| {
            line.split(&format!("{key}='"))
                .nth(1)
                .and_then(|rest| rest.split('\'').next())
                .unwrap_or_default()
                .to_owned()
        };
        hosts.map(|line| format!("{} {}", value(line, "mac"), value(line, "ip"))).collect()
    };
    let (live, defined) = (of(&["net-dumpxml", "default"]), of(&["net-dumpxml", "--inactive", "default"]));
    assert_eq!(live, defined);
    live
}

/// The templates' users and the node's room are those of the listed VMs.
fn counts_agree(lab: &Lab, vms: &[Value]) {
    for template in ["blank", "tiny"] {
        let users = vms.iter().filter(|vm| vm["template"] == template).count();
        assert_eq!(lab.ok("describe-template", json!({"template": template}))["vms"], users, "{template}");
    }
    let on: Vec<&Value> = vms.iter().filter(|vm| vm["state"] != "shutoff").collect();
    let vcpus: u64 = on.iter().map(|vm| vm["vcpus"].as_u64().unwrap()).sum();
    let node = lab.ok("describe-node", json!({"node": "local"}));
    assert_eq!((&node["used_vcpus"], &node["used_memory_mib"]), (&json!(vcpus), &json!(on.len() * 64)), "{node}");
}

/// The QEMUs on the lab's node, by their process ids.
fn qemus(lab: &Lab) -> Vec<String> {
    trouble::qemus(&[&lab.node.dir.display().to_string()])
}
