//! What is no method: the WebSockets of consoles (RFC 6455), and the download of recordings.

use super::{
    browser,
    http::{Shared, authenticate, authenticate_reader, respond, respond_error},
};
use crate::{
    App, Error, Result, auth,
    auth::Caller,
    console::{
        lines::{self, Piece, Session},
        outlived,
        recordings::{self, Recorder},
        tickets::{Purpose, Serial},
        vnc,
    },
};
use api::{
    Access,
    console::{SERIAL_PROTOCOL, SerialNote},
};
use axum::{
    Extension,
    body::{Body, Bytes},
    extract::{
        Path, State,
        rejection::PathRejection,
        ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code, rejection::WebSocketUpgradeRejection},
    },
    http::{HeaderMap, StatusCode, Uri, header},
    response::Response,
};
use futures::{Sink, Stream};
use hypervisor::Node;
use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, MissedTickBehavior},
};
use uuid::Uuid;

/// The largest message that a client may send: what is pasted into a terminal, or a VNC client's clipboard.
const MESSAGE_MAX: usize = 1 << 20;
/// How long a client may take to receive one message.
const SEND: Duration = Duration::from_secs(20);
/// How often a client is asked for a sign of life.
const PING: Duration = Duration::from_secs(20);
/// How long it may give none.
const SILENCE: Duration = Duration::from_secs(60);
/// The longest reason in a close frame, in bytes (RFC 6455, 5.5).
const REASON_MAX: usize = 123;

type Upgrade = std::result::Result<WebSocketUpgrade, WebSocketUpgradeRejection>;
type Segment = std::result::Result<Path<String>, PathRejection>;

/// `GET /api/vnc-console/<vm>?ticket=…`
pub(super) async fn vnc(
    State(shared): State<Arc<Shared>>,
    Extension(request_id): Extension<Uuid>,
    vm: Segment,
    uri: Uri,
    headers: HeaderMap,
    upgrade: Upgrade,
) -> Response {
    let app = shared.app.clone();
    let admitted = async {
        let (upgrade, admitted) = admit(&app, vm, &uri, &headers, upgrade).await?;
        match admitted.purpose {
            Purpose::Vnc => Ok((upgrade, admitted)),
            Purpose::Serial(_) => Err(Error::Unauthenticated("this ticket is for the serial line; ask for another")),
        }
    };
    let open = app.consoles.open.token();
    match admitted.await {
        Ok((upgrade, Admitted { node, vm, caller, .. })) => upgrade
            // What noVNC before 1.0 and others of its time ask for.
            .protocols(["binary"])
            .on_upgrade(move |socket| async move {
                let _open = open;
                let mut bytes = Messages { socket, rest: Bytes::new() };
                let why = vnc::browse(&app, &node, vm, &caller, &mut bytes).await;
                tracing::info!(%vm, why, "a VNC session has ended");
                close(&app, &mut bytes.socket, &why).await;
            }),
        Err(error) => respond_error(&error, request_id),
    }
}

/// `GET /api/serial-console/<vm>?ticket=…`
pub(super) async fn serial(
    State(shared): State<Arc<Shared>>,
    Extension(request_id): Extension<Uuid>,
    vm: Segment,
    uri: Uri,
    headers: HeaderMap,
    upgrade: Upgrade,
) -> Response {
    let app = shared.app.clone();
    let admitted = async {
        let (upgrade, Admitted { node, vm, caller, purpose }) = admit(&app, vm, &uri, &headers, upgrade).await?;
        let Purpose::Serial(options) = purpose else {
            return Err(Error::Unauthenticated("this ticket is for the screen; ask for another"));
        };
        // Before the client is told that it is in, so that an error is an answer that says what to do.
        let session = lines::join(&app, &node, vm, &caller, options).await.map_err(in_use)?;
        let recorder = recorder(&app, vm, &caller, options)?;
        Ok((upgrade, session, recorder, vm, caller))
    };
    let open = app.consoles.open.token();
    match admitted.await {
        Ok((upgrade, session, recorder, vm, caller)) => {
            upgrade.protocols([SERIAL_PROTOCOL]).on_upgrade(move |mut socket| async move {
                let _open = open;
                let notes = socket.protocol().is_some();
                let why = tokio::select! {
                    why = attend(&mut socket, session, notes, recorder) => why,
                    why = outlived(&app, &caller) => why,
                };
                tracing::info!(%vm, why, "a session on a serial line has ended");
                close(&app, &mut socket, &why).await;
            })
        }
        Err(error) => respond_error(&error, request_id),
    }
}

