//! Who calls: tokens, and browsers' sessions that stand for one. Of both only hashes are kept.

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
/// The name of the token in that file.
pub const ADMIN: &str = "admin";

/// Who calls.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The token's name.
    pub name: String,
    /// What it may do.
    pub role: Access,
    /// The token's id.
    pub token: Uuid,
    /// When the token stops working.
    pub expires_at: Option<Time>,
    /// The hash of the session's secret, for a call with a session's cookie.
    pub session: Option<String>,
}

impl Caller {
    /// Nobody in particular.
    pub fn anyone() -> Caller {
        Caller { name: String::new(), role: Access::Anyone, token: Uuid::nil(), expires_at: None, session: None }
    }

    fn of(token: TokenRecord, session: Option<String>) -> Caller {
        Caller { name: token.name, role: token.role, token: token.id, expires_at: token.expires_at, session }
    }
}

/// A secret that a client holds. Its prefix tells what it is, should it be found in a log or a repository.
pub enum Secret {
    /// Of a token.
    Token,
    /// Of a session.
    Session,
    /// Of a ticket to a console.
    Ticket,
}

impl Secret {
    /// A new one: 256 random bits, with what is kept of it.
    pub fn generate(&self) -> Result<(String, String)> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(|error| Error::Internal(format!("no random bytes: {error}")))?;
        let prefix = match self {
            Secret::Token => "vmy_",
            Secret::Session => "vmys_",
            Secret::Ticket => "vmyt_",
        };
        let secret = format!("{prefix}{}", URL_SAFE_NO_PAD.encode(bytes));
        let hash = hash(&secret);
        Ok((secret, hash))
    }
}

/// Who has this token.
pub async fn authenticate(store: &Store, token: &str) -> Result<Caller> {
    let found = store.token(&hash(token)).await?.ok_or(Error::Unauthenticated("this token is not known"))?;
    works("token", found.expires_at)?;
    Ok(Caller::of(found, None))
}

/// Who has this session. Its token is looked at in each call: what befalls that takes effect at once.
pub async fn authenticate_session(store: &Store, secret: &str) -> Result<Caller> {
    let hash = hash(secret);
    let found = store.session(&hash).await?;
    let (token, ends) = found.ok_or(Error::Unauthenticated("this session has ended; sign in again"))?;
    works("session", Some(ends))?;
    works("token", token.expires_at)?;
    Ok(Caller::of(token, Some(hash)))
}

/// Whether who opened a console may still have it: neither their token nor their session has ended since.
pub async fn still_works(store: &Store, caller: &Caller) -> Result<()> {
    if let Some(hash) = &caller.session {
        let (_, ends) = store.session(hash).await?.ok_or(Error::Unauthenticated("its session has ended"))?;
        works("session", Some(ends))?;
    }
    let token = store.token_named(&caller.token.to_string()).await?;
    let token = token.ok_or(Error::Unauthenticated("its token was deleted"))?;
    works("token", token.expires_at)
}

/// Whether a token or session still works.
fn works(what: &'static str, expires_at: Option<Time>) -> Result<()> {
    match expires_at {
        Some(at) if at <= Time::now() => Err(Error::Expired { what, at }),
        _ => Ok(()),
    }
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
            let (token, _) = Secret::Token.generate()?;
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
        name: ADMIN.to_owned(),
        hash: hash(&token),
        role: Access::Administrator,
        expires_at: None,
        created_at: Time::now(),
    };
    // A file that was replaced makes the token before it worthless.
    store.forget_tokens_but(&record.name, &record.hash).await?;
    store.put_token(&record).await?;
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

/// A secret has 256 random bits, so a fast hash is enough: there is nothing to guess.
pub fn hash(secret: &str) -> String {
    blake3::hash(secret.as_bytes()).to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stops_at_its_very_moment() {
        assert!(works("token", None).is_ok());
        assert!(works("token", Some(Time(Time::now().0 + 60_000))).is_ok());
        assert!(matches!(works("token", Some(Time::now())), Err(Error::Expired { what: "token", .. })));
    }
}
