//! The NoCloud seed: <https://cloudinit.readthedocs.io/en/latest/reference/datasources/nocloud.html>.
//!
//! An ISO 9660 image labelled CIDATA with `meta-data`, `user-data` and, where they are given, `vendor-data` and `network-config`, made in
//! memory. The password is in it as a
//! `$6$` hash only.

use crate::{
    Error, Result,
    seed_parts::{SeedFiles, USER_DATA, UserData},
};
use serde::Serialize;
use uuid::Uuid;

/// What goes into a seed.
pub struct Seed {
    /// The instance's id, which never changes in a VM's life: another one makes cloud-init run everything again.
    pub instance_id: Uuid,
    /// The guest's hostname.
    pub hostname: String,
    /// The user to set up.
    pub user: Option<String>,
    /// That user's password, hashed.
    pub password_hash: Option<String>,
    /// That user's OpenSSH public keys.
    pub ssh_keys: Vec<String>,
    /// The user's own user-data.
    pub user_data: Option<String>,
    /// The vendor-data, as it was given.
    pub vendor_data: Option<String>,
    /// The network-config, as YAML.
    pub network_config: Option<String>,
}

#[derive(Serialize)]
struct MetaData<'a> {
    #[serde(rename = "instance-id")]
    instance_id: String,
    #[serde(rename = "local-hostname")]
    local_hostname: &'a str,
}

#[derive(Serialize)]
struct CloudConfig<'a> {
    hostname: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ssh_pwauth: Option<bool>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    users: Vec<User<'a>>,
}

#[derive(Serialize)]
struct User<'a> {
    name: &'a str,
    lock_passwd: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    passwd: Option<&'a str>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    ssh_authorized_keys: &'a [String],
    shell: &'a str,
    sudo: &'a str,
}

impl Seed {
    /// The image's bytes.
    pub fn to_iso(&self) -> Result<Vec<u8>> {
        let files = SeedFiles::default().with("meta-data", self.meta_data()?).with(USER_DATA, self.user_data()?);
        let more = [("vendor-data", &self.vendor_data), ("network-config", &self.network_config)];
        let given = more.into_iter().filter_map(|(name, text)| Some((name, text.clone()?)));
        given.fold(files, |files, (name, text)| files.with(name, text)).to_iso()
    }

    fn meta_data(&self) -> Result<String> {
        yaml(&MetaData { instance_id: self.instance_id.to_string(), local_hostname: &self.hostname })
    }

    /// Ours alone, or both as a MIME multipart: <https://cloudinit.readthedocs.io/en/latest/explanation/format.html>.
    fn user_data(&self) -> Result<String> {
        let user = self.user.as_deref().map(|name| User {
            name,
            lock_passwd: self.password_hash.is_none(),
            passwd: self.password_hash.as_deref(),
            ssh_authorized_keys: &self.ssh_keys,
            shell: "/bin/sh",
            sudo: "ALL=(ALL) NOPASSWD:ALL",
        });
        let config = CloudConfig {
            hostname: &self.hostname,
            ssh_pwauth: self.password_hash.is_some().then_some(true),
            users: user.into_iter().collect(),
        };
        let ours = format!("#cloud-config\n{}", yaml(&config)?);
        let Some(theirs) = &self.user_data else { return Ok(ours) };
        let both = UserData::new(format!("vmyard-{}", self.instance_id.simple()));
        Ok(both.with("vmyard.yaml", Some(&ours)).with("user-data", Some(theirs)).to_text())
    }
}

/// A value as YAML.
pub fn yaml(value: &impl Serialize) -> Result<String> {
    serde_saphyr::to_string(value).map_err(|error| Error::Internal(format!("write YAML: {error}")))
}

/// A password's `$6$` hash (SHA-crypt: <https://www.akkadia.org/drepper/SHA-crypt.txt>).
pub fn hash_password(password: &str) -> Result<String> {
    use sha_crypt::{PasswordHasher, ShaCrypt};
    // 12 bytes make a salt of 16 characters, all that libxcrypt looks at; with more, a login would fail.
    let salt = random_bytes::<12>()?;
    let hash = ShaCrypt::default()
        .hash_password_with_salt(password.as_bytes(), &salt)
        .map_err(|error| Error::Internal(format!("hash a password: {error}")))?;
    Ok(hash.to_string())
}

