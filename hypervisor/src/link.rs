//! A supervised connection to a node's libvirt, with threads of its own.
//!
//! libvirt's calls block, and one that hangs blocks its thread. So each link has four threads (libvirt serves at most
//! five calls of a client at a time, and more than four starve its keep-alive), a queue before them, and a deadline on
//! every call. A hung node holds its own threads and nobody else's; a hung QEMU holds two of them, since no more calls
//! about one domain are in flight.
//!
//! A call whose caller has given up may still take effect: it is *late* until libvirt returns. Whoever takes something
//! back waits until no call is late ([`Link::settle`]), else the call could undo the undo.
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
    collections::{HashMap, VecDeque},
    sync::{Arc, Condvar, Mutex, PoisonError, Weak, mpsc},
    thread,
    time::{Duration, Instant},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use uuid::Uuid;

/// Calls in flight on one connection.
const THREADS: usize = 4;
/// Calls in flight about one domain.
const CALLS_A_DOMAIN: usize = 2;
/// Seconds between keep-alive messages, and how many may stay unanswered.
const KEEPALIVE: (i32, u32) = (3, 3);
/// How long a call waits for a connection that was lost, or is being made, just now.
const GRACE: Duration = Duration::from_secs(3);
/// How often a connection is looked at, beside what its close callback says.
const LOOK: Duration = Duration::from_secs(1);
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
    /// Calls at work whose callers have given up, by the domain that they are about.
    late: Mutex<HashMap<Option<Uuid>, usize>>,
    domains: Mutex<HashMap<Uuid, Weak<Semaphore>>>,
    status: watch::Sender<(Status, Instant)>,
    stopped: watch::Sender<bool>,
}

/// A supervised connection. Its threads end when it is dropped.
pub(crate) struct Link {
    shared: Arc<Shared>,
    wake: mpsc::Sender<String>,
}

/// How far a call is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Queued,
    Running,
    /// The caller has given up before it ran: it never will.
    Cancelled,
    /// The caller has given up while it ran.
    Late,
    Ended,
}

/// The caller's side of a call. Dropping it is giving up, by a deadline or because nobody wants the answer any more.
struct Caller {
    shared: Arc<Shared>,
    domain: Option<Uuid>,
    stage: Arc<Mutex<Stage>>,
}

impl Drop for Caller {
    fn drop(&mut self) {
        let mut stage = lock(&self.stage);
        match *stage {
            Stage::Queued => *stage = Stage::Cancelled,
            Stage::Running => {
                *stage = Stage::Late;
                *lock(&self.shared.late).entry(self.domain).or_default() += 1;
            }
            Stage::Cancelled | Stage::Late | Stage::Ended => {}
        }
    }
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
            late: Mutex::default(),
            domains: Mutex::default(),
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

