//! What the guest agent (or the DHCP server) tells and does. Without an answer the calls fail with
//! AGENT_UNRESPONSIVE, or OPERATION_INVALID if the domain is off; what the agent refuses is INTERNAL_ERROR or
//! AGENT_COMMAND_FAILED.

use std::ptr;

use virt_sys as sys;

use crate::ffi::{self, check, check_count, cstr, cstrs, ptrs};
use crate::{Domain, Result, Value, stats};

/// Who is asked for a domain's addresses (`virDomainInterfaceAddressesSource`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AddressSource {
    /// The DHCP leases of libvirt's networks.
    Lease,
    /// The guest agent.
    Agent,
    /// The node's ARP table.
    Arp,
}

/// A network interface with its addresses (`virDomainInterfaceAddresses`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Interface {
    /// Its name: the guest's own with [`AddressSource::Agent`], else the node's.
    pub name: String,
    /// Its hardware address.
    pub mac: Option<String>,
    /// IPv4 and IPv6 addresses with the length of their network prefix.
    pub addresses: Vec<(String, u32)>,
}

impl Domain {
    /// The addresses of its interfaces (`virDomainInterfaceAddresses`).
    pub fn interface_addresses(&self, source: AddressSource) -> Result<Vec<Interface>> {
        let source = match source {
            AddressSource::Lease => sys::VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE,
            AddressSource::Agent => sys::VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT,
            AddressSource::Arp => sys::VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_ARP,
        };
        let mut list = ptr::null_mut();
        // SAFETY: a live domain; the list is ours.
        let len = check(unsafe { sys::virDomainInterfaceAddresses(self.as_ptr(), &mut list, source, 0) })?;
        // SAFETY: a list of `len` interfaces, each ours to free.
        Ok(unsafe {
            ffi::take_list(list, len, |interface| {
                let out = read_interface(interface.as_ref());
                sys::virDomainInterfaceFree(interface.as_ptr());
                out
            })
        })
    }

    /// Sends a command as JSON to the guest agent and gives its answer (`virDomainQemuAgentCommand`). `timeout_s` in
    /// seconds, or [`AGENT_BLOCK`](crate::flags::AGENT_BLOCK), [`AGENT_DEFAULT`](crate::flags::AGENT_DEFAULT),
    /// [`AGENT_NOWAIT`](crate::flags::AGENT_NOWAIT).
    pub fn agent_command(&self, json: &str, timeout_s: i32, flags: u32) -> Result<String> {
        let json = cstr(json)?;
        // SAFETY: a live domain, a C string that lives during the call; the string is ours.
        unsafe { ffi::take(sys::virDomainQemuAgentCommand(self.as_ptr(), json.as_ptr(), timeout_s, flags)) }
    }

    /// How long the other agent calls wait, in seconds or as `flags::AGENT_*` (`virDomainAgentSetResponseTimeout`).
    pub fn agent_set_response_timeout(&self, seconds: i32) -> Result<()> {
        // SAFETY: a live domain.
        check(unsafe { sys::virDomainAgentSetResponseTimeout(self.as_ptr(), seconds, 0) })?;
        Ok(())
    }

    /// Sets a guest user's password (`virDomainSetUserPassword`). Flags:
    /// [`PASSWORD_ENCRYPTED`](crate::flags::PASSWORD_ENCRYPTED) if it is a crypt(3) hash.
    pub fn set_user_password(&self, user: &str, password: &str, flags: u32) -> Result<()> {
        let (user, password) = (cstr(user)?, cstr(password)?);
        // SAFETY: a live domain, C strings that live during the call.
        check(unsafe { sys::virDomainSetUserPassword(self.as_ptr(), user.as_ptr(), password.as_ptr(), flags) })?;
        Ok(())
    }

    /// A guest user's authorised SSH keys (`virDomainAuthorizedSSHKeysGet`).
    pub fn authorized_keys(&self, user: &str) -> Result<Vec<String>> {
        let user = cstr(user)?;
        let mut list = ptr::null_mut();
        // SAFETY: a live domain, a C string that lives during the call; list and strings are ours.
        let len = check(unsafe { sys::virDomainAuthorizedSSHKeysGet(self.as_ptr(), user.as_ptr(), &mut list, 0) })?;
        // SAFETY: as above, with `len` strings.
        Ok(unsafe { ffi::take_strings(list, len) })
    }

    /// Replaces them, or with `flags::SSH_KEYS_APPEND` and `SSH_KEYS_REMOVE` changes them
    /// (`virDomainAuthorizedSSHKeysSet`). Errors: INVALID_ARG for no keys with one of the flags.
    pub fn set_authorized_keys(&self, user: &str, keys: &[String], flags: u32) -> Result<()> {
        let (user, keys) = (cstr(user)?, cstrs(keys)?);
        let mut keys_ptr = ptrs(&keys);
        let len = ffi::count(keys.len())?;
        let list = if keys.is_empty() { ptr::null_mut() } else { keys_ptr.as_mut_ptr() };
        // SAFETY: a live domain, C strings that live during the call, `len` of them in the list.
        check(unsafe { sys::virDomainAuthorizedSSHKeysSet(self.as_ptr(), user.as_ptr(), list, len, flags) })?;
        Ok(())
    }

    /// What the agent says of the guest, as named values; `types` is `flags::GUEST_INFO_*`, 0 for all that it can
    /// (`virDomainGetGuestInfo`).
    pub fn guest_info(&self, types: u32) -> Result<Vec<(String, Value)>> {
        let (mut params, mut len) = (ptr::null_mut(), 0);
        // SAFETY: a live domain; the array is ours.
        check(unsafe { sys::virDomainGetGuestInfo(self.as_ptr(), types, &mut params, &mut len, 0) })?;
        // SAFETY: an array of `len` parameters.
        let values = unsafe { stats::read_params(params, len) };
        // SAFETY: ours to free, and not used again.
        unsafe { sys::virTypedParamsFree(params, len) };
        Ok(values)
    }

    /// Flushes and freezes all file systems of the guest; how many (`virDomainFSFreeze`).
    pub fn fs_freeze(&self) -> Result<u32> {
        // SAFETY: a live domain; null and 0 mean all.
        check_count(unsafe { sys::virDomainFSFreeze(self.as_ptr(), ptr::null_mut(), 0, 0) })
    }

    /// Lets them go on; how many (`virDomainFSThaw`).
    pub fn fs_thaw(&self) -> Result<u32> {
        // SAFETY: a live domain; null and 0 mean all.
        check_count(unsafe { sys::virDomainFSThaw(self.as_ptr(), ptr::null_mut(), 0, 0) })
    }
}

/// A copy of libvirt's record.
///
/// # Safety
/// Its strings are null or NUL-terminated, and it has as many addresses as it says.
unsafe fn read_interface(interface: &sys::virDomainInterface) -> Interface {
    let len = if interface.addrs.is_null() { 0 } else { interface.naddrs as usize };
    let addresses = (0..len)
        .map(|i| {
            // SAFETY: the caller's promise.
            let address = unsafe { &*interface.addrs.add(i) };
            // SAFETY: the caller's promise.
            (unsafe { ffi::copy(address.addr) }, address.prefix)
        })
        .collect();
    // SAFETY: the caller's promise.
    let (name, mac) = unsafe { (ffi::copy(interface.name), ffi::copy_opt(interface.hwaddr)) };
    Interface { name, mac, addresses }
}
