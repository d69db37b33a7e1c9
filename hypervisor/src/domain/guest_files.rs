//! Small files of guests, read through their agents.

use super::agent::ANSWER_S;
use crate::{ErrorKind, Node, Result, error::libvirt_error};
use base64::{Engine, engine::general_purpose::STANDARD};
use libvirt::{Domain, ErrorCode};
use serde_json::{Value, json};
use uuid::Uuid;

/// The most that is read of a file, in bytes.
const LARGEST: usize = 64 << 10;

impl Node {
    /// A file of a running guest, its first 64 KiB; `None` when there is no such file.
    pub async fn guest_file(&self, id: Uuid, path: &str) -> Result<Option<Vec<u8>>> {
        let wanted = path.to_owned();
        let doing = format!("read {path} in the guest of domain {id}");
        let read = self.ask_domain(id, &doing, move |domain| {
            let open = json!({"execute": "guest-file-open", "arguments": {"path": wanted, "mode": "r"}});
            let handle = command(domain, &open)?;
            let read = json!({"execute": "guest-file-read", "arguments": {"handle": handle, "count": LARGEST}});
            let read = command(domain, &read);
            // An agent that has just answered takes this too; a file that stays open goes with it.
            let _ = command(domain, &json!({"execute": "guest-file-close", "arguments": {"handle": handle}}));
            decoded(&read?["buf-b64"])
        });
        match read.await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind == ErrorKind::AgentRefused && error.cause.contains("No such file") => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// What the agent returns for a command.
pub(super) fn command(domain: &Domain, command: &Value) -> libvirt::Result<Value> {
    let answer = domain.agent_command(&command.to_string(), ANSWER_S, 0)?;
    let mut answer: Value = serde_json::from_str(&answer).map_err(|_| nonsense())?;
    Ok(answer["return"].take())
}

/// The bytes of a field in base64; none when it isn't there.
pub(super) fn decoded(field: &Value) -> libvirt::Result<Vec<u8>> {
    STANDARD.decode(field.as_str().unwrap_or_default()).map_err(|_| nonsense())
}

fn nonsense() -> libvirt::Error {
    libvirt_error(ErrorCode::AGENT_COMMAND_FAILED, "the guest agent gave an answer that can't be read")
}
