//! The bytes of a copy, piece by piece: data, and holes, which take no room where they arrive.

use super::{
    copy::{CHANGED, failed},
    image::HEADER_BYTES,
    volume::view,
};
use crate::session::Session;
use libvirt::{
    Connect, Piece, Stream, Volume,
    flags::{VOL_DOWNLOAD_SPARSE_STREAM, VOL_UPLOAD_SPARSE_STREAM},
};
use std::{fs::File, os::unix::fs::FileExt};
use uuid::Uuid;

/// How many bytes are moved at once.
pub(super) const CHUNK: usize = 1 << 20;
/// How many bytes a node is asked for at once. libvirt's client takes in whatever comes, faster than the bytes may leave
/// for where they go: this much of a copy may be in memory at the worst, not all of it.
const WINDOW: u64 = 64 << 20;
/// Zeroes that are one hole in a file read by ourselves: a file system's blocks are smaller, a qcow2's clusters this.
const BLOCK: usize = 64 << 10;
static ZEROES: [u8; BLOCK] = [0; BLOCK];

/// Where bytes are read from, from front to end.
pub(super) trait Pieces {
    /// The next piece, its data in the front of `buffer`.
    fn next(&mut self, buffer: &mut [u8]) -> libvirt::Result<Piece>;
}

/// The first `length` bytes of a volume.
pub(super) struct Download<'a> {
    connection: &'a Connect,
    volume: Volume,
    length: u64,
    at: u64,
    window: Option<Window>,
    /// Whether the last window ended in a hole.
    in_hole: bool,
    header: Vec<u8>,
}

/// A part of a volume that was asked for.
struct Window {
    stream: Stream,
    end: u64,
    /// Asked for its first piece only, which tells where a hole ends.
    is_probe: bool,
}

impl<'a> Download<'a> {
    /// The bytes of `file` in a pool, which must be so many.
    pub(super) fn of_file(connection: &'a Session, pool: Uuid, file: &str, length: u64) -> libvirt::Result<Self> {
        let volume = connection.pool(pool)?.volume_by_name(file)?;
        let download = Download::new(connection, &volume, length);
        download.check_length()?;
        Ok(download)
    }

    pub(super) fn new(connection: &'a Connect, volume: &Volume, length: u64) -> Self {
        let volume = volume.clone();
        Download { connection, volume, length, at: 0, window: None, in_hole: false, header: Vec::new() }
    }

    /// The header of what was read, if the volume still has that and its length.
    pub(super) fn unchanged(self) -> libvirt::Result<Vec<u8>> {
        self.check_length()?;
        match header_of(self.connection, &self.volume, self.length)? {
            header if header == self.header => Ok(header),
            _ => Err(failed(CHANGED)),
        }
    }

    fn check_length(&self) -> libvirt::Result<()> {
        match view(&self.volume)?.physical {
            length if length == self.length => Ok(()),
            _ => Err(failed(CHANGED)),
        }
    }

    fn open(&self) -> libvirt::Result<Window> {
        let rest = self.length - self.at;
        let length = if self.in_hole { rest } else { rest.min(WINDOW) };
        let stream = Stream::new(self.connection, 0)?;
        self.volume.download(&stream, self.at, length, VOL_DOWNLOAD_SPARSE_STREAM)?;
        Ok(Window { stream, end: self.at + length, is_probe: self.in_hole })
    }

    fn keep_header(&mut self, buffer: &[u8], piece: Piece) {
        let missing = HEADER_BYTES - self.header.len();
        match piece {
            Piece::Data(len) => self.header.extend(buffer.iter().take(len.min(missing))),
            Piece::Hole(length) => self.header.resize(HEADER_BYTES.min(self.header.len() + clamp(length)), 0),
            Piece::End => {}
        }
    }
}

impl Pieces for Download<'_> {
    fn next(&mut self, buffer: &mut [u8]) -> libvirt::Result<Piece> {
        if self.at == self.length {
            return Ok(Piece::End);
        }
        let window = match self.window.take() {
            Some(window) => window,
            None => self.open()?,
        };
        let piece = window.stream.recv_piece(buffer)?;
        self.at += match piece {
            Piece::Data(len) => len as u64,
            Piece::Hole(length) => length,
            Piece::End => return Err(failed(CHANGED)),
        };
        self.keep_header(buffer, piece);
        self.in_hole = matches!(piece, Piece::Hole(_)) && !window.is_probe;
        match self.at.cmp(&window.end) {
            std::cmp::Ordering::Greater => return Err(failed("the node sent more than it was asked for")),
            std::cmp::Ordering::Equal => end(&window.stream, buffer)?,
            // A probe is dropped here, which aborts it.
            std::cmp::Ordering::Less if window.is_probe => {}
            std::cmp::Ordering::Less => self.window = Some(window),
        }
        Ok(piece)
    }
}

/// Ends a stream that has brought all that was asked for: libvirt wants its end to be read.
fn end(stream: &Stream, buffer: &mut [u8]) -> libvirt::Result<()> {
    match stream.recv_piece(buffer)? {
        Piece::End => stream.finish(),
        _ => Err(failed("the node sent more than it was asked for")),
    }
}

/// The first `length` bytes of a file of this machine. What is zero is a hole, wherever the file system keeps it.
pub(super) struct Local {
    pub(super) file: File,
    pub(super) length: u64,
    pub(super) at: u64,
}

