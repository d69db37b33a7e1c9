//! Whether a node has room for a VM: what runs there, what is promised to VMs about to start, and what is left.

use crate::{App, Error, Result, config::NodeSettings, sync::lock};
use api::plan::PlannedAdmission;
use hypervisor::{Facts, Node};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};
use uuid::Uuid;

/// How long a call waits for a node's first list of VMs.
const LISTED: Duration = Duration::from_secs(3);

/// What is promised to VMs that don't run yet, or are about to grow.
#[derive(Clone, Default)]
pub struct Admission {
    promised: Arc<Mutex<HashMap<Uuid, Promise>>>,
}

#[derive(Clone)]
struct Promise {
    node: String,
    vcpus: u32,
    memory_mib: u64,
}

/// A node's room, in virtual CPUs and MiB of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Reserved virtual CPUs.
    pub used_vcpus: u32,
    /// Reserved memory.
    pub used_memory_mib: u64,
    /// Virtual CPUs that are left.
    pub free_vcpus: u32,
    /// Memory that is left.
    pub free_memory_mib: u64,
}

/// Room that is kept for a VM until this is dropped. From then on the VM counts only when it runs.
pub struct Reservation {
    promises: Admission,
    vm: Uuid,
    /// What was asked for, and what was free.
    pub admission: PlannedAdmission,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        lock(&self.promises.promised).remove(&self.vm);
    }
}

impl Admission {
    /// Whether room is kept on a node: a VM is about to run there, or to be made.
    pub fn keeps_room_on(&self, node: &str) -> bool {
        lock(&self.promised).values().any(|promise| promise.node == node)
    }

    /// A copy that is nobody else's, for a plan.
    pub fn detached(&self) -> Admission {
        Admission { promised: Arc::new(Mutex::new(lock(&self.promised).clone())) }
    }
}

/// A node's room now.
pub fn room(app: &App, node: &Node) -> Result<Room> {
    let facts = node.known_facts("tell its capacity")?;
    let promised = lock(&app.admission.promised);
    Ok(room_with(app, node.name(), &facts, &promised))
}

/// Waits a little until a node's VMs have been listed, which they are right after it was reached: before that nobody knows what
/// is free there.
pub async fn wait_until_listed(app: &App, node: &Node, patience: Duration) {
    let mut changes = app.index.changes();
    let listed = async { while app.index.node(node.name()).scanned_at.is_none() && changes.changed().await.is_ok() {} };
    let _ = tokio::time::timeout(patience, listed).await;
}

/// Keeps room for a VM on a node, or says what is asked for and what is free. Two calls can't both get the last of it. A
/// VM that is on has room already, and asks for the difference.
pub async fn reserve(app: &App, node: &Node, vm: Uuid, vcpus: u32, memory_mib: u64) -> Result<Reservation> {
    let facts = node.known_facts("tell its capacity")?;
    wait_until_listed(app, node, LISTED).await;
    if app.index.node(node.name()).scanned_at.is_none() {
        // What runs there isn't known yet: an empty-looking node may be full.
        return Err(node.unavailable("tell its free capacity", "its VMs have not been listed yet").into());
    }
    let mut promised = lock(&app.admission.promised);
    let room = room_with(app, node.name(), &facts, &promised);
    let has = app.index.get(vm).and_then(|entry| entry.reserves());
    let (has_vcpus, has_memory_mib) = has.unwrap_or_default();
    let (more_vcpus, more_memory_mib) = (vcpus.saturating_sub(has_vcpus), memory_mib.saturating_sub(has_memory_mib));
    let more = if has.is_some() { "more " } else { "" };
    if more_memory_mib > room.free_memory_mib {
        return Err(Error::NoCapacity(format!(
            "node {} has {} MiB of memory free, {more_memory_mib} MiB {more}are asked for",
            node.name(),
            room.free_memory_mib
        )));
    }
    if more_vcpus > room.free_vcpus {
        return Err(Error::NoCapacity(format!(
            "node {} has {} virtual CPUs free, {more_vcpus} {more}are asked for",
            node.name(),
            room.free_vcpus
        )));
    }
    promised.insert(vm, Promise { node: node.name().to_owned(), vcpus, memory_mib });
    let admission = PlannedAdmission {
        vcpus: more_vcpus,
        memory_mib: more_memory_mib,
        free_vcpus: room.free_vcpus,
        free_memory_mib: room.free_memory_mib,
    };
    Ok(Reservation { promises: app.admission.clone(), vm, admission })
}

fn room_with(app: &App, node: &str, facts: &Facts, promised: &HashMap<Uuid, Promise>) -> Room {
    let (mut used_vcpus, mut used_memory_mib) = (0u32, 0u64);
    let mut on = HashMap::new();
    app.index.each(|id, entry| {
        if entry.node != node {
            return;
        }
        if let Some((vcpus, memory)) = entry.reserves() {
            used_vcpus = used_vcpus.saturating_add(vcpus);
            used_memory_mib = used_memory_mib.saturating_add(memory);
            on.insert(id, (vcpus, memory));
        }
    });
    // A VM that has just started counts once, and one that is about to grow as the larger that it will be.
    for (vm, promise) in promised.iter().filter(|(_, promise)| promise.node == node) {
        let (vcpus, memory) = on.get(vm).copied().unwrap_or_default();
        used_vcpus = used_vcpus.saturating_add(promise.vcpus.saturating_sub(vcpus));
        used_memory_mib = used_memory_mib.saturating_add(promise.memory_mib.saturating_sub(memory));
    }
    let (all_vcpus, all_memory_mib) = limits(app.nodes.find(node).map(|member| member.settings), facts);
    Room {
        used_vcpus,
        used_memory_mib,
        free_vcpus: all_vcpus.saturating_sub(used_vcpus),
        free_memory_mib: all_memory_mib.saturating_sub(used_memory_mib),
    }
}

/// How much may be reserved on a node at all; nothing on one that was taken away.
fn limits(settings: Option<NodeSettings>, facts: &Facts) -> (u32, u64) {
    let Some(settings) = settings else { return (0, 0) };
    let vcpus = (f64::from(facts.cpus) * settings.cpu_overcommit) as u32;
    let memory = (facts.memory_mib as f64 * settings.memory_overcommit) as u64;
    (vcpus, memory.saturating_sub(settings.reserved_memory_mib))
}
