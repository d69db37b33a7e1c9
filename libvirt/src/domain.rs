//! Domains: what they are and what state they are in. The calls that change them are in the `domain_*` files.

use std::ffi::c_int;
use std::fmt;
use std::ptr::{self, NonNull};

use virt_sys as sys;

use crate::ffi::{self, check, check_bool};
use crate::{Connect, DomainStats, Result, UuidBytes, stats};

/// A virtual machine on a node (`virDomainPtr`), running or only defined. Clones are the same domain. A handle stays
/// valid when the domain is gone; its calls then answer NO_DOMAIN.
pub struct Domain {
    ptr: NonNull<sys::virDomain>,
    conn: Connect,
}

// SAFETY: libvirt's domain objects may be used from any thread, several at once; they lock for themselves.
unsafe impl Send for Domain {}
// SAFETY: as above.
unsafe impl Sync for Domain {}

impl Clone for Domain {
    fn clone(&self) -> Self {
        // SAFETY: a live domain; the new reference belongs to the clone.
        unsafe { sys::virDomainRef(self.as_ptr()) };
        Self { ptr: self.ptr, conn: self.conn.clone() }
    }
}

impl Drop for Domain {
    fn drop(&mut self) {
        // SAFETY: gives back this handle's reference, once.
        unsafe { sys::virDomainFree(self.as_ptr()) };
    }
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Domain").field("name", &self.name()).finish_non_exhaustive()
    }
}

/// What a domain does (`virDomainState`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DomainState {
    /// Not known.
    NoState,
    /// Its processors run.
    Running,
    /// Waits for a resource (not with QEMU).
    Blocked,
    /// Suspended by us, by an I/O error, by a snapshot …: the reason says it.
    Paused,
    /// On its way off.
    Shutdown,
    /// Off.
    Shutoff,
    /// Off or stopped after a crash.
    Crashed,
    /// Suspended by its own operating system.
    PmSuspended,
    /// One that this crate doesn't know.
    Other(i32),
}

impl DomainState {
    pub(crate) fn from_raw(state: c_int) -> Self {
        match u32::try_from(state) {
            Ok(sys::VIR_DOMAIN_NOSTATE) => Self::NoState,
            Ok(sys::VIR_DOMAIN_RUNNING) => Self::Running,
            Ok(sys::VIR_DOMAIN_BLOCKED) => Self::Blocked,
            Ok(sys::VIR_DOMAIN_PAUSED) => Self::Paused,
            Ok(sys::VIR_DOMAIN_SHUTDOWN) => Self::Shutdown,
            Ok(sys::VIR_DOMAIN_SHUTOFF) => Self::Shutoff,
            Ok(sys::VIR_DOMAIN_CRASHED) => Self::Crashed,
            Ok(sys::VIR_DOMAIN_PMSUSPENDED) => Self::PmSuspended,
            _ => Self::Other(state),
        }
    }
}

/// A domain's size and use (`virDomainGetInfo`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DomainInfo {
    /// Its state.
    pub state: DomainState,
    /// The most memory it may have, in KiB.
    pub max_mem_kib: u64,
    /// The memory that it has now, in KiB.
    pub memory_kib: u64,
    /// Its virtual CPUs.
    pub vcpus: u32,
    /// CPU time used since its start, in nanoseconds.
    pub cpu_time_ns: u64,
}

impl Domain {
    /// Takes over the reference `ptr`.
    pub(crate) fn new(conn: &Connect, ptr: NonNull<sys::virDomain>) -> Self {
        Self { ptr, conn: conn.clone() }
    }

    pub(crate) fn as_ptr(&self) -> sys::virDomainPtr {
        self.ptr.as_ptr()
    }

    /// The connection that the handle came from.
    pub fn connect(&self) -> &Connect {
        &self.conn
    }

    /// The name as it was when the handle was made (`virDomainGetName`); asks nobody.
    pub fn name(&self) -> String {
        // SAFETY: a live domain, which keeps the string as long as it lives.
        unsafe { ffi::copy(sys::virDomainGetName(self.as_ptr())) }
    }

    /// The UUID (`virDomainGetUUID`); asks nobody.
    pub fn uuid(&self) -> UuidBytes {
        let mut uuid = [0; 16];
        // SAFETY: a live domain and room for 16 bytes; can't fail for a live domain.
        unsafe { sys::virDomainGetUUID(self.as_ptr(), uuid.as_mut_ptr()) };
        uuid
    }

