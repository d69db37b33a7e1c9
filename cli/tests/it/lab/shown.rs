//! What a program prints, read while it runs.

use super::{SOON, eventually};
use std::{
    io::Read,
    process::Child,
    sync::{Arc, Mutex},
    thread::JoinHandle,
};

/// What a program has printed so far.
pub struct Shown {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Shown {
    /// Of a child whose standard output is a pipe, which is taken.
    pub fn of(child: &mut Child) -> Shown {
        let (bytes, mut out) = (Arc::new(Mutex::new(Vec::new())), child.stdout.take().unwrap());
        let seen = Arc::clone(&bytes);
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = out.read(&mut buffer) {
                seen.lock().unwrap().extend_from_slice(&buffer[..length]);
            }
        });
        Shown { bytes, reader }
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().unwrap()).into_owned()
    }

    /// Waits until this is somewhere in it.
    #[track_caller]
    pub fn wait_for(&self, text: &str) {
        eventually(&format!("{text:?} is shown"), SOON, || self.text().contains(text).then_some(()));
    }

    /// All of it, of a program that has ended.
    pub fn all(self) -> String {
        self.reader.join().unwrap();
        String::from_utf8_lossy(&self.bytes.lock().unwrap()).into_owned()
    }
}