impl Pieces for Local {
    fn next(&mut self, buffer: &mut [u8]) -> libvirt::Result<Piece> {
        let wanted = clamp(self.length - self.at).min(buffer.len());
        let read = self.file.read_at(&mut buffer[..wanted], self.at).map_err(|error| super::copy::from_io(&error))?;
        let (length, zero) = run(&buffer[..read]);
        self.at += length as u64;
        Ok(match (length, zero) {
            (0, _) => Piece::End,
            (length, true) => Piece::Hole(length as u64),
            (length, false) => Piece::Data(length),
        })
    }
}

/// How many bytes at the front are blocks of zeroes, or blocks that are not, and which.
fn run(bytes: &[u8]) -> (usize, bool) {
    let zero = bytes.chunks(BLOCK).next().is_some_and(is_zero);
    let length = bytes.chunks(BLOCK).take_while(|block| is_zero(block) == zero).map(<[u8]>::len).sum();
    (length, zero)
}

/// Whether a block, or less, is zero.
fn is_zero(block: &[u8]) -> bool {
    *block == ZEROES[..block.len()]
}

/// Fills a volume with `length` bytes, holes kept. `progress` gets how many are there, holes counted, and says whether to
/// go on. `next` puts the next piece's data into the front of the buffer; its end comes too early.
pub(super) fn upload(
    connection: &Connect,
    to: &Volume,
    length: u64,
    progress: &impl Fn(u64) -> bool,
    mut next: impl FnMut(&mut Vec<u8>) -> libvirt::Result<Piece>,
) -> libvirt::Result<()> {
    let stream = Stream::new(connection, 0)?;
    to.upload(&stream, 0, length, VOL_UPLOAD_SPARSE_STREAM)?;
    let (mut copied, mut buffer, mut tail) = (0, vec![0; CHUNK], Tail::default());
    while copied < length {
        match next(&mut buffer)? {
            Piece::Data(len) => {
                stream.send_all(&buffer[..len])?;
                tail.keep(copied, &buffer[..len]);
                copied += len as u64;
            }
            Piece::Hole(hole) => {
                stream.send_hole(hole)?;
                copied += hole;
            }
            Piece::End => return Err(failed(CHANGED)),
        }
        if !progress(copied) {
            return Err(failed("the copy was cancelled"));
        }
    }
    stream.finish()?;
    tail.check(connection, to)
}

/// The last data of an upload that is not all zero.
///
/// libvirt writes behind the stream, and the stream's end forgets an error of that (virFDStreamCloseInt overwrites it by
/// what closing says): on a full disk the last bytes are missing and nothing fails. All is written if these bytes are.
#[derive(Default)]
struct Tail {
    at: u64,
    bytes: Vec<u8>,
}

impl Tail {
    fn keep(&mut self, at: u64, bytes: &[u8]) {
        if bytes.chunks(BLOCK).any(|block| !is_zero(block)) {
            self.at = at;
            self.bytes.clear();
            self.bytes.extend_from_slice(bytes);
        }
    }

    fn check(self, connection: &Connect, volume: &Volume) -> libvirt::Result<()> {
        let end = self.at + self.bytes.len() as u64;
        let mut written = Download { at: self.at, ..Download::new(connection, volume, end) };
        if first(&mut written, self.bytes.len())? == self.bytes {
            return Ok(());
        }
        Err(failed(
            "the last bytes were not written, and libvirt doesn't say why; most likely: No space left on device",
        ))
    }
}

/// The first bytes of a volume of this length.
pub(super) fn header_of(connection: &Connect, volume: &Volume, length: u64) -> libvirt::Result<Vec<u8>> {
    beginning(connection, volume, length, HEADER_BYTES)
}

/// So many bytes of the beginning of a volume of this length, or all that it has.
pub(super) fn beginning(connection: &Connect, volume: &Volume, length: u64, wanted: usize) -> libvirt::Result<Vec<u8>> {
    let wanted = wanted.min(clamp(length));
    first(&mut Download::new(connection, volume, wanted as u64), wanted)
}

/// The first bytes of an image, or all of a shorter one.
pub(super) fn head(pieces: &mut dyn Pieces) -> libvirt::Result<Vec<u8>> {
    first(pieces, HEADER_BYTES)
}

/// So many bytes, or all that there are.
fn first(pieces: &mut dyn Pieces, wanted: usize) -> libvirt::Result<Vec<u8>> {
    let (mut bytes, mut buffer) = (Vec::with_capacity(wanted), vec![0; wanted]);
    while bytes.len() < wanted {
        let missing = wanted - bytes.len();
        match pieces.next(&mut buffer[..missing])? {
            Piece::Data(len) => bytes.extend_from_slice(&buffer[..len]),
            Piece::Hole(length) => bytes.resize(bytes.len() + clamp(length).min(missing), 0),
            Piece::End => break,
        }
    }
    Ok(bytes)
}

/// A length in memory, of something that may be longer.
fn clamp(length: u64) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_zeroes_are_holes() {
        let mut bytes = vec![0; 3 * BLOCK + 10];
        assert_eq!(run(&bytes), (3 * BLOCK + 10, true));
        bytes[2 * BLOCK + 5] = 1;
        assert_eq!(run(&bytes), (2 * BLOCK, true));
        assert_eq!(run(&bytes[2 * BLOCK..]), (BLOCK, false));
        assert_eq!(run(&bytes[3 * BLOCK..]), (10, true));
        assert_eq!(run(&[]).0, 0);
    }
}
