//! The guest agent sets it: at once, in the running guest.

use super::{super::guest_agent::explain, Credential, Subject};
use crate::{Error, Result};
use hypervisor::{ErrorKind, domain::is_no_user};

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

/// The lines that are keys, in an order that both have.
pub(super) fn sorted(keys: &[String]) -> Vec<&str> {
    let mut keys: Vec<&str> = keys.iter().map(|key| key.trim()).filter(|key| !key.is_empty()).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}
