//! A connection of a lane's thread, with the handles that were looked up on it.
//!
//! libvirt's calls name a domain or a pool by its UUID, and a handle holds no more than that and a name: it stays good however the
//! domain or the pool changes, and when it is gone the calls say so. So it is looked up once, and each later call saves a round trip.

use libvirt::{Connect, Domain, Pool, Result};
use std::{cell::RefCell, collections::HashMap, ops::Deref};
use uuid::Uuid;

/// Handles of a kind that are kept; with more all are forgotten.
const HANDLES: usize = 256;

/// A connection, and handles.
pub(crate) struct Session {
    connection: Connect,
    domains: RefCell<HashMap<Uuid, Domain>>,
    pools: RefCell<HashMap<Uuid, Pool>>,
}

impl Session {
    pub(crate) fn new(connection: Connect) -> Session {
        Session { connection, domains: RefCell::default(), pools: RefCell::default() }
    }

    /// The domain with this UUID. Errors: NO_DOMAIN; of one that was there before the first call on it says that.
    pub(crate) fn domain(&self, id: Uuid) -> Result<Domain> {
        known(&self.domains, id, || self.connection.domain_by_uuid(id.into_bytes()))
    }

    /// The pool with this UUID. Errors: NO_STORAGE_POOL; of one that was there before the first call on it says that.
    pub(crate) fn pool(&self, id: Uuid) -> Result<Pool> {
        known(&self.pools, id, || self.connection.pool_by_uuid(id.into_bytes()))
    }
}

fn known<T: Clone>(handles: &RefCell<HashMap<Uuid, T>>, id: Uuid, look_up: impl FnOnce() -> Result<T>) -> Result<T> {
    let mut handles = handles.borrow_mut();
    if let Some(handle) = handles.get(&id) {
        return Ok(handle.clone());
    }
    let handle = look_up()?;
    if handles.len() >= HANDLES {
        handles.clear();
    }
    handles.insert(id, handle.clone());
    Ok(handle)
}

impl Deref for Session {
    type Target = Connect;

    fn deref(&self) -> &Connect {
        &self.connection
    }
}
