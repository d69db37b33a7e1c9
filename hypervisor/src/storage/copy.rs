//! Copying an image file of a node into a pool, byte by byte.
//!
//! The bytes pass through this process and into the pool by a stream of libvirt's, so that a copy works the same on
//! every node, its progress is known, and the header is read by us before and after. The file itself is opened
//! directly where the node is this machine; elsewhere libvirt has to see it as a volume, if need be of a passing pool
//! over its directory (which libvirt refuses to make over some odd files, hence not for local ones).

use super::{
    Image, VolumeView,
    pieces::{Download, Local, Pieces, head, header_of, upload},
    pool::{dir_xml, when_idle},
    volume::{create_for_copy, view},
};
use crate::{
    ErrorKind, Node, Result,
    error::{if_there, libvirt_error},
    node::SLOW,
};
use libvirt::{Connect, ErrorCode, Pool, Volume};
use std::{fs::File, io, os::unix::fs::OpenOptionsExt, path::Path, time::Duration};
use uuid::Uuid;

/// What is said of a file that isn't what it was.
pub(super) const CHANGED: &str = "the file changed while it was copied";
/// Linux's flag of that name.
const O_NONBLOCK: i32 = 0o4000;
/// The deadline of a whole copy. The caller watches its progress.
pub(super) const COPY: Duration = Duration::from_secs(24 * 3600);

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
            open(connection, &wanted, &lookup, local, |pieces, length| Ok((head(pieces)?, length)))
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
    /// so far, on a thread of the node's, and says whether to go on. The copy's own header is read
    /// again: the file may have changed meanwhile.
    pub async fn import(
        &self,
        source: &Source,
        lookup: &str,
        pool: Uuid,
        name: &str,
        progress: impl Fn(u64) -> bool + Send + 'static,
    ) -> Result<VolumeView> {
        let doing = format!("copy image {} into volume {name}", source.path);
        let (source_, lookup, name, local) = (source.clone(), lookup.to_owned(), name.to_owned(), self.is_local());
        let _place = self.place_for_copy().await;
        let copied = self.bulk(COPY, &doing, move |connection| {
            let pool = connection.pool(pool)?;
            let target = create_for_copy(&pool, &name, source_.length, "0444")?;
            open(connection, &source_.path, &lookup, local, |pieces, length| {
                if length != source_.length {
                    return Err(failed(CHANGED));
                }
                upload(connection, &target, length, &progress, |buffer| pieces.next(buffer))
            })?;
            arrived(connection, &pool, &target, source_.length)
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
        if_there(dropped).map(|_| ())
    }
}

/// Runs `f` with the file at `path` opened for reading, and its length.
fn open<T>(
    connection: &Connect,
    path: &str,
    lookup: &str,
    local: bool,
    f: impl FnOnce(&mut dyn Pieces, u64) -> libvirt::Result<T>,
) -> libvirt::Result<T> {
    if local {
        let (file, length) = open_here(path)?;
        return f(&mut Local { file, length, at: 0 }, length);
    }
    with_volume(connection, path, lookup, |volume| {
        let length = view(volume)?.physical;
        f(&mut Download::new(connection, volume, length), length)
    })
}

/// Opens a regular file of this machine for reading; with its length.
pub(super) fn open_here(path: &str) -> libvirt::Result<(File, u64)> {
    // Looked at before: an open blocks on a FIFO, and some devices react to it.
    if !std::fs::metadata(path).map_err(|error| from_io(&error))?.is_file() {
        return Err(libvirt_error(ErrorCode::INVALID_ARG, "it is not a regular file"));
    }
    let file = File::options().read(true).custom_flags(O_NONBLOCK).open(path).map_err(|error| from_io(&error))?;
    let metadata = file.metadata().map_err(|error| from_io(&error))?;
    if !metadata.is_file() {
        return Err(libvirt_error(ErrorCode::INVALID_ARG, "it is not a regular file"));
    }
    Ok((file, metadata.len()))
}

/// Runs `f` with the volume at `path`: of a pool that has it, or of a passing pool over its directory.
pub(super) fn with_volume<T>(
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
        None => Err(libvirt_error(ErrorCode::NO_STORAGE_VOL, "there is no such file")),
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

/// What has arrived by an upload: its first bytes, read again, and the volume.
pub(super) fn arrived(
    connection: &Connect,
    pool: &Pool,
    volume: &Volume,
    length: u64,
) -> libvirt::Result<(Vec<u8>, VolumeView)> {
    let header = header_of(connection, volume, length)?;
    // The upload's end makes libvirt look at the pool again, but maybe not yet.
    when_idle(|| pool.refresh(0))?;
    Ok((header, view(&pool.volume_by_name(&volume.name())?)?))
}

pub(super) fn from_io(cause: &io::Error) -> libvirt::Error {
    let code = match cause.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => ErrorCode::NO_STORAGE_VOL,
        _ => ErrorCode::SYSTEM_ERROR,
    };
    libvirt_error(code, &cause.to_string())
}

/// Why a copy can't go on.
pub(super) fn failed(why: &str) -> libvirt::Error {
    libvirt_error(ErrorCode::OPERATION_FAILED, why)
}
