//! What a serial line has said of late: the last MiB, which all who watch read from.

use std::collections::VecDeque;

/// The most that is kept, in bytes.
pub(super) const KEPT: usize = 1 << 20;

/// The last bytes of a line. Each has a place, counted from the first that there ever was.
#[derive(Default)]
pub(super) struct Ring {
    bytes: VecDeque<u8>,
    end: u64,
}

impl Ring {
    /// More was said.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.end += bytes.len() as u64;
        let bytes = &bytes[bytes.len().saturating_sub(KEPT)..];
        let over = (self.bytes.len() + bytes.len()).saturating_sub(KEPT);
        self.bytes.drain(..over);
        self.bytes.extend(bytes);
    }

    /// The place after the last byte.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// The place of the first byte that is still there.
    pub(super) fn start(&self) -> u64 {
        self.end - self.bytes.len() as u64
    }

    /// At most so many bytes from a place on; `None` when they are no longer there.
    pub(super) fn read(&self, from: u64, most: usize) -> Option<Vec<u8>> {
        let skip = from.checked_sub(self.start())? as usize;
        Some(self.bytes.iter().skip(skip).take(most).copied().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_bytes_are_kept() {
        let mut ring = Ring::default();
        ring.push(b"abc");
        assert_eq!((ring.start(), ring.end()), (0, 3));
        assert_eq!(ring.read(1, 10).unwrap(), b"bc");
        assert_eq!(ring.read(3, 10).unwrap(), b"");
        ring.push(&vec![b'x'; KEPT - 1]);
        assert_eq!((ring.start(), ring.end()), (2, KEPT as u64 + 2));
        assert_eq!(ring.read(1, 1), None);
        assert_eq!(ring.read(2, 2).unwrap(), b"cx");
        ring.push(&vec![b'y'; 3 * KEPT]);
        assert_eq!((ring.end() - ring.start()) as usize, KEPT);
        assert_eq!(ring.read(ring.start(), 1).unwrap(), b"y");
    }
}
