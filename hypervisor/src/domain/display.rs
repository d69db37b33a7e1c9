//! A domain's VNC display: a connection to it, and a picture of it.
//!
//! QEMU's VNC server listens where only the node reaches it. On this machine libvirt gives a file descriptor that needs no
//! password. Elsewhere the display is reached through ssh, where that is how the node is reached, or by TCP, where the node's
//! administrator lets QEMU listen on the network (`vnc_listen` in its `qemu.conf`); it gets a password then, for the moment
//! of connecting.

use super::{
    edits::{Edits, child, text_of},
    layers::unreadable,
};
use crate::{
    ErrorKind, Node, Result,
    error::libvirt_error,
    node::QUICK,
    ssh,
    uri::{self, Remote},
};
use libvirt::{Domain, ErrorCode, Stream, flags};
use roxmltree::{Document, Node as Element};
use std::{io::Read, os::unix::net::UnixStream as StdUnixStream, process::Stdio, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    process::{Child, Command},
};
use uuid::Uuid;

/// How long a connection over the network may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How long a password works that was set for connecting, if nobody ends it: clocks of machines differ.
const PASSWORD: Duration = Duration::from_secs(300);
/// How libvirt writes the time: UTC, without a zone.
const TIME: &str = "%Y-%m-%dT%H:%M:%S";
/// A password's end that has passed.
pub(super) const EXPIRED: &str = "1970-01-01T00:00:01";
/// The most that a picture has, in bytes: 8K, three bytes a pixel.
const PICTURE_BYTES: u64 = 128 << 20;

/// Bytes in both directions.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A connection to a domain's VNC server, before the first byte of RFB (RFC 6143).
pub struct Display {
    /// The connection.
    pub stream: Box<dyn Duplex>,
    /// The password that the VNC server asks for, if it asks.
    pub password: Option<String>,
    /// Whether the password was set for this connection: [`Node::end_vnc_password`] once it has been of use.
    pub passing: bool,
    /// The program that carries the connection; it ends when this is dropped.
    _tunnel: Option<Child>,
}

/// A picture of a domain's screen.
pub struct Picture {
    /// `image/png` or `image/x-portable-pixmap`.
    pub mime: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// What a domain's XML says of its displays.
#[derive(Debug, PartialEq, Eq)]
struct Vnc {
    /// Its number among all displays.
    index: u32,
    /// Where it listens; `None`: on a unix socket only.
    address: Option<String>,
    port: Option<u16>,
    password: Password,
}

/// What a VNC server asks for.
#[derive(Debug, PartialEq, Eq)]
enum Password {
    /// Nothing; it can't be told to ask while QEMU runs.
    None,
    /// What somebody has set who isn't Vmyard.
    Theirs(String),
    /// What Vmyard sets.
    Ours,
}

impl Node {
    /// Connects with a running domain's VNC display. `password`: up to 8 characters, to be set for a moment where the
    /// display can be reached by the network alone; callers for one domain take turns. `Unsupported`: it has no such
    /// display, or there is no way to it.
    pub async fn open_display(&self, id: Uuid, password: &str) -> Result<Display> {
        let doing = format!("open the display of domain {id}");
        let (vnc, way) = self.find_display(id, &doing).await?;
        let Some(way) = way else {
            let open = move |domain: &Domain| domain.open_graphics_fd(vnc.index, flags::GRAPHICS_SKIPAUTH);
            let socket = StdUnixStream::from(self.ask_domain(id, &doing, open).await?);
            let socket = socket.set_nonblocking(true).and_then(|()| UnixStream::from_std(socket));
            let socket = socket.map_err(|error| self.error(ErrorKind::Failed, &doing, &error.to_string()))?;
            return Ok(Display { stream: Box::new(socket), password: None, passing: false, _tunnel: None });
        };
        let passing = vnc.password == Password::Ours;
        let password = match vnc.password {
            Password::None => None,
            Password::Theirs(password) => Some(password),
            Password::Ours => {
                let until = jiff::Timestamp::now() + PASSWORD;
                self.set_vnc_password(id, Some(password), &until.strftime(TIME).to_string()).await?;
                Some(password.to_owned())
            }
        };
        let connected = tokio::time::timeout(CONNECT, connect(way)).await;
        let (stream, tunnel) = connected
            .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
            .map_err(|error| self.error(ErrorKind::Failed, &doing, &error.to_string()))?;
        Ok(Display { stream, password, passing, _tunnel: tunnel })
    }

