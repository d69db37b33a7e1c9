//! Passwords and SSH keys of users in guests.

use crate::{
    Access, Rpc, Time,
    cloud_init::{PASSWORD_PATTERN, check_password},
    rules, ssh_key,
    vm::Vm,
};
use garde::Validate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What [`check_user`] asks for.
const USER_PATTERN: &str = "^[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}$";

/// How a password or keys are to be reset.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ResetMethod {
    /// The first one that will do.
    #[default]
    Auto,
    /// By the guest agent, in the running guest, at once.
    GuestAgent,
    /// By cloud-init, when the guest boots the next time.
    CloudInit,
    /// By virt-customize, in the disk of a VM that is off.
    VirtCustomize,
}

/// How a password or keys were reset, or tried to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CredentialMethod {
    /// By the guest agent, in the running guest.
    GuestAgent,
    /// By cloud-init, when the guest boots.
    CloudInit,
    /// By virt-customize, in the VM's disk.
    VirtCustomize,
}

impl CredentialMethod {
    /// The method as it is on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            CredentialMethod::GuestAgent => "guest-agent",
            CredentialMethod::CloudInit => "cloud-init",
            CredentialMethod::VirtCustomize => "virt-customize",
        }
    }
}

/// A method that a reset has looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Tried {
    /// The method.
    pub method: CredentialMethod,
    /// What came of it.
    pub outcome: TriedOutcome,
    /// Why, of one that was not used.
    pub reason: Option<String>,
}

/// What came of a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TriedOutcome {
    /// It was used.
    Applied,
    /// It was begun, and failed.
    Failed,
    /// It can't be used for this VM as it is.
    Skipped,
}

/// When a reset is in effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Applied {
    /// It is in effect.
    Now,
    /// The guest takes it over when it boots the next time.
    NextBoot,
}

/// What is reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CredentialKind {
    /// A password.
    Password,
    /// The SSH keys with which a user may log in.
    SshKeys,
}

impl CredentialKind {
    /// The kind as it is on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            CredentialKind::Password => "password",
            CredentialKind::SshKeys => "ssh_keys",
        }
    }

    /// Reads what [`CredentialKind::as_str`] wrote.
    pub fn parse(text: &str) -> Option<CredentialKind> {
        [CredentialKind::Password, CredentialKind::SshKeys].into_iter().find(|kind| kind.as_str() == text)
    }
}

/// What is known of a reset that a guest takes over when it boots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CheckState {
    /// The guest has not booted since, or is booting.
    Pending,
    /// It has taken it over.
    Verified,
    /// It has booted, and not taken it over.
    Failed,
    /// It has booted, and nobody could tell.
    Unknown,
}

impl CheckState {
    /// The state as it is on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            CheckState::Pending => "pending",
            CheckState::Verified => "verified",
            CheckState::Failed => "failed",
            CheckState::Unknown => "unknown",
        }
    }

    /// Reads what [`CheckState::as_str`] wrote.
    pub fn parse(text: &str) -> Option<CheckState> {
        let all = [CheckState::Pending, CheckState::Verified, CheckState::Failed, CheckState::Unknown];
        all.into_iter().find(|state| state.as_str() == text)
    }
}

/// A reset that waits for the guest's next boot, or what came of it: the last one of each user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CredentialCheck {
    /// The user in the guest.
    pub user: String,
    /// What was reset.
    pub kind: CredentialKind,
    /// What is known of it.
    pub state: CheckState,
    /// Why it failed, or isn't known.
    pub reason: Option<String>,
    /// The task that has reset it.
    pub task: Uuid,
    /// When it was reset.
    pub created_at: Time,
    /// When its state was found out.
    pub checked_at: Option<Time>,
}

/// Sets the password of a user in a VM's guest. The user must be there. Without `password` one is made and told once. A password that
/// is given is hashed before anything else is done with it; it is in no log, journal, audit or database. Passwords that are easy to
/// guess are set with a warning, unless the server's `min_password_length` refuses them.
#[derive(Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct ResetVmPassword {
    /// The VM, by name or id.
    #[garde(custom(rules::reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub vm: String,
    /// The user in the guest.
    #[garde(custom(check_user))]
    #[schemars(regex(pattern = USER_PATTERN))]
    pub user: String,
    /// The new password; made by Vmyard when absent.
    #[garde(inner(length(chars, min = 1, max = 256), custom(check_password)))]
    #[schemars(length(min = 1, max = 256), regex(pattern = PASSWORD_PATTERN))]
    pub password: Option<String>,
    /// How; `auto` when absent.
    #[serde(default)]
    #[garde(skip)]
    pub method: ResetMethod,
    /// Whether to ask the guest to reboot, where it takes the reset over when it boots. Nothing waits for it.
    #[serde(default)]
    #[garde(skip)]
    pub reboot: bool,
}

