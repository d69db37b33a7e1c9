//! Logging in to guests, as people do: on the serial line, and over ssh.

use super::{Lab, TestVm, eventually};
use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::PermissionsExt,
    process::Command,
    time::Duration,
};

/// How long a login may take on a loaded machine.
const LOGIN: Duration = Duration::from_secs(300);

/// A pair of keys in the lab's directory.
pub struct KeyPair {
    /// The file of the private one.
    pub path: String,
    /// The public one, as OpenSSH writes it.
    pub public: String,
}

impl KeyPair {
    /// A new pair, in a file of this name.
    pub fn make(lab: &Lab, name: &str) -> KeyPair {
        let path = lab.dir.path.join(name).display().to_string();
        let made =
            Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "test: key", "-f", &path]).status();
        assert!(made.unwrap().success());
        let public = fs::read_to_string(format!("{path}.pub")).unwrap().trim().to_owned();
        KeyPair { path, public }
    }
}

impl TestVm<'_> {
    /// Whether this key lets the user in over ssh.
    pub fn ssh_key(&self, user: &str, key: &KeyPair) -> bool {
        let only_key = ["-i", &key.path, "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"];
        self.ssh(user, &[], &only_key, "id -un") == (true, user.to_owned())
    }

    /// Whether this password lets the user in over ssh.
    pub fn ssh_password(&self, user: &str, password: &str) -> bool {
        let path = |name: &str| self.lab.dir.path.join(name).display().to_string();
        // ssh asks this program for the password.
        let askpass = path("askpass");
        fs::write(path("asked"), password).unwrap();
        fs::write(&askpass, format!("#!/bin/sh\ncat '{}'\n", path("asked"))).unwrap();
        fs::set_permissions(&askpass, fs::Permissions::from_mode(0o700)).unwrap();
        let env = [("SSH_ASKPASS", askpass.as_str()), ("SSH_ASKPASS_REQUIRE", "force"), ("DISPLAY", "none")];
        let only_password = ["-o", "PubkeyAuthentication=no", "-o", "NumberOfPasswordPrompts=1"];
        let answered = self.ssh(user, &env, &only_password, "id -un");
        fs::remove_file(path("asked")).unwrap();
        answered == (true, user.to_owned())
    }

    /// Whether this password lets the user in on the serial line.
    #[track_caller]
    pub fn serial_login(&self, user: &str, password: &str) -> bool {
        let terminal = self.lab.node.virsh(&["ttyconsole", self.created["domain"].as_str().unwrap()]);
        let mut terminal = File::options().write(true).open(terminal).unwrap();
        let mut say = |line: &str| terminal.write_all(format!("{line}\r").as_bytes()).unwrap();
        let said = |from: usize| self.serial_log().get(from..).unwrap_or_default().to_owned();
        let mut begun = self.serial_log().len();
        // An empty name would be asked for its password.
        if !at_prompt(&self.serial_log()) {
            say("");
        }
        let before = said(begun.saturating_sub(2000));
        eventually(&format!("a login prompt after {before}"), LOGIN, || at_prompt(&self.serial_log()).then_some(()));
        begun = self.serial_log().len();
        say(user);
        eventually("it asks for the password", LOGIN, || said(begun).contains("assword:").then_some(()));
        begun = self.serial_log().len();
        say(password);
        let is_in = eventually("it answers the password", LOGIN, || {
            let text = said(begun);
            // busybox's prompt goes on with an escape sequence.
            let is_in = (text.contains("$ ") || text.contains("# ")).then_some(Some(true));
            let refused = text.contains("ncorrect").then_some(Some(false));
            refused.or(is_in).or(text.contains("timed out").then_some(None))
        });
        // It drops what is typed before it has switched the echo off, which is after its question, and says so a minute later.
        let Some(is_in) = is_in else { return self.serial_login(user, password) };
        if is_in {
            say("echo in-$((40 + 2))-as-$(id -un)");
            eventually("the shell answers", LOGIN, || said(begun).contains(&format!("in-42-as-{user}")).then_some(()));
            begun = self.serial_log().len();
            say("exit");
        }
        eventually("the next login prompt", LOGIN, || at_prompt(&said(begun)).then_some(()));
        is_in
    }
}

/// Whether somebody may log in, whatever the guest's scripts have said since.
fn at_prompt(log: &str) -> bool {
    let is_of_a_script = |line: &str| line.trim().is_empty() || line.trim().starts_with("tiny: ");
    log.rsplit_once("login:").is_some_and(|(_, after)| after.lines().all(is_of_a_script))
}
