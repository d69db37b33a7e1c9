//! Calling the API over HTTP.

use api::{Problem, Rpc, task::Accepted};
use reqwest::{StatusCode, blocking, header};
use serde_json::Value;
use std::{fmt, path::PathBuf, process::ExitCode, time::Duration};
use uuid::Uuid;

/// A little more than the server waits for a task.
const TIMEOUT: Duration = Duration::from_secs(320);

/// Where the server is and who calls.
#[derive(clap::Args)]
pub struct Server {
    /// The server's address
    #[arg(long, global = true, env = "VMYARD_URL", default_value = "http://127.0.0.1:7777")]
    url: String,
    /// The API token; read from admin.token in the data directory when absent
    #[arg(long, global = true, env = "VMYARD_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

/// A caller of the API.
pub struct Client {
    http: blocking::Client,
    url: String,
    token: String,
}

/// Why a command failed.
#[derive(Debug)]
pub enum Failure {
    /// The command's arguments don't go together.
    Usage(String),
    /// The server can't be reached, or what answers is no Vmyard.
    Unreachable(String),
    /// The server refused or failed.
    Problem(Box<Problem>),
    /// The work goes on, for longer than the server lets anybody wait.
    Pending(Uuid),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Usage(text) | Failure::Unreachable(text) => write!(f, "error: {text}"),
            Failure::Pending(task) => {
                write!(f, "the work goes on as task {task}; see: vmyard call describe-task '{{\"task\": \"{task}\"}}'")
            }
            Failure::Problem(problem) => {
                write!(f, "error: {} ({})", problem.detail, problem.code.as_str())?;
                if let Some(hint) = &problem.hint {
                    write!(f, "\nhint: {hint}")?;
                }
                if let Some(task) = problem.task {
                    write!(f, "\ntask: {task}")?;
                }
                match problem.request_id {
                    Some(id) => write!(f, "\nrequest id: {id}"),
                    None => Ok(()),
                }
            }
        }
    }
}

impl Failure {
    /// The command's exit code.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Failure::Problem(_) => 1,
            Failure::Usage(_) => 2,
            Failure::Unreachable(_) => 3,
            Failure::Pending(_) => 4,
        })
    }
}

impl Server {
    /// A client for this server. Nothing is sent yet.
    pub fn connect(&self) -> Result<Client, Failure> {
        if !reqwest::Url::parse(&self.url).is_ok_and(|url| url.has_host()) {
            return Err(Failure::Usage(format!(
                "--url {:?} is no address; it looks like http://127.0.0.1:7777",
                self.url
            )));
        }
        let token = match &self.token {
            Some(token) => token.clone(),
            None if is_local(&self.url) => read_token()?,
            None => {
                return Err(Failure::Usage(format!("no token for {}: give --token or VMYARD_TOKEN", self.url)));
            }
        };
        // The token goes to the server that was named, not to whatever the environment has for a proxy.
        let http = blocking::Client::builder().no_proxy().timeout(TIMEOUT).build();
        let http = http.map_err(|error| Failure::Unreachable(format!("no HTTP client: {error}")))?;
        Ok(Client { http, url: self.url.trim_end_matches('/').to_owned(), token })
    }
}

/// Whether the server is on this machine: the token of this machine goes nowhere else.
fn is_local(url: &str) -> bool {
    let Ok(url) = reqwest::Url::parse(url) else { return false };
    let name = url.host_str().unwrap_or_default();
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    name == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// The administrator's token of a server on this machine.
fn read_token() -> Result<String, Failure> {
    let data_dir = std::env::var_os("VMYARD_DATA_DIR").map_or_else(|| PathBuf::from("/var/lib/vmyard"), PathBuf::from);
    let path = data_dir.join("admin.token");
    match std::fs::read_to_string(&path) {
        Ok(token) => Ok(token.trim().to_owned()),
        Err(error) => Err(Failure::Usage(format!(
            "no token: give --token or VMYARD_TOKEN, or run as a user who may read {} ({error})",
            path.display()
        ))),
    }
}

impl Client {
    /// Calls a method by its type.
    pub fn call<R: Rpc>(&self, request: &R) -> Result<R::Reply, Failure> {
        let body =
            serde_json::to_value(request).map_err(|error| Failure::Usage(format!("write the request: {error}")))?;
        let reply = self.call_json(R::NAME, &body)?;
        if let Ok(Accepted { task }) = serde_json::from_value(reply.clone()) {
            return Err(Failure::Pending(task.id));
        }
        serde_json::from_value(reply).map_err(|error| {
            Failure::Unreachable(format!("the server's reply can't be read ({error}); is it of another version?"))
        })
    }

    /// Calls a method by its name.
    pub fn call_json(&self, method: &str, body: &Value) -> Result<Value, Failure> {
        let unreachable = |error: reqwest::Error| {
            let mut text = format!("can't reach {}: {error}", self.url);
            let mut source = std::error::Error::source(&error);
            while let Some(cause) = source {
                text = format!("{text}: {cause}");
                source = cause.source();
            }
            let hint = match error.is_connect() {
                true => "is the server running (vmyard serve), and is --url right?",
                false => "whether it was done isn't known: vmyard task list",
            };
            Failure::Unreachable(format!("{text}\nhint: {hint}"))
        };
        let response = self
            .http
            .post(format!("{}/api/{method}", self.url))
            .bearer_auth(&self.token)
            .header(header::CONTENT_TYPE, "application/json")
            .body(body.to_string())
            .send()
            .map_err(unreachable)?;
        let status = response.status();
        let text = response.text().map_err(unreachable)?;
        let strange =
            || Failure::Unreachable(format!("{} answered {status} with something that is not of Vmyard", self.url));
        match status {
            StatusCode::OK | StatusCode::ACCEPTED => serde_json::from_str(&text).map_err(|_| strange()),
            _ => {
                let problem = serde_json::from_str(&text).map_err(|_| strange())?;
                Err(Failure::Problem(Box::new(problem)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_local;

    #[test]
    fn the_local_token_stays_local() {
        for url in ["http://127.0.0.1:7777", "http://localhost:1/", "http://[::1]", "https://127.1.2.3"] {
            assert!(is_local(url), "{url}");
        }
        for url in
            ["http://127.0.0.1:7777@evil.example/", "http://localhost.evil.example", "http://10.0.0.1", "nonsense"]
        {
            assert!(!is_local(url), "{url}");
        }
    }
}