    /// Makes the password worth nothing that a running domain's VNC server has. Connections that are open stay so.
    pub async fn end_vnc_password(&self, id: Uuid) -> Result<()> {
        self.set_vnc_password(id, None, EXPIRED).await
    }

    async fn set_vnc_password(&self, id: Uuid, password: Option<&str>, until: &str) -> Result<()> {
        let (password, until) = (password.map(str::to_owned), until.to_owned());
        self.change_domain(id, QUICK, &format!("set the VNC password of domain {id}"), move |domain| {
            let Some(display) = text_of(&domain.xml(flags::XML_SECURE)?, is_vnc)? else { return Ok(()) };
            domain.update_device(&with_password(&display, password.as_deref(), &until)?, flags::AFFECT_LIVE)
        })
        .await
    }

    /// A picture of a running domain's first screen.
    pub async fn screenshot(&self, id: Uuid) -> Result<Picture> {
        let doing = format!("take a picture of the screen of domain {id}");
        self.bulk(QUICK, &doing, move |connection| {
            let domain: Domain = connection.domain(id)?;
            let stream = Stream::new(connection, 0)?;
            let mime = domain.screenshot(&stream, 0, 0)?;
            let mut bytes = Vec::new();
            (&stream)
                .take(PICTURE_BYTES)
                .read_to_end(&mut bytes)
                .map_err(|error| libvirt_error(ErrorCode::OPERATION_FAILED, &error.to_string()))?;
            stream.finish()?;
            Ok(Picture { mime, bytes })
        })
        .await
    }

    /// Fails unless a running domain has a VNC display that can be reached from here.
    pub async fn must_have_display(&self, id: Uuid) -> Result<()> {
        self.find_display(id, &format!("find the display of domain {id}")).await.map(|_| ())
    }

    /// A running domain's display and, where that is another machine's, the way to it.
    async fn find_display(&self, id: Uuid, doing: &str) -> Result<(Vnc, Option<Way>)> {
        let unsupported = |why: &str| self.error(ErrorKind::Unsupported, doing, why);
        let found = self.ask_domain(id, doing, |domain| vnc_of(&domain.xml(flags::XML_SECURE)?)).await?;
        let vnc = found.ok_or_else(|| unsupported("it has no VNC display"))?;
        let way = match self.is_local() {
            true => None,
            false => Some(way(&vnc, &uri::remote(self.secret_uri())).map_err(unsupported)?),
        };
        Ok((vnc, way))
    }
}

/// How a display on another machine is reached.
#[derive(Debug, PartialEq, Eq)]
enum Way {
    Tcp { host: String, port: u16 },
    Ssh { arguments: Vec<String> },
}

fn way(vnc: &Vnc, remote: &Remote) -> std::result::Result<Way, &'static str> {
    let (Some(address), Some(port)) = (&vnc.address, vnc.port) else {
        return Err("its display is a unix socket on another machine");
    };
    let everywhere = matches!(address.as_str(), "0.0.0.0" | "::");
    let loopback = address == "localhost" || address.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
    if ssh::leads_to(remote) {
        let inner = match (everywhere, address.contains(':')) {
            (true, _) => format!("127.0.0.1:{port}"),
            (false, true) => format!("[{address}]:{port}"),
            (false, false) => format!("{address}:{port}"),
        };
        return Ok(Way::Ssh { arguments: ssh::arguments(remote, &["-W", &inner]) });
    }
    match address {
        _ if loopback => Err("its display listens on its own machine only; reach the node by qemu+ssh, or set \
             vnc_listen in the node's /etc/libvirt/qemu.conf and start the VM anew"),
        _ if everywhere => Ok(Way::Tcp { host: remote.host.clone(), port }),
        address => Ok(Way::Tcp { host: address.clone(), port }),
    }
}

async fn connect(way: Way) -> std::io::Result<(Box<dyn Duplex>, Option<Child>)> {
    match way {
        Way::Tcp { host, port } => {
            let socket = TcpStream::connect((host.as_str(), port)).await?;
            socket.set_nodelay(true)?;
            Ok((Box::new(socket), None))
        }
        Way::Ssh { arguments } => {
            let mut child = Command::new("ssh")
                .args(arguments)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .kill_on_drop(true)
                .spawn()?;
            match (child.stdout.take(), child.stdin.take()) {
                (Some(from), Some(to)) => Ok((Box::new(tokio::io::join(from, to)), Some(child))),
                _ => Err(std::io::ErrorKind::BrokenPipe.into()),
            }
        }
    }
}