    /// The number of the running domain, `None` if it was off when the handle was made (`virDomainGetID`); asks
    /// nobody.
    pub fn id(&self) -> Option<u32> {
        // SAFETY: a live domain.
        let id = unsafe { sys::virDomainGetID(self.as_ptr()) };
        (id != u32::MAX).then_some(id)
    }

    /// The definition as XML (`virDomainGetXMLDesc`). Flags: [`XML_INACTIVE`](crate::flags::XML_INACTIVE),
    /// [`XML_SECURE`](crate::flags::XML_SECURE), without which passwords are left out: never redefine from that.
    pub fn xml(&self, flags: u32) -> Result<String> {
        // SAFETY: a live domain; the string is ours.
        unsafe { ffi::take(sys::virDomainGetXMLDesc(self.as_ptr(), flags)) }
    }

    /// The state, and the reason for it (`flags::REASON_*`) (`virDomainGetState`).
    pub fn state(&self) -> Result<(DomainState, i32)> {
        let (mut state, mut reason) = (0, 0);
        // SAFETY: a live domain; the answers are written to our variables.
        check(unsafe { sys::virDomainGetState(self.as_ptr(), &mut state, &mut reason, 0) })?;
        Ok((DomainState::from_raw(state), reason))
    }

    /// Size and use (`virDomainGetInfo`).
    pub fn info(&self) -> Result<DomainInfo> {
        // SAFETY: plain numbers, for which zeroes are valid.
        let mut info: sys::virDomainInfo = unsafe { std::mem::zeroed() };
        // SAFETY: a live domain; the answer is written to our variable.
        check(unsafe { sys::virDomainGetInfo(self.as_ptr(), &mut info) })?;
        Ok(DomainInfo {
            state: DomainState::from_raw(info.state.into()),
            max_mem_kib: info.maxMem,
            memory_kib: info.memory,
            vcpus: info.nrVirtCpu.into(),
            cpu_time_ns: info.cpuTime,
        })
    }

    /// Whether it is on (`virDomainIsActive`).
    pub fn is_active(&self) -> Result<bool> {
        // SAFETY: a live domain.
        check_bool(unsafe { sys::virDomainIsActive(self.as_ptr()) })
    }

    /// Whether it has a definition that outlives a stop (`virDomainIsPersistent`).
    pub fn is_persistent(&self) -> Result<bool> {
        // SAFETY: a live domain.
        check_bool(unsafe { sys::virDomainIsPersistent(self.as_ptr()) })
    }

    /// Whether the daemon starts it when it starts itself (`virDomainGetAutostart`).
    pub fn autostart(&self) -> Result<bool> {
        let mut on = 0;
        // SAFETY: a live domain; the answer is written to our variable.
        check(unsafe { sys::virDomainGetAutostart(self.as_ptr(), &mut on) })?;
        Ok(on != 0)
    }

    /// Sets that (`virDomainSetAutostart`). Errors: OPERATION_INVALID for transient domains.
    pub fn set_autostart(&self, on: bool) -> Result<()> {
        // SAFETY: a live domain.
        check(unsafe { sys::virDomainSetAutostart(self.as_ptr(), on.into()) })?;
        Ok(())
    }

    /// The balloon's statistics as pairs of tag (`flags::MEMORY_STAT_*`) and value: KiB, faults, or for the last
    /// update seconds since 1970 (`virDomainMemoryStats`). Errors: OPERATION_INVALID if it is off.
    pub fn memory_stats(&self) -> Result<Vec<(i32, u64)>> {
        // More than any libvirt knows tags.
        const ROOM: u32 = 64;
        let mut stats = [sys::virDomainMemoryStatStruct { tag: 0, val: 0 }; ROOM as usize];
        // SAFETY: a live domain and an array of that many fields.
        let len = check(unsafe { sys::virDomainMemoryStats(self.as_ptr(), stats.as_mut_ptr(), ROOM, 0) })?;
        Ok(stats.iter().take(usize::try_from(len).unwrap_or(0)).map(|stat| (stat.tag, stat.val)).collect())
    }

    /// The statistics groups `stats` (`flags::STATS_*`; 0 for all) of this domain (`virDomainListGetStats`). `None`
    /// if the daemon left the domain out.
    pub fn stats(&self, stats: u32) -> Result<Option<DomainStats>> {
        let mut list = [self.as_ptr(), ptr::null_mut()];
        let mut records = ptr::null_mut();
        // SAFETY: a list of live domains that ends with null; the record list is ours.
        let len = check(unsafe { sys::virDomainListGetStats(list.as_mut_ptr(), stats, &mut records, 0) })?;
        // SAFETY: as above, with `len` records.
        Ok(unsafe { stats::take_records(records, len) }.into_iter().next())
    }
}
