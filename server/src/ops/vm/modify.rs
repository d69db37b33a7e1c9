//! Changing a VM's name, size, tags, description and boot order.
//!
//! What can be taken back comes first, each step with what was there before it; then virtual CPUs are plugged, which can't
//! be unplugged; last of all the record changes, in one with the end of the journal. So whatever cuts it off, store and
//! definition say the same: all the new, or all the old. Virtual CPUs that were plugged by then stay until the VM is off.

use super::{Subject, create};
use crate::{
    App, Context, Error, Result,
    admission::{self, Reservation},
    claims::Claim,
    observe,
    store::{VmRecord, VolumeRole},
    task::{Lock, Outline, Task, Undo, Work, XmlChange},
};
use api::{
    Rpc,
    modify::{ModifiedVm, ModifyVmSpec},
};
use hypervisor::{
    Node,
    domain::{Before, BootPlaces, Headroom, Labels, Metadata, Plugged, Sizes, preview},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

/// What Linux takes of hot-plugged memory: whole blocks, at addresses that are multiples of one. QEMU puts one module
/// behind the other, so all of them must be such.
const BLOCK_MIB: u64 = 128;
/// Slots for hot-plugged memory, where a definition gets its headroom back.
const SLOTS: u32 = 16;

/// A change with everything checked.
struct Draft {
    node: Node,
    /// The record as it will be.
    record: VmRecord,
    before: Before,
    /// The definition's sizes as they will be.
    sizes: Sizes,
    /// The devices that will boot, where that is changed.
    boot: Option<BootPlaces>,
    /// Whether it will start with its node, where that is changed.
    autostart: Option<bool>,
    /// The metadata as it will be, where something that people read is changed.
    metadata: Option<Metadata>,
    plug: Plug,
    effects: Effects,
    reservation: Option<Reservation>,
    _name: Option<Claim>,
}

/// What is to be plugged into a VM that is on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Plug {
    /// Up to so many virtual CPUs.
    vcpus: Option<u32>,
    /// So much more memory, in MiB.
    memory_mib: Option<u64>,
}

/// Which fields are in effect when it is done, and which wait. What is journalled of the reply.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Effects {
    live: Vec<String>,
    pending: Vec<String>,
}

/// `modify-vm-spec`
pub async fn modify(context: Context, request: ModifyVmSpec) -> Result<Work<ModifiedVm>> {
    let app = &context.app;
    something_to_change(&request)?;
    // The disks' lock too: a disk that is attached meanwhile would be lost from a definition that was read before.
    let locks = [Lock::Power, Lock::Disk];
    let (vm, held) = Subject::lock(app, &request.vm, &locks, context.task, ModifyVmSpec::NAME)?;
    let draft = check(app, &vm, &request).await?;
    let outline = outline(&draft);
    Ok(Work::new(vm.target(), held, outline, move |task| make(task, draft)))
}

fn something_to_change(request: &ModifyVmSpec) -> Result<()> {
    let ModifyVmSpec { vm: _, name, vcpus, memory_mib, tags, description, boot_order, autostart, live: _ } = request;
    let some = name.is_some()
        || vcpus.is_some()
        || memory_mib.is_some()
        || tags.is_some()
        || description.is_some()
        || boot_order.is_some()
        || autostart.is_some();
    match some {
        true => Ok(()),
        false => {
            let all = "name, vcpus, memory_mib, tags, description, boot_order and autostart";
            Err(Error::field("", format!("at least one of {all} is needed")))
        }
    }
}

