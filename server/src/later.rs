//! What could not be done yet: it is tried again, but not with every scan, since each attempt holds locks and reads pools.

use crate::sync::lock;
use std::{
    collections::HashMap,
    sync::Mutex,
    time::{Duration, Instant},
};

/// The pause after an attempt in vain.
const PAUSE: Duration = Duration::from_secs(60);

/// When what was tried in vain.
#[derive(Default)]
pub struct Later {
    tried: Mutex<HashMap<String, Instant>>,
}

impl Later {
    /// Whether it may be tried now.
    pub fn is_due(&self, what: &str) -> bool {
        lock(&self.tried).get(what).is_none_or(|at| at.elapsed() >= PAUSE)
    }

    /// It was tried, in vain or not.
    pub fn tried(&self, what: &str, in_vain: bool) {
        let mut tried = lock(&self.tried);
        match in_vain {
            true => drop(tried.insert(what.to_owned(), Instant::now())),
            false => drop(tried.remove(what)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Later;

    #[test]
    fn an_attempt_in_vain_makes_a_pause() {
        let later = Later::default();
        assert!(later.is_due("a"));
        later.tried("a", true);
        assert!(!later.is_due("a") && later.is_due("b"));
        later.tried("a", false);
        assert!(later.is_due("a"));
    }
}
