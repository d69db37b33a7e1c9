//! Setting a VM's system disk back to its template, or to another one.

use super::{Subject, create, wrong_power};
use crate::{
    Context, Error, Result, attachments, layers, nvram, observe,
    ops::{copies, snapshot, template},
    store::{Move, TemplateRecord, VmRecord, VolumeRecord, VolumeRole},
    task::{Lock, Outline, Task, Undo, Work},
};
use api::{
    Rpc,
    modify::ResetVmSystem,
    vm::{Firmware, Vm},
};
use hypervisor::{
    domain::{Labels, Power, TemplateRef},
    storage::{Backing, PoolView},
};

/// A reset with everything checked.
struct Draft {
    vm: Subject,
    record: VmRecord,
    volume: VolumeRecord,
    pool: PoolView,
    template: TemplateRecord,
    image: copies::Image,
    size_bytes: u64,
    snapshots: Vec<crate::store::SnapshotRecord>,
    context: Context,
}

/// `reset-vm-system`
pub async fn reset(context: Context, request: ResetVmSystem) -> Result<Work<Vm>> {
    let app = &context.app;
    let (vm, mut held) = Subject::lock_whole(app, &request.vm, context.task, ResetVmSystem::NAME).await?;
    let draft = check(&context, vm, request).await?;
    let volume = &draft.volume;
    held.extend(app.locks.take(volume.id, &volume.name, &[Lock::Disk], context.task, ResetVmSystem::NAME)?);
    let mut steps = Vec::new();
    steps.extend(matches!(draft.image, copies::Image::Elsewhere(_)).then_some("await-template"));
    steps.extend(["make-overlay", "switch-disks"]);
    steps.extend(draft.changes_template().then_some("change-metadata"));
    steps.push("make-ready");
    steps.extend((draft.record.spec.firmware == Firmware::Uefi).then_some("reset-nvram"));
    steps.extend((!draft.snapshots.is_empty()).then_some("delete-snapshots"));
    let copied = draft.image.to_copy();
    let outline = Outline::of(&steps).on(&draft.vm.node).allocates(copied, copied + draft.size_bytes);
    Ok(Work::new(draft.vm.target(), held, outline, move |task| make(task, draft)))
}

async fn check(context: &Context, vm: Subject, request: ResetVmSystem) -> Result<Draft> {
    let app = &context.app;
    let name = vm.entry.name();
    let Some(record) = vm.entry.record.clone() else {
        return Err(Error::Unsupported {
            detail: format!("VM {name} was not made by Vmyard, which doesn't know what it was made of"),
            hint: None,
        });
    };
    match vm.power(app).await? {
        Power::Off => {}
        power => return Err(wrong_power(name, power, "shutoff", "stop it first (stop-vm)")),
    }
    let volumes = app.store.volumes_of_vm(vm.id).await?;
    let system = volumes.into_iter().find(|volume| volume.role == VolumeRole::System);
    let volume = system.ok_or_else(|| Error::WrongState {
        detail: format!("VM {name} has no system disk"),
        hint: Some("delete it (delete-vm) and make a new one".to_owned()),
    })?;
    let disks = vm.node.disks(vm.id).await?;
    if !disks.is_some_and(|disks| disks.has_defined(&volume.path)) {
        return Err(Error::WrongState {
            detail: format!("the definition of VM {name} doesn't have its system disk {} any more", volume.path),
            hint: Some("it was changed outside of Vmyard; put it back there".to_owned()),
        });
    }
    let own = record.spec.template.map(|template| template.to_string());
    let wanted = request.template.or(own).ok_or_else(|| Error::Unsupported {
        detail: format!("VM {name} was made without a template"),
        hint: Some("name one (template)".to_owned()),
    })?;
    let template = template::ready(app, &wanted).await?;
    let seen = app.index.get(vm.id).and_then(|entry| entry.seen);
    let has_seed = seen.is_some_and(|seen| seen.view.seed().is_some());
    if template.spec.cloud_init && !has_seed {
        return Err(Error::Unsupported {
            detail: format!("template {} has cloud-init, and VM {name} has no seed for it", template.name),
            hint: Some("make a new VM of it (create-vm)".to_owned()),
        });
    }
    let copies = app.store.template_copies(Some(template.id)).await?;
    let image = copies::find(app, &vm.node, &template, &copies).await?;
    let pool = crate::ops::find::pool_on(&vm.node, Some(&volume.pool.to_string())).await?;
    let size_bytes = volume.size_bytes.max(template.spec.virtual_bytes);
    let snapshots = if request.delete_snapshots { snapshot::ready_of(app, vm.id).await? } else { Vec::new() };
    let context = context.clone();
    Ok(Draft { vm, record, volume, pool, template, image, size_bytes, snapshots, context })
}

