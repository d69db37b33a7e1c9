//! Storage volumes.

use super::{
    copy::failed,
    image,
    pieces::{beginning, header_of, upload},
    pool::when_idle,
};
use crate::{
    ErrorKind, Node, Result,
    error::if_there,
    node::{SLOW, read_each},
    session::Session,
    xml::Xml,
};
use libvirt::{Connect, ErrorCode, Piece, Pool, Volume};
use roxmltree::Document;
use uuid::Uuid;

/// A volume of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeView {
    /// Its name in the pool: the file's name.
    pub name: String,
    /// Where it is on the node.
    pub path: String,
    /// `qcow2`, `raw`, `iso`, …
    pub format: String,
    /// Virtual size, in bytes.
    pub capacity: u64,
    /// What it takes in the pool, in bytes.
    pub allocation: u64,
    /// The file's length, in bytes.
    pub physical: u64,
    /// The image that it stands on.
    pub backing: Option<String>,
}

/// The image that an overlay is to stand on.
#[derive(Debug, Clone)]
pub struct Backing {
    /// Where it is on the node.
    pub path: String,
    /// `qcow2` or `raw`. Always said: a guest could write a qcow2 header into a raw image and so read any file.
    pub format: String,
}

impl Backing {
    /// A qcow2 image.
    pub fn qcow2(path: impl Into<String>) -> Backing {
        Backing { path: path.into(), format: "qcow2".to_owned() }
    }
}

/// An image that another one stands on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layer {
    /// A volume of a pool.
    Volume(VolumeView),
    /// A file outside of all pools, by its path.
    Unknown(String),
}

impl Layer {
    /// Where it is on the node.
    pub fn path(&self) -> &str {
        match self {
            Layer::Volume(volume) => &volume.path,
            Layer::Unknown(path) => path,
        }
    }
}

/// The most images that are followed down: more than QEMU opens.
const LAYERS_MAX: usize = 200;

impl Node {
    /// All volumes of an active pool, as of libvirt's last look (files that came by themselves may be missing).
    pub async fn volumes(&self, pool: Uuid) -> Result<Vec<VolumeView>> {
        self.ask(&format!("list the volumes of pool {pool}"), move |connection| {
            let pool = connection.pool(pool)?;
            read_each(|| connection.is_alive(), &pool.volumes()?, view)
        })
        .await
    }

    /// The names of all volumes that begin with `prefix`, as of now.
    pub async fn volume_names(&self, pool: Uuid, prefix: &str) -> Result<Vec<String>> {
        let wanted = prefix.to_owned();
        self.change(SLOW, &format!("list the volumes {prefix}* of pool {pool}"), move |connection| {
            let pool = connection.pool(pool)?;
            when_idle(|| pool.refresh(0))?;
            Ok(pool.volumes()?.iter().map(Volume::name).filter(|name| name.starts_with(&wanted)).collect())
        })
        .await
    }

    /// The name of the pool that has a volume at this path.
    pub async fn pool_with(&self, path: &str) -> Result<Option<String>> {
        let wanted = path.to_owned();
        let found = self
            .ask(&format!("look for volume {path}"), move |connection| {
                Ok(connection.volume_by_path(&wanted)?.pool()?.name())
            })
            .await;
        if_there(found)
    }

    /// Makes a qcow2 overlay of `capacity` bytes over `backing`; returns its path.
    pub async fn create_overlay(&self, pool: Uuid, name: &str, capacity: u64, backing: &Backing) -> Result<String> {
        self.create_image(pool, name, "qcow2", capacity, Some(backing)).await
    }

    /// Makes a blank volume of `capacity` bytes; returns its path. `format` is `qcow2` or `raw`, which takes no space before it is
    /// written to.
    pub async fn create_blank(&self, pool: Uuid, name: &str, format: &str, capacity: u64) -> Result<String> {
        self.create_image(pool, name, format, capacity, None).await
    }

