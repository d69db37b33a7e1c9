//! The serial lines that are watched, and the sessions of those who watch.
//!
//! A line is open while somebody has a session on it, once for all of them: else `virsh console` could not have it. Each
//! session reads from the line's ring at its own pace; who falls behind by more than the ring holds is let go.

use super::{line, ring::Ring, tickets::Serial};
use crate::{App, Error, Result, auth::Caller, sync::lock};
use api::console::SerialNote;
use hypervisor::{Node, domain::SerialInput};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::{Notify, watch};
use uuid::Uuid;

/// The most that a session is given at once, in bytes.
const PIECE: usize = 64 << 10;

/// The lines that are watched, by VM.
#[derive(Default)]
pub struct Lines {
    open: Mutex<HashMap<Uuid, Arc<Line>>>,
    sessions: AtomicU64,
}

/// A line that is watched.
pub(super) struct Line {
    pub(super) vm: Uuid,
    pub(super) node: Node,
    /// Cut who has it outside of Vmyard.
    pub(super) force: bool,
    pub(super) ring: Mutex<Ring>,
    pub(super) status: watch::Sender<Status>,
    /// Where to type, while it is open.
    pub(super) input: Mutex<Option<SerialInput>>,
    /// Told when somebody leaves.
    pub(super) left: Notify,
}

/// What all sessions of a line are told.
#[derive(Clone, Default)]
pub(super) struct Status {
    /// How far the ring is.
    pub(super) end: u64,
    /// Who types.
    writer: Option<(u64, String)>,
    /// Sessions, and whether each waits while the VM is off.
    sessions: HashMap<u64, bool>,
    /// Whether the VM is on; `None` before that is known.
    pub(super) on: Option<bool>,
    /// Why there is no more.
    pub(super) ended: Option<End>,
}

/// Why a line has ended.
#[derive(Clone)]
pub(super) struct End {
    pub(super) why: String,
    /// The node's error, if that is it.
    pub(super) error: Option<hypervisor::Error>,
}

impl End {
    pub(super) fn of(why: &str) -> End {
        End { why: why.to_owned(), error: None }
    }

    pub(super) fn stopping() -> End {
        End::of("the server stops")
    }
}

impl Status {
    /// Whether there is a session that stays while the VM is off.
    pub(super) fn anybody_waits(&self) -> bool {
        self.sessions.values().any(|waits| *waits)
    }
}

impl Line {
    /// More was said.
    pub(super) fn say(&self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let end = {
            let mut ring = lock(&self.ring);
            ring.push(bytes);
            ring.end()
        };
        self.status.send_modify(|status| status.end = end);
    }
}

/// Somebody's session on a line. It ends when it is dropped.
pub struct Session {
    line: Arc<Line>,
    status: watch::Receiver<Status>,
    id: u64,
    name: String,
    read_only: bool,
    /// How far it has read.
    at: u64,
    told_writer: Option<Option<u64>>,
    told_on: Option<bool>,
}

/// What a session is told next.
pub enum Piece {
    /// What the guest has said.
    Bytes(Vec<u8>),
    /// Something about the session.
    Note(SerialNote),
    /// There is no more, and why.
    End(String),
    /// The session has fallen behind by more than is kept.
    TooSlow,
}

/// Begins a session. What the line said before comes first.
pub async fn join(app: &App, node: &Node, vm: Uuid, caller: &Caller, options: Serial) -> Result<Session> {
    let lines = &app.consoles.lines;
    let id = lines.sessions.fetch_add(1, Ordering::Relaxed);
    let (line, is_new) = {
        let mut open = lock(&lines.open);
        let enter = |line: &Line| {
            let mut entered = false;
            line.status.send_modify(|status| {
                // One that has just ended takes nobody in any more.
                entered = status.ended.is_none();
                if entered {
                    status.sessions.insert(id, options.wait_for_start);
                    let free = status.writer.is_none() || options.take_over;
                    if free && !options.read_only {
                        status.writer = Some((id, caller.name.clone()));
                    }
                }
            });
            entered
        };
        match open.get(&vm).filter(|line| enter(line)) {
            Some(line) => (Arc::clone(line), false),
            None => {
                let line = Arc::new(Line {
                    vm,
                    node: node.clone(),
                    force: options.force,
                    ring: Mutex::default(),
                    status: watch::Sender::default(),
                    input: Mutex::default(),
                    left: Notify::new(),
                });
                enter(&line);
                open.insert(vm, Arc::clone(&line));
                (line, true)
            }
        }
    };
    if is_new {
        let (app, line) = (app.clone(), Arc::clone(&line));
        tokio::spawn(async move {
            let end = line::run(&app, &line).await;
            app.consoles.lines.close(&line, end);
        });
    }
    let mut session = Session {
        status: line.status.subscribe(),
        line,
        id,
        name: caller.name.clone(),
        read_only: options.read_only,
        at: 0,
        told_writer: None,
        told_on: None,
    };
    // Dropped on the way, it leaves.
    let (on, ended) = {
        let status = session.status.wait_for(|status| status.on.is_some() || status.ended.is_some()).await;
        let status = status.map_err(|_| Error::Internal("a serial line's task ended".to_owned()))?;
        (status.on, status.ended.clone())
    };
    match (ended, on) {
        (Some(End { error: Some(error), .. }), _) => Err(error.into()),
        (Some(End { why, error: None }), _) => Err(Error::WrongState { detail: why, hint: None }),
        (None, Some(false)) if !options.wait_for_start => Err(off(&app.index.name_of(vm))),
        _ => Ok(session),
    }
}

