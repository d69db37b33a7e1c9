//! Virtual machines.

pub mod adopt;
mod ask;
mod cloud_init;
pub mod create;
pub mod credential;
pub mod delete;
pub mod describe;
pub mod diagnose;
pub mod disk;
pub mod exec;
mod guest_agent;
pub mod list;
pub mod metrics;
pub mod modify;
pub(super) mod nics;
mod place;
pub mod power;
pub mod reset;

pub(super) use ask::{Device, until_let_go};

use crate::{
    App, Error, Result,
    index::Entry,
    store::{VmPhase, VmRecord},
    task::{Held, Lock},
};
use api::task::Target;
use hypervisor::{
    ErrorKind, Node, Status,
    domain::{DomainText, Power},
};
use uuid::Uuid;

/// A VM that a call works on, or looks into: it is there, and its node answers.
pub(super) struct Subject {
    pub(super) id: Uuid,
    pub(super) entry: Entry,
    pub(super) node: Node,
}

impl Subject {
    /// The VM of this name or id. One that is being made or deleted is `busy`.
    pub(super) fn find(app: &App, reference: &str) -> Result<Subject> {
        let (id, entry) = app.index.resolve(reference)?;
        let node = app.node(&entry.node)?.clone();
        match entry.record.as_ref().map(|record| record.phase) {
            Some(VmPhase::Creating) => {
                Err(Error::Busy { detail: format!("VM {} is being created", entry.name()), task: None })
            }
            Some(VmPhase::Deleting) => {
                Err(Error::Busy { detail: format!("VM {} is being deleted", entry.name()), task: None })
            }
            _ => Ok(Subject { id, entry, node }),
        }
    }

    /// The VM of this name or id, locked. It is looked up again under the lock: it may have been deleted in between.
    pub(super) fn lock(
        app: &App,
        reference: &str,
        locks: &[Lock],
        task: Uuid,
        method: &'static str,
    ) -> Result<(Subject, Vec<Held>)> {
        let found = Subject::find(app, reference)?;
        let held = app.locks.take(found.id, found.entry.name(), locks, task, method)?;
        Ok((found.again(app)?, held))
    }

    /// The same for a change of its disks or devices.
    pub(super) async fn lock_whole(
        app: &App,
        reference: &str,
        task: Uuid,
        method: &'static str,
    ) -> Result<(Subject, Vec<Held>)> {
        let (vm, held) = Subject::lock(app, reference, &[Lock::Power, Lock::Disk], task, method)?;
        vm.is_not_suspended().await?;
        Ok((vm, held))
    }

    /// Fails where it is off and keeps the memory of a run: that would go on with the disks and devices that it had, and write to
    /// images that are a snapshot's by then, or another VM's.
    pub(super) async fn is_not_suspended(&self) -> Result<()> {
        match self.node.has_saved_memory(self.id).await? {
            true => Err(self.suspended()),
            false => Ok(()),
        }
    }

    pub(super) fn suspended(&self) -> Error {
        let (name, node) = (self.entry.name(), self.node.name());
        let domain = self.entry.record.as_ref().map_or(name, |record| &record.domain);
        Error::WrongState {
            detail: format!(
                "VM {name} is suspended with its memory (virsh managedsave), and goes on from there with what it has"
            ),
            hint: Some(format!(
                "start it (start-vm) and shut it down, or drop that memory: virsh managedsave-remove {domain} on node {node}"
            )),
        }
    }

    /// The same VM as it is now.
    fn again(&self, app: &App) -> Result<Subject> {
        Subject::find(app, &self.id.to_string())
    }

    pub(super) fn target(&self) -> Target {
        Target { kind: "vm".to_owned(), id: self.id, name: self.entry.name().to_owned() }
    }

    /// Its record, where Vmyard made it. Of another one's definition Vmyard leaves this part alone.
    pub(super) fn record(&self, part: &str, by_hand: &str) -> Result<&VmRecord> {
        self.entry.record.as_ref().ok_or_else(|| Error::Unsupported {
            detail: format!("VM {} was not made by Vmyard, which doesn't change its {part}", self.entry.name()),
            hint: Some(format!("virsh {by_hand} {} on node {}", self.entry.name(), self.node.name())),
        })
    }

    /// Its power state as its node tells it now, which the index takes in.
    pub(super) async fn power(&self, app: &App) -> Result<Power> {
        crate::observe::refresh(app, &self.node, self.id).await?;
        let power = app.index.get(self.id).and_then(|entry| entry.power());
        power.ok_or_else(|| self.no_domain())
    }

    /// What it is now and what its definition says, as its node tells it.
    pub(super) async fn text(&self) -> Result<DomainText> {
        self.node.domain_text(self.id).await?.ok_or_else(|| self.no_domain())
    }

    fn no_domain(&self) -> Error {
        Error::WrongState {
            detail: format!("VM {} has no domain on node {} any more", self.entry.name(), self.node.name()),
            hint: Some("it was undefined outside of Vmyard; delete-vm clears what is left".to_owned()),
        }
    }
}

/// What a VM must be, and is not.
pub(super) fn wrong_power(name: &str, is: Power, needed: &str, hint: &str) -> Error {
    let is = match is {
        Power::Running => "running",
        Power::Paused => "paused",
        Power::Off => "shutoff",
    };
    Error::WrongState { detail: format!("VM {name} is {is}, it must be {needed}"), hint: Some(hint.to_owned()) }
}

/// libvirt's words for a domain without a free PCI slot, in ours.
pub(super) fn no_port_left(error: Error, vm: &str, device: &str) -> Error {
    match &error {
        Error::Node(cause) if cause.kind == ErrorKind::Failed && cause.cause.contains("PCI") => Error::Unsupported {
            detail: format!("VM {vm} has no free PCI port for another {device}"),
            hint: Some("detach a volume or an interface first, or attach it while the VM is off".to_owned()),
        },
        _ => error,
    }
}

/// Whether a node answers.
fn is_up(node: &Node) -> bool {
    node.status().0 == Status::Up
}

/// Whether a node that gave this error may well answer a moment later.
pub(super) fn is_passing(error: &hypervisor::Error) -> bool {
    matches!(error.kind, ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Busy)
}
