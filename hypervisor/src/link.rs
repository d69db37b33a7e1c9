//! A supervised connection to a node's libvirt, with threads of its own.
//!
//! libvirt's calls block, and one that hangs blocks its thread. So each link has four threads (libvirt serves at most
//! five calls of a client at a time, and more than four starve its keep-alive), a queue before them, and a deadline on
//! every call. A hung node holds its own threads and nobody else's.
//!
//! A fifth thread, the supervisor, opens the connection, watches it by libvirt's keep-alive, and opens it again with
//! growing pauses:
//!
//! ```text
//! Connecting ──> Up ──> Down ──> Up …
//!      └───────────────> Down
//! ```

use crate::{Error, ErrorKind, Result, error::kind_of, uri};
use libvirt::{Connect, Subscription};
use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};
use tokio::sync::{oneshot, watch};

/// Calls in flight on one connection.
const THREADS: usize = 4;
/// Seconds between keep-alive messages, and how many may stay unanswered.
const KEEPALIVE: (i32, u32) = (3, 3);
/// How long a call waits for a connection that was lost, or is being made, just now.
const GRACE: Duration = Duration::from_secs(3);
/// Pauses between attempts to connect.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// What a link's connection is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// Never up since the start, still trying for the first time.
    Connecting,
    /// Up.
    Up,
    /// Lost or refused, with the reason; tried again with growing pauses.
    Down(String),
}

type Job = Box<dyn FnOnce(Option<&Connect>) + Send>;

struct Shared {
    node: String,
    uri: String,
    connection: Mutex<Option<Connect>>,
    queue: Mutex<VecDeque<Job>>,
    job_waits: Condvar,
    status: watch::Sender<(Status, Instant)>,
    stopped: watch::Sender<bool>,
}

/// A supervised connection. Its threads end when it is dropped.
pub(crate) struct Link {
    shared: Arc<Shared>,
    wake: mpsc::Sender<String>,
}

impl Link {
    /// Starts connecting. `opened` runs on the supervisor's thread each time that a connection was made, before any
    /// call uses it, and returns the subscriptions that live as long as the connection; when it fails, the connection
    /// is dropped. `changed` runs at each change of status.
    pub(crate) fn spawn(
        node: &str,
        uri: &str,
        opened: impl Fn(&Connect) -> libvirt::Result<Vec<Subscription>> + Send + 'static,
        changed: impl Fn(&Status) + Send + 'static,
    ) -> std::io::Result<Link> {
        let shared = Arc::new(Shared {
            node: node.to_owned(),
            uri: uri.to_owned(),
            connection: Mutex::new(None),
            queue: Mutex::new(VecDeque::new()),
            job_waits: Condvar::new(),
            status: watch::Sender::new((Status::Connecting, Instant::now())),
            stopped: watch::Sender::new(false),
        });
        for _ in 0..THREADS {
            let shared = Arc::clone(&shared);
            thread::Builder::new().name(format!("node-{node}")).spawn(move || shared.work())?;
        }
        let (wake, closed) = mpsc::channel();
        let (supervised, on_close) = (Arc::clone(&shared), wake.clone());
        thread::Builder::new()
            .name(format!("link-{node}"))
            .spawn(move || supervised.supervise(&closed, &on_close, &opened, &changed))?;
        Ok(Link { shared, wake })
    }

    pub(crate) fn status(&self) -> (Status, Instant) {
        self.shared.status.borrow().clone()
    }