    async fn create_image(
        &self,
        pool: Uuid,
        name: &str,
        format: &str,
        capacity: u64,
        backing: Option<&Backing>,
    ) -> Result<String> {
        let xml = image_xml(name, format, capacity, backing);
        self.change(SLOW, &format!("make volume {name}"), move |connection| {
            let pool = connection.pool(pool)?;
            let volume = when_idle(|| pool.create_volume(&xml, 0))?;
            // A file's key is its path, and has come with it.
            match volume.key() {
                key if key.starts_with('/') => Ok(key),
                _ => volume.path(),
            }
        })
        .await
    }

    /// Makes a raw volume of these bytes.
    pub async fn create_from_bytes(&self, pool: Uuid, name: &str, mut bytes: Vec<u8>) -> Result<VolumeView> {
        let wanted = name.to_owned();
        self.bulk(SLOW, &format!("write volume {name}"), move |connection| {
            let pool = connection.pool(pool)?;
            let length = bytes.len() as u64;
            // Its room is taken at once: the upload can't run out of it (see `create_for_copy`).
            let volume = create_raw(&pool, &wanted, length, length, "0600")?;
            upload(connection, &volume, length, &|_| true, |buffer| {
                *buffer = std::mem::take(&mut bytes);
                Ok(Piece::Data(buffer.len()))
            })?;
            view(&volume)
        })
        .await
    }

    /// Gives the image of a volume that nobody uses `bytes` bytes, which must be more than it has. What libvirt takes its
    /// format for must be what it is: a guest may have written another format's header into a raw image.
    pub async fn resize_volume(&self, pool: Uuid, name: &str, format: &str, bytes: u64) -> Result<()> {
        let (doing, wanted, known) = (format!("resize volume {name}"), name.to_owned(), format.to_owned());
        let resized = self.change(SLOW, &doing, move |connection| {
            let volume = find(&active(connection, pool)?, &wanted)?;
            let now = view(&volume)?;
            if now.format != known {
                return Ok(Some(now.format));
            }
            if now.capacity < bytes {
                when_idle(|| volume.resize(bytes, 0))?;
            }
            Ok(None)
        });
        match resized.await? {
            None => Ok(()),
            Some(seen) => {
                let why = format!("its content looks like {seen}, and it is {format}");
                Err(self.error(ErrorKind::Refused, &doing, &why))
            }
        }
    }

    /// The path of the image that a volume stands on, by its header as it is now: what libvirt tells of it ([`VolumeView`]) is
    /// of its last look at the whole pool.
    pub async fn backing_file(&self, pool: Uuid, name: &str) -> Result<Option<String>> {
        let wanted = name.to_owned();
        let doing = format!("read the header of volume {name}");
        let read = self.bulk(SLOW, &doing, move |connection| {
            let pool = connection.pool(pool)?;
            stands_on(connection, &pool.volume_by_name(&wanted)?)
        });
        read.await
    }

    /// All of a small volume, at most 16 MiB.
    pub async fn read_small(&self, pool: Uuid, name: &str) -> Result<Vec<u8>> {
        let (wanted, doing) = (name.to_owned(), format!("read volume {name}"));
        let read = self.bulk(SLOW, &doing, move |connection| {
            let volume = connection.pool(pool)?.volume_by_name(&wanted)?;
            let length = view(&volume)?.physical;
            match length <= SMALL_BYTES {
                true => beginning(connection, &volume, length, SMALL_BYTES as usize),
                false => Err(failed(&format!("it has {length} bytes, more than {SMALL_BYTES}"))),
            }
        });
        read.await
    }

    /// Whether the volume of this name is an ISO 9660 image, by its first volume descriptor (ECMA-119, 8.1); `None` when there
    /// is no such volume.
    pub async fn is_iso(&self, pool: Uuid, name: &str) -> Result<Option<bool>> {
        let wanted = name.to_owned();
        let doing = format!("read the beginning of volume {name}");
        let read = self.bulk(SLOW, &doing, move |connection| {
            let volume = connection.pool(pool)?.volume_by_name(&wanted)?;
            let ((start, mark), length) = (ISO_MARK, view(&volume)?.physical);
            Ok(beginning(connection, &volume, length, start + mark.len())?.get(start..) == Some(mark))
        });
        if_there(read.await)
    }

