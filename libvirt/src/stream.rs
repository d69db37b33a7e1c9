//! Streams: bytes through the connection, to and from volumes, consoles and screenshots.

use std::ffi::c_int;
use std::fmt;
use std::io;
use std::ptr::NonNull;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use virt_sys as sys;

use crate::ffi::{check, check_ptr};
use crate::handler::Handler;
use crate::{Connect, Error, ErrorCode, Result};

/// The most that libvirt's own client sends in one message (`VIR_NET_MESSAGE_LEGACY_PAYLOAD_MAX`).
const SEND_MAX: usize = 262_120;

/// What libvirt answers when a non-blocking stream would block.
const WOULD_BLOCK: c_int = -2;
/// What libvirt answers when it was to stop at holes, and is at one.
const AT_HOLE: c_int = -3;

/// What comes next on a sparse stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Piece {
    /// So many bytes, now in the front of the buffer; never 0.
    Data(usize),
    /// So many zeroes, which were not sent; never 0.
    Hole(u64),
    /// Nothing.
    End,
}

/// A stream of bytes (`virStreamPtr`), of use once it is connected with something ([`Domain::open_console`],
/// [`Volume::upload`] …). Ended by [`Stream::finish`] or [`Stream::abort`]; a drop aborts what was not ended. Also an
/// [`io::Read`] and [`io::Write`], owned and by reference.
///
/// [`Domain::open_console`]: crate::Domain::open_console
/// [`Volume::upload`]: crate::Volume::upload
pub struct Stream {
    ptr: NonNull<sys::virStream>,
    /// Whether it was finished or aborted.
    ended: AtomicBool,
    /// The event callback.
    pub(crate) event: Mutex<Option<Handler>>,
    _conn: Connect,
}

// SAFETY: libvirt's stream objects may be used from any thread, several at once; they lock for themselves.
unsafe impl Send for Stream {}
// SAFETY: as above.
unsafe impl Sync for Stream {}

impl Drop for Stream {
    fn drop(&mut self) {
        // Fails harmlessly where nothing was connected or the connection is lost.
        let _ = self.abort();
        // SAFETY: gives back the reference, once; no callback is left.
        unsafe { sys::virStreamFree(self.as_ptr()) };
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl Stream {
    /// A stream that is not yet connected with anything (`virStreamNew`). Flags:
    /// [`STREAM_NONBLOCK`](crate::flags::STREAM_NONBLOCK).
    pub fn new(conn: &Connect, flags: u32) -> Result<Self> {
        // SAFETY: a live connection.
        let ptr = check_ptr(unsafe { sys::virStreamNew(conn.as_ptr(), flags) })?;
        Ok(Self { ptr, ended: false.into(), event: Mutex::new(None), _conn: conn.clone() })
    }

    pub(crate) fn as_ptr(&self) -> sys::virStreamPtr {
        self.ptr.as_ptr()
    }

    /// Sends bytes from the front of `bytes` and says how many, at most 262,120 in one call (`virStreamSend`). Errors:
    /// WOULD_BLOCK for a non-blocking stream; after any other the stream is of no more use.
    pub fn send(&self, bytes: &[u8]) -> Result<usize> {
        let len = bytes.len().min(SEND_MAX);
        // SAFETY: a live stream and `len` bytes to read.
        let rc = unsafe { sys::virStreamSend(self.as_ptr(), bytes.as_ptr().cast(), len) };
        moved(rc)
    }

    /// Sends all bytes; for blocking streams.
    pub fn send_all(&self, bytes: &[u8]) -> Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let sent = self.send(rest)?;
            if sent == 0 {
                return Err(Error::new(ErrorCode::WRITE_FAILED, "the stream takes no more bytes"));
            }
            rest = rest.get(sent..).unwrap_or_default();
        }
        Ok(())
    }

    /// As [`Stream::send`], with `None` in place of WOULD_BLOCK.
    pub fn try_send(&self, bytes: &[u8]) -> Result<Option<usize>> {
        unless_blocked(self.send(bytes))
    }

    /// Receives bytes into the front of `buffer` and says how many; 0 is the end of the stream (`virStreamRecv`).
    /// Errors: as [`Stream::send`].
    pub fn recv(&self, buffer: &mut [u8]) -> Result<usize> {
        let len = buffer.len().min(i32::MAX as usize);
        // SAFETY: a live stream and room for `len` bytes.
        let rc = unsafe { sys::virStreamRecv(self.as_ptr(), buffer.as_mut_ptr().cast(), len) };
        moved(rc)
    }

    /// As [`Stream::recv`], with `None` in place of WOULD_BLOCK.
    pub fn try_recv(&self, buffer: &mut [u8]) -> Result<Option<usize>> {
        unless_blocked(self.recv(buffer))
    }

