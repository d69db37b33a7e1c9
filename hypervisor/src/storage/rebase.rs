//! Moving an overlay from the image that it stands on to another one below, with `qemu-img`, since libvirt has no call for
//! images that no domain runs on. It runs where the node is this machine; arguments are passed as arguments.

use super::{Backing, pool::when_idle};
use crate::{ErrorKind, Node, Result, node::SLOW};
use std::process::Stdio;

impl Node {
    /// Makes an overlay that nobody uses stand on another image (`None`: on none) and look the same: what it needs of the
    /// images in between is copied into it. Cut off, it is as before; it may be called again. `Unsupported` where the
    /// node is another machine.
    pub async fn rebase(&self, overlay: &str, onto: Option<&Backing>) -> Result<()> {
        let doing = format!("merge what is below {overlay} into it");
        if !self.is_local() {
            let why = "qemu-img can be run on this machine only";
            return Err(self.error(ErrorKind::Unsupported, &doing, why));
        }
        let mut command = tokio::process::Command::new("qemu-img");
        command.args(["rebase", "-f", "qcow2", "-b", onto.map_or("", |onto| &onto.path)]);
        if let Some(onto) = onto {
            command.args(["-F", &onto.format]);
        }
        command.arg(overlay).stdin(Stdio::null()).kill_on_drop(true);
        let ran = command.output().await.map_err(|error| {
            let why = format!("qemu-img can't be run: {error}; install qemu-utils on the node");
            self.error(ErrorKind::Unsupported, &doing, &why)
        })?;
        match ran.status.success() {
            true => {
                self.look_again(overlay).await;
                Ok(())
            }
            false => {
                let said = String::from_utf8_lossy(&ran.stderr).trim().to_owned();
                let kind = if said.contains("No space left") { ErrorKind::NoSpace } else { ErrorKind::Failed };
                Err(self.error(kind, &doing, &said))
            }
        }
    }

    /// Makes libvirt look again at the pool of an image whose header was changed without it. Not vital: what must be known is
    /// read from headers.
    pub async fn look_again(&self, path: &str) {
        let (doing, wanted) = (format!("refresh the pool of {path}"), path.to_owned());
        let refreshed = self.change(SLOW, &doing, move |connection| {
            let pool = connection.volume_by_path(&wanted)?.pool()?;
            when_idle(|| pool.refresh(0))
        });
        if let Err(error) = refreshed.await {
            tracing::debug!(%error, "a pool is not refreshed");
        }
    }
}
