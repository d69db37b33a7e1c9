//! ISO images in the CD-ROM drives of VMs.

use super::{find::pool_on, vm::Subject};
use crate::{
    App, Context, Error, Result, observe,
    task::{Outline, Undo, Work},
};
use api::{
    Rpc,
    iso::{AttachIso, EjectIso},
    vm::Vm,
};
use hypervisor::{
    Node,
    domain::{Drive, Power},
};

/// The path of the ISO image that this file of a pool is. What Vmyard has made is none, whatever is in it: a guest could have
/// written it.
pub async fn find(app: &App, node: &Node, file: &str, pool: Option<&str>) -> Result<String> {
    let pool = pool_on(node, pool).await?;
    let missing = || Error::NotFoundOn {
        kind: "ISO image",
        name: format!("{file} in storage pool {}", pool.name),
        node: node.name().to_owned(),
    };
    let volume = node.volume(pool.uuid, file).await?.ok_or_else(missing)?;
    if app.store.names_image(node.name(), &volume.path).await? {
        return Err(Error::field("iso", format!("{file} is an image of Vmyard's own, not an ISO image")));
    }
    match node.is_iso(pool.uuid, file).await? {
        Some(true) => Ok(volume.path),
        Some(false) => Err(Error::field("iso", format!("{file} is not an ISO 9660 image"))),
        None => Err(missing()),
    }
}

/// `attach-iso`
pub async fn attach(context: Context, request: AttachIso) -> Result<Work<Vm>> {
    let vm = lock(&context, &request.vm, AttachIso::NAME).await?;
    let iso = find(&context.app, &vm.0.node, &request.iso, request.pool.as_deref()).await?;
    change(context, vm, Some(iso), request.force).await
}

/// `eject-iso`
pub async fn eject(context: Context, request: EjectIso) -> Result<Work<Vm>> {
    let vm = lock(&context, &request.vm, EjectIso::NAME).await?;
    change(context, vm, None, request.force).await
}

type Locked = (Subject, Vec<crate::task::Held>);

async fn lock(context: &Context, vm: &str, method: &'static str) -> Result<Locked> {
    let locked = Subject::lock_whole(&context.app, vm, context.task, method).await?;
    locked.0.record("CD-ROM drive", "change-media")?;
    Ok(locked)
}

/// Puts another image into the drive, or none; what was in it goes back in when that is cut off.
async fn change(context: Context, (vm, held): Locked, iso: Option<String>, force: bool) -> Result<Work<Vm>> {
    let power = vm.power(&context.app).await?;
    let name = vm.entry.name();
    let drive = vm.node.drive(vm.id, Drive::Iso).await?.ok_or_else(|| Error::not_found("domain of VM", name))?;
    match drive {
        (false, _) if iso.is_none() => {
            return Err(Error::WrongState {
                detail: format!("VM {name} has no CD-ROM drive for ISO images"),
                hint: None,
            });
        }
        (false, _) if power != Power::Off => {
            return Err(Error::Unsupported {
                detail: format!("VM {name} has no CD-ROM drive, and can get one only while it is off"),
                hint: Some("stop it first (stop-vm)".to_owned()),
            });
        }
        (true, None) if iso.is_none() => {
            return Err(Error::WrongState { detail: format!("the CD-ROM drive of VM {name} is empty"), hint: None });
        }
        _ => {}
    }
    let before = drive.1;
    let outline = Outline::of(&["change-medium"]).on(&vm.node);
    Ok(Work::new(vm.target(), held, outline, move |task| async move {
        let app = &task.app;
        let undo = Undo::RestoreIso { node: vm.node.name().to_owned(), vm: vm.id, iso: before };
        let changed = async { Ok(vm.node.change_medium(vm.id, Drive::Iso, iso.as_deref(), force).await?) };
        let changed = task.last_step("change-medium", Some(undo), changed).await;
        changed.map_err(|error| held_shut(error, &vm))?;
        observe::refresh_after(app, &vm.node, vm.id).await;
        app.index.to_wire(vm.id)
    }))
}

/// libvirt's words for a tray that the guest has locked, in ours.
fn held_shut(error: Error, vm: &Subject) -> Error {
    match &error {
        Error::Node(cause) if cause.cause.contains("tray") => Error::Timeout {
            detail: format!("the guest of VM {} holds on to what is in its CD-ROM drive; it stays in", vm.entry.name()),
            hint: "unmount it in the guest and try again; with force it is taken out all the same".to_owned(),
        },
        _ => error,
    }
}
