//! Following one serial line, from the first who watches to the last.
//!
//! What was said before comes from the line's log, which libvirt keeps without anybody watching; what is said now comes from
//! the line itself, without delay. QEMU writes the same bytes to both. But when the line is opened it first gives what was left
//! in it by who had it before, and QEMU looks only once a second whether somebody has opened it; what it says until then is in
//! the log alone. So for the first seconds the log is what counts, looked at whenever the line says something, and then the two
//! are joined: the line's last bytes are looked for in the log ([`meet`]).
//!
//! The log's place is counted on with what the line gives, so that a line that breaks (libvirtd was restarted) goes on exactly
//! where it was.

use super::{
    lines::{End, Line},
    ring::KEPT,
};
use crate::{App, seeds, sync::lock};
use hypervisor::{ErrorKind, domain::Power, domain::SerialLine, storage::Tail};
use std::time::Duration;
use tokio::time::Instant;

/// From then on what the line gives is without a gap: QEMU looks once a second, later on a busy machine.
const SETTLED: Duration = Duration::from_secs(2);
/// When log and line are joined.
const JOINED: Duration = Duration::from_secs(3);
/// How often the log is looked at until then.
const LOOK: Duration = Duration::from_millis(150);
/// How long after the line has said something: virtlogd writes the log a little later.
const LOG_LAG: Duration = Duration::from_millis(5);
/// When a log is given up that doesn't have what the line says.
const NO_LOG: Duration = Duration::from_secs(6);
/// How many bytes of the line are looked for in the log.
const NEEDLE: usize = 4096;
/// How long a line that broke is tried again.
const AGAIN: Duration = Duration::from_secs(60);
/// How long a session that ends may take to close its line.
const LEAVING: Duration = Duration::from_secs(2);
/// How long the lock of a libvirtd that was killed may be in the way.
const STALE: Duration = Duration::from_secs(10);
/// The pause between two tries.
const PAUSE: Duration = Duration::from_millis(500);

