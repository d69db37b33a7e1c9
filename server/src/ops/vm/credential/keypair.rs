//! Replacing SSH keys.

use super::{Credential, Wanted, check, of_keys};
use crate::{
    Context, Error, Result,
    task::{Task, Work},
};
use api::{
    Rpc,
    credential::{KeypairReset, ResetVmKeypair},
};

/// `reset-vm-keypair`
pub async fn reset(context: Context, request: ResetVmKeypair) -> Result<Work<KeypairReset>> {
    let ResetVmKeypair { vm, user, ssh_keys, method, reboot } = request;
    if ssh_keys.is_empty() {
        return Err(Error::field("ssh_keys", "needs at least one key: without any the user could not log in by key"));
    }
    let credential = Credential::Keys(ssh_keys);
    let wanted = Wanted { vm: &vm, user, method, credential, reboot, name: ResetVmKeypair::NAME };
    let (draft, held) = check(&context, wanted).await?;
    let (id, target, outline) = (draft.vm.id, draft.vm.target(), draft.outline());
    Ok(Work::new(target, held, outline, move |task: Task| async move {
        let done = draft.make(&task, Vec::new(), false).await?;
        of_keys(&task.app, id, done)
    }))
}
