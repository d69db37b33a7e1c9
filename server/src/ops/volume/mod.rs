//! Storage volumes: those that Vmyard made, by their rows, and what else libvirt has in its pools.

pub mod attach;
pub mod create;
pub mod delete;
pub mod detach;
pub mod list;
pub mod resize;

pub(super) use create::gone;

use super::{
    find,
    vm::{self, wrong_power},
};
use crate::{
    App, Error, Result,
    size::gib,
    store::{VolumePhase, VolumeRecord},
    task::{Held, Lock},
};
use api::{
    task::Target,
    volume::{Volume, VolumeState},
};
use hypervisor::{Node, domain::Power, storage::VolumeView};
use uuid::Uuid;

/// A volume of ours that a mutating call works on.
pub(super) struct Subject {
    pub(super) record: VolumeRecord,
    pub(super) node: Node,
}

impl Subject {
    /// The volume of this name or id, in this pool and on this node where they are named. One that is being made or
    /// deleted is `busy`.
    pub(super) async fn find(app: &App, reference: &str, pool: Option<&str>, node: Option<&str>) -> Result<Subject> {
        let named = |wanted: &str, name: &str, id: Uuid| {
            wanted.eq_ignore_ascii_case(name) || Uuid::try_parse(wanted).is_ok_and(|wanted| wanted == id)
        };
        let node = node.map(|node| app.node(node)).transpose()?;
        let mut found = app.store.volumes_named(reference).await?;
        found.retain(|volume| {
            pool.is_none_or(|pool| named(pool, &volume.pool_name, volume.pool))
                && node.as_ref().is_none_or(|node| node.name() == volume.node)
        });
        if found.is_empty() {
            return Err(not_ours(app, reference, pool, node.as_ref()).await);
        }
        let name_and_id = |volume: &VolumeRecord| {
            (volume.name.clone(), Some(volume.id), format!("{} of {}", volume.pool_name, volume.node))
        };
        let record = find::only_one("volume", reference, found, name_and_id)?;
        match record.phase {
            VolumePhase::Creating => Err(busy(&record, "made")),
            VolumePhase::Deleting => Err(busy(&record, "deleted")),
            VolumePhase::Ready | VolumePhase::Detaching => Ok(Subject { node: app.node(&record.node)?, record }),
        }
    }

    /// Locks the volume, and looks it up again under the lock.
    pub(super) async fn lock(self, app: &App, task: Uuid, method: &'static str) -> Result<(Subject, Held)> {
        let held = app.locks.take(self.record.id, &self.record.name, &[Lock::Disk], task, method)?;
        let again = Subject::find(app, &self.record.id.to_string(), None, None).await?;
        // One lock was asked for.
        let held = held.into_iter().next().ok_or_else(|| Error::Internal("a lock was not given".to_owned()))?;
        Ok((again, held))
    }

    fn target(&self) -> Target {
        target(&self.record)
    }
}

fn target(record: &VolumeRecord) -> Target {
    Target { kind: "volume".to_owned(), id: record.id, name: record.name.clone() }
}

fn busy(record: &VolumeRecord, what: &str) -> Error {
    Error::Busy { detail: format!("volume {} is being {what}", record.name), task: None }
}

/// Why there is no volume of ours of this name: there may be something else of it.
async fn not_ours(app: &App, reference: &str, pool: Option<&str>, node: Option<&Node>) -> Error {
    if let Ok(Some(template)) = app.store.template(reference).await {
        return Error::Unsupported {
            detail: format!("{reference} is a template, which stays as it is"),
            hint: Some(format!("create-volume with \"template\": {:?} makes a volume of it", template.name)),
        };
    }
    match list::rows(app, node.map(Node::name), pool).await {
        Ok((rows, _)) if rows.iter().any(|row| row.name == reference) => Error::Unsupported {
            detail: format!("volume {reference} was not made by Vmyard, which doesn't know who else uses it"),
            hint: Some(
                "register-template with its path as file makes a template of it, and create-volume a volume of that"
                    .to_owned(),
            ),
        },
        _ => Error::not_found("volume", reference),
    }
}

