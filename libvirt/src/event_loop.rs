//! The one thread that runs libvirt's event loop.

use std::sync::Once;
use std::thread;
use std::time::Duration;

use virt_sys as sys;

use crate::error;

/// Makes the library ready and starts the thread `libvirt-events`, on which keep-alive runs and all callbacks come.
/// The first call does it, later ones do nothing. [`Connect::open`](crate::Connect::open) calls it.
///
/// Calls: `virInitialize`, `virSetErrorFunc` (errors are no longer printed to stderr), `virEventRegisterDefaultImpl`,
/// `virEventRunDefaultImpl`. If the thread can't be started, connections work without events and keep-alive.
pub fn start_event_loop() {
    static START: Once = Once::new();
    START.call_once(|| {
        // SAFETY: takes no arguments, may be called at any time; a failure shows again when a connection is opened.
        unsafe { sys::virInitialize() };
        error::silence();
        // SAFETY: takes no arguments; called once, before the first connection is opened.
        if unsafe { sys::virEventRegisterDefaultImpl() } < 0 {
            return;
        }
        let _ = thread::Builder::new().name("libvirt-events".to_owned()).spawn(run);
    });
}

fn run() {
    loop {
        // SAFETY: takes no arguments; the default implementation was registered, and only this thread runs it.
        if unsafe { sys::virEventRunDefaultImpl() } < 0 {
            // Not to spin if the loop fails again and again.
            thread::sleep(Duration::from_millis(100));
        }
    }
}
