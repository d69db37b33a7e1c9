//! Waiting until a guest lets go of a device.

use super::{Subject, is_passing};
use crate::{App, Error, Result};
use hypervisor::{
    ErrorKind,
    domain::{DomainView, Power},
};
use std::time::{Duration, Instant};

/// How often it is asked: a guest that is still in its firmware doesn't hear it.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// How often the domain is read while waiting, beside the events.
const LOOK: Duration = Duration::from_secs(2);

/// A device that a guest is to let go of.
pub(in crate::ops) enum Device<'a> {
    /// The disk with this image.
    Disk(&'a str),
    /// The interface of this hardware address.
    Nic(&'a str),
}

impl Device<'_> {
    async fn ask(&self, vm: &Subject) -> hypervisor::Result<()> {
        match self {
            Device::Disk(path) => vm.node.ask_for_disk(vm.id, path).await,
            Device::Nic(mac) => vm.node.ask_for_nic(vm.id, mac).await,
        }
    }

    /// Whether the domain has it now.
    pub(in crate::ops) async fn is_held(&self, vm: &Subject) -> Result<bool> {
        let held = match self {
            Device::Disk(path) => {
                let disks = vm.node.disks(vm.id).await?;
                disks.is_some_and(|disks| disks.power != Power::Off && disks.has_live(path))
            }
            Device::Nic(mac) => {
                let nics = vm.node.nics(vm.id).await?;
                nics.is_some_and(|nics| nics.power != Power::Off && nics.live(mac).is_some())
            }
        };
        Ok(held)
    }

    /// Whether the domain was last seen with it.
    fn is_seen(&self, view: &DomainView) -> bool {
        match self {
            Device::Disk(path) => view.disks.iter().any(|disk| disk.path.as_deref() == Some(path)),
            Device::Nic(mac) => view.nics.iter().any(|nic| nic.mac.eq_ignore_ascii_case(mac)),
        }
    }
}

/// Asks the guest until it has let go, or until the timeout; returns whether it has.
pub(in crate::ops) async fn until_let_go(
    app: &App,
    vm: &Subject,
    device: &Device<'_>,
    timeout: Duration,
) -> Result<bool> {
    let deadline = Instant::now() + timeout;
    let (mut changes, mut ask_at) = (app.index.changes(), Instant::now());
    loop {
        if Instant::now() >= ask_at {
            ask_at = Instant::now() + ASK_AGAIN;
            match device.ask(vm).await {
                // It went off in between, or the node is away for a moment.
                Err(error) if error.kind == ErrorKind::WrongState || is_passing(&error) => {}
                asked => asked?,
            }
        }
        match device.is_held(vm).await {
            Ok(false) => return Ok(true),
            Err(Error::Node(error)) if is_passing(&error) => {}
            has => drop(has?),
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        let pause = LOOK.min(deadline.saturating_duration_since(Instant::now()));
        let seen_without = || {
            let seen = app.index.get(vm.id).and_then(|entry| entry.seen);
            seen.is_none_or(|seen| !device.is_seen(&seen.view))
        };
        let changed = async { while changes.changed().await.is_ok() && !seen_without() {} };
        tokio::select! {
            () = changed => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}
