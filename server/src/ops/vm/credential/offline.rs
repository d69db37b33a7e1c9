//! virt-customize sets it, in the image of a VM that is off. What is changed is the image that the VM writes to, never one below:
//! snapshots and templates stay as they are.

use super::{super::wrong_power, Credential, Subject, agent::sorted};
use crate::{
    App, Error, Result,
    passwords::Password,
    store::{VolumeRecord, VolumeRole},
};
use hypervisor::domain::Power;

/// The system disk of the VM, if it can be changed now.
pub(super) async fn look(app: &App, vm: &Subject, power: Power) -> Result<VolumeRecord> {
    let record = vm.record("disk", "edit")?;
    let name = &record.name;
    if power != Power::Off {
        return Err(wrong_power(name, power, "shutoff for virt-customize", "stop it first (stop-vm)"));
    }
    vm.node.edits_images(&format!("change the disk of VM {name}")).await?;
    vm.is_not_suspended().await?;
    let volumes = app.store.volumes_of_vm(vm.id).await?;
    let disks = vm.node.disks(vm.id).await?;
    let system = volumes.into_iter().find(|volume| volume.role == VolumeRole::System);
    let system = system.filter(|volume| disks.is_some_and(|disks| disks.has_defined(&volume.path)));
    system.ok_or_else(|| Error::WrongState {
        detail: format!("the definition of VM {name} doesn't have its system disk"),
        hint: Some("it was changed outside of Vmyard; put it back there".to_owned()),
    })
}

/// Sets it, and reads what is there afterwards.
pub(super) async fn apply(
    vm: &Subject,
    disk: &VolumeRecord,
    user: &str,
    credential: &Credential,
    password: Option<&Password>,
) -> Result<()> {
    let (node, image) = (&vm.node, disk.path.as_str());
    let not_set = || Error::WrongState {
        detail: format!(
            "virt-customize has not put the {} of user {user} into the image of VM {}",
            credential.what(),
            vm.entry.name()
        ),
        hint: Some("its guest may keep them elsewhere; use another method".to_owned()),
    };
    match (credential, password) {
        (Credential::Password(_), Some(password)) => {
            field(&file(vm, image, "/etc/shadow").await?, user, 1)
                .ok_or_else(|| Error::not_found("guest user", user))?;
            node.set_password_in_image(image, user, password.reveal()).await?;
            let hash = field(&file(vm, image, "/etc/shadow").await?, user, 1).ok_or_else(not_set)?;
            if password.fits(&hash) { Ok(()) } else { Err(not_set()) }
        }
        (Credential::Password(_), None) => Err(Error::Internal("the password is not there any more".to_owned())),
        (Credential::Keys(keys), _) => {
            let home = field(&file(vm, image, "/etc/passwd").await?, user, 5);
            let home = home.ok_or_else(|| Error::not_found("guest user", user))?;
            // The guest's word, which becomes an argument: it must not look like an option.
            if !home.starts_with('/') {
                return Err(Error::Unsupported {
                    detail: format!("user {user} of VM {} has no home directory, but {home:?}", vm.entry.name()),
                    hint: Some("use another method".to_owned()),
                });
            }
            let path = format!("{}/.ssh/authorized_keys", home.trim_end_matches('/'));
            node.set_ssh_keys_in_image(image, user, &path, keys).await?;
            let has: Vec<String> = file(vm, image, &path).await?.lines().map(str::to_owned).collect();
            if sorted(&has) == sorted(keys) { Ok(()) } else { Err(not_set()) }
        }
    }
}

async fn file(vm: &Subject, image: &str, path: &str) -> Result<String> {
    vm.node.file_in_image(image, path).await?.ok_or_else(|| Error::Unsupported {
        detail: format!("the guest of VM {} has no {path}", vm.entry.name()),
        hint: Some("virt-customize is for Linux; use another method".to_owned()),
    })
}

/// A field of a user's line, as passwd(5) and shadow(5) have them.
fn field(text: &str, user: &str, at: usize) -> Option<String> {
    let mut lines = text.lines().map(|line| line.split(':'));
    lines.find_map(|mut fields| (fields.next() == Some(user)).then(|| fields.nth(at - 1).map(str::to_owned)).flatten())
}

#[cfg(test)]
mod tests {
    use super::field;

    #[test]
    fn fields_of_a_user() {
        let text = "root:x:0:0:root:/root:/bin/sh\nann:$6$a$b:1:\nannette:c:d\n";
        assert_eq!(field(text, "ann", 1).as_deref(), Some("$6$a$b"));
        assert_eq!(field(text, "root", 5).as_deref(), Some("/root"));
        assert_eq!((field(text, "bob", 1), field(text, "annette", 5)), (None, None));
    }
}
