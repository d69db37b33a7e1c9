//! Starting, stopping, saving, undefining and resizing domains.

use virt_sys as sys;

use crate::ffi::{check, check_bool, check_count, cstr, opt_cstr, opt_ptr};
use crate::{Domain, Result};

impl Domain {
    /// Starts it (`virDomainCreateWithFlags`), from its managed-save image if it has one. Flags: `flags::START_*`.
    /// Errors: OPERATION_INVALID if it is on, INTERNAL_ERROR with QEMU's words, SYSTEM_ERROR, and others.
    pub fn start(&self, flags: u32) -> Result<()> {
        // SAFETY: a live domain.
        check(unsafe { sys::virDomainCreateWithFlags(self.as_ptr(), flags) })?;
        Ok(())
    }

    /// Asks the guest to switch off and doesn't wait for it (`virDomainShutdownFlags`). Flags: `flags::SHUTDOWN_*`.
    /// Errors: OPERATION_INVALID if it is off, AGENT_UNRESPONSIVE.
    pub fn shutdown(&self, flags: u32) -> Result<()> {
        // SAFETY: a live domain.
        check(unsafe { sys::virDomainShutdownFlags(self.as_ptr(), flags) })?;
        Ok(())
    }

    /// Asks the guest to reboot and doesn't wait for it (`virDomainReboot`). Flags: `flags::REBOOT_*`. Errors: as
    /// [`Domain::shutdown`].
    pub fn reboot(&self, flags: u32) -> Result<()> {
        // SAFETY: a live domain.
        check(unsafe { sys::virDomainReboot(self.as_ptr(), flags) })?;
        Ok(())
    }

    /// The reset button (`virDomainReset`). Errors: OPERATION_INVALID if it is off.
    pub fn reset(&self) -> Result<()> {
        // SAFETY: a live domain.
        check(unsafe { sys::virDomainReset(self.as_ptr(), 0) })?;
        Ok(())
    }

    /// Switches the power off (`virDomainDestroyFlags`). Flags: [`DESTROY_GRACEFUL`](crate::flags::DESTROY_GRACEFUL)
    /// (never SIGKILL; may then fail with RESOURCE_BUSY or OPERATION_FAILED). Errors: OPERATION_INVALID if it is off.
    pub fn destroy(&self, flags: u32) -> Result<()> {
        // SAFETY: a live domain.
        check(unsafe { sys::virDomainDestroyFlags(self.as_ptr(), flags) })?;
        Ok(())
    }

    /// Stops the virtual CPUs (`virDomainSuspend`).
    pub fn suspend(&self) -> Result<()> {
        // SAFETY: a live domain.
        check(unsafe { sys::virDomainSuspend(self.as_ptr()) })?;
        Ok(())
    }

    /// Lets the virtual CPUs go on (`virDomainResume`).
    pub fn resume(&self) -> Result<()> {
        // SAFETY: a live domain.
        check(unsafe { sys::virDomainResume(self.as_ptr()) })?;
        Ok(())
    }

    /// Forgets the definition; a running domain goes on as a transient one (`virDomainUndefineFlags`). Flags:
    /// `flags::UNDEFINE_*`. Errors: OPERATION_INVALID for a transient domain, or if a managed save, NVRAM, snapshots
    /// or checkpoints are there and no flag says what to do with them.
    pub fn undefine(&self, flags: u32) -> Result<()> {
        // SAFETY: a live domain.
        check(unsafe { sys::virDomainUndefineFlags(self.as_ptr(), flags) })?;
        Ok(())
    }

    /// Renames it; only while it is off. The handle keeps the old name (`virDomainRename`). Errors: OPERATION_INVALID.
    pub fn rename(&self, name: &str) -> Result<()> {
        let name = cstr(name)?;
        // SAFETY: a live domain, a C string that lives during the call.
        check(unsafe { sys::virDomainRename(self.as_ptr(), name.as_ptr(), 0) })?;
        Ok(())
    }