/// Locks a volume, and the VM that has it, which must be off: nobody writes to its image as long as the locks are held. `hint`
/// says what else to do.
pub(super) async fn lock_unused(
    app: &App,
    reference: &str,
    task: Uuid,
    method: &'static str,
    hint: impl FnOnce(&VolumeRecord) -> String,
) -> Result<(Subject, Vec<Held>)> {
    let (subject, lock) = Subject::find(app, reference, None, None).await?.lock(app, task, method).await?;
    let mut held = vec![lock];
    if let Some((holder, locks)) = lock_holder(app, &subject.record, task, method).await? {
        held.extend(locks);
        match holder.power(app).await? {
            Power::Off => {}
            power => return Err(wrong_power(holder.entry.name(), power, "shutoff", &hint(&subject.record))),
        }
    }
    Ok((subject, held))
}

/// Locks the VM that has a volume.
async fn lock_holder(
    app: &App,
    volume: &VolumeRecord,
    task: Uuid,
    method: &'static str,
) -> Result<Option<(vm::Subject, Vec<Held>)>> {
    let Some(holder) = volume.vm else { return Ok(None) };
    Ok(Some(vm::Subject::lock_whole(app, &holder.to_string(), task, method).await?))
}

/// A volume's virtual size, in bytes. What a raw one's own header says is not believed: its guest may have written it.
fn size_of(record: &VolumeRecord, view: &VolumeView) -> u64 {
    if view.format == record.format { view.capacity } else { record.size_bytes }
}

/// Fails unless a new image lies where its row, which was written before, says.
pub(super) fn lies_at(made: &str, path: &str) -> Result<()> {
    match made == path {
        true => Ok(()),
        false => Err(Error::Internal(format!("an image lies at {made}, not at {path}"))),
    }
}

/// The volume with this id on the wire, as its node tells it, or without what only the node knows.
pub async fn of_id(app: &App, id: Uuid) -> Result<Volume> {
    let record = app.store.volume(id).await?.ok_or_else(|| Error::not_found("volume", id.to_string()))?;
    let view = match app.node(&record.node) {
        Ok(node) => node.volume(record.pool, &record.file).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "a volume is told without what its node knows of it");
            None
        }),
        Err(_) => None,
    };
    let user = record.vm.and_then(|vm| app.index.get(vm)).map(|entry| entry.name().to_owned());
    let user = user.map(|vm| (vm, record.device.clone()));
    Ok(of_record(&record, view.as_ref(), user.as_ref()))
}

/// A volume of ours on the wire. What its own header says of a raw one is not believed: its guest may have written it.
fn of_record(record: &VolumeRecord, view: Option<&VolumeView>, user: Option<&(String, Option<String>)>) -> Volume {
    let size = view.map_or(record.size_bytes, |view| size_of(record, view));
    Volume {
        id: Some(record.id),
        name: record.name.clone(),
        pool: record.pool_name.clone(),
        node: record.node.clone(),
        path: record.path.clone(),
        format: record.format.clone(),
        size_gib: gib(size),
        size_bytes: size,
        allocation_bytes: view.map(|view| view.allocation),
        state: match record.phase {
            VolumePhase::Creating => VolumeState::Creating,
            VolumePhase::Deleting => VolumeState::Deleting,
            VolumePhase::Detaching => VolumeState::Detaching,
            VolumePhase::Ready if user.is_some() || record.vm.is_some() => VolumeState::Attached,
            VolumePhase::Ready => VolumeState::Available,
        },
        vm: user.map(|(vm, _)| vm.clone()),
        device: user.and_then(|(_, device)| device.clone()).or_else(|| record.device.clone()),
        backing: view.filter(|_| record.format != "raw").and_then(|view| view.backing.clone()),
        backing_chain: None,
        overlays: None,
        template: record.template,
        created_at: Some(record.created_at),
    }
}
