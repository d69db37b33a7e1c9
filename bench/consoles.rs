//! Consoles beside what they stand on: a key on a serial line and its pty, a screen and QEMU's own socket.

use crate::{
    lab::{Lab, Socket, TestVm},
    table::{beside, extra, timed},
};
use libvirt::{Connect, flags};
use rustix::termios::{self, OptionalActions, SpecialCodeIndex};
use serde_json::json;
use std::{
    fs::File,
    io::{Read, Write},
    net::TcpStream,
    os::{fd::OwnedFd, unix::net::UnixStream},
    time::{Duration, Instant},
};

/// Keys that are pressed on each, and echoed by the guest, which takes no more than 127 for a name.
const KEYS: usize = 50;
/// Whole screens that are asked for in a row, and how often.
const SCREENS: usize = 10;
const ROUNDS: usize = 4;
/// QEMU looks once a second whether somebody has opened a line; a busy machine takes longer.
const OPENED: Duration = Duration::from_secs(4);

/// A key's way to the guest and back, and how fast a screen comes.
pub fn all(lab: &Lab, raw: &Connect) {
    let vm = lab.create("consoles").start().ready();
    keys(&vm);
    screen(&vm, raw);
}

/// A pty as a program has it that passes every key on: without that, its own line discipline would keep them for a whole line.
/// A read ends after ten seconds.
fn raw_pty(path: &str) -> File {
    let pty = File::options().read(true).write(true).open(path).unwrap();
    let mut settings = termios::tcgetattr(&pty).unwrap();
    settings.make_raw();
    settings.special_codes[SpecialCodeIndex::VMIN] = 0;
    settings.special_codes[SpecialCodeIndex::VTIME] = 100;
    termios::tcsetattr(&pty, OptionalActions::Now, &settings).unwrap();
    pty
}

fn keys(vm: &TestVm<'_>) {
    let domain = vm.created["domain"].as_str().unwrap();
    let pty = vm.lab.node.virsh(&["ttyconsole", domain]);
    crate::lab::eventually("the guest asks who comes", Duration::from_secs(60), || {
        vm.serial_log().trim_end().ends_with("login:").then_some(())
    });
    let (mut theirs, mut ours) = (Vec::new(), Vec::new());
    // Not both at once: each would take the other's bytes.
    {
        let mut line = raw_pty(&pty);
        std::thread::sleep(OPENED);
        let mut press = |key: u8| {
            line.write_all(&[key]).unwrap();
            let mut buffer = [0; 256];
            loop {
                let length = line.read(&mut buffer).unwrap();
                assert!(length > 0, "no echo: {}", vm.serial_log());
                if buffer[..length].contains(&key) {
                    return;
                }
            }
        };
        theirs.extend((0..KEYS).map(|n| timed(|| press(b'a' + (n % 20) as u8)).1));
    }
    let console = vm.ok("get-serial-console", json!({}));
    let mut socket = Socket::open(console["websocket_url"].as_str().unwrap()).unwrap();
    std::thread::sleep(OPENED);
    while socket.receive(Duration::from_millis(100)) {}
    for n in 0..KEYS {
        let key = b'a' + (n % 20) as u8;
        socket.bytes.clear();
        ours.push(
            timed(|| {
                socket.send(&[key]);
                while !socket.bytes.contains(&key) {
                    assert!(socket.receive(Duration::from_secs(10)), "no echo");
                }
            })
            .1,
        );
    }
    extra("a key on the serial line and its echo", ours, theirs, Duration::from_millis(5));
}

/// Comes in to a VNC server that asks for nothing; returns the screen's size.
fn come_in(stream: &mut (impl Read + Write)) -> (u16, u16) {
    let take = |stream: &mut dyn Read, length: usize| {
        let mut bytes = vec![0; length];
        stream.read_exact(&mut bytes).unwrap();
        bytes
    };
    take(stream, 12);
    stream.write_all(b"RFB 003.008\n").unwrap();
    let kinds = take(stream, 1)[0];
    take(stream, kinds.into());
    stream.write_all(&[1]).unwrap();
    take(stream, 4);
    stream.write_all(&[1]).unwrap();
    let init = take(stream, 24);
    let name = u32::from_be_bytes(init[20..24].try_into().unwrap());
    take(stream, name as usize);
    // Raw, the one encoding that needs no decoder here.
    stream.write_all(&[2, 0, 0, 1, 0, 0, 0, 0]).unwrap();
    (u16::from_be_bytes([init[0], init[1]]), u16::from_be_bytes([init[2], init[3]]))
}

/// Asks for a whole screen; returns how long it takes from its first byte to its last. Before the first QEMU waits for its timer.
fn whole(stream: &mut (impl Read + Write), (width, height): (u16, u16)) -> Duration {
    let ([w, v], [h, i]) = (width.to_be_bytes(), height.to_be_bytes());
    stream.write_all(&[3, 0, 0, 0, 0, 0, w, v, h, i]).unwrap();
    let mut head = [0; 4];
    stream.read_exact(&mut head).unwrap();
    let first = Instant::now();
    assert_eq!(head[0], 0, "an update");
    for _ in 0..u16::from_be_bytes([head[2], head[3]]) {
        let mut rectangle = [0; 12];
        stream.read_exact(&mut rectangle).unwrap();
        let side = |at: usize| usize::from(u16::from_be_bytes([rectangle[at], rectangle[at + 1]]));
        assert_eq!(rectangle[8..], [0; 4], "raw");
        let mut pixels = vec![0; side(4) * side(6) * 4];
        stream.read_exact(&mut pixels).unwrap();
    }
    first.elapsed()
}

