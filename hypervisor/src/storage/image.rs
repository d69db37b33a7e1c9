//! What an image's first bytes say, read by ourselves before any tool of QEMU's opens it.
//!
//! A qcow2 header (<https://gitlab.com/qemu-project/qemu/-/blob/master/docs/interop/qcow2.txt>) can name other files:
//! a backing file and an external data file. An image from a stranger that names `/etc/shadow` would make QEMU read it.

/// How much of an image [`Image::inspect`] wants to see, in bytes.
pub(crate) const HEADER_BYTES: usize = 4096;

/// The format of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// QEMU's copy-on-write format, version 2 or 3.
    Qcow2,
    /// The disk's bytes as they are.
    Raw,
}

impl Format {
    /// QEMU's name for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Format::Qcow2 => "qcow2",
            Format::Raw => "raw",
        }
    }
}

/// What an image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Image {
    /// Its format.
    pub format: Format,
    /// The disk's size, in bytes.
    pub virtual_bytes: u64,
}

/// Incompatible features that are harmless: dirty refcounts (repaired by QEMU), compression type, extended L2 entries.
const INCOMPATIBLE_ALLOWED: u64 = 1 | (1 << 3) | (1 << 4);
const INCOMPATIBLE_CORRUPT: u64 = 1 << 1;
const INCOMPATIBLE_DATA_FILE: u64 = 1 << 2;

impl Image {
    /// Reads the header of an image of `length` bytes, or says why the image is refused.
    pub fn inspect(header: &[u8], length: u64) -> Result<Image, String> {
        for (magic, name) in [
            (&b"KDMV"[..], "VMDK"),
            (b"COWD", "VMDK"),
            (b"# Disk DescriptorFile", "VMDK"),
            (b"conectix", "VHD"),
            (b"vhdxfile", "VHDX"),
            (b"QED\0", "QED"),
            (b"<<< ", "VDI"),
            (b"LUKS\xba\xbe", "LUKS"),
        ] {
            if header.starts_with(magic) {
                return Err(format!("it is a {name} image; convert it first: qemu-img convert -O qcow2"));
            }
        }
        if !header.starts_with(b"QFI\xfb") {
            return Image::raw(length);
        }
        Image::qcow2(header, length)
            .ok_or_else(|| "it is cut off: its qcow2 header points behind its end".to_owned())?
    }

    fn raw(length: u64) -> Result<Image, String> {
        if length < 512 || !length.is_multiple_of(512) {
            return Err(format!(
                "it is no qcow2, and its length of {length} bytes is not that of a raw disk (n × 512)"
            ));
        }
        Ok(Image { format: Format::Raw, virtual_bytes: length })
    }

    /// `None` when the header, or the file behind it, is too short.
    fn qcow2(header: &[u8], length: u64) -> Option<Result<Image, String>> {
        let refuse = |why: String| Some(Err(why));
        let version = u32_at(header, 4)?;
        let (backing_offset, size) = (u64_at(header, 8)?, u64_at(header, 24)?);
        let encryption = u32_at(header, 32)?;
        let incompatible = if version >= 3 { u64_at(header, 72)? } else { 0 };
        if !(2..=3).contains(&version) {
            return refuse(format!("its qcow2 version {version} is not known"));
        }
        if backing_offset != 0 {
            return refuse("it has a backing file; flatten it first: qemu-img convert -O qcow2".to_owned());
        }
        if encryption != 0 {
            return refuse("it is encrypted".to_owned());
        }
        if incompatible & INCOMPATIBLE_DATA_FILE != 0 {
            return refuse("it has an external data file; flatten it first: qemu-img convert -O qcow2".to_owned());
        }
        if incompatible & INCOMPATIBLE_CORRUPT != 0 {
            return refuse("it is marked as corrupt; try: qemu-img check -r all".to_owned());
        }
        if incompatible & !(INCOMPATIBLE_ALLOWED) != 0 {
            return refuse(format!("it has incompatible features that are not known ({incompatible:#x})"));
        }
        // The tables that the header points to must be in the file: one that was cut off starts no guest.
        let (l1_entries, l1_offset, refcounts) = (u32_at(header, 36)?, u64_at(header, 40)?, u64_at(header, 48)?);
        let l1_end = l1_offset.checked_add(u64::from(l1_entries) * 8)?;
        if l1_end > length || refcounts >= length {
            return None;
        }
        if size == 0 {
            return refuse("its disk has no size".to_owned());
        }
        Some(Ok(Image { format: Format::Qcow2, virtual_bytes: size }))
    }
}