    /// The images below the one at `path`, the nearest first, by their headers as they are now. The last one may lie
    /// outside of all pools, where nothing more is known of it.
    pub async fn backing_chain(&self, path: &str) -> Result<Vec<Layer>> {
        let first = path.to_owned();
        let doing = format!("read what {path} stands on");
        let read = self.bulk(SLOW, &doing, move |connection| {
            let mut layers = Vec::new();
            let top = connection.volume_by_path(&first)?;
            let mut below = stands_on(connection, &top)?;
            while let Some(path) = below.take().filter(|_| layers.len() < LAYERS_MAX) {
                match connection.volume_by_path(&path) {
                    Ok(volume) => {
                        below = stands_on(connection, &volume)?;
                        layers.push(Layer::Volume(view(&volume)?));
                    }
                    Err(error) if error.code == ErrorCode::NO_STORAGE_VOL => layers.push(Layer::Unknown(path)),
                    Err(error) => return Err(error),
                }
            }
            Ok(layers)
        });
        read.await
    }

    /// Deletes a volume; returns whether there was one. The caller has made sure that nothing stands on it: libvirt
    /// would delete the disk of a running VM. A pool that is not there is an error: its files may be.
    pub async fn delete_volume(&self, pool: Uuid, name: &str) -> Result<bool> {
        let wanted = name.to_owned();
        self.change(SLOW, &format!("delete volume {name}"), move |connection| {
            let pool = active(connection, pool)?;
            let deleted = find(&pool, &wanted).and_then(|volume| when_idle(|| volume.delete(0)));
            match deleted {
                Ok(()) => Ok(true),
                Err(error) if error.code == ErrorCode::NO_STORAGE_VOL => Ok(false),
                Err(error) => Err(error),
            }
        })
        .await
    }

    /// Deletes all volumes whose names begin with `prefix`, files that libvirt hasn't seen yet included; returns how many.
    pub async fn delete_volumes(&self, pool: Uuid, prefix: &str) -> Result<usize> {
        let wanted = prefix.to_owned();
        self.change(SLOW, &format!("delete volumes {prefix}*"), move |connection| {
            let pool = active(connection, pool)?;
            when_idle(|| pool.refresh(0))?;
            let volumes = pool.volumes()?;
            let ours: Vec<_> = volumes.iter().filter(|volume| volume.name().starts_with(&wanted)).collect();
            for volume in &ours {
                match when_idle(|| volume.delete(0)) {
                    Err(error) if error.code == ErrorCode::NO_STORAGE_VOL => {}
                    done => done?,
                }
            }
            Ok(ours.len())
        })
        .await
    }
}

/// What a volume's header says that it stands on.
pub(crate) fn stands_on(connection: &Connect, volume: &Volume) -> libvirt::Result<Option<String>> {
    let header = header_of(connection, volume, view(volume)?.physical)?;
    image::backing_file(&header).map_err(|why| failed(&format!("{}: {why}", volume.name())))
}

/// The most that a small volume has, in bytes.
const SMALL_BYTES: u64 = 16 << 20;

/// Where an ISO 9660 image says that it is one.
const ISO_MARK: (usize, &[u8]) = (16 * 2048 + 1, b"CD001");

/// The pool, started when it is inactive: a volume in it can't be told from one that is gone otherwise.
fn active(connection: &Session, pool: Uuid) -> libvirt::Result<Pool> {
    let pool = connection.pool(pool)?;
    if !pool.is_active()? {
        pool.start(0)?;
    }
    Ok(pool)
}

