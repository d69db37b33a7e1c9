//! How long a domain's CPUs stand still while something is done with it, by QEMU's STOP and RESUME, of which libvirt tells as
//! events.

use crate::sync::lock;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::sync::watch;
use uuid::Uuid;

/// How long the event of a domain that goes on may take to come after the call that lets it.
const LATE: Duration = Duration::from_secs(2);
/// How long the event of a stop may take, where one is sure to come.
const SURE: Duration = Duration::from_secs(2);
/// A pause is no shorter, even if both of its events are handled at once.
const SHORTEST: Duration = Duration::from_millis(1);

/// The domains that are watched. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Pauses {
    watched: Arc<Mutex<HashMap<Uuid, watch::Sender<Seen>>>>,
}

/// What was seen of a domain so far.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    stopped_at: Option<Instant>,
    total: Duration,
    stops: u32,
}

impl Pauses {
    /// Watches a domain until the answer is dropped.
    pub(crate) fn watch(&self, domain: Uuid) -> PauseWatch {
        let sender = watch::Sender::new(Seen::default());
        let seen = sender.subscribe();
        lock(&self.watched).insert(domain, sender);
        PauseWatch { pauses: self.clone(), domain, seen }
    }

    /// A domain's CPUs have stopped, or go on.
    pub(crate) fn told(&self, domain: Uuid, stopped: bool) {
        let watched = lock(&self.watched);
        let Some(sender) = watched.get(&domain) else { return };
        sender.send_modify(|seen| match (stopped, seen.stopped_at) {
            (true, None) => (seen.stopped_at, seen.stops) = (Some(Instant::now()), seen.stops + 1),
            (false, Some(since)) => (seen.stopped_at, seen.total) = (None, seen.total + since.elapsed().max(SHORTEST)),
            _ => {}
        });
    }
}

/// A watch over one domain.
pub struct PauseWatch {
    pauses: Pauses,
    domain: Uuid,
    seen: watch::Receiver<Seen>,
}

impl Drop for PauseWatch {
    fn drop(&mut self) {
        lock(&self.pauses.watched).remove(&self.domain);
    }
}

impl PauseWatch {
    /// How long the domain has stood still since the watch began; zero when it hasn't. `sure` says that it must have: the
    /// event may come a moment after the call.
    pub async fn total(mut self, sure: bool) -> Duration {
        if sure {
            let _ = tokio::time::timeout(SURE, self.seen.wait_for(|seen| seen.stops > 0)).await;
        }
        let _ = tokio::time::timeout(LATE, self.seen.wait_for(|seen| seen.stopped_at.is_none())).await;
        self.seen.borrow().total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stops_are_added_up() {
        let pauses = Pauses::default();
        let (id, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let watch = pauses.watch(id);
        pauses.told(other, true);
        pauses.told(id, false);
        for _ in 0..2 {
            pauses.told(id, true);
            std::thread::sleep(Duration::from_millis(5));
            pauses.told(id, false);
        }
        assert!(watch.total(true).await >= Duration::from_millis(10));
        assert_eq!(pauses.watch(id).total(false).await, Duration::ZERO);
        assert!(lock(&pauses.watched).is_empty());
    }
}
