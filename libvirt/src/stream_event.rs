//! Being told when a non-blocking stream can be read or written.

use std::ffi::{c_int, c_void};
use std::sync::{MutexGuard, PoisonError};

use virt_sys as sys;

use crate::ffi::check;
use crate::handler::{self, Handler};
use crate::{Result, Stream};

impl Stream {
    /// Calls `f` on the event thread when one of `events` (`flags::STREAM_EVENT_*`) is there, with those that are
    /// (`virStreamEventAddCallback`). One call only: before it the callback is switched off, and
    /// [`Stream::set_events`] switches it on again, so that bytes that nobody reads don't keep the event thread busy.
    /// For streams that are non-blocking and connected. `f` must not own the stream (a `Weak` is fine), and may
    /// receive and send. Errors: INTERNAL_ERROR if a callback is registered, NO_SUPPORT if not connected.
    pub fn on_event(&self, events: i32, f: impl Fn(i32) + Send + Sync + 'static) -> Result<()> {
        let mut event = self.event();
        let handler = Handler::new(f);
        let opaque = handler.opaque();
        // SAFETY: a live stream, and a callback that takes any `opaque`.
        check(unsafe { sys::virStreamEventAddCallback(self.as_ptr(), events, Some(ready), opaque, None) })?;
        *event = Some(handler);
        Ok(())
    }

    /// Says anew which events the callback waits for, 0 for none (`virStreamEventUpdateCallback`). Errors:
    /// INTERNAL_ERROR if no callback is registered.
    pub fn set_events(&self, events: i32) -> Result<()> {
        // SAFETY: a live stream.
        check(unsafe { sys::virStreamEventUpdateCallback(self.as_ptr(), events) })?;
        Ok(())
    }

    /// Removes the callback, if there is one, and frees its closure (`virStreamEventRemoveCallback`).
    pub fn remove_event(&self) -> Result<()> {
        let handler = self.event().take();
        if handler.is_some() {
            // SAFETY: a live stream.
            check(unsafe { sys::virStreamEventRemoveCallback(self.as_ptr()) })?;
        }
        Ok(())
    }

    fn event(&self) -> MutexGuard<'_, Option<Handler>> {
        self.event.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

unsafe extern "C" fn ready(stream: sys::virStreamPtr, events: c_int, opaque: *mut c_void) {
    // SAFETY: libvirt calls with a live stream; it allows this call in a callback.
    unsafe { sys::virStreamEventUpdateCallback(stream, 0) };
    handler::call(opaque, events);
}
