//! Finding the node for a new VM: the named one, or of the enabled ones the one with the most free memory that has what
//! the VM needs.

use super::{
    is_up,
    nics::{Nics, choose_nics},
};
use crate::{
    App, Error, Result,
    admission::{self, Reservation},
    nodes::Member,
    ops::{copies, find},
    seeds,
    store::{CopyRecord, TemplateRecord},
};
use api::vm::{CreateVm, Firmware};
use hypervisor::{ErrorKind, Facts, Node, storage::PoolView};
use std::{cmp::Reverse, time::Duration};
use uuid::Uuid;

/// How long one of several nodes has to say whether it will do.
const ASK: Duration = Duration::from_secs(5);
/// How many nodes an error names.
const NAMED: usize = 5;

/// A place for a VM: everything that it needs on a node, looked up, and room kept for it.
pub(super) struct Place {
    pub(super) node: Node,
    pub(super) facts: Facts,
    pub(super) pool: PoolView,
    pub(super) seeds: PoolView,
    pub(super) nics: Nics,
    /// Where the template's image is.
    pub(super) image: Option<copies::Image>,
    /// The path of the ISO image.
    pub(super) iso: Option<String>,
    pub(super) reservation: Reservation,
}

/// The place for a VM that is about to be made.
pub(super) async fn place(app: &App, vm: Uuid, request: &CreateVm, template: Option<&TemplateRecord>) -> Result<Place> {
    let copies = match template {
        Some(template) => app.store.template_copies(Some(template.id)).await?,
        None => Vec::new(),
    };
    let candidates = candidates(app, request.node.as_deref(), &copies)?;
    let several = candidates.len() > 1;
    let mut refusals = Vec::new();
    for node in candidates {
        let asked = on(app, &node, vm, request, template, &copies);
        let answer = match several {
            false => asked.await,
            true => tokio::time::timeout(ASK, asked)
                .await
                .unwrap_or_else(|_| Err(node.unavailable("make a VM", "it does not answer").into())),
        };
        match answer {
            Ok(place) => return Ok(place),
            Err(error) => refusals.push((node.name().to_owned(), error)),
        }
    }
    Err(none_will_do(refusals))
}

/// The nodes to try, the best first. Those that are up come first: one that has just been lost has a moment to come
/// back, when no other will do.
fn candidates(app: &App, reference: Option<&str>, copies: &[CopyRecord]) -> Result<Vec<Node>> {
    if let Some(reference) = reference {
        let member = app.member(reference)?;
        if !member.enabled {
            return Err(Error::WrongState {
                detail: format!("node {} is disabled: no new VM is placed on it", member.node.name()),
                hint: Some("enable it (enable-node), or leave node out".to_owned()),
            });
        }
        return Ok(vec![member.node]);
    }
    let will_do = |member: &Member| member.enabled && app.nodes.same_host(member).is_none();
    let enabled = app.nodes.all().into_iter().filter(will_do);
    let mut nodes: Vec<Node> = enabled.map(|member| member.node).collect();
    if nodes.is_empty() {
        return Err(Error::WrongState {
            detail: "no node is enabled".to_owned(),
            hint: Some("list-nodes shows them; add one (add-node) or enable one (enable-node)".to_owned()),
        });
    }
    nodes.sort_by_cached_key(|node| {
        let free = admission::room(app, node).map_or(0, |room| room.free_memory_mib);
        Reverse((is_up(node), free, copies.iter().any(|copy| copy.node == node.name())))
    });
    Ok(nodes)
}

/// The place on this node, or why it won't do.
async fn on(
    app: &App,
    node: &Node,
    vm: Uuid,
    request: &CreateVm,
    template: Option<&TemplateRecord>,
    copies: &[CopyRecord],
) -> Result<Place> {
    node.wait_until_up("make a VM").await?;
    let facts = node.known_facts("make a VM")?;
    if facts.arch != "x86_64" {
        return Err(Error::Unsupported {
            detail: format!("node {} is of the architecture {}; only x86_64 is supported", node.name(), facts.arch),
            hint: None,
        });
    }
    if request.firmware == Firmware::Uefi && !facts.uefi {
        return Err(Error::Unsupported {
            detail: format!("node {} has no UEFI firmware for guests", node.name()),
            hint: Some("install the package ovmf on it (edk2-ovmf on Fedora and its like), or ask for bios".to_owned()),
        });
    }
    let reservation = admission::reserve(app, node, vm, request.vcpus, request.memory_mib).await?;
    let image = async {
        match template {
            Some(template) => copies::find(app, node, template, copies).await.map(Some),
            None => Ok(None),
        }
    };
    let iso = async {
        match &request.iso {
            Some(iso) => crate::ops::iso::find(app, node, iso, request.iso_pool.as_deref()).await.map(Some),
            None => Ok(None),
        }
    };
    let (pool, seeds, nics, image, iso) = tokio::join!(
        find::pool_on(node, request.pool.as_deref()),
        seeds::pool(node),
        choose_nics(app, node, request.networks.as_deref()),
        image,
        iso,
    );
    let (pool, seeds, nics, image, iso) = (pool?, seeds?, nics?, image?, iso?);
    let to_copy = image.as_ref().map_or(0, copies::Image::to_copy);
    if pool.available < to_copy {
        return Err(Error::NoCapacity(format!(
            "storage pool {} on node {} has {} bytes free, the image of template {} has {to_copy}",
            pool.name,
            node.name(),
            pool.available,
            template.map_or("?", |template| &template.name),
        )));
    }
    Ok(Place { node: node.clone(), facts, pool, seeds, nics, image, iso, reservation })
}

/// Why none of several nodes will do; of the only one, its own reason.
fn none_will_do(mut refusals: Vec<(String, Error)>) -> Error {
    // What kind of failure it is as a whole: a lack of room before a lack of something else, and only in the end that
    // nodes are away.
    refusals.sort_by_key(|(_, error)| match error {
        Error::NoCapacity(_) => 0,
        Error::Node(error) if error.kind == ErrorKind::Unavailable => 2,
        _ => 1,
    });
    let same = refusals.windows(2).all(|pair| pair[0].1.to_string() == pair[1].1.to_string());
    let named: Vec<String> = refusals.iter().take(NAMED).map(|(node, error)| format!("{node}: {error}")).collect();
    let more = refusals.len().saturating_sub(NAMED);
    let and_more = if more > 0 { format!("; and {more} more") } else { String::new() };
    match refusals.into_iter().next() {
        Some((_, error)) if same => error,
        Some((_, error)) => {
            Error::NoNode { why: Box::new(error), detail: format!("no node will do ({}{and_more})", named.join("; ")) }
        }
        None => Error::Internal("no node was asked for a place".to_owned()),
    }
}
