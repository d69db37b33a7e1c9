//! The supervised connection to a node's libvirt: whether the node is up, and its events.
//!
//! A thread opens the connection, watches it by libvirt's keep-alive, and opens it again with growing pauses. No call
//! uses it: calls have connections of their own (see [`crate::lane`]).
//!
//! ```text
//! Connecting ──> Up ──> Down ──> Up …
//!      └───────────────> Down
//! ```

use crate::{Error, ErrorKind, Result, connector::Connector};
use libvirt::{Connect, Subscription};
use std::{
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// How long a call waits for a connection that was lost, or is being made, just now.
const GRACE: Duration = Duration::from_secs(3);
/// How often the connection is looked at, beside what its close callback says.
const LOOK: Duration = Duration::from_secs(1);
/// Pauses between attempts to connect.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// What a node's connection is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// Never up since the start, still trying for the first time.
    Connecting,
    /// Up.
    Up,
    /// Lost or refused, with the reason; tried again with growing pauses.
    Down(String),
}

struct Shared {
    node: String,
    connector: Arc<Connector>,
    status: watch::Sender<(Status, Instant)>,
    stopped: watch::Sender<bool>,
}

/// A supervised connection. Its thread ends when it is dropped.
pub(crate) struct Link {
    shared: Arc<Shared>,
    wake: mpsc::Sender<String>,
}

impl Link {
    /// Starts connecting. `opened` runs on the supervisor's thread each time that a connection was made, before anybody
    /// is told that it is up, and returns the subscriptions that live as long as the connection; when it fails, the
    /// connection is dropped. `changed` runs at each change of status.
    pub(crate) fn spawn(
        node: &str,
        connector: &Arc<Connector>,
        opened: impl Fn(&Connect) -> libvirt::Result<Vec<Subscription>> + Send + 'static,
        changed: impl Fn(&Status) + Send + 'static,
    ) -> std::io::Result<Link> {
        let shared = Arc::new(Shared {
            node: node.to_owned(),
            connector: Arc::clone(connector),
            status: watch::Sender::new((Status::Connecting, Instant::now())),
            stopped: watch::Sender::new(false),
        });
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

    /// What came of the first attempt to connect.
    pub(crate) async fn first_status(&self) -> Status {
        let mut status = self.shared.status.subscribe();
        let first = status.wait_for(|(status, _)| *status != Status::Connecting).await;
        first.map_or(Status::Connecting, |first| first.0.clone())
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
        let _ = self.wake.send("stopped".to_owned());
    }
}

impl Shared {
    fn supervise(
        &self,
        closed: &mpsc::Receiver<String>,
        on_close: &mpsc::Sender<String>,
        opened: &impl Fn(&Connect) -> libvirt::Result<Vec<Subscription>>,
        changed: &impl Fn(&Status),
    ) {
        let set = |status: Status| {
            let (known, since) = self.status.borrow().clone();
            // Down for another reason is no change: it stays down since then.
            let same = std::mem::discriminant(&known) == std::mem::discriminant(&status);
            let since = if same { since } else { Instant::now() };
            self.status.send_replace((status.clone(), since));
            if !same {
                changed(&status);
            }
        };
        let mut pause = BACKOFF.0;
        while !*self.stopped.borrow() {
            match self.open(on_close, opened) {
                Ok((connection, subscriptions)) => {
                    pause = BACKOFF.0;
                    set(Status::Up);
                    // A late word of the connection before is no reason to drop this one.
                    let reason = loop {
                        let reason = closed.recv_timeout(LOOK).unwrap_or_default();
                        if *self.stopped.borrow() || !connection.is_alive() {
                            break reason;
                        }
                    };
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
        let connection = self.connector.open()?;
        let watch = || -> libvirt::Result<Vec<Subscription>> {
            let on_close = on_close.clone();
            connection.on_close(move |reason| {
                let _ = on_close.send(format!("{reason:?}"));
            })?;
            opened(&connection)
        };
        let subscriptions = watch().map_err(|error| error.message)?;
        Ok((connection, subscriptions))
    }
}
