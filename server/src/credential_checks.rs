//! Resets of passwords and keys that a guest takes over when it boots: kept in memory beside the store, and looked at through the
//! guest's agent once it has booted. No lock is held meanwhile.

use crate::{
    App, Result, events,
    store::{Boot, CheckRecord, NewEvent},
    sync::lock,
};
use api::{
    Time,
    credential::{CheckState, CredentialCheck, CredentialKind},
    event::EventKind,
};
use hypervisor::{ErrorKind, Node, domain::Power};
use serde_json::json;
use std::{
    collections::HashMap,
    sync::Mutex,
    time::{Duration, Instant},
};
use uuid::Uuid;

/// How long a guest that has booted has to tell what came of it.
const TELL: Duration = Duration::from_secs(900);
/// Linux's id of a boot.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Where cloud-init says, at the end of each boot, that it is done.
const RESULT: &str = "/run/cloud-init/result.json";

/// What cloud-init knows a reset by.
pub fn once_name(task: Uuid) -> String {
    // It makes underscores of hyphens.
    format!("vmyard_{}", task.simple())
}

/// Where cloud-init-per notes that it has run something once, and how that ended.
fn once_mark(task: Uuid) -> String {
    format!("/var/lib/cloud/sem/bootper.{}.once", once_name(task))
}

/// The boot that a running guest's agent tells, if it does.
pub async fn boot_of(node: &Node, vm: Uuid) -> Boot {
    match node.guest_file(vm, BOOT_ID).await {
        Ok(Some(id)) => Boot::Id(String::from_utf8_lossy(&id).trim().to_owned()),
        _ => Boot::Unknown,
    }
}

/// The last reset of each user of each VM.
#[derive(Default)]
pub struct CredentialChecks {
    known: Mutex<HashMap<Uuid, Vec<Known>>>,
}

struct Known {
    record: CheckRecord,
    /// How often the guest had been reset; `None` when the server was started later.
    resets: Option<u64>,
    /// Whether it was seen off since.
    was_off: bool,
    /// When it was first seen to have booted since.
    booted: Option<Instant>,
}

impl CredentialChecks {
    /// Those of the store.
    pub fn new(records: Vec<CheckRecord>) -> CredentialChecks {
        let checks = CredentialChecks::default();
        for record in records {
            checks.put(record, None);
        }
        checks
    }

    /// A new one, in place of that user's earlier one.
    pub fn put(&self, record: CheckRecord, resets: Option<u64>) {
        self.forget(record.vm, &record.user, record.kind);
        let was_off = record.boot == Boot::Off;
        let known = Known { record, resets, was_off, booted: None };
        lock(&self.known).entry(known.record.vm).or_default().push(known);
    }

    /// That of a user.
    pub fn get(&self, vm: Uuid, user: &str, kind: CredentialKind) -> Option<CheckRecord> {
        let known = lock(&self.known);
        let found = known.get(&vm)?.iter().find(|known| known.record.user == user && known.record.kind == kind)?;
        Some(found.record.clone())
    }

    /// Forgets that of a user.
    pub fn forget(&self, vm: Uuid, user: &str, kind: CredentialKind) {
        if let Some(known) = lock(&self.known).get_mut(&vm) {
            known.retain(|known| known.record.user != user || known.record.kind != kind);
        }
    }

    /// Forgets those of a VM.
    pub fn forget_vm(&self, vm: Uuid) {
        lock(&self.known).remove(&vm);
    }

    /// Those of a VM, on the wire.
    pub fn of(&self, vm: Uuid) -> Vec<CredentialCheck> {
        let known = lock(&self.known);
        let mut checks: Vec<_> = known.get(&vm).into_iter().flatten().map(|known| to_wire(&known.record)).collect();
        checks.sort_by_key(|check| check.created_at.0);
        checks
    }

    /// The VMs with one that isn't settled.
    pub fn waiting(&self) -> Vec<Uuid> {
        let is_open = |known: &Known| known.record.state == CheckState::Pending;
        lock(&self.known).iter().filter(|(_, known)| known.iter().any(is_open)).map(|(vm, _)| *vm).collect()
    }

    /// Takes in what state a VM is in; returns those of its checks that may be settled: the guest runs. With each, since when it has
    /// been known to have booted.
    fn see(&self, vm: Uuid, power: Power, resets: u64) -> Vec<(CheckRecord, Option<Instant>)> {
        let mut all = lock(&self.known);
        let mut open = Vec::new();
        for known in all.get_mut(&vm).into_iter().flatten() {
            if known.record.state != CheckState::Pending {
                continue;
            }
            if power == Power::Off {
                (known.was_off, known.booted) = (true, None);
                continue;
            }
            let reset = known.resets.is_some_and(|before| resets > before);
            if (known.was_off || reset) && known.booted.is_none() {
                known.booted = Some(Instant::now());
            }
            if power == Power::Running {
                open.push((known.record.clone(), known.booted));
            }
        }
        open
    }

    /// Takes in what came of one, unless another has taken its place.
    fn settle(&self, record: &CheckRecord) -> bool {
        let mut all = lock(&self.known);
        let mut known = all.get_mut(&record.vm).into_iter().flatten();
        match known.find(|known| known.record.task == record.task) {
            Some(known) => {
                known.record = record.clone();
                true
            }
            None => false,
        }
    }
}

