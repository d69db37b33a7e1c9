//! Passwords and SSH keys of guests' users: which method is taken, and what came of it.

mod agent;
pub mod keypair;
mod offline;
pub mod password;
mod seed;

use super::{Subject, guest_agent};
use crate::{
    App, Context, Error, Result, credential_checks,
    passwords::Password,
    store::{Boot, CheckRecord, VolumeRecord},
    task::{Held, Lock, Outline, Task},
};
use api::{
    Rpc, Time,
    credential::{
        Applied, CheckState, CredentialKind, CredentialMethod, KeypairReset, PasswordReset, ResetMethod,
        ResetVmKeypair, Tried, TriedOutcome,
    },
};
use hypervisor::domain::Power;
use seed::NewSeed;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;
use uuid::Uuid;

/// The methods that `auto` tries, the best first.
const BEST_FIRST: [CredentialMethod; 3] =
    [CredentialMethod::GuestAgent, CredentialMethod::CloudInit, CredentialMethod::VirtCustomize];

/// What a user is given.
pub(super) enum Credential {
    /// A password, by its `$6$` hash.
    Password(String),
    /// Keys, in place of those that are there.
    Keys(Vec<String>),
}

impl Credential {
    fn kind(&self) -> CredentialKind {
        match self {
            Credential::Password(_) => CredentialKind::Password,
            Credential::Keys(_) => CredentialKind::SshKeys,
        }
    }

    /// What it is, in an error.
    fn what(&self) -> &'static str {
        match self {
            Credential::Password(_) => "password",
            Credential::Keys(_) => "SSH keys",
        }
    }
}

/// A reset with everything checked.
struct Draft {
    vm: Subject,
    user: String,
    credential: Credential,
    method: CredentialMethod,
    tried: Vec<Tried>,
    /// What comes into the seed's drive: with cloud-init the reset, with another method the seed without an earlier one, which would
    /// come over this one at the next boot.
    seed: Option<NewSeed>,
    /// That earlier one.
    waiting: Option<CheckRecord>,
    /// The disk that virt-customize changes, and the password in the clear, which it hashes itself.
    offline: Option<(VolumeRecord, Option<Arc<Password>>)>,
    /// The guest's boot now.
    boot: Boot,
    /// How often the guest was reset.
    resets: u64,
    reboot: bool,
}

/// What came of it, as far as it is journalled.
#[derive(Clone, Serialize, Deserialize)]
struct Done {
    user: String,
    method: CredentialMethod,
    tried: Vec<Tried>,
    applied: Applied,
    verified: bool,
    reboot_asked: bool,
    /// The keys; none with a password.
    ssh_keys: Vec<String>,
    /// What is weak about the password.
    warnings: Vec<String>,
    /// Whether the password was made here.
    is_made: bool,
}

/// What is asked for.
struct Wanted<'a> {
    vm: &'a str,
    user: String,
    method: ResetMethod,
    credential: Credential,
    /// The password in the clear.
    password: Option<Arc<Password>>,
    reboot: bool,
    name: &'static str,
}

