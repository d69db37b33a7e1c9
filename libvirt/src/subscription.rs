//! Callback state that libvirt keeps for us, and the guard that ends it.

use std::ffi::{c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

use virt_sys as sys;

use crate::Connect;

/// A callback's closure, behind the `opaque` pointer that libvirt hands back.
pub(crate) struct Handler<E> {
    call: Box<dyn Fn(E) + Send + Sync>,
}

impl<E> Handler<E> {
    /// The `opaque` pointer for `call`. Who frees it: [`free_handler`], as libvirt's free callback, or after a failed
    /// registration called by us.
    pub(crate) fn into_opaque(call: impl Fn(E) + Send + Sync + 'static) -> *mut c_void {
        Box::into_raw(Box::new(Self { call: Box::new(call) })).cast()
    }

    /// Calls the closure; a panic in it ends here.
    ///
    /// # Safety
    /// `opaque` is from [`Handler::<E>::into_opaque`], for the same `E`, and not freed.
    pub(crate) unsafe fn call(opaque: *mut c_void, event: E) {
        // SAFETY: the caller's promise; closures are `Sync`, so a shared reference is enough on any thread.
        let handler = unsafe { &*opaque.cast::<Self>() };
        let _ = catch_unwind(AssertUnwindSafe(|| (handler.call)(event)));
    }
}

/// Frees what [`Handler::<E>::into_opaque`] made.
///
/// # Safety
/// `opaque` is from there, for the same `E`, and neither used nor freed after this.
pub(crate) unsafe extern "C" fn free_handler<E>(opaque: *mut c_void) {
    // SAFETY: the caller's promise.
    let handler = unsafe { Box::from_raw(opaque.cast::<Handler<E>>()) };
    let _ = catch_unwind(AssertUnwindSafe(|| drop(handler)));
}

/// Which family of events a subscription is of: they are ended by different calls.
pub(crate) enum Family {
    Domain,
    Pool,
}

/// Keeps a callback registered. Dropping it deregisters (`virConnectDomainEventDeregisterAny`,
/// `virConnectStoragePoolEventDeregisterAny`) and frees the closure; no call begins after that, though one that is
/// already running on the event thread may still end. It keeps the connection open.
#[must_use = "dropping a subscription ends it"]
pub struct Subscription {
    conn: Connect,
    id: c_int,
    family: Family,
}

impl Subscription {
    pub(crate) fn new(conn: Connect, id: c_int, family: Family) -> Self {
        Self { conn, id, family }
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

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription").field("id", &self.id).finish_non_exhaustive()
    }
}
