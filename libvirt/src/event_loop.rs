//! The one thread that runs libvirt's event loop.

use std::ffi::{c_int, c_void};
use std::sync::{Once, OnceLock};
use std::thread;
use std::time::Duration;

use virt_sys as sys;

use crate::error;
use crate::poller::{Data, Poller};

static POLLER: OnceLock<Poller> = OnceLock::new();

/// Makes the library ready and starts the thread `libvirt-events`, on which keep-alive runs and all callbacks come.
/// The first call does it, later ones do nothing. [`Connect::open`](crate::Connect::open) calls it.
///
/// Calls: `virInitialize`, `virSetErrorFunc` (errors are no longer printed to stderr), `virEventRegisterImpl`. If the
/// loop can't be set up, connections work without events and keep-alive.
pub fn start_event_loop() {
    static START: Once = Once::new();
    START.call_once(|| {
        // SAFETY: takes no arguments, may be called at any time; a failure shows again when a connection is opened.
        unsafe { sys::virInitialize() };
        error::silence();
        let Ok(poller) = Poller::new() else { return };
        let poller = POLLER.get_or_init(|| poller);
        if thread::Builder::new().name("libvirt-events".to_owned()).spawn(|| run(poller)).is_err() {
            return;
        }
        // SAFETY: functions that do what libvirt asks of each; called once, before the first connection is opened.
        unsafe {
            sys::virEventRegisterImpl(
                Some(add_handle),
                Some(update_handle),
                Some(remove_handle),
                Some(add_timeout),
                Some(update_timeout),
                Some(remove_timeout),
            );
        }
    });
}

fn run(poller: &Poller) {
    loop {
        if poller.turn().is_err() {
            // Not to spin if the loop fails again and again.
            thread::sleep(Duration::from_millis(100));
        }
    }
}

// What libvirt calls (libvirt-event.h); -1 is its "can't". It promises that a file is open while it is watched, and that
// callbacks may be called with their data until that was freed.

unsafe extern "C" fn add_handle(
    fd: c_int,
    events: c_int,
    call: sys::virEventHandleCallback,
    opaque: *mut c_void,
    free: sys::virFreeCallback,
) -> c_int {
    let (Some(poller), Some(call)) = (POLLER.get(), call) else { return -1 };
    // SAFETY: see above.
    unsafe { poller.add_handle(fd, events, call, Data { opaque, free }) }.unwrap_or(-1)
}

unsafe extern "C" fn update_handle(watch: c_int, events: c_int) {
    if let Some(poller) = POLLER.get() {
        poller.update_handle(watch, events);
    }
}

unsafe extern "C" fn remove_handle(watch: c_int) -> c_int {
    if POLLER.get().is_some_and(|poller| poller.remove_handle(watch)) { 0 } else { -1 }
}

unsafe extern "C" fn add_timeout(
    every_ms: c_int,
    call: sys::virEventTimeoutCallback,
    opaque: *mut c_void,
    free: sys::virFreeCallback,
) -> c_int {
    let (Some(poller), Some(call)) = (POLLER.get(), call) else { return -1 };
    // SAFETY: see above.
    unsafe { poller.add_timer(every_ms, call, Data { opaque, free }) }
}

unsafe extern "C" fn update_timeout(timer: c_int, every_ms: c_int) {
    if let Some(poller) = POLLER.get() {
        poller.update_timer(timer, every_ms);
    }
}

unsafe extern "C" fn remove_timeout(timer: c_int) -> c_int {
    if POLLER.get().is_some_and(|poller| poller.remove_timer(timer)) { 0 } else { -1 }
}
