//! Passwords and keys in an image that no domain runs on, with virt-customize and virt-cat: libvirt has no call that looks into a
//! guest's file systems, and mounting them would give a guest's data to the host's kernel. They run where the node is this machine;
//! arguments are passed as arguments, what is secret goes to standard input.

use crate::{ErrorKind, Node, Result, VirtType};
use std::{env, process::Stdio, time::Duration};
use tokio::{io::AsyncWriteExt, process::Command};
use uuid::Uuid;

/// The programs; one package has both.
const CUSTOMIZE: &str = "virt-customize";
const CAT: &str = "virt-cat";
/// How long each has: it starts a small guest of its own, which is slow under emulation.
const DEADLINE: Duration = Duration::from_secs(600);
/// What is asked of virt-customize beside the change: no log in the guest, SELinux's labels where they are.
const ALWAYS: [&str; 3] = ["--quiet", "--no-logfile", "--selinux-relabel"];

impl Node {
    /// Fails where images of this node can't be looked into.
    pub fn edits_images(&self, doing: &str) -> Result<()> {
        if !self.is_local() {
            let why = format!("{CUSTOMIZE} can be run on this machine only");
            return Err(self.error(ErrorKind::Unsupported, doing, &why));
        }
        let is_there = |program: &str| {
            let paths = env::var_os("PATH").unwrap_or_default();
            env::split_paths(&paths).any(|folder| folder.join(program).is_file())
        };
        match is_there(CUSTOMIZE) && is_there(CAT) {
            true => Ok(()),
            false => Err(self.missing(doing)),
        }
    }

    fn missing(&self, doing: &str) -> crate::Error {
        let why = format!(
            "{CUSTOMIZE} and {CAT} are not installed: Debian and Ubuntu have them in guestfs-tools, others in \
                           guestfs-tools or libguestfs-tools"
        );
        self.error(ErrorKind::Unsupported, doing, &why)
    }

    /// Fails unless a domain that is off keeps no memory of a run: what runs on from there would not know of a change of its disk.
    pub async fn has_no_saved_memory(&self, id: Uuid) -> Result<()> {
        let doing = format!("look for saved memory of domain {id}");
        match self.ask_domain(id, &doing, |domain| domain.has_managed_save()).await? {
            false => Ok(()),
            true => {
                let why = "it was suspended with its memory (virsh managedsave); start it, or drop that memory";
                Err(self.error(ErrorKind::WrongState, &format!("change the disk of domain {id}"), why))
            }
        }
    }

    /// A file of the guest whose system disk has this qcow2 image; `None` when there is no such file.
    pub async fn file_in_image(&self, image: &str, path: &str) -> Result<Option<String>> {
        let doing = format!("read {path} in {image}");
        let args = ["--format=qcow2", "-a", image, path];
        match self.run(&doing, CAT, &args, None).await {
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
        self.run(doing, CUSTOMIZE, &args, Some(secret)).await.map(|_| ())
    }

    /// Runs a program, which is given this on its standard input; returns what it prints.
    async fn run(&self, doing: &str, program: &str, args: &[&str], input: Option<String>) -> Result<String> {
        let failed = |kind, why: &str| self.error(kind, doing, why);
        self.edits_images(doing)?;
        let mut command = Command::new(program);
        // Not by libvirt: the image belongs to nobody's domain for the moment.
        command.args(args).env("LIBGUESTFS_BACKEND", "direct").env("LC_ALL", "C.UTF-8").kill_on_drop(true);
        if self.facts().is_none_or(|facts| facts.virt_type == VirtType::Qemu) {
            command.env("LIBGUESTFS_BACKEND_SETTINGS", "force_tcg");
        }
        let piped = if input.is_some() { Stdio::piped() } else { Stdio::null() };
        command.stdin(piped).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => self.missing(doing),
            _ => failed(ErrorKind::Unsupported, &format!("{program} can't be run: {error}")),
        })?;
        if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
            // One that ends before it has read says why on its standard error.
            let _ = stdin.write_all(text.as_bytes()).await;
        }
        let output = tokio::time::timeout(DEADLINE, child.wait_with_output()).await;
        let output = output.map_err(|_| {
            failed(
                ErrorKind::Timeout,
                &format!("{program} has not ended within {} s, and was ended", DEADLINE.as_secs()),
            )
        })?;
        let output = output.map_err(|error| failed(ErrorKind::Failed, &format!("{program}: {error}")))?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(failed(ErrorKind::Failed, String::from_utf8_lossy(&output.stderr).trim())),
        }
    }
}
