//! Storage pools.

use std::fmt;
use std::ptr::{self, NonNull};

use virt_sys as sys;

use crate::ffi::{self, check, check_bool, check_ptr, cstr};
use crate::{Connect, Result, UuidBytes, Volume};

/// A storage pool on a node (`virStoragePoolPtr`). Clones are the same pool.
pub struct Pool {
    ptr: NonNull<sys::virStoragePool>,
    conn: Connect,
}

// SAFETY: libvirt's pool objects may be used from any thread, several at once; they lock for themselves.
unsafe impl Send for Pool {}
// SAFETY: as above.
unsafe impl Sync for Pool {}

impl Clone for Pool {
    fn clone(&self) -> Self {
        // SAFETY: a live pool; the new reference belongs to the clone.
        unsafe { sys::virStoragePoolRef(self.as_ptr()) };
        Self { ptr: self.ptr, conn: self.conn.clone() }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // SAFETY: gives back this handle's reference, once.
        unsafe { sys::virStoragePoolFree(self.as_ptr()) };
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("name", &self.name()).finish_non_exhaustive()
    }
}

/// What a pool does (`virStoragePoolState`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PoolState {
    /// Not started.
    Inactive,
    /// Being made ready.
    Building,
    /// In use.
    Running,
    /// In use, with a part broken.
    Degraded,
    /// Started but out of reach.
    Inaccessible,
    /// One that this crate doesn't know.
    Other(i32),
}

/// A pool's state, and its size in bytes (`virStoragePoolGetInfo`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PoolInfo {
    /// Its state.
    pub state: PoolState,
    /// Its size in bytes: of a directory, that of the file system.
    pub capacity: u64,
    /// Bytes in use.
    pub allocation: u64,
    /// Bytes free.
    pub available: u64,
}

impl Pool {
    /// Takes over the reference `ptr`.
    pub(crate) fn new(conn: &Connect, ptr: NonNull<sys::virStoragePool>) -> Self {
        Self { ptr, conn: conn.clone() }
    }

    fn as_ptr(&self) -> sys::virStoragePoolPtr {
        self.ptr.as_ptr()
    }

    /// The connection that the handle came from.
    pub fn connect(&self) -> &Connect {
        &self.conn
    }

    /// The name (`virStoragePoolGetName`); asks nobody.
    pub fn name(&self) -> String {
        // SAFETY: a live pool, which keeps the string as long as it lives.
        unsafe { ffi::copy(sys::virStoragePoolGetName(self.as_ptr())) }
    }

    /// The UUID (`virStoragePoolGetUUID`); asks nobody.
    pub fn uuid(&self) -> UuidBytes {
        let mut uuid = [0; 16];
        // SAFETY: a live pool and room for 16 bytes; can't fail for a live pool.
        unsafe { sys::virStoragePoolGetUUID(self.as_ptr(), uuid.as_mut_ptr()) };
        uuid
    }

    /// The definition as XML (`virStoragePoolGetXMLDesc`). Flags: [`POOL_XML_INACTIVE`](crate::flags).
    pub fn xml(&self, flags: u32) -> Result<String> {
        // SAFETY: a live pool; the string is ours.
        unsafe { ffi::take(sys::virStoragePoolGetXMLDesc(self.as_ptr(), flags)) }
    }

    /// State and size, the latter as of the last refresh (`virStoragePoolGetInfo`).
    pub fn info(&self) -> Result<PoolInfo> {
        let mut info = sys::virStoragePoolInfo { state: 0, capacity: 0, allocation: 0, available: 0 };
        // SAFETY: a live pool; the answer is written to our variable.
        check(unsafe { sys::virStoragePoolGetInfo(self.as_ptr(), &mut info) })?;
        let state = match u32::try_from(info.state) {
            Ok(sys::VIR_STORAGE_POOL_INACTIVE) => PoolState::Inactive,
            Ok(sys::VIR_STORAGE_POOL_BUILDING) => PoolState::Building,
            Ok(sys::VIR_STORAGE_POOL_RUNNING) => PoolState::Running,
            Ok(sys::VIR_STORAGE_POOL_DEGRADED) => PoolState::Degraded,
            Ok(sys::VIR_STORAGE_POOL_INACCESSIBLE) => PoolState::Inaccessible,
            _ => PoolState::Other(info.state),
        };
        let (capacity, allocation, available) = (info.capacity, info.allocation, info.available);
        Ok(PoolInfo { state, capacity, allocation, available })
    }

    /// Whether it is started (`virStoragePoolIsActive`).
    pub fn is_active(&self) -> Result<bool> {
        // SAFETY: a live pool.
        check_bool(unsafe { sys::virStoragePoolIsActive(self.as_ptr()) })
    }

    /// Whether it has a definition that outlives a stop (`virStoragePoolIsPersistent`).
    pub fn is_persistent(&self) -> Result<bool> {
        // SAFETY: a live pool.
        check_bool(unsafe { sys::virStoragePoolIsPersistent(self.as_ptr()) })
    }

