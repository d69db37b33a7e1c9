//! Taking over a VM of others, and giving one back. The domain and its files are left as they are, but for our element in the
//! metadata: it comes first, or goes first, and the records follow in one with the end of the journal. So whatever cuts it off, the
//! definition and the database say the same.

use super::{Subject, create};
use crate::{
    App, Context, Error, Result,
    claims::Claim,
    drift, images, nvram, observe,
    ops::snapshot,
    store::{VmPhase, VmRecord, VmSpec, VolumePhase, VolumeRecord, VolumeRole},
    task::{Lock, Outline, Undo, Work},
};
use api::{
    Rpc, Time,
    adopt::{AdoptVm, ReleaseVm, ReleasedVm},
    vm::{Firmware, Vm},
};
use hypervisor::{
    Node,
    domain::{DiskView, DomainView, Labels},
    storage::{PoolView, VolumeView},
};
use std::path::Path;
use uuid::Uuid;

/// `adopt-vm`
pub async fn adopt(context: Context, request: AdoptVm) -> Result<Work<Vm>> {
    let app = &context.app;
    let locks = [Lock::Power, Lock::Disk];
    let (vm, held) = Subject::lock(app, &request.vm, &locks, context.task, AdoptVm::NAME)?;
    if vm.entry.record.is_some() {
        return Err(Error::WrongState { detail: format!("VM {} is Vmyard's already", vm.entry.name()), hint: None });
    }
    vm.power(app).await?;
    let before = vm.node.before_change(vm.id).await?;
    let vm = Subject::find(app, &vm.id.to_string())?;
    let Some(view) = vm.entry.seen.as_ref().map(|seen| seen.view.clone()) else {
        return Err(Error::not_found("VM", request.vm));
    };
    // One that a Vmyard had before, whose database was lost.
    let marked = view.metadata.clone().unwrap_or_default();
    let (name, claim) = free_name(app, &vm, &view, request.name)?;
    let disks = disks(app, &vm, &view).await?;
    let volumes = volumes(app, &vm, &name, disks).await?;
    let mut record = record(&vm, &view, name, &volumes).await?;
    (record.spec.tags, record.spec.description, record.spec.user) = (request.tags, request.description, marked.user);
    if record.spec.tags.is_empty() {
        record.spec.tags = marked.tags;
    }
    if record.spec.description.is_empty() {
        record.spec.description = marked.description;
    }
    if let Some(template) = record.spec.template {
        record.spec.template_name = app.store.template(&template.to_string()).await?.map(|template| template.name);
    }
    let system = volumes.iter().find(|volume| volume.role == VolumeRole::System);
    let labels = Labels::of(&create::metadata(&record, system.map(|volume| volume.id)));
    let labels = labels.map_err(|character| {
        Error::field("description", format!("has the character {character:?}, which XML can't hold"))
    })?;
    // Its title stays.
    let labels = Labels { title: before.labels.title.clone(), ..labels };
    let outline = Outline::of(&["mark-domain", "record-vm"]).on(&vm.node);
    Ok(Work::new(vm.target(), held, outline, move |task| async move {
        let _claim: Claim = claim;
        let (app, node) = (&task.app, &vm.node);
        let undo = Undo::RestoreLabels { node: node.name().to_owned(), vm: vm.id, labels: before.labels };
        task.step("mark-domain", Some(undo), async { Ok(node.relabel(vm.id, labels).await?) }).await?;
        task.last_step("record-vm", None, app.store.adopt_vm(&record, &volumes, task.id)).await?;
        for volume in volumes {
            app.index.put_volume(volume);
        }
        app.index.put_record(record);
        observe::refresh_after(app, node, vm.id).await;
        drift::begin(app, vm.id);
        app.index.to_wire(vm.id)
    }))
}

/// The name that it will have.
fn free_name(app: &App, vm: &Subject, view: &DomainView, wanted: Option<String>) -> Result<(String, Claim)> {
    let marked = view.metadata.as_ref().map(|marked| &marked.name);
    let name = wanted.unwrap_or_else(|| marked.unwrap_or(&view.name).clone());
    api::rules::name(&name, &()).map_err(|why| {
        Error::field("name", format!("is needed: the domain's own, {name:?}, is no name of a VM here: {why}"))
    })?;
    let claim = app.claims.new_name(&app.index, &name, vm.id)?;
    Ok((name, claim))
}

/// A disk, and the volume of a pool that it is.
struct Found<'a> {
    disk: &'a DiskView,
    pool: PoolView,
    volume: VolumeView,
}

