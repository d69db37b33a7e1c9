//! Moving an overlay from the image that it stands on to another one below, with `qemu-img`, since libvirt has no call for
//! images that no domain runs on. It runs on the node.

use super::{Backing, pool::when_idle};
use crate::{ErrorKind, Node, Result, node::SLOW, program::Program};

impl Node {
    /// Makes an overlay that nobody uses stand on another image (`None`: on none) and look the same: what it needs of the
    /// images in between is copied into it. Cut off, it is as before; it may be called again. `Unsupported` where
    /// it can't be run: see [`Node::runs_programs`].
    pub async fn rebase(&self, overlay: &str, onto: Option<&Backing>) -> Result<()> {
        let doing = format!("merge what is below {overlay} into it");
        let mut args = vec!["rebase", "-f", "qcow2", "-b", onto.map_or("", |onto| &onto.path)];
        if let Some(onto) = onto {
            args.extend(["-F", &onto.format]);
        }
        args.push(overlay);
        let (name, package) = ("qemu-img", "qemu-utils (Debian, Ubuntu) or qemu-img");
        let program = Program { name, package, args: &args, env: &[], input: String::new(), deadline: None };
        self.run(&doing, program).await?;
        self.look_again(overlay).await;
        Ok(())
    }

    /// The same for a new overlay, on every node. Cut off, the overlay is worth nothing.
    pub async fn flatten(&self, overlay: &str, onto: Option<&Backing>) -> Result<()> {
        match self.rebase(overlay, onto).await {
            Err(error) if error.kind == ErrorKind::Unsupported => {}
            done => return done,
        }
        self.pull_unused(overlay, onto.map(|onto| onto.path.as_str())).await?;
        self.look_again(overlay).await;
        Ok(())
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
