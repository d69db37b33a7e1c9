//! What we need to know of a libvirt URI (<https://libvirt.org/uri.html>) before libvirt sees it.

use serde::{Deserialize, Serialize};
use std::{
    fmt,
    net::{TcpStream, ToSocketAddrs},
    time::Duration,
};

/// How long a TCP connection may take before a node counts as away. virConnectOpen itself has no deadline.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// A libvirt URI. It may have a password in it, which is never printed; the database and the configuration file have it
/// whole.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeUri(String);

/// How a node may be reached. Not by `ext`, which runs a program of the URI's choice.
const TRANSPORTS: [&str; 7] = ["", "unix", "tcp", "tls", "ssh", "libssh", "libssh2"];
/// Parameters that name programs to run.
const PROGRAMS: [&str; 2] = ["command", "netcat"];

impl NodeUri {
    /// A URI as it was given; see [`NodeUri::check`].
    pub fn new(text: &str) -> NodeUri {
        NodeUri(text.to_owned())
    }

    /// Says why a URI won't do.
    pub fn check(&self) -> Result<(), String> {
        let text = self.0.as_str();
        let form = "must be a libvirt URI, like qemu:///system or qemu+ssh://root@host/system";
        let (scheme, rest) = text.split_once("://").ok_or(form)?;
        let (driver, transport) = scheme.split_once('+').unwrap_or((scheme, ""));
        if !text.chars().all(|c| c.is_ascii_graphic()) || text.len() > 1024 || rest.is_empty() {
            return Err(form.to_owned());
        }
        // The test driver is libvirt's own, without any guest.
        if driver != "qemu" && (driver, transport) != ("test", "") {
            return Err(format!("must be a URI of libvirt's driver qemu, not {driver}"));
        }
        if !TRANSPORTS.contains(&transport) {
            return Err(format!("has the transport {transport:?}; it can be unix, tcp, tls, ssh, libssh or libssh2"));
        }
        let query = rest.split_once('?').map_or("", |(_, query)| query);
        for name in query.split(['&', ';']).map(|pair| pair.split('=').next().unwrap_or_default()) {
            if name.contains('%') || PROGRAMS.contains(&name.to_lowercase().as_str()) {
                return Err(format!("must not have the parameter {name:?}, which names a program to run"));
            }
        }
        Ok(())
    }

    /// Whether it has a password in it.
    pub fn has_password(&self) -> bool {
        redacted(&self.0) != self.0
    }

    /// The URI with its password, for libvirt.
    pub(crate) fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&redacted(&self.0))
    }
}

impl fmt::Debug for NodeUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", redacted(&self.0))
    }
}

/// Whether the URI leads to this machine: no host, transport `unix` or none.
pub(crate) fn is_local(uri: &str) -> bool {
    let Some((scheme, rest)) = uri.split_once("://") else { return false };
    let transport = scheme.split_once('+').map_or("", |(_, transport)| transport);
    host(rest).is_empty() && matches!(transport, "" | "unix")
}

/// The URI as people may see it: without a password.
pub(crate) fn redacted(uri: &str) -> String {
    let Some((scheme, rest)) = uri.split_once("://") else { return uri.to_owned() };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    match authority.rsplit_once('@') {
        Some((user, host)) => {
            let user = user.split_once(':').map_or(user, |(user, _)| user);
            format!("{scheme}://{user}@{host}{path}")
        }
        None => uri.to_owned(),
    }
}

/// The URI that is opened: for ssh, never with a prompt.
pub(crate) fn to_open(uri: &str) -> String {
    let ssh = uri.split_once("://").is_some_and(|(scheme, _)| scheme.ends_with("+ssh"));
    if !ssh || uri.contains("no_tty=") {
        return uri.to_owned();
    }
    let separator = if uri.contains('?') { '&' } else { '?' };
    format!("{uri}{separator}no_tty=1")
}

