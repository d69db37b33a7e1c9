//! Setting passwords.

use super::{Credential, Wanted, check, of_password};
use crate::{
    Context, Result,
    passwords::Password,
    task::{Task, Work},
};
use api::{
    Rpc,
    credential::{PasswordReset, ResetVmPassword},
};
use std::sync::Arc;

/// `reset-vm-password`
pub async fn reset(context: Context, request: ResetVmPassword) -> Result<Work<PasswordReset>> {
    let ResetVmPassword { vm, user, password, method, reboot } = request;
    let shortest = context.app.config.min_password_length;
    let is_made = password.is_none();
    let password = match password {
        Some(text) => Arc::new(Password::given(text, "password", shortest)?),
        None => Arc::new(Password::made(shortest)?),
    };
    let warnings = password.weaknesses(&user);
    let credential = Credential::Password(password.hash()?);
    // In the clear it stays only for virt-customize, which has no use for a hash, and to be told where it was made here.
    let told = is_made.then(|| Arc::clone(&password));
    let password = Some(password);
    let wanted = Wanted { vm: &vm, user, method, credential, password, reboot, name: ResetVmPassword::NAME };
    let (draft, held) = check(&context, wanted).await?;
    let (id, target, outline) = (draft.vm.id, draft.vm.target(), draft.outline());
    Ok(Work::new(target, held, outline, move |task: Task| async move {
        let done = draft.make(&task, warnings, is_made).await?;
        of_password(&task.app, id, done, told.map(|password| password.reveal().to_owned()))
    }))
}