/// `GET /api/recordings/<id>`
pub(super) async fn recording(
    State(shared): State<Arc<Shared>>,
    Extension(request_id): Extension<Uuid>,
    id: Segment,
    headers: HeaderMap,
) -> Response {
    let found = async {
        let caller = authenticate_reader(&shared.app, &headers).await?;
        if caller.role < Access::Administrator {
            let needs = Access::Administrator.as_str();
            return Err(Error::Forbidden { method: "the download of a recording".to_owned(), needs });
        }
        recordings::open(&shared.app.config.data_dir, id_of(id, "recording")?)
    };
    match found.await {
        Ok(file) => {
            let bytes = tokio_util::io::ReaderStream::new(tokio::fs::File::from_std(file));
            let mut response = respond(StatusCode::OK, "application/x-asciicast", String::new());
            *response.body_mut() = Body::from_stream(bytes);
            let name = header::HeaderValue::from_static("attachment; filename=\"recording.cast\"");
            response.headers_mut().insert(header::CONTENT_DISPOSITION, name);
            response
        }
        Err(error) => respond_error(&error, request_id),
    }
}

/// The id in a path.
fn id_of(segment: Segment, kind: &'static str) -> Result<Uuid> {
    let text = segment.map_or_else(|_| String::new(), |Path(text)| text);
    text.parse().map_err(|_| Error::not_found(kind, text))
}

/// Who comes in, to which VM, and for what.
struct Admitted {
    node: Node,
    vm: Uuid,
    purpose: Purpose,
    caller: Caller,
}

/// Lets somebody in by a ticket: from a page of this server or from no page at all, and as the one who asked for it where the
/// client says who it is.
async fn admit(
    app: &App,
    vm: Segment,
    uri: &Uri,
    headers: &HeaderMap,
    upgrade: Upgrade,
) -> Result<(WebSocketUpgrade, Admitted)> {
    let upgrade = upgrade
        .map_err(|why| Error::field("", format!("this address is for WebSocket clients (RFC 6455) alone: {why}")))?;
    let upgrade = upgrade.max_message_size(MESSAGE_MAX).max_frame_size(MESSAGE_MAX).write_buffer_size(0);
    browser::page(headers)?;
    let vm = id_of(vm, "VM")?;
    let mut parameters = uri.query().unwrap_or_default().split('&');
    let secret = parameters.find_map(|parameter| parameter.strip_prefix("ticket="));
    let secret =
        secret.ok_or(Error::Unauthenticated("a ticket is needed; get-vnc-console and get-serial-console give one"))?;
    let ticket = app.consoles.tickets.redeem(secret, vm)?;
    if headers.contains_key(header::AUTHORIZATION) || browser::session(headers).is_some() {
        let caller = authenticate(app, headers).await?;
        if caller.token != ticket.caller.token {
            return Err(Error::Unauthenticated("this ticket was given to somebody else; ask for one of your own"));
        }
    }
    auth::still_works(&app.store, &ticket.caller).await?;
    let node = app.node(&app.index.resolve(&vm.to_string())?.1.node)?;
    Ok((upgrade, Admitted { node, vm, purpose: ticket.purpose, caller: ticket.caller }))
}

/// Who has the line is not Vmyard, which would have shared it.
fn in_use(error: Error) -> Error {
    match error {
        Error::Node(cause) if cause.kind == hypervisor::ErrorKind::Busy => Error::WrongState {
            detail: "somebody has the VM's serial line outside of Vmyard (virsh console?)".to_owned(),
            hint: Some("ask for the console with force to cut them off".to_owned()),
        },
        other => other,
    }
}

fn recorder(app: &App, vm: Uuid, caller: &Caller, options: Serial) -> Result<Option<Recorder>> {
    let begin = |id| Recorder::begin(&app.config.data_dir, id, vm, &app.index.name_of(vm), &caller.name);
    options.record.map(begin).transpose()
}