impl Draft {
    fn changes_template(&self) -> bool {
        Some(self.template.id) != self.record.spec.template
    }
}

async fn make(task: Task, draft: Draft) -> Result<Vm> {
    let app = &task.app;
    let (vm, node, template) = (draft.vm.id, &draft.vm.node, &draft.template);
    let on = || node.name().to_owned();
    let copy = match &draft.image {
        copies::Image::Here(copy) => copy.clone(),
        copies::Image::Elsewhere(original) => {
            let copied = copies::ensure(&task, &draft.context, template, original, (node, &draft.pool));
            task.step("await-template", None, copied).await?
        }
    };
    let from = draft.volume.image();
    let to = snapshot::create::overlay_beside(&from);
    let moved = Move { volume: draft.volume.id, from, to, base: copy.path.clone(), size_bytes: draft.size_bytes };
    let delete = Undo::DeleteUnused { node: on(), image: moved.to.clone() };
    let backing = Backing { path: copy.path, format: template.spec.format.clone() };
    snapshot::create::make_overlay(&task, node, &moved, backing, delete).await?;
    let moves = [moved];
    let back = Undo::SwitchBack { node: on(), vm, moves: moves.to_vec(), cut_power: false };
    task.step("switch-disks", Some(back), async { Ok(node.switch_disks(vm, &layers::switches(&moves)).await?) })
        .await?;

    let mut record = draft.record.clone();
    if draft.changes_template() {
        (record.spec.template, record.spec.template_name) = (Some(template.id), Some(template.name.clone()));
        let before = node.before_change(vm).await?;
        let metadata = before.metadata.clone();
        let mut metadata = metadata.unwrap_or_else(|| create::metadata(&record, Some(draft.volume.id)));
        metadata.template = Some(TemplateRef { id: template.id, name: template.name.clone() });
        let labels = Labels::of(&metadata)
            .map_err(|character| Error::Internal(format!("the metadata has the character {character:?}")))?;
        let undo = Undo::RestoreLabels { node: on(), vm, labels: before.labels };
        task.step("change-metadata", Some(undo), async { Ok(node.relabel(vm, labels).await?) }).await?;
    }
    observe::refresh_after(app, node, vm).await;
    let is_reset = async {
        app.store.vm_is_reset(&mut record, &moves[0], &draft.snapshots, task.id).await?;
        app.index.put_record(record.clone());
        attachments::sync(app, draft.volume.id).await
    };
    task.last_step("make-ready", None, is_reset).await?;

    layers::delete_leftovers_soon(app, node);
    if draft.record.spec.firmware == Firmware::Uefi {
        // The variables of the old system's boot loader; libvirt makes new ones at the next start.
        let file = nvram::file_of(vm);
        let deleted = node.delete_volumes(draft.record.spec.pool, &file);
        task.step("reset-nvram", None, async { Ok(deleted.await.map(|_| ())?) }).await?;
    }
    if !draft.snapshots.is_empty() {
        task.step("delete-snapshots", None, snapshot::delete::work_off(app, node, vm)).await?;
    }
    app.index.to_wire(vm)
}
