//! The guest agent sets it: at once, in the running guest.

use super::{super::wrong_power, Credential, Subject};
use crate::{Error, Result};
use hypervisor::{
    ErrorKind,
    domain::{Power, is_no_user},
};

/// Whether the VM runs and its agent answers.
pub(super) async fn look(vm: &Subject, power: Power) -> Result<()> {
    let name = vm.entry.name();
    match power {
        Power::Running => {}
        Power::Paused => return Err(wrong_power(name, power, "running for its agent", "resume it first (resume-vm)")),
        Power::Off => return Err(wrong_power(name, power, "running for its agent", "start it first (start-vm)")),
    }
    vm.node.find_agent(vm.id).await.map_err(|error| explain(error, vm))
}

/// Sets it, and makes sure that it is set: of a password by the agent's answer, of keys by reading them.
pub(super) async fn apply(vm: &Subject, user: &str, credential: &Credential) -> Result<()> {
    let set = match credential {
        Credential::Password(hash) => vm.node.set_password(vm.id, user, hash).await,
        Credential::Keys(keys) => vm.node.set_ssh_keys(vm.id, user, keys).await,
    };
    match set {
        Ok(()) => {}
        Err(error) if error.kind == ErrorKind::AgentRefused => {
            // What it says of a password that it could not set is the same whatever the reason.
            let missing =
                is_no_user(&error) || vm.node.has_guest_user(vm.id, user).await.is_ok_and(|is| is == Some(false));
            return Err(if missing { Error::not_found("guest user", user) } else { explain(error, vm) });
        }
        Err(error) if error.kind == ErrorKind::Agent => {
            return Err(Error::AgentUnavailable {
                detail: format!(
                    "the guest agent of VM {} fell silent meanwhile; whether the {} of user {user} are the new ones isn't known: {}",
                    vm.entry.name(),
                    credential.what(),
                    error.cause
                ),
                hint: "call again when it answers".to_owned(),
            });
        }
        Err(error) => return Err(error.into()),
    }
    let Credential::Keys(keys) = credential else { return Ok(()) };
    let has = vm.node.ssh_keys(vm.id, user).await.map_err(|error| explain(error, vm))?;
    match sorted(&has) == sorted(keys) {
        true => Ok(()),
        false => Err(Error::WrongState {
            detail: format!("user {user} of VM {} has other SSH keys than were set just now", vm.entry.name()),
            hint: Some("something in the guest changes them; look there".to_owned()),
        }),
    }
}

fn sorted(keys: &[String]) -> Vec<&str> {
    let mut keys: Vec<&str> = keys.iter().map(|key| key.trim()).filter(|key| !key.is_empty()).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// What an agent's error means.
pub(super) fn explain(error: hypervisor::Error, vm: &Subject) -> Error {
    let name = vm.entry.name();
    match error.kind {
        // Without a channel for it libvirt says that it can't.
        ErrorKind::Agent | ErrorKind::Unsupported => Error::AgentUnavailable {
            detail: format!("the guest agent of VM {name} doesn't answer: {}", error.cause),
            hint:
                "qemu-guest-agent has to be installed and running in the guest; one that has just booted needs a moment"
                    .to_owned(),
        },
        ErrorKind::AgentRefused => Error::Unsupported {
            detail: format!("the guest agent of VM {name} refuses: {}", error.cause),
            hint: Some("some guests allow their agent only some commands".to_owned()),
        },
        _ => error.into(),
    }
}
