//! Copying an image into a pool, byte by byte, through libvirt's streams.
//!
//! The bytes pass through this process, so that a copy works the same within a node and between two, its progress is
//! known, and the header is read by us before and after.

use super::{
    Image, VolumeView, image,
    pool::{dir_xml, when_idle},
    volume::{create_raw, view},
};
use crate::{Error, ErrorKind, Node, Result, node::SLOW};
use libvirt::{Connect, ErrorCode, Pool, Stream, Volume};
use std::{path::Path, time::Duration};
use uuid::Uuid;

/// How many bytes are moved at once.
const CHUNK: usize = 1 << 20;
/// The deadline of a whole copy. The caller watches its progress.
const COPY: Duration = Duration::from_secs(24 * 3600);

/// A file on a node that was found acceptable as an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Where it is on the node.
    pub path: String,
    /// What its header says.
    pub image: Image,
    /// Its length, in bytes.
    pub length: u64,
    /// Whether it lies in a pool that people made, and so is a disk image; any other file of the host otherwise.
    pub in_pool: bool,
}

impl Node {
    /// Looks at an image file anywhere on the node. `lookup` is a fresh name for a passing pool over the file's
    /// directory, which is used when no pool has it.
    pub async fn inspect_file(&self, path: &str, lookup: &str) -> Result<Source> {
        let doing = format!("read image {path}");
        let (wanted, lookup) = (path.to_owned(), lookup.to_owned());
        let found = self
            .bulk(SLOW, &doing, move |connection| {
                with_volume(connection, &wanted, &lookup, |volume, in_pool| {
                    let length = view(volume)?.physical;
                    Ok((head(connection, volume, length)?, length, in_pool))
                })
            })
            .await;
        let (header, length, in_pool) = match found {
            Err(error) if error.kind == ErrorKind::NotFound => {
                return Err(self.error(ErrorKind::NotFound, &doing, "there is no such file on the node"));
            }
            found => found?,
        };
        let image = Image::inspect(&header, length).map_err(|why| self.error(ErrorKind::Refused, &doing, &why))?;
        Ok(Source { path: path.to_owned(), image, length, in_pool })
    }

    /// Copies an image file of the node into a pool as the read-only volume `name`. `progress` gets the bytes copied
    /// so far, on a thread of the node's. The copy's own header is read again: the file may have changed meanwhile.
    pub async fn import(
        &self,
        source: &Source,
        lookup: &str,
        pool: Uuid,
        name: &str,
        progress: impl Fn(u64) + Send + 'static,
    ) -> Result<VolumeView> {
        let doing = format!("copy image {} into volume {name}", source.path);
        let (source_, lookup, name) = (source.clone(), lookup.to_owned(), name.to_owned());
        let copied = self.bulk(COPY, &doing, move |connection| {
            let pool = connection.pool_by_uuid(pool.into_bytes())?;
            let target = create_raw(&pool, &name, source_.length, "0444")?;
            with_volume(connection, &source_.path, &lookup, |volume, _| {
                copy_bytes(connection, volume, &target, source_.length, &progress)
            })?;
            let header = head(connection, &target, source_.length)?;
            // The upload's end makes libvirt look at the pool again, but maybe not yet.
            when_idle(|| pool.refresh(0))?;
            Ok((header, view(&pool.volume_by_name(&name)?)?))
        });
        let (header, volume) = copied.await?;
        match Image::inspect(&header, source.length) {
            Ok(image) if image == source.image => Ok(volume),
            Ok(_) => Err(self.changed(&doing)),
            Err(_) => Err(self.changed(&doing)),
        }
    }

    fn changed(&self, doing: &str) -> Error {
        self.error(ErrorKind::Refused, doing, "the file changed while it was copied")
    }

    /// Takes the passing pool of a look-up away, which a server that died may have left. The files stay.
    pub async fn drop_lookup_pool(&self, lookup: &str) -> Result<()> {
        let wanted = lookup.to_owned();
        let dropped = self
            .call(SLOW, &format!("drop pool {lookup}"), move |connection| connection.pool_by_name(&wanted)?.destroy())
            .await;
        match dropped {
            Err(error) if error.kind == ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }
}

/// Runs `f` with the volume at `path`: of a pool that has it, or of a passing pool over its directory.
fn with_volume<T>(
    connection: &Connect,
    path: &str,
    lookup: &str,
    f: impl Fn(&Volume, bool) -> libvirt::Result<T>,
) -> libvirt::Result<T> {
    if let Ok(volume) = connection.volume_by_path(path) {
        return f(&volume, true);
    }
    let directory = Path::new(path).parent().and_then(Path::to_str).unwrap_or("/");
    // A pool over that directory may not have looked since the file came.
    if let Ok(pool) = connection.pool_by_target_path(directory) {
        if pool.is_active()? {
            when_idle(|| pool.refresh(0))?;
            return f(&connection.volume_by_path(path)?, true);
        }
    }
    let pool = PassingPool::open(connection, lookup, directory)?;
    let volume = pool.0.volumes()?.into_iter().find(|volume| volume.path().is_ok_and(|found| found == path));
    match volume {
        Some(volume) => f(&volume, false),
        None => Err(libvirt::Error {
            code: ErrorCode::NO_STORAGE_VOL,
            domain: 0,
            message: format!("no file {path}"),
        }),
    }
}

/// A transient pool, gone when this is dropped.
struct PassingPool(Pool);

impl PassingPool {
    fn open(connection: &Connect, name: &str, directory: &str) -> libvirt::Result<PassingPool> {
        connection.create_pool(&dir_xml(name, directory), 0).map(PassingPool)
    }
}

impl Drop for PassingPool {
    fn drop(&mut self) {
        if let Err(error) = self.0.destroy() {
            tracing::warn!(%error, "a passing pool was left behind");
        }
    }
}

/// The first bytes of a volume.
fn head(connection: &Connect, volume: &Volume, length: u64) -> libvirt::Result<Vec<u8>> {
    let wanted = length.min(image::HEADER_BYTES as u64);
    let stream = Stream::new(connection, 0)?;
    volume.download(&stream, 0, wanted, 0)?;
    let mut bytes = vec![0; wanted as usize];
    let mut filled = 0;
    while filled < bytes.len() {
        match stream.recv(&mut bytes[filled..])? {
            0 => break,
            n => filled += n,
        }
    }
    // Ends the stream properly when all of it was read.
    while stream.recv(&mut [0; 256])? > 0 {}
    stream.finish()?;
    bytes.truncate(filled);
    Ok(bytes)
}

fn copy_bytes(
    connection: &Connect,
    from: &Volume,
    to: &Volume,
    length: u64,
    progress: &impl Fn(u64),
) -> libvirt::Result<()> {
    let (source, target) = (Stream::new(connection, 0)?, Stream::new(connection, 0)?);
    from.download(&source, 0, length, 0)?;
    to.upload(&target, 0, length, 0)?;
    let mut buffer = vec![0; CHUNK];
    let mut copied = 0;
    loop {
        let read = source.recv(&mut buffer)?;
        if read == 0 {
            break;
        }
        target.send_all(&buffer[..read])?;
        copied += read as u64;
        progress(copied);
    }
    source.finish()?;
    target.finish()
}

