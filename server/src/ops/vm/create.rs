//! Creating a VM: over a template, over a snapshot's image, or with a blank disk.

use super::{
    cloud_init,
    nics::Nics,
    place::{Place, place},
};
use crate::{
    App, Context, Error, Result,
    admission::Reservation,
    attachments,
    claims::Claim,
    nvram, observe,
    ops::{copies, template, volume::lies_at},
    seed::Seed,
    seeds,
    store::{
        CopyRecord, FrozenDisk, Image, TemplateRecord, VmPhase, VmRecord, VmSpec, VolumePhase, VolumeRecord, VolumeRole,
    },
    task::{Held, Lock, Outline, Task, Undo, Work, XmlChange},
};
use api::{
    Rpc, Time,
    orphan::OrphanKind,
    task::Target,
    vm::{CreateVm, Firmware, Vm},
};
use hypervisor::{
    Node,
    domain::{BootDevice, DomainSpec, Metadata, SystemDisk, TemplateRef},
    storage::{Backing, Layer, PoolView},
};
use uuid::Uuid;

/// A VM to make, with everything checked and looked up.
struct Draft {
    record: VmRecord,
    node: Node,
    pool: PoolView,
    seeds: PoolView,
    /// What the disk stands on; `None` for a blank one.
    ground: Option<Ground>,
    context: Context,
    /// The seed's ISO image.
    seed: Option<Vec<u8>>,
    /// The system disk.
    disk: VolumeRecord,
    /// The domain, but for what is known only when it is made: where its disk is, and QEMU's VNC password.
    domain: DomainSpec,
    start: bool,
    autostart: bool,
    /// The snapshot's image that its disk is to stand on, instead of the template's.
    over: Option<Over>,
    reservation: Reservation,
    _claims: Vec<Claim>,
}

/// A template and where its image is.
pub(super) struct Ground {
    pub(super) template: TemplateRecord,
    pub(super) image: copies::Image,
}

/// A snapshot's image as the ground of a new system disk.
pub(in crate::ops) struct Over {
    /// The image.
    pub disk: FrozenDisk,
    /// Whether what is needed of it is copied.
    pub independent: bool,
    /// The snapshot's NVRAM, which is copied.
    pub nvram: Option<Image>,
    /// The lock that keeps it as it is until the disk is there.
    pub _held: Vec<Held>,
}

/// `create-vm`
pub async fn create(context: Context, request: CreateVm) -> Result<Work<Vm>> {
    create_over(context, CreateVm::NAME, request, None).await
}

/// Creates a VM whose disk stands on its template, or on another image.
pub(in crate::ops) async fn create_over(
    context: Context,
    method: &'static str,
    request: CreateVm,
    over: Option<Over>,
) -> Result<Work<Vm>> {
    let app = &context.app;
    let draft = check(&context, request, over).await?;
    let record = &draft.record;
    let target = Target { kind: "vm".to_owned(), id: record.id, name: record.name.clone() };
    let held = app.locks.take(record.id, &record.name, &[Lock::Power, Lock::Disk], context.task, method)?;
    let outline = outline(&draft);
    Ok(Work::new(target, held, outline, move |task| make(task, draft)).at_once())
}

/// What [`make`] will do.
fn outline(draft: &Draft) -> Outline {
    let spec = &draft.record.spec;
    let image = draft.ground.as_ref().map(|ground| &ground.image);
    let to_copy = image.map_or(0, copies::Image::to_copy);
    let mut steps = vec!["record-vm"];
    steps.extend(matches!(image, Some(copies::Image::Elsewhere(_))).then_some("await-template"));
    steps.extend(["make-system-disk", "write-seed"]);
    steps.extend(draft.over.as_ref().is_some_and(|over| over.independent).then_some("make-independent"));
    steps.extend(spec.reserved.iter().map(|_| "reserve-address"));
    steps.extend((spec.firmware == Firmware::Uefi).then_some("keep-nvram"));
    steps.push("define-domain");
    steps.extend(draft.autostart.then_some("set-autostart"));
    steps.extend(draft.start.then_some("start-domain"));
    steps.push("make-ready");
    let (domain, seed_bytes) = (draft.domain.clone(), draft.seed.as_ref().map_or(0, |iso| iso.len() as u64));
    Outline::of(&steps)
        .on(&draft.node)
        .admitted(&draft.reservation)
        .allocates(to_copy, to_copy)
        .allocates(seed_bytes, seed_bytes + spec.disk_bytes)
        .changing_xml(async move { Ok(XmlChange { before: String::new(), after: xml(&domain)? }) })
}

