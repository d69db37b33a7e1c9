//! Copying an image file of a node into a pool, byte by byte.
//!
//! The bytes pass through this process and into the pool by a stream of libvirt's, so that a copy works the same on
//! every node, its progress is known, and the header is read by us before and after. The file itself is opened
//! directly where the node is this machine; elsewhere libvirt has to see it as a volume, if need be of a passing pool
//! over its directory (which libvirt refuses to make over some odd files, hence not for local ones).

use super::{
    Image, VolumeView, image,
    pool::{dir_xml, when_idle},
    volume::{create_raw, view},
};
use crate::{ErrorKind, Node, Result, node::SLOW};
use libvirt::{Connect, ErrorCode, Pool, Stream, Volume};
use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::Duration,
};
use uuid::Uuid;

/// What is said of a file that isn't what it was.
const CHANGED: &str = "the file changed while it was copied";
/// Linux's flag of that name.
const O_NONBLOCK: i32 = 0o4000;
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
}

impl Node {
    /// Looks at an image file anywhere on the node. `lookup` is a fresh name for a passing pool over the file's
    /// directory, which a remote node may need.
    pub async fn inspect_file(&self, path: &str, lookup: &str) -> Result<Source> {
        let doing = format!("read image {path}");
        let (wanted, lookup, local) = (path.to_owned(), lookup.to_owned(), self.is_local());
        let found = self.bulk(SLOW, &doing, move |connection| {
            open(connection, &wanted, &lookup, local, |reader, length| Ok((head(reader)?, length)))
        });
        let (header, length) = match found.await {
            Err(error) if error.kind == ErrorKind::NotFound => {
                return Err(self.error(ErrorKind::NotFound, &doing, "there is no such file on the node"));
            }
            found => found?,
        };
        let image = Image::inspect(&header, length).map_err(|why| self.error(ErrorKind::Refused, &doing, &why))?;
        Ok(Source { path: path.to_owned(), image, length })
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
        let (source_, lookup, name, local) = (source.clone(), lookup.to_owned(), name.to_owned(), self.is_local());
        let _place = self.place_for_copy().await;
        let copied = self.bulk(COPY, &doing, move |connection| {
            let pool = connection.pool_by_uuid(pool.into_bytes())?;
            let target = create_raw(&pool, &name, source_.length, "0444")?;
            open(connection, &source_.path, &lookup, local, |reader, length| {
                if length != source_.length {
                    return Err(error(ErrorCode::OPERATION_FAILED, CHANGED));
                }
                upload(connection, reader, &target, length, &progress)
            })?;
            let header = {
                let stream = Stream::new(connection, 0)?;
                target.download(&stream, 0, source_.length.min(image::HEADER_BYTES as u64), 0)?;
                head(&mut &stream)?
            };
            // The upload's end makes libvirt look at the pool again, but maybe not yet.
            when_idle(|| pool.refresh(0))?;
            Ok((header, view(&pool.volume_by_name(&name)?)?))
        });
        let (header, volume) = copied.await?;
        match Image::inspect(&header, source.length) {
            Ok(image) if image == source.image => Ok(volume),
            _ => Err(self.error(ErrorKind::Refused, &doing, CHANGED)),
        }
    }

    /// Takes the passing pools away whose names are such. The files stay.
    pub async fn drop_lookup_pools(&self, is_left: impl Fn(&str) -> bool + Send + 'static) -> Result<()> {
        self.change(SLOW, "drop passing pools", move |connection| {
            let ours = |pool: &Pool| is_left(&pool.name());
            connection.pools(0)?.iter().filter(|pool| ours(pool)).try_for_each(Pool::destroy)
        })
        .await
    }

