//! Why a domain is in the state that it is in.

use super::{Power, ops::power};
use crate::{Node, Result, error::if_there};
use libvirt::{DomainState, flags};
use uuid::Uuid;

/// Why, as far as it matters to somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It was started.
    Booted,
    /// Somebody paused it.
    User,
    /// A disk could not be read or written.
    IoError,
    /// The guest, or QEMU, crashed.
    Crashed,
    /// It failed to start, or QEMU ended.
    Failed,
    /// The guest powered off.
    PoweredOff,
    /// Its power was cut.
    PowerCut,
    /// It was saved, with its memory.
    Saved,
    /// For a snapshot, a copy of it, or its move: that passes.
    Passing,
    /// Something else.
    Other,
}

impl Why {
    /// In a word or two.
    pub fn as_str(self) -> &'static str {
        match self {
            Why::Booted => "booted",
            Why::User => "user",
            Why::IoError => "io error",
            Why::Crashed => "crashed",
            Why::Failed => "failed",
            Why::PoweredOff => "powered off",
            Why::PowerCut => "power cut",
            Why::Saved => "saved",
            Why::Passing => "passing",
            Why::Other => "unknown",
        }
    }
}

impl Node {
    /// A domain's power state, and why it is in it; `None` when there is no such domain.
    pub async fn why(&self, id: Uuid) -> Result<Option<(Power, Why)>> {
        let read = self
            .ask_domain(id, &format!("read the state of domain {id}"), move |domain| {
                let (state, reason) = domain.state()?;
                let (power, why) = (power(state, reason), why(state, reason));
                // A libvirtd that was restarted, or whose host was, knows no reason any more; the file with the memory lasts.
                let why = match power == Power::Off && domain.has_managed_save()? {
                    true => Why::Saved,
                    false if why == Why::Saved => Why::Other,
                    false => why,
                };
                Ok((power, why))
            })
            .await;
        if_there(read)
    }
}

/// libvirt's reasons: <https://libvirt.org/html/libvirt-libvirt-domain.html#virDomainState>.
fn why(state: DomainState, reason: i32) -> Why {
    match state {
        DomainState::Running => Why::Booted,
        DomainState::Crashed => Why::Crashed,
        DomainState::Paused => match reason {
            flags::REASON_PAUSED_USER => Why::User,
            flags::REASON_PAUSED_IOERROR => Why::IoError,
            flags::REASON_PAUSED_CRASHED => Why::Crashed,
            flags::REASON_PAUSED_MIGRATION
            | flags::REASON_PAUSED_SAVE
            | flags::REASON_PAUSED_SNAPSHOT
            | flags::REASON_PAUSED_STARTING_UP
            | flags::REASON_PAUSED_SHUTTING_DOWN => Why::Passing,
            _ => Why::Other,
        },
        DomainState::Shutoff => match reason {
            flags::REASON_SHUTOFF_SHUTDOWN => Why::PoweredOff,
            flags::REASON_SHUTOFF_DESTROYED => Why::PowerCut,
            flags::REASON_SHUTOFF_CRASHED => Why::Crashed,
            flags::REASON_SHUTOFF_FAILED => Why::Failed,
            flags::REASON_SHUTOFF_SAVED => Why::Saved,
            _ => Why::Other,
        },
        _ => Why::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons() {
        assert_eq!(why(DomainState::Paused, flags::REASON_PAUSED_IOERROR), Why::IoError);
        assert_eq!(why(DomainState::Shutoff, flags::REASON_SHUTOFF_FAILED), Why::Failed);
        // The same number means something else in another state.
        assert_eq!(why(DomainState::Running, flags::REASON_PAUSED_IOERROR), Why::Booted);
    }
}
