//! Devices of domains, snapshots, and the QEMU monitor.

use std::ptr;

use virt_sys as sys;

use crate::ffi::{self, check, check_count, check_ptr, cstr};
use crate::{Domain, Result};

impl Domain {
    /// Adds the device that `xml` describes (`virDomainAttachDeviceFlags`). Flags: `flags::AFFECT_*`. Errors:
    /// XML_ERROR, CONFIG_UNSUPPORTED, OPERATION_UNSUPPORTED, OPERATION_FAILED, INTERNAL_ERROR (no free slot).
    pub fn attach_device(&self, xml: &str, flags: u32) -> Result<()> {
        let xml = cstr(xml)?;
        // SAFETY: a live domain, a C string that lives during the call.
        check(unsafe { sys::virDomainAttachDeviceFlags(self.as_ptr(), xml.as_ptr(), flags) })?;
        Ok(())
    }

    /// Removes the device that `xml` describes (`virDomainDetachDeviceFlags`). Live, success only says that the guest
    /// was asked: it is done with the event `DeviceRemoved`, or when the device is no longer in the XML. Flags:
    /// `flags::AFFECT_*`. Errors: DEVICE_MISSING, and those of [`Domain::attach_device`].
    pub fn detach_device(&self, xml: &str, flags: u32) -> Result<()> {
        let xml = cstr(xml)?;
        // SAFETY: a live domain, a C string that lives during the call.
        check(unsafe { sys::virDomainDetachDeviceFlags(self.as_ptr(), xml.as_ptr(), flags) })?;
        Ok(())
    }

    /// Asks the guest to give up the device with this alias, and doesn't wait (`virDomainDetachDeviceAlias`). Flags:
    /// `flags::AFFECT_*`. Errors: DEVICE_MISSING.
    pub fn detach_device_alias(&self, alias: &str, flags: u32) -> Result<()> {
        let alias = cstr(alias)?;
        // SAFETY: a live domain, a C string that lives during the call.
        check(unsafe { sys::virDomainDetachDeviceAlias(self.as_ptr(), alias.as_ptr(), flags) })?;
        Ok(())
    }

    /// Changes the device that `xml` describes in full: what is left out is lost (`virDomainUpdateDeviceFlags`).
    /// Flags: `flags::AFFECT_*`, [`DEVICE_FORCE`](crate::flags::DEVICE_FORCE). Errors: as [`Domain::detach_device`].
    pub fn update_device(&self, xml: &str, flags: u32) -> Result<()> {
        let xml = cstr(xml)?;
        // SAFETY: a live domain, a C string that lives during the call.
        check(unsafe { sys::virDomainUpdateDeviceFlags(self.as_ptr(), xml.as_ptr(), flags) })?;
        Ok(())
    }

    /// Makes the snapshot that `xml` describes (`virDomainSnapshotCreateXML`). Flags: `flags::SNAPSHOT_*`. Errors:
    /// CONFIG_UNSUPPORTED, OPERATION_UNSUPPORTED, AGENT_UNRESPONSIVE (with QUIESCE), SYSTEM_ERROR (files).
    pub fn snapshot_create_xml(&self, xml: &str, flags: u32) -> Result<()> {
        let xml = cstr(xml)?;
        // SAFETY: a live domain, a C string that lives during the call.
        let snapshot = check_ptr(unsafe { sys::virDomainSnapshotCreateXML(self.as_ptr(), xml.as_ptr(), flags) })?;
        // SAFETY: the handle is ours, and not used again.
        unsafe { sys::virDomainSnapshotFree(snapshot.as_ptr()) };
        Ok(())
    }

    /// How many snapshots libvirt knows of it (`virDomainSnapshotNum`).
    pub fn snapshot_count(&self) -> Result<u32> {
        // SAFETY: a live domain.
        check_count(unsafe { sys::virDomainSnapshotNum(self.as_ptr(), 0) })
    }

    /// Sends a QMP command as JSON to QEMU and gives its answer (`virDomainQemuMonitorCommand`). Taints the domain.
    /// Errors: OPERATION_INVALID if it is off, NO_SUPPORT for other hypervisors. QMP's own errors are in the answer.
    pub fn monitor_command(&self, json: &str) -> Result<String> {
        let json = cstr(json)?;
        let mut answer = ptr::null_mut();
        // SAFETY: a live domain, a C string that lives during the call; the answer is written to our variable.
        check(unsafe { sys::virDomainQemuMonitorCommand(self.as_ptr(), json.as_ptr(), &mut answer, 0) })?;
        // SAFETY: the string is ours.
        unsafe { ffi::take(answer) }
    }
}