    /// Takes the passing pool of a look-up away, which a server that died may have left. The files stay.
    pub async fn drop_lookup_pool(&self, lookup: &str) -> Result<()> {
        let wanted = lookup.to_owned();
        let dropped = self
            .change(SLOW, &format!("drop pool {lookup}"), move |connection| connection.pool_by_name(&wanted)?.destroy())
            .await;
        match dropped {
            Err(error) if error.kind == ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }
}

/// Runs `f` with the file at `path` opened for reading, and its length.
fn open<T>(
    connection: &Connect,
    path: &str,
    lookup: &str,
    local: bool,
    f: impl FnOnce(&mut dyn Read, u64) -> libvirt::Result<T>,
) -> libvirt::Result<T> {
    if local {
        // Looked at before: an open blocks on a FIFO, and some devices react to it.
        if !std::fs::metadata(path).map_err(|error| from_io(&error))?.is_file() {
            return Err(error(ErrorCode::INVALID_ARG, "it is not a regular file"));
        }
        let file = File::options().read(true).custom_flags(O_NONBLOCK).open(path).map_err(|error| from_io(&error))?;
        let metadata = file.metadata().map_err(|error| from_io(&error))?;
        if !metadata.is_file() {
            return Err(error(ErrorCode::INVALID_ARG, "it is not a regular file"));
        }
        return f(&mut &file, metadata.len());
    }
    with_volume(connection, path, lookup, |volume| {
        let length = view(volume)?.physical;
        let stream = Stream::new(connection, 0)?;
        volume.download(&stream, 0, length, 0)?;
        f(&mut &stream, length)
    })
}

/// Runs `f` with the volume at `path`: of a pool that has it, or of a passing pool over its directory.
fn with_volume<T>(
    connection: &Connect,
    path: &str,
    lookup: &str,
    f: impl FnOnce(&Volume) -> libvirt::Result<T>,
) -> libvirt::Result<T> {
    if let Ok(volume) = connection.volume_by_path(path) {
        return f(&volume);
    }
    let directory = Path::new(path).parent().and_then(Path::to_str).unwrap_or("/");
    // A pool over that directory may not have looked since the file came.
    if let Ok(pool) = connection.pool_by_target_path(directory)
        && pool.is_active()?
    {
        when_idle(|| pool.refresh(0))?;
        return f(&connection.volume_by_path(path)?);
    }
    let pool = PassingPool(connection.create_pool(&dir_xml(lookup, directory), 0)?);
    let volume = pool.0.volumes()?.into_iter().find(|volume| volume.path().is_ok_and(|found| found == path));
    match volume {
        Some(volume) => f(&volume),
        None => Err(error(ErrorCode::NO_STORAGE_VOL, "there is no such file")),
    }
}

/// A transient pool, gone when this is dropped.
struct PassingPool(Pool);

impl Drop for PassingPool {
    fn drop(&mut self) {
        if let Err(error) = self.0.destroy() {
            tracing::warn!(%error, "a passing pool was left behind");
        }
    }
}

/// The first bytes of an image, or all of a shorter one.
fn head(reader: &mut dyn Read) -> libvirt::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(image::HEADER_BYTES);
    reader.take(image::HEADER_BYTES as u64).read_to_end(&mut bytes).map_err(|error| from_io(&error))?;
    Ok(bytes)
}

fn upload(
    connection: &Connect,
    reader: &mut dyn Read,
    to: &Volume,
    length: u64,
    progress: &impl Fn(u64),
) -> libvirt::Result<()> {
    let stream = Stream::new(connection, 0)?;
    to.upload(&stream, 0, length, 0)?;
    let mut buffer = vec![0; CHUNK];
    let (mut copied, mut reader) = (0, reader.take(length));
    loop {
        let read = reader.read(&mut buffer).map_err(|error| from_io(&error))?;
        if read == 0 && copied < length {
            return Err(error(ErrorCode::OPERATION_FAILED, CHANGED));
        }
        if read == 0 {
            return stream.finish();
        }
        stream.send_all(&buffer[..read])?;
        copied += read as u64;
        progress(copied);
    }
}

fn from_io(cause: &io::Error) -> libvirt::Error {
    let code = match cause.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => ErrorCode::NO_STORAGE_VOL,
        _ => ErrorCode::SYSTEM_ERROR,
    };
    error(code, &cause.to_string())
}

fn error(code: ErrorCode, message: &str) -> libvirt::Error {
    libvirt::Error { code, domain: 0, message: message.to_owned() }
}
