//! Sessions of browsers.

use crate::{
    Context, Error, Result,
    auth::{self, Secret},
    store::{AuditRecord, SessionRecord},
};
use api::{
    Rpc, Time,
    session::{SignIn, SignOut, SignedIn, SignedOut},
    task::Target,
};

/// How long a session lasts, in milliseconds.
const LASTS_MS: i64 = 12 * 3600 * 1000;

/// What becomes of the caller's session.
pub enum Change {
    /// One has begun.
    Begun {
        /// Its secret.
        secret: String,
        /// How long it lasts, in seconds.
        lasts_s: i64,
    },
    /// It has ended.
    Ended,
}

/// `sign-in`
pub async fn sign_in(context: Context, request: SignIn) -> Result<(SignedIn, Change)> {
    let app = &context.app;
    app.attempts.begin(context.remote)?;
    let caller = match auth::authenticate(&app.store, request.token.trim()).await {
        Ok(caller) => caller,
        Err(error) => {
            // A failure of ours is no wrong attempt.
            let code = crate::problem::code(&error);
            if code == api::Code::Unauthenticated {
                app.store.insert_audit(&context.audit(SignIn::NAME, code.as_str())).await?;
            } else {
                app.attempts.was_right(context.remote);
            }
            return Err(error);
        }
    };
    app.attempts.was_right(context.remote);
    let context = Context { caller, ..context };
    let (app, caller) = (&context.app, &context.caller);
    let now = Time::now();
    let longest = Time(now.0 + LASTS_MS);
    let expires_at = caller.expires_at.map_or(longest, |token_ends| token_ends.min(longest));
    let (secret, hash) = Secret::Session.generate()?;
    let session = SessionRecord { hash, token: caller.token, created_at: now, expires_at };
    app.store.insert_session(&session, &entry(&context, SignIn::NAME)).await?;
    // Rounded up: the server, not the browser, says when it has ended.
    let lasts_s = (expires_at.0 - now.0 + 999) / 1000;
    Ok((SignedIn { name: caller.name.clone(), role: caller.role, expires_at }, Change::Begun { secret, lasts_s }))
}

/// `sign-out`
pub async fn sign_out(context: Context, _: SignOut) -> Result<(SignedOut, Change)> {
    let Some(session) = &context.caller.session else {
        return Err(Error::WrongState {
            detail: "this call has no session: it was made with a bearer token".to_owned(),
            hint: Some("delete-token makes a token worthless".to_owned()),
        });
    };
    context.app.store.end_session(session, &entry(&context, SignOut::NAME)).await?;
    Ok((SignedOut { name: context.caller.name.clone() }, Change::Ended))
}

fn entry(context: &Context, method: &str) -> AuditRecord {
    let caller = &context.caller;
    let target = Target { kind: "token".to_owned(), id: caller.token, name: caller.name.clone() };
    AuditRecord { target: Some(target), ..context.audit(method, "accepted") }
}