/// Checks everything that can be checked, and changes nothing but a claim and a reservation in memory.
async fn check(app: &App, vm: &Subject, request: &ModifyVmSpec) -> Result<Draft> {
    let mut record = vm.record("definition", "edit")?.clone();
    if request.vcpus.is_some() || request.memory_mib.is_some() || request.boot_order.is_some() {
        vm.is_not_suspended().await?;
    }
    // What it has counts for the room that it asks for.
    vm.power(app).await?;
    let before = vm.node.before_change(vm.id).await?;
    let claim = match &request.name {
        Some(name) => Some(app.claims.new_name(&app.index, name, vm.id)?),
        None => None,
    };
    let plug = match &before.on {
        Some(on) if request.live => plug(&record.name, on, request)?,
        _ => Plug::default(),
    };
    let sizes = new_sizes(&before, &record, request);
    let by_hand = |why| Error::Unsupported {
        detail: format!("VM {}: {why}", record.name),
        hint: Some(format!("virsh edit {} on node {}", record.domain, vm.node.name())),
    };
    before.takes(&sizes).map_err(by_hand)?;
    let boot = match &request.boot_order {
        Some(order) => {
            let order: Vec<_> = order.iter().copied().map(create::boot_device).collect();
            Some(before.boot_places(&order).map_err(by_hand)?).filter(|places| *places != before.boot)
        }
        None => None,
    };
    let reservation = match growth(&before, &sizes, plug) {
        Some((vcpus, memory_mib)) => Some(admission::reserve(app, &vm.node, vm.id, vcpus, memory_mib).await?),
        None => None,
    };
    let effects = effects(&before, request, plug);
    update(&mut record, request, &sizes);
    let autostart = request.autostart.filter(|on| *on != before.autostart);
    let labelled = request.name.is_some() || request.tags.is_some() || request.description.is_some();
    let metadata = if labelled { Some(metadata(app, &before, &record).await?) } else { None };
    Ok(Draft {
        node: vm.node.clone(),
        record,
        before,
        sizes,
        boot,
        autostart,
        metadata,
        plug,
        effects,
        reservation,
        _name: claim,
    })
}

/// What the record of a VM says after the change.
fn update(record: &mut VmRecord, request: &ModifyVmSpec, sizes: &Sizes) {
    if let Some(name) = &request.name {
        record.name.clone_from(name);
    }
    let spec = &mut record.spec;
    if let Some(tags) = &request.tags {
        spec.tags.clone_from(tags);
    }
    if let Some(description) = &request.description {
        spec.description.clone_from(description);
    }
    (spec.vcpus, spec.max_vcpus) = (sizes.vcpus, sizes.max_vcpus);
    spec.memory_mib = sizes.memory_kib >> 10;
    spec.max_memory_mib = sizes.headroom.map_or(sizes.memory_kib, |headroom| headroom.kib) >> 10;
}

/// The definition's sizes after the change. Maxima grow where they must, and never shrink.
fn new_sizes(before: &Before, record: &VmRecord, request: &ModifyVmSpec) -> Sizes {
    let mut sizes = before.sizes;
    if let Some(vcpus) = request.vcpus {
        sizes.vcpus = vcpus;
        sizes.max_vcpus = sizes.max_vcpus.max(vcpus);
    }
    if let Some(memory_kib) = request.memory_mib.map(|mib| mib << 10).filter(|kib| *kib != sizes.memory_kib) {
        // QEMU refuses to start with headroom that is no more than the memory. What was asked for once comes back when
        // the memory is less again.
        let wanted = sizes.headroom.map_or(record.spec.max_memory_mib << 10, |headroom| headroom.kib);
        let slots = sizes.headroom.map_or(SLOTS, |headroom| headroom.slots);
        let headroom = Headroom { kib: wanted, slots };
        sizes.headroom = Some(headroom).filter(|_| before.one_cell && wanted > memory_kib);
        (sizes.memory_kib, sizes.current_kib) = (memory_kib, memory_kib);
    }
    sizes
}

/// The room for which the node is asked, virtual CPUs and memory in MiB, where the change makes something more: all that a
/// start will ask for, or, for a VM that is on, what becomes more.
fn growth(before: &Before, sizes: &Sizes, plug: Plug) -> Option<(u32, u64)> {
    let more_vcpus = sizes.vcpus > before.sizes.vcpus || plug.vcpus.is_some();
    let more_memory = sizes.memory_kib > before.sizes.memory_kib || plug.memory_mib.is_some();
    let off = before.on.is_none();
    let asked =
        (if more_vcpus || off { sizes.vcpus } else { 0 }, if more_memory || off { sizes.memory_kib >> 10 } else { 0 });
    Some(asked).filter(|_| more_vcpus || more_memory)
}

