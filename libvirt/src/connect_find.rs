//! What a connection finds and makes: domains, pools, volumes, networks.

use std::ptr;

use virt_sys as sys;

use crate::ffi::{self, check, check_ptr, cstr, opt_cstr, opt_ptr};
use crate::{Connect, Domain, DomainStats, Network, Pool, Result, UuidBytes, Volume, stats};

impl Connect {
    /// The domains that `flags` choose (`flags::LIST_DOMAINS_*`; 0 for all) (`virConnectListAllDomains`).
    pub fn domains(&self, flags: u32) -> Result<Vec<Domain>> {
        let mut list = ptr::null_mut();
        // SAFETY: a live connection; the list is ours, and each item a reference of ours.
        let len = check(unsafe { sys::virConnectListAllDomains(self.as_ptr(), &mut list, flags) })?;
        // SAFETY: as above.
        Ok(unsafe { ffi::take_list(list, len, |ptr| Domain::new(self, ptr)) })
    }

    /// The domain with this UUID (`virDomainLookupByUUID`). Errors: NO_DOMAIN.
    pub fn domain_by_uuid(&self, uuid: UuidBytes) -> Result<Domain> {
        // SAFETY: a live connection, 16 bytes.
        self.domain(unsafe { sys::virDomainLookupByUUID(self.as_ptr(), uuid.as_ptr()) })
    }

    /// The domain with this name (`virDomainLookupByName`). Errors: NO_DOMAIN.
    pub fn domain_by_name(&self, name: &str) -> Result<Domain> {
        let name = cstr(name)?;
        // SAFETY: a live connection, a C string that lives during the call.
        self.domain(unsafe { sys::virDomainLookupByName(self.as_ptr(), name.as_ptr()) })
    }

    /// Defines a persistent domain, or redefines the one with the same UUID and name (`virDomainDefineXMLFlags`).
    /// Flags: [`DEFINE_VALIDATE`](crate::flags::DEFINE_VALIDATE). Errors: XML_ERROR, XML_DETAIL, XML_INVALID_SCHEMA,
    /// CONFIG_UNSUPPORTED; OPERATION_FAILED if the name or the UUID belongs to another domain.
    pub fn define_domain(&self, xml: &str, flags: u32) -> Result<Domain> {
        let xml = cstr(xml)?;
        // SAFETY: a live connection, a C string that lives during the call.
        self.domain(unsafe { sys::virDomainDefineXMLFlags(self.as_ptr(), xml.as_ptr(), flags) })
    }

    /// Starts a domain that is gone when it stops (`virDomainCreateXML`). Flags: `flags::START_*`. Errors: as
    /// [`Connect::define_domain`], and those of a start.
    pub fn create_domain(&self, xml: &str, flags: u32) -> Result<Domain> {
        let xml = cstr(xml)?;
        // SAFETY: a live connection, a C string that lives during the call.
        self.domain(unsafe { sys::virDomainCreateXML(self.as_ptr(), xml.as_ptr(), flags) })
    }

    /// Starts a domain from a memory image at `path` on the node, with `dxml` in place of the saved XML
    /// (`virDomainRestoreFlags`). Flags: `flags::SAVE_*`. Errors: CONFIG_UNSUPPORTED if `dxml` differs in what the
    /// guest sees, OPERATION_FAILED if the image belongs to another domain, SYSTEM_ERROR for files.
    pub fn restore_domain(&self, path: &str, dxml: Option<&str>, flags: u32) -> Result<()> {
        let (path, dxml) = (cstr(path)?, opt_cstr(dxml)?);
        // SAFETY: a live connection; C strings (the second may be null) that live during the call.
        check(unsafe { sys::virDomainRestoreFlags(self.as_ptr(), path.as_ptr(), opt_ptr(&dxml), flags) })?;
        Ok(())
    }

    /// The domain XML inside a memory image at `path` on the node (`virDomainSaveImageGetXMLDesc`). Flags:
    /// [`XML_SECURE`](crate::flags::XML_SECURE).
    pub fn save_image_xml(&self, path: &str, flags: u32) -> Result<String> {
        let path = cstr(path)?;
        // SAFETY: a live connection, a C string that lives during the call; the string is ours.
        unsafe { ffi::take(sys::virDomainSaveImageGetXMLDesc(self.as_ptr(), path.as_ptr(), flags)) }
    }

    /// The statistics groups `stats` (`flags::STATS_*`; 0 for all) of the domains that `flags` choose, in one call
    /// (`virConnectGetAllDomainStats`). Flags: [`STATS_NOWAIT`](crate::flags::STATS_NOWAIT) (leave out what would wait
    /// for a busy domain), [`STATS_BACKING`](crate::flags::STATS_BACKING), `STATS_ONLY_*`.
    pub fn domain_stats(&self, stats: u32, flags: u32) -> Result<Vec<DomainStats>> {
        let mut records = ptr::null_mut();
        // SAFETY: a live connection; the record list is ours.
        let len = check(unsafe { sys::virConnectGetAllDomainStats(self.as_ptr(), stats, &mut records, flags) })?;
        // SAFETY: as above, with `len` records.
        Ok(unsafe { stats::take_records(records, len) })
    }

    /// The storage pools that `flags` choose (`flags::LIST_POOLS_*`; 0 for all) (`virConnectListAllStoragePools`).
    pub fn pools(&self, flags: u32) -> Result<Vec<Pool>> {
        let mut list = ptr::null_mut();
        // SAFETY: a live connection; the list is ours, and each item a reference of ours.
        let len = check(unsafe { sys::virConnectListAllStoragePools(self.as_ptr(), &mut list, flags) })?;
        // SAFETY: as above.
        Ok(unsafe { ffi::take_list(list, len, |ptr| Pool::new(self, ptr)) })
    }