/// Checks everything that can be checked, and changes nothing but a reservation in memory.
async fn check(context: &Context, request: CreateVm, over: Option<Over>) -> Result<Draft> {
    let app = &context.app;
    // Of several calls with one name the first goes on; the others are told at once, before they keep room.
    let name = app.claims.name(&app.index, &request.name)?;
    let max_vcpus = request.max_vcpus.unwrap_or(request.vcpus);
    if max_vcpus < request.vcpus {
        return Err(Error::field("max_vcpus", format!("must be at least vcpus ({})", request.vcpus)));
    }
    let max_memory_mib = request.max_memory_mib.unwrap_or(request.memory_mib);
    if max_memory_mib < request.memory_mib {
        return Err(Error::field("max_memory_mib", format!("must be at least memory_mib ({})", request.memory_mib)));
    }
    let template = match &request.template {
        Some(template) => Some(template::ready(app, template).await?),
        None => None,
    };
    let disk_bytes = disk_bytes(&request, template.as_ref(), over.as_ref())?;
    let id = Uuid::new_v4();
    let place = place(app, id, &request, template.as_ref()).await?;
    let Place { node, facts, pool, seeds, nics, image, iso, reservation } = place;
    let Nics { specs, reserved, mut claims } = nics;
    claims.push(name);
    let boot = match &request.boot_order {
        Some(order) => order.iter().copied().map(boot_device).collect(),
        None if iso.is_some() => vec![BootDevice::Disk, BootDevice::Cdrom],
        None => vec![BootDevice::Disk],
    };
    if boot.contains(&BootDevice::Network) && specs.is_empty() {
        return Err(Error::field("boot_order", "names network, and the VM has no interface"));
    }
    let seed = cloud_init::seed(app, id, &request, template.as_ref(), &specs).await?;
    let (seed, given) = seed.unzip();
    let record = VmRecord {
        id,
        domain: format!("{}-{}", request.name, &id.simple().to_string()[..8]),
        name: request.name,
        node: node.name().to_owned(),
        phase: VmPhase::Creating,
        spec: VmSpec {
            template: template.as_ref().map(|template| template.id),
            template_name: template.as_ref().map(|template| template.name.clone()),
            pool: pool.uuid,
            pool_name: pool.name.clone(),
            vcpus: request.vcpus,
            max_vcpus,
            memory_mib: request.memory_mib,
            max_memory_mib,
            disk_bytes,
            tags: request.tags,
            description: request.description,
            user: seed.as_ref().and_then(|seed| seed.user.clone()),
            cloud_init: given,
            firmware: request.firmware,
            reserved,
        },
        created_at: Time::now(),
        revision: 1,
    };
    let disk = system_disk(&record, &pool, over.as_ref());
    let domain = DomainSpec {
        id: record.id,
        name: record.domain.clone(),
        virt_type: facts.virt_type,
        vcpus: request.vcpus,
        max_vcpus,
        memory_mib: request.memory_mib,
        max_memory_mib,
        system_disk: SystemDisk {
            path: disk.path.clone(),
            format: disk.format.clone(),
            serial: attachments::serial(disk.id),
        },
        nvram: (request.firmware == Firmware::Uefi).then(|| pool.path_of(&nvram::file_of(id))),
        seed: seed.as_ref().and_then(|_| Some(format!("{}/{}", seeds.path.as_deref()?, seeds::seed_file(id)))),
        iso,
        boot,
        nics: specs,
        serial_log: seeds::serial_log(&seeds, id),
        vnc_password: String::new(),
        metadata: metadata(&record, Some(disk.id)),
    };
    Ok(Draft {
        record,
        node,
        pool,
        seeds,
        ground: template.zip(image).map(|(template, image)| Ground { template, image }),
        context: context.clone(),
        seed: seed.as_ref().map(Seed::to_iso).transpose()?,
        disk,
        domain,
        start: request.start,
        autostart: request.autostart,
        over,
        reservation,
        _claims: claims,
    })
}

