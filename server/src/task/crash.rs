//! Places where a test can kill or fail the server, or make it deaf. Debug builds only.

use crate::{Error, Result};
use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

/// A signal is taken within this.
const TAKEN: Duration = Duration::from_millis(500);

/// A point in the life of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Point {
    /// The undo is journalled, the action hasn't begun.
    Before,
    /// The action is done, its end is not journalled.
    After,
    /// The undo is done, which is not journalled.
    Undone,
}

/// Dies by SIGKILL where `VMYARD_CRASH_AT` is `<step>:<before|after|undone>`, fails where `VMYARD_FAIL_AT` is. Where `VMYARD_STOP_AT`
/// is, it stops once by SIGSTOP, until a test has done something to the node and lets it go on.
pub(super) fn at(step: &str, point: Point) -> Result<()> {
    if !cfg!(debug_assertions) {
        return Ok(());
    }
    let here = format!("{step}:{point:?}").to_lowercase();
    let is_here = |variable| std::env::var(variable).is_ok_and(|wanted| wanted == here);
    let signal = |signal: &str| {
        let pid = std::process::id().to_string();
        let _ = std::process::Command::new("kill").args([signal, pid.as_str()]).status();
        // On a busy machine it takes a moment until another thread has taken the signal: nothing goes on here until then.
        std::thread::sleep(TAKEN);
    };
    if is_here("VMYARD_CRASH_AT") {
        // What kill -9 does: no destructor, no flush, no signal handler.
        signal("-9");
    }
    static HAS_STOPPED: AtomicBool = AtomicBool::new(false);
    if is_here("VMYARD_STOP_AT") && !HAS_STOPPED.swap(true, Ordering::SeqCst) {
        signal("-STOP");
    }
    if is_here("VMYARD_FAIL_AT") {
        return Err(Error::Unsupported { detail: format!("a test asked for a failure at {here}"), hint: None });
    }
    Ok(())
}

/// Whether what nodes tell by events is not heard, by `VMYARD_DEAF`: scans must find it.
pub(crate) fn deaf() -> bool {
    cfg!(debug_assertions) && std::env::var_os("VMYARD_DEAF").is_some()
}