/// Follows a line until nobody watches, or until it ends.
pub(super) async fn run(app: &App, line: &Line) -> End {
    let mut log = Log::find(app, line).await;
    line.say(&log.first().await);
    let begun = Instant::now();
    let mut since: Option<Instant> = None;
    // Once: whoever cuts us off later is not cut off in turn.
    let mut force = line.force;
    loop {
        let opened = tokio::select! {
            opened = line.node.open_serial(line.vm, force) => opened,
            () = app.consoles.stop.cancelled() => return End::stopping(),
        };
        let ended = match opened {
            Ok(mut open) => {
                *lock(&line.input) = Some(open.input());
                line.status.send_modify(|status| status.on = Some(true));
                let ended = follow(app, line, &mut open, &mut log).await;
                *lock(&line.input) = None;
                (since, force) = (None, false);
                ended
            }
            Err(error) if error.kind == ErrorKind::WrongState && since.is_none_or(|since| since.elapsed() < AGAIN) => {
                None
            }
            // Who has it may be the session before this one, on its way out: a page that is loaded anew.
            Err(error)
                if error.kind == ErrorKind::Busy
                    && since.map_or(begun.elapsed() < LEAVING, |since| since.elapsed() < STALE) =>
            {
                tokio::time::sleep(LEAVING / 40).await;
                continue;
            }
            // Its pty goes before libvirt says that the domain is off.
            Err(error)
                if error.kind != ErrorKind::Unsupported && since.is_some_and(|since| since.elapsed() < AGAIN) =>
            {
                None
            }
            Err(error) => return End { why: error.to_string(), error: Some(error) },
        };
        if let Some(end) = ended {
            return end;
        }
        match line.node.power(line.vm).await {
            Ok(Some((Power::Off, _))) => {
                // Its last words are in the log.
                line.say(&log.more().await);
                line.status.send_modify(|status| status.on = Some(false));
                if !line.status.borrow().anybody_waits() {
                    return End::of("the VM is off");
                }
                if let Some(end) = off(app, line).await {
                    return end;
                }
                since = None;
            }
            Ok(None) => return End::of("the VM is gone"),
            // The line broke, and the VM is on or nobody knows: somebody has cut it, or libvirtd is away.
            _ => {
                since.get_or_insert_with(Instant::now);
                if let Some(end) = app.consoles.lines.left(line) {
                    return end;
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Waits until a VM that is off is on.
async fn off(app: &App, line: &Line) -> Option<End> {
    let mut changes = app.index.changes();
    loop {
        match app.index.get(line.vm) {
            None => return Some(End::of("the VM is gone")),
            Some(entry) if matches!(entry.power(), Some(Power::Running | Power::Paused)) => return None,
            Some(_) => {}
        }
        tokio::select! {
            _ = changes.changed() => {}
            () = line.left.notified() => {
                if let Some(end) = app.consoles.lines.left(line) {
                    return Some(end);
                }
            }
            () = app.consoles.stop.cancelled() => return Some(End::stopping()),
        }
    }
}

/// Passes on what an open line says; `None` when its stream has ended.
async fn follow(app: &App, line: &Line, open: &mut SerialLine, log: &mut Log) -> Option<End> {
    let mut joining = log.is_there().then(Joining::begin);
    // What the line has yet to give of what the log was ahead.
    let mut ahead = 0;
    loop {
        let look = async {
            match &joining {
                Some(joining) => tokio::time::sleep_until(joining.look_at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            said = open.read() => match (said, &mut joining) {
                (None, _) => return None,
                (Some(said), Some(joining)) => joining.hear(&said),
                (Some(said), None) => {
                    let known = said.len().min(ahead);
                    ahead -= known;
                    log.at += (said.len() - known) as u64;
                    line.say(&said[known..]);
                }
            },
            () = look => if let Some(at) = &mut joining {
                let more = log.more().await;
                line.say(&more);
                if let Some(joined) = at.look(&more) {
                    log.at += joined.more.len() as u64;
                    line.say(&joined.more);
                    (ahead, joining) = (joined.ahead, None);
                }
            },
            () = line.left.notified() => {
                if let Some(end) = app.consoles.lines.left(line) {
                    return Some(end);
                }
            }
            () = app.consoles.stop.cancelled() => return Some(End::stopping()),
        }
    }
}

/// A line that was opened, as long as its log is what counts.
struct Joining {
    opened_at: Instant,
    look_at: Instant,
    /// What came out of the log since the line is settled.
    log: Vec<u8>,
    /// What the line has said since then.
    said: Vec<u8>,
}

/// What joins log and line.
#[derive(Debug, PartialEq, Eq)]
struct Joined {
    /// What the line has said beyond the log.
    more: Vec<u8>,
    /// How many bytes the line has yet to give of what is in the log.
    ahead: usize,
}

impl Joining {
    fn begin() -> Joining {
        let now = Instant::now();
        Joining { opened_at: now, look_at: now + LOG_LAG, log: Vec::new(), said: Vec::new() }
    }

    /// The line has said something, which the log will have in a moment.
    fn hear(&mut self, said: &[u8]) {
        if self.opened_at.elapsed() > SETTLED {
            self.said.extend(said);
        }
        self.look_at = self.look_at.min(Instant::now() + LOG_LAG);
    }

    /// The log has more; or it is time to join.
    fn look(&mut self, more: &[u8]) -> Option<Joined> {
        let since = self.opened_at.elapsed();
        self.look_at = Instant::now() + if self.said.is_empty() { LOOK } else { LOG_LAG };
        // The log may have been ahead of the line when the line was settled.
        let keep = if since > SETTLED { usize::MAX } else { NEEDLE };
        self.log.extend(more);
        self.log.drain(..self.log.len().saturating_sub(keep));
        // What has just come out of the log the line will give in a moment.
        let is_early = since < JOINED || self.said.is_empty() && !more.is_empty();
        if is_early && since < NO_LOG {
            return None;
        }
        meet(&self.log, &self.said)
            .or_else(|| (since > NO_LOG).then(|| Joined { more: std::mem::take(&mut self.said), ahead: 0 }))
    }
}

/// Where what the line has said is found in the log; `None` when it is not there yet. A line that has said nothing, meets
/// the log at its end.
fn meet(log: &[u8], said: &[u8]) -> Option<Joined> {
    if said.is_empty() {
        return Some(Joined { more: Vec::new(), ahead: 0 });
    }
    let at = memchr::memmem::find(log, &said[..said.len().min(NEEDLE)])?;
    let in_log = log.len() - at;
    Some(Joined { more: said.get(in_log..).unwrap_or_default().to_vec(), ahead: in_log.saturating_sub(said.len()) })
}

/// The log of a line.
struct Log {
    node: hypervisor::Node,
    vm: uuid::Uuid,
    /// The pool that has it; `None` for a VM of somebody else's, or where it can't be read.
    pool: Option<uuid::Uuid>,
    /// How far it was read.
    at: u64,
}

impl Log {
    async fn find(app: &App, line: &Line) -> Log {
        // Only a VM of ours has one.
        let ours = app.index.get(line.vm).is_some_and(|entry| entry.record.is_some());
        let pool = match seeds::pool(&line.node).await {
            Ok(pool) => Some(pool.uuid).filter(|_| ours),
            Err(error) => {
                tracing::warn!(%error, vm = %line.vm, "a serial line's log can't be read");
                None
            }
        };
        Log { node: line.node.clone(), vm: line.vm, pool, at: 0 }
    }

    fn is_there(&self) -> bool {
        self.pool.is_some()
    }

    /// The end of the log, and of the one before it where virtlogd has just begun another file.
    async fn first(&mut self) -> Vec<u8> {
        let Some(pool) = self.pool else { return Vec::new() };
        match seeds::serial_tail(&self.node, pool, self.vm, KEPT as u64).await {
            Ok(Some(Tail { bytes, end })) => {
                self.at = end;
                bytes
            }
            // One that never ran has it from its start on.
            Ok(None) => Vec::new(),
            Err(error) => self.failed(&error),
        }
    }

    /// What was added since the last look.
    async fn more(&mut self) -> Vec<u8> {
        let Some(pool) = self.pool else { return Vec::new() };
        match self.node.tail(pool, &seeds::serial_file(self.vm), self.at, KEPT as u64).await {
            Ok(Some(Tail { bytes, end })) => {
                self.at = end;
                bytes
            }
            Ok(None) => Vec::new(),
            Err(error) => self.failed(&error),
        }
    }

    fn failed(&self, error: &dyn std::fmt::Display) -> Vec<u8> {
        tracing::warn!(%error, vm = %self.vm, "a serial line's log can't be read");
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_and_line_meet() {
        let meet = |log: &str, said: &str| {
            let Joined { more, ahead } = meet(log.as_bytes(), said.as_bytes())?;
            Some((String::from_utf8(more).unwrap(), ahead))
        };
        let at = |more: &str, ahead| Some((more.to_owned(), ahead));
        assert_eq!(meet("boot: a b", "a b"), at("", 0));
        // The log is further than the line, which will give the rest of it.
        assert_eq!(meet("boot: a b c", "a b"), at("", 2));
        // The log doesn't have all of it yet.
        assert_eq!(meet("boot: a", "a b"), None);
        assert_eq!(meet("", "a"), None);
        assert_eq!(meet("boot", ""), at("", 0));
        // The line is further than the log, by more than is looked for.
        let long = "0123456789".repeat(NEEDLE / 5);
        assert_eq!(meet(&format!("x{}", &long[..NEEDLE]), &long), at(&long[NEEDLE..], 0));
    }
}
