//! Nodes.

use super::page;
use crate::{
    App, Context, Error, Result, admission,
    config::{NodeSettings, VirtTypeName},
    nodes::Member,
    store::{CopyRecord, NodeRecord, name_key},
    task::{Held, Lock, Outline, Work},
};
use api::{
    Page, Rpc, Time,
    node::{
        self, AddNode, DeleteNode, DeletedNode, DescribeNode, DisableNode, EnableNode, ListNodes, NodeState, Nodes,
        VirtType,
    },
    task::{Target, TaskState},
};
use hypervisor::Status;
use std::time::Duration;

/// How long a new node has to be reached.
const REACH: Duration = Duration::from_secs(15);

/// `list-nodes`
pub async fn list(context: Context, request: ListNodes) -> Result<Nodes> {
    let rows = context.app.nodes.all().iter().map(|member| to_wire(&context.app, member)).collect();
    let page = Page { limit: request.limit, cursor: request.cursor };
    let cut = page::cut(rows, &page, |node| node.name.clone())?;
    Ok(Nodes { nodes: cut.rows, next_cursor: cut.next_cursor, total: cut.total })
}

/// `describe-node`
pub async fn describe(context: Context, request: DescribeNode) -> Result<node::Node> {
    named(&context.app, &request.node)
}

/// `add-node`
pub async fn add(context: Context, request: AddNode) -> Result<Work<node::Node>> {
    let app = &context.app;
    let settings = settings(&request);
    settings.check().map_err(|(key, why)| Error::field(key, why))?;
    if app.nodes.find(&request.name).is_some() {
        return Err(Error::exists("node", &request.name));
    }
    let being_added = || Error::Busy { detail: "the same node is being added".to_owned(), task: None };
    let name_claim = app.claims.claim(&format!("node {}", name_key(&request.name))).ok_or_else(being_added)?;
    // What it tells before it is known is dropped.
    let member = Member::connect(&request.name, settings, app.installation, app.node_events.clone())?;
    let facts = member.node.reach(REACH).await.map_err(Error::NotAdded)?;
    let host = facts.host_uuid;
    let host_claim = app.claims.claim(&format!("host {host}")).ok_or_else(being_added)?;
    if let Some(other) = app.nodes.find(&host.to_string()) {
        return Err(Error::field(
            "uri",
            format!("leads to the host {host}, which is node {} already", other.node.name()),
        ));
    }
    let settings = member.settings.clone();
    let record = NodeRecord { id: host, name: request.name, settings, created_at: Time::now() };
    let outline = Outline::of(&["record-node"]).on(&member.node);
    Ok(Work::new(target(&member), Vec::new(), outline, move |task| async move {
        let _claims = (name_claim, host_claim);
        let app = &task.app;
        task.last_step("record-node", None, app.store.insert_node(&record, task.id)).await?;
        app.index.add_node(&record.name);
        app.nodes.insert(member.clone());
        // So that it can be used as soon as the answer is there.
        admission::wait_until_listed(app, &member.node, REACH).await;
        Ok(to_wire(app, &member))
    }))
}

fn settings(request: &AddNode) -> NodeSettings {
    let mut settings = NodeSettings::at(&request.uri);
    settings.virt_type = match request.virt_type {
        None => VirtTypeName::Auto,
        Some(VirtType::Kvm) => VirtTypeName::Kvm,
        Some(VirtType::Qemu) => VirtTypeName::Qemu,
    };
    settings.cpu_overcommit = request.cpu_overcommit.unwrap_or(settings.cpu_overcommit);
    settings.memory_overcommit = request.memory_overcommit.unwrap_or(settings.memory_overcommit);
    settings.reserved_memory_mib = request.reserved_memory_mib.unwrap_or(settings.reserved_memory_mib);
    settings.default_pool_path = request.default_pool_path.clone().unwrap_or(settings.default_pool_path);
    settings.seed_pool_path = request.seed_pool_path.clone().unwrap_or(settings.seed_pool_path);
    settings
}

/// `enable-node`
pub async fn enable(context: Context, request: EnableNode) -> Result<Work<node::Node>> {
    set_enabled(&context, &request.node, true)
}

