//! What goes on in a VM's guest, through its agent.

use crate::{Access, Rpc, Time, rules, vm::Vm};
use garde::Validate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The longest standard input of a command, in characters.
const STDIN_MAX: usize = 1 << 20;
/// Without a NUL: no program's argument can have one.
const WORD_PATTERN: &str = r"^[^\u0000]*$";

/// What a guest's agent tells of it. What the agent doesn't know is null.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GuestInfo {
    /// The guest's own name.
    pub hostname: Option<String>,
    /// The operating system's id: `debian`.
    pub os_id: Option<String>,
    /// Its name.
    pub os_name: Option<String>,
    /// Its name for people: `Debian GNU/Linux 12 (bookworm)`.
    pub os_pretty_name: Option<String>,
    /// Its version: `12`.
    pub os_version: Option<String>,
    /// The kernel's release.
    pub kernel: Option<String>,
    /// The machine that the kernel is for: `x86_64`.
    pub machine: Option<String>,
    /// The time zone.
    pub timezone: Option<String>,
    /// Who is logged in.
    pub users: Vec<GuestUser>,
    /// The file systems that are mounted.
    pub file_systems: Vec<GuestFileSystem>,
    /// How far cloud-init is; null where there is none.
    pub cloud_init: Option<CloudInitOutcome>,
    /// When the agent told it.
    pub read_at: Time,
}

/// A user who is logged in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GuestUser {
    /// The user's name.
    pub name: String,
    /// Since when.
    pub since: Option<Time>,
}

/// A file system that is mounted in a guest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GuestFileSystem {
    /// Where it is mounted.
    pub mountpoint: String,
    /// `ext4`, …
    pub kind: String,
    /// Its size, in bytes.
    pub total_bytes: Option<u64>,
    /// What is in use of it, in bytes.
    pub used_bytes: Option<u64>,
}

/// How far cloud-init is with this boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CloudInitOutcome {
    /// Whether it is done.
    pub done: bool,
    /// Where it has its data from.
    pub datasource: Option<String>,
    /// What it failed at.
    pub errors: Vec<String>,
}

/// Runs a command in a running VM's guest, through its agent, as the agent's user (root on Linux), and waits until it ends. There is
/// no shell: the command is a program with its arguments. Neither those nor what the command prints are in the audit, the journal
/// or the log. More than 3 MiB of output can't be brought over.
#[derive(Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct ExecInVm {
    /// The VM, by name or id.
    #[garde(custom(rules::reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub vm: String,
    /// The program, and each of its arguments: `["/bin/ls", "-l"]`.
    #[garde(length(min = 1, max = 256), custom(check_command))]
    #[schemars(length(min = 1, max = 256), inner(length(max = 32_768), regex(pattern = WORD_PATTERN)))]
    pub command: Vec<String>,
    /// What it is given on its standard input.
    #[garde(inner(length(chars, max = STDIN_MAX)))]
    #[schemars(length(max = 1_048_576))]
    pub stdin: Option<String>,
    /// How long to wait for its end, in seconds (30 when absent). After that it goes on in the guest: an agent can't end it.
    #[garde(inner(range(min = 1, max = 290)))]
    #[schemars(range(min = 1, max = 290))]
    pub timeout_s: Option<u32>,
}

impl std::fmt::Debug for ExecInVm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExecInVm").field("vm", &self.vm).finish_non_exhaustive()
    }
}

/// How bytes are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// They are UTF-8, as they are.
    Text,
    /// They are not, and so in base64.
    Base64,
}

/// What exec-in-vm answers.
// Not `Debug`, so that no log has what was printed.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ExecutedInVm {
    /// The VM.
    pub vm: Vm,
    /// The command's process id in the guest.
    pub pid: i64,
    /// Whether it was still running when the time was over; it goes on then.
    pub running: bool,
    /// Its exit code; null while it runs, and when a signal has ended it.
    pub exit_code: Option<i64>,
    /// The signal that has ended it.
    pub signal: Option<i64>,
    /// What it has printed, at most 1 MiB. Asked for again (describe-task, or the same call under its client_token), it is given for
    /// 10 minutes, to the same caller only; then it is null.
    pub stdout: Option<String>,
    /// How that is told.
    pub stdout_encoding: Encoding,
    /// What it has printed on its standard error, likewise.
    pub stderr: Option<String>,
    /// How that is told.
    pub stderr_encoding: Encoding,
    /// Whether it has printed more than is told.
    pub truncated: bool,
    /// True when what it has printed is not given any more.
    #[serde(default)]
    pub secret_expired: bool,
}

impl Rpc for ExecInVm {
    const NAME: &'static str = "exec-in-vm";
    const ACCESS: Access = Access::Administrator;
    const SECRETS: &'static [&'static str] = &["stdout", "stderr"];
    type Reply = ExecutedInVm;
}

/// Checks a program with its arguments.
fn check_command(words: &[String], _: &()) -> garde::Result {
    if words.first().is_some_and(String::is_empty) {
        return Err(garde::Error::new("must begin with a program"));
    }
    match words.iter().position(|word| word.contains('\0') || word.chars().count() > 32_768) {
        Some(at) => Err(garde::Error::new(format!("must have no NUL and at most 32768 characters in word {at}"))),
        None => Ok(()),
    }
}
