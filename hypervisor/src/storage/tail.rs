//! The end of a file that grows: the log of a serial line.

use super::{
    copy::{from_io, open_here, with_volume},
    volume::{find, view},
};
use crate::{ErrorKind, Node, Result, error::if_there, error::libvirt_error, node::SLOW};
use libvirt::{Connect, ErrorCode, Stream, Volume};
use std::io::{Read, Seek, SeekFrom};
use uuid::Uuid;

/// The end of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tail {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// How long the file is, in bytes: where the next look may begin.
    pub end: u64,
}

impl Node {
    /// What a volume has from byte `from` on, but no more than its last `most` bytes; `None` when there is no such volume. A
    /// file that is shorter than `from` is another one, begun anew, and is read from its beginning.
    pub async fn tail(&self, pool: Uuid, name: &str, from: u64, most: u64) -> Result<Option<Tail>> {
        let (wanted, doing) = (name.to_owned(), format!("read the end of volume {name}"));
        let read = self.bulk(SLOW, &doing, move |connection| {
            tail_of(connection, &find(&connection.pool(pool)?, &wanted)?, from, most)
        });
        match if_there(read.await) {
            // A log that is being begun anew at this moment.
            Err(error) if error.kind == ErrorKind::Failed && error.cause.contains("No such file") => Ok(None),
            read => read,
        }
    }

    /// The last bytes of a file anywhere on the node; `None` when there is no such file. `lookup` is a fresh name for a passing pool over
    /// its directory, which a remote node may need.
    pub async fn tail_of_file(&self, path: &str, lookup: &str, most: u64) -> Result<Option<Vec<u8>>> {
        let (wanted, lookup, local) = (path.to_owned(), lookup.to_owned(), self.is_local());
        let doing = format!("read the end of {path}");
        let read = self.bulk(SLOW, &doing, move |connection| {
            if !local {
                return with_volume(connection, &wanted, &lookup, |volume| tail_of(connection, volume, 0, most))
                    .map(|tail| tail.bytes);
            }
            let (mut file, length) = open_here(&wanted)?;
            let mut bytes = Vec::new();
            let start = SeekFrom::Start(length.saturating_sub(most));
            let read = file.seek(start).and_then(|_| file.take(most).read_to_end(&mut bytes));
            read.map(|_| bytes).map_err(|error| from_io(&error))
        });
        if_there(read.await)
    }
}

/// What a volume has from byte `from` on, but no more than its last `most` bytes.
fn tail_of(connection: &Connect, volume: &Volume, from: u64, most: u64) -> libvirt::Result<Tail> {
    // As libvirt looks at it now.
    let end = view(volume)?.physical;
    let from = if from > end { 0 } else { from };
    let start = from.max(end.saturating_sub(most));
    let mut bytes = Vec::new();
    // libvirt takes a length of 0 for all that there is.
    if start < end {
        let stream = Stream::new(connection, 0)?;
        volume.download(&stream, start, end - start, 0)?;
        (&stream)
            .take(end - start)
            .read_to_end(&mut bytes)
            .map_err(|error| libvirt_error(ErrorCode::OPERATION_FAILED, &error.to_string()))?;
        stream.finish()?;
    }
    Ok(Tail { bytes, end })
}
