//! The one harness: a private libvirtd (`scripts/lab-node`), a server on it, and VMs that clean up after themselves.
//!
//! A test of a VM reads like this:
//!
//! ```ignore
//! let lab = Lab::shared();
//! let vm = lab.create("life").start().ready();
//! assert_eq!(vm.run("nproc"), "1");
//! ```

pub mod browser;
pub mod fleet;
// The bench has no use for it.
#[allow(dead_code)]
pub mod follower;
pub mod login;
mod node;
pub mod server;
// The bench has no use for it.
#[allow(dead_code)]
pub mod shown;
mod socket;
// The bench has no use for it.
#[allow(dead_code)]
pub mod ssh;
// The bench has no use for it.
#[allow(dead_code)]
pub mod trouble;
pub mod vm;

pub use node::NodeProcess;
pub use server::{Answer, Server, http_client};
// The bench has no use for it.
#[allow(unused_imports)]
pub use socket::Socket;
pub use vm::TestVm;

use serde_json::{Value, json};
use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

/// A node, a server on it, and the tiny template registered as `tiny`.
pub struct Lab {
    // Fields are dropped in this order: the server before its node, the directory last.
    pub server: Server,
    _sshd: Option<ssh::Sshd>,
    pub node: NodeProcess,
    pub dir: Directory,
    counter: AtomicU32,
}

static SHARED: Mutex<Weak<Lab>> = Mutex::new(Weak::new());

impl Lab {
    /// The lab that tests share which disturb nobody. It goes when the last of them has ended.
    pub fn shared() -> Arc<Lab> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lab) = shared.upgrade() {
            return lab;
        }
        let lab = Arc::new(Lab::own());
        *shared = Arc::downgrade(&lab);
        lab
    }

    /// A lab of its own, for a test that kills the server or libvirtd.
    pub fn own() -> Lab {
        Lab::with_settings("")
    }

    /// A lab whose node is reached by TCP: the server sees nothing of it but what libvirt shows.
    pub fn remote() -> Lab {
        Lab::over("", NodeProcess::start_remote)
    }

    /// A lab of its own with more lines in the node's part of the configuration.
    pub fn with_settings(settings: &str) -> Lab {
        // The same tests on a node that is remote: VMYARD_TEST_REMOTE=1 cargo test -p cli --test it life
        let remote = std::env::var_os("VMYARD_TEST_REMOTE").is_some();
        Lab::over(settings, if remote { NodeProcess::start_remote } else { NodeProcess::start })
    }

    /// A lab whose node is reached by ssh.
    #[allow(dead_code)]
    pub fn over_ssh() -> Lab {
        let dir = Directory::new();
        let node = NodeProcess::start_remote(&dir.path.join("node"));
        let sshd = ssh::Sshd::start(&node);
        let config = node.config("").replace(node.uri(), &sshd.uri("&no_verify=1"));
        fs::write(dir.path.join("vmyard.toml"), config).unwrap();
        let server = ssh::stranger(&dir.path);
        Lab::of(dir, node, Some(sshd), server)
    }

    fn over(settings: &str, start: fn(&Path) -> NodeProcess) -> Lab {
        let dir = Directory::new();
        let node = start(&dir.path.join("node"));
        fs::write(dir.path.join("vmyard.toml"), node.config(settings)).unwrap();
        let server = Server::start(&dir.path, &[]);
        Lab::of(dir, node, None, server)
    }

    fn of(dir: Directory, node: NodeProcess, sshd: Option<ssh::Sshd>, server: Server) -> Lab {
        let lab = Lab { server, _sshd: sshd, node, dir, counter: AtomicU32::new(0) };
        lab.ok(
            "register-template",
            json!({"name": "tiny", "file": tiny(), "default_user": "tiny", "guest_agent": true}),
        );
        lab
    }

    /// Calls a method; panics unless it answers 200.
    #[track_caller]
    pub fn ok(&self, method: &str, body: Value) -> Value {
        match self.server.call(method, body.clone()) {
            Answer { status: 200, body, .. } => body,
            answer => panic!("{method} {body}: {answer:?}"),
        }
    }

    /// Calls a method; panics unless it fails with this status and code. Returns the problem.
    #[track_caller]
    pub fn err(&self, method: &str, body: Value, status: u16, code: &str) -> Value {
        let answer = self.server.call(method, body.clone());
        assert_eq!((answer.status, answer.body["code"].as_str()), (status, Some(code)), "{method} {body}: {answer:?}");
        assert_eq!(answer.kind, "application/problem+json");
        answer.body
    }

    /// Fails if one of these texts is in a file that the server or the node has written: logs, database, seeds, libvirt's own.
    #[track_caller]
    pub fn nowhere(&self, texts: &[&str]) {
        // What a guest has on its disk is its own.
        let names = is_nowhere(&self.dir.path, texts, |path| path.ends_with("pools/default"));
        assert!(names.len() > 5, "{names:?}");
    }

    /// Waits until a node is up.
    #[track_caller]
    pub fn wait_for_node(&self, name: &str) {
        eventually("the node is up", SOON, || {
            (self.ok("describe-node", json!({"node": name}))["state"] == "up").then_some(())
        });
    }

    /// Waits until no task is at work or on its way back.
    #[track_caller]
    pub fn wait_for_tasks(&self) {
        eventually("nothing is at work", Duration::from_secs(100), || {
            let open = |state| self.ok("list-tasks", json!({"state": state}))["total"] != 0;
            (!open("running") && !open("unwinding")).then_some(())
        });
    }

    /// A VM of the tiny template with 1 CPU and 128 MiB, off.
    pub fn create(&self, name: &str) -> TestVm<'_> {
        self.create_with(name, json!({}))
    }

    /// The same, with more fields in the request.
    pub fn create_with(&self, name: &str, more: Value) -> TestVm<'_> {
        let name = self.name(name);
        TestVm::new(self, self.ok("create-vm", request(&name, more)))
    }

    /// A name that no other test has.
    pub fn name(&self, name: &str) -> String {
        format!("{name}-{}", self.counter.fetch_add(1, Ordering::SeqCst))
    }

    /// Files in the pool `default` but for the template's, and in the pool of the seeds but for the manifest's.
    pub fn files(&self) -> Vec<String> {
        let template =
            self.ok("describe-template", json!({"template": "tiny"}))["copies"][0]["path"].as_str().unwrap().to_owned();
        let mut files: Vec<String> = ["default", "seeds"]
            .iter()
            .filter_map(|pool| fs::read_dir(self.node.dir.join("pools").join(pool)).ok())
            .flat_map(|entries| entries.map(|entry| entry.unwrap().path().display().to_string()))
            .filter(|path| *path != template && !path.ends_with(".manifest"))
            .collect();
        files.sort();
        files
    }
}