    /// Makes its directory, file system or volume group (`virStoragePoolBuild`). Flags: `flags::POOL_BUILD_*`.
    /// Errors: OPERATION_INVALID if it is active, STORAGE_POOL_BUILT.
    pub fn build(&self, flags: u32) -> Result<()> {
        // SAFETY: a live pool.
        check(unsafe { sys::virStoragePoolBuild(self.as_ptr(), flags) })?;
        Ok(())
    }

    /// Starts it (`virStoragePoolCreate`). Flags: `flags::POOL_START_*`. Errors: OPERATION_INVALID if it is active,
    /// SYSTEM_ERROR if its directory is missing.
    pub fn start(&self, flags: u32) -> Result<()> {
        // SAFETY: a live pool.
        check(unsafe { sys::virStoragePoolCreate(self.as_ptr(), flags) })?;
        Ok(())
    }

    /// Stops it; its volumes stay (`virStoragePoolDestroy`). Errors: OPERATION_INVALID if it is not active.
    pub fn destroy(&self) -> Result<()> {
        // SAFETY: a live pool.
        check(unsafe { sys::virStoragePoolDestroy(self.as_ptr()) })?;
        Ok(())
    }

    /// Forgets its definition; its volumes stay (`virStoragePoolUndefine`). Errors: OPERATION_INVALID if it is active.
    pub fn undefine(&self) -> Result<()> {
        // SAFETY: a live pool.
        check(unsafe { sys::virStoragePoolUndefine(self.as_ptr()) })?;
        Ok(())
    }

    /// Looks anew for volumes and sizes (`virStoragePoolRefresh`). Errors: OPERATION_INVALID if it is not active,
    /// INTERNAL_ERROR while a job runs on one of its volumes.
    pub fn refresh(&self, flags: u32) -> Result<()> {
        // SAFETY: a live pool.
        check(unsafe { sys::virStoragePoolRefresh(self.as_ptr(), flags) })?;
        Ok(())
    }

    /// Whether the daemon starts it when it starts itself (`virStoragePoolGetAutostart`).
    pub fn autostart(&self) -> Result<bool> {
        let mut on = 0;
        // SAFETY: a live pool; the answer is written to our variable.
        check(unsafe { sys::virStoragePoolGetAutostart(self.as_ptr(), &mut on) })?;
        Ok(on != 0)
    }

    /// Sets that (`virStoragePoolSetAutostart`). Errors: INVALID_ARG for a transient pool.
    pub fn set_autostart(&self, on: bool) -> Result<()> {
        // SAFETY: a live pool.
        check(unsafe { sys::virStoragePoolSetAutostart(self.as_ptr(), on.into()) })?;
        Ok(())
    }

    /// Its volumes, as of the last refresh (`virStoragePoolListAllVolumes`). Errors: OPERATION_INVALID if it is not
    /// active.
    pub fn volumes(&self) -> Result<Vec<Volume>> {
        let mut list = ptr::null_mut();
        // SAFETY: a live pool; the list is ours, and each item a reference of ours.
        let len = check(unsafe { sys::virStoragePoolListAllVolumes(self.as_ptr(), &mut list, 0) })?;
        // SAFETY: as above.
        Ok(unsafe { ffi::take_list(list, len, |ptr| Volume::new(&self.conn, ptr)) })
    }

    /// The volume with this name (`virStorageVolLookupByName`). Errors: NO_STORAGE_VOL, OPERATION_INVALID if the pool
    /// is not active.
    pub fn volume_by_name(&self, name: &str) -> Result<Volume> {
        let name = cstr(name)?;
        // SAFETY: a live pool, a C string that lives during the call.
        self.volume(unsafe { sys::virStorageVolLookupByName(self.as_ptr(), name.as_ptr()) })
    }

    /// Makes a volume (`virStorageVolCreateXML`). Flags: `flags::VOL_CREATE_*`. Errors: STORAGE_VOL_EXIST, XML_ERROR,
    /// OPERATION_FAILED, SYSTEM_ERROR.
    pub fn create_volume(&self, xml: &str, flags: u32) -> Result<Volume> {
        let xml = cstr(xml)?;
        // SAFETY: a live pool, a C string that lives during the call.
        self.volume(unsafe { sys::virStorageVolCreateXML(self.as_ptr(), xml.as_ptr(), flags) })
    }

    /// Makes a volume as a full copy of `source`, which may be in another pool of the node
    /// (`virStorageVolCreateXMLFrom`). Flags and errors: as [`Pool::create_volume`].
    pub fn create_volume_from(&self, xml: &str, source: &Volume, flags: u32) -> Result<Volume> {
        let xml = cstr(xml)?;
        // SAFETY: a live pool and volume, a C string that lives during the call.
        self.volume(unsafe { sys::virStorageVolCreateXMLFrom(self.as_ptr(), xml.as_ptr(), source.as_ptr(), flags) })
    }

    fn volume(&self, ptr: sys::virStorageVolPtr) -> Result<Volume> {
        Ok(Volume::new(&self.conn, check_ptr(ptr)?))
    }
}
