//! Calling the API over HTTP.

use crate::{failure::Failure, output::GLOBAL};
use api::Rpc;
use reqwest::{StatusCode, blocking, header};
use serde_json::Value;
use std::{path::PathBuf, time::Duration};
use uuid::Uuid;

/// A little more than the server waits for a task.
const TIMEOUT: Duration = Duration::from_secs(320);
/// The header that carries a request's id, which is in the server's log too.
const REQUEST_ID: &str = "x-request-id";

/// Where the server is and who calls.
#[derive(clap::Args)]
pub struct Server {
    /// The server's address
    #[arg(long, global = true, env = "VMYARD_URL", default_value = "http://127.0.0.1:7777", help_heading = GLOBAL)]
    url: String,
    /// The API token; read from admin.token in the data directory when absent
    #[arg(long, global = true, env = "VMYARD_TOKEN", hide_env_values = true, help_heading = GLOBAL)]
    token: Option<String>,
}

/// A caller of the API.
#[derive(Clone)]
pub struct Client {
    http: blocking::Client,
    url: String,
    token: String,
}

/// What a call answered.
pub struct Answer {
    /// The reply, or `{"task": …}`.
    pub body: Value,
    /// Whether it is the task, which goes on (202).
    pub accepted: bool,
    /// The request's id.
    pub request_id: Uuid,
}

impl Server {
    /// A client for this server. Nothing is sent yet.
    pub fn connect(&self) -> Result<Client, Failure> {
        self.connect_within(TIMEOUT)
    }

