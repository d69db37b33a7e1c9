//! A browser without a window, driven by WebDriver (<https://www.w3.org/TR/webdriver2/>), and files for its pages.

use super::{Directory, eventually};
use serde_json::{Value, json};
use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

/// A browser with one page. It goes when this is dropped.
pub struct Browser {
    driver: Child,
    session: String,
    http: reqwest::blocking::Client,
    _profile: Directory,
}

impl Browser {
    pub fn start() -> Browser {
        let profile = Directory::new();
        // A port that is free now.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let driver = Command::new("chromedriver")
            .args([format!("--port={port}"), "--silent".to_owned()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let http = super::server::http_client(Duration::from_secs(120));
        let base = format!("http://127.0.0.1:{port}/session");
        // No sandbox, since tests run as root; small shared memory, as in containers.
        let arguments =
            ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--window-size=1000,700"];
        let profile_at = format!("--user-data-dir={}", profile.path.display());
        let arguments: Vec<&str> = arguments.into_iter().chain([profile_at.as_str()]).collect();
        let wanted = json!({"capabilities": {"alwaysMatch": {"goog:chromeOptions": {"args": arguments}}}});
        let mut browser = Browser { driver, session: String::new(), http, _profile: profile };
        let session = eventually("the browser starts", Duration::from_secs(100), || {
            let answer = browser.http.post(&base).body(wanted.to_string()).send().ok()?;
            let answer: Value = answer.json().unwrap();
            Some(answer["value"]["sessionId"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned())
        });
        browser.session = format!("{base}/{session}");
        browser
    }

    fn post(&self, command: &str, body: &Value) -> Value {
        let sent = self.http.post(format!("{}/{command}", self.session)).body(body.to_string()).send().unwrap();
        let answer: Value = sent.json().unwrap();
        assert!(answer["value"]["error"].is_null(), "{command} {body}: {answer}");
        answer["value"].clone()
    }

    /// Goes to an address.
    pub fn go(&self, url: &str) {
        self.post("url", &json!({"url": url}));
    }

    /// Runs a script in the page, and gives what it returns.
    pub fn run(&self, script: &str, arguments: Value) -> Value {
        self.post("execute/sync", &json!({"script": script, "args": arguments}))
    }

    /// Presses keys, one after the other.
    pub fn press(&self, keys: &str) {
        let actions: Vec<Value> = keys
            .chars()
            .flat_map(|key| {
                // WebDriver's name for the Enter key.
                let key = if key == '\n' { '\u{e007}' } else { key };
                [
                    json!({"type": "keyDown", "value": key.to_string()}),
                    json!({"type": "keyUp", "value": key.to_string()}),
                ]
            })
            .collect();
        self.post("actions", &json!({"actions": [{"type": "key", "id": "keys", "actions": actions}]}));
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            let _ = self.http.delete(&self.session).send();
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// Serves the files of a directory, to pages of any origin; returns its address. It ends with the process.
pub fn serve_files(root: PathBuf) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let root = root.clone();
            std::thread::spawn(move || answer(stream, &root));
        }
    });
    format!("http://{address}")
}

fn answer(mut stream: TcpStream, root: &std::path::Path) -> Option<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1)?.trim_start_matches('/');
    let (status, body) = match std::fs::read(root.join(path)) {
        Ok(body) => ("200 OK", body),
        Err(_) => ("404 Not Found", Vec::new()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/javascript\r\naccess-control-allow-origin: *\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(&body).ok()
}
