//! Wrong attempts to sign in: an address has ten a minute. A token can't be guessed anyway; this keeps the audit from being
//! filled up.

use crate::{Error, Result, sync::lock};
use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::Mutex,
    time::{Duration, Instant},
};

/// How many wrong attempts an address has within [`WINDOW`].
const ATTEMPTS: u32 = 10;
/// From the first wrong attempt on, until they are forgotten.
const WINDOW: Duration = Duration::from_secs(60);
/// With more addresses than this, those whose window is over are looked for.
const MANY: usize = 1000;

/// Wrong attempts, by address.
#[derive(Default)]
pub struct Attempts {
    peers: Mutex<HashMap<Option<IpAddr>, Peer>>,
}

struct Peer {
    since: Instant,
    count: u32,
}

impl Attempts {
    /// Counts an attempt as a wrong one, unless the address has had its share. A right one is taken back by
    /// [`Attempts::was_right`].
    pub fn begin(&self, peer: Option<IpAddr>) -> Result<()> {
        let mut peers = lock(&self.peers);
        if peers.len() > MANY {
            peers.retain(|_, peer| peer.since.elapsed() < WINDOW);
        }
        let peer = peers.entry(network(peer)).or_insert_with(|| Peer { since: Instant::now(), count: 0 });
        if peer.since.elapsed() >= WINDOW {
            *peer = Peer { since: Instant::now(), count: 0 };
        }
        if peer.count >= ATTEMPTS {
            let left = WINDOW.saturating_sub(peer.since.elapsed());
            return Err(Error::RateLimited { wait_s: left.as_secs() + 1 });
        }
        peer.count += 1;
        Ok(())
    }

    /// Takes an attempt back that was right.
    pub fn was_right(&self, peer: Option<IpAddr>) {
        if let Some(peer) = lock(&self.peers).get_mut(&network(peer)) {
            peer.count = peer.count.saturating_sub(1);
        }
    }
}

/// What counts as one address: in IPv6 everybody has 2^64 of them.
fn network(peer: Option<IpAddr>) -> Option<IpAddr> {
    match peer {
        Some(IpAddr::V6(address)) => {
            let prefix = u128::from(address) >> 64 << 64;
            Some(Ipv6Addr::from(prefix).into())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_wrong_ones_by_address_and_right_ones_count_nothing() {
        let attempts = Attempts::default();
        let peer = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        for _ in 0..50 {
            attempts.begin(peer("10.0.0.1")).unwrap();
            attempts.was_right(peer("10.0.0.1"));
        }
        for _ in 0..10 {
            attempts.begin(peer("10.0.0.1")).unwrap();
            attempts.begin(peer("2001:db8::1")).unwrap();
        }
        assert!(matches!(attempts.begin(peer("10.0.0.1")), Err(Error::RateLimited { wait_s: 1..=60 })));
        assert!(attempts.begin(peer("2001:db8::2")).is_err(), "of the same network");
        attempts.begin(peer("10.0.0.2")).unwrap();
        attempts.begin(peer("2001:db8:0:1::1")).unwrap();
    }
}
