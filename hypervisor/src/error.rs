//! The one error type of this crate, and the one place where libvirt's codes get a meaning.

use libvirt::ErrorCode;
use std::{
    fmt,
    time::{Duration, Instant},
};

/// The result of an operation on a node.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong on a node: which kind of failure, where, while doing what, and libvirt's own words.
#[derive(Debug, Clone)]
pub struct Error {
    /// What kind of failure it is.
    pub kind: ErrorKind,
    /// The node's name.
    pub node: String,
    /// What was being done, to which object: `define domain web-1a2b3c4d`.
    pub doing: String,
    /// The cause, mostly libvirt's message.
    pub cause: String,
}

/// Kinds of failure that callers tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The node's libvirt can't be reached, or the connection was lost while the call was under way: whether it took
    /// effect isn't known.
    Unavailable,
    /// The deadline passed: whether the call took effect isn't known.
    Timeout,
    /// There is no such domain, pool, volume or network.
    NotFound,
    /// There is one of that name or UUID already.
    Exists,
    /// The object's state doesn't allow it.
    WrongState,
    /// libvirt works on the object.
    Busy,
    /// The pool or the file system is full.
    NoSpace,
    /// The guest agent doesn't answer.
    Agent,
    /// The guest agent answers that it can't, or won't.
    AgentRefused,
    /// This libvirt, QEMU or object can't do it.
    Unsupported,
    /// What was given is not acceptable: an image that is refused, a file that is not there.
    Refused,
    /// QEMU could not be started or driven, or libvirt failed.
    Failed,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "could not {} on node {}: {}", self.doing, self.node, self.cause)
    }
}

impl std::error::Error for Error {}

/// Something of ours in the form of libvirt's errors, within a call.
pub(crate) fn libvirt_error(code: ErrorCode, message: &str) -> libvirt::Error {
    libvirt::Error { code, domain: 0, message: message.to_owned() }
}

/// What was asked for, `None` when there is no such thing.
pub(crate) fn if_there<T>(asked: Result<T>) -> Result<Option<T>> {
    match asked {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Repeats a call that fails with this in libvirt's words, for something that passes by itself; when it takes longer, it has failed.
pub(crate) fn again_while<T>(says: &str, patience: Duration, f: impl Fn() -> libvirt::Result<T>) -> libvirt::Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        match f() {
            Err(error) if error.message.contains(says) && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(20));
            }
            done => return done,
        }
    }
}

/// Says what kind of failure a libvirt error is. Codes: <https://libvirt.org/html/libvirt-virterror.html>.
pub(crate) fn kind_of(error: &libvirt::Error) -> ErrorKind {
    if error.message.contains("No space left on device") || error.message.contains("Disk quota exceeded") {
        return ErrorKind::NoSpace;
    }
    if error.message.contains("asynchronous jobs running") {
        return ErrorKind::Busy;
    }
    // Before libvirt 9.1 it has no code of its own.
    if error.message.contains("unable to execute QEMU agent command") {
        return ErrorKind::AgentRefused;
    }
    // Its QEMU has ended under a call.
    if error.message.contains("from agent socket") {
        return ErrorKind::Agent;
    }
    // Nor have these of serial lines: somebody has it; the domain is being started; it has none.
    for (text, kind) in [
        ("Active console session exists", ErrorKind::Busy),
        ("is locked by lock file", ErrorKind::Busy),
        ("PTY device is not yet assigned", ErrorKind::WrongState),
        ("cannot find console device", ErrorKind::Unsupported),
    ] {
        if error.message.contains(text) {
            return kind;
        }
    }
    match error.code {
        ErrorCode::NO_DOMAIN
        | ErrorCode::NO_STORAGE_POOL
        | ErrorCode::NO_STORAGE_VOL
        | ErrorCode::NO_NETWORK
        | ErrorCode::NO_DOMAIN_METADATA => ErrorKind::NotFound,
        ErrorCode::DOM_EXIST | ErrorCode::STORAGE_VOL_EXIST | ErrorCode::NETWORK_EXIST => ErrorKind::Exists,
        ErrorCode::OPERATION_INVALID => ErrorKind::WrongState,
        ErrorCode::RESOURCE_BUSY | ErrorCode::OPERATION_TIMEOUT => ErrorKind::Busy,
        ErrorCode::AGENT_UNRESPONSIVE | ErrorCode::AGENT_UNSYNCED | ErrorCode::AGENT_COMMAND_TIMEOUT => {
            ErrorKind::Agent
        }
        ErrorCode::AGENT_COMMAND_FAILED => ErrorKind::AgentRefused,
        ErrorCode::NO_SUPPORT
        | ErrorCode::CONFIG_UNSUPPORTED
        | ErrorCode::OPERATION_UNSUPPORTED
        | ErrorCode::ARGUMENT_UNSUPPORTED => ErrorKind::Unsupported,
        ErrorCode::NO_CONNECT | ErrorCode::INVALID_CONN | ErrorCode::AUTH_FAILED | ErrorCode::RPC => {
            ErrorKind::Unavailable
        }
        _ => ErrorKind::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds() {
        assert_eq!(kind_of(&libvirt_error(ErrorCode::NO_DOMAIN, "x")), ErrorKind::NotFound);
        assert_eq!(
            kind_of(&libvirt_error(ErrorCode::SYSTEM_ERROR, "write: No space left on device")),
            ErrorKind::NoSpace
        );
        assert_eq!(
            kind_of(&libvirt_error(ErrorCode::INTERNAL_ERROR, "pool 'x' has asynchronous jobs running.")),
            ErrorKind::Busy
        );
        assert_eq!(
            kind_of(&libvirt_error(ErrorCode::INTERNAL_ERROR, "End of file from agent socket")),
            ErrorKind::Agent
        );
        assert_eq!(kind_of(&libvirt_error(ErrorCode::INTERNAL_ERROR, "x")), ErrorKind::Failed);
    }

    #[test]
    fn what_passes_is_asked_again() {
        let asked = std::cell::Cell::new(0);
        let fails = |times: u32, message: &'static str| {
            asked.set(0);
            move |asked: &std::cell::Cell<u32>| {
                asked.set(asked.get() + 1);
                match asked.get() > times {
                    true => Ok(()),
                    false => Err(libvirt_error(ErrorCode::INTERNAL_ERROR, message)),
                }
            }
        };
        let patience = Duration::from_secs(60);
        let passes = fails(2, "Unable to parse RNG x.rng");
        assert!(again_while("Unable to parse RNG", patience, || passes(&asked)).is_ok() && asked.get() == 3);
        let stays = fails(2, "XML document failed to validate");
        assert!(again_while("Unable to parse RNG", patience, || stays(&asked)).is_err() && asked.get() == 1);
        let long = fails(2, "Unable to parse RNG x.rng");
        assert!(again_while("Unable to parse RNG", Duration::ZERO, || long(&asked)).is_err() && asked.get() == 1);
    }
}
