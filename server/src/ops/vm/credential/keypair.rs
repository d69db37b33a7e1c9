//! Replacing SSH keys.

use super::{Credential, Wanted, check, of_keys};
use crate::{
    Context, Error, Result,
    ops::keypair::authorized,
    task::{Task, Work},
};
use api::{
    Rpc,
    credential::{KeypairReset, ResetVmKeypair},
};

/// `reset-vm-keypair`
pub async fn reset(context: Context, request: ResetVmKeypair) -> Result<Work<KeypairReset>> {
    let ResetVmKeypair { vm, user, ssh_keys, keypairs, method, reboot } = request;
    let keys = authorized(&context.app, "", &ssh_keys, &keypairs).await?;
    if keys.is_empty() {
        let why = "needs at least one key, or keypairs: without any the user could not log in by key";
        return Err(Error::field("ssh_keys", why));
    }
    let credential = Credential::Keys(keys.into_iter().map(|key| key.line).collect());
    let wanted = Wanted { vm: &vm, user, method, credential, password: None, reboot, name: ResetVmKeypair::NAME };
    let (draft, held) = check(&context, wanted).await?;
    let (id, target, outline) = (draft.vm.id, draft.vm.target(), draft.outline());
    Ok(Work::new(target, held, outline, move |task: Task| async move {
        let done = draft.make(&task, Vec::new(), false).await?;
        of_keys(&task.app, id, done)
    }))
}