/// Its disks, each of which must be a file that Vmyard can work with, and nobody else's.
async fn disks<'a>(app: &App, vm: &Subject, view: &'a DomainView) -> Result<Vec<Found<'a>>> {
    let mut found = Vec::new();
    for disk in view.disks.iter().filter(|disk| !disk.cdrom) {
        let Some((pool, volume)) = place(&vm.node, disk).await? else {
            let where_ = disk.path.as_deref().unwrap_or("no file");
            let dir = Path::new(where_).parent().unwrap_or(Path::new("/")).display();
            return Err(Error::Unsupported {
                detail: format!(
                    "disk {} of VM {} ({where_}) is no file in an active storage pool",
                    disk.target,
                    vm.entry.name()
                ),
                hint: Some(format!("make a pool of its directory: virsh pool-create-as NAME dir --target {dir}")),
            });
        };
        if let Some((_, other)) = images::vm_on(app, vm.node.name(), &volume.path, Some(vm.id)) {
            return Err(Error::InUse(format!("disk {} ({}) is VM {other}'s as well", disk.target, volume.path)));
        }
        found.push(Found { disk, pool, volume });
    }
    Ok(found)
}

/// The volume that a disk is, if it is one.
async fn place(node: &Node, disk: &DiskView) -> Result<Option<(PoolView, VolumeView)>> {
    let is_it = |pool: &PoolView, file: &str| match (&disk.path, &disk.volume) {
        (Some(path), _) => pool.path_of(file) == *path,
        (None, volume) => volume.as_ref().is_some_and(|(of, _)| *of == pool.name),
    };
    let name = disk.path.as_deref().map(|path| path.rsplit('/').next().unwrap_or_default());
    let Some(file) = name.or(disk.volume.as_ref().map(|(_, file)| file.as_str())).map(str::to_owned) else {
        return Ok(None);
    };
    let pools = node.pools().await?.into_iter();
    let Some(pool) = pools.filter(|pool| pool.active && pool.holds_files()).find(|pool| is_it(pool, &file)) else {
        return Ok(None);
    };
    let mut volume = node.volume(pool.uuid, &file).await?;
    if volume.is_none() {
        // It may have been put there without telling the pool.
        node.refresh_pool(pool.uuid).await?;
        volume = node.volume(pool.uuid, &file).await?;
    }
    Ok(volume.map(|volume| (pool, volume)))
}

/// The records of its disks.
async fn volumes(app: &App, vm: &Subject, name: &str, disks: Vec<Found<'_>>) -> Result<Vec<VolumeRecord>> {
    let (known, copies) = (app.store.volumes().await?, app.store.template_copies(None).await?);
    let mut volumes: Vec<VolumeRecord> = Vec::new();
    for (position, Found { disk, pool, volume }) in disks.into_iter().enumerate() {
        if let Some(known) = known.iter().find(|known| known.node == vm.node.name() && known.path == volume.path) {
            return Err(Error::InUse(format!(
                "disk {} ({}) is Vmyard's volume {}",
                disk.target, volume.path, known.name
            )));
        }
        let below = vm.node.backing_chain(&volume.path).await?;
        let is_below = |path: &str| below.iter().any(|layer| layer.path() == path);
        let copy = copies.iter().find(|copy| copy.node == vm.node.name() && is_below(&copy.path));
        let id = Uuid::now_v7();
        let called = format!("{name}-{}", disk.target);
        let is_taken = known.iter().any(|known| known.pool == pool.uuid && known.name.eq_ignore_ascii_case(&called));
        volumes.push(VolumeRecord {
            id,
            name: if is_taken || api::rules::name(&called, &()).is_err() { format!("adopted-{id}") } else { called },
            node: vm.node.name().to_owned(),
            pool: pool.uuid,
            pool_name: pool.name,
            file: volume.name,
            // As the domain has it.
            path: disk.path.clone().unwrap_or(volume.path),
            format: disk.format.clone().unwrap_or(volume.format),
            size_bytes: volume.capacity,
            role: if position == 0 { VolumeRole::System } else { VolumeRole::Data },
            phase: VolumePhase::Ready,
            vm: Some(vm.id),
            device: Some(disk.target.clone()),
            template: copy.map(|copy| copy.template),
            base: None,
            created_at: Time::now(),
        });
    }
    Ok(volumes)
}

