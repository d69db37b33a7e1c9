//! Saying what is wrong with a VM: everything that can be looked at is, side by side and each for a moment only, and what that means
//! is said by [`verdict`].

mod verdict;

use super::{describe, guest_agent, is_up};
use crate::{
    Context, Error, Result,
    index::Entry,
    ops::{console, template},
    seeds,
    store::VolumeRecord,
};
use api::{
    Time,
    diagnose::{DiagnoseVm, Diagnosis, DiskEvidence, Finding, KnownAddress, Phase, PoolEvidence},
    event::{Event, EventKind},
    task::Target,
};
use hypervisor::{
    Node, Status,
    domain::{self, DomainView, Power, Why},
};
use std::{collections::BTreeSet, fmt::Display, path::Path, time::Duration};
use uuid::Uuid;
use verdict::Facts;

/// How long each look may take.
const LOOK: Duration = Duration::from_secs(4);
/// How much is read of logs, in bytes, and how many lines are told.
const LOG: (u64, usize) = (64 << 10, 30);
/// How many events and tasks are looked at.
const EVENTS: usize = 20;
const TASKS: usize = 5;

/// `diagnose-vm`
pub async fn diagnose(context: Context, request: DiagnoseVm) -> Result<(Diagnosis, Target)> {
    let app = &context.app;
    let (id, entry) = app.index.resolve(&request.vm)?;
    let target = Target { kind: "vm".to_owned(), id, name: entry.name().to_owned() };
    let mut seen = Seen::default();
    let member = app.node(&entry.node);
    let node = member.as_ref().ok().filter(|node| is_up(node));
    if let Some(node) = node {
        let _ = tokio::time::timeout(LOOK, crate::observe::refresh(app, node, id)).await;
        look(&context, node, id, &request, &mut seen).await;
    }
    let entry = app.index.get(id).unwrap_or(entry);
    let view = entry.seen.as_ref().map(|seen| seen.view.clone());
    let away = match (&member, node) {
        (_, Some(_)) => None,
        (Ok(node), None) => Some(match node.status().0 {
            Status::Down(why) => why,
            _ => "it was never reached".to_owned(),
        }),
        (Err(_), None) => Some("it is not configured any more".to_owned()),
    };
    let events = events(&context, id).await?;
    let phases = since_start(&events);
    let on_since = phases.first().filter(|_| is_on(&seen, &entry)).map(|phase| phase.at);
    let last_reset = events.iter().find(|event| event.kind == EventKind::VmReboot).map(|event| event.at);
    let io_error = events.iter().find(|event| event.kind == EventKind::VmIoError);
    let nics = view.as_ref().map(|view| (view.nics.len(), view.nics.iter().filter(|nic| nic.link_up).count()));
    let facts = Facts {
        name: entry.name().to_owned(),
        node: entry.node.clone(),
        node_away: away.clone(),
        power: seen.power,
        silent: entry.seen.as_ref().is_some_and(|seen| seen.silent),
        at_work: app.locks.method_on(id).map(str::to_owned),
        on_since: on_since.max(last_reset.filter(|_| on_since.is_some())),
        now: Time::now(),
        serial: seen.serial.clone(),
        read_bytes: app.metrics.read_bytes(id),
        io_error: io_error.map(|event| (event.details["no_space"] == true, event.message.clone())),
        images_gone: seen.disks.iter().filter_map(|disk| disk.problem.clone()).collect(),
        qemu_said: seen.qemu_log.iter().rev().find(|line| !line.trim().is_empty()).cloned(),
        nics: nics.unwrap_or_default(),
        networks: view.as_ref().map(|view| networks(view)).unwrap_or_default(),
        addresses: seen.addresses.len(),
        agent: view.as_ref().is_some_and(|view| view.agent_connected),
        cloud_init: seen.cloud_init.clone(),
        pools: seen.pools.iter().map(|pool| (pool.pool.clone(), pool.capacity_bytes, pool.available_bytes)).collect(),
    };
    let mut findings = verdict::findings(&facts).into_iter();
    let nothing = || Error::Internal("a diagnosis without a verdict".to_owned());
    let verdict: Finding = findings.next().ok_or_else(nothing)?;
    let (tasks, _) = app.store.tasks(None, None, Some(id), None, TASKS).await?;
    let diagnosis = Diagnosis {
        vm: id,
        name: facts.name,
        at: facts.now,
        verdict,
        also: findings.collect(),
        state: entry.state(),
        reason: seen.power.map(|(_, why)| why.as_str().to_owned()),
        on_since,
        node: facts.node,
        node_up: away.is_none(),
        phases,
        qemu_log: seen.qemu_log,
        serial: last_lines(seen.serial.as_deref().unwrap_or_default()),
        agent_connected: facts.agent,
        cloud_init: facts.cloud_init,
        addresses: seen.addresses.into_iter().collect(),
        disks: seen.disks,
        pools: seen.pools,
        tasks: tasks.into_iter().map(crate::ops::task::in_short).collect(),
        screenshot_base64: seen.screenshot,
        not_known: seen.not_known,
    };
    Ok((diagnosis, target))
}

