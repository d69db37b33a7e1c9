//! `vmyard vm console`: a terminal on a VM's serial line.

use super::{Name, seen::Seen};
use crate::{client::Client, failure::Failure};
use api::{
    Code,
    console::{GetSerialConsole, SERIAL_PROTOCOL, SerialConsole, SerialNote},
};
use futures::{SinkExt, StreamExt};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use serde_json::Map;
use server::console::asciicast::Cast;
use std::{
    fs,
    io::{self, IsTerminal, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, oneshot};
use tokio_tungstenite::tungstenite::{
    self, Message,
    client::IntoClientRequest,
    http::{HeaderValue, header},
    protocol::frame::coding::CloseCode,
};

/// Ctrl-]
const LEAVE: u8 = 0x1d;
/// How long a connection that broke is tried again, and the pause between two tries.
const AGAIN: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(500);
/// When the server has repeated all: nothing more comes for so long.
const QUIET: Duration = Duration::from_millis(300);
/// And at the latest after so long.
const REPEATED: Duration = Duration::from_secs(3);

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
    let console = client.call(&request)?;
    let recorder = args.record.map(|path| Recorder::begin(path, &console.name)).transpose()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Unreachable(format!("no runtime: {error}")))?;
    let name = console.name.clone();
    let ended = runtime.block_on(attend(client, request, console, recorder));
    // A thread may still wait for a key.
    runtime.shutdown_background();
    let why = ended?;
    eprintln!("\nleft VM {name}: {why}");
    Ok(())
}

/// Attends the line for as long as somebody wants to; a connection that breaks is made again. Returns why it ended.
async fn attend(
    client: &Client,
    mut request: GetSerialConsole,
    console: SerialConsole,
    recorder: Option<Recorder>,
) -> Result<String, Failure> {
    let mut session = Session { socket: connect(client, &console).await?, seen: Seen::default(), recorder };
    eprintln!("VM {}: Ctrl-] leaves", console.name);
    let _raw = Raw::begin();
    let mut keys = Keys::read();
    // Whom it was taken from is not cut off a second time; and by then another VM may have the name.
    (request.force, request.take_over, request.vm) = (false, false, console.vm.to_string());
    let mut ended = None;
    loop {
        let end = match ended.take() {
            Some(end) => end,
            None => session.pass_on(&mut keys).await?,
        };
        let broke = match end {
            End::Left(why) => return Ok(why),
            End::Broke(why) => why,
        };
        eprint!("\r\n[{broke}; trying again]\r\n");
        let again = tokio::select! {
            again = connect_again(client, &request, broke) => again?,
            () = keys.leave() => return Ok("goodbye".to_owned()),
        };
        session.socket = again;
        ended = session.catch_up().await?;
    }
}

/// How a session ended.
enum End {
    /// Somebody left, or the server says why there is no more.
    Left(String),
    /// The connection broke, for all that is known in the middle of it.
    Broke(String),
}

/// Asks for the console again until it is there: a server that is started anew takes its time, and its nodes theirs.
async fn connect_again(client: &Client, request: &GetSerialConsole, broke: String) -> Result<Socket, Failure> {
    let end = Instant::now() + AGAIN;
    loop {
        tokio::time::sleep(PAUSE).await;
        let (caller, request) = (client.clone(), request.clone());
        // The client's calls block.
        let (sender, answer) = oneshot::channel();
        std::thread::spawn(move || sender.send(caller.call(&request)));
        let socket = match answer.await {
            Ok(Ok(console)) => connect(client, &console).await,
            Ok(Err(failure)) => Err(failure),
            Err(_) => Err(Failure::Unreachable("the call went away".to_owned())),
        };
        match socket {
            Ok(socket) => return Ok(socket),
            Err(failure) if !may_pass(&failure) => return Err(failure),
            Err(_) if Instant::now() < end => {}
            Err(Failure::Unreachable(text)) => return Err(Failure::Unreachable(format!("{broke}; {text}"))),
            Err(failure) => return Err(failure),
        }
    }
}

fn may_pass(failure: &Failure) -> bool {
    match failure {
        Failure::Unreachable(_) => true,
        Failure::Problem(problem) => matches!(problem.code, Code::NodeUnavailable | Code::Busy),
        _ => false,
    }
}

type Socket = tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>;