/// Makes it, step by step; each step's undo is journalled before it begins.
async fn make(task: Task, draft: Draft) -> Result<Vm> {
    let app = &task.app;
    let (vm, node) = (draft.record.id, &draft.node);
    let on = || node.name().to_owned();

    let (pool, file, kind) = (draft.pool.uuid, draft.disk.file.clone(), OrphanKind::Volume);
    let delete_disk = Undo::DeleteVolume { node: on(), pool, file, volume: Some(draft.disk.id), kind };
    // Without a seed there is still the serial line's log, which a start makes.
    let delete_seed = Undo::DeleteSeedFiles { node: on(), vm };
    let waits = matches!(draft.ground, Some(Ground { image: copies::Image::Elsewhere(_), .. }));
    if !waits {
        task.foretell("make-system-disk", Some(delete_disk.clone()));
        task.foretell("write-seed", Some(delete_seed.clone()));
    }
    let (record, volume) = (&draft.record, &draft.disk);
    task.step_in_store("record-vm", Some(Undo::ForgetVm { vm }), false, |step| async move {
        app.store.insert_vm(record, volume, &step).await?;
        app.index.put_record(record.clone());
        app.index.put_volume(volume.clone());
        Ok(())
    })
    .await?;

    let backing = match &draft.ground {
        None => None,
        Some(Ground { template, image: copies::Image::Here(copy) }) => Some(backing(template, copy)),
        // What is copied is the template's, and stays when this VM comes to nothing.
        Some(Ground { template, image: copies::Image::Elsewhere(original) }) => {
            let copied = copies::ensure(&task, &draft.context, template, original, (node, &draft.pool));
            Some(backing(template, &task.step("await-template", None, copied).await?))
        }
    };

    let make_disk = task.step("make-system-disk", Some(delete_disk), make_disk(&draft, backing.as_ref()));
    let write_seed = task.step("write-seed", Some(delete_seed), async {
        if let Some(iso) = draft.seed.clone() {
            node.create_from_bytes(draft.seeds.uuid, &seeds::seed_file(vm), iso).await?;
        }
        Ok(())
    });
    // Side by side, each to its end: one that fails doesn't cut the other in half.
    let (disk, seed) = tokio::join!(make_disk, write_seed);
    disk?;
    seed?;
    if let Some(over) = draft.over.as_ref().filter(|over| over.independent) {
        task.step("make-independent", None, make_independent(app, &draft, over, backing.as_ref())).await?;
    }

    for reserved in &draft.record.spec.reserved {
        let release = Undo::ReleaseAddress { node: on(), reserved: reserved.clone() };
        task.step("reserve-address", Some(release), async {
            Ok(node.reserve_address(reserved.network, &reserved.mac, reserved.ip).await?)
        })
        .await?;
    }
    if draft.record.spec.firmware == Firmware::Uefi {
        // Where there is none to copy libvirt makes the file at the start; it goes after the domain.
        let kind = OrphanKind::Nvram;
        let delete = Undo::DeleteVolume { node: on(), pool, file: nvram::file_of(vm), volume: None, kind };
        let original = draft.over.as_ref().and_then(|over| over.nvram.as_ref());
        let copy = async {
            match original {
                Some(from) => nvram::set(node, pool, &nvram::file_of(vm), Some((from.pool, &from.file))).await,
                None => Ok(()),
            }
        };
        task.step("keep-nvram", Some(delete), copy).await?;
    }
    let mut domain = draft.domain.clone();
    domain.vnc_password = crate::seed::random_text(8)?;
    let xml = xml(&domain)?;
    task.step("define-domain", Some(Undo::UndefineDomain { node: on(), vm }), async {
        Ok(node.define(&draft.record.domain, xml).await?)
    })
    .await?;

    if draft.autostart {
        // It goes with the definition.
        task.step("set-autostart", None, async { Ok(node.set_autostart(vm, true).await?) }).await?;
    }
    if draft.start {
        task.step("start-domain", None, async { Ok(node.start(vm).await?) }).await?;
    }

    let make_ready = task.step_in_store("make-ready", None, true, |step| async move {
        let mut ready = record.clone();
        app.store.vm_is_ready(&mut ready, &step).await?;
        attachments::sync(app, volume.id).await?;
        Ok(ready)
    });
    let (ready, ()) = tokio::join!(make_ready, observe::refresh_after(app, node, vm));
    app.index.put_record(ready?);
    app.index.to_wire(vm)
}

/// A template's image as a backing file.
fn backing(template: &TemplateRecord, copy: &CopyRecord) -> Backing {
    Backing { path: copy.path.clone(), format: template.spec.format.clone() }
}

