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

/// `reset-vm-password`
pub async fn reset(context: Context, request: ResetVmPassword) -> Result<Work<PasswordReset>> {
    let ResetVmPassword { vm, user, password, method, reboot } = request;
    let shortest = context.app.config.min_password_length;
    let is_made = password.is_none();
    let password = match password {
        Some(text) => Password::given(text, shortest)?,
        None => Password::made(shortest)?,
    };
    let warnings = password.weaknesses(&user);
    let credential = Credential::Password(password.hash()?);
    // From here on nobody has in the clear what the caller gave.
    let told = is_made.then_some(password);
    let wanted = Wanted { vm: &vm, user, method, credential, reboot, name: ResetVmPassword::NAME };
    let (draft, held) = check(&context, wanted).await?;
    let (id, target, outline) = (draft.vm.id, draft.vm.target(), draft.outline());
    Ok(Work::new(target, held, outline, move |task: Task| async move {
        let done = draft.make(&task, warnings, is_made).await?;
        of_password(&task.app, id, done, told.map(|password| password.reveal().to_owned()))
    }))
}