/// What a live change plugs into a VM that is on, or why it can't.
fn plug(name: &str, on: &Plugged, request: &ModifyVmSpec) -> Result<Plug> {
    let refused = |why: String| {
        let hint = "without live it takes effect at the next boot".to_owned();
        Err(Error::Unsupported { detail: format!("VM {name} can't be changed live: {why}"), hint: Some(hint) })
    };
    let mut plug = Plug::default();
    let (has, most) = (on.sizes.vcpus, on.sizes.max_vcpus);
    match request.vcpus {
        Some(vcpus) if vcpus < has => {
            return refused(format!("virtual CPUs can't be unplugged while it is on (vcpus is {has})"));
        }
        Some(vcpus) if vcpus > most => return refused(format!("max_vcpus is {most}")),
        Some(vcpus) => plug.vcpus = Some(vcpus).filter(|vcpus| *vcpus > has),
        None => {}
    }
    let has = on.sizes.memory_kib >> 10;
    let Some(more) = request.memory_mib.map(|mib| mib.checked_sub(has)) else { return Ok(plug) };
    let (most, slots) = on.sizes.headroom.map_or((has, 0), |headroom| (headroom.kib >> 10, headroom.slots));
    match more {
        None => refused(format!("memory can't be unplugged while it is on (memory_mib is {has})")),
        Some(0) => Ok(plug),
        Some(more) if has + more > most => refused(format!("max_memory_mib is {most}")),
        Some(more) if more % BLOCK_MIB != 0 => {
            refused(format!("memory is plugged in steps of {BLOCK_MIB} MiB (memory_mib is {has})"))
        }
        Some(_) if on.modules.len() >= slots as usize => refused(format!("its {slots} memory slots are taken")),
        Some(_) if on.modules.iter().any(|kib| kib % (BLOCK_MIB << 10) != 0) => {
            refused(format!("it has a memory module of another size than steps of {BLOCK_MIB} MiB"))
        }
        Some(more) => Ok(Plug { memory_mib: Some(more), ..plug }),
    }
}

fn effects(before: &Before, request: &ModifyVmSpec, plug: Plug) -> Effects {
    let vcpus_now = before.on.as_ref().map(|on| plug.vcpus.unwrap_or(on.sizes.vcpus));
    let memory_now = before.on.as_ref().map(|on| (on.sizes.memory_kib >> 10) + plug.memory_mib.unwrap_or(0));
    let booted = before.on.as_ref().map(|on| &on.boot);
    let wanted = request.boot_order.as_ref();
    let wanted = wanted.map(|order| order.iter().copied().map(create::boot_device).collect::<Vec<_>>());
    let fields = [
        ("name", request.name.as_ref().map(|_| true)),
        ("vcpus", request.vcpus.map(|vcpus| vcpus_now.is_none_or(|now| now == vcpus))),
        ("memory_mib", request.memory_mib.map(|memory_mib| memory_now.is_none_or(|now| now == memory_mib))),
        ("tags", request.tags.as_ref().map(|_| true)),
        ("description", request.description.as_ref().map(|_| true)),
        ("autostart", request.autostart.map(|_| true)),
        ("boot_order", wanted.map(|order| booted.is_none_or(|booted| *booted == order))),
    ];
    let of = |wanted: bool| {
        let fields = fields.iter().filter(|(_, now)| *now == Some(wanted));
        fields.map(|(field, _)| (*field).to_owned()).collect()
    };
    Effects { live: of(true), pending: of(false) }
}

/// What the domain's metadata will say. What else stands there is kept; where somebody has taken it away, it is made anew.
async fn metadata(app: &App, before: &Before, record: &VmRecord) -> Result<Metadata> {
    let metadata = match &before.metadata {
        Some(metadata) => metadata.clone(),
        None => {
            let volumes = app.store.volumes_of_vm(record.id).await?;
            let system = volumes.iter().find(|volume| volume.role == VolumeRole::System);
            create::metadata(record, system.map(|volume| volume.id))
        }
    };
    let spec = &record.spec;
    let (name, tags, description) = (record.name.clone(), spec.tags.clone(), spec.description.clone());
    Ok(Metadata { name, tags, description, ..metadata })
}