/// The system disk of a VM, which is still to be made.
fn system_disk(vm: &VmRecord, pool: &PoolView, over: Option<&Over>) -> VolumeRecord {
    let id = Uuid::now_v7();
    let file = format!("{id}.qcow2");
    VolumeRecord {
        id,
        name: format!("system-{}", vm.id),
        node: vm.node.clone(),
        pool: pool.uuid,
        pool_name: pool.name.clone(),
        path: pool.path_of(&file),
        file,
        format: "qcow2".to_owned(),
        size_bytes: vm.spec.disk_bytes,
        role: VolumeRole::System,
        phase: VolumePhase::Creating,
        vm: Some(vm.id),
        device: Some("vda".to_owned()),
        template: vm.spec.template,
        base: over.map(|over| over.disk.image.path.clone()),
        created_at: Time::now(),
    }
}

async fn make_disk(draft: &Draft, template: Option<&Backing>) -> Result<()> {
    let VolumeRecord { pool, file, size_bytes, .. } = &draft.disk;
    let over = draft.over.as_ref().map(|over| Backing::qcow2(&over.disk.image.path));
    let made = match over.as_ref().or(template) {
        Some(backing) => draft.node.create_overlay(*pool, file, *size_bytes, backing).await?,
        None => draft.node.create_blank(*pool, file, "qcow2", *size_bytes).await?,
    };
    lies_at(&made, &draft.disk.path)
}

/// Copies what the disk needs of the snapshot's images into it; it stands on the template then, if there is one.
async fn make_independent(app: &App, draft: &Draft, over: &Over, template: Option<&Backing>) -> Result<()> {
    // One of a blank volume, or of one that was merged with all below it, has no template below.
    let chain = draft.node.backing_chain(&over.disk.image.path).await?;
    let is_below = |template: &&Backing| {
        chain.iter().any(|layer| matches!(layer, Layer::Volume(view) if view.path == template.path))
    };
    draft.node.flatten(&draft.disk.path, template.filter(is_below)).await?;
    app.store.set_volume_base(draft.disk.id, None).await?;
    attachments::sync(app, draft.disk.id).await
}

/// What the domain's metadata says of the VM.
pub(super) fn metadata(record: &VmRecord, disk: Option<Uuid>) -> Metadata {
    let spec = &record.spec;
    Metadata {
        name: record.name.clone(),
        created_at: record.created_at.0,
        template: spec.template.map(|id| TemplateRef { id, name: spec.template_name.clone().unwrap_or_default() }),
        system_volume: disk,
        user: spec.user.clone(),
        description: spec.description.clone(),
        tags: spec.tags.clone(),
    }
}

/// A domain's XML.
fn xml(domain: &DomainSpec) -> Result<String> {
    let refused =
        |character| Error::field("description", format!("has the character {character:?}, which XML can't hold"));
    domain.to_xml().map_err(refused)
}

fn disk_bytes(request: &CreateVm, template: Option<&TemplateRecord>, over: Option<&Over>) -> Result<u64> {
    let (needed, whose) = match (over, template) {
        (Some(over), _) => (over.disk.size_bytes, "the snapshot".to_owned()),
        (None, Some(template)) => (template.spec.virtual_bytes, format!("template {}", template.name)),
        (None, None) if request.iso.is_none() => {
            return Err(Error::field("template", "is needed, or an ISO image to install from (iso and disk_gib)"));
        }
        (None, None) => {
            let gib = request.disk_gib.ok_or_else(|| Error::field("disk_gib", "is needed without a template"))?;
            return Ok(gib << 30);
        }
    };
    match request.disk_gib {
        None => Ok(needed),
        Some(gib) if gib << 30 >= needed => Ok(gib << 30),
        Some(gib) => Err(Error::field(
            "disk_gib",
            format!("must be at least {}, the size of {whose}, is {gib}", needed.div_ceil(1 << 30)),
        )),
    }
}

/// A device that boots, in the hypervisor's words.
pub(super) fn boot_device(device: api::vm::BootDevice) -> BootDevice {
    match device {
        api::vm::BootDevice::Disk => BootDevice::Disk,
        api::vm::BootDevice::Cdrom => BootDevice::Cdrom,
        api::vm::BootDevice::Network => BootDevice::Network,
    }
}
