//! Nodes that are reached by ssh, the transport that most people use for a second host, and by TLS.

use crate::{
    credentials_offline::{self, finished},
    lab::{
        Directory, Lab, NodeProcess, SOON, Socket, TestVm, eventually,
        ssh::{Sshd, stranger},
    },
    snapshots::{agrees, chain},
};
use serde_json::{Value, json};
use std::{fs, path::Path, process::Command};

#[test]
fn a_node_over_ssh() {
    let dir = Directory::new();
    let local = NodeProcess::start(&dir.path.join("node"));
    let far = NodeProcess::start_remote(&dir.path.join("far"));
    let mut sshd = Sshd::start(&far);
    fs::write(dir.path.join("vmyard.toml"), local.config("")).unwrap();
    let server = stranger(&dir.path);
    let ok = |method: &str, body: Value| {
        let answer = server.call(method, body);
        assert_eq!(answer.status, 200, "{method}: {answer:?}");
        answer.body
    };
    let add = |uri: String| {
        let mut request = far.add_request("far");
        request["uri"] = json!(uri);
        request
    };
    // A host whose key nobody has confirmed is not talked to, and nobody is asked.
    let answer = server.call("add-node", add(sshd.uri("")));
    assert_eq!((answer.status, &answer.body["code"]), (503, &json!("node_unavailable")), "{answer:?}");
    assert!(answer.body["detail"].as_str().unwrap().contains("key verification failed"), "{answer:?}");

    let node = ok("add-node", add(sshd.uri("&no_verify=1")));
    assert_eq!(
        (&node["state"], &node["hostname"]),
        (&json!("up"), &ok("describe-node", json!({"node": "far"}))["hostname"])
    );
    ok("register-template", json!({"name": "tiny", "file": crate::lab::tiny(), "node": "local"}));
    let request =
        json!({"name": "web", "template": "tiny", "vcpus": 1, "memory_mib": 128, "node": "far", "start": true});
    assert_eq!(ok("create-vm", request)["node"], "far");
    assert_eq!(far.virsh(&["list", "--name"]).lines().count(), 1);
    assert_eq!(ok("describe-template", json!({"template": "tiny"}))["copies"].as_array().unwrap().len(), 2);

    // Its consoles come through ssh, too.
    let open =
        |method: &str| Socket::open(ok(method, json!({"vm": "web"}))["websocket_url"].as_str().unwrap()).unwrap();
    open("get-serial-console").expect("tiny: ready");
    let mut screen = open("get-vnc-console");
    assert_eq!(screen.greet_rfb(), [0; 4]);
    screen.send(&[1]);
    assert_eq!(u16::from_be_bytes(screen.take(24)[..2].try_into().unwrap()), 720);
    drop(screen);

    // The connection breaks and comes back.
    drop(sshd);
    eventually("the node is down", SOON, || {
        (ok("describe-node", json!({"node": "far"}))["state"] == "down").then_some(())
    });
    let answer = server.call("stop-vm", json!({"vm": "web", "force": true}));
    assert_eq!((answer.status, &answer.body["code"]), (503, &json!("node_unavailable")), "{answer:?}");
    sshd = Sshd::start(&far);
    eventually("the node is up", SOON, || (ok("describe-node", json!({"node": "far"}))["state"] == "up").then_some(()));
    ok("stop-vm", json!({"vm": "web", "force": true}));
    ok("delete-vm", json!({"vm": "web"}));
    drop(sshd);
}

/// What libvirt has no call for is done by programs, which run there.
#[test]
fn images_of_a_node_over_ssh() {
    images_without_a_domain(&Lab::over_ssh());
}

/// And where none can be run, by QEMU in a domain of our own.
#[test]
fn images_of_a_node_over_tcp() {
    images_without_a_domain(&Lab::remote());
}

fn images_without_a_domain(lab: &Lab) {
    let vm = lab.create("web");
    let disk = || lab.ok("describe-volume", json!({"volume": vm.describe()["disks"][0]["volume"]}));
    for name in ["a", "b"] {
        vm.ok("create-snapshot", json!({"name": name}));
    }
    assert_eq!(chain(&disk()).len(), 4);
    // Merged although it is off: first two frozen images, then one with the disk itself.
    let deleted = vm.ok("delete-snapshot", json!({"snapshot": "a"}));
    assert_eq!(deleted["pending"], Value::Null, "{deleted}");
    let below = chain(&disk());
    assert_eq!(below.len(), 3);
    let template = &lab.ok("describe-template", json!({"template": "tiny"}))["copies"][0]["path"];
    assert_eq!(template, below.last().unwrap());
    let from = json!({"name": "copy", "vm": vm.id, "snapshot": "b", "independent": true, "disk_gib": 1});
    let copy = lab.ok("create-vm-from-snapshot", from);
    let of_copy = lab.ok("describe-volume", json!({"volume": copy["disks"][0]["volume"]}));
    assert_eq!(chain(&of_copy)[1..], [template.as_str().unwrap()]);
    let made = lab.ok("register-template", json!({"name": "made", "vm": vm.id, "snapshot": "b"}));
    assert_eq!(chain(&made["copies"][0]).len(), 1);
    assert_eq!(vm.ok("delete-snapshot", json!({"snapshot": "b"}))["pending"], Value::Null);
    assert_eq!(chain(&disk()), [disk()["path"].as_str().unwrap(), template.as_str().unwrap()]);
    agrees(lab, &vm.name);
    let from_made = lab.create_with("made", json!({"template": "made"}));
    for vm in [vm, TestVm::new(lab, copy), from_made] {
        let vm = vm.start().ready();
        assert_eq!(vm.run("id -un"), "root");
        vm.delete();
    }
    lab.ok("delete-template", json!({"template": "made"}));
    crate::crash::nothing_is_left(lab, "images without a domain");
}

