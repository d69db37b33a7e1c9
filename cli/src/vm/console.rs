//! `vmyard vm console`: a terminal on a VM's serial line.

use super::Name;
use crate::{client::Client, failure::Failure};
use api::console::{GetSerialConsole, SERIAL_PROTOCOL, SerialConsole, SerialNote};
use futures::{SinkExt, StreamExt};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use serde_json::Map;
use server::console::asciicast::Cast;
use std::{
    fs,
    io::{self, IsTerminal, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::{
    self, Message,
    client::IntoClientRequest,
    http::{HeaderValue, header},
};

/// Ctrl-]
const LEAVE: u8 = 0x1d;

/// `vmyard vm console`
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    name: Name,
    /// Only watch
    #[arg(long)]
    read_only: bool,
    /// Type, though somebody else does
    #[arg(long, conflicts_with = "read_only")]
    take_over: bool,
    /// Wait for the VM's start, and stay when it goes off
    #[arg(long)]
    wait: bool,
    /// Cut who has the line outside of Vmyard (virsh console)
    #[arg(long)]
    force: bool,
    /// Write what is shown to this new file, as an asciicast (asciinema play FILE)
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Keep what is shown as a recording on the server: vmyard recording list
    #[arg(long)]
    record_on_server: bool,
}

/// Attends the line until somebody leaves, or it ends.
pub fn run(client: &Client, args: Args) -> Result<(), Failure> {
    let request = GetSerialConsole {
        vm: args.name.vm,
        read_only: args.read_only,
        take_over: args.take_over,
        wait_for_start: args.wait,
        force: args.force,
        record: args.record_on_server,
    };
    let console: SerialConsole = client.call(&request)?;
    let recorder = args.record.map(|path| Recorder::begin(path, &console.name)).transpose()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Unreachable(format!("no runtime: {error}")))?;
    let ended = runtime.block_on(attend(&console, recorder));
    // A thread may still wait for a key.
    runtime.shutdown_background();
    let why = ended?;
    eprintln!("\nleft VM {}: {why}", console.name);
    Ok(())
}

type Socket = tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>;

async fn connect(url: &str) -> Result<Socket, Failure> {
    let unreachable =
        |error: tungstenite::Error| Failure::Unreachable(format!("the console can't be reached: {error}"));
    let mut request = url.into_client_request().map_err(unreachable)?;
    request.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SERIAL_PROTOCOL));
    match tokio_tungstenite::connect_async_with_config(request, None, true).await {
        Ok((socket, _)) => Ok(socket),
        Err(tungstenite::Error::Http(response)) => {
            let problem = response.body().as_ref().and_then(|body| serde_json::from_slice(body).ok());
            Err(problem.map_or_else(
                || Failure::Unreachable(format!("the console's address answered {}", response.status())),
                |problem| Failure::Problem(Box::new(problem)),
            ))
        }
        Err(error) => Err(unreachable(error)),
    }
}

/// Passes bytes on in both directions; returns why it ended.
async fn attend(console: &SerialConsole, mut recorder: Option<Recorder>) -> Result<String, Failure> {
    let mut socket = connect(&console.websocket_url).await?;
    eprintln!("VM {}: Ctrl-] leaves", console.name);
    let _raw = Raw::begin();
    let mut keys = keys();
    let mut typing = true;
    loop {
        let message = tokio::select! {
            key = keys.recv(), if typing => match key {
                Some(bytes) => {
                    // What was typed before it still goes.
                    let (bytes, leaves) = match bytes.iter().position(|byte| *byte == LEAVE) {
                        Some(at) if io::stdin().is_terminal() => (bytes[..at].to_vec(), true),
                        _ => (bytes, false),
                    };
                    let sent = socket.send(Message::binary(bytes)).await;
                    if leaves || sent.is_err() {
                        let _ = socket.close(None).await;
                        return Ok("goodbye".to_owned());
                    }
                    continue;
                }
                // The end of a file that is typed: what comes of it is shown.
                None => {
                    typing = false;
                    continue;
                }
            },
            message = socket.next() => message,
        };
        match message {
            Some(Ok(Message::Binary(bytes))) => {
                show(&bytes)?;
                if let Some(recorder) = &mut recorder {
                    recorder.say(&bytes)?;
                }
            }
            Some(Ok(Message::Text(text))) => {
                if let Some(text) = serde_json::from_str(&text).ok().and_then(noted) {
                    eprint!("\r\n[{text}]\r\n");
                }
            }
            Some(Ok(Message::Close(frame))) => {
                return Ok(frame.map_or_else(|| "the server has ended it".to_owned(), |frame| frame.reason.to_string()));
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => return Ok(format!("the connection broke: {error}")),
            None => return Ok("the connection broke".to_owned()),
        }
    }
}

/// A note for people; none for what goes without saying.
fn noted(note: SerialNote) -> Option<String> {
    match note {
        SerialNote::Writer { you: false, who: Some(who) } => {
            Some(format!("{who} is typing; to type yourself, leave and come with --take-over"))
        }
        SerialNote::Refused { why } => Some(format!("not typed: {why}")),
        SerialNote::Power { on: false } => Some("the VM is off; waiting for its start".to_owned()),
        _ => None,
    }
}

fn show(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let shown = out.write_all(bytes).and_then(|()| out.flush());
    shown.map_err(|error| Failure::Usage(format!("standard output: {error}")))
}

/// What is typed, read on a thread of its own: a terminal can't be waited for otherwise.
fn keys() -> mpsc::Receiver<Vec<u8>> {
    let (sender, keys) = mpsc::channel(16);
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = io::stdin().lock().read(&mut buffer) {
            if sender.blocking_send(buffer[..length].to_vec()).is_err() {
                break;
            }
        }
    });
    keys
}

/// The terminal in raw mode: each key goes to the VM as it is. As it was before, once this is dropped.
struct Raw(Termios);

impl Raw {
    /// `None` where there is no terminal.
    fn begin() -> Option<Raw> {
        let before = tcgetattr(io::stdin()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw).ok()?;
        Some(Raw(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}

/// A recording on this machine.
struct Recorder {
    file: fs::File,
    path: PathBuf,
    cast: Cast,
}

impl Recorder {
    fn begin(path: PathBuf, name: &str) -> Result<Recorder, Failure> {
        let open = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let file = open.map_err(|error| Failure::Usage(format!("--record {}: {error}", path.display())))?;
        let (cast, header) = Cast::begin(&format!("{name}: serial line"), api::Time::now().0 / 1000, Map::new());
        let mut recorder = Recorder { file, path, cast };
        recorder.write(&header)?;
        Ok(recorder)
    }

    fn say(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        match self.cast.say(bytes) {
            Some(line) => self.write(&line),
            None => Ok(()),
        }
    }

    fn write(&mut self, text: &str) -> Result<(), Failure> {
        let written = self.file.write_all(text.as_bytes());
        written.map_err(|error| Failure::Usage(format!("--record {}: {error}", self.path.display())))
    }
}