/// What a node has told.
#[derive(Default)]
struct Seen {
    power: Option<(Power, Why)>,
    serial: Option<String>,
    qemu_log: Vec<String>,
    cloud_init: Option<api::guest::CloudInitOutcome>,
    addresses: BTreeSet<KnownAddress>,
    disks: Vec<DiskEvidence>,
    pools: Vec<PoolEvidence>,
    screenshot: Option<String>,
    not_known: Vec<String>,
}

fn is_on(seen: &Seen, entry: &Entry) -> bool {
    let power = seen.power.map(|(power, _)| power).or(entry.power());
    power.is_some_and(|power| power != Power::Off)
}

/// Looks at everything, side by side. What can't be had is noted.
async fn look(context: &Context, node: &Node, id: Uuid, request: &DiagnoseVm, seen: &mut Seen) {
    let app = &context.app;
    let Some(entry) = app.index.get(id) else { return };
    match within(node.why(id)).await {
        Ok(power) => seen.power = power,
        Err(why) => seen.not_known.push(format!("the state: {why}")),
    }
    let Some(view) = entry.seen.as_ref().map(|seen| seen.view.clone()) else { return };
    let on = seen.power.is_some_and(|(power, _)| power != Power::Off);
    let running = seen.power.is_some_and(|(power, _)| power == Power::Running);
    let volumes = app.store.volumes_of_vm(id).await.unwrap_or_default();
    let (serial, log, disks, pools, addresses, guest, screen) = tokio::join!(
        async {
            match entry.record.is_some() && view.serial_log.is_some() {
                true => serial(node, id).await,
                false => Ok(None),
            }
        },
        qemu_log(context, node, &view.name),
        disks(node, &view, &volumes),
        pools(node, &view, &volumes),
        addresses(context, node, id, running),
        async {
            match view.agent_connected && running {
                true => Some(guest_agent::info(app, node, id).await),
                false => None,
            }
        },
        async {
            match request.screenshot && on {
                true => Some(console::picture(node, id).await),
                false => None,
            }
        },
    );
    match serial {
        Ok(text) => seen.serial = text,
        Err(why) => seen.not_known.push(format!("the serial line: {why}")),
    }
    match log {
        Ok(lines) => seen.qemu_log = lines,
        Err(why) => seen.not_known.push(format!("QEMU's log: {why}")),
    }
    seen.disks = disks;
    match pools {
        Ok(pools) => seen.pools = pools,
        Err(why) => seen.not_known.push(format!("the pools: {why}")),
    }
    seen.addresses = addresses;
    match guest {
        Some(Ok(info)) => seen.cloud_init = info.cloud_init,
        Some(Err(why)) => seen.not_known.push(format!("the guest: {why}")),
        None => {}
    }
    match screen {
        Some(Ok((.., png))) => seen.screenshot = Some(png),
        Some(Err(error)) => seen.not_known.push(format!("the screen: {error}")),
        None => {}
    }
}

/// What a look gives within its time.
async fn within<T, E: Display>(
    look: impl Future<Output = std::result::Result<T, E>>,
) -> std::result::Result<T, String> {
    match tokio::time::timeout(LOOK, look).await {
        Ok(told) => told.map_err(|error| error.to_string()),
        Err(_) => Err(format!("it was not told within {} s", LOOK.as_secs())),
    }
}

async fn serial(node: &Node, id: Uuid) -> std::result::Result<Option<String>, String> {
    let read = within(async {
        let pool = seeds::pool(node).await?;
        seeds::serial_tail(node, pool.uuid, id, LOG.0).await
    });
    Ok(Some(String::from_utf8_lossy(&read.await?.unwrap_or_default().bytes).into_owned()))
}

/// The end of the log that libvirt keeps of a QEMU.
async fn qemu_log(context: &Context, node: &Node, domain: &str) -> std::result::Result<Vec<String>, String> {
    let path = format!("/var/log/libvirt/qemu/{domain}.log");
    let lookup = format!("{}{}", template::LOOKUP, context.task.simple());
    let read = within(node.tail_of_file(&path, &lookup, LOG.0)).await?;
    let bytes = read.ok_or_else(|| format!("there is no {path} that Vmyard can read"))?;
    let text = String::from_utf8_lossy(&bytes);
    // Without the command line, which is most of it.
    let said = text.lines().filter(|line| !line.ends_with('\\') && !line.starts_with('-'));
    Ok(last_lines(&said.collect::<Vec<_>>().join("\n")))
}

fn last_lines(text: &str) -> Vec<String> {
    let clean = |line: &str| line.chars().filter(|c| *c == '\t' || !c.is_control()).collect::<String>();
    let lines: Vec<String> = text.lines().map(clean).filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(LOG.1)..].to_vec()
}

