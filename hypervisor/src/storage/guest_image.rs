//! Passwords and keys in an image that no domain runs on, with virt-customize and virt-cat: libvirt has no call that looks into a
//! guest's file systems, and mounting them would give a guest's data to the host's kernel. They run on the node; what is secret
//! goes to standard input.

use crate::{Node, Result, VirtType, program::Program};
use std::time::Duration;

/// The programs; one package has both.
const CUSTOMIZE: &str = "virt-customize";
const CAT: &str = "virt-cat";
const PACKAGE: &str = "guestfs-tools (Debian, Ubuntu) or libguestfs-tools";
/// How long each has: it starts a small guest of its own, which is slow under emulation.
const DEADLINE: Duration = Duration::from_secs(600);
/// What is asked of virt-customize beside the change: no log in the guest, SELinux's labels where they are.
const ALWAYS: [&str; 3] = ["--quiet", "--no-logfile", "--selinux-relabel"];

impl Node {
    /// Fails where images of this node can't be looked into.
    pub async fn edits_images(&self, doing: &str) -> Result<()> {
        for program in [CUSTOMIZE, CAT] {
            self.guestfs(doing, program, &["--version"], String::new()).await?;
        }
        Ok(())
    }

    /// A file of the guest whose system disk has this qcow2 image; `None` when there is no such file.
    pub async fn file_in_image(&self, image: &str, path: &str) -> Result<Option<String>> {
        let doing = format!("read {path} in {image}");
        let args = ["--format=qcow2", "-a", image, path];
        match self.guestfs(&doing, CAT, &args, String::new()).await {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.cause.contains("No such file or directory") => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sets the password of a user, as a `$6$` hash.
    pub async fn set_password_in_image(&self, image: &str, user: &str, password: &str) -> Result<()> {
        let doing = format!("set the password of user {user} in {image}");
        let password_of = format!("{user}:file:/dev/stdin");
        let change = ["--password-crypto", "sha512", "--password", &password_of];
        self.customize(&doing, image, &change, format!("{password}\n")).await
    }

    /// Replaces the authorised SSH keys of a user, which are in this file.
    pub async fn set_ssh_keys_in_image(&self, image: &str, user: &str, file: &str, keys: &[String]) -> Result<()> {
        let doing = format!("set the SSH keys of user {user} in {image}");
        let keys_of = format!("{user}:file:/dev/stdin");
        let change = ["--delete", file, "--ssh-inject", &keys_of];
        self.customize(&doing, image, &change, keys.join("\n") + "\n").await
    }

    async fn customize(&self, doing: &str, image: &str, change: &[&str], secret: String) -> Result<()> {
        let args = [&["--format=qcow2", "-a", image], &ALWAYS[..], change].concat();
        self.guestfs(doing, CUSTOMIZE, &args, secret).await.map(|_| ())
    }

    /// Runs a program of theirs, which is given this on its standard input; returns what it prints.
    async fn guestfs(&self, doing: &str, name: &str, args: &[&str], input: String) -> Result<String> {
        // Not by libvirt: the image belongs to nobody's domain for the moment.
        let mut env = vec![("LIBGUESTFS_BACKEND", "direct")];
        if self.facts().is_none_or(|facts| facts.virt_type == VirtType::Qemu) {
            env.push(("LIBGUESTFS_BACKEND_SETTINGS", "force_tcg"));
        }
        let program = Program { name, package: PACKAGE, args, env: &env, input, deadline: Some(DEADLINE) };
        self.run(doing, program).await
    }
}
