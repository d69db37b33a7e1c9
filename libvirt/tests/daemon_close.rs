//! Connections that are cut or stall, through a relay before the socket of a real daemon (`LIBVIRT_TEST_SOCKET`, or
//! the system daemon's). Run with `--ignored`.
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use libvirt::{CloseReason, Connect, ErrorCode, EventKind, Stream};

struct Relay {
    path: PathBuf,
    ends: Arc<Mutex<Vec<UnixStream>>>,
    stalled: Arc<AtomicBool>,
}

impl Relay {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("libvirt-test-{name}-{}.sock", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let relay = Self { path, ends: Arc::default(), stalled: Arc::default() };
        let (ends, stalled) = (relay.ends.clone(), relay.stalled.clone());
        thread::spawn(move || {
            let socket = std::env::var("LIBVIRT_TEST_SOCKET");
            let socket = socket.unwrap_or_else(|_| "/run/libvirt/libvirt-sock".to_owned());
            for client in listener.incoming() {
                let (client, daemon) = (client.unwrap(), UnixStream::connect(&socket).unwrap());
                for (mut from, mut to) in [(&client, &daemon), (&daemon, &client)].map(|(a, b)| (copy(a), copy(b))) {
                    let stalled = stalled.clone();
                    ends.lock().unwrap().push(copy(&from));
                    thread::spawn(move || {
                        let mut buffer = [0; 65536];
                        while let Ok(len @ 1..) = from.read(&mut buffer) {
                            while stalled.load(Ordering::SeqCst) {
                                thread::sleep(Duration::from_millis(10));
                            }
                            if to.write_all(&buffer[..len]).is_err() {
                                break;
                            }
                        }
                        let _ = to.shutdown(Shutdown::Both);
                    });
                }
            }
        });
        relay
    }

    fn open(&self) -> (Connect, Receiver<CloseReason>) {
        let conn = Connect::open(&format!("qemu+unix:///system?socket={}", self.path.display())).unwrap();
        let (send, receive) = channel();
        let send = Mutex::new(send);
        conn.on_close(move |reason| _ = send.lock().unwrap().send(reason)).unwrap();
        (conn, receive)
    }

    fn cut(&self) {
        for end in self.ends.lock().unwrap().drain(..) {
            let _ = end.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stalled.store(false, Ordering::SeqCst);
        self.cut();
        let _ = std::fs::remove_file(&self.path);
    }
}

fn copy(stream: &UnixStream) -> UnixStream {
    stream.try_clone().unwrap()
}

#[test]
#[ignore = "needs libvirtd"]
fn a_cut_connection_is_told_and_lets_go() {
    let relay = Relay::new("cut");
    let (conn, closed) = relay.open();
    let state = Arc::new(());
    let kept = state.clone();
    let subscription = conn.subscribe(EventKind::Lifecycle, move |_| drop(kept.clone())).unwrap();
    let stream = Stream::new(&conn, 0).unwrap();
    assert!(conn.is_alive());
    relay.cut();
    assert_eq!(closed.recv_timeout(Duration::from_secs(5)).unwrap(), CloseReason::Eof);
    assert!(!conn.is_alive());
    let error = conn.domains(0).unwrap_err();
    assert!([ErrorCode::INTERNAL_ERROR, ErrorCode::RPC].contains(&error.code), "{error:?}");
    let clone = conn.clone();
    drop((subscription, stream, conn));
    assert_eq!(Arc::strong_count(&state), 1);
    drop(clone);
    assert!(closed.recv_timeout(Duration::from_secs(1)).is_err(), "told once, then freed");
}

#[test]
#[ignore = "needs libvirtd"]
fn a_stalled_connection_is_given_up() {
    let relay = Relay::new("stall");
    let (conn, closed) = relay.open();
    assert!(conn.set_keep_alive(1, 2).unwrap());
    relay.stalled.store(true, Ordering::SeqCst);
    let begin = Instant::now();
    let error = conn.hostname().unwrap_err();
    assert!(begin.elapsed() < Duration::from_secs(10), "{error:?}");
    assert_eq!(closed.recv_timeout(Duration::from_secs(5)).unwrap(), CloseReason::Keepalive);
    assert!(!conn.is_alive());
}

#[test]
#[ignore = "needs libvirtd"]
fn cuts_race_with_calls_and_drops() {
    let relay = Relay::new("race");
    for round in 0..40_u64 {
        let (conn, _closed) = relay.open();
        let subscription = conn.subscribe(EventKind::Lifecycle, |_| ()).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(Duration::from_micros(200 * (round % 10)));
                relay.cut();
            });
            scope.spawn(|| while conn.node_info().is_ok() {});
            if round % 2 == 0 {
                drop(subscription);
            }
        });
    }
}

#[test]
#[ignore = "needs libvirtd"]
fn dropped_connections_are_closed() {
    // Other tests of this process come and go meanwhile, with a few each.
    let sockets = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = sockets();
    for _ in 0..200 {
        let conn = Connect::open("qemu:///system").unwrap();
        conn.on_close(|_| ()).unwrap();
        drop(conn.subscribe(EventKind::Lifecycle, |_| ()).unwrap());
        drop(Stream::new(&conn, 0).unwrap());
    }
    assert!(sockets() < before + 100, "{before} {}", sockets());
}