async fn connect(client: &Client, console: &SerialConsole) -> Result<Socket, Failure> {
    let unreachable =
        |error: tungstenite::Error| Failure::Unreachable(format!("the console can't be reached: {error}"));
    let url = client.socket_url(&console.websocket_url)?;
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

/// A connection to the line, and what was shown of it so far.
struct Session {
    socket: Socket,
    seen: Seen,
    recorder: Option<Recorder>,
}

impl Session {
    /// Passes bytes on in both directions, until that ends.
    async fn pass_on(&mut self, keys: &mut Keys) -> Result<End, Failure> {
        loop {
            let message = tokio::select! {
                key = keys.next() => {
                    let sent = self.socket.send(Message::binary(key.bytes)).await;
                    match (key.leaves, sent) {
                        (true, _) => {
                            let _ = self.socket.close(None).await;
                            return Ok(End::Left("goodbye".to_owned()));
                        }
                        (false, Err(error)) => return Ok(End::Broke(format!("the connection broke: {error}"))),
                        (false, Ok(())) => continue,
                    }
                }
                message = self.socket.next() => message,
            };
            match received(message) {
                Received::Said(bytes) => self.show(&bytes)?,
                Received::End(end) => return Ok(end),
                Received::Nothing => {}
            }
        }
    }

    /// Shows of what the server repeats at first only what is new. Returns how the session ended, if it did meanwhile.
    async fn catch_up(&mut self) -> Result<Option<End>, Failure> {
        let (mut repeated, mut ended) = (Vec::new(), None);
        // A VM that says something all the time is never quiet.
        let end = tokio::time::Instant::now() + REPEATED;
        while ended.is_none() {
            let quiet = end.min(tokio::time::Instant::now() + QUIET);
            let Ok(message) = tokio::time::timeout_at(quiet, self.socket.next()).await else { break };
            match received(message) {
                Received::Said(bytes) => repeated.extend_from_slice(&bytes),
                Received::End(end) => ended = Some(end),
                Received::Nothing => {}
            }
        }
        let new = self.seen.new_in(&repeated).to_vec();
        self.show(&new)?;
        Ok(ended)
    }

    fn show(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        let shown = out.write_all(bytes).and_then(|()| out.flush());
        shown.map_err(|error| Failure::Usage(format!("standard output: {error}")))?;
        self.seen.add(bytes);
        match &mut self.recorder {
            Some(recorder) => recorder.say(bytes),
            None => Ok(()),
        }
    }
}

/// What has come from the server.
enum Received {
    /// What the VM has said.
    Said(tungstenite::Bytes),
    /// There is no more.
    End(End),
    Nothing,
}

/// Takes a message in; what the server says beside what the VM does is told at once.
fn received(message: Option<tungstenite::Result<Message>>) -> Received {
    match message {
        Some(Ok(Message::Binary(bytes))) => Received::Said(bytes),
        Some(Ok(Message::Text(text))) => {
            if let Some(text) = serde_json::from_str(&text).ok().and_then(noted) {
                eprint!("\r\n[{text}]\r\n");
            }
            Received::Nothing
        }
        Some(Ok(Message::Close(Some(frame)))) => {
            let why = frame.reason.to_string();
            Received::End(if frame.code == CloseCode::Away { End::Broke(why) } else { End::Left(why) })
        }
        Some(Ok(Message::Close(None))) => Received::End(End::Left("the server has ended it".to_owned())),
        Some(Ok(_)) => Received::Nothing,
        Some(Err(error)) => Received::End(End::Broke(format!("the connection broke: {error}"))),
        None => Received::End(End::Broke("the connection broke".to_owned())),
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

/// What is typed, read on a thread of its own: a terminal can't be waited for otherwise.
struct Keys {
    typed: mpsc::Receiver<Vec<u8>>,
    terminal: bool,
}

/// Some keys.
struct Key {
    /// What goes to the VM.
    bytes: Vec<u8>,
    /// Whether Ctrl-] came after it.
    leaves: bool,
}

impl Keys {
    fn read() -> Keys {
        let (sender, typed) = mpsc::channel(16);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = io::stdin().lock().read(&mut buffer) {
                if sender.blocking_send(buffer[..length].to_vec()).is_err() {
                    break;
                }
            }
        });
        Keys { typed, terminal: io::stdin().is_terminal() }
    }

    /// The next keys. After the end of a file that is typed none come: what comes of it is still shown.
    async fn next(&mut self) -> Key {
        let Some(bytes) = self.typed.recv().await else { return std::future::pending().await };
        match bytes.iter().position(|byte| *byte == LEAVE) {
            // What was typed before it still goes.
            Some(at) if self.terminal => Key { bytes: bytes[..at].to_vec(), leaves: true },
            _ => Key { bytes, leaves: false },
        }
    }

    /// Until somebody leaves. What else is typed meanwhile goes nowhere.
    async fn leave(&mut self) {
        while !self.next().await.leaves {}
    }
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