/// Its disks, and whether their images are there.
async fn disks(node: &Node, view: &DomainView, volumes: &[VolumeRecord]) -> Vec<DiskEvidence> {
    let mut all = Vec::new();
    for disk in view.disks.iter().filter(|disk| !disk.cdrom) {
        let (mut below, mut problem) = (Vec::new(), None);
        if let Some(path) = &disk.path {
            let known = volumes.iter().any(|volume| volume.path == *path);
            match within(node.backing_chain(path)).await {
                Ok(layers) => below.extend(layers.iter().map(|layer| layer.path().to_owned())),
                // An image of others may be in no pool; libvirt doesn't know it then.
                Err(_) if known && within(is_gone(node, volumes, path)).await == Ok(true) => {
                    problem = Some(format!("the image of disk {} ({path}) is gone", disk.target));
                }
                Err(_) => {}
            }
        }
        all.push(DiskEvidence { device: disk.target.clone(), path: disk.path.clone(), below, problem });
    }
    all
}

/// Whether the image of a volume is not in its pool any more, after a fresh look.
async fn is_gone(node: &Node, volumes: &[VolumeRecord], path: &str) -> hypervisor::Result<bool> {
    let Some(volume) = volumes.iter().find(|volume| volume.path == path) else { return Ok(false) };
    node.refresh_pool(volume.pool).await?;
    Ok(node.volume(volume.pool, &volume.file).await?.is_none())
}

async fn pools(
    node: &Node,
    view: &DomainView,
    volumes: &[VolumeRecord],
) -> std::result::Result<Vec<PoolEvidence>, String> {
    let dirs: BTreeSet<&Path> =
        view.disks.iter().filter_map(|disk| disk.path.as_deref()).filter_map(|path| Path::new(path).parent()).collect();
    let has_a_disk = |pool: &hypervisor::storage::PoolView| {
        volumes.iter().any(|volume| volume.pool == pool.uuid)
            || pool.path.as_deref().is_some_and(|path| dirs.contains(Path::new(path)))
    };
    for pool in within(node.pools()).await?.iter().filter(|pool| has_a_disk(pool)) {
        // What libvirt knows of it may be old.
        let _ = within(node.refresh_pool(pool.uuid)).await;
    }
    let pools = within(node.pools()).await?.into_iter().filter(has_a_disk);
    Ok(pools
        .map(|pool| PoolEvidence { pool: pool.name, capacity_bytes: pool.capacity, available_bytes: pool.available })
        .collect())
}

async fn addresses(context: &Context, node: &Node, id: Uuid, running: bool) -> BTreeSet<KnownAddress> {
    let mut all = Vec::new();
    if running {
        let ask = |source| within(node.addresses(id, source));
        let (lease, arp) = tokio::join!(ask(domain::AddressSource::Lease), ask(domain::AddressSource::Arp));
        all.extend([lease, arp].into_iter().flatten().flatten());
    }
    all.extend(
        context.app.index.get(id).and_then(|entry| entry.seen).map(|seen| seen.agent_addresses).unwrap_or_default(),
    );
    let is_own = |address: &str| address.starts_with("127.") || address == "::1";
    let wire = |address: domain::Address| KnownAddress {
        mac: address.mac,
        address: address.address,
        source: describe::source(address.source),
    };
    all.into_iter().filter(|address| !is_own(&address.address)).map(wire).collect()
}

fn networks(view: &DomainView) -> String {
    let of =
        |nic: &domain::NicView| nic.network.clone().or_else(|| nic.bridge.clone()).unwrap_or_else(|| "?".to_owned());
    let names: BTreeSet<String> = view.nics.iter().map(of).collect();
    format!("network {}", names.into_iter().collect::<Vec<_>>().join(", "))
}

/// The last events that say something of how it goes, the newest first.
async fn events(context: &Context, id: Uuid) -> Result<Vec<Event>> {
    let mut all = Vec::new();
    for kind in [EventKind::VmState, EventKind::VmReboot, EventKind::VmAgent, EventKind::VmIoError] {
        all.extend(context.app.store.last_events(id, kind, EVENTS).await?);
    }
    all.sort_by_key(|event| std::cmp::Reverse(event.id));
    Ok(all)
}

/// What has happened since it was started, the oldest first.
fn since_start(events: &[Event]) -> Vec<Phase> {
    let is_start = |event: &Event| {
        let details = &event.details;
        event.kind == EventKind::VmState
            && matches!(details["before"].as_str(), Some("shutoff" | "creating"))
            && matches!(details["state"].as_str(), Some("running" | "paused"))
    };
    let Some(start) = events.iter().position(is_start) else { return Vec::new() };
    let phase = |event: &Event| Phase { at: event.at, what: event.message.clone() };
    events[..=start].iter().rev().map(phase).collect()
}
