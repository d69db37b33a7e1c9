//! Consoles of VMs: the screen, the serial line, and recordings of it.

use crate::{Access, Rpc, Time, rules};
use garde::Validate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The most of a serial log that is given, in bytes: 1 MiB.
pub const LOG_BYTES_MAX: u64 = 1 << 20;

/// Opens the way to a running VM's screen, for 60 seconds: an address and a password for a VNC client, and a URL for noVNC.
/// Each of the two lets one client in, once. Several callers have their sessions side by side.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct GetVncConsole {
    /// The VM, by name or id.
    #[garde(custom(rules::reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub vm: String,
}

/// The way to a VM's screen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VncConsole {
    /// The VM's id.
    pub vm: Uuid,
    /// The VM's name.
    pub name: String,
    /// Where a VNC client connects (RFC 6143): the machine.
    pub host: String,
    /// And the TCP port, which is this ticket's alone.
    pub port: u16,
    /// The password that the VNC client is asked for, of 8 characters.
    pub password: String,
    /// Where a browser's VNC client connects: a WebSocket that speaks RFB and asks for no password. The URL has the ticket in
    /// it, so it is as secret as a password.
    pub websocket_url: String,
    /// Until when a client may connect. A session that has begun goes on.
    pub expires_at: Time,
}

impl Rpc for GetVncConsole {
    const NAME: &'static str = "get-vnc-console";
    const ACCESS: Access = Access::Operator;
    type Reply = VncConsole;
}

/// Takes a picture of a running VM's screen.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct GetVmScreenshot {
    /// The VM, by name or id.
    #[garde(custom(rules::reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub vm: String,
}

/// A picture of a VM's screen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Screenshot {
    /// The VM's id.
    pub vm: Uuid,
    /// The VM's name.
    pub name: String,
    /// When it was taken.
    pub taken_at: Time,
    /// Its width, in pixels.
    pub width: u32,
    /// Its height, in pixels.
    pub height: u32,
    /// The picture as PNG, in Base64 (RFC 4648, 4).
    pub png_base64: String,
}

impl Rpc for GetVmScreenshot {
    const NAME: &'static str = "get-vm-screenshot";
    const ACCESS: Access = Access::Operator;
    type Reply = Screenshot;
}

/// Opens the way to a VM's serial line, for 60 seconds: a WebSocket that first gives what the VM has said of late (at most
/// 1 MiB), then what it says, in binary frames, and types what it is sent. Any number of clients may watch. One of them
/// types: who is the first to, until they leave or somebody takes it over.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct GetSerialConsole {
    /// The VM, by name or id.
    #[garde(custom(rules::reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub vm: String,
    /// Only watch.
    #[serde(default)]
    #[garde(skip)]
    pub read_only: bool,
    /// Type from the first moment, though somebody else does; they go on watching.
    #[serde(default)]
    #[garde(skip)]
    pub take_over: bool,
    /// Also when the VM is off: the session waits for its start, and stays when it goes off.
    #[serde(default)]
    #[garde(skip)]
    pub wait_for_start: bool,
    /// Cut who has the line outside of Vmyard (`virsh console`).
    #[serde(default)]
    #[garde(skip)]
    pub force: bool,
    /// Keep what the client is shown as a recording, on the server; what is typed is in it as far as the VM echoes it.
    #[serde(default)]
    #[garde(skip)]
    pub record: bool,
}

/// The way to a VM's serial line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SerialConsole {
    /// The VM's id.
    pub vm: Uuid,
    /// The VM's name.
    pub name: String,
    /// Where a client connects, once. The URL has the ticket in it, so it is as secret as a password. A client that asks for
    /// the subprotocol `vmyard.serial.v1` is told in text frames who types, and can take over by sending
    /// `{"type": "take-over"}`; without it all frames from the server are binary, and all that the client sends is typed.
    pub websocket_url: String,
    /// Until when a client may connect. A session that has begun goes on.
    pub expires_at: Time,
    /// The recording, if one was asked for; it is there once the client has connected.
    pub recording: Option<Uuid>,
}

