//! Calls to a node's libvirt, on threads of their own.
//!
//! libvirt's calls block, and one that hangs blocks its thread. So a lane has a few threads, a queue before them, and a
//! deadline on every call. A hung node holds its own threads and nobody else's; a hung QEMU holds two of a lane's, since
//! no more calls about one domain are in flight.
//!
//! Each thread has a connection of its own, opened when it is first needed. Calls that share one can wait for each
//! other: in libvirt before 9.10 a request may lie unsent until the connection's next keep-alive when another call
//! waits on it ("rpc: fix race in waking up client event loop"), and many at once starve the keep-alive.
//!
//! A call whose caller has given up may still take effect: it is *late* until libvirt returns. Whoever takes something
//! back waits until no call is late ([`Lane::settle`]), else the call could undo the undo.

use crate::{Error, ErrorKind, Result, connector::Connector, error::kind_of, link::Link, session::Session, sync::lock};
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Condvar, Mutex, PoisonError, Weak},
    thread,
    time::Duration,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use uuid::Uuid;

/// Calls in flight about one domain.
const CALLS_A_DOMAIN: usize = 2;

/// What runs on a thread: it gets the thread's connection, or why there is none.
type Job = Box<dyn FnOnce(std::result::Result<&Session, String>) + Send>;

struct Shared {
    node: String,
    connector: Arc<Connector>,
    queue: Mutex<Queue>,
    job_waits: Condvar,
    /// Calls at work whose callers have given up, by the domain that they are about.
    late: Mutex<HashMap<Option<Uuid>, usize>>,
    domains: Mutex<HashMap<Uuid, Weak<Semaphore>>>,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    stopped: bool,
}

/// Threads for calls. They end when it is dropped.
pub(crate) struct Lane {
    link: Arc<Link>,
    shared: Arc<Shared>,
}

/// What a call does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It only asks: nobody needs to wait for its late end.
    Asks,
    /// It changes something, which may come about after its caller has given up.
    Changes,
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
    kind: Kind,
    domain: Option<Uuid>,
    stage: Arc<Mutex<Stage>>,
}

impl Drop for Caller {
    fn drop(&mut self) {
        let mut stage = lock(&self.stage);
        match *stage {
            Stage::Queued => *stage = Stage::Cancelled,
            Stage::Running if self.kind == Kind::Changes => {
                *stage = Stage::Late;
                *lock(&self.shared.late).entry(self.domain).or_default() += 1;
            }
            Stage::Running | Stage::Cancelled | Stage::Late | Stage::Ended => {}
        }
    }
}

impl Lane {
    /// A lane with so many threads. Calls wait until `link` is up.
    pub(crate) fn spawn(
        node: &str,
        connector: &Arc<Connector>,
        link: &Arc<Link>,
        threads: usize,
    ) -> std::io::Result<Lane> {
        let shared = Arc::new(Shared {
            node: node.to_owned(),
            connector: Arc::clone(connector),
            queue: Mutex::default(),
            job_waits: Condvar::new(),
            late: Mutex::default(),
            domains: Mutex::default(),
        });
        for _ in 0..threads {
            let shared = Arc::clone(&shared);
            thread::Builder::new().name(format!("node-{node}")).spawn(move || shared.work())?;
        }
        Ok(Lane { link: Arc::clone(link), shared })
    }

    /// Runs `f` on one of the lane's threads. `doing` says what it does, for the error; `domain` is the one that it is
    /// about, if any. A call that hasn't begun when the deadline passes, or when the caller goes away, never runs; one
    /// that has begun goes on, and whether it took effect isn't known.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        kind: Kind,
        deadline: Duration,
        doing: &str,
        domain: Option<Uuid>,
        f: impl FnOnce(&Session) -> libvirt::Result<T> + Send + 'static,
    ) -> Result<T> {
        let end = tokio::time::Instant::now() + deadline;
        let error =
            |kind, cause: String| Error { kind, node: self.shared.node.clone(), doing: doing.to_owned(), cause };
        let too_late = |_| error(ErrorKind::Timeout, format!("no answer within {} s", deadline.as_secs_f32()));
        self.link.wait_until_up(doing).await?;
        let place = match domain {
            Some(domain) => Some(tokio::time::timeout_at(end, self.shared.place(domain)).await.map_err(too_late)?),
            None => None,
        };
        let (reply, answer) = oneshot::channel();
        let stage = Arc::new(Mutex::new(Stage::Queued));
        let caller = Caller { shared: Arc::clone(&self.shared), kind, domain, stage: Arc::clone(&stage) };
        let shared = Arc::clone(&self.shared);
        let job: Job = Box::new(move |connection| {
            let _place = place;
            if std::mem::replace(&mut *lock(&stage), Stage::Running) == Stage::Cancelled {
                return;
            }
            let running = Running { shared, domain, stage };
            let outcome = match connection {
                Ok(connection) => f(connection).map_err(|error| {
                    let kind = if connection.is_alive() { kind_of(&error) } else { ErrorKind::Unavailable };
                    (kind, error.message)
                }),
                Err(reason) => Err((ErrorKind::Unavailable, reason)),
            };
            // Counted out first: who has the answer must not be told that the call has not ended.
            drop(running);
            // The caller may have given up meanwhile.
            let _ = reply.send(outcome);
        });
        lock(&self.shared.queue).jobs.push_back(job);
        self.shared.job_waits.notify_one();

        let answered = tokio::time::timeout_at(end, answer).await;
        drop(caller);
        match answered.map_err(too_late)? {
            Ok(Ok(value)) => Ok(value),
            Ok(Err((kind, cause))) => Err(error(kind, cause)),
            Err(_) => Err(error(ErrorKind::Failed, "the call panicked".to_owned())),
        }
    }

    /// Fails while a call that changes something is at work whose caller has given up, and which is about this domain or about none: what it does
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
}

