//! Opening connections to a node's libvirt.

use crate::{sync::lock, uri};
use libvirt::Connect;
use std::sync::Mutex;

/// Seconds between keep-alive messages, and how many may stay unanswered.
const KEEPALIVE: (i32, u32) = (3, 3);

/// How a node's libvirt is reached.
pub(crate) struct Connector {
    uri: String,
    /// The connection that everybody shares, where that must be.
    shared: Option<Mutex<Option<Connect>>>,
}

impl Connector {
    /// libvirt's test driver makes a node of its own for each connection: what one changes, the others don't see. So
    /// there the link and all lanes share one; they can't make each other wait, since it lives in this process.
    pub(crate) fn new(uri: &str) -> Connector {
        let shared = is_test(uri).then(Mutex::default);
        Connector { uri: uri.to_owned(), shared }
    }

    /// Opens a connection that never prompts, and that libvirt gives up when the other side is silent for ten seconds.
    pub(crate) fn open(&self) -> std::result::Result<Connect, String> {
        let Some(shared) = &self.shared else { return open(&self.uri) };
        let mut shared = lock(shared);
        match &*shared {
            Some(connection) => Ok(connection.clone()),
            None => Ok(shared.insert(open(&self.uri)?).clone()),
        }
    }
}

fn is_test(uri: &str) -> bool {
    uri.starts_with("test:")
}

fn open(uri: &str) -> std::result::Result<Connect, String> {
    uri::probe(uri).map_err(|error| format!("its port doesn't answer: {error}"))?;
    let connect = || -> libvirt::Result<Connect> {
        let connection = Connect::open(&uri::to_open(uri))?;
        // libvirt's test driver has no keep-alive.
        if !is_test(uri) {
            connection.set_keep_alive(KEEPALIVE.0, KEEPALIVE.1)?;
        }
        Ok(connection)
    };
    connect().map_err(|error| error.message)
}