/// Locks the VM and finds the method that will do.
async fn check(context: &Context, wanted: Wanted<'_>) -> Result<(Draft, Vec<Held>)> {
    let app = &context.app;
    // Both: a reset may change what is in a drive, or what is on a disk.
    let locks = [Lock::Power, Lock::Disk];
    let (vm, mut held) = Subject::lock(app, wanted.vm, &locks, context.task, wanted.name)?;
    let Wanted { user, credential, password, reboot, .. } = wanted;
    if credential.kind() == CredentialKind::SshKeys {
        takes_keys(app, &vm).await?;
    }
    let power = vm.power(app).await?;
    let mut tried = Vec::new();
    let look = |method| look(app, &vm, &user, &credential, power, method);
    let method = match wanted.method {
        ResetMethod::GuestAgent => look(CredentialMethod::GuestAgent).await?,
        ResetMethod::CloudInit => look(CredentialMethod::CloudInit).await?,
        ResetMethod::VirtCustomize => look(CredentialMethod::VirtCustomize).await?,
        ResetMethod::Auto => {
            let mut found = None;
            for method in BEST_FIRST {
                match look(method).await {
                    Ok(method) => {
                        found = Some(method);
                        break;
                    }
                    // The request's own fault.
                    Err(error @ Error::Invalid(_)) => return Err(error),
                    Err(error) => {
                        let reason = Some(error.to_string());
                        tried.push(Tried { method, outcome: TriedOutcome::Skipped, reason });
                    }
                }
            }
            found.ok_or_else(|| none_will_do(&vm, power, &tried))?
        }
    };
    let waiting = app.credential_checks.get(vm.id, &user, credential.kind());
    let by_seed = method == CredentialMethod::CloudInit;
    let seed = match by_seed || waiting.is_some() {
        true => Some(seed::with(&vm, &user, (&credential, by_seed), context.task).await?),
        false => None,
    };
    let offline = match method {
        CredentialMethod::VirtCustomize => {
            let disk = offline::look(app, &vm, power).await?;
            held.extend(app.locks.take(disk.id, &disk.name, &[Lock::Disk], context.task, wanted.name)?);
            Some((disk, password))
        }
        _ => None,
    };
    let boot = match power {
        Power::Off => Boot::Off,
        _ if by_seed => credential_checks::boot_of(&vm.node, vm.id).await,
        _ => Boot::Unknown,
    };
    let resets = app.index.get(vm.id).and_then(|entry| entry.seen).map_or(0, |seen| seen.resets);
    Ok((Draft { vm, user, credential, method, tried, seed, waiting, offline, boot, resets, reboot }, held))
}

/// The method, if it will do for this VM now.
async fn look(
    app: &App,
    vm: &Subject,
    user: &str,
    credential: &Credential,
    power: Power,
    method: CredentialMethod,
) -> Result<CredentialMethod> {
    match method {
        CredentialMethod::GuestAgent => guest_agent::look(vm, power).await?,
        CredentialMethod::CloudInit => seed::look(vm, user, credential).await?,
        CredentialMethod::VirtCustomize => drop(offline::look(app, vm, power).await?),
    }
    Ok(method)
}

fn none_will_do(vm: &Subject, power: Power, tried: &[Tried]) -> Error {
    let reason =
        |one: &Tried| format!("{}: {}", one.method.as_str(), one.reason.as_deref().unwrap_or("it was not looked at"));
    let reasons: Vec<String> = tried.iter().map(reason).collect();
    let detail = format!("no method will do for VM {}: {}", vm.entry.name(), reasons.join("; "));
    match power {
        Power::Off => Error::Unsupported { detail, hint: Some("start it, if its guest has an agent".to_owned()) },
        _ => Error::AgentUnavailable { detail, hint: "start qemu-guest-agent in the guest".to_owned() },
    }
}

/// Refuses keys for a guest that has no file for them.
async fn takes_keys(app: &App, vm: &Subject) -> Result<()> {
    let Some(template) = vm.entry.record.as_ref().and_then(|record| record.spec.template) else { return Ok(()) };
    let template = app.store.template(&template.to_string()).await?;
    let os = template.and_then(|template| template.spec.os).unwrap_or_default();
    match os.to_lowercase().contains("windows") {
        false => Ok(()),
        true => Err(Error::Unsupported {
            detail: format!("VM {} has {os}, whose users have no authorized_keys", vm.entry.name()),
            hint: Some("set a password instead (reset-vm-password)".to_owned()),
        }),
    }
}

impl Draft {
    /// What [`Draft::make`] will do.
    fn outline(&self) -> Outline {
        let by_agent = self.method == CredentialMethod::GuestAgent;
        let steps = [
            ("write-seed", self.seed.is_some()),
            ("change-seed", self.seed.is_some()),
            ("ask-agent", by_agent),
            ("customize-image", self.offline.is_some()),
            ("record-reset", self.seed.is_some()),
            ("ask-reboot", self.asks_reboot()),
        ];
        let steps: Vec<&str> = steps.into_iter().filter(|(_, is_done)| *is_done).map(|(step, _)| step).collect();
        Outline::of(&steps).on(&self.vm.node)
    }

    fn asks_reboot(&self) -> bool {
        self.reboot && self.method == CredentialMethod::CloudInit && self.boot != Boot::Off
    }