impl Rpc for GetSerialConsole {
    const NAME: &'static str = "get-serial-console";
    const ACCESS: Access = Access::Operator;
    type Reply = SerialConsole;
}

/// Reads what a VM has said on its serial line, the end of it, also of a VM that is off.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct GetSerialLog {
    /// The VM, by name or id.
    #[garde(custom(rules::reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub vm: String,
    /// At most so many bytes (1 MiB when absent, and at most).
    #[garde(inner(range(min = 1, max = LOG_BYTES_MAX)))]
    #[schemars(range(min = 1, max = LOG_BYTES_MAX))]
    pub max_bytes: Option<u64>,
}

/// The end of what a VM has said on its serial line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SerialLog {
    /// The VM's id.
    pub vm: Uuid,
    /// The VM's name.
    pub name: String,
    /// The text; what isn't UTF-8 in it is replaced by U+FFFD.
    pub text: String,
    /// How many bytes of the log it is.
    pub bytes: u64,
}

impl Rpc for GetSerialLog {
    const NAME: &'static str = "get-serial-log";
    const ACCESS: Access = Access::Operator;
    type Reply = SerialLog;
}

/// A recording of a serial line, as somebody was shown it: an asciicast of version 2, which `asciinema play` shows.
/// `GET /api/recordings/<id>` downloads it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Recording {
    /// The recording's id.
    pub id: Uuid,
    /// The VM's id.
    pub vm: Uuid,
    /// The VM's name at the time.
    pub vm_name: String,
    /// Under which token it was recorded.
    pub caller: String,
    /// When it was begun.
    pub began_at: Time,
    /// Its size, in bytes.
    pub bytes: u64,
}

/// Lists the recordings of serial lines, the newest first.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct ListRecordings {
    /// Only recordings of the VM with this id, or this name at the time.
    #[garde(custom(rules::optional_reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub vm: Option<String>,
    /// At most so many rows (100 when absent).
    #[garde(inner(range(min = 1, max = 1000)))]
    #[schemars(range(min = 1, max = 1000))]
    pub limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[garde(inner(length(min = 1, max = 8192)))]
    #[schemars(length(min = 1, max = 8192))]
    pub cursor: Option<String>,
}

/// A page of recordings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Recordings {
    /// The recordings.
    pub recordings: Vec<Recording>,
    /// The cursor of the next page; null on the last.
    pub next_cursor: Option<String>,
    /// How many there are on all pages.
    pub total: u64,
}

impl Rpc for ListRecordings {
    const NAME: &'static str = "list-recordings";
    const ACCESS: Access = Access::Administrator;
    type Reply = Recordings;
}

/// Deletes a recording. One that is still being made ends.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct DeleteRecording {
    /// The recording's id.
    #[garde(skip)]
    pub recording: Uuid,
}

/// A recording that is gone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DeletedRecording {
    /// Its id.
    pub id: Uuid,
}

impl Rpc for DeleteRecording {
    const NAME: &'static str = "delete-recording";
    const ACCESS: Access = Access::Administrator;
    type Reply = DeletedRecording;
}

/// What is said in text frames of a serial console's WebSocket under the subprotocol `vmyard.serial.v1`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum SerialNote {
    /// The client asks to be the one who types.
    TakeOver,
    /// The client gives that up.
    Release,
    /// The server says who types, if anybody.
    Writer {
        /// Whether that is this client.
        you: bool,
        /// The name of the token.
        who: Option<String>,
    },
    /// The server has not passed on what was typed, and says why.
    Refused {
        /// Why.
        why: String,
    },
    /// The VM has gone off, and the session waits for its start (`false`), or it is on (`true`).
    Power {
        /// Whether it is on.
        on: bool,
    },
}

/// The subprotocol in which [`SerialNote`]s are sent.
pub const SERIAL_PROTOCOL: &str = "vmyard.serial.v1";
