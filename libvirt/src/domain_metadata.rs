//! Title, description and metadata elements of domains.

use std::ffi::c_int;
use std::ptr;

use virt_sys as sys;

use crate::ffi::{self, check, cstr, opt_cstr, opt_ptr};
use crate::{Domain, ErrorCode, Result};

const DESCRIPTION: c_int = sys::VIR_DOMAIN_METADATA_DESCRIPTION as c_int;
const TITLE: c_int = sys::VIR_DOMAIN_METADATA_TITLE as c_int;
const ELEMENT: c_int = sys::VIR_DOMAIN_METADATA_ELEMENT as c_int;

impl Domain {
    /// The metadata element of the namespace `uri`, as XML without its prefix; `None` if there is none
    /// (`virDomainGetMetadata`, VIR_DOMAIN_METADATA_ELEMENT). Flags: `flags::AFFECT_*`.
    pub fn metadata(&self, uri: &str, flags: u32) -> Result<Option<String>> {
        let uri = cstr(uri)?;
        self.get(ELEMENT, Some(&uri), flags)
    }

    /// Sets the metadata element of the namespace `uri`, written with the prefix `key`, or removes it with `None`
    /// (`virDomainSetMetadata`, VIR_DOMAIN_METADATA_ELEMENT). Flags: `flags::AFFECT_*`. Errors: XML_ERROR.
    pub fn set_metadata(&self, xml: Option<&str>, key: &str, uri: &str, flags: u32) -> Result<()> {
        let (xml, key, uri) = (opt_cstr(xml)?, cstr(key)?, cstr(uri)?);
        let (xml, key, uri) = (opt_ptr(&xml), key.as_ptr(), uri.as_ptr());
        // SAFETY: a live domain; C strings (the first may be null) that live during the call.
        check(unsafe { sys::virDomainSetMetadata(self.as_ptr(), ELEMENT, xml, key, uri, flags) })?;
        Ok(())
    }

    /// The title, `None` if it has none (`virDomainGetMetadata`, VIR_DOMAIN_METADATA_TITLE). Flags: `flags::AFFECT_*`.
    pub fn title(&self, flags: u32) -> Result<Option<String>> {
        self.get(TITLE, None, flags)
    }

    /// Sets the title, one line, or removes it (`virDomainSetMetadata`, VIR_DOMAIN_METADATA_TITLE). Flags:
    /// `flags::AFFECT_*`. Errors: INVALID_ARG for a line break.
    pub fn set_title(&self, title: Option<&str>, flags: u32) -> Result<()> {
        self.set(TITLE, title, flags)
    }

    /// The description, `None` if it has none (`virDomainGetMetadata`, VIR_DOMAIN_METADATA_DESCRIPTION). Flags:
    /// `flags::AFFECT_*`.
    pub fn description(&self, flags: u32) -> Result<Option<String>> {
        self.get(DESCRIPTION, None, flags)
    }

    /// Sets the description or removes it (`virDomainSetMetadata`, VIR_DOMAIN_METADATA_DESCRIPTION). Flags:
    /// `flags::AFFECT_*`.
    pub fn set_description(&self, text: Option<&str>, flags: u32) -> Result<()> {
        self.set(DESCRIPTION, text, flags)
    }

    fn get(&self, kind: c_int, uri: Option<&std::ffi::CString>, flags: u32) -> Result<Option<String>> {
        let uri = uri.map_or(ptr::null(), |uri| uri.as_ptr());
        // SAFETY: a live domain, null or a C string that lives during the call; the string is ours.
        let text = unsafe { ffi::take(sys::virDomainGetMetadata(self.as_ptr(), kind, uri, flags)) };
        match text {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.code == ErrorCode::NO_DOMAIN_METADATA => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn set(&self, kind: c_int, text: Option<&str>, flags: u32) -> Result<()> {
        let text = opt_cstr(text)?;
        let (text, null) = (opt_ptr(&text), ptr::null());
        // SAFETY: a live domain; null or a C string that lives during the call; these kinds take no key and no URI.
        check(unsafe { sys::virDomainSetMetadata(self.as_ptr(), kind, text, null, null, flags) })?;
        Ok(())
    }
}