/// The path of the image that a qcow2 image stands on, by its header. An error when the header names it somewhere else than in
/// the bytes that are given.
pub(crate) fn backing_file(header: &[u8]) -> Result<Option<String>, String> {
    if !header.starts_with(b"QFI\xfb") {
        return Ok(None);
    }
    let place = u64_at(header, 8).zip(u32_at(header, 16));
    let (offset, length) = place.ok_or("its header is cut off")?;
    if offset == 0 {
        return Ok(None);
    }
    let start = usize::try_from(offset).ok();
    let name = start.and_then(|start| header.get(start..start.checked_add(length as usize)?));
    let name = name.ok_or("its header has the backing file's name in an odd place")?;
    Ok(Some(String::from_utf8_lossy(name).into_owned()))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(version: u32, backing: u64, incompatible: u64) -> Vec<u8> {
        let mut bytes = vec![0; 112];
        bytes[..4].copy_from_slice(b"QFI\xfb");
        bytes[4..8].copy_from_slice(&version.to_be_bytes());
        bytes[8..16].copy_from_slice(&backing.to_be_bytes());
        bytes[24..32].copy_from_slice(&(1u64 << 30).to_be_bytes());
        bytes[72..80].copy_from_slice(&incompatible.to_be_bytes());
        bytes
    }

    /// A header whose L1 table of 10,000 entries and refcount table lie there.
    fn tables(l1_offset: u64, refcounts: u64) -> Vec<u8> {
        let mut bytes = header(3, 0, 0);
        bytes[36..40].copy_from_slice(&10_000u32.to_be_bytes());
        bytes[40..48].copy_from_slice(&l1_offset.to_be_bytes());
        bytes[48..56].copy_from_slice(&refcounts.to_be_bytes());
        bytes
    }

    #[test]
    fn qcow2() {
        let good = Image { format: Format::Qcow2, virtual_bytes: 1 << 30 };
        assert_eq!(Image::inspect(&header(3, 0, 0), 200_000), Ok(good));
        assert_eq!(Image::inspect(&tables(70_000, 180_000), 200_000), Ok(good));
        assert_eq!(Image::inspect(&header(3, 0, 1), 200_000), Ok(good));
        assert_eq!(Image::inspect(&header(2, 0, u64::MAX), 200_000), Ok(good), "version 2 has no such field");
        for (bad, why) in [
            (header(4, 0, 0), "version 4"),
            (header(3, 112, 0), "backing file"),
            (header(3, 0, 4), "external data file"),
            (header(3, 0, 2), "corrupt"),
            (header(3, 0, 1 << 40), "not known"),
            (header(3, 0, 0)[..40].to_vec(), "cut off"),
            (tables(150_000, 70_000), "cut off"),
            (tables(70_000, 250_000), "cut off"),
            (tables(u64::MAX, 70_000), "cut off"),
        ] {
            let error = Image::inspect(&bad, 200_000).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn where_an_overlay_stands() {
        let mut bytes = header(3, 104, 0);
        bytes[16..20].copy_from_slice(&6u32.to_be_bytes());
        bytes[104..110].copy_from_slice(b"/pool/");
        assert_eq!(backing_file(&bytes), Ok(Some("/pool/".to_owned())));
        assert_eq!(backing_file(&header(3, 0, 0)), Ok(None));
        assert_eq!(backing_file(&[0; 512]), Ok(None));
        assert!(backing_file(&header(3, 5000, 0)).is_err());
        assert!(backing_file(b"QFI\xfb").is_err());
    }

    #[test]
    fn raw_and_foreign() {
        assert_eq!(Image::inspect(&[0; 512], 1 << 20), Ok(Image { format: Format::Raw, virtual_bytes: 1 << 20 }));
        assert!(Image::inspect(b"root:x:0:0", 1234).unwrap_err().contains("1234 bytes"));
        assert!(Image::inspect(b"", 0).is_err());
        assert!(Image::inspect(b"KDMV....", 1 << 20).unwrap_err().contains("VMDK"));
    }
}
