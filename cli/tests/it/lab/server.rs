//! A `vmyard serve` of the test's.

use serde_json::{Value, json};
use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// The binary under test.
pub const VMYARD: &str = env!("CARGO_BIN_EXE_vmyard");

/// How long a new server's nodes are waited for: some never answer.
const NODES: Duration = Duration::from_secs(10);

/// A running server; its directory has `vmyard.toml` and gets `data/` and `server.log`.
pub struct Server {
    dir: PathBuf,
    child: Child,
    pub url: String,
    pub token: String,
    http: reqwest::blocking::Client,
}

/// What a call answered. Status 0: the connection broke before there was an answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub kind: String,
    pub body: Value,
}

impl Server {
    /// Starts one, on a port that the system chooses, with more environment.
    pub fn start(dir: &Path, env: &[(&str, &str)]) -> Server {
        Server::start_within(dir, &[], env)
    }

    /// The same, through a program that becomes it: with other mounts, another clock.
    pub fn start_within(dir: &Path, through: &[&str], env: &[(&str, &str)]) -> Server {
        Server::start_at("127.0.0.1:0", dir, through, env)
    }

    fn start_at(address: &str, dir: &Path, through: &[&str], env: &[(&str, &str)]) -> Server {
        let log = fs::File::options().create(true).append(true).open(dir.join("server.log")).unwrap();
        let line = [through, &[VMYARD]].concat();
        let mut child = Command::new(line[0])
            .args(&line[1..])
            .args(["serve", "--listen", address, "--stop-at-eof"])
            .arg("--config")
            .arg(dir.join("vmyard.toml"))
            .arg("--data-dir")
            .arg(dir.join("data"))
            .envs(env.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.split_whitespace().find(|word| word.starts_with("http://"));
        let url = url
            .unwrap_or_else(|| panic!("vmyard serve said {line:?}; see {}", dir.join("server.log").display()))
            .to_owned();
        let token = fs::read_to_string(dir.join("data/admin.token")).unwrap().trim().to_owned();
        let http = http_client(Duration::from_secs(310));
        let server = Server { dir: dir.to_owned(), child, url, token, http };
        super::eventually("the server is ready", super::SOON, || (server.get("/readyz").status == 200).then_some(()));
        // It doesn't wait long for a node that takes its time, as each does on a busy machine.
        let begun = Instant::now();
        while !server.knows_its_nodes() && begun.elapsed() < NODES {
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    /// Whether each node was looked at, or is known to be away.
    fn knows_its_nodes(&self) -> bool {
        let nodes = self.call("list-nodes", json!({})).body["nodes"].take();
        let is_known = |node: &Value| match node["state"].as_str() {
            Some("up") => node["observed_at"].is_string(),
            state => state == Some("down"),
        };
        nodes.as_array().is_none_or(|nodes| nodes.iter().all(is_known))
    }

    /// Calls a method as the administrator.
    pub fn call(&self, method: &str, body: Value) -> Answer {
        self.post(method, Some(&self.token), "application/json", body.to_string())
    }

    /// Posts anything.
    pub fn post(
        &self,
        method: &str,
        token: Option<&str>,
        kind: &str,
        body: impl Into<reqwest::blocking::Body>,
    ) -> Answer {
        let mut request = self.http.post(format!("{}/api/{method}", self.url)).header("content-type", kind).body(body);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        answer(request.send())
    }

    pub fn get(&self, path: &str) -> Answer {
        answer(self.http.get(format!("{}{path}", self.url)).send())
    }

    /// Kills it as `kill -9` does, and starts it again with other environment.
    pub fn kill_and_restart(&mut self, env: &[(&str, &str)]) {
        self.kill();
        *self = Server::start(&self.dir.clone(), env);
    }

    /// Kills it, and starts it again at the address that it had.
    #[allow(dead_code)]
    pub fn kill_and_restart_there(&mut self) {
        self.kill();
        let address = self.url.trim_start_matches("http://").to_owned();
        *self = Server::start_at(&address, &self.dir.clone(), &[], &[]);
    }

    /// Kills it as `kill -9` does.
    #[allow(dead_code)]
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }

    /// Ends it with SIGTERM; returns whether it ended well.
    pub fn terminate(&mut self) -> bool {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").arg(&pid).status().unwrap().success());
        self.child.wait().unwrap().success()
    }

    /// Its process id.
    #[allow(dead_code)]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its resident memory, in MiB.
    #[allow(dead_code)]
    pub fn memory_mib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
    }

    /// The CPU time that it has used.
    #[allow(dead_code)]
    pub fn cpu_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        // The name in brackets may have spaces; user and system time are the fields 14 and 15, in hundredths of a second.
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks: u64 = fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 10)
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("server.log")).unwrap()
    }

    /// Runs the CLI against it. Returns the exit code, and what it prints on both channels.
    pub fn cli(&self, args: &[&str]) -> (i32, String) {
        let (code, out, err) = self.cli_apart(args);
        (code, out + &err)
    }

    /// The same, the two channels apart.
    pub fn cli_apart(&self, args: &[&str]) -> (i32, String, String) {
        let output = self.command(VMYARD).args(args).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    }

    /// A program, with the environment in which the CLI finds this server.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("VMYARD_URL", &self.url).env("VMYARD_DATA_DIR", self.dir.join("data")).stdin(Stdio::null());
        command
    }
}

/// A client for HTTP, without TLS.
pub fn http_client(timeout: Duration) -> reqwest::blocking::Client {
    // It wants one all the same. Another thread may have been faster.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::blocking::Client::builder().tls_certs_only([]).timeout(timeout).build().unwrap()
}

fn answer(sent: reqwest::Result<reqwest::blocking::Response>) -> Answer {
    let Ok(response) = sent else { return Answer { status: 0, kind: String::new(), body: Value::Null } };
    let header = response.headers().get("content-type").and_then(|value| value.to_str().ok());
    let (status, kind) = (response.status().as_u16(), header.unwrap_or_default().to_owned());
    let text = response.text().unwrap_or_default();
    Answer { status, kind, body: serde_json::from_str(&text).unwrap_or(Value::String(text)) }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
