//! How steps are taken back. Undo is data: it is stored before the step runs, and read again after a crash.

use crate::{App, Result};
use hypervisor::Node;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// How a step is taken back.
///
/// Every undo treats "not there" as done, since after a crash nobody knows whether the step ran; and it names only
/// what the task itself has made, by a fresh id, never by a name that a user gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "undo", rename_all = "snake_case")]
pub enum Undo {
    /// Forgets a VM that was being made.
    ForgetVm {
        /// The VM.
        vm: Uuid,
    },
    /// Deletes a volume that was made.
    DeleteVolume {
        /// Its node.
        node: String,
        /// Its pool.
        pool: Uuid,
        /// libvirt's name for it, which has its id in it.
        file: String,
        /// Its row, if it has one.
        volume: Option<Uuid>,
    },
    /// Deletes the files that belong to a VM in the pool of the seeds.
    DeleteSeedFiles {
        /// Its node.
        node: String,
        /// The VM.
        vm: Uuid,
    },
    /// Cuts the power of a domain that was made, and takes its definition away.
    UndefineDomain {
        /// Its node.
        node: String,
        /// The VM.
        vm: Uuid,
    },
    /// Forgets a template that was being made.
    ForgetTemplate {
        /// The template.
        template: Uuid,
    },
    /// Takes a passing pool away; its files stay.
    DropLookupPool {
        /// Its node.
        node: String,
        /// Its name, which has the task's id in it.
        pool: String,
    },
}

impl Undo {
    /// Takes the step back. May be called again after it was cut off, or after it was done.
    pub async fn run(&self, app: &App) -> Result<()> {
        match self {
            Undo::ForgetVm { vm } => {
                app.store.forget_vm(*vm).await?;
                app.index.drop_record(*vm);
            }
            Undo::DeleteVolume { node, pool, file, volume } => {
                settled(app, node, None)?.delete_volume(*pool, file).await?;
                if let Some(volume) = volume {
                    app.store.forget_volume(*volume).await?;
                }
            }
            Undo::DeleteSeedFiles { node, vm } => {
                crate::seeds::delete_files(settled(app, node, None)?, *vm).await?;
            }
            Undo::UndefineDomain { node, vm } => {
                // Cutting the power first ends a start that hangs; what comes up in between goes with the second cut.
                app.node(node)?.cut_power(*vm).await?;
                let node = settled(app, node, Some(*vm))?;
                node.cut_power(*vm).await?;
                node.undefine(*vm).await?;
                crate::observe::refresh(app, node, *vm).await?;
            }
            Undo::ForgetTemplate { template } => app.store.forget_template(*template).await?,
            Undo::DropLookupPool { node, pool } => settled(app, node, None)?.drop_lookup_pool(pool).await?,
        }
        Ok(())
    }
}

/// The node, once no call of an earlier step can still take effect on it.
fn settled<'a>(app: &'a App, node: &str, domain: Option<Uuid>) -> Result<&'a Node> {
    let node = app.node(node)?;
    node.settle(domain, "take something back")?;
    Ok(node)
}
