//! Virtual networks.

use std::fmt;
use std::ptr::{self, NonNull};

use virt_sys as sys;

use crate::ffi::{self, check, check_bool, cstr, opt_cstr, opt_ptr};
use crate::{Connect, ErrorCode, Result, UuidBytes};

/// The domain of errors of the connection itself.
const RPC: i32 = sys::VIR_FROM_RPC as i32;

/// A virtual network on a node (`virNetworkPtr`). Clones are the same network.
pub struct Network {
    ptr: NonNull<sys::virNetwork>,
    conn: Connect,
}

// SAFETY: libvirt's network objects may be used from any thread, several at once; they lock for themselves.
unsafe impl Send for Network {}
// SAFETY: as above.
unsafe impl Sync for Network {}

impl Clone for Network {
    fn clone(&self) -> Self {
        // SAFETY: a live network; the new reference belongs to the clone.
        unsafe { sys::virNetworkRef(self.as_ptr()) };
        Self { ptr: self.ptr, conn: self.conn.clone() }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // SAFETY: gives back this handle's reference, once.
        unsafe { sys::virNetworkFree(self.as_ptr()) };
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network").field("name", &self.name()).finish_non_exhaustive()
    }
}

/// An address that the network's DHCP server gave out (`virNetworkGetDHCPLeases`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lease {
    /// The hardware address, if it is known (with IPv6 it may not be).
    pub mac: Option<String>,
    /// The IPv4 or IPv6 address.
    pub address: String,
    /// The length of its network prefix.
    pub prefix: u32,
    /// The name that the guest gave.
    pub hostname: Option<String>,
    /// When it ends, in seconds since 1970.
    pub expires_unix: i64,
    /// The bridge.
    pub interface: String,
}

impl Network {
    /// Takes over the reference `ptr`.
    pub(crate) fn new(conn: &Connect, ptr: NonNull<sys::virNetwork>) -> Self {
        Self { ptr, conn: conn.clone() }
    }

    fn as_ptr(&self) -> sys::virNetworkPtr {
        self.ptr.as_ptr()
    }

    /// The connection that the handle came from.
    pub fn connect(&self) -> &Connect {
        &self.conn
    }

    /// The name (`virNetworkGetName`); asks nobody.
    pub fn name(&self) -> String {
        // SAFETY: a live network, which keeps the string as long as it lives.
        unsafe { ffi::copy(sys::virNetworkGetName(self.as_ptr())) }
    }

    /// The UUID (`virNetworkGetUUID`); asks nobody.
    pub fn uuid(&self) -> UuidBytes {
        let mut uuid = [0; 16];
        // SAFETY: a live network and room for 16 bytes; can't fail for a live network.
        unsafe { sys::virNetworkGetUUID(self.as_ptr(), uuid.as_mut_ptr()) };
        uuid
    }

    /// The definition as XML (`virNetworkGetXMLDesc`). Flags: [`NETWORK_XML_INACTIVE`](crate::flags).
    pub fn xml(&self, flags: u32) -> Result<String> {
        // SAFETY: a live network; the string is ours.
        unsafe { ffi::take(sys::virNetworkGetXMLDesc(self.as_ptr(), flags)) }
    }

    /// Whether it is started (`virNetworkIsActive`).
    pub fn is_active(&self) -> Result<bool> {
        // SAFETY: a live network.
        check_bool(unsafe { sys::virNetworkIsActive(self.as_ptr()) })
    }

    /// Whether it has a definition that outlives a stop (`virNetworkIsPersistent`).
    pub fn is_persistent(&self) -> Result<bool> {
        // SAFETY: a live network.
        check_bool(unsafe { sys::virNetworkIsPersistent(self.as_ptr()) })
    }

    /// Starts it (`virNetworkCreate`). Errors: OPERATION_INVALID if it is active, INTERNAL_ERROR if its bridge or its
    /// addresses are taken.
    pub fn start(&self) -> Result<()> {
        // SAFETY: a live network.
        check(unsafe { sys::virNetworkCreate(self.as_ptr()) })?;
        Ok(())
    }