/// The volume of this name, looked for on the disk when libvirt doesn't know it (it was made by a libvirtd that died).
pub(super) fn find(pool: &Pool, name: &str) -> libvirt::Result<Volume> {
    match pool.volume_by_name(name) {
        Err(error) if error.code == ErrorCode::NO_STORAGE_VOL => {
            when_idle(|| pool.refresh(0))?;
            pool.volume_by_name(name)
        }
        found => found,
    }
}

/// Makes an empty raw volume, to be written by an upload of so many bytes, of which holes will take no room.
///
/// There must be room for all of them, as of now: when an upload finds none, libvirt 9.0 makes an error of it, but 11.3 frees
/// something twice in its main thread, and libvirtd ends or hangs, for all who use the node. What libvirt says is free is of its
/// last look at the pool.
pub(super) fn create_for_copy(pool: &Pool, name: &str, length: u64, mode: &str) -> libvirt::Result<Volume> {
    when_idle(|| pool.refresh(0))?;
    let free = pool.info()?.available;
    if free < length {
        return Err(failed(&format!(
            "No space left on device: {free} bytes are free in the pool, {length} are to be written"
        )));
    }
    create_raw(pool, name, length, 0, mode)
}

/// Makes a raw volume, to be written by an upload, with room taken for the first `allocated` bytes.
fn create_raw(pool: &Pool, name: &str, capacity: u64, allocated: u64, mode: &str) -> libvirt::Result<Volume> {
    let mut xml = Xml::new();
    xml.nest("volume", &[], |xml| {
        xml.text("name", &[], name);
        xml.text("capacity", &[("unit", "bytes")], &capacity.to_string());
        xml.text("allocation", &[("unit", "bytes")], &allocated.to_string());
        xml.nest("target", &[], |xml| {
            xml.empty("format", &[("type", "raw")]);
            xml.nest("permissions", &[], |xml| xml.text("mode", &[], mode));
        });
    });
    let xml = xml.finish().unwrap_or_default();
    when_idle(|| pool.create_volume(&xml, 0))
}

fn image_xml(name: &str, format: &str, capacity: u64, backing: Option<&Backing>) -> String {
    let mut xml = Xml::new();
    xml.nest("volume", &[], |xml| {
        xml.text("name", &[], name);
        xml.text("capacity", &[("unit", "bytes")], &capacity.to_string());
        xml.text("allocation", &[("unit", "bytes")], "0");
        xml.nest("target", &[], |xml| {
            xml.empty("format", &[("type", format)]);
            if format == "qcow2" {
                xml.text("compat", &[], "1.1");
            }
            xml.nest("permissions", &[], |xml| xml.text("mode", &[], "0600"));
        });
        if let Some(backing) = backing {
            xml.nest("backingStore", &[], |xml| {
                xml.text("path", &[], &backing.path);
                xml.empty("format", &[("type", &backing.format)]);
            });
        }
    });
    xml.finish().unwrap_or_default()
}

pub(super) fn view(volume: &Volume) -> libvirt::Result<VolumeView> {
    let xml = volume.xml()?;
    let document = Document::parse(&xml).ok();
    let root = document.as_ref().map(|document| document.root_element());
    let child = |name: &str| root.and_then(|root| root.children().find(|node| node.has_tag_name(name)));
    let number = |name: &str| child(name).and_then(|node| node.text()?.trim().parse::<u64>().ok());
    let inside =
        |parent: &str, name: &str| child(parent).and_then(|node| node.children().find(|node| node.has_tag_name(name)));
    let (capacity, allocation) = (number("capacity").unwrap_or(0), number("allocation").unwrap_or(0));
    Ok(VolumeView {
        name: volume.name(),
        path: match inside("target", "path").and_then(|node| node.text()) {
            Some(path) => path.to_owned(),
            None => volume.path()?,
        },
        format: inside("target", "format").and_then(|node| node.attribute("type")).unwrap_or("raw").to_owned(),
        capacity,
        allocation,
        physical: number("physical").unwrap_or(allocation),
        backing: inside("backingStore", "path").and_then(|node| node.text()).map(str::to_owned),
    })
}