impl Drop for Lane {
    fn drop(&mut self) {
        lock(&self.shared.queue).stopped = true;
        self.shared.job_waits.notify_all();
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
        let mut session: Option<Session> = None;
        loop {
            let job = {
                let mut queue = lock(&self.queue);
                loop {
                    if queue.stopped {
                        return;
                    }
                    if let Some(job) = queue.jobs.pop_front() {
                        break job;
                    }
                    queue = self.job_waits.wait(queue).unwrap_or_else(PoisonError::into_inner);
                }
            };
            // A panic must not cost the node a thread; the caller sees its channel closed.
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                let opened = match session.take().filter(|session| session.is_alive()) {
                    Some(session) => Ok(session),
                    None => self.connector.open().map(Session::new),
                };
                match opened {
                    Ok(opened) => job(Ok(session.insert(opened))),
                    Err(reason) => job(Err(reason)),
                }
            }));
            if outcome.is_err() {
                tracing::error!(node = self.node, "a call to libvirt panicked");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{sync::mpsc, time::Instant};

    const THREADS: usize = 4;

    fn lane() -> Lane {
        let connector = Arc::new(Connector::new("test:///default"));
        let link = Arc::new(Link::spawn("test", &connector, |_| Ok(Vec::new()), |_| {}).unwrap());
        Lane::spawn("test", &connector, &link, THREADS).unwrap()
    }

    fn sleep(seconds: f32) -> impl FnOnce(&Session) -> libvirt::Result<()> + Send {
        move |_| {
            thread::sleep(Duration::from_secs_f32(seconds));
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_late_call_is_waited_for_before_anything_is_taken_back() {
        let lane = lane();
        let error = lane.call(Kind::Changes, Duration::from_millis(100), "sleep", None, sleep(1.0)).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Timeout);
        assert_eq!(lane.settle(None, "undo").unwrap_err().kind, ErrorKind::Busy);
        let end = Instant::now() + Duration::from_secs(10);
        while lane.settle(None, "undo").is_err() {
            assert!(Instant::now() < end);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    #[tokio::test]
    async fn a_call_that_was_answered_is_not_late() {
        let lane = lane();
        for _ in 0..2000 {
            lane.call(Kind::Changes, Duration::from_secs(5), "work", None, |_| Ok(())).await.unwrap();
            lane.settle(None, "undo").unwrap();
        }
    }

    #[tokio::test]
    async fn a_hung_domain_leaves_threads_for_others() {
        let lane = Arc::new(lane());
        let hung = Uuid::nil();
        let calls: Vec<_> = (0..8)
            .map(|_| {
                let lane = Arc::clone(&lane);
                let call = async move {
                    lane.call(Kind::Changes, Duration::from_secs(1), "hang", Some(hung), sleep(3.0)).await
                };
                tokio::spawn(call)
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(100)).await;
        lane.call(Kind::Changes, Duration::from_millis(500), "work", None, sleep(0.0)).await.unwrap();
        lane.call(Kind::Changes, Duration::from_millis(500), "work", Some(Uuid::max()), sleep(0.0)).await.unwrap();
        for call in calls {
            assert_eq!(call.await.unwrap().unwrap_err().kind, ErrorKind::Timeout);
        }
    }

    #[tokio::test]
    async fn a_call_that_nobody_waits_for_any_more_never_runs() {
        let lane = Arc::new(lane());
        for _ in 0..THREADS {
            let lane = Arc::clone(&lane);
            tokio::spawn(
                async move { lane.call(Kind::Changes, Duration::from_secs(5), "fill", None, sleep(0.5)).await },
            );
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        let (ran, told) = mpsc::channel();
        let late = lane.call(Kind::Changes, Duration::from_millis(50), "queued", None, move |_| {
            let _ = ran.send(());
            Ok(())
        });
        assert_eq!(late.await.unwrap_err().kind, ErrorKind::Timeout);
        // Dropped without having run.
        assert!(told.recv_timeout(Duration::from_secs(5)).is_err());
    }
}