/// A WebSocket as a stream of bytes.
struct Bytes(Socket);

impl Read for Bytes {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.0.bytes.is_empty() {
            assert!(self.0.receive(Duration::from_secs(10)), "nothing comes");
        }
        let length = buffer.len().min(self.0.bytes.len());
        buffer[..length].copy_from_slice(&self.0.bytes[..length]);
        self.0.bytes.drain(..length);
        Ok(length)
    }
}

impl Write for Bytes {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.send(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn screen(vm: &TestVm<'_>, raw: &Connect) {
    let domain = raw.domain_by_name(vm.created["domain"].as_str().unwrap()).unwrap();
    let fd: OwnedFd = domain.open_graphics_fd(0, flags::GRAPHICS_SKIPAUTH).unwrap();
    let mut bare = UnixStream::from(fd);
    let console = vm.ok("get-vnc-console", json!({}));
    let mut socket = Bytes(Socket::open(console["websocket_url"].as_str().unwrap()).unwrap());
    let console = vm.ok("get-vnc-console", json!({}));
    let mut client = client(&console);
    let size = come_in(&mut bare);
    assert_eq!((come_in(&mut socket), after_password(&mut client)), (size, size));
    // QEMU sends a screen when its timer says so, to all who wait by then: those who take turns would be paced differently. So one at a
    // time, some in a row; the first of them is warm-up.
    let (mut bare_all, mut socket_all, mut client_all) = (Screens::default(), Screens::default(), Screens::default());
    for _ in 0..ROUNDS {
        bare_all.take(&mut bare, size);
        socket_all.take(&mut socket, size);
        client_all.take(&mut client, size);
    }
    // 0.9 of the throughput is 1.11 of the time.
    beside("whole screens by WebSocket", socket_all.whole, bare_all.whole.clone(), 1.0 / 0.9);
    beside("whole screens by a VNC client", client_all.whole, bare_all.whole, 1.0 / 0.9);
    let copied = Duration::from_millis(2);
    extra("  its bytes by WebSocket", socket_all.bytes, bare_all.bytes.clone(), copied);
    extra("  its bytes by a VNC client", client_all.bytes, bare_all.bytes, copied);
}

/// How long screens took: from the request, and from the first byte to the last.
#[derive(Default)]
struct Screens {
    whole: Vec<Duration>,
    bytes: Vec<Duration>,
}

impl Screens {
    fn take(&mut self, stream: &mut (impl Read + Write), size: (u16, u16)) {
        whole(stream, size);
        for _ in 0..SCREENS {
            let (bytes, time) = timed(|| whole(stream, size));
            self.whole.push(time);
            self.bytes.push(bytes);
        }
    }
}

/// A VNC client's connection, up to where it has given its password.
fn client(console: &serde_json::Value) -> TcpStream {
    let port = u16::try_from(console["port"].as_u64().unwrap()).unwrap();
    let mut stream = TcpStream::connect((console["host"].as_str().unwrap(), port)).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut bytes = [0; 16];
    stream.read_exact(&mut bytes[..12]).unwrap();
    stream.write_all(b"RFB 003.008\n").unwrap();
    stream.read_exact(&mut bytes[..2]).unwrap();
    stream.write_all(&[2]).unwrap();
    stream.read_exact(&mut bytes).unwrap();
    stream.write_all(&answer(&bytes, console["password"].as_str().unwrap())).unwrap();
    stream
}

/// DES of the challenge, by OpenSSL: the password's bytes have their bits the other way round.
fn answer(challenge: &[u8; 16], password: &str) -> Vec<u8> {
    let key: String = password.bytes().map(|byte| format!("{:02x}", byte.reverse_bits())).collect();
    let mut child = std::process::Command::new("openssl")
        .args(["enc", "-des-ecb", "-nopad", "-K", &key, "-provider", "legacy", "-provider", "default"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(challenge).unwrap();
    child.wait_with_output().unwrap().stdout
}

fn after_password(stream: &mut TcpStream) -> (u16, u16) {
    let mut bytes = [0; 24];
    stream.read_exact(&mut bytes[..4]).unwrap();
    assert_eq!(bytes[..4], [0; 4], "the password");
    stream.write_all(&[1]).unwrap();
    stream.read_exact(&mut bytes).unwrap();
    let mut name = vec![0; u32::from_be_bytes(bytes[20..24].try_into().unwrap()) as usize];
    stream.read_exact(&mut name).unwrap();
    stream.write_all(&[2, 0, 0, 1, 0, 0, 0, 0]).unwrap();
    (u16::from_be_bytes([bytes[0], bytes[1]]), u16::from_be_bytes([bytes[2], bytes[3]]))
}
