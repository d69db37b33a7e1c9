//! A client of `GET /api/events`.

use super::Server;
use serde_json::Value;
use std::{
    io::{BufRead, BufReader},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::{Duration, Instant},
};

/// What a server sends, line by line.
pub struct Follower {
    lines: Receiver<String>,
    /// The id of the last event.
    pub last: Option<u64>,
}

/// An event, or another message of the stream.
#[derive(Debug)]
pub struct Sent {
    pub kind: String,
    pub data: Value,
}

impl Follower {
    /// Begins to follow, with a token and the id of the last event that was seen.
    pub fn with(server: &Server, query: &str, token: &str, last: Option<u64>) -> Result<Follower, (u16, Value)> {
        let client = super::server::http_client(Duration::from_secs(60));
        let mut request = client.get(format!("{}/api/events{query}", server.url)).bearer_auth(token);
        if let Some(last) = last {
            request = request.header("last-event-id", last.to_string());
        }
        let response = request.send().unwrap();
        let status = response.status().as_u16();
        if status != 200 {
            return Err((status, serde_json::from_str(&response.text().unwrap()).unwrap()));
        }
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(response).lines() {
                let Ok(line) = line else { return };
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Follower { lines, last })
    }

    pub fn of(server: &Server, query: &str) -> Follower {
        Follower::with(server, query, &server.token, None).unwrap()
    }

    /// The next message; `None` when the server has ended the stream.
    #[track_caller]
    pub fn next(&mut self) -> Option<Sent> {
        let deadline = Instant::now() + super::SOON;
        let (mut kind, mut data, mut id) = (String::new(), String::new(), None);
        loop {
            let line = match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => line,
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => {
                    panic!("nothing was sent for {:?}, after {:?}", super::SOON, self.last)
                }
            };
            match line.split_once(": ") {
                Some(("event", text)) => kind = text.to_owned(),
                Some(("data", text)) => data.push_str(text),
                Some(("id", text)) => id = Some(text.parse().unwrap()),
                _ if line.is_empty() && !data.is_empty() => {
                    self.last = id.or(self.last);
                    return Some(Sent { kind, data: serde_json::from_str(&data).unwrap() });
                }
                _ => {}
            }
        }
    }

    /// The data of the next messages, up to one that fits.
    #[track_caller]
    pub fn until(&mut self, fits: impl Fn(&Sent) -> bool) -> Vec<Value> {
        let mut all = Vec::new();
        loop {
            let sent = self.next().unwrap_or_else(|| panic!("the stream has ended after {all:?}"));
            let found = fits(&sent);
            all.push(sent.data);
            if found {
                return all;
            }
        }
    }
}
