//! Storage pools.

use crate::{
    Node, Result,
    error::{again_while, if_there},
    node::{QUICK, SLOW, read_each},
    xml::Xml,
};
use libvirt::{ErrorCode, Pool};
use roxmltree::Document;
use std::{path::Path, time::Duration};
use uuid::Uuid;

/// A pool of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolView {
    /// Its UUID.
    pub uuid: Uuid,
    /// Its name.
    pub name: String,
    /// `dir`, `fs`, `netfs`, `logical`, …
    pub kind: String,
    /// Whether it is active.
    pub active: bool,
    /// Where it is on the node.
    pub path: Option<String>,
    /// Size, in bytes.
    pub capacity: u64,
    /// Used, in bytes.
    pub allocation: u64,
    /// Free, in bytes.
    pub available: u64,
}

impl PoolView {
    /// Where a volume of this name lies on the node.
    pub fn path_of(&self, file: &str) -> String {
        format!("{}/{file}", self.path.as_deref().unwrap_or_default())
    }

    /// Whether the pool holds files, so that qcow2 overlays can be made in it.
    pub fn holds_files(&self) -> bool {
        matches!(self.kind.as_str(), "dir" | "fs" | "netfs")
    }
}

impl Node {
    /// All pools of the node.
    pub async fn pools(&self) -> Result<Vec<PoolView>> {
        self.ask("list storage pools", |connection| read_each(|| connection.is_alive(), &connection.pools(0)?, view))
            .await
    }

    /// The pool of this name or UUID; `None` when there is none.
    pub async fn pool(&self, reference: &str) -> Result<Option<PoolView>> {
        let wanted = reference.to_owned();
        let found = self
            .ask(&format!("read storage pool {reference}"), move |connection| {
                let pool = match Uuid::try_parse(&wanted) {
                    Ok(uuid) => connection.pool(uuid)?,
                    Err(_) => connection.pool_by_name(&wanted)?,
                };
                view(&pool)
            })
            .await;
        if_there(found)
    }

    /// Makes libvirt look at a pool's files again.
    pub async fn refresh_pool(&self, pool: Uuid) -> Result<()> {
        self.change(SLOW, &format!("refresh storage pool {pool}"), move |connection| {
            let pool = connection.pool(pool)?;
            when_idle(|| pool.refresh(0))
        })
        .await
    }

    /// Makes a pool of this name as a directory at `path`, where there is none. One that is there is left as it is: an
    /// inactive one may have been stopped on purpose.
    pub async fn ensure_pool(&self, name: &str, path: &str) -> Result<()> {
        let (name, path) = (name.to_owned(), path.to_owned());
        self.change(QUICK, &format!("make storage pool {name}"), move |connection| {
            match connection.pool_by_name(&name) {
                Err(error) if error.code == ErrorCode::NO_STORAGE_POOL => {}
                found => return found.map(|_| ()),
            }
            let pool = connection.define_pool(&dir_xml(&name, &path))?;
            pool.set_autostart(true)?;
            // Builds the directory when it isn't there.
            let how = if Path::new(&path).exists() { 0 } else { libvirt::flags::POOL_START_WITH_BUILD };
            pool.start(how).or_else(|_| pool.start(libvirt::flags::POOL_START_WITH_BUILD))
        })
        .await
    }
}

/// The XML of a pool that is a directory.
pub(super) fn dir_xml(name: &str, path: &str) -> String {
    let mut xml = Xml::new();
    xml.nest("pool", &[("type", "dir")], |xml| {
        xml.text("name", &[], name);
        xml.nest("target", &[], |xml| {
            xml.text("path", &[], path);
            // Guests' QEMU must be able to pass through to its images, and nobody to list them.
            xml.nest("permissions", &[], |xml| xml.text("mode", &[], "0711"));
        });
    });
    xml.finish().unwrap_or_default()
}

fn view(pool: &Pool) -> libvirt::Result<PoolView> {
    let xml = pool.xml(0)?;
    let info = pool.info()?;
    let document = Document::parse(&xml).ok();
    let root = document.as_ref().map(|document| document.root_element());
    Ok(PoolView {
        uuid: Uuid::from_bytes(pool.uuid()),
        name: pool.name(),
        kind: root.and_then(|root| root.attribute("type")).unwrap_or_default().to_owned(),
        active: pool.is_active()?,
        path: root.and_then(|root| {
            let target = root.children().find(|node| node.has_tag_name("target"))?;
            let path = target.children().find(|node| node.has_tag_name("path"))?;
            path.text().map(str::to_owned)
        }),
        capacity: info.capacity,
        allocation: info.allocation,
        available: info.available,
    })
}

/// Repeats a call on a pool that fails because libvirt is at work in it ("asynchronous jobs running"): another volume
/// is being uploaded, for the most part, which takes a moment.
pub(super) fn when_idle<T>(f: impl Fn() -> libvirt::Result<T>) -> libvirt::Result<T> {
    again_while("asynchronous jobs running", Duration::from_secs(30), f)
}
