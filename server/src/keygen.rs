//! New SSH keypairs.

use crate::{
    Error, Result,
    seed::{random_bytes, random_text},
    ssh_key::PublicKey,
};
use ssh_key::{LineEnding, PrivateKey, private::Ed25519Keypair};
use std::{
    fs::{self, DirBuilder},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{process::Command, sync::Semaphore};

/// How long an RSA key may take: seconds on an idle machine, but luck decides, and others may need the CPUs.
const DEADLINE: Duration = Duration::from_secs(240);

/// So many RSA keys are made at once: each takes a CPU.
static AT_ONCE: Semaphore = Semaphore::const_new(2);

/// Which key to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewKey {
    /// Ed25519.
    Ed25519,
    /// RSA, of so many bits.
    Rsa(u32),
}

/// A new keypair: its public key, and its private key in OpenSSH's form, without a passphrase.
pub async fn generate(key: NewKey, comment: &str) -> Result<(PublicKey, String)> {
    let (public, private) = match key {
        NewKey::Ed25519 => ed25519(comment)?,
        NewKey::Rsa(bits) => rsa(bits, comment).await?,
    };
    let public = PublicKey::read(&public).map_err(|why| Error::Internal(format!("the new key {why}")))?;
    Ok((public, private))
}

fn ed25519(comment: &str) -> Result<(String, String)> {
    let failed = |error: ssh_key::Error| Error::Internal(format!("make an Ed25519 key: {error}"));
    let mut key = PrivateKey::from(Ed25519Keypair::from_seed(&random_bytes()?));
    key.set_comment(comment);
    let private = key.to_openssh(LineEnding::LF).map_err(failed)?;
    Ok((key.public_key().to_openssh().map_err(failed)?, private.as_str().to_owned()))
}

/// By ssh-keygen: of the crates that make RSA keys, `rsa` has a timing side channel in what else it does (RUSTSEC-2023-0071) and
/// is kept out of the program altogether, `ring` makes none, and `aws-lc-rs` needs a C library built. ssh-keygen writes
/// files only, so it gets a directory that nobody else can enter, in memory where there is one, gone afterwards. What a
/// killed server leaves there is a key that nobody was told and no keypair has.
async fn rsa(bits: u32, comment: &str) -> Result<(String, String)> {
    let _permit = AT_ONCE.acquire().await.map_err(|error| Error::Internal(error.to_string()))?;
    let directory = Private::new()?;
    let file = directory.path.join("key");
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-t", "rsa", "-b", &bits.to_string(), "-N", "", "-C", comment, "-f"]).arg(&file);
    command.stdin(Stdio::null()).kill_on_drop(true);
    let ran = tokio::time::timeout(DEADLINE, command.output()).await.map_err(|_| Error::Timeout {
        detail: format!("ssh-keygen has not made an RSA key within {} s", DEADLINE.as_secs()),
        hint: "the server's machine is busy: try again, or make an Ed25519 key".to_owned(),
    })?;
    let ran = ran.map_err(|error| Error::Unsupported {
        detail: format!("RSA keys are made by ssh-keygen, which can't be run on the server's machine: {error}"),
        hint: Some("install openssh-client there, or make an Ed25519 key".to_owned()),
    })?;
    if !ran.status.success() {
        let said = String::from_utf8_lossy(&ran.stderr).trim().to_owned();
        return Err(Error::Internal(format!("ssh-keygen: {}: {said}", ran.status)));
    }
    let read = |path: &Path| {
        fs::read_to_string(path).map_err(|error| Error::Internal(format!("read {}: {error}", path.display())))
    };
    Ok((read(&file.with_extension("pub"))?, read(&file)?))
}

/// A directory that only this server's user can enter. It goes with this.
struct Private {
    path: PathBuf,
}

impl Private {
    fn new() -> Result<Private> {
        let name = format!("vmyard-{}", random_text(20)?);
        // Fails where there is one of this name already.
        let make = |path: &PathBuf| DirBuilder::new().mode(0o700).create(path);
        let memory = Path::new("/dev/shm").join(&name);
        if make(&memory).is_ok() {
            return Ok(Private { path: memory });
        }
        let path = std::env::temp_dir().join(name);
        make(&path).map_err(|error| Error::Internal(format!("make {}: {error}", path.display())))?;
        Ok(Private { path })
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "a directory of a new key is left");
        }
    }
}