impl std::fmt::Debug for ResetVmPassword {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResetVmPassword").field("vm", &self.vm).field("user", &self.user).finish_non_exhaustive()
    }
}

/// What reset-vm-password answers.
// Not `Debug`, so that no log has the password.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PasswordReset {
    /// The VM.
    pub vm: Vm,
    /// The user whose password was set.
    pub user: String,
    /// How it was set.
    pub method: CredentialMethod,
    /// All methods that were looked at, in this order.
    pub tried: Vec<Tried>,
    /// When it is in effect.
    pub applied: Applied,
    /// Whether it is known to be in effect. What waits for a boot is looked at after it: see `credential_checks` in describe-vm.
    pub verified: bool,
    /// Whether the guest was asked to reboot.
    pub reboot_asked: bool,
    /// What is weak about the password.
    pub warnings: Vec<String>,
    /// The password, where Vmyard has made it. Asked for again (describe-task, or the same call under its client_token), it is given
    /// for 10 minutes, to the same caller only; then it is null.
    pub password: Option<String>,
    /// True when the password that Vmyard made is not given any more.
    #[serde(default)]
    pub secret_expired: bool,
}

impl Rpc for ResetVmPassword {
    const NAME: &'static str = "reset-vm-password";
    const ACCESS: Access = Access::Operator;
    const SECRETS: &'static [&'static str] = &["password"];
    type Reply = PasswordReset;
}

/// Replaces the SSH keys with which a user of a VM's guest may log in: the file `authorized_keys` has these keys afterwards and no
/// others. The user must be there. Not for Windows.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct ResetVmKeypair {
    /// The VM, by name or id.
    #[garde(custom(rules::reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub vm: String,
    /// The user in the guest.
    #[garde(custom(check_user))]
    #[schemars(regex(pattern = USER_PATTERN))]
    pub user: String,
    /// OpenSSH public keys. At least one key is needed, here or in `keypairs`.
    #[serde(default)]
    #[garde(length(max = 64), inner(custom(ssh_key::public_key)))]
    #[schemars(length(max = 64), inner(length(max = 16_384), regex(pattern = ssh_key::PATTERN)))]
    pub ssh_keys: Vec<String>,
    /// Keypairs (create-keypair, import-keypair) whose public keys the user gets, by name or id.
    #[serde(default)]
    #[garde(length(max = 64), inner(custom(rules::reference)))]
    #[schemars(length(max = 64), inner(regex(pattern = rules::REFERENCE_PATTERN)))]
    pub keypairs: Vec<String>,
    /// How; `auto` when absent.
    #[serde(default)]
    #[garde(skip)]
    pub method: ResetMethod,
    /// Whether to ask the guest to reboot, where it takes the reset over when it boots. Nothing waits for it.
    #[serde(default)]
    #[garde(skip)]
    pub reboot: bool,
}

/// What reset-vm-keypair answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct KeypairReset {
    /// The VM.
    pub vm: Vm,
    /// The user whose keys were replaced.
    pub user: String,
    /// How they were replaced.
    pub method: CredentialMethod,
    /// All methods that were looked at, in this order.
    pub tried: Vec<Tried>,
    /// When it is in effect.
    pub applied: Applied,
    /// Whether it is known to be in effect. What waits for a boot is looked at after it: see `credential_checks` in describe-vm.
    pub verified: bool,
    /// Whether the guest was asked to reboot.
    pub reboot_asked: bool,
    /// The keys that the user has then.
    pub ssh_keys: Vec<String>,
}

impl Rpc for ResetVmKeypair {
    const NAME: &'static str = "reset-vm-keypair";
    const ACCESS: Access = Access::Operator;
    type Reply = KeypairReset;
}

/// Checks the name of a user in a guest, which need not be of Linux.
fn check_user(value: &str, _: &()) -> garde::Result {
    let first = value.chars().next().is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
    let rest = value.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '@' | '-'));
    match first && rest && value.len() <= 64 {
        true => Ok(()),
        false => Err(garde::Error::new(
            "must be a user's name: a-z, A-Z, 0-9, '_', '.', '@' and '-', first a letter, a digit or '_', at most 64",
        )),
    }
}