    /// Runs `f` on one of the link's threads. `doing` says what it does, for the error. A call that hasn't begun when
    /// the deadline passes never runs; one that has begun goes on, and whether it took effect isn't known.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        deadline: Duration,
        doing: &str,
        f: impl FnOnce(&Connect) -> libvirt::Result<T> + Send + 'static,
    ) -> Result<T> {
        self.wait_until_up(doing).await?;
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            if reply.is_closed() {
                return;
            }
            let outcome = connection.map(|connection| {
                f(connection).map_err(|error| {
                    let kind = if connection.is_alive() { kind_of(&error) } else { ErrorKind::Unavailable };
                    (kind, error.message)
                })
            });
            // The caller may have given up meanwhile.
            let _ = reply.send(outcome);
        });
        lock(&self.shared.queue).push_back(job);
        self.shared.job_waits.notify_one();

        let error =
            |kind, cause: String| Error { kind, node: self.shared.node.clone(), doing: doing.to_owned(), cause };
        match tokio::time::timeout(deadline, answer).await {
            Err(_) => Err(error(ErrorKind::Timeout, format!("no answer within {} s", deadline.as_secs_f32()))),
            Ok(Ok(Some(Ok(value)))) => Ok(value),
            Ok(Ok(Some(Err((kind, cause))))) => Err(error(kind, cause)),
            Ok(Ok(None)) => Err(error(ErrorKind::Unavailable, "the connection to libvirt was lost".to_owned())),
            Ok(Err(_)) => Err(error(ErrorKind::Failed, "the call panicked".to_owned())),
        }
    }

    /// Returns when the connection is up. One that was lost just now has a moment to come back (a restart of libvirtd
    /// takes about a second); one that is away for longer fails at once.
    pub(crate) async fn wait_until_up(&self, doing: &str) -> Result<()> {
        let mut status = self.shared.status.subscribe();
        let (now, since) = status.borrow_and_update().clone();
        if now == Status::Up {
            return Ok(());
        }
        let left = GRACE.saturating_sub(since.elapsed());
        let up = status.wait_for(|(status, _)| *status == Status::Up);
        let came_up = matches!(tokio::time::timeout(left, up).await, Ok(Ok(_)));
        if came_up {
            return Ok(());
        }
        let cause = match self.status().0 {
            Status::Down(reason) => reason,
            _ => "not connected yet".to_owned(),
        };
        Err(Error { kind: ErrorKind::Unavailable, node: self.shared.node.clone(), doing: doing.to_owned(), cause })
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.stopped.send_replace(true);
        self.shared.job_waits.notify_all();
        let _ = self.wake.send("stopped".to_owned());
    }
}

impl Shared {
    fn work(&self) {
        loop {
            let job = {
                let mut queue = lock(&self.queue);
                loop {
                    if *self.stopped.borrow() {
                        return;
                    }
                    if let Some(job) = queue.pop_front() {
                        break job;
                    }
                    queue = self.job_waits.wait(queue).unwrap_or_else(PoisonError::into_inner);
                }
            };
            let connection = lock(&self.connection).clone();
            // A panic must not cost the node a thread; the caller sees its channel closed.
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| job(connection.as_ref())));
            if outcome.is_err() {
                tracing::error!(node = self.node, "a call to libvirt panicked");
            }
        }
    }

    fn supervise(
        &self,
        closed: &mpsc::Receiver<String>,
        on_close: &mpsc::Sender<String>,
        opened: &impl Fn(&Connect) -> libvirt::Result<Vec<Subscription>>,
        changed: &impl Fn(&Status),
    ) {
        let set = |status: Status| {
            let known = self.status.borrow().0 == status;
            if !known {
                self.status.send_replace((status.clone(), Instant::now()));
                changed(&status);
            }
        };
        let mut pause = BACKOFF.0;
        while !*self.stopped.borrow() {
            match self.open(on_close, opened) {
                Ok((connection, subscriptions)) => {
                    *lock(&self.connection) = Some(connection);
                    pause = BACKOFF.0;
                    set(Status::Up);
                    let reason = closed.recv().unwrap_or_default();
                    *lock(&self.connection) = None;
                    drop(subscriptions);
                    tracing::warn!(node = self.node, reason, "connection to libvirt lost");
                    set(Status::Down(format!("the connection to libvirt was lost ({reason})")));
                    // More than one close may have been reported for the same connection.
                    while closed.try_recv().is_ok() {}
                }
                Err(reason) => {
                    tracing::debug!(node = self.node, reason, "can't connect to libvirt");
                    set(Status::Down(reason));
                    pause = (pause * 2).min(BACKOFF.1);
                }
            }
            // `stopped` sends a wake-up, so that a drop doesn't wait for the pause.
            let _ = closed.recv_timeout(pause);
        }
    }

    fn open(
        &self,
        on_close: &mpsc::Sender<String>,
        opened: &impl Fn(&Connect) -> libvirt::Result<Vec<Subscription>>,
    ) -> std::result::Result<(Connect, Vec<Subscription>), String> {
        uri::probe(&self.uri).map_err(|error| format!("its port doesn't answer: {error}"))?;
        let connect = || -> libvirt::Result<(Connect, Vec<Subscription>)> {
            let connection = Connect::open(&uri::to_open(&self.uri))?;
            // libvirt's test driver has no keep-alive.
            if !self.uri.starts_with("test:") {
                connection.set_keep_alive(KEEPALIVE.0, KEEPALIVE.1)?;
            }
            let on_close = on_close.clone();
            connection.on_close(move |reason| {
                let _ = on_close.send(format!("{reason:?}"));
            })?;
            let subscriptions = opened(&connection)?;
            Ok((connection, subscriptions))
        };
        connect().map_err(|error| error.message)
    }
}

/// Locks, also after a panic elsewhere: what is guarded here is whole at every moment.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
