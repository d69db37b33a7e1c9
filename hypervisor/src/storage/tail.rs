//! The end of a file that grows: the log of a serial line.

use super::volume::{find, view};
use crate::{ErrorKind, Node, Result, error::if_there, error::libvirt_error, node::SLOW};
use libvirt::{ErrorCode, Stream};
use std::io::Read;
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
            let volume = find(&connection.pool_by_uuid(pool.into_bytes())?, &wanted)?;
            // As libvirt looks at it now.
            let end = view(&volume)?.physical;
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
        });
        match if_there(read.await) {
            // A log that is being begun anew at this moment.
            Err(error) if error.kind == ErrorKind::Failed && error.cause.contains("No such file") => Ok(None),
            read => read,
        }
    }
}