/// `disable-node`
pub async fn disable(context: Context, request: DisableNode) -> Result<Work<node::Node>> {
    set_enabled(&context, &request.node, false)
}

fn set_enabled(context: &Context, reference: &str, enabled: bool) -> Result<Work<node::Node>> {
    let member = context.app.member(reference)?;
    let step = if enabled { "enable-node" } else { "disable-node" };
    let outline = Outline::of(&[step]).on(&member.node);
    Ok(Work::new(target(&member), Vec::new(), outline, move |task| async move {
        let (app, name) = (&task.app, member.node.name());
        task.last_step(step, None, app.store.set_node_enabled(name, enabled)).await?;
        app.nodes.set_enabled(name, enabled);
        Ok(to_wire(app, &app.member(name)?))
    }))
}

/// `delete-node`
pub async fn delete(context: Context, request: DeleteNode) -> Result<Work<DeletedNode>> {
    let member = context.app.member(&request.node)?;
    let all = request.forget_vms;
    may_go(&context.app, &member, all).await?;
    let (held, forgotten) = if all { take_vms(&context, &member).await? } else { (Vec::new(), Vec::new()) };
    let outline = Outline::of(&["forget-node"]).on(&member.node);
    Ok(Work::new(target(&member), held, outline, move |task| async move {
        let (app, name) = (&task.app, member.node.name());
        task.last_step("forget-node", None, async {
            // Again, since a call may have ended meanwhile that began before the node was disabled.
            may_go(app, &member, all).await?;
            match app.store.forget_node(name, all).await? {
                true => Ok(()),
                false => Err(Error::InUse(format!(
                    "volumes or snapshots of Vmyard's are on node {name}; delete them first (list-volumes, and list-snapshots \
                     of VMs that are gone, by their ids)"
                ))),
            }
        })
        .await?;
        app.nodes.remove(name);
        app.index.forget_node(name);
        Ok(DeletedNode { id: member.node.host_uuid(), name: name.to_owned(), forgotten_vms: forgotten })
    }))
}

/// The locks of all VMs on a node, so that no task is at work on one, and their names. What a task has to take back on a
/// node that is gone is forgotten with it, so such a one is in nobody's way.
async fn take_vms(context: &Context, member: &Member) -> Result<(Vec<Held>, Vec<String>)> {
    let app = &context.app;
    let mut vms = Vec::new();
    app.index.each(|id, entry| {
        let ours = entry.record.as_ref().filter(|record| record.node == member.node.name());
        vms.extend(ours.map(|record| (id, record.name.clone())));
    });
    let mut held = Vec::new();
    for (id, name) in &vms {
        match app.locks.take(*id, name, &[Lock::Power, Lock::Disk], context.task, DeleteNode::NAME) {
            Ok(locks) => held.extend(locks),
            Err(Error::Busy { task: Some(task), .. })
                if app.store.task(task).await?.is_some_and(|task| task.state == TaskState::Unwinding) => {}
            Err(error) => return Err(error),
        }
    }
    vms.sort_by(|one, other| one.1.cmp(&other.1));
    Ok((held, vms.into_iter().map(|(_, name)| name).collect()))
}

