//! What cloud-init is given.

use crate::{network_config, network_config::NetworkConfig, rules, ssh_key};
use garde::Validate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The most user-data or vendor-data, in bytes.
const DATA_BYTES_MAX: usize = 262_144;
/// The longest password, in bytes: crypt (libxcrypt's `CRYPT_MAX_PASSPHRASE_SIZE`) takes no more, and a login would fail.
const PASSWORD_BYTES_MAX: usize = 511;
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
    /// That user's password, of at most 256 characters and 511 bytes. Only its hash leaves the server.
    #[garde(inner(custom(check_password)))]
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
    /// The user's own user-data (`#cloud-config`, `#!`, …; no MIME), at most 256 KiB. Its lists are appended to Vmyard's. It may
    /// hold secrets, and is never shown again.
    #[garde(inner(custom(check_user_data)))]
    #[schemars(length(max = 262_144), regex(pattern = USER_DATA_PATTERN))]
    pub user_data: Option<String>,
    /// Vendor-data, in the forms of user-data, at most 256 KiB: what user-data says goes before it. It may hold secrets, and is
    /// never shown again.
    #[garde(inner(custom(check_user_data)))]
    #[schemars(length(max = 262_144), regex(pattern = USER_DATA_PATTERN))]
    pub vendor_data: Option<String>,
    /// How the interfaces are set up, at most 64 KiB; by DHCP when absent. For fixed addresses alone, the `addresses` of each of
    /// the VM's `networks` are simpler, and can't stand beside it.
    #[garde(dive, custom(network_config::check_size))]
    pub network_config: Option<NetworkConfig>,
}

/// What cloud-init was given when the VM was made, without anything that may be secret. Resets later on are not in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GivenCloudInit {
    /// The hostname.
    pub hostname: String,
    /// The user to set up.
    pub user: Option<String>,
    /// Whether that user got a password.
    pub password: bool,
    /// The fingerprints of that user's SSH keys, from `ssh_keys` and `keypairs`.
    pub ssh_key_fingerprints: Vec<String>,
    /// The size of the user's own user-data, in bytes; null when there is none.
    pub user_data_bytes: Option<u64>,
    /// The size of the vendor-data, in bytes; null when there is none.
    pub vendor_data_bytes: Option<u64>,
    /// The size of the network-config, in bytes as it was written; null when there is none.
    pub network_config_bytes: Option<u64>,
}

impl std::fmt::Debug for CloudInit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Password and user-data may hold secrets: they never reach a log.
        f.debug_struct("CloudInit").field("hostname", &self.hostname).field("user", &self.user).finish_non_exhaustive()
    }
}

fn check_user_data(value: &str, _: &()) -> garde::Result {
    if value.len() > DATA_BYTES_MAX {
        let message =
            format!("must have at most {DATA_BYTES_MAX} bytes, has {}: fetch more by an #include", value.len());
        return Err(garde::Error::new(message));
    }
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
    let length = value.chars().count();
    if !(1..=256).contains(&length) || value.len() > PASSWORD_BYTES_MAX {
        let (bytes, most) = (value.len(), PASSWORD_BYTES_MAX);
        let message = format!("must have 1 to 256 characters and at most {most} bytes, has {length} and {bytes}");
        return Err(garde::Error::new(message));
    }
    if value.chars().any(|c| matches!(c, '\n' | '\r' | '\0')) {
        return Err(garde::Error::new("must not have a line break or a NUL: no login could type it"));
    }
    Ok(())
}