#[test]
fn a_password_in_an_image_of_a_node_over_ssh() {
    if !credentials_offline::is_installed() {
        return;
    }
    let lab = Lab::over_ssh();
    let vm = credentials_offline::bare(&lab);
    let task = finished(&vm, "reset-vm-password", json!({"user": "tiny", "password": "far '$6$' 1"}));
    let reset = &task["result"];
    assert_eq!((&reset["method"], &reset["verified"]), (&json!("virt-customize"), &json!(true)), "{task}");
    let vm = vm.start().ready();
    assert!(vm.serial_login("tiny", "far '$6$' 1"));
    lab.nowhere(&["far '$6$' 1"]);
}

/// A certificate authority, and certificates for a host at this address and for its client, as libvirt wants them:
/// <https://libvirt.org/kbase/tlscerts.html>.
fn certificates(dir: &Path, address: &str) {
    let openssl = |args: &[&str]| {
        let output = Command::new("openssl").args(args).current_dir(dir).output().unwrap();
        assert!(output.status.success(), "{args:?}: {output:?}");
    };
    let new = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    let ca = ["-x509", "-days", "2", "-subj", "/CN=test", "-keyout", "cakey.pem", "-out", "cacert.pem"];
    openssl(&[&new[..], &ca].concat());
    for (name, subject) in [("server", format!("/CN={address}")), ("client", "/CN=vmyard".to_owned())] {
        let (key, request, cert) = (format!("{name}key.pem"), format!("{name}.csr"), format!("{name}cert.pem"));
        openssl(&[&new[..], &["-subj", &subject, "-keyout", &key, "-out", &request]].concat());
        fs::write(dir.join("names"), format!("subjectAltName=IP:{address}\n")).unwrap();
        let signed = ["x509", "-req", "-days", "2", "-CA", "cacert.pem", "-CAkey", "cakey.pem", "-extfile", "names"];
        openssl(&[&signed[..], &["-in", &request, "-out", &cert]].concat());
    }
}

#[test]
fn a_node_over_tls() {
    let lab = Lab::own();
    let far = NodeProcess::start_remote(&lab.dir.path.join("far"));
    let address = far.uri().trim_start_matches("qemu+tcp://").trim_end_matches("/system").to_owned();
    let keys = far.dir.join("keys");
    fs::create_dir(&keys).unwrap();
    certificates(&keys, &address);
    let file = |name: &str| keys.join(name).display().to_string();
    let settings = far.dir.join("etc/libvirtd.conf");
    let listens = fs::read_to_string(&settings).unwrap().replace("listen_tls = 0", "listen_tls = 1");
    let (key, cert, ca) = (file("serverkey.pem"), file("servercert.pem"), file("cacert.pem"));
    fs::write(&settings, format!("{listens}key_file = \"{key}\"\ncert_file = \"{cert}\"\nca_file = \"{ca}\"\n"))
        .unwrap();
    far.command("kill-libvirtd");
    far.command("start-libvirtd");
    let add = |parameters: &str| {
        let mut request = far.add_request("far");
        request["uri"] = json!(format!("qemu+tls://{address}/system{parameters}"));
        request
    };
    // Without a certificate nobody gets in, and the node isn't trusted either.
    let problem = lab.err("add-node", add(""), 503, "node_unavailable");
    assert!(problem["detail"].as_str().unwrap().contains("certificate"), "{problem}");
    let node = lab.ok("add-node", add(&format!("?pkipath={}", keys.display())));
    assert_eq!(node["state"], "up");
    let request =
        json!({"name": "web", "template": "tiny", "vcpus": 1, "memory_mib": 128, "node": "far", "start": true});
    assert_eq!(lab.ok("create-vm", request)["state"], "running");
    lab.ok("stop-vm", json!({"vm": "web", "force": true}));
    lab.ok("delete-vm", json!({"vm": "web"}));
}
