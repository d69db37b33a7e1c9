//! Consoles of domains: serial lines, graphics, screenshots, keys.

use std::os::fd::{FromRawFd, OwnedFd};

use virt_sys as sys;

use crate::ffi::{self, check, opt_cstr, opt_ptr};
use crate::{Domain, Result, Stream};

impl Domain {
    /// Connects `stream` with a serial or console device, by alias; `None` for the first (`virDomainOpenConsole`).
    /// Flags: [`CONSOLE_FORCE`](crate::flags::CONSOLE_FORCE) cuts who is connected. Errors: OPERATION_FAILED if
    /// someone is, OPERATION_INVALID if it is off, INTERNAL_ERROR if there is no such device.
    pub fn open_console(&self, device: Option<&str>, stream: &Stream, flags: u32) -> Result<()> {
        let device = opt_cstr(device)?;
        // SAFETY: a live domain and stream, null or a C string that lives during the call.
        check(unsafe { sys::virDomainOpenConsole(self.as_ptr(), opt_ptr(&device), stream.as_ptr(), flags) })?;
        Ok(())
    }

    /// A socket to the graphics device `index` (VNC, SPICE); only over a local connection
    /// (`virDomainOpenGraphicsFD`). Flags: [`GRAPHICS_SKIPAUTH`](crate::flags::GRAPHICS_SKIPAUTH) asks for no
    /// password. Errors: OPERATION_INVALID if it is off, NO_SUPPORT or OPERATION_UNSUPPORTED over the network.
    pub fn open_graphics_fd(&self, index: u32, flags: u32) -> Result<OwnedFd> {
        // SAFETY: a live domain.
        let fd = check(unsafe { sys::virDomainOpenGraphicsFD(self.as_ptr(), index, flags) })?;
        // SAFETY: a new descriptor that is ours alone.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// Takes a picture of screen `screen`, to be read from `stream` to its end; gives its MIME type
    /// (`virDomainScreenshot`).
    pub fn screenshot(&self, stream: &Stream, screen: u32, flags: u32) -> Result<String> {
        // SAFETY: a live domain and stream; the string is ours.
        unsafe { ffi::take(sys::virDomainScreenshot(self.as_ptr(), stream.as_ptr(), screen, flags)) }
    }

    /// Presses up to 16 keys at once, for `holdtime_ms` milliseconds (`virDomainSendKey`). `codeset` is
    /// `flags::KEYCODE_*`. Errors: INVALID_ARG for too many keys or none.
    pub fn send_key(&self, codeset: u32, holdtime_ms: u32, keys: &[u32]) -> Result<()> {
        let mut keys = keys.to_vec();
        let len = ffi::count(keys.len())?;
        // SAFETY: a live domain and an array of `len` key codes.
        check(unsafe { sys::virDomainSendKey(self.as_ptr(), codeset, holdtime_ms, keys.as_mut_ptr(), len, 0) })?;
        Ok(())
    }
}