    /// Receives bytes into the front of `buffer`, or how long the hole is that comes next (`virStreamRecvFlags` with
    /// `VIR_STREAM_RECV_STOP_AT_HOLE`, then `virStreamRecvHole`). For a blocking stream of
    /// [`VOL_DOWNLOAD_SPARSE_STREAM`](crate::flags::VOL_DOWNLOAD_SPARSE_STREAM), whose other methods would fill holes
    /// with zeroes. Errors: as [`Stream::send`].
    pub fn recv_piece(&self, buffer: &mut [u8]) -> Result<Piece> {
        if buffer.is_empty() {
            return Err(Error::new(ErrorCode::INVALID_ARG, "there is no room to receive into"));
        }
        let (len, stop) = (buffer.len().min(i32::MAX as usize), sys::VIR_STREAM_RECV_STOP_AT_HOLE);
        // SAFETY: a live stream and room for `len` bytes.
        let rc = unsafe { sys::virStreamRecvFlags(self.as_ptr(), buffer.as_mut_ptr().cast(), len, stop) };
        if rc != AT_HOLE {
            return Ok(match moved(rc)? {
                0 => Piece::End,
                len => Piece::Data(len),
            });
        }
        let mut hole = 0;
        // SAFETY: a live stream; the length is written to our variable.
        check(unsafe { sys::virStreamRecvHole(self.as_ptr(), &mut hole, 0) })?;
        match u64::try_from(hole) {
            // So libvirt's own client says that the stream ends in a hole.
            Ok(0) => Ok(Piece::End),
            Ok(length) => Ok(Piece::Hole(length)),
            Err(_) => Err(Error::new(ErrorCode::INTERNAL_ERROR, "libvirt found a hole of negative length")),
        }
    }

    /// Sends a hole of `length` zeroes, which takes no room where it arrives (`virStreamSendHole`); on a stream of
    /// [`VOL_UPLOAD_SPARSE_STREAM`](crate::flags::VOL_UPLOAD_SPARSE_STREAM). A file is cut off behind the hole until
    /// more comes. A hole of 0 is not sent. Errors: INVALID_ARG when it is longer than libvirt can say; others as
    /// [`Stream::send`].
    pub fn send_hole(&self, length: u64) -> Result<()> {
        let length = i64::try_from(length).map_err(|_| Error::new(ErrorCode::INVALID_ARG, "the hole is too long"))?;
        if length == 0 {
            // The other side would refuse it, and say so only at the end.
            return Ok(());
        }
        // SAFETY: a live stream.
        check(unsafe { sys::virStreamSendHole(self.as_ptr(), length, 0) })?;
        Ok(())
    }

    /// Ends the stream and waits for the other side to say that all went well (`virStreamFinish`); after a download,
    /// only at its end. Removes the event callback. Errors: whatever went wrong on the other side.
    pub fn finish(&self) -> Result<()> {
        let _ = self.remove_event();
        if self.ended.swap(true, Ordering::AcqRel) {
            return Err(Error::new(ErrorCode::INVALID_STREAM, "the stream was ended before"));
        }
        // SAFETY: a live stream.
        check(unsafe { sys::virStreamFinish(self.as_ptr()) })?;
        Ok(())
    }

    /// Ends the stream at once (`virStreamAbort`); does nothing if it was ended before. Removes the event callback.
    pub fn abort(&self) -> Result<()> {
        let _ = self.remove_event();
        if self.ended.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        // SAFETY: a live stream.
        check(unsafe { sys::virStreamAbort(self.as_ptr()) })?;
        Ok(())
    }
}

/// How many bytes went, from what sending or receiving returned.
fn moved(rc: c_int) -> Result<usize> {
    if rc == WOULD_BLOCK {
        return Err(Error::new(ErrorCode::WOULD_BLOCK, "the stream would block"));
    }
    Ok(check(rc)?.unsigned_abs() as usize)
}

fn unless_blocked(moved: Result<usize>) -> Result<Option<usize>> {
    match moved {
        Ok(len) => Ok(Some(len)),
        Err(error) if error.code == ErrorCode::WOULD_BLOCK => Ok(None),
        Err(error) => Err(error),
    }
}

fn to_io(error: Error) -> io::Error {
    match error.code {
        ErrorCode::WOULD_BLOCK => io::Error::new(io::ErrorKind::WouldBlock, error),
        _ => io::Error::other(error),
    }
}

impl io::Read for &Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() { Ok(0) } else { self.recv(buffer).map_err(to_io) }
    }
}

impl io::Write for &Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() { Ok(0) } else { self.send(bytes).map_err(to_io) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl io::Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buffer)
    }
}

impl io::Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
