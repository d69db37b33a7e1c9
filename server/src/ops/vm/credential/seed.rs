//! cloud-init sets it, when the guest boots the next time: the seed gets a part that does it once. All else in the seed stays, the
//! instance-id too, so that cloud-init runs nothing else again.

use super::{Credential, Subject};
use crate::{
    App, Error, Result,
    credential_checks::once_name,
    observe,
    seed::yaml,
    seed_parts::SeedFiles,
    seeds,
    task::{Task, Undo},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use hypervisor::{
    domain::{Drive, Power},
    storage::PoolView,
};
use serde::Serialize;
use uuid::Uuid;

/// The most that keys may take, in bytes: Linux takes no longer argument of a command than 128 KiB, and base64 makes them longer.
const KEYS_MAX: usize = 64 << 10;

/// What the guest runs: at each boot, and after the users were made at an instance's first one.
#[derive(Serialize)]
struct Commands<'a> {
    bootcmd: [&'a [&'a str]; 1],
    runcmd: [&'a [&'a str]; 1],
}

/// A new seed for a VM, in place of the one that is in its drive.
pub(super) struct NewSeed {
    pool: PoolView,
    /// The path of the one that is in the drive.
    old: String,
    /// libvirt's name for the new one.
    file: String,
    image: Vec<u8>,
}

/// The path of the seed in the VM's drive, which is one of the node's pool of seeds.
async fn of_vm(vm: &Subject) -> Result<(PoolView, String)> {
    let (name, pool) = (vm.entry.name(), seeds::pool(&vm.node).await?);
    let path = vm.node.drive(vm.id, Drive::Seed).await?.and_then(|(_, path)| path);
    let ours = path.filter(|path| pool.path.as_ref().is_some_and(|folder| path.starts_with(&format!("{folder}/"))));
    let ours = ours.ok_or_else(|| Error::Unsupported {
        detail: format!("VM {name} has no seed for cloud-init"),
        hint: Some("only VMs of a template with cloud-init have one".to_owned()),
    })?;
    Ok((pool, ours))
}

/// Whether the VM has a seed that can be changed.
pub(super) async fn look(vm: &Subject, user: &str, credential: &Credential) -> Result<()> {
    vm.record("seed", "change-media")?;
    api::rules::user(user, &()).map_err(|error| Error::field("user", error.message()))?;
    if let Credential::Keys(keys) = credential
        && keys.iter().map(|key| key.len() + 1).sum::<usize>() > KEYS_MAX
    {
        return Err(Error::field("ssh_keys", format!("must have at most {KEYS_MAX} bytes together for cloud-init")));
    }
    of_vm(vm).await.map(|_| ())
}

/// The seed with a part that sets this, or without the one that an earlier task has added.
pub(super) async fn with(
    vm: &Subject,
    user: &str,
    (credential, set): (&Credential, bool),
    task: Uuid,
) -> Result<NewSeed> {
    let (pool, old) = of_vm(vm).await?;
    let file = old.rsplit('/').next().unwrap_or_default();
    let image = vm.node.read_small(pool.uuid, file).await?;
    let part = format!("vmyard-{}-{user}.yaml", credential.kind().as_str());
    let text = set.then(|| commands(credential, user, task)).transpose()?;
    let changed = SeedFiles::read(&image).and_then(|files| files.with_part(&part, text.as_deref()));
    let changed = changed.ok_or_else(|| Error::Unsupported {
        detail: format!("the seed of VM {} can't be read: it is not as Vmyard has written it", vm.entry.name()),
        hint: Some("use another method".to_owned()),
    })?;
    Ok(NewSeed { pool, old, file: format!("{}.{}.iso", vm.id, task), image: changed.to_iso()? })
}

impl NewSeed {
    /// Puts it into the drive of the VM.
    pub(super) async fn change(&self, task: &Task, vm: &Subject) -> Result<()> {
        let (node, pool, file) = (&vm.node, self.pool.uuid, &self.file);
        let drop = Undo::DropSeed { node: node.name().to_owned(), pool, file: file.clone() };
        let image = self.image.clone();
        task.step("write-seed", Some(drop), async {
            node.create_from_bytes(pool, file, image).await?;
            Ok(())
        })
        .await?;
        let path = self.pool.path_of(file);
        let restore = Undo::RestoreSeed { node: node.name().to_owned(), vm: vm.id, seed: self.old.clone() };
        task.step("change-seed", Some(restore), async {
            // By force: the drive is cloud-init's, and what a guest has mounted of it is read at boot only.
            Ok(node.change_medium(vm.id, Drive::Seed, Some(&path), true).await?)
        })
        .await?;
        observe::refresh_after(&task.app, node, vm.id).await;
        Ok(())
    }

    /// Deletes the seed that was in the drive before. Where that fails it goes with the VM.
    pub(super) async fn drop_old(&self, vm: &Subject) {
        let old = self.old.rsplit('/').next().unwrap_or_default();
        if let Err(error) = vm.node.delete_volume(self.pool.uuid, old).await {
            tracing::warn!(%error, vm = %vm.id, "an old seed is left until its VM goes");
        }
    }
}

/// Asks the guest to reboot; whether it was asked.
pub(super) async fn ask_reboot(app: &App, vm: &Subject) -> bool {
    let power = app.index.get(vm.id).and_then(|entry| entry.power());
    power == Some(Power::Running) && vm.node.ask_reboot(vm.id).await.is_ok()
}

/// The part of the user-data that sets it. Whatever could mean something to a shell is in base64; a user's name can't.
fn commands(credential: &Credential, user: &str, task: Uuid) -> Result<String> {
    let set = match credential {
        Credential::Password(hash) => {
            format!("echo {} | base64 -d | chpasswd -e", STANDARD.encode(format!("{user}:{hash}\n")))
        }
        // By the user's own hands: in a user's directory root could be led anywhere.
        Credential::Keys(keys) => format!(
            "su -s /bin/sh -c 'umask 077; mkdir -p ~/.ssh && cd ~/.ssh && echo {} | base64 -d >authorized_keys.new && mv \
             authorized_keys.new authorized_keys' {user} && if command -v restorecon >/dev/null; then restorecon -R ~{user}/.ssh; fi",
            STANDARD.encode(keys.join("\n") + "\n")
        ),
    };
    // At an instance's first boot the user is made after the first of these and before the second one.
    let once =
        format!("id -u {user} >/dev/null 2>&1 || exit 0; exec cloud-init-per once {} sh -c \"$1\"", once_name(task));
    let command = ["sh", "-c", once.as_str(), "vmyard", set.as_str()];
    Ok(format!("#cloud-config\n{}", yaml(&Commands { bootcmd: [&command], runcmd: [&command] })?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_shell_sees_what_was_given() {
        let text = commands(&Credential::Password("$6$a$b".into()), "ann", Uuid::nil()).unwrap();
        assert!(text.starts_with("#cloud-config\n") && !text.contains("$6"), "{text}");
        assert_eq!(
            (text.matches("cloud-init-per once").count(), text.matches("vmyard_00000000").count()),
            (2, 2),
            "{text}"
        );
        let text = commands(&Credential::Keys(vec!["ssh-ed25519 AAAA 'x'".into()]), "ann", Uuid::nil()).unwrap();
        assert!(!text.contains("ssh-ed25519"), "{text}");
    }
}