    /// The pool with this name (`virStoragePoolLookupByName`). Errors: NO_STORAGE_POOL.
    pub fn pool_by_name(&self, name: &str) -> Result<Pool> {
        let name = cstr(name)?;
        // SAFETY: a live connection, a C string that lives during the call.
        self.pool(unsafe { sys::virStoragePoolLookupByName(self.as_ptr(), name.as_ptr()) })
    }

    /// The pool with this UUID (`virStoragePoolLookupByUUID`). Errors: NO_STORAGE_POOL.
    pub fn pool_by_uuid(&self, uuid: UuidBytes) -> Result<Pool> {
        // SAFETY: a live connection, 16 bytes.
        self.pool(unsafe { sys::virStoragePoolLookupByUUID(self.as_ptr(), uuid.as_ptr()) })
    }

    /// The active pool whose target is the directory or device `path` (`virStoragePoolLookupByTargetPath`). Errors:
    /// NO_STORAGE_POOL.
    pub fn pool_by_target_path(&self, path: &str) -> Result<Pool> {
        let path = cstr(path)?;
        // SAFETY: a live connection, a C string that lives during the call.
        self.pool(unsafe { sys::virStoragePoolLookupByTargetPath(self.as_ptr(), path.as_ptr()) })
    }

    /// Defines an inactive persistent pool, or redefines it (`virStoragePoolDefineXML`). Errors: XML_ERROR,
    /// OPERATION_FAILED if name, UUID or source belong to another pool.
    pub fn define_pool(&self, xml: &str) -> Result<Pool> {
        let xml = cstr(xml)?;
        // SAFETY: a live connection, a C string that lives during the call.
        self.pool(unsafe { sys::virStoragePoolDefineXML(self.as_ptr(), xml.as_ptr(), 0) })
    }

    /// Starts a pool that is gone when it is stopped (`virStoragePoolCreateXML`). Flags: `flags::POOL_START_*`. Errors: as
    /// [`Connect::define_pool`], and those of a start.
    pub fn create_pool(&self, xml: &str, flags: u32) -> Result<Pool> {
        let xml = cstr(xml)?;
        // SAFETY: a live connection, a C string that lives during the call.
        self.pool(unsafe { sys::virStoragePoolCreateXML(self.as_ptr(), xml.as_ptr(), flags) })
    }

    /// The volume at `path` on the node, in any active pool (`virStorageVolLookupByPath`). Errors: NO_STORAGE_VOL.
    pub fn volume_by_path(&self, path: &str) -> Result<Volume> {
        let path = cstr(path)?;
        // SAFETY: a live connection, a C string that lives during the call.
        self.volume(unsafe { sys::virStorageVolLookupByPath(self.as_ptr(), path.as_ptr()) })
    }

    /// The volume with this key, in any active pool (`virStorageVolLookupByKey`). Errors: NO_STORAGE_VOL.
    pub fn volume_by_key(&self, key: &str) -> Result<Volume> {
        let key = cstr(key)?;
        // SAFETY: a live connection, a C string that lives during the call.
        self.volume(unsafe { sys::virStorageVolLookupByKey(self.as_ptr(), key.as_ptr()) })
    }

    /// The networks that `flags` choose (`flags::LIST_NETWORKS_*`; 0 for all) (`virConnectListAllNetworks`).
    pub fn networks(&self, flags: u32) -> Result<Vec<Network>> {
        let mut list = ptr::null_mut();
        // SAFETY: a live connection; the list is ours, and each item a reference of ours.
        let len = check(unsafe { sys::virConnectListAllNetworks(self.as_ptr(), &mut list, flags) })?;
        // SAFETY: as above.
        Ok(unsafe { ffi::take_list(list, len, |ptr| Network::new(self, ptr)) })
    }

    /// The network with this name (`virNetworkLookupByName`). Errors: NO_NETWORK.
    pub fn network_by_name(&self, name: &str) -> Result<Network> {
        let name = cstr(name)?;
        // SAFETY: a live connection, a C string that lives during the call.
        self.network(unsafe { sys::virNetworkLookupByName(self.as_ptr(), name.as_ptr()) })
    }

    /// The network with this UUID (`virNetworkLookupByUUID`). Errors: NO_NETWORK.
    pub fn network_by_uuid(&self, uuid: UuidBytes) -> Result<Network> {
        // SAFETY: a live connection, 16 bytes.
        self.network(unsafe { sys::virNetworkLookupByUUID(self.as_ptr(), uuid.as_ptr()) })
    }

    /// Defines an inactive persistent network, or redefines it (`virNetworkDefineXML`). Errors: XML_ERROR,
    /// OPERATION_FAILED if name or UUID belong to another network.
    pub fn define_network(&self, xml: &str) -> Result<Network> {
        let xml = cstr(xml)?;
        // SAFETY: a live connection, a C string that lives during the call.
        self.network(unsafe { sys::virNetworkDefineXML(self.as_ptr(), xml.as_ptr()) })
    }

    fn domain(&self, ptr: sys::virDomainPtr) -> Result<Domain> {
        Ok(Domain::new(self, check_ptr(ptr)?))
    }

    fn pool(&self, ptr: sys::virStoragePoolPtr) -> Result<Pool> {
        Ok(Pool::new(self, check_ptr(ptr)?))
    }

    fn volume(&self, ptr: sys::virStorageVolPtr) -> Result<Volume> {
        Ok(Volume::new(self, check_ptr(ptr)?))
    }

    fn network(&self, ptr: sys::virNetworkPtr) -> Result<Network> {
        Ok(Network::new(self, check_ptr(ptr)?))
    }
}
