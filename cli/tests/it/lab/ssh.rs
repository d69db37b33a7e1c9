//! An ssh server in a node's namespaces.

use super::{NodeProcess, Server, eventually};
use std::{
    fs,
    path::Path,
    process::{Child, Command},
};

const PORT: u16 = 2222;

/// An ssh server in the namespaces of a node that was started by `start_remote`; gone when it is dropped.
pub struct Sshd {
    child: Child,
    address: String,
    key: String,
}

impl Sshd {
    /// Starts one that lets the owner of a new key in as root. Root's directory in there is a fresh one.
    pub fn start(node: &NodeProcess) -> Sshd {
        let in_dir = |name: &str| node.dir.join(name).display().to_string();
        let (key, hostkey) = (in_dir("key"), in_dir("hostkey"));
        if !Path::new(&key).exists() {
            let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", &key]).status();
            assert!(made.unwrap().success());
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
                "--pid",
                "--fork",
                "--kill-child",
                "--mount-proc",
                "sh",
                "-c",
                script,
            ])
            .args([&format!("{key}.pub"), &port, &hostkey, &in_dir("sshd.pid")])
            .stderr(fs::File::create(node.dir.join("sshd.log")).unwrap())
            .spawn()
            .unwrap();
        let started =
            || fs::read_to_string(node.dir.join("sshd.log")).ok().filter(|log| log.contains("Not background"));
        eventually("the ssh server listens", super::SOON, started);
        let address = node.uri().trim_start_matches("qemu+tcp://").trim_end_matches("/system").to_owned();
        Sshd { child, address, key }
    }

    /// The node's libvirt URI, with further parameters.
    pub fn uri(&self, parameters: &str) -> String {
        format!("qemu+ssh://root@{}:{PORT}/system?keyfile={}{parameters}", self.address, self.key)
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a server for which every host is a stranger, and stays one.
pub fn stranger(dir: &Path) -> Server {
    let settings = dir.join("ssh_config");
    fs::write(&settings, "UserKnownHostsFile /dev/null\nGlobalKnownHostsFile /dev/null\n").unwrap();
    let script = "mount --bind \"$0\" /etc/ssh/ssh_config && exec \"$@\"";
    let through = ["unshare", "-m", "--propagation", "private", "sh", "-c", script, settings.to_str().unwrap()];
    Server::start_within(dir, &through, &[])
}
