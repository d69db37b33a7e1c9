//! What a node has, read now: the files of its pools and its domains.

use crate::{ops::template::LOOKUP, seeds};
use futures::StreamExt;
use hypervisor::{
    ErrorKind, Node, Result,
    domain::{DomainText, Power},
    storage::VolumeView,
};
use std::collections::HashSet;
use uuid::Uuid;

/// Domains read from one node at a time.
const READS_AT_ONCE: usize = 3;

/// What a node has.
pub struct Survey {
    /// The node's name.
    pub node: String,
    /// The files of its active pools.
    pub files: Vec<FileSeen>,
    /// The pools that were looked at whole.
    pub pools: HashSet<Uuid>,
    /// Whether that of the seeds is among them.
    pub seeds: bool,
    /// The domains.
    pub domains: Vec<DomainText>,
    /// Whether there are no others.
    pub all_domains: bool,
    /// What could not be read and may refer to any file.
    pub unread: Vec<String>,
    /// What could not be read and may stand on an image.
    pub unread_images: Vec<String>,
}

/// A file of a pool.
pub struct FileSeen {
    /// The pool.
    pub pool: Uuid,
    /// Its name.
    pub pool_name: String,
    /// What libvirt tells of the file.
    pub view: VolumeView,
}

/// Looks at a node. One pool or domain that can't be read hides no other, but is noted: it may refer to what is there.
pub async fn survey(node: Node) -> Result<Survey> {
    let mut survey = Survey {
        node: node.name().to_owned(),
        files: Vec::new(),
        pools: HashSet::new(),
        seeds: false,
        domains: Vec::new(),
        all_domains: true,
        unread: Vec::new(),
        unread_images: Vec::new(),
    };
    // A passing pool shows what others have, or a directory that is nobody's pool.
    for pool in node.pools().await?.into_iter().filter(|pool| !pool.name.starts_with(LOOKUP)) {
        if !pool.active {
            survey.unread_images.push(format!("storage pool {} is not active: start it", pool.name));
            continue;
        }
        // libvirt remembers what was there, and what images stood on, when it last looked.
        match node.refresh_pool(pool.uuid).await {
            Ok(()) => {
                survey.pools.insert(pool.uuid);
                survey.seeds |= pool.name == seeds::POOL;
            }
            Err(error) if error.kind == ErrorKind::Unavailable => return Err(error),
            Err(error) => survey.unread_images.push(format!("storage pool {} can't be read: {error}", pool.name)),
        }
        let seen = |view| FileSeen { pool: pool.uuid, pool_name: pool.name.clone(), view };
        match node.volumes(pool.uuid).await {
            Ok(volumes) => survey.files.extend(volumes.into_iter().map(seen)),
            // Somebody has just taken it away.
            Err(error) if error.kind == ErrorKind::NotFound => drop(survey.pools.remove(&pool.uuid)),
            Err(error) => return Err(error),
        }
    }
    let domains = node.domains().await?;
    let reads = futures::stream::iter(domains).map(|status| {
        let node = &node;
        async move { (status.uuid, node.domain_text(status.uuid).await) }
    });
    let reads: Vec<_> = reads.buffer_unordered(READS_AT_ONCE).collect().await;
    for (id, read) in reads {
        match read {
            Ok(found) => survey.domains.extend(found),
            Err(error) if error.kind == ErrorKind::Unavailable => return Err(error),
            Err(error) => {
                survey.unread.push(format!("domain {id} can't be read: {error}"));
                survey.all_domains = false;
            }
        }
    }
    let outside: Vec<String> =
        survey.domains.iter().flat_map(|domain| outside_of_pools(domain, &survey.files)).collect();
    survey.unread_images.extend(outside);
    Ok(survey)
}

/// The images of a domain that lie in no pool, where what they stand on is told by nobody: libvirt tells it of what runs only.
fn outside_of_pools(domain: &DomainText, files: &[FileSeen]) -> Vec<String> {
    let told = |path: &str| {
        let runs =
            domain.power != Power::Off && domain.live.disks.iter().any(|disk| disk.path.as_deref() == Some(path));
        runs || files.iter().any(|file| file.view.path == path)
    };
    let images =
        domain.defined.disks.iter().filter(|disk| disk.format.as_deref().is_some_and(|format| format != "raw"));
    let paths = images.filter_map(|disk| disk.path.as_deref()).filter(|path| !told(path));
    let name = &domain.defined.name;
    paths
        .map(|path| {
            format!("{path} of domain {name} lies in no storage pool: make one over its directory, or start the domain")
        })
        .collect()
}
