//! The few helpers that every call needs: strings in and out, return codes, lists.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr::{self, NonNull};

use crate::{Error, ErrorCode, Result};

unsafe extern "C" {
    /// The C library's `free`: libvirt's strings and arrays come from its `malloc`.
    fn free(ptr: *mut c_void);
}

/// A C string of `text`; a NUL byte inside gives [`ErrorCode::INVALID_ARG`].
pub(crate) fn cstr(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Error::new(ErrorCode::INVALID_ARG, "a string argument contains a NUL byte"))
}

/// As [`cstr`], for an optional argument.
pub(crate) fn opt_cstr(text: Option<&str>) -> Result<Option<CString>> {
    text.map(cstr).transpose()
}

/// The pointer to pass for an optional string. It lives as long as `text`.
pub(crate) fn opt_ptr(text: &Option<CString>) -> *const c_char {
    text.as_ref().map_or(ptr::null(), |text| text.as_ptr())
}

/// The C strings of a list, to be kept while [`ptrs`] of it is in use.
pub(crate) fn cstrs(texts: &[String]) -> Result<Vec<CString>> {
    texts.iter().map(|text| cstr(text)).collect()
}

/// The pointers into [`cstrs`].
pub(crate) fn ptrs(texts: &[CString]) -> Vec<*const c_char> {
    texts.iter().map(|text| text.as_ptr()).collect()
}

/// A length as libvirt takes it; more than it can say gives [`ErrorCode::INVALID_ARG`].
pub(crate) fn count<N: TryFrom<usize>>(len: usize) -> Result<N> {
    N::try_from(len).map_err(|_| Error::new(ErrorCode::INVALID_ARG, "a list is too long"))
}

/// The return code, or the calling thread's last libvirt error when it is negative.
pub(crate) fn check(rc: c_int) -> Result<c_int> {
    if rc < 0 { Err(Error::last()) } else { Ok(rc) }
}

/// As [`check`], for a call that answers yes (1) or no (0).
pub(crate) fn check_bool(rc: c_int) -> Result<bool> {
    Ok(check(rc)? > 0)
}

/// As [`check`], for a call that answers with a count.
pub(crate) fn check_count(rc: c_int) -> Result<u32> {
    Ok(check(rc)?.unsigned_abs())
}

/// The object pointer, or the calling thread's last libvirt error when it is null.
pub(crate) fn check_ptr<T>(ptr: *mut T) -> Result<NonNull<T>> {
    NonNull::new(ptr).ok_or_else(Error::last)
}

/// A copy of a string that libvirt keeps; null gives an empty one.
///
/// # Safety
/// `ptr` is null or a NUL-terminated string that lives during the call.
pub(crate) unsafe fn copy(ptr: *const c_char) -> String {
    // SAFETY: the caller's promise.
    unsafe { copy_opt(ptr) }.unwrap_or_default()
}

/// As [`copy`], null giving `None`.
///
/// # Safety
/// As for [`copy`].
pub(crate) unsafe fn copy_opt(ptr: *const c_char) -> Option<String> {
    if ptr.is_null() {
        return None;
    }
    // SAFETY: not null, and the caller's promise.
    let text = unsafe { CStr::from_ptr(ptr) };
    Some(text.to_string_lossy().into_owned())
}

/// The text of a fixed-size field, up to its NUL or its end.
pub(crate) fn field(chars: &[c_char]) -> String {
    let bytes: Vec<u8> = chars.iter().take_while(|c| **c != 0).map(|c| c.to_ne_bytes()[0]).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A string that libvirt allocated for us: copied and freed. Null gives the last error.
///
/// # Safety
/// `ptr` is null or a NUL-terminated string from `malloc` that nobody else frees.
pub(crate) unsafe fn take(ptr: *mut c_char) -> Result<String> {
    let ptr = check_ptr(ptr)?.as_ptr();
    // SAFETY: not null, and the caller's promise.
    let text = unsafe { copy(ptr) };
    // SAFETY: ours to free, and not used again.
    unsafe { free(ptr.cast()) };
    Ok(text)
}

/// The `len` object pointers of a list that libvirt allocated for us, each handed to `wrap`,
/// which takes over the reference; then the array itself is freed.
///
/// # Safety
/// `list` is null or an array from `malloc` of at least `len` pointers that nobody else frees.
pub(crate) unsafe fn take_list<T, R>(list: *mut *mut T, len: c_int, wrap: impl Fn(NonNull<T>) -> R) -> Vec<R> {
    if list.is_null() {
        return Vec::new();
    }
    // SAFETY: the caller's promise; the slice ends before the free below.
    let items = unsafe { std::slice::from_raw_parts(list, usize::try_from(len).unwrap_or(0)) };
    let out = items.iter().filter_map(|item| NonNull::new(*item)).map(wrap).collect();
    // SAFETY: ours to free, and not used again.
    unsafe { free(list.cast()) };
    out
}

/// The strings of a list that libvirt allocated for us; they and the array are freed.
///
/// # Safety
/// As for [`take_list`], and each item is a string as for [`take`].
pub(crate) unsafe fn take_strings(list: *mut *mut c_char, len: c_int) -> Vec<String> {
    // SAFETY: the caller's promise, for the array and for each string.
    let texts = unsafe { take_list(list, len, |text| take(text.as_ptr())) };
    texts.into_iter().flatten().collect()
}