fn is_vnc(node: Element<'_, '_>) -> bool {
    node.has_tag_name("graphics") && node.attribute("type") == Some("vnc")
}

fn vnc_of(xml: &str) -> libvirt::Result<Option<Vnc>> {
    let document = Document::parse(xml).map_err(|_| unreadable())?;
    let displays = document.descendants().filter(|node| node.has_tag_name("graphics"));
    let Some((index, display)) = displays.enumerate().find(|(_, node)| is_vnc(*node)) else { return Ok(None) };
    let listen = child(display, "listen").and_then(|listen| listen.attribute("address"));
    let address = display.attribute("listen").or(listen).map(str::to_owned);
    let port = display.attribute("port").and_then(|port| port.parse().ok());
    let password = match (display.attribute("passwd"), display.attribute("passwdValidTo")) {
        (None, _) => Password::None,
        (Some(password), None) => Password::Theirs(password.to_owned()),
        // One with an end is what a domain of Vmyard's has.
        (Some(_), Some(_)) => Password::Ours,
    };
    Ok(Some(Vnc { index: index as u32, address, port, password }))
}

/// The element with another password, and all else as it is.
fn with_password(display: &str, password: Option<&str>, until: &str) -> libvirt::Result<String> {
    let document = Document::parse(display).map_err(|_| unreadable())?;
    let element = document.root_element();
    let mut edits = Edits::default();
    if let Some(password) = password {
        edits.attribute(element, "passwd", password);
    }
    edits.attribute(element, "passwdValidTo", until);
    Ok(edits.apply(display))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vnc(attributes: &str) -> Vnc {
        vnc_of(&format!(
            "<domain><devices><graphics type='spice'/><graphics type='vnc' {attributes}/></devices></domain>"
        ))
        .unwrap()
        .unwrap()
    }

    #[test]
    fn what_a_display_asks_for() {
        let ours =
            vnc("port='5901' autoport='yes' listen='127.0.0.1' passwd='abcdefgh' passwdValidTo='1970-01-01T00:00:01'");
        assert_eq!((ours.index, ours.port, &ours.password), (1, Some(5901), &Password::Ours));
        assert_eq!(vnc("port='5901' passwd='theirs'").password, Password::Theirs("theirs".to_owned()));
        assert_eq!(vnc("port='5901'").password, Password::None);
        assert_eq!(vnc_of("<domain><graphics type='spice'/></domain>").unwrap(), None);
    }

    #[test]
    fn ways_to_another_machine() {
        let to = |uri: &str, attributes: &str| way(&vnc(attributes), &uri::remote(uri));
        let tcp = |host: &str, port| Ok(Way::Tcp { host: host.to_owned(), port });
        assert_eq!(to("qemu+tcp://10.0.0.2/system", "port='5901' listen='0.0.0.0'"), tcp("10.0.0.2", 5901));
        assert_eq!(to("qemu+tls://a.example/system", "port='5901' listen='10.1.0.2'"), tcp("10.1.0.2", 5901));
        assert!(to("qemu+tcp://10.0.0.2/system", "port='5901' listen='127.0.0.1'").is_err());
        assert!(to("qemu+tcp://10.0.0.2/system", "socket='/run/x'").is_err());
        let Ok(Way::Ssh { arguments }) = to("qemu+ssh://root@a/system", "port='5901' listen='127.0.0.1'") else {
            panic!("no ssh")
        };
        assert!(arguments.ends_with(&["-W", "127.0.0.1:5901", "--", "a"].map(str::to_owned)), "{arguments:?}");
    }

    #[test]
    fn only_the_password_changes() {
        let display = "<graphics type='vnc' port='5901' passwd='old' passwdValidTo='1970-01-01T00:00:01'>\n  <listen/></graphics>";
        let changed = with_password(display, Some("new"), "2026-01-01T00:00:00").unwrap();
        assert_eq!(changed, display.replace("old", "new").replace("1970-01-01T00:00:01", "2026-01-01T00:00:00"));
        assert_eq!(with_password(display, None, "1970-01-01T00:00:01").unwrap(), display);
    }
}