    /// Makes the reset. `warnings` and `is_made` are for the reply of one that is journalled.
    async fn make(self, task: &Task, warnings: Vec<String>, is_made: bool) -> Result<Done> {
        let asks_reboot = self.asks_reboot();
        let Draft { vm, user, credential, method, mut tried, seed, waiting, offline, boot, resets, reboot: _ } = self;
        let app = &task.app;
        if let Some(seed) = &seed {
            seed.change(task, &vm).await?;
        }
        match (method, &offline) {
            (CredentialMethod::GuestAgent, _) => {
                task.last_step("ask-agent", None, agent::apply(&vm, &user, &credential)).await?;
            }
            (_, Some((disk, password))) => {
                let apply = offline::apply(&vm, disk, &user, &credential, password.as_deref());
                task.last_step("customize-image", None, apply).await?;
            }
            (CredentialMethod::CloudInit | CredentialMethod::VirtCustomize, None) => {}
        }
        let (kind, at_boot) = (credential.kind(), method == CredentialMethod::CloudInit);
        let applied = if at_boot { Applied::NextBoot } else { Applied::Now };
        tried.push(Tried { method, outcome: TriedOutcome::Applied, reason: None });
        let ssh_keys = match credential {
            Credential::Password(_) => Vec::new(),
            Credential::Keys(keys) => keys,
        };
        let verified = !at_boot;
        let mut done =
            Done { user, method, tried, applied, verified, reboot_asked: false, ssh_keys, warnings, is_made };
        if let Some(seed) = seed {
            task.last_step("record-reset", None, async {
                let reply = serde_json::to_string(&done)
                    .map_err(|error| Error::Internal(format!("write what came of a reset: {error}")))?;
                match waiting.filter(|_| verified) {
                    Some(waiting) => {
                        app.store.reset_waits_no_more(&waiting, task.id, &reply).await?;
                        app.credential_checks.forget(vm.id, &done.user, kind);
                    }
                    None => {
                        let check = CheckRecord {
                            vm: vm.id,
                            user: done.user.clone(),
                            kind,
                            task: task.id,
                            state: CheckState::Pending,
                            reason: None,
                            boot,
                            created_at: Time::now(),
                            checked_at: None,
                        };
                        app.store.reset_waits(&check, &reply).await?;
                        app.credential_checks.put(check, Some(resets));
                    }
                }
                Ok(())
            })
            .await?;
            seed.drop_old(&vm).await;
        }
        if asks_reboot {
            // The reset is made: a guest that doesn't take the question is rebooted some other time.
            let asked = async { Ok(seed::ask_reboot(app, &vm).await) };
            done.reboot_asked = task.last_step("ask-reboot", None, asked).await?;
        }
        Ok(done)
    }
}

/// What reset-vm-password answers.
fn of_password(app: &App, vm: Uuid, done: Done, password: Option<String>) -> Result<PasswordReset> {
    Ok(PasswordReset {
        vm: super::describe::with_checks(app, vm)?,
        user: done.user,
        method: done.method,
        tried: done.tried,
        applied: done.applied,
        verified: done.verified,
        reboot_asked: done.reboot_asked,
        warnings: done.warnings,
        secret_expired: done.is_made && password.is_none(),
        password,
    })
}

/// What reset-vm-keypair answers.
fn of_keys(app: &App, vm: Uuid, done: Done) -> Result<KeypairReset> {
    Ok(KeypairReset {
        vm: super::describe::with_checks(app, vm)?,
        user: done.user,
        method: done.method,
        tried: done.tried,
        applied: done.applied,
        verified: done.verified,
        reboot_asked: done.reboot_asked,
        ssh_keys: done.ssh_keys,
    })
}

/// The reply of a task whose end was not written, of what it has journalled of it.
pub fn reply_of(app: &App, method: &str, vm: Uuid, journalled: &str) -> Result<Value> {
    let done: Done = serde_json::from_str(journalled)
        .map_err(|error| Error::Internal(format!("the journal has a reply that can't be read: {error}")))?;
    let reply = match method {
        ResetVmKeypair::NAME => serde_json::to_value(of_keys(app, vm, done)?),
        _ => serde_json::to_value(of_password(app, vm, done, None)?),
    };
    reply.map_err(|error| Error::Internal(format!("write a reply: {error}")))
}