    /// Writes the memory to `path` on the node and stops it (`virDomainSaveFlags`). With `dxml`, that XML is saved
    /// instead of the domain's. Flags: `flags::SAVE_*`. Read it with [`Connect::restore_domain`](crate::Connect).
    pub fn save(&self, path: &str, dxml: Option<&str>, flags: u32) -> Result<()> {
        let (path, dxml) = (cstr(path)?, opt_cstr(dxml)?);
        // SAFETY: a live domain; C strings (the second may be null) that live during the call.
        check(unsafe { sys::virDomainSaveFlags(self.as_ptr(), path.as_ptr(), opt_ptr(&dxml), flags) })?;
        Ok(())
    }

    /// Writes the memory to a file of libvirt's own, from which the next start goes on (`virDomainManagedSave`).
    /// Flags: `flags::SAVE_*`.
    pub fn managed_save(&self, flags: u32) -> Result<()> {
        // SAFETY: a live domain.
        check(unsafe { sys::virDomainManagedSave(self.as_ptr(), flags) })?;
        Ok(())
    }

    /// Whether there is such a file (`virDomainHasManagedSaveImage`).
    pub fn has_managed_save(&self) -> Result<bool> {
        // SAFETY: a live domain.
        check_bool(unsafe { sys::virDomainHasManagedSaveImage(self.as_ptr(), 0) })
    }

    /// Deletes that file (`virDomainManagedSaveRemove`).
    pub fn managed_save_remove(&self) -> Result<()> {
        // SAFETY: a live domain.
        check(unsafe { sys::virDomainManagedSaveRemove(self.as_ptr(), 0) })?;
        Ok(())
    }

    /// The number of virtual CPUs (`virDomainGetVcpusFlags`). Flags: `flags::AFFECT_*`, `flags::VCPU_*`.
    pub fn vcpus(&self, flags: u32) -> Result<u32> {
        // SAFETY: a live domain.
        check_count(unsafe { sys::virDomainGetVcpusFlags(self.as_ptr(), flags) })
    }

    /// Sets it (`virDomainSetVcpusFlags`). Flags: `flags::AFFECT_*`, [`VCPU_MAXIMUM`](crate::flags::VCPU_MAXIMUM)
    /// (only with AFFECT_CONFIG). Errors: INVALID_ARG above the maximum, OPERATION_UNSUPPORTED.
    pub fn set_vcpus(&self, count: u32, flags: u32) -> Result<()> {
        // SAFETY: a live domain.
        check(unsafe { sys::virDomainSetVcpusFlags(self.as_ptr(), count, flags) })?;
        Ok(())
    }

    /// Sets the memory in KiB (`virDomainSetMemoryFlags`): live through the balloon, which may do nothing and has no
    /// floor. Flags: `flags::AFFECT_*`, [`MEM_MAXIMUM`](crate::flags::MEM_MAXIMUM). Errors: INVALID_ARG above the
    /// maximum.
    pub fn set_memory(&self, kib: u64, flags: u32) -> Result<()> {
        // SAFETY: a live domain.
        check(unsafe { sys::virDomainSetMemoryFlags(self.as_ptr(), kib, flags) })?;
        Ok(())
    }

    /// Lets the balloon collect statistics every so many seconds, 0 for never (`virDomainSetMemoryStatsPeriod`).
    /// Flags: `flags::AFFECT_*`.
    pub fn set_memory_stats_period(&self, seconds: i32, flags: u32) -> Result<()> {
        // SAFETY: a live domain.
        check(unsafe { sys::virDomainSetMemoryStatsPeriod(self.as_ptr(), seconds, flags) })?;
        Ok(())
    }

    /// Asks the job that runs on the domain (save, migration, dump, snapshot with memory) to end
    /// (`virDomainAbortJob`). Errors: OPERATION_INVALID if none runs.
    pub fn abort_job(&self) -> Result<()> {
        // SAFETY: a live domain.
        check(unsafe { sys::virDomainAbortJob(self.as_ptr()) })?;
        Ok(())
    }
}
