//! Trouble for a server, and looks at what runs beside it: a small disk, a clock that is set, the QEMUs of a node.

use super::{Directory, NodeProcess, Server};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Runs a command in the mount namespace of a process. Returns whether it succeeded.
pub fn in_mounts_of(pid: &str, args: &[&str]) -> bool {
    Command::new("nsenter").args(["-t", pid, "-m", "--"]).args(args).output().unwrap().status.success()
}

/// Gives a node a pool `small` on a file system of so much (`16m`), which only the node sees. Returns its path.
pub fn small_pool(node: &NodeProcess, size: &str) -> String {
    let small = node.dir.join("pools/small");
    fs::create_dir(&small).unwrap();
    let (pid, path) = (node.command("pid libvirtd"), small.to_str().unwrap().to_owned());
    assert!(in_mounts_of(&pid, &["mount", "-t", "tmpfs", "-o", &format!("size={size}"), "none", &path]));
    node.virsh(&["pool-create-as", "small", "dir", "--target", &path]);
    path
}

/// The QEMUs, by their process ids, whose command lines have all these words.
pub fn qemus(words: &[&str]) -> Vec<String> {
    let is_one = |pid: &String| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        let program = line.split('\0').next().unwrap_or_default();
        program.contains("qemu-system") && words.iter().all(|word| line.contains(word))
    };
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes.filter_map(|entry| entry.file_name().into_string().ok()).filter(is_one).collect()
}

/// A clock for a server, by libfaketime. The monotonic clock is left alone, as it is when a real one is set.
pub struct Clock {
    file: PathBuf,
}

impl Clock {
    /// A clock that is right.
    pub fn new(dir: &Path) -> Clock {
        let clock = Clock { file: dir.join("clock") };
        clock.set("+0");
        clock
    }

    /// Sets it: `-3h`.
    pub fn set(&self, offset: &str) {
        fs::write(&self.file, offset).unwrap();
    }

    /// What a server gets so that it looks at this clock.
    pub fn env(&self) -> [(&str, &str); 4] {
        [
            ("LD_PRELOAD", "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"),
            // It is read at each look at the clock.
            ("FAKETIME_TIMESTAMP_FILE", self.file.to_str().unwrap()),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ]
    }
}

/// A server with a small file system of its own, gone with it.
pub struct Cramped {
    // Fields are dropped in this order: the server before its node, the directory last.
    pub server: Server,
    pub node: NodeProcess,
    pub dir: Directory,
    /// Where that file system is.
    pub path: String,
}

impl Cramped {
    /// With a file system of so much (`2m`), and a configuration made of the node's, in which `SMALL` stands for its path.
    pub fn start(size: &str, settings: impl Fn(&str) -> String) -> Cramped {
        let dir = Directory::new();
        let node = NodeProcess::start(&dir.path.join("node"));
        let small = dir.path.join("small");
        fs::create_dir(&small).unwrap();
        let path = small.to_str().unwrap().to_owned();
        fs::write(dir.path.join("vmyard.toml"), settings(&node.config("")).replace("SMALL", &path)).unwrap();
        let mount = format!("mount -t tmpfs -o size={size} none \"$0\" && exec \"$@\"");
        let through = ["unshare", "-m", "--propagation", "private", "sh", "-c", &mount, &path];
        let server = Server::start_within(&dir.path, &through, &[]);
        Cramped { server, node, dir, path }
    }

    /// Fills the file system.
    pub fn fill(&self) {
        in_mounts_of(
            &self.server.pid().to_string(),
            &["dd", "if=/dev/zero", &format!("of={}/fill", self.path), "bs=4k"],
        );
    }

    /// Gives it room again.
    pub fn free(&self) {
        assert!(in_mounts_of(&self.server.pid().to_string(), &["rm", &format!("{}/fill", self.path)]));
    }

    /// Calls a method; panics unless it answers 200.
    #[track_caller]
    pub fn ok(&self, method: &str, body: Value) -> Value {
        let answer = self.server.call(method, body);
        assert_eq!(answer.status, 200, "{method}: {answer:?}\n{}", self.server.log());
        answer.body
    }
}
