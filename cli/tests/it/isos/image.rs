//! An ISO image that installs: it boots by El Torito, says so on the serial line, writes a boot sector to the first disk and
//! resets the machine; that boot sector says so, too.

const SECTOR: usize = 2048;

/// What the installer says.
pub const INSTALLING: &str = "ISO: installing";
/// What the system that it has installed says.
pub const INSTALLED: &str = "DISK: installed";

/// The bytes of such an image (ECMA-119; El Torito, "Bootable CD-ROM Format Specification").
pub fn installer() -> Vec<u8> {
    let mut iso = vec![0; 24 * SECTOR];
    for (at, kind) in [(16, 1), (17, 0), (18, 255)] {
        iso[at * SECTOR..][..7].copy_from_slice(&[kind, b'C', b'D', b'0', b'0', b'1', 1]);
    }
    iso[17 * SECTOR + 7..][..23].copy_from_slice(b"EL TORITO SPECIFICATION");
    iso[17 * SECTOR + 71] = 19;
    // The catalogue: an entry whose words sum up to 0, and one of a boot image without emulation, four of its sectors loaded.
    let catalogue = &mut iso[19 * SECTOR..];
    catalogue[..4].copy_from_slice(&[1, 0, 0, 0]);
    catalogue[28..32].copy_from_slice(&[0xaa, 0x55, 0x55, 0xaa]);
    catalogue[32..44].copy_from_slice(&[0x88, 0, 0, 0, 0, 0, 4, 0, 20, 0, 0, 0]);
    iso[20 * SECTOR..][..1024].copy_from_slice(&boot_image());
    iso
}

/// The installer, and behind it the boot sector that it writes. Both run at 0x7c00.
fn boot_image() -> Vec<u8> {
    let mut installer = program(
        INSTALLING,
        &[
            0xb8, 0x01, 0x03, // mov ax, 0x0301: write one sector
            0xbb, 0x00, 0x7e, // mov bx, 0x7e00: the one behind this
            0xb9, 0x01, 0x00, // mov cx, 1: as the first one
            0xba, 0x80, 0x00, // mov dx, 0x0080: of the first disk
            0xcd, 0x13, // int 0x13
            0xb0, 0xfe, 0xe6, 0x64, // mov al, 0xfe; out 0x64, al: reset
        ],
    );
    installer.extend(program(INSTALLED, &[]));
    installer
}

/// A sector that says a line on the first serial port, does something, and stops.
fn program(line: &str, then: &[u8]) -> Vec<u8> {
    let begin = [
        0x31, 0xc0, // xor ax, ax
        0x8e, 0xd8, // mov ds, ax
        0x8e, 0xc0, // mov es, ax
    ];
    let say = [
        0xac, // again: lodsb
        0x84, 0xc0, // test al, al
        0x74, 0x06, // jz done
        0xba, 0xf8, 0x03, // mov dx, 0x3f8
        0xee, // out dx, al
        0xeb, 0xf5, // jmp again; done:
    ];
    let stop = [0xf4, 0xeb, 0xfd]; // again: hlt; jmp again
    let text = 0x7c00 + begin.len() + 3 + say.len() + then.len() + stop.len();
    let mut sector = begin.to_vec();
    sector.push(0xbe); // mov si, text
    sector.extend((text as u16).to_le_bytes());
    sector.extend(say);
    sector.extend(then);
    sector.extend(stop);
    sector.extend(line.bytes());
    sector.extend(b"\r\n\0");
    sector.resize(510, 0);
    sector.extend([0x55, 0xaa]);
    sector
}