/// Random bytes of the system's.
pub fn random_bytes<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| Error::Internal(format!("no random bytes: {error}")))?;
    Ok(bytes)
}

/// Random letters and digits, about 5.9 bits each.
pub fn random_text(length: usize) -> Result<String> {
    const LETTERS: &[u8] = b"ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789";
    let mut text = String::new();
    while text.len() < length {
        let [byte] = random_bytes::<1>()?;
        // Bytes beyond the last whole multiple would favour the first letters.
        if usize::from(byte) < 256 / LETTERS.len() * LETTERS.len() {
            text.push(char::from(LETTERS[usize::from(byte) % LETTERS.len()]));
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seed(user_data: Option<&str>) -> Seed {
        Seed {
            instance_id: Uuid::nil(),
            hostname: "web-1".into(),
            user: Some("tiny".into()),
            password_hash: Some("$6$salt$hash".into()),
            ssh_keys: vec!["ssh-ed25519 AAAA me: #1".into()],
            user_data: user_data.map(str::to_owned),
            vendor_data: None,
            network_config: None,
        }
    }

    #[test]
    fn an_image_with_the_label_and_the_files() {
        let image = seed(None).to_iso().unwrap();
        // The primary volume descriptor: sector 16, label at 40.
        assert_eq!(&image[16 * 2048 + 1..16 * 2048 + 6], b"CD001");
        assert_eq!(&image[16 * 2048 + 40..16 * 2048 + 46], b"CIDATA");
        let has = |needle: &[u8]| image.windows(needle.len()).any(|window| window == needle);
        assert!(has(b"#cloud-config\n") && has(b"$6$salt$hash"));
        let joliet: Vec<u8> = "user-data".encode_utf16().flat_map(u16::to_be_bytes).collect();
        assert!(has(&joliet));
    }

    #[test]
    fn both_user_data() {
        let text = seed(Some("#!/bin/sh\necho '--vmyard' \"$6\"\n")).user_data().unwrap();
        assert!(text.contains("text/x-shellscript") && text.contains("text/cloud-config"));
        assert!(text.lines().all(|line| line.len() < 200));
    }

    /// What the system's own crypt (libxcrypt on Debian, by Perl) makes of a password with a hash's settings.
    fn crypt(password: &str, hash: &str) -> String {
        use std::{io::Write, process::*};
        let program = "binmode STDIN; my $password = join '', <STDIN>; print crypt($password, $ARGV[0])";
        let mut perl = Command::new("perl")
            .args(["-e", program, hash])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("perl is in every Debian");
        perl.stdin.take().unwrap().write_all(password.as_bytes()).unwrap();
        String::from_utf8(perl.wait_with_output().unwrap().stdout).unwrap()
    }

    #[test]
    fn hashes_are_what_crypt_makes() {
        // The longest that crypt takes; with three bytes to a character that many more.
        let (long, wide) = ("x".repeat(511), "€".repeat(170));
        for password in [
            "secret",
            " ",
            "pa$$: 'word\"",
            "$6$salt$hash",
            "a:b:c",
            "'\"`$(id)`\"'",
            "\\n\\0\\",
            "%s%n#!~",
            "пароль",
            "密码 é\u{301}",
            "\u{1f600}",
            "\u{7f}\t\u{1}",
            &long,
            &wide,
        ] {
            let hash = hash_password(password).unwrap();
            let salt = hash.split('$').nth(2).unwrap();
            assert!(hash.starts_with("$6$") && (salt.len() == 16 || salt.starts_with("rounds=")), "{hash}");
            assert_eq!(crypt(password, &hash), hash, "{password:?}");
            assert_ne!(crypt(&password[..password.len() - password.chars().last().unwrap().len_utf8()], &hash), hash);
        }
        for _ in 0..20 {
            let password = random_text(24).unwrap();
            let hash = hash_password(&password).unwrap();
            assert_eq!(crypt(&password, &hash), hash, "{password}");
        }
    }
}