/// Tries the URI's TCP port, so that a host which drops packets costs three seconds, not minutes.
pub(crate) fn probe(uri: &str) -> std::io::Result<()> {
    let remote = remote(uri);
    let name = remote.host.as_str();
    if name.is_empty() {
        return Ok(());
    }
    let default_port = match remote.transport.as_str() {
        "ssh" | "libssh" | "libssh2" => 22,
        "tcp" => 16509,
        "tls" | "" => 16514,
        _ => return Ok(()),
    };
    let port = remote.port.unwrap_or(default_port);
    let mut last = std::io::Error::new(std::io::ErrorKind::NotFound, format!("{name} has no address"));
    for address in (name, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, PROBE_TIMEOUT) {
            Ok(_) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// How a URI's machine is reached.
pub(crate) struct Remote {
    /// `tcp`, `ssh`, …; empty for none.
    pub(crate) transport: String,
    pub(crate) user: Option<String>,
    /// The machine's name or address, an IPv6 one without brackets; empty for this machine.
    pub(crate) host: String,
    pub(crate) port: Option<u16>,
    parameters: Vec<(String, String)>,
}

impl Remote {
    /// The value of a parameter of the URI's query.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// Takes a URI apart.
pub(crate) fn remote(uri: &str) -> Remote {
    let (scheme, rest) = uri.split_once("://").unwrap_or((uri, ""));
    let authority = host(rest);
    let (name, port) = match authority.rsplit_once(':') {
        Some((name, port)) if !name.ends_with(':') && !port.ends_with(']') => (name, port.parse().ok()),
        _ => (authority, None),
    };
    let before = &rest[..rest.find(['/', '?']).unwrap_or(rest.len())];
    let user = before.rsplit_once('@').map(|(user, _)| user.split_once(':').map_or(user, |(user, _)| user).to_owned());
    let query = rest.split_once('?').map_or("", |(_, query)| query);
    Remote {
        transport: scheme.split_once('+').map_or("", |(_, transport)| transport).to_owned(),
        user,
        host: name.trim_start_matches('[').trim_end_matches(']').to_owned(),
        port,
        parameters: query
            .split(['&', ';'])
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect(),
    }
}

/// Host and port of what follows `://`, without the user.
fn host(rest: &str) -> &str {
    let authority = &rest[..rest.find(['/', '?']).unwrap_or(rest.len())];
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local() {
        assert!(is_local("qemu:///system"));
        assert!(is_local("qemu+unix:///system?socket=/run/x"));
        assert!(!is_local("qemu+ssh://root@a/system"));
        assert!(!is_local("qemu+tcp://10.0.0.2/system"));
    }

    #[test]
    fn passwords_are_hidden() {
        assert_eq!(redacted("qemu+ssh://root:secret@a:22/system?x=1"), "qemu+ssh://root@a:22/system?x=1");
        assert_eq!(redacted("qemu:///system"), "qemu:///system");
    }

    #[test]
    fn only_uris_that_reach_a_qemu_and_run_nothing() {
        for good in [
            "qemu:///system",
            "qemu+unix:///system?socket=/run/x",
            "qemu+ssh://root@a:22/system?keyfile=/k&no_verify=1",
            "qemu+tls://a.example/system",
            "test:///default",
        ] {
            assert_eq!(NodeUri::new(good).check(), Ok(()), "{good}");
        }
        for bad in [
            "",
            "junk",
            "qemu://",
            "xen:///system",
            "qemu+ext:///system?command=/bin/sh",
            "qemu+ssh://a/system?command=/bin/sh",
            "qemu+ssh://a/system?no_verify=1;NetCat=/bin/sh",
            "qemu+ssh://a/system?comm%61nd=/bin/sh",
            "qemu+ssh://a/sys tem",
            "qemu:///system\n",
        ] {
            assert!(NodeUri::new(bad).check().is_err(), "{bad}");
        }
        let secret = NodeUri::new("qemu+tcp://root:hunter2@a/system");
        assert!(!format!("{secret} {secret:?}").contains("hunter2"));
    }

    #[test]
    fn ssh_never_prompts() {
        assert_eq!(to_open("qemu+ssh://a/system"), "qemu+ssh://a/system?no_tty=1");
        assert_eq!(to_open("qemu+ssh://a/system?keyfile=/k"), "qemu+ssh://a/system?keyfile=/k&no_tty=1");
        assert_eq!(to_open("qemu:///system"), "qemu:///system");
    }

    #[test]
    fn a_closed_port_is_found_at_once() {
        assert!(probe("qemu+tcp://127.0.0.1:1/system").is_err());
        assert!(probe("qemu:///system").is_ok());
    }
}