/// That a VM is off, and has no console.
pub fn off(name: &str) -> Error {
    Error::WrongState {
        detail: format!("VM {name} is off"),
        hint: Some("start-vm starts it; with wait_for_start the serial console waits for that".to_owned()),
    }
}

impl Lines {
    /// Takes a line out, and tells its sessions why.
    fn close(&self, line: &Arc<Line>, end: End) {
        let mut open = lock(&self.open);
        if open.get(&line.vm).is_some_and(|one| Arc::ptr_eq(one, line)) {
            open.remove(&line.vm);
        }
        line.status.send_modify(|status| status.ended = Some(end));
    }

    /// Ends a line that nobody watches any more. Who comes in after that begins another one.
    pub(super) fn left(&self, line: &Line) -> Option<End> {
        // Who comes in does it under this lock, and finds `ended` after it.
        let _open = lock(&self.open);
        line.status.send_if_modified(|status| {
            let left = status.sessions.is_empty();
            if left {
                status.ended = Some(End::of("nobody watches"));
            }
            left
        });
        line.status.borrow().ended.clone()
    }
}

impl Session {
    /// What comes next. May be dropped and called again: nothing is lost.
    pub async fn next(&mut self) -> Piece {
        loop {
            if let Some(piece) = self.now() {
                return piece;
            }
            if self.status.changed().await.is_err() {
                return Piece::End("the line has ended".to_owned());
            }
        }
    }

    /// What there is to be told now, if anything.
    fn now(&mut self) -> Option<Piece> {
        let status = self.status.borrow_and_update();
        if status.end > self.at {
            let ring = lock(&self.line.ring);
            // What was said before the session is as far back as there is any.
            let from = if self.at == 0 { ring.start() } else { self.at };
            let Some(bytes) = ring.read(from, PIECE) else { return Some(Piece::TooSlow) };
            self.at = from + bytes.len() as u64;
            return Some(Piece::Bytes(bytes));
        }
        if let Some(end) = &status.ended {
            return Some(Piece::End(end.why.clone()));
        }
        let writer = status.writer.as_ref().map(|(id, _)| *id);
        if self.told_writer != Some(writer) {
            self.told_writer = Some(writer);
            let who = status.writer.as_ref().map(|(_, name)| name.clone());
            return Some(Piece::Note(SerialNote::Writer { you: writer == Some(self.id), who }));
        }
        let on = status.on.filter(|on| self.told_on != Some(*on))?;
        self.told_on = Some(on);
        let waits = status.sessions.get(&self.id).copied().unwrap_or_default();
        match on || waits {
            true => Some(Piece::Note(SerialNote::Power { on })),
            false => Some(Piece::End("the VM is off".to_owned())),
        }
    }

    /// Types. Who types while nobody else does is from then on the one who does. The error says why nothing was typed.
    pub fn type_in(&self, bytes: &[u8]) -> std::result::Result<(), String> {
        if bytes.is_empty() {
            return Ok(());
        }
        if self.read_only {
            return Err("this session only watches".to_owned());
        }
        let mut other = None;
        self.line.status.send_if_modified(|status| match &status.writer {
            None => {
                status.writer = Some((self.id, self.name.clone()));
                true
            }
            Some((id, name)) => {
                other = (*id != self.id).then(|| name.clone());
                false
            }
        });
        if let Some(other) = other {
            return Err(format!("{other} is typing; take over to type yourself"));
        }
        match &*lock(&self.line.input) {
            Some(input) if input.write(bytes.to_vec()) => Ok(()),
            Some(_) => Err("the VM doesn't take in what was typed before; this was dropped".to_owned()),
            None => Err("the line is not open".to_owned()),
        }
    }

    /// Becomes the one who types.
    pub fn take_over(&self) -> std::result::Result<(), String> {
        if self.read_only {
            return Err("this session only watches".to_owned());
        }
        self.line.status.send_modify(|status| status.writer = Some((self.id, self.name.clone())));
        Ok(())
    }

    /// Is the one who types no longer.
    pub fn release(&self) {
        self.line.status.send_if_modified(|status| give_up(status, self.id));
    }
}

fn give_up(status: &mut Status, id: u64) -> bool {
    let is_it = status.writer.as_ref().is_some_and(|(writer, _)| *writer == id);
    if is_it {
        status.writer = None;
    }
    is_it
}

impl Drop for Session {
    fn drop(&mut self) {
        self.line.status.send_modify(|status| {
            status.sessions.remove(&self.id);
            give_up(status, self.id);
        });
        self.line.left.notify_one();
    }
}
