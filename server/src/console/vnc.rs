//! Screens: VNC clients on one side, QEMU's VNC server on the other, and the bytes between them.

use super::{
    TICKET, outlived,
    rfb::{self, Greeted, Security},
};
use crate::{App, Error, Result, auth::Caller, sync::lock};
use hypervisor::{Node, domain::Display};
use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, Weak},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};
use uuid::Uuid;

/// How long a client may take over the first messages.
const GREET: Duration = Duration::from_secs(10);
/// Clients that may be at their first messages on one port: whoever connects and says nothing keeps out nobody.
const GREETED_MAX: usize = 8;
/// Wrong passwords until the port closes.
const WRONG_MAX: usize = 5;
/// Ports that may wait for their clients.
const PORTS_MAX: usize = 500;
/// Bytes moved at once.
const CHUNK: usize = 64 << 10;

/// Whose turn it is to set the password of a VM's display, and to use it.
#[derive(Default)]
pub(super) struct Turns(Mutex<HashMap<Uuid, Weak<tokio::sync::Mutex<()>>>>);

impl Turns {
    fn of(&self, vm: Uuid) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = lock(&self.0);
        turns.retain(|_, turn| turn.strong_count() > 0);
        if let Some(turn) = turns.get(&vm).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::default();
        turns.insert(vm, Arc::downgrade(&turn));
        turn
    }
}

/// A port for one VNC client.
pub struct Port {
    /// Where it listens.
    pub address: SocketAddr,
    /// What the client is asked for: 8 random letters and digits.
    pub password: String,
}

/// Ports that may yet be opened.
static PORTS: Semaphore = Semaphore::const_new(PORTS_MAX);

/// Opens a port for one VNC client. It closes when nobody has come with the password within a minute, or when the client
/// leaves.
pub async fn listen(app: &App, node: &Node, vm: Uuid, caller: &Caller) -> Result<Port> {
    let waiting = PORTS.try_acquire().map_err(|_| {
        Error::NoCapacity(format!(
            "{PORTS_MAX} ports for VNC clients wait for them; each closes after {} s",
            TICKET.as_secs()
        ))
    })?;
    let ip: IpAddr = app.config.console_listen.unwrap_or(app.config.listen.ip());
    let failed = |error| Error::Internal(format!("open a port for VNC on {ip}: {error}"));
    let listener = TcpListener::bind((ip, 0)).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let password = crate::seed::random_text(8)?;
    let (app, node, caller, expected) = (app.clone(), node.clone(), caller.clone(), password.clone());
    tokio::spawn(async move {
        let client = tokio::select! {
            client = tokio::time::timeout(TICKET, await_client(listener, &expected)) => client.ok().flatten(),
            () = app.consoles.stop.cancelled() => None,
        };
        drop(waiting);
        if let Some(client) = client {
            session(&app, &node, vm, &caller, client).await;
        }
    });
    Ok(Port { address, password })
}

/// The first client that knows the password; the port is closed then.
async fn await_client(listener: TcpListener, password: &str) -> Option<Greeted<TcpStream>> {
    let mut greeting = JoinSet::new();
    let mut wrong = 0;
    loop {
        tokio::select! {
            accepted = listener.accept(), if greeting.len() < GREETED_MAX => {
                let Ok((stream, _)) = accepted else { continue };
                let password = password.to_owned();
                greeting.spawn(async move {
                    tune(&stream);
                    tokio::time::timeout(GREET, rfb::greet(stream, Security::Password(&password))).await
                });
            }
            Some(greeted) = greeting.join_next() => match greeted {
                Ok(Ok(Ok(client))) => return Some(client),
                Ok(Ok(Err(error))) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                    wrong += 1;
                    if wrong >= WRONG_MAX {
                        return None;
                    }
                }
                // Silence, nonsense, or gone.
                _ => {}
            },
        }
    }
}

/// What a console's connection needs: keys that leave at once, and an end when the other machine is gone.
pub fn tune(stream: &TcpStream) {
    let alive = socket2::TcpKeepalive::new().with_time(Duration::from_secs(30)).with_interval(Duration::from_secs(10));
    // As far as the system can.
    let _ = stream.set_nodelay(true);
    let _ = socket2::SockRef::from(stream).set_tcp_keepalive(&alive);
}

/// A browser's session, over a WebSocket whose ticket has let it in; it is asked for no password. Returns why it ended.
pub async fn browse<S: AsyncRead + AsyncWrite + Unpin>(
    app: &App,
    node: &Node,
    vm: Uuid,
    caller: &Caller,
    stream: S,
) -> String {
    match tokio::time::timeout(GREET, rfb::greet(stream, Security::None)).await {
        Ok(Ok(client)) => session(app, node, vm, caller, client).await,
        Ok(Err(error)) => format!("the client doesn't speak RFB: {error}"),
        Err(_) => format!("the client has said nothing for {} s", GREET.as_secs()),
    }
}

/// Connects a client with the display, to the end of either. Returns why it ended.
async fn session<S: AsyncRead + AsyncWrite + Unpin>(
    app: &App,
    node: &Node,
    vm: Uuid,
    caller: &Caller,
    mut client: Greeted<S>,
) -> String {
    let mut display = match open(app, node, vm).await {
        Ok(display) => display,
        Err(error) => {
            tracing::warn!(%error, %vm, "a client's display can't be opened");
            // It may be gone by itself.
            let _ = client.refuse(&error.to_string()).await;
            return error.to_string();
        }
    };
    let relay = async {
        let mut client = client.accept().await?;
        // Its first message says whether others may watch (RFC 6143, 7.3.1). They may: else QEMU would throw them out.
        client.read_u8().await?;
        display.stream.write_all(&[1]).await?;
        let (from_client, to_client) = tokio::io::split(client);
        let (from_display, to_display) = tokio::io::split(&mut display.stream);
        tokio::select! {
            ended = pass_on(from_client, to_display) => ended.map(|()| "the client has left"),
            ended = pass_on(from_display, to_client) => ended.map(|()| "the VM's display has ended"),
        }
    };
    tokio::select! {
        ended = relay => match ended {
            Ok(why) => why.to_owned(),
            Err(error) => format!("the connection broke: {error}"),
        },
        why = outlived(app, caller) => why,
        () = app.consoles.stop.cancelled() => "the server stops".to_owned(),
    }
}

/// Passes bytes on as they come, to their end.
async fn pass_on(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> std::io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        match from.read(&mut buffer).await? {
            0 => return Ok(()),
            length => to.write_all(&buffer[..length]).await?,
        }
        to.flush().await?;
    }
}

/// Comes in to the display of a VM.
async fn open(app: &App, node: &Node, vm: Uuid) -> Result<Display> {
    let turn = app.consoles.turns.of(vm);
    let _turn = turn.lock().await;
    let mut display = node.open_display(vm, &crate::seed::random_text(8)?).await?;
    let came = tokio::time::timeout(GREET, rfb::come_in(&mut display.stream, display.password.as_deref())).await;
    if display.passing
        && let Err(error) = node.end_vnc_password(vm).await
    {
        tracing::warn!(%error, %vm, "the password of its display ends by itself only");
    }
    let failed = |why: String| Error::Unsupported {
        detail: format!("the display of VM {} can't be used: {why}", app.index.name_of(vm)),
        hint: None,
    };
    match came {
        Ok(Ok(())) => Ok(display),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(_) => Err(failed(format!("its VNC server has said nothing for {} s", GREET.as_secs()))),
    }
}
