//! Pools, networks and volumes: list-storage-pools, describe-storage-pool, list-networks, describe-network,
//! list-volumes, describe-volume.

use crate::lab::{Lab, SOON, eventually};
use serde_json::json;

#[test]
fn pools_and_networks() {
    let lab = Lab::shared();
    let pool = lab.ok("describe-storage-pool", json!({"pool": "default"}));
    assert_eq!((&pool["type"], &pool["active"], &pool["node"]), (&json!("dir"), &json!(true), &json!("local")));
    assert_eq!(pool["id"].as_str().unwrap(), lab.node.virsh(&["pool-uuid", "default"]));
    let mut again = lab.ok("describe-storage-pool", json!({"pool": pool["id"]}));
    // Others use it.
    for key in ["allocation_bytes", "available_bytes"] {
        again[key] = pool[key].clone();
    }
    assert_eq!(again, pool);
    let pools = lab.ok("list-storage-pools", json!({"node": "local"}));
    assert!(pools["storage_pools"].as_array().unwrap().iter().any(|pool| pool["name"] == "vmyard-seeds"));
    lab.err("describe-storage-pool", json!({"pool": "nix"}), 404, "not_found");

    let network = lab.ok("describe-network", json!({"network": "default"}));
    assert_eq!(
        (&network["forward"], &network["dhcp"], &network["active"]),
        (&json!("nat"), &json!(true), &json!(true))
    );
    assert_eq!(network["addresses"][0], "192.168.122.1/24");
    assert_eq!(network["id"].as_str().unwrap(), lab.node.virsh(&["net-uuid", "default"]));
    assert_eq!(lab.ok("list-networks", json!({}))["networks"][0], network);
    lab.err("describe-network", json!({"network": "nix"}), 404, "not_found");
}

#[test]
fn pools_and_networks_that_are_there_are_used_as_they_are() {
    let lab = Lab::own();
    // Made once, and for good: it would be gone with its first stop if it were only started.
    let info = eventually("the network is made", SOON, || {
        let info = lab.node.virsh(&["net-info", "default"]);
        info.contains("Autostart:      yes").then_some(info)
    });
    assert!(info.contains("Persistent:     yes"), "{info}");
    lab.node.virsh(&["net-destroy", "default"]);
    let request = json!({"name": "a", "template": "tiny", "vcpus": 1, "memory_mib": 64});
    let problem = lab.err("create-vm", request.clone(), 409, "wrong_state");
    assert!(problem["detail"].as_str().unwrap().contains("network default"), "{problem}");
    lab.node.virsh(&["net-start", "default"]);
    lab.node.virsh(&["pool-create-as", "other", "dir", "--target", lab.node.dir.join("pools").to_str().unwrap()]);
    let mut in_other = request.clone();
    in_other["pool"] = json!("other");
    let vm = lab.ok("create-vm", in_other);
    assert_eq!(vm["pool"], "other");
    lab.ok("delete-vm", json!({"vm": "a"}));
    lab.node.virsh(&["pool-destroy", "other"]);
    let mut gone = request;
    gone["pool"] = json!("other");
    lab.err("create-vm", gone, 404, "not_found");
}

#[test]
fn volumes() {
    let lab = Lab::shared();
    let vm = lab.create("voluminous");
    let disk = vm.describe()["disks"][0].clone();
    let volume = lab.ok("describe-volume", json!({"volume": disk["volume"]}));
    assert_eq!(
        (&volume["state"], &volume["vm"], &volume["device"]),
        (&json!("attached"), &json!(vm.name), &json!("vda"))
    );
    assert_eq!(
        (&volume["path"], &volume["format"], &volume["pool"]),
        (&disk["path"], &json!("qcow2"), &json!("default"))
    );
    let template = lab.ok("describe-template", json!({"template": "tiny"}));
    assert_eq!(volume["backing"], template["copies"][0]["path"]);
    assert_eq!(volume["size_bytes"], template["size_bytes"]);
    assert_eq!(lab.ok("describe-volume", json!({"volume": volume["name"]})), volume);

    // One that virsh made is listed too, without an id; templates are not.
    let foreign = lab.name("foreign.img");
    lab.node.virsh(&["vol-create-as", "default", &foreign, "1M"]);
    let listed = lab.ok("list-volumes", json!({"pool": "default", "state": "available"}));
    let rows = listed["volumes"].as_array().unwrap();
    let row = rows.iter().find(|row| row["name"] == foreign).unwrap();
    assert!(row["id"].is_null() && row["state"] == "available", "{row}");
    assert!(rows.iter().all(|row| row["path"] != template["copies"][0]["path"]));
    lab.node.virsh(&["vol-delete", &foreign, "--pool", "default"]);
    lab.err("describe-volume", json!({"volume": foreign}), 404, "not_found");
    lab.err("list-volumes", json!({"pool": "nix"}), 404, "not_found");
}