/// A session on a serial line, to its end; returns why.
async fn attend(socket: &mut WebSocket, mut session: Session, notes: bool, mut recorder: Option<Recorder>) -> String {
    let mut pings = tokio::time::interval(PING);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard = Instant::now();
    loop {
        let message = tokio::select! {
            received = socket.recv() => {
                heard = Instant::now();
                let answer = match received {
                    Some(Ok(Message::Binary(bytes))) => session.type_in(&bytes),
                    Some(Ok(Message::Text(text))) if notes => noted(&session, &text),
                    // Terminals in browsers send what is typed as text.
                    Some(Ok(Message::Text(text))) => session.type_in(text.as_bytes()),
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => Ok(()),
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return "the client has left".to_owned(),
                };
                match answer {
                    Err(why) if notes => note(&SerialNote::Refused { why }),
                    _ => continue,
                }
            }
            piece = session.next() => match piece {
                Piece::Bytes(bytes) => {
                    if let Some(recording) = &mut recorder
                        && let Err(error) = recording.say(&bytes)
                    {
                        tracing::error!(%error, "a recording of a serial line ends before its session");
                        recorder = None;
                    }
                    Message::Binary(bytes.into())
                }
                Piece::Note(said) if notes => note(&said),
                Piece::Note(_) => continue,
                Piece::End(why) => return why,
                Piece::TooSlow => return "the client is too slow: it is more than 1 MiB behind".to_owned(),
            },
            _ = pings.tick() => {
                if heard.elapsed() > SILENCE {
                    return "the client gives no sign of life".to_owned();
                }
                Message::Ping(Bytes::new())
            }
        };
        match tokio::time::timeout(SEND, socket.send(message)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return "the client has left".to_owned(),
            Err(_) => return format!("the client has received nothing for {} s", SEND.as_secs()),
        }
    }
}

fn note(note: &SerialNote) -> Message {
    Message::Text(serde_json::to_string(note).unwrap_or_default().into())
}

/// What a client says about its session.
fn noted(session: &Session, text: &str) -> std::result::Result<(), String> {
    match serde_json::from_str(text) {
        Ok(SerialNote::TakeOver) => session.take_over(),
        Ok(SerialNote::Release) => {
            session.release();
            Ok(())
        }
        _ => Err("text frames are notes here: {\"type\": \"take-over\"} or {\"type\": \"release\"}".to_owned()),
    }
}

/// Says goodbye, with the reason, as far as the client takes it in. A server that stops is away, which says that it may come back.
async fn close(app: &App, socket: &mut WebSocket, why: &str) {
    let end = (0..=why.len().min(REASON_MAX)).rev().find(|end| why.is_char_boundary(*end)).unwrap_or(0);
    let code = if app.consoles.stop.is_cancelled() { close_code::AWAY } else { close_code::NORMAL };
    let frame = CloseFrame { code, reason: why[..end].into() };
    let _ = tokio::time::timeout(Duration::from_secs(2), socket.send(Message::Close(Some(frame)))).await;
}

/// The bytes of a WebSocket's binary messages.
struct Messages {
    socket: WebSocket,
    /// What was received and not read.
    rest: Bytes,
}

impl AsyncRead for Messages {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(Pin::new(&mut self.socket).poll_next(context)) {
                Some(Ok(Message::Binary(bytes))) => self.rest = bytes,
                Some(Ok(Message::Text(_))) => {
                    return Poll::Ready(Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "RFB is sent in binary frames",
                    )));
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Close(_))) | None => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
            }
        }
        let length = self.rest.len().min(buffer.remaining());
        buffer.put_slice(&self.rest.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Messages {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut socket = Pin::new(&mut self.socket);
        ready!(socket.as_mut().poll_ready(context)).map_err(io::Error::other)?;
        let message = Message::Binary(Bytes::copy_from_slice(bytes));
        socket.start_send(message).map_err(io::Error::other)?;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context).map_err(io::Error::other)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The close frame comes after, with the reason.
        self.poll_flush(context)
    }
}
