//! A private libvirtd with namespaces of its own, which lives as long as this process does.

use serde_json::{Value, json};
use std::{
    fs,
    io::{BufRead, BufReader, Lines, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

/// A running `scripts/lab-node`.
pub struct NodeProcess {
    pub dir: PathBuf,
    uri: String,
    child: Child,
    control: Mutex<Option<(ChildStdin, Lines<BufReader<ChildStdout>>)>>,
}

impl NodeProcess {
    /// Starts one over this directory.
    pub fn start(dir: &Path) -> NodeProcess {
        let uri = format!("qemu+unix:///system?socket={}/run/libvirt-sock", dir.display());
        NodeProcess::spawn(dir, &[], uri)
    }

    /// Starts one that is reached by TCP, as a remote host is.
    pub fn start_remote(dir: &Path) -> NodeProcess {
        static COUNTER: AtomicU32 = AtomicU32::new(2);
        let address = format!(
            "10.{}.{}.{}",
            64 + std::process::id() / 250 % 60,
            std::process::id() % 250,
            COUNTER.fetch_add(1, Ordering::SeqCst)
        );
        NodeProcess::spawn(dir, &["--tcp", &address], format!("qemu+tcp://{address}/system"))
    }

    fn spawn(dir: &Path, args: &[&str], uri: String) -> NodeProcess {
        fs::create_dir_all(dir.join("pools")).unwrap();
        let mut child = lab_node()
            .arg(dir)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("scripts/lab-node");
        let stdin = child.stdin.take().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines.next().expect("lab-node says nothing").unwrap();
        assert!(first.starts_with("ready "), "lab-node: {first}");
        NodeProcess { dir: dir.to_owned(), uri, child, control: Mutex::new(Some((stdin, lines))) }
    }

    /// Its libvirt URI.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// A server's configuration with this node as `local`.
    pub fn config(&self, more: &str) -> String {
        let pools = self.dir.join("pools").display().to_string();
        format!(
            "[nodes.local]\nuri = \"{}\"\nvirt_type = \"qemu\"\ndefault_pool_path = \"{pools}/default\"\n\
             seed_pool_path = \"{pools}/seeds\"\n{more}\n",
            self.uri()
        )
    }

    /// What add-node needs to know of it.
    pub fn add_request(&self, name: &str) -> Value {
        let pools = self.dir.join("pools").display().to_string();
        json!({"name": name, "uri": self.uri(), "virt_type": "qemu", "default_pool_path": format!("{pools}/default"),
               "seed_pool_path": format!("{pools}/seeds")})
    }

    /// Drops every packet to and from the node, which was started by `start_remote`, or lets them through again.
    pub fn cut_off(&self, off: bool) {
        for chain in ["INPUT", "OUTPUT"] {
            let (done, text) = self.inside(&[], &["iptables", if off { "-I" } else { "-D" }, chain, "-j", "DROP"]);
            assert!(done, "{text}");
        }
    }

    /// `kill-libvirtd`, `start-libvirtd`, `pause-libvirtd`, `resume-libvirtd`, `namespace-pid`, …
    pub fn command(&self, command: &str) -> String {
        let mut control = self.control.lock().unwrap();
        let (stdin, lines) = control.as_mut().unwrap();
        writeln!(stdin, "{command}").unwrap();
        let answer = lines.next().unwrap().unwrap();
        assert!(answer.starts_with("ok"), "{command}: {answer}");
        answer.trim_start_matches("ok").trim().to_owned()
    }

    /// Runs virsh on the node; panics when it fails. Returns what it prints.
    pub fn virsh(&self, args: &[&str]) -> String {
        let output = Command::new("virsh").args(["-q", "-c", self.uri()]).args(args).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        assert!(output.status.success(), "virsh {args:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// Runs a command in the node's network namespace, with more environment. Returns whether it succeeded, and what it
    /// prints.
    pub fn inside(&self, env: &[(&str, &str)], args: &[&str]) -> (bool, String) {
        let pid = self.command("namespace-pid");
        let output = Command::new("nsenter")
            .args(["-t", &pid, "-n"])
            .args(args)
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).trim().to_owned())
    }
}

/// The script that makes a node; with `VMYARD_TEST_ROOT`, on the libvirt and QEMU of a root that `scripts/newer-libvirt/make` made,
/// while server and tests stay on the machine's: an older server has to manage newer nodes too.
fn lab_node() -> Command {
    let scripts = super::root().join("scripts");
    let Some(root) = std::env::var_os("VMYARD_TEST_ROOT") else { return Command::new(scripts.join("lab-node")) };
    let mut command = Command::new(scripts.join("newer-libvirt/run"));
    command.arg(root).arg(scripts.join("lab-node"));
    command
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        // The end of its input is the end of the node and of everything in it.
        self.control.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        let _ = self.child.wait();
    }
}
