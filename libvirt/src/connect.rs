//! Connections and what the node says of itself.

use std::ffi::{c_int, c_void};
use std::fmt;
use std::ptr::{self, NonNull};
use std::sync::{Arc, Mutex, PoisonError};

use virt_sys as sys;

use crate::ffi::{self, check, check_ptr, cstr, opt_cstr, opt_ptr};
use crate::handler::{self, Handler};
use crate::{Error, ErrorCode, Result, event_loop};

/// A connection to a libvirt daemon. Clones share it; it is closed (`virConnectClose`) with the last clone. Handles
/// that came from it (domains, pools, subscriptions …) keep it open as well.
#[derive(Clone)]
pub struct Connect {
    inner: Arc<Inner>,
}

struct Inner {
    ptr: NonNull<sys::virConnect>,
    /// The close callback: libvirt's side of it holds a reference of its own, and must go first.
    close: Mutex<Option<Handler>>,
}

// SAFETY: libvirt's connection objects may be used from any thread, several at once; they lock for themselves.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

impl Drop for Inner {
    fn drop(&mut self) {
        let conn = self.ptr.as_ptr();
        if self.close.get_mut().unwrap_or_else(PoisonError::into_inner).is_some() {
            // SAFETY: the connection is live until the close below. Fails harmlessly once the callback has come.
            unsafe { sys::virConnectUnregisterCloseCallback(conn, Some(CLOSED)) };
        }
        // SAFETY: the reference from opening is given back once.
        unsafe { sys::virConnectClose(conn) };
    }
}

/// Why a connection was closed under us (`virConnectCloseReason`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CloseReason {
    /// An I/O error.
    Error,
    /// The other side ended it.
    Eof,
    /// Keep-alive got no answers.
    Keepalive,
    /// This side asked for it.
    Client,
    /// One that this crate doesn't know.
    Other(i32),
}

/// The node's processor and memory (`virNodeGetInfo`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeInfo {
    /// The architecture, for example `x86_64`.
    pub model: String,
    /// Memory in KiB. Inside a container or VM with a memory balloon it can be wrong: [`Connect::node_memory_stats`].
    pub memory_kib: u64,
    /// CPUs that are online.
    pub cpus: u32,
    /// The clock in MHz, 0 if not known.
    pub mhz: u32,
    /// NUMA cells, 1 for none.
    pub nodes: u32,
    /// Sockets per NUMA cell.
    pub sockets: u32,
    /// Cores per socket.
    pub cores: u32,
    /// Threads per core.
    pub threads: u32,
}

/// The same address for registering and unregistering, which libvirt compares.
static CLOSED: unsafe extern "C" fn(sys::virConnectPtr, c_int, *mut c_void) = closed;

unsafe extern "C" fn closed(_conn: sys::virConnectPtr, reason: c_int, opaque: *mut c_void) {
    let reason = match u32::try_from(reason) {
        Ok(sys::VIR_CONNECT_CLOSE_REASON_ERROR) => CloseReason::Error,
        Ok(sys::VIR_CONNECT_CLOSE_REASON_EOF) => CloseReason::Eof,
        Ok(sys::VIR_CONNECT_CLOSE_REASON_KEEPALIVE) => CloseReason::Keepalive,
        Ok(sys::VIR_CONNECT_CLOSE_REASON_CLIENT) => CloseReason::Client,
        _ => CloseReason::Other(reason),
    };
    handler::call(opaque, reason);
}

impl Connect {
    /// Opens `uri`, for example `qemu:///system`, `qemu+ssh://root@host/system?no_tty=1` or `test:///default`
    /// (`virConnectOpenAuth` without credential callbacks, so libvirt itself never asks a person; an `ssh` process
    /// may, unless the URI says `no_tty=1`). Starts the event loop. Errors: NO_CONNECT, AUTH_FAILED, AUTH_UNAVAILABLE,
    /// SYSTEM_ERROR (no such socket, refused), INVALID_ARG, RPC.
    pub fn open(uri: &str) -> Result<Self> {
        event_loop::start_event_loop();
        let uri = cstr(uri)?;
        // SAFETY: a C string that lives during the call; a null authentication is allowed and means none.
        let ptr = check_ptr(unsafe { sys::virConnectOpenAuth(uri.as_ptr(), ptr::null_mut(), 0) })?;
        Ok(Self { inner: Arc::new(Inner { ptr, close: Mutex::new(None) }) })
    }

    pub(crate) fn as_ptr(&self) -> sys::virConnectPtr {
        self.inner.ptr.as_ptr()
    }

    /// Sends a keep-alive message after `interval_s` silent seconds and gives the connection up after `count` of them
    /// without an answer (`virConnectSetKeepAlive`); `interval_s` ≤ 0 turns it off. False if the other side can't.
    /// Errors: NO_SUPPORT for drivers inside the process.
    pub fn set_keep_alive(&self, interval_s: i32, count: u32) -> Result<bool> {
        // SAFETY: a live connection.
        Ok(check(unsafe { sys::virConnectSetKeepAlive(self.as_ptr(), interval_s, count) })? == 0)
    }

    /// Whether the connection still stands, as far as is known without asking the daemon (`virConnectIsAlive`).
    pub fn is_alive(&self) -> bool {
        // SAFETY: a live connection.
        unsafe { sys::virConnectIsAlive(self.as_ptr()) == 1 }
    }

    /// The URI that was opened, in its full form (`virConnectGetURI`).
    pub fn uri(&self) -> Result<String> {
        // SAFETY: a live connection; the string is ours.
        unsafe { ffi::take(sys::virConnectGetURI(self.as_ptr())) }
    }

