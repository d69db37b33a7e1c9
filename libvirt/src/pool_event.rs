//! What happens to storage pools, as the daemon reports it.

use std::ffi::{c_int, c_void};
use std::ptr;

use virt_sys as sys;

use crate::ffi::{self, check};
use crate::handler::{self, Handler};
use crate::subscription::Family;
use crate::{Connect, Result, Subscription, UuidBytes};

/// Something that happened to a storage pool.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PoolEvent {
    /// The pool's UUID.
    pub uuid: UuidBytes,
    /// The pool's name.
    pub name: String,
    /// What happened.
    pub change: PoolChange,
}

/// Which pool events to subscribe to (`virStoragePoolEventID`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PoolEventKind {
    /// All of [`PoolChange`] but Refreshed.
    Lifecycle,
    /// Only [`PoolChange::Refreshed`].
    Refresh,
}

/// What happened to a pool (`virStoragePoolEventLifecycleType`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PoolChange {
    /// Defined or redefined.
    Defined,
    /// No longer defined.
    Undefined,
    /// Started.
    Started,
    /// Stopped.
    Stopped,
    /// Its storage was built.
    Created,
    /// Its storage was deleted.
    Deleted,
    /// Its volumes were looked up anew; also after a volume was made or deleted by some drivers.
    Refreshed,
    /// One that this crate doesn't know.
    Other(i32),
}

impl Connect {
    /// Calls `f` on the event thread for each event of this kind, of any pool of the node, until the subscription is
    /// dropped (`virConnectStoragePoolEventRegisterAny`). Errors: as [`Connect::subscribe`].
    pub fn subscribe_pools(
        &self,
        kind: PoolEventKind,
        f: impl Fn(PoolEvent) + Send + Sync + 'static,
    ) -> Result<Subscription> {
        let (id, callback) = match kind {
            PoolEventKind::Lifecycle => (sys::VIR_STORAGE_POOL_EVENT_ID_LIFECYCLE, lifecycle as *const ()),
            PoolEventKind::Refresh => (sys::VIR_STORAGE_POOL_EVENT_ID_REFRESH, refresh as *const ()),
        };
        // SAFETY: to libvirt both are this type; it calls each with the arguments that belong to its event ID.
        let callback = unsafe { std::mem::transmute::<*const (), Generic>(callback) };
        let handler = Handler::new(f);
        let (conn, all, opaque, id) = (self.as_ptr(), ptr::null_mut(), handler.opaque(), id as c_int);
        // SAFETY: a live connection, no pool for all, and a callback that takes any `opaque`.
        let id =
            check(unsafe { sys::virConnectStoragePoolEventRegisterAny(conn, all, id, Some(callback), opaque, None) })?;
        Ok(Subscription::new(self.clone(), id, Family::Pool, handler))
    }
}

/// What `virConnectStoragePoolEventRegisterAny` takes for any callback.
type Generic = unsafe extern "C" fn(sys::virConnectPtr, sys::virStoragePoolPtr, *mut c_void);

/// Hands an event on. Makes no libvirt call but for UUID and name, which ask nobody.
///
/// # Safety
/// `pool` is a live pool.
unsafe fn emit(pool: sys::virStoragePoolPtr, opaque: *mut c_void, change: PoolChange) {
    let mut uuid = [0; 16];
    // SAFETY: the caller's promise, and room for 16 bytes.
    unsafe { sys::virStoragePoolGetUUID(pool, uuid.as_mut_ptr()) };
    // SAFETY: the caller's promise; the pool keeps the string.
    let name = unsafe { ffi::copy(sys::virStoragePoolGetName(pool)) };
    handler::call(opaque, PoolEvent { uuid, name, change });
}

unsafe extern "C" fn lifecycle(
    _: sys::virConnectPtr,
    pool: sys::virStoragePoolPtr,
    event: c_int,
    _detail: c_int,
    opaque: *mut c_void,
) {
    let change = match u32::try_from(event) {
        Ok(sys::VIR_STORAGE_POOL_EVENT_DEFINED) => PoolChange::Defined,
        Ok(sys::VIR_STORAGE_POOL_EVENT_UNDEFINED) => PoolChange::Undefined,
        Ok(sys::VIR_STORAGE_POOL_EVENT_STARTED) => PoolChange::Started,
        Ok(sys::VIR_STORAGE_POOL_EVENT_STOPPED) => PoolChange::Stopped,
        Ok(sys::VIR_STORAGE_POOL_EVENT_CREATED) => PoolChange::Created,
        Ok(sys::VIR_STORAGE_POOL_EVENT_DELETED) => PoolChange::Deleted,
        _ => PoolChange::Other(event),
    };
    // SAFETY: libvirt calls with a live pool.
    unsafe { emit(pool, opaque, change) };
}

unsafe extern "C" fn refresh(_: sys::virConnectPtr, pool: sys::virStoragePoolPtr, opaque: *mut c_void) {
    // SAFETY: libvirt calls with a live pool.
    unsafe { emit(pool, opaque, PoolChange::Refreshed) };
}
