//! Tasks: every mutating call is one, journalled step by step.
//!
//! An operation first checks everything and takes its locks, changing nothing; what it returns is [`Work`]: what it
//! will work on and the rest of it as a closure. The work is then journalled and run on a task of its own, so a client
//! that hangs up doesn't stop it. Each step stores how it is taken back *before* it begins ([`Task::step`]); a failure
//! unwinds the steps in reverse, and after a crash the next start does ([`recover`]). The states are drawn at
//! [`api::task::TaskState`].

mod cancel;
mod crash;
mod journal;
mod locks;
mod outline;
mod recover;
mod secrets;
mod undo;

pub use cancel::Cancelled;
pub(crate) use crash::deaf;
pub use journal::{Call, Outcome, Task, Tasks, Work, start};
pub use locks::{Held, Lock, Locks};
pub use outline::{Outline, XmlChange};
pub use recover::{hold, recover};
pub use undo::Undo;
