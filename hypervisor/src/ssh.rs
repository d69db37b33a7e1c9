//! The `ssh` program, as it is asked to reach a node that libvirt reaches by ssh.

use crate::uri::Remote;

/// Whether this is a machine that is reached by ssh.
pub(crate) fn leads_to(remote: &Remote) -> bool {
    matches!(remote.transport.as_str(), "ssh" | "libssh" | "libssh2")
}

/// The same way that libvirt's own ssh takes: same host, user, port, key, and trust in the host's key. `wanted`: further options;
/// the command, if there is one, comes behind these arguments.
pub(crate) fn arguments(remote: &Remote, wanted: &[&str]) -> Vec<String> {
    let mut arguments: Vec<String> =
        ["-T", "-e", "none", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10"].into_iter().map(str::to_owned).collect();
    let mut add = |name: &str, value: &str| arguments.extend([name.to_owned(), value.to_owned()]);
    if let Some(port) = remote.port {
        add("-p", &port.to_string());
    }
    if let Some(user) = &remote.user {
        add("-l", user);
    }
    if let Some(key) = remote.parameter("keyfile") {
        add("-i", key);
    }
    if remote.parameter("no_verify").is_some_and(|value| value != "0") {
        add("-o", "StrictHostKeyChecking=no");
    }
    if let Some(file) = remote.parameter("known_hosts") {
        add("-o", &format!("UserKnownHostsFile={file}"));
    }
    arguments.extend(wanted.iter().map(|&option| option.to_owned()));
    arguments.extend(["--".to_owned(), remote.host.clone()]);
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uri;

    #[test]
    fn the_way_that_libvirt_takes() {
        let remote = uri::remote("qemu+ssh://root@[fd00::2]:2222/system?keyfile=/k&no_verify=1");
        let expected = "-p 2222 -l root -i /k -o StrictHostKeyChecking=no -W 127.0.0.1:5901 -- fd00::2";
        assert_eq!(arguments(&remote, &["-W", "127.0.0.1:5901"])[7..].join(" "), expected);
        assert!(leads_to(&remote) && !leads_to(&uri::remote("qemu+tls://a/system")));
    }
}