/// The record of the VM.
async fn record(vm: &Subject, view: &DomainView, name: String, volumes: &[VolumeRecord]) -> Result<VmRecord> {
    let system = volumes.first();
    let (pool, pool_name) = match system {
        Some(system) => (system.pool, system.pool_name.clone()),
        // One that boots from the network, or an ISO image.
        None => match vm.node.pool("default").await? {
            Some(pool) => (pool.uuid, pool.name),
            None => (Uuid::nil(), String::new()),
        },
    };
    if let Some(nvram) = view.nvram.as_ref().filter(|_| view.uefi)
        && !nvram.ends_with(&format!("/{}", nvram::file_of(vm.id)))
    {
        return Err(Error::Unsupported {
            detail: format!(
                "VM {name} boots by UEFI, and its NVRAM ({nvram}) is not where Vmyard's are: its snapshots would be without it"
            ),
            hint: Some(format!(
                "with the VM off, copy it to {} in the directory of pool {pool_name}, and name that in <nvram> (virsh edit)",
                nvram::file_of(vm.id)
            )),
        });
    }
    let next = view.at_next_start.as_ref();
    Ok(VmRecord {
        id: vm.id,
        name,
        node: vm.node.name().to_owned(),
        domain: view.name.clone(),
        phase: VmPhase::Ready,
        spec: VmSpec {
            template: system.and_then(|system| system.template),
            template_name: None,
            pool,
            pool_name,
            vcpus: next.map_or(view.vcpus, |next| next.vcpus),
            max_vcpus: view.max_vcpus,
            memory_mib: next.map_or(view.memory_mib, |next| next.memory_mib),
            max_memory_mib: view.max_memory_mib,
            disk_bytes: system.map_or(0, |system| system.size_bytes),
            tags: Default::default(),
            description: String::new(),
            user: None,
            cloud_init: None,
            firmware: if view.uefi { Firmware::Uefi } else { Firmware::Bios },
            reserved: Vec::new(),
        },
        created_at: Time::now(),
        revision: 1,
    })
}

/// `release-vm`
pub async fn release(context: Context, request: ReleaseVm) -> Result<Work<ReleasedVm>> {
    let app = &context.app;
    let locks = [Lock::Power, Lock::Disk];
    let (vm, held) = Subject::lock(app, &request.vm, &locks, context.task, ReleaseVm::NAME)?;
    let Some(record) = vm.entry.record.clone() else {
        return Err(Error::WrongState { detail: format!("VM {} is not Vmyard's", vm.entry.name()), hint: None });
    };
    let before = vm.node.before_change(vm.id).await?;
    let snapshots = snapshot::ready_of(app, vm.id).await?;
    if !snapshots.is_empty() {
        return Err(Error::WrongState {
            detail: format!("VM {} has {} snapshots, which nobody would know any more", record.name, snapshots.len()),
            hint: Some("delete them first (delete-snapshot)".to_owned()),
        });
    }
    let volumes = app.store.volumes_of_vm(vm.id).await?;
    if let Some(volume) = volumes.iter().find(|volume| volume.phase != VolumePhase::Ready) {
        return Err(Error::WrongState {
            detail: format!("volume {} of VM {} is on its way out", volume.name, record.name),
            hint: Some("wait until it is gone, or stop the VM".to_owned()),
        });
    }
    let reply = ReleasedVm {
        id: vm.id,
        name: record.name.clone(),
        domain: record.domain.clone(),
        node: vm.node.name().to_owned(),
        disks: volumes.iter().map(|volume| volume.path.clone()).collect(),
    };
    let outline = Outline::of(&["unmark-domain", "forget-vm"]).on(&vm.node);
    Ok(Work::new(vm.target(), held, outline, move |task| async move {
        let (app, node) = (&task.app, &vm.node);
        let labels = Labels { title: before.labels.title.clone(), element: None };
        let undo = Undo::RestoreLabels { node: node.name().to_owned(), vm: vm.id, labels: before.labels };
        task.step("unmark-domain", Some(undo), async { Ok(node.relabel(vm.id, labels).await?) }).await?;
        let written =
            serde_json::to_string(&reply).map_err(|error| Error::Internal(format!("write a reply: {error}")))?;
        task.last_step("forget-vm", None, app.store.release_vm(vm.id, task.id, &written)).await?;
        for volume in volumes {
            app.index.drop_volume(volume.id);
        }
        app.index.drop_record(vm.id);
        app.credential_checks.forget_vm(vm.id);
        observe::refresh_after(app, node, vm.id).await;
        Ok(reply)
    }))
}
