//! The guard that keeps a callback registered.

use std::ffi::c_int;
use std::fmt;

use virt_sys as sys;

use crate::Connect;
use crate::handler::Handler;

/// Which family of events a subscription is of: they are ended by different calls.
pub(crate) enum Family {
    Domain,
    Pool,
}

/// Keeps a callback registered, and the connection open. Dropping it deregisters
/// (`virConnectDomainEventDeregisterAny`, `virConnectStoragePoolEventDeregisterAny`) and frees the closure; no call
/// begins after that. One that runs on the event thread meanwhile runs to its end, and then frees the closure.
#[must_use = "dropping a subscription ends it"]
pub struct Subscription {
    conn: Connect,
    id: c_int,
    family: Family,
    /// Freed after the deregistration.
    _handler: Handler,
}

impl Subscription {
    pub(crate) fn new(conn: Connect, id: c_int, family: Family, handler: Handler) -> Self {
        Self { conn, id, family, _handler: handler }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let (conn, id) = (self.conn.as_ptr(), self.id);
        // A lost connection makes these fail, after they have removed the callback on our side.
        match self.family {
            // SAFETY: a live connection, and an ID that it gave for this family and that is ended only here.
            Family::Domain => unsafe { sys::virConnectDomainEventDeregisterAny(conn, id) },
            // SAFETY: as above.
            Family::Pool => unsafe { sys::virConnectStoragePoolEventDeregisterAny(conn, id) },
        };
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("id", &self.id).finish_non_exhaustive()
    }
}