    /// Runs `f` on one of the link's threads. `doing` says what it does, for the error; `domain` is the one that it is
    /// about, if any. A call that hasn't begun when the deadline passes, or when the caller goes away, never runs; one
    /// that has begun goes on, and whether it took effect isn't known.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        deadline: Duration,
        doing: &str,
        domain: Option<Uuid>,
        f: impl FnOnce(&Connect) -> libvirt::Result<T> + Send + 'static,
    ) -> Result<T> {
        let end = tokio::time::Instant::now() + deadline;
        let error =
            |kind, cause: String| Error { kind, node: self.shared.node.clone(), doing: doing.to_owned(), cause };
        let too_late = |_| error(ErrorKind::Timeout, format!("no answer within {} s", deadline.as_secs_f32()));
        self.wait_until_up(doing).await?;
        let place = match domain {
            Some(domain) => Some(tokio::time::timeout_at(end, self.shared.place(domain)).await.map_err(too_late)?),
            None => None,
        };
        let (reply, answer) = oneshot::channel();
        let stage = Arc::new(Mutex::new(Stage::Queued));
        let caller = Caller { shared: Arc::clone(&self.shared), domain, stage: Arc::clone(&stage) };
        let shared = Arc::clone(&self.shared);
        let job: Job = Box::new(move |connection| {
            let _place = place;
            if std::mem::replace(&mut *lock(&stage), Stage::Running) == Stage::Cancelled {
                return;
            }
            let _running = Running { shared, domain, stage };
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

        let answered = tokio::time::timeout_at(end, answer).await;
        drop(caller);
        match answered.map_err(too_late)? {
            Ok(Some(Ok(value))) => Ok(value),
            Ok(Some(Err((kind, cause)))) => Err(error(kind, cause)),
            Ok(None) => Err(error(ErrorKind::Unavailable, "the connection to libvirt was lost".to_owned())),
            Err(_) => Err(error(ErrorKind::Failed, "the call panicked".to_owned())),
        }
    }

    /// Fails while a call is at work whose caller has given up, and which is about this domain or about none: what it does
    /// may still come about.
    pub(crate) fn settle(&self, domain: Option<Uuid>, doing: &str) -> Result<()> {
        let late = lock(&self.shared.late);
        match late.contains_key(&None) || late.contains_key(&domain) {
            false => Ok(()),
            true => Err(Error {
                kind: ErrorKind::Busy,
                node: self.shared.node.clone(),
                doing: doing.to_owned(),
                cause: "an earlier call has not ended yet".to_owned(),
            }),
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

/// A call at work. However it ends, it is counted out.
struct Running {
    shared: Arc<Shared>,
    domain: Option<Uuid>,
    stage: Arc<Mutex<Stage>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        if std::mem::replace(&mut *lock(&self.stage), Stage::Ended) == Stage::Late {
            let mut late = lock(&self.shared.late);
            match late.get_mut(&self.domain) {
                Some(count) if *count > 1 => *count -= 1,
                _ => drop(late.remove(&self.domain)),
            }
        }
    }
}

impl Shared {
    /// One of the places for calls about a domain.
    async fn place(&self, domain: Uuid) -> Option<OwnedSemaphorePermit> {
        let places = {
            let mut domains = lock(&self.domains);
            let known = domains.get(&domain).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                domains.retain(|_, places| places.strong_count() > 0);
                let places = Arc::new(Semaphore::new(CALLS_A_DOMAIN));
                domains.insert(domain, Arc::downgrade(&places));
                places
            })
        };
        // Never closed.
        places.acquire_owned().await.ok()
    }

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
                    *lock(&self.connection) = Some(connection.clone());
                    pause = BACKOFF.0;
                    set(Status::Up);
                    // A late word of the connection before is no reason to drop this one.
                    let reason = loop {
                        let reason = closed.recv_timeout(LOOK).unwrap_or_default();
                        if *self.stopped.borrow() || !connection.is_alive() {
                            break reason;
                        }
                    };
                    *lock(&self.connection) = None;
                    tracing::warn!(node = self.node, reason, "connection to libvirt lost");
                    set(Status::Down(format!("the connection to libvirt was lost ({reason})")));
                    drop(subscriptions);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn link() -> Link {
        Link::spawn("test", "test:///default", |_| Ok(Vec::new()), |_| {}).unwrap()
    }

    fn sleep(seconds: f32) -> impl FnOnce(&Connect) -> libvirt::Result<()> + Send {
        move |_| {
            thread::sleep(Duration::from_secs_f32(seconds));
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_late_call_is_waited_for_before_anything_is_taken_back() {
        let link = link();
        let error = link.call(Duration::from_millis(100), "sleep", None, sleep(1.0)).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Timeout);
        assert_eq!(link.settle(None, "undo").unwrap_err().kind, ErrorKind::Busy);
        let end = Instant::now() + Duration::from_secs(10);
        while link.settle(None, "undo").is_err() {
            assert!(Instant::now() < end);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    #[tokio::test]
    async fn a_hung_domain_leaves_threads_for_others() {
        let link = Arc::new(link());
        let hung = Uuid::nil();
        let calls: Vec<_> = (0..8)
            .map(|_| {
                let link = Arc::clone(&link);
                let call = async move { link.call(Duration::from_secs(1), "hang", Some(hung), sleep(3.0)).await };
                tokio::spawn(call)
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(100)).await;
        link.call(Duration::from_millis(500), "work", None, sleep(0.0)).await.unwrap();
        link.call(Duration::from_millis(500), "work", Some(Uuid::max()), sleep(0.0)).await.unwrap();
        for call in calls {
            assert_eq!(call.await.unwrap().unwrap_err().kind, ErrorKind::Timeout);
        }
    }

    #[tokio::test]
    async fn a_call_that_nobody_waits_for_any_more_never_runs() {
        let link = Arc::new(link());
        for _ in 0..THREADS {
            let link = Arc::clone(&link);
            tokio::spawn(async move { link.call(Duration::from_secs(5), "fill", None, sleep(0.5)).await });
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        let (ran, told) = mpsc::channel();
        let late = link.call(Duration::from_millis(50), "queued", None, move |_| {
            let _ = ran.send(());
            Ok(())
        });
        assert_eq!(late.await.unwrap_err().kind, ErrorKind::Timeout);
        // Dropped without having run.
        assert!(told.recv_timeout(Duration::from_secs(5)).is_err());
    }
}
