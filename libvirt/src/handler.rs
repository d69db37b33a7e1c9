//! The closures behind libvirt's callbacks.
//!
//! libvirt carries an `opaque` pointer to each callback and has a free function for it, but doesn't always call that:
//! the streams of libvirt 9.0's client never do, drivers inside the process forget close callbacks. And it may be in
//! the middle of a call when a callback is removed. So the closures are ours, in one table, and `opaque` is only a
//! number in it, used once: whatever libvirt does with it can at worst find nothing.

use std::any::Any;
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

type Table = BTreeMap<usize, Arc<dyn Any + Send + Sync>>;

static TABLE: Mutex<Table> = Mutex::new(BTreeMap::new());
static NEXT: AtomicUsize = AtomicUsize::new(1);

/// What the table holds, for events of type `E`.
struct Entry<E>(Box<dyn Fn(E) + Send + Sync>);

/// Keeps a closure in the table until it is dropped.
pub(crate) struct Handler {
    id: usize,
}

impl Handler {
    pub(crate) fn new<E: 'static>(call: impl Fn(E) + Send + Sync + 'static) -> Self {
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        lock().insert(id, Arc::new(Entry::<E>(Box::new(call))));
        Self { id }
    }

    /// What to give libvirt as `opaque`.
    pub(crate) fn opaque(&self) -> *mut c_void {
        ptr::without_provenance_mut(self.id)
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        let entry = lock().remove(&self.id);
        // Out of the lock; what the closure owns may do anything when dropped.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(entry)));
    }
}

/// Calls the closure that `opaque` stands for, if it is still there. A panic in it ends here.
pub(crate) fn call<E: 'static>(opaque: *mut c_void, event: E) {
    let entry = lock().get(&opaque.addr()).cloned();
    let _ = catch_unwind(AssertUnwindSafe(|| {
        if let Some(Entry(call)) = entry.as_deref().and_then(|entry| entry.downcast_ref::<Entry<E>>()) {
            call(event);
        }
        drop(entry);
    }));
}

fn lock() -> MutexGuard<'static, Table> {
    TABLE.lock().unwrap_or_else(PoisonError::into_inner)
}