/// What [`make`] will do.
fn outline(draft: &Draft) -> Outline {
    let steps = [
        ("change-metadata", draft.metadata.is_some()),
        ("change-definition", draft.sizes != draft.before.sizes),
        ("change-boot-order", draft.boot.is_some()),
        ("set-autostart", draft.autostart.is_some()),
        ("plug-memory", draft.plug.memory_mib.is_some()),
        ("plug-vcpus", draft.plug.vcpus.is_some()),
        ("record-change", true),
    ];
    let steps: Vec<&str> = steps.into_iter().filter(|(_, is_done)| *is_done).map(|(step, _)| step).collect();
    let (node, id) = (draft.node.clone(), draft.record.id);
    let (sizes, boot, metadata) = (draft.sizes, draft.boot.clone(), draft.metadata.clone());
    let outline = Outline::of(&steps)
        .on(&draft.node)
        .in_effect(&draft.effects.live, &draft.effects.pending)
        .changing_xml(async move {
            let before = node.domain_xml(id, true, false).await?;
            let after = preview(&before, &sizes, boot.as_ref(), metadata.as_ref()).unwrap_or_else(|| before.clone());
            Ok(XmlChange { before, after })
        });
    match &draft.reservation {
        Some(reservation) => outline.admitted(reservation),
        None => outline,
    }
}

/// Makes the change, step by step; each step's undo is journalled before it begins.
async fn make(task: Task, draft: Draft) -> Result<ModifiedVm> {
    let app = &task.app;
    let (vm, node, before) = (draft.record.id, &draft.node, &draft.before);
    let on = || node.name().to_owned();
    if let Some(metadata) = &draft.metadata {
        let labels = Labels::of(metadata).map_err(|character| {
            Error::field("description", format!("has the character {character:?}, which XML can't hold"))
        })?;
        let undo = Undo::RestoreLabels { node: on(), vm, labels: before.labels.clone() };
        task.step("change-metadata", Some(undo), async { Ok(node.relabel(vm, labels).await?) }).await?;
    }
    if draft.sizes != before.sizes {
        let undo = Undo::RestoreSizes { node: on(), vm, sizes: before.sizes };
        task.step("change-definition", Some(undo), async { Ok(node.resize(vm, draft.sizes).await?) }).await?;
    }
    if let Some(places) = &draft.boot {
        let undo = Undo::RestoreBoot { node: on(), vm, places: before.boot.clone() };
        let change = async { Ok(node.set_boot_places(vm, places.clone()).await?) };
        task.step("change-boot-order", Some(undo), change).await?;
    }
    if let Some(start) = draft.autostart {
        let undo = Undo::SetAutostart { node: on(), vm, on: before.autostart };
        task.step("set-autostart", Some(undo), async { Ok(node.set_autostart(vm, start).await?) }).await?;
    }
    if let Some(mib) = draft.plug.memory_mib {
        let alias = format!("ua-vmyard-{}", task.id);
        let undo = Undo::UnplugMemory { node: on(), vm, alias: alias.clone() };
        task.step("plug-memory", Some(undo), async { Ok(node.plug_memory(vm, alias, mib << 10).await?) }).await?;
    }
    if let Some(vcpus) = draft.plug.vcpus {
        task.last_step("plug-vcpus", None, async { Ok(node.plug_vcpus(vm, vcpus).await?) }).await?;
    }
    // Before the end: a task that ends only after a restart or a failure tells of the VM what the index has.
    observe::refresh_after(app, node, vm).await;
    task.last_step("record-change", None, async {
        let mut record = draft.record.clone();
        let reply = serde_json::to_string(&draft.effects)
            .map_err(|error| Error::Internal(format!("write what has taken effect: {error}")))?;
        app.store.change_vm(&mut record, task.id, &reply).await?;
        app.index.put_record(record);
        Ok(())
    })
    .await?;
    reply(app, vm, draft.effects)
}

fn reply(app: &App, vm: Uuid, effects: Effects) -> Result<ModifiedVm> {
    Ok(ModifiedVm { vm: app.index.to_wire(vm)?, live: effects.live, pending: effects.pending })
}

/// The reply of a task whose end was not written, of what it has journalled of it.
pub fn reply_of(app: &App, vm: Uuid, journalled: &str) -> Result<Value> {
    let effects = serde_json::from_str(journalled)
        .map_err(|error| Error::Internal(format!("the journal has a reply that can't be read: {error}")))?;
    serde_json::to_value(reply(app, vm, effects)?).map_err(|error| Error::Internal(format!("write a reply: {error}")))
}