    /// The node's host name (`virConnectGetHostname`).
    pub fn hostname(&self) -> Result<String> {
        // SAFETY: a live connection; the string is ours.
        unsafe { ffi::take(sys::virConnectGetHostname(self.as_ptr())) }
    }

    /// The daemon's libvirt version, as [`library_version`](crate::library_version) counts
    /// (`virConnectGetLibVersion`).
    pub fn lib_version(&self) -> Result<u64> {
        let mut version = 0;
        // SAFETY: a live connection; the version is written to our variable.
        check(unsafe { sys::virConnectGetLibVersion(self.as_ptr(), &mut version) })?;
        Ok(version)
    }

    /// The hypervisor's version, counted in the same way (`virConnectGetVersion`).
    pub fn hypervisor_version(&self) -> Result<u64> {
        let mut version = 0;
        // SAFETY: a live connection; the version is written to our variable.
        check(unsafe { sys::virConnectGetVersion(self.as_ptr(), &mut version) })?;
        Ok(version)
    }

    /// The node's capabilities as XML (`virConnectGetCapabilities`).
    pub fn capabilities(&self) -> Result<String> {
        // SAFETY: a live connection; the string is ours.
        unsafe { ffi::take(sys::virConnectGetCapabilities(self.as_ptr())) }
    }

    /// What domains of this kind can have, as XML; `None` leaves the choice to the driver
    /// (`virConnectGetDomainCapabilities`). Errors: INVALID_ARG for unknown machines or architectures.
    pub fn domain_capabilities(
        &self,
        emulator: Option<&str>,
        arch: Option<&str>,
        machine: Option<&str>,
        virt_type: Option<&str>,
    ) -> Result<String> {
        let (emulator, arch) = (opt_cstr(emulator)?, opt_cstr(arch)?);
        let (machine, virt_type) = (opt_cstr(machine)?, opt_cstr(virt_type)?);
        let (emulator, arch) = (opt_ptr(&emulator), opt_ptr(&arch));
        let (machine, virt_type) = (opt_ptr(&machine), opt_ptr(&virt_type));
        // SAFETY: a live connection, and null or C strings that live during the call; the string is ours.
        unsafe {
            let xml = sys::virConnectGetDomainCapabilities(self.as_ptr(), emulator, arch, machine, virt_type, 0);
            ffi::take(xml)
        }
    }

    /// Processor and memory of the node (`virNodeGetInfo`).
    pub fn node_info(&self) -> Result<NodeInfo> {
        // SAFETY: plain numbers and characters, for which zeroes are valid.
        let mut info: sys::virNodeInfo = unsafe { std::mem::zeroed() };
        // SAFETY: a live connection; the answer is written to our variable.
        check(unsafe { sys::virNodeGetInfo(self.as_ptr(), &mut info) })?;
        Ok(NodeInfo {
            model: ffi::field(&info.model),
            memory_kib: info.memory,
            cpus: info.cpus,
            mhz: info.mhz,
            nodes: info.nodes,
            sockets: info.sockets,
            cores: info.cores,
            threads: info.threads,
        })
    }

    /// The node's memory over all NUMA cells, in KiB: `total`, `free`, and on Linux `buffers` and `cached`
    /// (`virNodeGetMemoryStats`).
    pub fn node_memory_stats(&self) -> Result<Vec<(String, u64)>> {
        let (conn, all) = (self.as_ptr(), sys::VIR_NODE_MEMORY_STATS_ALL_CELLS);
        let mut len: c_int = 0;
        // SAFETY: a live connection; with a null array only the number of fields is written.
        check(unsafe { sys::virNodeGetMemoryStats(conn, all, ptr::null_mut(), &mut len, 0) })?;
        // SAFETY: plain numbers and characters, for which zeroes are valid.
        let zero: sys::virNodeMemoryStats = unsafe { std::mem::zeroed() };
        let mut stats = vec![zero; usize::try_from(len).unwrap_or(0)];
        // SAFETY: a live connection and an array of `len` fields.
        check(unsafe { sys::virNodeGetMemoryStats(conn, all, stats.as_mut_ptr(), &mut len, 0) })?;
        stats.truncate(usize::try_from(len).unwrap_or(0));
        Ok(stats.iter().map(|stat| (ffi::field(&stat.field), stat.value)).collect())
    }

    /// Calls `f` once, on the event thread, when the connection is closed by anything but the drop of the last handle
    /// (`virConnectRegisterCloseCallback`). `f` must make no libvirt call and must not own a handle of this
    /// connection; it is freed with the last clone of this handle. Drivers inside this process (`test:`) take it but
    /// never call it. Errors: OPERATION_INVALID the second time.
    pub fn on_close(&self, f: impl Fn(CloseReason) + Send + Sync + 'static) -> Result<()> {
        let mut close = self.inner.close.lock().unwrap_or_else(PoisonError::into_inner);
        // Some drivers ignore a second callback without a word.
        if close.is_some() {
            return Err(Error::new(ErrorCode::OPERATION_INVALID, "the connection has a close callback already"));
        }
        let handler = Handler::new(f);
        let (conn, opaque) = (self.as_ptr(), handler.opaque());
        // SAFETY: a live connection, and a callback that takes any `opaque`.
        check(unsafe { sys::virConnectRegisterCloseCallback(conn, Some(CLOSED), opaque, None) })?;
        *close = Some(handler);
        Ok(())
    }
}

impl fmt::Debug for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect").field("alive", &self.is_alive()).finish_non_exhaustive()
    }
}
