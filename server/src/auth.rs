//! Who calls: bearer tokens, kept as hashes.

use crate::{
    Error, Result,
    store::{Store, TokenRecord},
};
use api::{Access, Time};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use std::{
    fs,
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};
use uuid::Uuid;

/// The file with the administrator's token, in the data directory.
const ADMIN_TOKEN_FILE: &str = "admin.token";
/// Its name while it is being written.
const DRAFT_FILE: &str = ".admin.token.new";
/// What every token begins with, so that one in a log or a repository can be recognised.
const PREFIX: &str = "vmy_";

/// Who calls.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The token's name.
    pub name: String,
    /// What it may do.
    pub role: Access,
}

/// Who has this token.
pub async fn authenticate(store: &Store, token: &str) -> Result<Caller> {
    let found = store.token(&hash(token)).await?.ok_or(Error::Unauthenticated("this token is not known"))?;
    if found.expires_at.is_some_and(|time| time <= Time::now()) {
        return Err(Error::Unauthenticated("this token has expired"));
    }
    Ok(Caller { name: found.name, role: found.role })
}

/// Makes the data directory (0700) and, at the first start, the administrator's token (0600) in it. An existing file is
/// taken as it is, so that a token survives the loss of the database.
pub async fn ensure_admin_token(store: &Store, data_dir: &Path) -> Result<ReplayKey> {
    let file = data_dir.join(ADMIN_TOKEN_FILE);
    let failed = |error: std::io::Error| Error::Internal(format!("{}: {error}", file.display()));
    let token = match fs::read_to_string(&file) {
        Ok(token) if token.trim().len() >= 32 => token.trim().to_owned(),
        Ok(_) => return Err(Error::Internal(format!("{} holds no token; remove it to get a new one", file.display()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let token = generate()?;
            // Under another name first: a crash must not leave half a token.
            let draft = data_dir.join(DRAFT_FILE);
            let _ = fs::remove_file(&draft);
            let mut open = fs::OpenOptions::new();
            let mut written = open.write(true).create_new(true).mode(0o600).open(&draft).map_err(failed)?;
            writeln!(written, "{token}").and_then(|()| written.sync_all()).map_err(failed)?;
            fs::rename(&draft, &file).map_err(failed)?;
            token
        }
        Err(error) => return Err(failed(error)),
    };
    let record = TokenRecord {
        id: Uuid::now_v7(),
        name: "admin".to_owned(),
        hash: hash(&token),
        role: Access::Administrator,
        expires_at: None,
    };
    // A file that was replaced makes the token before it worthless.
    store.forget_tokens_but(&record.name, &record.hash).await?;
    store.insert_token(&record).await?;
    Ok(ReplayKey(blake3::derive_key("vmyard: hashes of requests under a client token", token.as_bytes())))
}

/// The key for hashes of requests: a request may hold a password, which nobody with a copy of the database may guess.
pub struct ReplayKey(pub [u8; 32]);

/// Makes the data directory where there is none, and closes it to others. A directory with other things in it is refused.
pub fn ensure_data_dir(data_dir: &Path) -> Result<()> {
    let failed =
        |error: std::io::Error| Error::Internal(format!("make the data directory {}: {error}", data_dir.display()));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(data_dir).map_err(failed)?;
    let mut others =
        fs::read_dir(data_dir).map_err(failed)?.flatten().filter(|entry| entry.file_name() != "lost+found");
    let ours = [ADMIN_TOKEN_FILE, DRAFT_FILE, "vmyard.db"].iter().any(|name| data_dir.join(name).exists());
    if others.next().is_some() && !ours {
        let message = format!("{} has other things in it; give an empty directory, or a new one", data_dir.display());
        return Err(Error::field("data_dir", message));
    }
    fs::set_permissions(data_dir, fs::Permissions::from_mode(0o700)).map_err(failed)
}

/// A new token: 256 random bits.
fn generate() -> Result<String> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| Error::Internal(format!("no random bytes: {error}")))?;
    Ok(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)))
}

/// A token has 256 random bits, so a fast hash is enough: there is nothing to guess.
fn hash(token: &str) -> String {
    blake3::hash(token.as_bytes()).to_hex().to_string()
}
