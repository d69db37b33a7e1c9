//! Disks of domains and the jobs on them. `disk` is the target name (`vda`) or the source path everywhere.

use std::ptr;

use virt_sys as sys;

use crate::ffi::{check, check_bool, cstr, opt_cstr, opt_ptr};
use crate::{Domain, Result};

/// The size of a disk, in bytes (`virDomainGetBlockInfo`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockInfo {
    /// What the guest sees.
    pub capacity: u64,
    /// How far it is filled: the highest offset written, or blocks in use.
    pub allocation: u64,
    /// The size of the file or device on the node.
    pub physical: u64,
}

/// What went through a disk since the start; `None` where the hypervisor doesn't count (`virDomainBlockStats`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockStats {
    /// Read requests.
    pub read_requests: Option<u64>,
    /// Bytes read.
    pub read_bytes: Option<u64>,
    /// Write requests.
    pub write_requests: Option<u64>,
    /// Bytes written.
    pub write_bytes: Option<u64>,
    /// Errors (not counted by QEMU).
    pub errors: Option<u64>,
}

/// How far a block job is (`virDomainGetBlockJobInfo`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockJobInfo {
    /// What it does (`flags::BLOCK_JOB_TYPE_*`).
    pub kind: i32,
    /// Its limit in bytes per second, 0 for none.
    pub bandwidth: u64,
    /// Where it is, in units of its own.
    pub cur: u64,
    /// Where it ends, in the same units. A job that has reached it may still not be ready or done: wait for the event
    /// or for ready in the XML.
    pub end: u64,
}

impl Domain {
    /// The size of a disk (`virDomainGetBlockInfo`). Errors: INVALID_ARG for an unknown disk.
    pub fn block_info(&self, disk: &str) -> Result<BlockInfo> {
        let disk = cstr(disk)?;
        let mut info = sys::virDomainBlockInfo { capacity: 0, allocation: 0, physical: 0 };
        // SAFETY: a live domain, a C string that lives during the call; the answer is written to our variable.
        check(unsafe { sys::virDomainGetBlockInfo(self.as_ptr(), disk.as_ptr(), &mut info, 0) })?;
        Ok(BlockInfo { capacity: info.capacity, allocation: info.allocation, physical: info.physical })
    }

    /// What went through a disk, or with `""` through all (`virDomainBlockStats`). Errors: OPERATION_INVALID if the
    /// domain is off.
    pub fn block_stats(&self, disk: &str) -> Result<BlockStats> {
        let disk = cstr(disk)?;
        let mut stats = sys::virDomainBlockStatsStruct { rd_req: -1, rd_bytes: -1, wr_req: -1, wr_bytes: -1, errs: -1 };
        let size = size_of::<sys::virDomainBlockStatsStruct>();
        // SAFETY: a live domain, a C string that lives during the call, and a struct of `size` bytes to write to.
        check(unsafe { sys::virDomainBlockStats(self.as_ptr(), disk.as_ptr(), &mut stats, size) })?;
        Ok(BlockStats {
            read_requests: u64::try_from(stats.rd_req).ok(),
            read_bytes: u64::try_from(stats.rd_bytes).ok(),
            write_requests: u64::try_from(stats.wr_req).ok(),
            write_bytes: u64::try_from(stats.wr_bytes).ok(),
            errors: u64::try_from(stats.errs).ok(),
        })
    }

    /// Gives a running domain's disk `bytes` bytes (`virDomainBlockResize` with BYTES). Errors: OPERATION_INVALID if
    /// it is off, INVALID_ARG for an unknown disk.
    pub fn block_resize(&self, disk: &str, bytes: u64) -> Result<()> {
        let disk = cstr(disk)?;
        let flags = sys::VIR_DOMAIN_BLOCK_RESIZE_BYTES;
        // SAFETY: a live domain, a C string that lives during the call.
        check(unsafe { sys::virDomainBlockResize(self.as_ptr(), disk.as_ptr(), bytes, flags) })?;
        Ok(())
    }