    /// Stops it, even if domains use it (`virNetworkDestroy`). Errors: OPERATION_INVALID if it is not active.
    pub fn destroy(&self) -> Result<()> {
        // SAFETY: a live network.
        check(unsafe { sys::virNetworkDestroy(self.as_ptr()) })?;
        Ok(())
    }

    /// Forgets its definition; an active one goes on as a transient one (`virNetworkUndefine`).
    pub fn undefine(&self) -> Result<()> {
        // SAFETY: a live network.
        check(unsafe { sys::virNetworkUndefine(self.as_ptr()) })?;
        Ok(())
    }

    /// Whether the daemon starts it when it starts itself (`virNetworkGetAutostart`).
    pub fn autostart(&self) -> Result<bool> {
        let mut on = 0;
        // SAFETY: a live network; the answer is written to our variable.
        check(unsafe { sys::virNetworkGetAutostart(self.as_ptr(), &mut on) })?;
        Ok(on != 0)
    }

    /// Sets that (`virNetworkSetAutostart`). Errors: OPERATION_INVALID for a transient network.
    pub fn set_autostart(&self, on: bool) -> Result<()> {
        // SAFETY: a live network.
        check(unsafe { sys::virNetworkSetAutostart(self.as_ptr(), on.into()) })?;
        Ok(())
    }

    /// The name of its bridge, `None` if it has none (`virNetworkGetBridgeName`).
    pub fn bridge_name(&self) -> Result<Option<String>> {
        // SAFETY: a live network; the string is ours.
        let name = unsafe { ffi::take(sys::virNetworkGetBridgeName(self.as_ptr())) };
        match name {
            Ok(name) => Ok(Some(name)),
            // Which libvirt reports as INTERNAL_ERROR, as the RPC layer does a lost connection.
            Err(error) if error.code == ErrorCode::INTERNAL_ERROR && error.domain != RPC => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The DHCP leases, all or those of one hardware address (`virNetworkGetDHCPLeases`). Empty for a network that is
    /// not active or has no DHCP server.
    pub fn dhcp_leases(&self, mac: Option<&str>) -> Result<Vec<Lease>> {
        let mac = opt_cstr(mac)?;
        let mut list = ptr::null_mut();
        // SAFETY: a live network, null or a C string that lives during the call; the list is ours.
        let len = check(unsafe { sys::virNetworkGetDHCPLeases(self.as_ptr(), opt_ptr(&mac), &mut list, 0) })?;
        // SAFETY: a list of `len` leases, each ours to free.
        Ok(unsafe {
            ffi::take_list(list, len, |lease| {
                let out = read_lease(lease.as_ref());
                sys::virNetworkDHCPLeaseFree(lease.as_ptr());
                out
            })
        })
    }

    /// Adds, changes or removes one part of the definition (`virNetworkUpdate`): `command` is
    /// `flags::NETWORK_UPDATE_*`, `section` `flags::NETWORK_SECTION_*`, `parent_index` the number of the parent
    /// element or -1 for any that fits. Flags: `flags::AFFECT_*`. Errors: OPERATION_INVALID (exists, or doesn't),
    /// XML_ERROR, OPERATION_UNSUPPORTED, NO_SUPPORT.
    ///
    /// The arguments are in the order that libvirt documents. Its drivers before 7.2 took `command` and `section` the
    /// other way round; the library (from 7.2) finds that out and swaps them for an old daemon.
    pub fn update(&self, command: u32, section: u32, parent_index: i32, xml: &str, flags: u32) -> Result<()> {
        let xml = cstr(xml)?;
        // SAFETY: a live network, a C string that lives during the call.
        check(unsafe { sys::virNetworkUpdate(self.as_ptr(), command, section, parent_index, xml.as_ptr(), flags) })?;
        Ok(())
    }
}

/// A copy of libvirt's record.
///
/// # Safety
/// Its strings are null or NUL-terminated.
unsafe fn read_lease(lease: &sys::virNetworkDHCPLease) -> Lease {
    // SAFETY: the caller's promise.
    unsafe {
        Lease {
            mac: ffi::copy_opt(lease.mac),
            address: ffi::copy(lease.ipaddr),
            prefix: lease.prefix,
            hostname: ffi::copy_opt(lease.hostname),
            expires_unix: lease.expirytime,
            interface: ffi::copy(lease.iface),
        }
    }
}
