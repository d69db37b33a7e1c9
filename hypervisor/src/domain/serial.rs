//! A domain's serial line, open in both directions.
//!
//! Each line has a connection and a thread of its own: what is typed must not wait for calls, and a node that hangs holds
//! nobody else's thread. The thread ends, and the line with it, when the [`SerialLine`] is dropped.

use crate::{
    Error, ErrorKind, Node, Result,
    connector::Connector,
    error::{kind_of, libvirt_error},
    sync::lock,
};
use libvirt::{Connect, ErrorCode, Stream, flags};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc as threads,
    },
    thread,
    time::Duration,
};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

/// How long opening may take.
const OPEN: Duration = Duration::from_secs(15);
/// Bytes received at once.
const CHUNK: usize = 16 << 10;
/// Bytes that may wait for the guest to take them: pasted text, and no more.
const INPUT_MAX: usize = 64 << 10;

/// An open serial line.
pub struct SerialLine {
    /// What the guest says, until the end: its power is off, or the node is gone.
    output: mpsc::UnboundedReceiver<Vec<u8>>,
    input: SerialInput,
}

/// Where to type.
#[derive(Clone)]
pub struct SerialInput {
    wake: threads::Sender<Wake>,
    waiting: Arc<AtomicUsize>,
}

/// Why the thread wakes up.
enum Wake {
    /// libvirt has bytes, or takes some.
    Ready,
    /// Somebody types.
    Input(Vec<u8>),
    /// Nobody is there any more, on this side or the other.
    Close,
}

impl Node {
    /// Opens the first serial line of a running domain. Of several who want it libvirt lets one in; `force` cuts who is there
    /// (`virsh console`). `Busy`: somebody is. `WrongState`: the domain is off. `Unsupported`: it has no serial line.
    pub async fn open_serial(&self, id: Uuid, force: bool) -> Result<SerialLine> {
        let doing = format!("open the serial line of domain {id}");
        self.wait_until_up(&doing).await?;
        let (told, opened) = oneshot::channel();
        let connector = self.connector();
        thread::Builder::new()
            .name("serial-line".to_owned())
            .spawn(move || run(&connector, id, force, told))
            .map_err(|error| self.error(ErrorKind::Failed, &doing, &error.to_string()))?;
        let failed = |kind, cause: &str| -> Error { self.error(kind, &doing, cause) };
        match tokio::time::timeout(OPEN, opened).await {
            Ok(Ok(Ok(line))) => Ok(line),
            Ok(Ok(Err(error))) => Err(failed(kind_of(&error), &error.message)),
            Ok(Err(_)) => Err(failed(ErrorKind::Failed, "its thread ended")),
            Err(_) => Err(failed(ErrorKind::Timeout, &format!("no answer within {} s", OPEN.as_secs()))),
        }
    }
}

impl SerialLine {
    /// What the guest says next; `None` at the end.
    pub async fn read(&mut self) -> Option<Vec<u8>> {
        self.output.recv().await
    }

    /// Where to type.
    pub fn input(&self) -> SerialInput {
        self.input.clone()
    }
}

impl SerialInput {
    /// Types something. Returns whether there was room for it: a guest that takes nothing gets no more than 64 KiB.
    pub fn write(&self, bytes: Vec<u8>) -> bool {
        if self.waiting.load(Ordering::Acquire) + bytes.len() > INPUT_MAX {
            return false;
        }
        self.waiting.fetch_add(bytes.len(), Ordering::AcqRel);
        self.wake.send(Wake::Input(bytes)).is_ok()
    }
}

impl Drop for SerialLine {
    fn drop(&mut self) {
        // Fails when the thread has ended already.
        let _ = self.input.wake.send(Wake::Close);
    }
}

type Told = oneshot::Sender<libvirt::Result<SerialLine>>;

/// The thread of a line.
fn run(connector: &Connector, id: Uuid, force: bool, told: Told) {
    let (wake, wakes) = threads::channel();
    let opened = open(connector, id, force, wake.clone());
    let (_connection, stream) = match opened {
        Ok(opened) => opened,
        Err(error) => return drop(told.send(Err(error))),
    };
    let (output, outputs) = mpsc::unbounded_channel();
    let waiting = Arc::new(AtomicUsize::new(0));
    let line = SerialLine { output: outputs, input: SerialInput { wake, waiting: Arc::clone(&waiting) } };
    if told.send(Ok(line)).is_err() {
        return;
    }
    // Any error is the end of the line; whoever watches looks at the domain for the reason.
    let _ = pump(&stream, &wakes, &output, &waiting);
}

/// The connection and the stream; the event callback does no more than wake the thread.
fn open(
    connector: &Connector,
    id: Uuid,
    force: bool,
    wake: threads::Sender<Wake>,
) -> libvirt::Result<(Connect, Stream)> {
    let connection = connector.open().map_err(|message| libvirt_error(ErrorCode::NO_CONNECT, &message))?;
    let domain = connection.domain_by_uuid(id.into_bytes())?;
    let stream = Stream::new(&connection, flags::STREAM_NONBLOCK)?;
    domain.open_console(None, &stream, if force { flags::CONSOLE_FORCE } else { 0 })?;
    // A stream says nothing when its connection is lost.
    let lost = Mutex::new(wake.clone());
    connection.on_close(move |_| {
        let _ = lock(&lost).send(Wake::Close);
    })?;
    let wake = Mutex::new(wake);
    stream.on_event(flags::STREAM_EVENT_READABLE, move |_| {
        let _ = lock(&wake).send(Wake::Ready);
    })?;
    Ok((connection, stream))
}

/// Moves bytes until the end.
fn pump(
    stream: &Stream,
    wakes: &threads::Receiver<Wake>,
    output: &mpsc::UnboundedSender<Vec<u8>>,
    waiting: &AtomicUsize,
) -> libvirt::Result<()> {
    let mut to_send: Vec<u8> = Vec::new();
    let mut buffer = vec![0; CHUNK];
    // The stream's callback holds a sender, so the channel doesn't end before the stream.
    while let Ok(wake) = wakes.recv() {
        match wake {
            Wake::Close => break,
            Wake::Input(bytes) => to_send.extend(bytes),
            Wake::Ready => {}
        }
        while !to_send.is_empty() {
            let Some(sent) = stream.try_send(&to_send)? else { break };
            to_send.drain(..sent);
            waiting.fetch_sub(sent, Ordering::AcqRel);
        }
        while let Some(length) = stream.try_recv(&mut buffer)? {
            let ended = length == 0 || output.send(buffer[..length].to_vec()).is_err();
            if ended {
                return Ok(());
            }
        }
        let writable = if to_send.is_empty() { 0 } else { flags::STREAM_EVENT_WRITABLE };
        stream.set_events(flags::STREAM_EVENT_READABLE | writable)?;
    }
    Ok(())
}
