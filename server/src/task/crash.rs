//! Places where a test can kill or fail the server, or make it deaf. Debug builds only.

use crate::{Error, Result};

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

/// Dies by SIGKILL where `VMYARD_CRASH_AT` is `<step>:<before|after|undone>`, fails where `VMYARD_FAIL_AT` is.
pub(super) fn at(step: &str, point: Point) -> Result<()> {
    if !cfg!(debug_assertions) {
        return Ok(());
    }
    let here = format!("{step}:{point:?}").to_lowercase();
    if std::env::var("VMYARD_CRASH_AT").is_ok_and(|wanted| wanted == here) {
        // What kill -9 does: no destructor, no flush, no signal handler.
        let pid = std::process::id().to_string();
        let _ = std::process::Command::new("kill").args(["-9", &pid]).status();
    }
    if std::env::var("VMYARD_FAIL_AT").is_ok_and(|wanted| wanted == here) {
        return Err(Error::Unsupported { detail: format!("a test asked for a failure at {here}"), hint: None });
    }
    Ok(())
}

/// Whether what nodes tell by events is not heard, by `VMYARD_DEAF`: scans must find it.
pub(crate) fn deaf() -> bool {
    cfg!(debug_assertions) && std::env::var_os("VMYARD_DEAF").is_some()
}