/// Says why a node must not be forgotten, or not with `all` that is on it.
async fn may_go(app: &App, member: &Member, all: bool) -> Result<()> {
    let name = member.node.name();
    if member.configured {
        return Err(Error::Unsupported {
            detail: format!("node {name} is in the configuration file"),
            hint: Some("take it out there and start the server again; or disable it (disable-node)".to_owned()),
        });
    }
    if app.member(name)?.enabled {
        return Err(Error::WrongState {
            detail: format!("node {name} is enabled: a VM may be placed on it at any moment"),
            hint: Some("disable it first (disable-node)".to_owned()),
        });
    }
    if all {
        return match member.node.status().0 {
            Status::Up => Err(Error::WrongState {
                detail: format!("node {name} answers: its VMs are not forgotten but deleted"),
                hint: Some("delete them (delete-vm), or leave forget_vms out".to_owned()),
            }),
            _ => Ok(()),
        };
    }
    let mut vms = 0;
    app.index.each(|_, entry| vms += u64::from(entry.record.as_ref().is_some_and(|record| record.node == name)));
    if vms > 0 {
        return Err(Error::InUse(format!(
            "{vms} VMs are on node {name} (list-vms with node); delete them first, or, of a host that is gone for good, forget them with it (forget_vms)"
        )));
    }
    if app.admission.keeps_room_on(name) {
        return Err(Error::Busy { detail: format!("a VM is about to be made or started on node {name}"), task: None });
    }
    if let Some(method) = app.store.open_undos_on(name).await?.first() {
        return Err(Error::Busy {
            detail: format!("a {method} has to be finished or taken back on node {name}"),
            task: None,
        });
    }
    let copies = app.store.template_copies(None).await?;
    let only_here =
        |copy: &&CopyRecord| !copies.iter().any(|other| other.template == copy.template && other.node != name);
    if let Some(copy) = copies.iter().filter(|copy| copy.node == name).find(only_here) {
        let template = app.store.template(&copy.template.to_string()).await?;
        let template = template.map_or(copy.template.to_string(), |template| template.name);
        return Err(Error::InUse(format!(
            "the only copy of template {template} is on node {name}; delete the template, or make a VM of it on another \
             node, which copies it there"
        )));
    }
    Ok(())
}

fn target(member: &Member) -> Target {
    let id = member.node.host_uuid().unwrap_or_default();
    Target { kind: "node".to_owned(), id, name: member.node.name().to_owned() }
}

/// The node of this name or id on the wire.
pub fn named(app: &App, reference: &str) -> Result<node::Node> {
    Ok(to_wire(app, &app.member(reference)?))
}

fn to_wire(app: &App, member: &Member) -> node::Node {
    let Member { node, settings, .. } = member;
    let (status, since) = node.status();
    let facts = node.facts();
    let room = admission::room(app, node).ok();
    let mut vms = 0;
    app.index.each(|_, entry| vms += u64::from(entry.node == node.name()));
    let (state, error) = match status {
        Status::Connecting => (NodeState::Connecting, None),
        Status::Up => match app.nodes.same_host(member) {
            None => (NodeState::Up, None),
            Some(other) => (NodeState::Down, Some(format!("it is the same host as node {other}"))),
        },
        Status::Down(reason) => (NodeState::Down, Some(reason)),
    };
    node::Node {
        id: facts.as_ref().map(|facts| facts.host_uuid),
        name: node.name().to_owned(),
        uri: node.uri(),
        state,
        error,
        since: Time(Time::now().0 - i64::try_from(since.elapsed().as_millis()).unwrap_or(0)),
        hostname: facts.as_ref().map(|facts| facts.hostname.clone()),
        libvirt_version: facts.as_ref().map(|facts| version(facts.libvirt_version)),
        qemu_version: facts.as_ref().map(|facts| version(facts.qemu_version)),
        arch: facts.as_ref().map(|facts| facts.arch.clone()),
        enabled: member.enabled,
        configured: member.configured,
        virt_type: facts.as_ref().map(|facts| match facts.virt_type {
            hypervisor::VirtType::Kvm => VirtType::Kvm,
            hypervisor::VirtType::Qemu => VirtType::Qemu,
        }),
        cpus: facts.as_ref().map(|facts| facts.cpus),
        memory_mib: facts.as_ref().map(|facts| facts.memory_mib),
        cpu_overcommit: settings.cpu_overcommit,
        memory_overcommit: settings.memory_overcommit,
        reserved_memory_mib: settings.reserved_memory_mib,
        used_vcpus: room.map_or(0, |room| room.used_vcpus),
        used_memory_mib: room.map_or(0, |room| room.used_memory_mib),
        free_vcpus: room.map(|room| room.free_vcpus),
        free_memory_mib: room.map(|room| room.free_memory_mib),
        vms,
        observed_at: app.index.node(node.name()).scanned_at,
    }
}

/// libvirt's numbers as people write them: 9000000 is 9.0.0.
fn version(number: u64) -> String {
    format!("{}.{}.{}", number / 1_000_000, number / 1_000 % 1_000, number % 1_000)
}