    /// Limits a disk, by libvirt's names of the limits, such as `total_iops_sec`; 0 for no limit
    /// (`virDomainSetBlockIoTune`). A limit that isn't named stays, unless another one of its group is named. Flags:
    /// `flags::AFFECT_*`. Errors: INVALID_ARG for an unknown disk, or for a total beside a read or a write limit.
    pub fn set_block_io_tune(&self, disk: &str, limits: &[(&str, u64)], flags: u32) -> Result<()> {
        let disk = cstr(disk)?;
        let limits = limits.iter().map(|(name, value)| Ok((cstr(name)?, *value))).collect::<Result<Vec<_>>>()?;
        let (mut params, mut len, mut room) = (ptr::null_mut(), 0, 0);
        let mut added = Ok(0);
        for (name, value) in &limits {
            // SAFETY: the list is libvirt's own, grown by it through our three variables; a C string that lives meanwhile.
            let rc = unsafe { sys::virTypedParamsAddULLong(&mut params, &mut len, &mut room, name.as_ptr(), *value) };
            added = added.and(check(rc));
        }
        let set = added.and_then(|_| {
            let count = u32::try_from(len).unwrap_or(0);
            // SAFETY: a live domain, a C string and a list of `len` parameters that live during the call.
            check(unsafe { sys::virDomainSetBlockIoTune(self.as_ptr(), disk.as_ptr(), params, count as _, flags) })
        });
        // SAFETY: the list is ours, and not used again.
        unsafe { sys::virTypedParamsFree(params, len) };
        set.map(|_| ())
    }

    /// Begins to write the layers from `top` (`None`: the newest) down into `base` (`None`: the oldest) of a running
    /// domain's disk, at most `bandwidth` MiB (with BLOCK_COMMIT_BANDWIDTH_BYTES: bytes) per second, 0 for no limit
    /// (`virDomainBlockCommit`). Flags: `flags::BLOCK_COMMIT_*`. Errors: OPERATION_INVALID, INVALID_ARG,
    /// BLOCK_COPY_ACTIVE (a job runs on the disk).
    pub fn block_commit(
        &self,
        disk: &str,
        base: Option<&str>,
        top: Option<&str>,
        bandwidth: u64,
        flags: u32,
    ) -> Result<()> {
        let (disk, base, top) = (cstr(disk)?, opt_cstr(base)?, opt_cstr(top)?);
        let (disk, base, top) = (disk.as_ptr(), opt_ptr(&base), opt_ptr(&top));
        // SAFETY: a live domain; C strings (the last two may be null) that live during the call.
        check(unsafe { sys::virDomainBlockCommit(self.as_ptr(), disk, base, top, bandwidth, flags) })?;
        Ok(())
    }

    /// Begins to copy into a running domain's disk what it stands on, down to `base` (`None`: all), which it then stands on
    /// alone, at most `bandwidth` MiB per second, 0 for no limit (`virDomainBlockRebase` without COPY). Errors: as
    /// [`Domain::block_commit`].
    pub fn block_rebase(&self, disk: &str, base: Option<&str>, bandwidth: u64) -> Result<()> {
        let (disk, base) = (cstr(disk)?, opt_cstr(base)?);
        // SAFETY: a live domain; C strings (the second may be null) that live during the call.
        check(unsafe { sys::virDomainBlockRebase(self.as_ptr(), disk.as_ptr(), opt_ptr(&base), bandwidth, 0) })?;
        Ok(())
    }

    /// Ends the job on a disk: gives it up, or with [`BLOCK_JOB_PIVOT`](crate::flags::BLOCK_JOB_PIVOT) switches a job
    /// that is ready over (`virDomainBlockJobAbort`). Waits for the end unless
    /// [`BLOCK_JOB_ASYNC`](crate::flags::BLOCK_JOB_ASYNC). Errors: BLOCK_COPY_ACTIVE (not ready), INVALID_ARG or
    /// OPERATION_INVALID (no job).
    pub fn block_job_abort(&self, disk: &str, flags: u32) -> Result<()> {
        let disk = cstr(disk)?;
        // SAFETY: a live domain, a C string that lives during the call.
        check(unsafe { sys::virDomainBlockJobAbort(self.as_ptr(), disk.as_ptr(), flags) })?;
        Ok(())
    }

    /// How far the job on a disk is, `None` if there is none (`virDomainGetBlockJobInfo`).
    pub fn block_job_info(&self, disk: &str) -> Result<Option<BlockJobInfo>> {
        let disk = cstr(disk)?;
        let mut info = sys::virDomainBlockJobInfo { type_: 0, bandwidth: 0, cur: 0, end: 0 };
        let flags = sys::VIR_DOMAIN_BLOCK_JOB_INFO_BANDWIDTH_BYTES;
        // SAFETY: a live domain, a C string that lives during the call; the answer is written to our variable.
        let there =
            check_bool(unsafe { sys::virDomainGetBlockJobInfo(self.as_ptr(), disk.as_ptr(), &mut info, flags) })?;
        Ok(there.then_some(BlockJobInfo { kind: info.type_, bandwidth: info.bandwidth, cur: info.cur, end: info.end }))
    }
}
