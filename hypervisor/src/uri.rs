//! What we need to know of a libvirt URI (<https://libvirt.org/uri.html>) before libvirt sees it.

use std::{
    net::{TcpStream, ToSocketAddrs},
    time::Duration,
};

/// How long a TCP connection may take before a node counts as away. virConnectOpen itself has no deadline.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

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
    let Some((scheme, rest)) = uri.split_once("://") else { return Ok(()) };
    let transport = scheme.split_once('+').map_or("", |(_, transport)| transport);
    let authority = host(rest);
    if authority.is_empty() {
        return Ok(());
    }
    let default_port = match transport {
        "ssh" | "libssh" | "libssh2" => 22,
        "tcp" => 16509,
        "tls" | "" => 16514,
        _ => return Ok(()),
    };
    let (name, port) = match authority.rsplit_once(':') {
        Some((name, port)) if !name.ends_with(':') && port.parse::<u16>().is_ok() => {
            (name, port.parse().unwrap_or(default_port))
        }
        _ => (authority, default_port),
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    let mut last = std::io::Error::new(std::io::ErrorKind::NotFound, format!("{name} has no address"));
    for address in (name, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, PROBE_TIMEOUT) {
            Ok(_) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
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