/// A request for a VM of the tiny template with 1 CPU and 128 MiB, with more fields.
pub fn request(name: &str, more: Value) -> Value {
    let mut request = json!({"name": name, "template": "tiny", "vcpus": 1, "memory_mib": 128});
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    request
}

/// The deadline of what comes by itself and soon, however busy the machine is. Where the time itself is tested, a test says its own.
pub const SOON: Duration = Duration::from_secs(100);

/// Waits for a condition. Panics after the deadline, with what was waited for.
#[track_caller]
pub fn eventually<T>(what: &str, deadline: Duration, mut check: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + deadline;
    loop {
        if let Some(value) = check() {
            return value;
        }
        assert!(Instant::now() < end, "not within {deadline:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Asserts that something usually takes no longer than `limit`: it is done five times, of which one or two may have waited for the
/// machine, though none for long.
#[track_caller]
pub fn takes(what: &str, limit: Duration, mut action: impl FnMut()) {
    let mut times = [(); 5].map(|()| {
        let begun = Instant::now();
        action();
        begun.elapsed()
    });
    times.sort_unstable();
    assert!(times[2] < limit && times[4] < limit * 10, "{what}: {times:?}");
}

/// The tiny template, which `make test` makes.
pub fn tiny() -> PathBuf {
    cached("tiny.qcow2", "template")
}

/// What a target of the Makefile has made.
pub fn cached(name: &str, target: &str) -> PathBuf {
    let cache = std::env::var_os("VMYARD_CACHE").map_or_else(|| PathBuf::from("/var/cache/vmyard"), PathBuf::from);
    let path = cache.join(name);
    assert!(path.exists(), "{} is missing: make {target}", path.display());
    path
}

/// Fails if one of these texts is in a file below a directory, but for what `skip` says of. Returns the names of the files.
#[track_caller]
pub fn is_nowhere(dir: &Path, texts: &[&str], skip: impl Fn(&Path) -> bool) -> Vec<String> {
    let mut folders = vec![dir.to_owned()];
    let mut names = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let (path, kind) = (entry.path(), entry.file_type().unwrap());
            if skip(&path) {
                continue;
            }
            if kind.is_dir() {
                folders.push(path);
                continue;
            }
            // One may have gone since.
            let Some(bytes) = kind.is_file().then(|| fs::read(&path).ok()).flatten() else { continue };
            for text in texts {
                let found = bytes.windows(text.len()).any(|window| window == text.as_bytes());
                assert!(!found, "{text} is in {}", path.display());
            }
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names
}

/// Makes a raw image of so many bytes, none of them zero: holes would be copied in no time.
pub fn large_image(path: &Path, bytes: u64) {
    let mut file = fs::File::create(path).unwrap();
    std::io::copy(&mut std::io::repeat(b'x').take(bytes), &mut file).unwrap();
}

/// The project's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A directory that goes with this.
pub struct Directory {
    pub path: PathBuf,
}

impl Directory {
    pub fn new() -> Directory {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        remove_stale();
        let path = PathBuf::from(format!(
            "/tmp/vmyard-test-{}-{}",
            std::process::id(),
            COUNTER.fetch_add(1, Ordering::SeqCst)
        ));
        fs::create_dir(&path).unwrap();
        Directory { path }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if std::env::var_os("VMYARD_TEST_KEEP").is_none() {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Removes what test processes that were killed have left.
fn remove_stale() {
    for entry in fs::read_dir("/tmp").unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix("vmyard-test-").and_then(|rest| rest.split('-').next());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
