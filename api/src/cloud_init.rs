//! What cloud-init is given.

use crate::{rules, ssh_key};
use garde::Validate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What [`check_hostname`] asks for, as the schema says it.
const HOSTNAME_PATTERN: &str =
    "^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?([.][A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*$";
/// What [`check_password`] asks for.
pub(crate) const PASSWORD_PATTERN: &str = r"^[^\u0000\n\r]*$";
/// What [`check_user_data`] asks for.
const USER_DATA_PATTERN: &str = "^(#cloud-config|#cloud-boothook|#include|#part-handler|#!|## template:)";

/// What cloud-init sets up at the first boot, through a NoCloud seed.
#[derive(Clone, Default, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct CloudInit {
    /// The guest's hostname; the VM's name when absent (with `_` and `.` as `-`).
    #[garde(inner(custom(check_hostname)))]
    #[schemars(length(max = 253), regex(pattern = HOSTNAME_PATTERN))]
    pub hostname: Option<String>,
    /// The user to set up; the template's `default_user` when absent.
    #[garde(inner(custom(rules::user)))]
    #[schemars(regex(pattern = rules::USER_PATTERN))]
    pub user: Option<String>,
    /// That user's password. Only its hash leaves the server.
    #[garde(inner(length(chars, min = 1, max = 256), custom(check_password)))]
    #[schemars(length(min = 1, max = 256), regex(pattern = PASSWORD_PATTERN))]
    pub password: Option<String>,
    /// OpenSSH public keys for that user.
    #[serde(default)]
    #[garde(length(max = 64), inner(custom(ssh_key::public_key)))]
    #[schemars(inner(length(max = 16_384), regex(pattern = ssh_key::PATTERN)))]
    pub ssh_keys: Vec<String>,
    /// Keypairs (create-keypair, import-keypair) whose public keys that user gets as well, by name or id.
    #[serde(default)]
    #[garde(length(max = 64), inner(custom(rules::reference)))]
    #[schemars(inner(regex(pattern = rules::REFERENCE_PATTERN)))]
    pub keypairs: Vec<String>,
    /// The user's own user-data (`#cloud-config`, `#!`, …; no MIME), at most 256 KiB. Its lists are appended to Vmyard's.
    #[garde(inner(length(max = 262_144), custom(check_user_data)))]
    #[schemars(length(max = 262_144), regex(pattern = USER_DATA_PATTERN))]
    pub user_data: Option<String>,
}

impl std::fmt::Debug for CloudInit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Password and user-data may hold secrets: they never reach a log.
        f.debug_struct("CloudInit").field("hostname", &self.hostname).field("user", &self.user).finish_non_exhaustive()
    }
}

fn check_user_data(value: &str, _: &()) -> garde::Result {
    // It becomes a part of a MIME message itself.
    let start = value.trim_start().to_ascii_lowercase();
    if start.starts_with("content-type:") || start.starts_with("mime-version:") {
        return Err(garde::Error::new("must not be MIME; give a #cloud-config, a script or a #cloud-config-archive"));
    }
    // cloud-init goes by the first line, and says nothing of what it doesn't know.
    let known = ["#cloud-config", "#cloud-boothook", "#include", "#part-handler", "#!", "## template:"];
    match known.iter().any(|first| value.starts_with(first)) {
        true => Ok(()),
        false => Err(garde::Error::new(format!("must begin with one of {}", known.join(", ")))),
    }
}

fn check_hostname(value: &str, _: &()) -> garde::Result {
    let label_ok = |label: &str| {
        (1..=63).contains(&label.len())
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if value.len() > 253 || !value.split('.').all(label_ok) {
        return Err(garde::Error::new(
            "must be a hostname (RFC 1123): labels of 1 to 63 letters, digits and '-', joined by '.'",
        ));
    }
    Ok(())
}

pub(crate) fn check_password(value: &str, _: &()) -> garde::Result {
    if value.chars().any(|c| matches!(c, '\n' | '\r' | '\0')) {
        return Err(garde::Error::new("must not have a line break or a NUL: no login could type it"));
    }
    Ok(())
}
