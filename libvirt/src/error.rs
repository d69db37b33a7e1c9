//! Errors as libvirt reports them.

use std::ffi::c_void;
use std::fmt;

use virt_sys as sys;

use crate::ErrorCode;
use crate::ffi;

/// What every fallible call answers with.
pub type Result<T> = std::result::Result<T, Error>;

/// A failed libvirt call (`virGetLastError`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Error {
    /// What kind of failure it was: decide by this.
    pub code: ErrorCode,
    /// Which part of libvirt reported it (`virErrorDomain`, for example 10 = QEMU); 0 for errors of this crate.
    pub domain: i32,
    /// libvirt's text, in the daemon's or the library's language: show it, never match on it.
    pub message: String,
}

impl Error {
    /// An error of this crate's own.
    pub(crate) fn new(code: ErrorCode, message: &str) -> Self {
        Self { code, domain: 0, message: message.to_owned() }
    }

    /// The last error of the calling thread. To be asked before any further libvirt call, which would reset it.
    pub(crate) fn last() -> Self {
        // SAFETY: no arguments; the error lives until this thread's next libvirt call.
        let Some(error) = (unsafe { sys::virGetLastError().as_ref() }) else {
            return Self::new(ErrorCode::INTERNAL_ERROR, "libvirt reported a failure without an error");
        };
        Self {
            code: ErrorCode(error.code.unsigned_abs()),
            domain: error.domain,
            // SAFETY: null or a NUL-terminated string that lives as long as the error.
            message: unsafe { ffi::copy(error.message) },
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code, message, .. } = self;
        write!(f, "{message} (libvirt error {})", code.0)
    }
}

impl std::error::Error for Error {}

/// Replaces the library's printing of every error to stderr by nothing (`virSetErrorFunc`).
pub(crate) fn silence() {
    // SAFETY: the handler is a plain function that touches neither argument, and lives for ever.
    unsafe { sys::virSetErrorFunc(std::ptr::null_mut(), Some(ignore)) };
}

unsafe extern "C" fn ignore(_data: *mut c_void, _error: sys::virErrorPtr) {}
