//! Nodes that are reached by ssh, the transport that most people use for a second host, and by TLS.

use crate::lab::{Directory, Lab, NodeProcess, Server, Socket, eventually};
use serde_json::{Value, json};
use std::{
    fs,
    path::Path,
    process::{Child, Command},
    time::Duration,
};

const PORT: u16 = 2222;

/// An ssh server in a node's namespaces, gone when it is dropped.
struct Sshd(Child);

impl Sshd {
    /// Starts one that lets the owner of this key in as root. Root's directory in there is a fresh one.
    fn start(node: &NodeProcess, key: &str) -> Sshd {
        let hostkey = node.dir.join("hostkey").display().to_string();
        if !node.dir.join("hostkey").exists() {
            let made = Command::new("dropbearkey").args(["-t", "ed25519", "-f", &hostkey]).output().unwrap();
            assert!(made.status.success(), "{made:?}");
        }
        let script = "mount -t tmpfs -o mode=700 none /root && mkdir -m 700 /root/.ssh && cp \"$0\" /root/.ssh/authorized_keys &&
                      chmod 600 /root/.ssh/authorized_keys && exec dropbear -F -E -s -p \"$1\" -r \"$2\" -P \"$3\"";
        // A PID namespace of its own: with it its connections go.
        let (pid, port) = (node.command("namespace-pid"), PORT.to_string());
        let child = Command::new("nsenter")
            .args([
                "-t",
                &pid,
                "-m",
                "-n",
                "--",
                "unshare",
                "-m",
                "--pid",
                "--fork",
                "--kill-child",
                "sh",
                "-c",
                script,
                &format!("{key}.pub"),
            ])
            .args([&port, &hostkey, &node.dir.join("sshd.pid").display().to_string()])
            .stderr(fs::File::create(node.dir.join("sshd.log")).unwrap())
            .spawn()
            .unwrap();
        let started =
            || fs::read_to_string(node.dir.join("sshd.log")).ok().filter(|log| log.contains("Not background"));
        eventually("the ssh server listens", Duration::from_secs(10), started);
        Sshd(child)
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_node_over_ssh() {
    let dir = Directory::new();
    let local = NodeProcess::start(&dir.path.join("node"));
    let far = NodeProcess::start_remote(&dir.path.join("far"));
    let key = dir.path.join("key").display().to_string();
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", &key]).status();
    assert!(made.unwrap().success());
    let mut sshd = Sshd::start(&far, &key);
    fs::write(dir.path.join("vmyard.toml"), local.config("")).unwrap();
    // ssh keeps its known hosts in root's directory: the server gets one of its own.
    let home = "mount -t tmpfs -o mode=700 none /root && exec \"$@\"";
    let through = ["unshare", "-m", "--propagation", "private", "sh", "-c", home, "sh"];
    let server = Server::start_within(&dir.path, &through, &[]);
    let ok = |method: &str, body: Value| {
        let answer = server.call(method, body);
        assert_eq!(answer.status, 200, "{method}: {answer:?}");
        answer.body
    };
    let address = far.uri().trim_start_matches("qemu+tcp://").trim_end_matches("/system").to_owned();
    let add = |parameters: &str| {
        let mut request = far.add_request("far");
        request["uri"] = json!(format!("qemu+ssh://root@{address}:{PORT}/system?{parameters}"));
        request
    };
    // A host whose key nobody has confirmed is not talked to, and nobody is asked.
    let answer = server.call("add-node", add(&format!("keyfile={key}")));
    assert_eq!((answer.status, &answer.body["code"]), (503, &json!("node_unavailable")), "{answer:?}");
    assert!(answer.body["detail"].as_str().unwrap().contains("key verification failed"), "{answer:?}");

    let node = ok("add-node", add(&format!("keyfile={key}&no_verify=1")));
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
    eventually("the node is down", Duration::from_secs(30), || {
        (ok("describe-node", json!({"node": "far"}))["state"] == "down").then_some(())
    });
    let answer = server.call("stop-vm", json!({"vm": "web", "force": true}));
    assert_eq!((answer.status, &answer.body["code"]), (503, &json!("node_unavailable")), "{answer:?}");
    sshd = Sshd::start(&far, &key);
    eventually("the node is up", Duration::from_secs(30), || {
        (ok("describe-node", json!({"node": "far"}))["state"] == "up").then_some(())
    });
    ok("stop-vm", json!({"vm": "web", "force": true}));
    ok("delete-vm", json!({"vm": "web"}));
    drop(sshd);
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
