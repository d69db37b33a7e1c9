//! Consoles: who may come in ([`tickets`]), screens ([`rfb`], [`vnc`]), serial lines ([`line`], [`ring`], [`lines`]), and what is
//! kept of them ([`asciicast`], [`recordings`]).

pub mod asciicast;
pub mod line;
pub mod lines;
pub mod recordings;
mod rfb;
mod ring;
pub mod tickets;
pub mod vnc;

use crate::{App, auth, auth::Caller};
use std::time::Duration;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long a ticket lets somebody in.
pub const TICKET: Duration = Duration::from_secs(60);
/// How often it is looked whether who opened a session may still have it.
const CHECK: Duration = Duration::from_secs(10);

/// The consoles of this server.
#[derive(Default)]
pub struct Consoles {
    /// Who may come in.
    pub tickets: tickets::Tickets,
    /// The serial lines that are watched.
    pub lines: lines::Lines,
    /// Callers who connect with the display of one VM take turns where it gets a password for that.
    turns: vnc::Turns,
    /// Cancelled when the server stops: all sessions end.
    pub stop: CancellationToken,
    /// The sessions: a server that stops waits a moment for them to say so.
    pub open: TaskTracker,
}

/// Waits until whoever opened a session may have it no longer, and says why.
pub async fn outlived(app: &App, caller: &Caller) -> String {
    loop {
        tokio::time::sleep(CHECK).await;
        match auth::still_works(&app.store, caller).await {
            Ok(()) => {}
            Err(error @ (crate::Error::Unauthenticated(_) | crate::Error::Expired { .. })) => return error.to_string(),
            // A database that doesn't answer throws nobody out.
            Err(error) => tracing::warn!(%error, "can't tell whether a console's token still works"),
        }
    }
}