fn to_wire(record: &CheckRecord) -> CredentialCheck {
    CredentialCheck {
        user: record.user.clone(),
        kind: record.kind,
        state: record.state,
        reason: record.reason.clone(),
        task: record.task,
        created_at: record.created_at,
        checked_at: record.checked_at,
    }
}

/// Looks at what a VM's guest has made of its resets, as far as it can be told now.
pub async fn look(app: &App, node: &Node, vm: Uuid) -> Result<()> {
    let Some(seen) = app.index.get(vm).and_then(|entry| entry.seen) else { return Ok(()) };
    for (mut record, booted) in app.credential_checks.see(vm, seen.power, seen.resets) {
        let told = match seen.view.agent_connected {
            true => ask(node, &record, booted.is_some()).await,
            false => None,
        };
        let late = || booted.is_some_and(|booted| booted.elapsed() > TELL);
        let told = told.or_else(|| {
            let why = "the guest has booted, and no guest agent tells what came of it; try to log in";
            late().then(|| (CheckState::Unknown, Some(why.to_owned())))
        });
        let Some((state, reason)) = told else { continue };
        (record.state, record.reason, record.checked_at) = (state, reason, Some(Time::now()));
        let name = app.index.name_of(vm);
        app.store.credential_checked(&record, event(&record, name)).await?;
        if app.credential_checks.settle(&record) {
            tracing::info!(%vm, user = record.user, kind = record.kind.as_str(), state = state.as_str(), "a reset was checked");
        }
    }
    Ok(())
}

/// What is told of a reset that is settled.
fn event(record: &CheckRecord, name: String) -> NewEvent {
    let (credential, state) = (record.kind.as_str(), record.state.as_str());
    let why = record.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
    let message = format!("{name}: the reset of {}'s {credential} is {state}{why}", record.user);
    let details = json!({"user": record.user, "credential": credential, "state": state, "reason": record.reason});
    let (vm, vm_name, task) = (Some(record.vm), Some(name), Some(record.task));
    NewEvent { vm, vm_name, task, ..events::general(EventKind::VmCredentials, message, details) }
}

/// What the agent tells of a reset; `None` when it is too early.
async fn ask(node: &Node, check: &CheckRecord, has_booted: bool) -> Option<(CheckState, Option<String>)> {
    let mark = once_mark(check.task);
    let read = |path| node.guest_file(check.vm, path);
    match read(&mark).await {
        Ok(Some(mark)) => {
            let mark = String::from_utf8_lossy(&mark).into_owned();
            return Some(match mark.split_whitespace().next() {
                Some("0") => (CheckState::Verified, None),
                status => {
                    let status = status.unwrap_or("?");
                    (CheckState::Failed, Some(format!("the guest's commands ended with status {status}")))
                }
            });
        }
        Ok(None) => {}
        Err(error) if error.kind == ErrorKind::AgentRefused => {
            let why = format!("the guest agent doesn't tell: {}; try to log in", error.cause);
            return has_booted.then_some((CheckState::Unknown, Some(why)));
        }
        Err(_) => return None,
    }
    let booted = match &check.boot {
        Boot::Id(_) => match boot_of(node, check.vm).await {
            Boot::Unknown => has_booted,
            now => now != check.boot,
        },
        Boot::Off | Boot::Unknown => has_booted,
    };
    if !booted || read(RESULT).await.ok()?.is_none() {
        return None;
    }
    let why = format!(
        "cloud-init is done and has not made the reset: is there a user {} in the guest? /var/log/cloud-init.log says more",
        check.user
    );
    Some((CheckState::Failed, Some(why)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(boot: Boot) -> CheckRecord {
        CheckRecord {
            vm: Uuid::nil(),
            user: "ann".into(),
            kind: CredentialKind::Password,
            task: Uuid::now_v7(),
            state: CheckState::Pending,
            reason: None,
            boot,
            created_at: Time(1),
            checked_at: None,
        }
    }

    #[test]
    fn a_guest_has_booted_when_it_was_off_or_was_reset() {
        let booted = |checks: &CredentialChecks, power, resets| {
            checks.see(Uuid::nil(), power, resets).first().is_some_and(|(_, booted)| booted.is_some())
        };
        let checks = CredentialChecks::default();
        checks.put(record(Boot::Unknown), Some(3));
        assert!(!booted(&checks, Power::Running, 3) && booted(&checks, Power::Running, 4));
        checks.put(record(Boot::Off), None);
        assert!(!booted(&checks, Power::Off, 0) && booted(&checks, Power::Running, 0));
        // After a start of the server a reset isn't told from those before.
        checks.put(record(Boot::Unknown), None);
        assert!(!booted(&checks, Power::Running, 9));
        assert!(!booted(&checks, Power::Off, 9) && booted(&checks, Power::Running, 9));
        // A later one has taken its place.
        let first = record(Boot::Off);
        checks.put(first.clone(), None);
        checks.put(record(Boot::Off), None);
        assert!(!checks.settle(&first) && checks.of(Uuid::nil()).len() == 1);
    }
}
