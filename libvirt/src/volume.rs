//! Storage volumes.

use std::fmt;
use std::ptr::NonNull;

use virt_sys as sys;

use crate::ffi::{self, check, check_ptr};
use crate::{Connect, Pool, Result, Stream};

/// A volume of a storage pool (`virStorageVolPtr`). Clones are the same volume.
pub struct Volume {
    ptr: NonNull<sys::virStorageVol>,
    conn: Connect,
}

// SAFETY: libvirt's volume objects may be used from any thread, several at once; they lock for themselves.
unsafe impl Send for Volume {}
// SAFETY: as above.
unsafe impl Sync for Volume {}

impl Clone for Volume {
    fn clone(&self) -> Self {
        // SAFETY: a live volume; the new reference belongs to the clone.
        unsafe { sys::virStorageVolRef(self.as_ptr()) };
        Self { ptr: self.ptr, conn: self.conn.clone() }
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // SAFETY: gives back this handle's reference, once.
        unsafe { sys::virStorageVolFree(self.as_ptr()) };
    }
}

impl fmt::Debug for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Volume").field("key", &self.key()).finish_non_exhaustive()
    }
}

/// What a volume is (`virStorageVolType`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VolumeKind {
    /// A file.
    File,
    /// A block device.
    Block,
    /// A directory.
    Dir,
    /// A network device.
    Network,
    /// A directory of a network file system.
    NetDir,
    /// A Ploop directory.
    Ploop,
    /// One that this crate doesn't know.
    Other(i32),
}

/// A volume's kind, and its size in bytes (`virStorageVolGetInfo`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VolumeInfo {
    /// What it is.
    pub kind: VolumeKind,
    /// Bytes that a guest sees.
    pub capacity: u64,
    /// Bytes that it takes on the node.
    pub allocation: u64,
}

impl Volume {
    /// Takes over the reference `ptr`.
    pub(crate) fn new(conn: &Connect, ptr: NonNull<sys::virStorageVol>) -> Self {
        Self { ptr, conn: conn.clone() }
    }

    pub(crate) fn as_ptr(&self) -> sys::virStorageVolPtr {
        self.ptr.as_ptr()
    }

    /// The name inside its pool (`virStorageVolGetName`); asks nobody.
    pub fn name(&self) -> String {
        // SAFETY: a live volume, which keeps the string as long as it lives.
        unsafe { ffi::copy(sys::virStorageVolGetName(self.as_ptr())) }
    }

    /// The key, unique on the node; of a file its path (`virStorageVolGetKey`); asks nobody.
    pub fn key(&self) -> String {
        // SAFETY: a live volume, which keeps the string as long as it lives.
        unsafe { ffi::copy(sys::virStorageVolGetKey(self.as_ptr())) }
    }

    /// The path on the node (`virStorageVolGetPath`).
    pub fn path(&self) -> Result<String> {
        // SAFETY: a live volume; the string is ours.
        unsafe { ffi::take(sys::virStorageVolGetPath(self.as_ptr())) }
    }

    /// The description as XML (`virStorageVolGetXMLDesc`).
    pub fn xml(&self) -> Result<String> {
        // SAFETY: a live volume; the string is ours.
        unsafe { ffi::take(sys::virStorageVolGetXMLDesc(self.as_ptr(), 0)) }
    }

    /// Kind and size, looked up anew (`virStorageVolGetInfo`). Errors: NO_STORAGE_VOL.
    pub fn info(&self) -> Result<VolumeInfo> {
        let mut info = sys::virStorageVolInfo { type_: 0, capacity: 0, allocation: 0 };
        // SAFETY: a live volume; the answer is written to our variable.
        check(unsafe { sys::virStorageVolGetInfo(self.as_ptr(), &mut info) })?;
        let kind = match u32::try_from(info.type_) {
            Ok(sys::VIR_STORAGE_VOL_FILE) => VolumeKind::File,
            Ok(sys::VIR_STORAGE_VOL_BLOCK) => VolumeKind::Block,
            Ok(sys::VIR_STORAGE_VOL_DIR) => VolumeKind::Dir,
            Ok(sys::VIR_STORAGE_VOL_NETWORK) => VolumeKind::Network,
            Ok(sys::VIR_STORAGE_VOL_NETDIR) => VolumeKind::NetDir,
            Ok(sys::VIR_STORAGE_VOL_PLOOP) => VolumeKind::Ploop,
            _ => VolumeKind::Other(info.type_),
        };
        Ok(VolumeInfo { kind, capacity: info.capacity, allocation: info.allocation })
    }

    /// Deletes it, even if a domain uses it (`virStorageVolDelete`). Errors: NO_STORAGE_VOL, OPERATION_INVALID while
    /// it is built or copied.
    pub fn delete(&self, flags: u32) -> Result<()> {
        // SAFETY: a live volume.
        check(unsafe { sys::virStorageVolDelete(self.as_ptr(), flags) })?;
        Ok(())
    }

    /// Gives it `bytes` bytes; never while a domain runs on it (`virStorageVolResize`). Flags: `flags::VOL_RESIZE_*`.
    /// Errors: INVALID_ARG for shrinking without VOL_RESIZE_SHRINK.
    pub fn resize(&self, bytes: u64, flags: u32) -> Result<()> {
        // SAFETY: a live volume.
        check(unsafe { sys::virStorageVolResize(self.as_ptr(), bytes, flags) })?;
        Ok(())
    }

    /// Overwrites it with zeroes (`virStorageVolWipe`). Errors: OPERATION_INVALID while it is in use.
    pub fn wipe(&self, flags: u32) -> Result<()> {
        // SAFETY: a live volume.
        check(unsafe { sys::virStorageVolWipe(self.as_ptr(), flags) })?;
        Ok(())
    }

    /// Begins to write what will be sent on `stream`, from byte `offset`, `length` bytes at most, 0 for no limit
    /// (`virStorageVolUpload`); the bytes as they are, whatever the format. Flags:
    /// [`VOL_UPLOAD_SPARSE_STREAM`](crate::flags::VOL_UPLOAD_SPARSE_STREAM), for [`Stream::send_hole`]; `length`
    /// counts holes too. [`Stream::finish`] tells whether it went well.
    pub fn upload(&self, stream: &Stream, offset: u64, length: u64, flags: u32) -> Result<()> {
        // SAFETY: a live volume and stream.
        check(unsafe { sys::virStorageVolUpload(self.as_ptr(), stream.as_ptr(), offset, length, flags) })?;
        Ok(())
    }

    /// Begins to send its bytes on `stream`, from byte `offset`, `length` of them, 0 for all
    /// (`virStorageVolDownload`); read to the end, then [`Stream::finish`]. Flags:
    /// [`VOL_DOWNLOAD_SPARSE_STREAM`](crate::flags::VOL_DOWNLOAD_SPARSE_STREAM), for [`Stream::recv_piece`].
    pub fn download(&self, stream: &Stream, offset: u64, length: u64, flags: u32) -> Result<()> {
        // SAFETY: a live volume and stream.
        check(unsafe { sys::virStorageVolDownload(self.as_ptr(), stream.as_ptr(), offset, length, flags) })?;
        Ok(())
    }

    /// Its pool (`virStoragePoolLookupByVolume`).
    pub fn pool(&self) -> Result<Pool> {
        // SAFETY: a live volume; the pool's reference is ours.
        let ptr = check_ptr(unsafe { sys::virStoragePoolLookupByVolume(self.as_ptr()) })?;
        Ok(Pool::new(&self.conn, ptr))
    }
}
