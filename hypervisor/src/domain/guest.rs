//! What a guest's agent tells of it, and commands that it runs.

use super::{
    agent::ANSWER_S,
    agent::with_deadline,
    guest_files::{command, decoded},
};
use crate::{Node, Result, node::QUICK};
use base64::{Engine, engine::general_purpose::STANDARD};
use libvirt::Value;
use serde_json::json;
use uuid::Uuid;

/// What a guest's agent tells. What it doesn't know is absent.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GuestInfo {
    /// The guest's name.
    pub hostname: Option<String>,
    /// The operating system, as os-release(5) has it: `ID`, `NAME`, `PRETTY_NAME`, `VERSION_ID`.
    pub os: [Option<String>; 4],
    /// The kernel's release, and the machine that it is for.
    pub kernel: [Option<String>; 2],
    /// The time zone's name.
    pub timezone: Option<String>,
    /// Who is logged in, and since when, in milliseconds since 1970.
    pub users: Vec<(String, Option<u64>)>,
    /// The file systems that are mounted.
    pub file_systems: Vec<FileSystem>,
}

/// A file system that is mounted in a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSystem {
    /// Where it is mounted.
    pub mountpoint: String,
    /// `ext4`, …
    pub kind: String,
    /// Its size in bytes.
    pub total_bytes: Option<u64>,
    /// What is in use of it.
    pub used_bytes: Option<u64>,
}

/// A command that has ended in a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Its exit code, unless a signal ended it.
    pub exit_code: Option<i64>,
    /// The signal that ended it.
    pub signal: Option<i64>,
    /// What it has printed.
    pub stdout: Vec<u8>,
    /// The same, on its standard error.
    pub stderr: Vec<u8>,
    /// Whether the agent has kept only a part of it.
    pub truncated: bool,
}

impl Node {
    /// What the agent of a running domain tells of its guest.
    pub async fn guest_info(&self, id: Uuid) -> Result<GuestInfo> {
        let doing = format!("ask the guest agent of domain {id}");
        let told = self.ask_domain(id, &doing, |domain| with_deadline(domain, ANSWER_S, || domain.guest_info(0)));
        Ok(read(&told.await?))
    }

    /// Starts a command in a guest, without a shell; returns its process id there.
    pub async fn start_in_guest(&self, id: Uuid, words: &[String], stdin: Option<&str>) -> Result<i64> {
        let mut arguments =
            json!({"path": words.first(), "arg": words.get(1..).unwrap_or_default(), "capture-output": true});
        if let Some(text) = stdin {
            arguments["input-data"] = STANDARD.encode(text).into();
        }
        let exec = json!({"execute": "guest-exec", "arguments": arguments});
        let doing = format!("run a command in the guest of domain {id}");
        let started = self.change_domain(id, QUICK, &doing, move |domain| command(domain, &exec)).await?;
        Ok(started["pid"].as_i64().unwrap_or_default())
    }

    /// What came of a command in a guest; `None` while it runs. Of one that has ended the agent tells once only.
    pub async fn ended_in_guest(&self, id: Uuid, pid: i64) -> Result<Option<Ended>> {
        let status = json!({"execute": "guest-exec-status", "arguments": {"pid": pid}});
        let doing = format!("look at process {pid} in the guest of domain {id}");
        self.ask_domain(id, &doing, move |domain| {
            let told = command(domain, &status)?;
            if told["exited"] != true {
                return Ok(None);
            }
            let truncated = told["out-truncated"] == true || told["err-truncated"] == true;
            Ok(Some(Ended {
                exit_code: told["exitcode"].as_i64(),
                signal: told["signal"].as_i64(),
                stdout: decoded(&told["out-data"])?,
                stderr: decoded(&told["err-data"])?,
                truncated,
            }))
        })
        .await
    }
}

/// Reads what libvirt makes of the agent's answers: <https://libvirt.org/html/libvirt-libvirt-domain.html#virDomainGetGuestInfo>.
fn read(values: &[(String, Value)]) -> GuestInfo {
    let get = |name: &str| values.iter().find(|(known, _)| known == name).map(|(_, value)| value);
    let text = |name: &str| get(name).and_then(Value::as_str).map(str::to_owned).filter(|text| !text.is_empty());
    let number = |name: &str| get(name).and_then(Value::as_u64);
    let count = |of: &str| 0..number(&format!("{of}.count")).unwrap_or(0);
    let user = |n: u64| Some((text(&format!("user.{n}.name"))?, number(&format!("user.{n}.login-time"))));
    let file_system = |n: u64| {
        Some(FileSystem {
            mountpoint: text(&format!("fs.{n}.mountpoint"))?,
            kind: text(&format!("fs.{n}.fstype")).unwrap_or_default(),
            total_bytes: number(&format!("fs.{n}.total-bytes")),
            used_bytes: number(&format!("fs.{n}.used-bytes")),
        })
    };
    GuestInfo {
        hostname: text("hostname"),
        os: ["os.id", "os.name", "os.pretty-name", "os.version-id"].map(text),
        kernel: ["os.kernel-release", "os.machine"].map(text),
        timezone: text("timezone.name"),
        users: count("user").filter_map(user).collect(),
        file_systems: count("fs").filter_map(file_system).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_libvirt_makes_of_it() {
        let text = |name: &str, text: &str| (name.to_owned(), Value::String(text.to_owned()));
        let values = [
            text("os.id", "debian"),
            text("hostname", "web"),
            ("user.count".to_owned(), Value::UInt(2)),
            text("user.0.name", "ann"),
            ("user.0.login-time".to_owned(), Value::ULong(5)),
            ("fs.count".to_owned(), Value::UInt(1)),
            text("fs.0.mountpoint", "/"),
            ("fs.0.total-bytes".to_owned(), Value::ULong(9)),
        ];
        let info = read(&values);
        assert_eq!((info.os[0].as_deref(), info.hostname.as_deref()), (Some("debian"), Some("web")));
        assert_eq!(info.users, [("ann".to_owned(), Some(5))]);
        assert_eq!((info.file_systems[0].total_bytes, info.file_systems[0].used_bytes), (Some(9), None));
        assert_eq!(read(&[]), GuestInfo::default());
    }
}
