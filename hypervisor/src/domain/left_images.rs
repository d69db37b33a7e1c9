//! Images that a libvirtd which died has left open in a running QEMU.

use libvirt::Result;

/// How many of them are passed: a libvirtd that is killed leaves at most one for each disk.
const PASSED_MAX: usize = 64;

/// Repeats a call that opens images in a running QEMU, and does so wholly or not at all, while names are taken.
///
/// libvirt counts the names of a QEMU's images up, and writes down how far it has come after the call that needed them. One that
/// was killed in between, by 9.0 and 11.3 alike, leaves the images of this call open, and the next libvirtd begins to count
/// below them. It counts on at each call that fails for it.
pub(super) fn past_left_images(call: impl Fn() -> Result<()>) -> Result<()> {
    let mut passed = 0;
    loop {
        match call() {
            Err(error) if passed < PASSED_MAX && error.message.contains("Duplicate node") => passed += 1,
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::libvirt_error;
    use libvirt::ErrorCode;
    use std::cell::Cell;

    #[test]
    fn names_that_are_taken_are_passed() {
        let taken = || libvirt_error(ErrorCode::INTERNAL_ERROR, "Duplicate nodes with node-name='libvirt-9-storage'");
        let calls = Cell::new(0);
        let call = |free: usize| {
            calls.set(calls.get() + 1);
            if calls.get() < free { Err(taken()) } else { Ok(()) }
        };
        past_left_images(|| call(3)).unwrap();
        assert_eq!(calls.replace(0), 3);
        past_left_images(|| call(usize::MAX)).unwrap_err();
        assert_eq!(calls.replace(0), PASSED_MAX + 1);
        past_left_images(|| Err(libvirt_error(ErrorCode::INTERNAL_ERROR, &calls.replace(7).to_string()))).unwrap_err();
        assert_eq!(calls.get(), 7);
    }
}
