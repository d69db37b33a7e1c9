//! A VM of a test's, gone when it is dropped.

use super::{Answer, Lab, eventually};
use serde_json::{Value, json};
use std::{
    fs,
    time::{Duration, Instant},
};

/// How long a tiny guest may take to boot on a loaded machine.
const BOOT: Duration = Duration::from_secs(120);

/// A VM.
pub struct TestVm<'a> {
    pub lab: &'a Lab,
    pub id: String,
    pub name: String,
    pub created: Value,
}

impl<'a> TestVm<'a> {
    pub fn new(lab: &'a Lab, created: Value) -> TestVm<'a> {
        let text = |key: &str| created[key].as_str().unwrap().to_owned();
        TestVm { lab, id: text("id"), name: text("name"), created }
    }

    /// Calls a method about it; panics unless it answers 200.
    #[track_caller]
    pub fn ok(&self, method: &str, more: Value) -> Value {
        self.lab.ok(method, self.body(more))
    }

    /// Calls a method about it; panics unless it fails with this status and code.
    #[track_caller]
    pub fn err(&self, method: &str, more: Value, status: u16, code: &str) -> Value {
        self.lab.err(method, self.body(more), status, code)
    }

    fn body(&self, mut more: Value) -> Value {
        more["vm"] = json!(self.name);
        more
    }

    #[track_caller]
    pub fn start(self) -> TestVm<'a> {
        assert_eq!(self.ok("start-vm", json!({}))["state"], "running");
        self
    }

    /// Makes its disk one that can't be booted: once started, it stays in its firmware, which hears neither the power button nor
    /// what is unplugged.
    #[track_caller]
    pub fn deaf(self) -> TestVm<'a> {
        let disk = self.lab.ok("describe-volume", json!({"volume": self.describe()["disks"][0]["volume"]}));
        qemu_io(&disk, &[], "write -P 0 0 1M");
        self
    }

    /// The process id of its QEMU.
    #[track_caller]
    pub fn qemu(&self) -> String {
        super::trouble::qemus(&[&self.id]).pop().expect("its QEMU")
    }

    /// Waits until the guest says that it is ready.
    #[track_caller]
    pub fn ready(self) -> TestVm<'a> {
        let deadline = Instant::now() + BOOT;
        while !self.serial_log().contains("tiny: ready") {
            assert!(Instant::now() < deadline, "{} is not ready within {BOOT:?}:\n{}", self.name, self.serial_log());
            std::thread::sleep(Duration::from_millis(50));
        }
        self
    }

    pub fn state(&self) -> String {
        self.describe()["state"].as_str().unwrap().to_owned()
    }

    #[track_caller]
    pub fn describe(&self) -> Value {
        self.ok("describe-vm", json!({}))
    }

    /// What the guest has said on its serial line.
    pub fn serial_log(&self) -> String {
        let path = self.lab.node.dir.join(format!("pools/seeds/{}.serial.log", self.id));
        fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Waits for the guest's IPv4 address.
    #[track_caller]
    pub fn address(&self) -> String {
        eventually("the guest has an address", BOOT, || {
            let vm = self.describe();
            let addresses = vm["networks"][0]["addresses"].as_array()?;
            let ipv4 = addresses
                .iter()
                .filter_map(|address| address["address"].as_str())
                .find(|address| address.contains('.'));
            ipv4.map(str::to_owned)
        })
    }

    /// Runs a shell line in the guest through its agent; panics when it fails. Returns what it prints.
    #[track_caller]
    pub fn run(&self, line: &str) -> String {
        let pid = self.begin(line);
        let status = json!({"execute": "guest-exec-status", "arguments": {"pid": pid}});
        let done = eventually("the command ends", BOOT, || {
            self.agent(&status).filter(|reply| reply["return"]["exited"] == true)
        });
        let output = |key: &str| {
            let encoded = done["return"][key].as_str().unwrap_or_default();
            String::from_utf8_lossy(&base64::Engine::decode(&base64::prelude::BASE64_STANDARD, encoded).unwrap())
                .trim()
                .to_owned()
        };
        assert_eq!(done["return"]["exitcode"], 0, "{line}: {}{}", output("out-data"), output("err-data"));
        output("out-data")
    }

    /// Begins a line in the guest, for one after which the guest can't say how it went. Returns its process's id.
    pub fn begin(&self, line: &str) -> Value {
        let exec = json!({"execute": "guest-exec", "arguments": {"path": "/bin/sh", "arg": ["-c", line], "capture-output": true}});
        eventually("the agent answers", BOOT, || self.agent(&exec))["return"]["pid"].clone()
    }

    /// What the guest agent answers, if it does.
    fn agent(&self, command: &Value) -> Option<Value> {
        let domain = self.created["domain"].as_str().unwrap();
        let output = std::process::Command::new("virsh")
            .args(["-q", "-c", self.lab.node.uri(), "qemu-agent-command", domain, &command.to_string()])
            .output()
            .unwrap();
        serde_json::from_slice(&output.stdout).ok()
    }

    /// Runs a line in the guest through ssh, from its network's host, as soon as somebody listens there. Returns whether it went
    /// well, and what was printed.
    pub fn ssh(&self, user: &str, env: &[(&str, &str)], options: &[&str], line: &str) -> (bool, String) {
        let target = format!("{user}@{}", self.address());
        let common =
            ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "ConnectTimeout=30"];
        let common = common.iter().flat_map(|option| ["-o", option]).collect::<Vec<_>>();
        eventually("sshd listens", BOOT, || {
            let ran = self.lab.node.inside(env, &[&["ssh"][..], &common, options, &[&target, line]].concat());
            (!ran.1.contains("Connection refused")).then_some(ran)
        })
    }

    /// Forces it off and deletes it.
    #[track_caller]
    pub fn delete(self) {
        if self.state() != "shutoff" {
            self.ok("stop-vm", json!({"force": true}));
        }
        self.ok("delete-vm", json!({}));
        std::mem::forget(self);
    }
}

/// Does something with a volume's image. Returns what is said.
pub fn qemu_io(volume: &Value, how: &[&str], line: &str) -> String {
    let (format, path) = (volume["format"].as_str().unwrap(), volume["path"].as_str().unwrap());
    let output =
        std::process::Command::new("qemu-io").args(how).args(["-f", format, "-c", line, path]).output().unwrap();
    assert!(output.status.success(), "{path}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

impl Drop for TestVm<'_> {
    fn drop(&mut self) {
        // As far as it goes: the test may have broken or deleted it.
        let _: Answer = self.lab.server.call("stop-vm", json!({"vm": self.id, "force": true}));
        let _: Answer = self.lab.server.call("delete-vm", json!({"vm": self.id}));
    }
}