    /// A client whose calls take no longer than this.
    pub fn connect_within(&self, timeout: Duration) -> Result<Client, Failure> {
        // As it is written from here on: its scheme in small letters.
        let Some(url) = reqwest::Url::parse(&self.url).ok().filter(reqwest::Url::has_host) else {
            return Err(Failure::Usage(format!(
                "--url {:?} is no address; it looks like http://127.0.0.1:7777",
                self.url
            )));
        };
        let url = url.as_str().trim_end_matches('/').to_owned();
        let token = match &self.token {
            Some(token) => token.clone(),
            None if is_local(&self.url) => read_token()?,
            None => {
                return Err(Failure::Usage(format!("no token for {}: give --token or VMYARD_TOKEN", self.url)));
            }
        };
        // The token goes to the server that was named, not to whatever the environment has for a proxy.
        let http = blocking::Client::builder().no_proxy().timeout(timeout);
        // Without TLS no certificates are looked for: a machine may have none.
        let http = if url.starts_with("https:") { http } else { http.tls_certs_only([]) }.build();
        let http = http.map_err(|error| Failure::Unreachable(format!("no HTTP client: {error}")))?;
        Ok(Client { http, url, token })
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

/// A request as JSON.
pub fn to_json<R: Rpc>(request: &R) -> Result<Value, Failure> {
    serde_json::to_value(request).map_err(|error| Failure::Usage(format!("write the request: {error}")))
}

/// A reply as its type.
pub fn from_json<T: serde::de::DeserializeOwned>(reply: Value) -> Result<T, Failure> {
    serde_json::from_value(reply).map_err(|error| {
        Failure::Unreachable(format!("the server's reply can't be read ({error}); is it of another version?"))
    })
}

impl Client {
    /// The address of a WebSocket as this client reaches the server: by TLS where it speaks TLS, which a server behind a proxy may
    /// not know of.
    pub fn socket_url(&self, url: &str) -> Result<String, Failure> {
        let parsed = reqwest::Url::parse(url);
        let parsed = parsed.map_err(|error| Failure::Unreachable(format!("the console's address {url:?}: {error}")))?;
        let query = parsed.query().map(|query| format!("?{query}")).unwrap_or_default();
        // http and ws, https and wss.
        Ok(format!("{}{}{query}", self.url.replacen("http", "ws", 1), parsed.path()))
    }

    /// Calls a method by its type.
    pub fn call<R: Rpc>(&self, request: &R) -> Result<R::Reply, Failure> {
        from_json(self.call_json(R::NAME, &to_json(request)?)?)
    }

    /// Calls a method by its name, and waits for its end.
    pub fn call_json(&self, method: &str, body: &Value) -> Result<Value, Failure> {
        let answer = self.send(method, body)?;
        match answer.accepted {
            true => Err(Failure::Pending(answer.task()?)),
            false => Ok(answer.body),
        }
    }

    /// Calls a method by its name.
    pub fn send(&self, method: &str, body: &Value) -> Result<Answer, Failure> {
        let request_id = Uuid::new_v4();
        let unreachable = |error: reqwest::Error| {
            let unknown = format!("whether it was done isn't known: vmyard task list\nrequest id: {request_id}");
            self.unreachable(&error, &unknown)
        };
        let response = self
            .http
            .post(format!("{}/api/{method}", self.url))
            .bearer_auth(&self.token)
            .header(header::CONTENT_TYPE, "application/json")
            .header(REQUEST_ID, request_id.to_string())
            .body(body.to_string())
            .send()
            .map_err(unreachable)?;
        let status = response.status();
        let text = response.text().map_err(unreachable)?;
        let strange = || self.strange(status);
        match status {
            StatusCode::OK | StatusCode::ACCEPTED => {
                let body = serde_json::from_str(&text).map_err(|_| strange())?;
                Ok(Answer { body, accepted: status == StatusCode::ACCEPTED, request_id })
            }
            _ => {
                let problem = serde_json::from_str(&text).map_err(|_| strange())?;
                Err(Failure::Problem(Box::new(problem)))
            }
        }
    }
}

impl Client {
    /// Reads what is no method: a download.
    pub fn get(&self, path: &str) -> Result<blocking::Response, Failure> {
        let sent = self.http.get(format!("{}{path}", self.url)).bearer_auth(&self.token).send();
        let response = sent.map_err(|error| self.unreachable(&error, "it can be tried again"))?;
        let status = response.status();
        if status == StatusCode::OK {
            return Ok(response);
        }
        let text = response.text().unwrap_or_default();
        Err(serde_json::from_str(&text)
            .map_or_else(|_| self.strange(status), |problem| Failure::Problem(Box::new(problem))))
    }

    fn unreachable(&self, error: &reqwest::Error, otherwise: &str) -> Failure {
        let mut text = format!("can't reach {}: {error}", self.url);
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        let hint = match error.is_connect() {
            true => "is the server running (vmyard serve), and is --url right?",
            false => otherwise,
        };
        Failure::Unreachable(format!("{text}\nhint: {hint}"))
    }

    fn strange(&self, status: StatusCode) -> Failure {
        Failure::Unreachable(format!("{} answered {status} with something that is not of Vmyard", self.url))
    }
}

impl Answer {
    /// The id of the task that goes on.
    pub fn task(&self) -> Result<Uuid, Failure> {
        from_json(self.body["task"]["id"].clone())
    }
}

#[cfg(test)]
mod tests {
    use super::{Server, is_local};

    #[test]
    fn a_console_is_reached_as_the_api_is() {
        let socket = |url: &str| {
            let _ = rustls::crypto::ring::default_provider().install_default();
            let server = Server { url: url.to_owned(), token: Some("t".to_owned()) };
            server.connect().unwrap().socket_url("ws://10.0.0.1:7777/api/serial-console/1?ticket=2").unwrap()
        };
        let rest = "/api/serial-console/1?ticket=2";
        assert_eq!(socket("http://127.0.0.1:7777/"), format!("ws://127.0.0.1:7777{rest}"));
        assert_eq!(socket("HTTPS://Http.example"), format!("wss://http.example{rest}"));
        assert_eq!(socket("https://a.example/vmyard/"), format!("wss://a.example/vmyard{rest}"));
    }

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
