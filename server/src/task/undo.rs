//! How steps are taken back. Undo is data: it is stored before the step runs, and read again after a crash.

use crate::{
    App, Result, attachments, interfaces, layers, nvram,
    store::{Image, Made, Move, Reserved, SnapshotPhase, SnapshotRecord},
};
use api::orphan::OrphanKind;
use hypervisor::{
    Node,
    domain::{BootPlaces, DiskLimits, Drive, Labels, NicChange, Sizes},
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// How a step is taken back.
///
/// Every undo treats "not there" as done, since after a crash nobody knows whether the step ran; and it names only
/// what the task itself has made, by a fresh id, never by a name that a user gave. A change of what is there is taken back
/// by what was there before it.
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
        /// What it is.
        #[serde(default)]
        kind: OrphanKind,
    },
    /// Forgets a volume that was being made.
    ForgetVolume {
        /// The volume.
        volume: Uuid,
    },
    /// Brings a volume whose attaching or detaching was cut off into step with what its domain has.
    SettleVolume {
        /// Its node.
        node: String,
        /// The VM.
        vm: Uuid,
        /// The volume.
        volume: Uuid,
    },
    /// Brings an interface whose attaching or detaching was cut off into step with what its domain has.
    SettleNic {
        /// Its node.
        node: String,
        /// The VM.
        vm: Uuid,
        /// Its hardware address.
        mac: String,
    },
    /// Gives an interface the link and the limits again that it had.
    ChangeNic {
        /// Its node.
        node: String,
        /// The VM.
        vm: Uuid,
        /// Its hardware address.
        mac: String,
        /// What it had.
        change: NicChange,
    },
    /// Gives a VM the NVRAM again that it had.
    RestoreNvram {
        /// Its node.
        node: String,
        /// The pool.
        pool: Uuid,
        /// libvirt's name for the NVRAM.
        file: String,
        /// libvirt's name for the copy of what it had; `None` when it had none.
        kept: Option<String>,
    },
    /// Puts what was in a VM's CD-ROM drive back into it.
    RestoreIso {
        /// Its node.
        node: String,
        /// The VM.
        vm: Uuid,
        /// The path of the ISO image; `None` when it was empty.
        iso: Option<String>,
    },
    /// Puts the seed that was in a VM's drive back into it.
    RestoreSeed {
        /// Its node.
        node: String,
        /// The VM.
        vm: Uuid,
        /// The seed's path.
        seed: String,
    },
    /// Deletes a seed that was to take another one's place.
    DropSeed {
        /// Its node.
        node: String,
        /// The pool of the seeds.
        pool: Uuid,
        /// libvirt's name for it, which has the VM's and the task's id in it.
        file: String,
    },
    /// Gives a disk the limits again that it had.
    LimitDisk {
        /// Its node.
        node: String,
        /// The VM.
        vm: Uuid,
        /// Its device.
        device: String,
        /// The limits.
        limits: DiskLimits,
    },
    /// Lets those devices boot again that did.
    RestoreBoot {
        /// Its node.
        node: String,
        /// The VM.
        vm: Uuid,
        /// The devices.
        places: BootPlaces,
    },
    /// Forgets a snapshot that was being taken; one that is ready stays.
    ForgetSnapshot {
        /// The snapshot.
        snapshot: Uuid,
    },
    /// Deletes an overlay that was made for a volume, unless the volume is on it after all.
    DeleteUnused {
        /// Its node.
        node: String,
        /// The overlay.
        image: Image,
    },
    /// Deletes a file, no image, of a snapshot that was being taken, unless that is ready.
    DeleteKept {
        /// Its node.
        node: String,
        /// The snapshot.
        snapshot: Uuid,
        /// Its pool.
        pool: Uuid,
        /// libvirt's name for it, which has the snapshot's id in it.
        file: String,
        /// Its memory or its NVRAM.
        kind: OrphanKind,
    },
    /// Brings a snapshot whose taking was cut off to its end, if the guest writes to the new images already, else back.
    SettleSnapshot {
        /// Its node.
        node: String,
        /// The snapshot.
        snapshot: Uuid,
        /// Where its volumes go on.
        moves: Vec<Move>,
        /// The task, whose journal ends when the snapshot is ready; `None` when it has more to do.
        task: Option<Uuid>,
    },
    /// Puts the disks of a VM that was being reverted back on the images that they were on.
    SwitchBack {
        /// Its node.
        node: String,
        /// The VM.
        vm: Uuid,
        /// Where its volumes were to go.
        moves: Vec<Move>,
        /// Whether the VM may have been let run.
        cut_power: bool,
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
    /// Gives an address back that was reserved for a VM's interface.
    ReleaseAddress {
        /// Its node.
        node: String,
        /// Network, interface and address.
        reserved: Reserved,
    },
    /// Forgets a template that was being made.
    ForgetTemplate {
        /// The template.
        template: Uuid,
    },
    /// Forgets a keypair that was made or imported.
    ForgetKeypair {
        /// The keypair.
        keypair: Uuid,
    },
    /// Forgets a token that was made.
    ForgetToken {
        /// The token.
        token: Uuid,
    },
    /// Forgets a webhook that was made.
    ForgetWebhook {
        /// The webhook.
        webhook: Uuid,
    },
    /// Gives a domain's definition the sizes again that it had.
    RestoreSizes {
        /// Its node.
        node: String,
        /// The VM.
        vm: Uuid,
        /// The sizes.
        sizes: Sizes,
    },
    /// Gives a domain the title and the metadata again that it had.
    RestoreLabels {
        /// Its node.
        node: String,
        /// The VM.
        vm: Uuid,
        /// Title and metadata.
        labels: Labels,
    },
    /// Has a domain start with its node again, or not.
    SetAutostart {
        /// Its node.
        node: String,
        /// The VM.
        vm: Uuid,
        /// As it was.
        on: bool,
    },
    /// Unplugs a memory module. A guest that doesn't let go of it keeps it until it is off.
    UnplugMemory {
        /// Its node.
        node: String,
        /// The VM.
        vm: Uuid,
        /// The module, which has the task's id in its alias.
        alias: String,
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
    /// What the step makes on a node. It is noted with the step: nothing else tells that a file or a domain is Vmyard's when no
    /// object refers to it any more.
    pub fn makes(&self) -> Option<Made> {
        let made = |kind, node: &String, pool, file| Some(Made { kind, node: node.clone(), pool, file });
        match self {
            Undo::DeleteVolume { node, pool, file, kind, .. } => made(*kind, node, Some(*pool), file.clone()),
            Undo::DeleteUnused { node, image } => made(OrphanKind::Volume, node, Some(image.pool), image.file.clone()),
            Undo::DeleteKept { node, pool, file, kind, .. } => made(*kind, node, Some(*pool), file.clone()),
            Undo::DeleteSeedFiles { node, vm } => made(OrphanKind::Seed, node, None, vm.to_string()),
            Undo::UndefineDomain { node, vm } => made(OrphanKind::Domain, node, None, vm.to_string()),
            // It belongs to a VM whose seeds are noted already, since their names begin with its id.
            Undo::DropSeed { .. } => None,
            // No file and no domain. A passing pool is taken away by the node's next arrival.
            Undo::ForgetVm { .. }
            | Undo::ForgetVolume { .. }
            | Undo::SettleVolume { .. }
            | Undo::SettleNic { .. }
            | Undo::ChangeNic { .. }
            | Undo::RestoreNvram { .. }
            | Undo::RestoreIso { .. }
            | Undo::RestoreSeed { .. }
            | Undo::LimitDisk { .. }
            | Undo::RestoreBoot { .. }
            | Undo::ForgetSnapshot { .. }
            | Undo::SettleSnapshot { .. }
            | Undo::SwitchBack { .. }
            | Undo::ReleaseAddress { .. }
            | Undo::ForgetTemplate { .. }
            | Undo::ForgetKeypair { .. }
            | Undo::ForgetToken { .. }
            | Undo::ForgetWebhook { .. }
            | Undo::RestoreSizes { .. }
            | Undo::RestoreLabels { .. }
            | Undo::SetAutostart { .. }
            | Undo::UnplugMemory { .. }
            | Undo::DropLookupPool { .. } => None,
        }
    }

    /// Takes the step back. May be called again after it was cut off, or after it was done.
    pub async fn run(&self, app: &App) -> Result<()> {
        match self {
            Undo::ForgetVm { vm } => attachments::forget_vm(app, *vm).await?,
            Undo::DeleteVolume { node, pool, file, volume, .. } => {
                settled(app, node, None)?.delete_volume(*pool, file).await?;
                if let Some(volume) = volume {
                    attachments::forget(app, *volume).await?;
                }
            }
            Undo::ForgetVolume { volume } => attachments::forget(app, *volume).await?,
            Undo::SettleVolume { node, vm, volume } => {
                let node = settled(app, node, Some(*vm))?;
                attachments::settle(app, &node, *vm, *volume).await?;
                crate::observe::refresh(app, &node, *vm).await?;
            }
            Undo::SettleNic { node, vm, mac } => {
                let node = settled(app, node, Some(*vm))?;
                interfaces::settle(app, &node, *vm, mac).await?;
                crate::observe::refresh(app, &node, *vm).await?;
            }
            Undo::ChangeNic { node, vm, mac, change } => {
                let node = settled(app, node, Some(*vm))?;
                node.change_nic(*vm, mac, *change).await?;
                crate::observe::refresh_after(app, &node, *vm).await;
            }
            Undo::RestoreNvram { node, pool, file, kept } => {
                let kept = kept.as_deref().map(|kept| (*pool, kept));
                nvram::set(&settled(app, node, None)?, *pool, file, kept).await?;
            }
            Undo::RestoreIso { node, vm, iso } => {
                restore_medium(app, node, *vm, Drive::Iso, iso.as_deref()).await?;
            }
            Undo::RestoreSeed { node, vm, seed } => restore_medium(app, node, *vm, Drive::Seed, Some(seed)).await?,
            Undo::DropSeed { node, pool, file } => drop(settled(app, node, None)?.delete_volume(*pool, file).await?),
            Undo::LimitDisk { node, vm, device, limits } => {
                let node = settled(app, node, Some(*vm))?;
                let disks = node.disks(*vm).await?;
                if disks.is_some_and(|disks| disks.defined.iter().any(|disk| disk.target == *device)) {
                    node.limit_disk(*vm, device, *limits).await?;
                    crate::observe::refresh_after(app, &node, *vm).await;
                }
            }
            Undo::RestoreBoot { node, vm, places } => {
                let node = settled(app, node, Some(*vm))?;
                node.set_boot_places(*vm, places.clone()).await?;
                crate::observe::refresh_after(app, &node, *vm).await;
            }
            Undo::ForgetSnapshot { snapshot } => app.store.forget_unfinished_snapshot(*snapshot).await?,
            Undo::DeleteUnused { node, image } => {
                layers::delete_unused(app, &settled(app, node, None)?, image).await?;
            }
            Undo::DeleteKept { node, snapshot, pool, file, kind: _ } => {
                let ready = |one: &SnapshotRecord| one.phase != SnapshotPhase::Creating;
                if !app.store.snapshot(*snapshot).await?.as_ref().is_some_and(ready) {
                    settled(app, node, None)?.delete_volume(*pool, file).await?;
                }
            }
            Undo::SettleSnapshot { node, snapshot, moves, task } => {
                let Some(record) = app.store.snapshot(*snapshot).await? else { return Ok(()) };
                let node = settled(app, node, Some(record.vm))?;
                layers::settle_snapshot(app, &node, &record, moves, *task).await?;
                crate::observe::refresh(app, &node, record.vm).await?;
            }
            Undo::SwitchBack { node, vm, moves, cut_power } => {
                let node = settled(app, node, Some(*vm))?;
                if *cut_power {
                    node.cut_power(*vm).await?;
                }
                layers::switch_back(&node, *vm, moves).await?;
                layers::nothing_runs_on(&node, *vm, moves).await?;
                crate::observe::refresh(app, &node, *vm).await?;
            }
            Undo::DeleteSeedFiles { node, vm } => {
                crate::seeds::delete_files(&settled(app, node, None)?, *vm).await?;
            }
            Undo::UndefineDomain { node, vm } => {
                // Cutting the power first ends a start that hangs; what comes up in between goes with the second cut.
                app.node(node)?.cut_power(*vm).await?;
                let node = settled(app, node, Some(*vm))?;
                node.cut_power(*vm).await?;
                node.undefine(*vm).await?;
                crate::observe::refresh(app, &node, *vm).await?;
            }
            Undo::ReleaseAddress { node, reserved } => {
                let node = settled(app, node, None)?;
                node.release_address(reserved.network, &reserved.mac, reserved.ip).await?;
            }
            Undo::RestoreSizes { node, vm, sizes } => {
                let node = settled(app, node, Some(*vm))?;
                node.resize(*vm, *sizes).await?;
                crate::observe::refresh_after(app, &node, *vm).await;
            }
            Undo::RestoreLabels { node, vm, labels } => {
                settled(app, node, Some(*vm))?.relabel(*vm, labels.clone()).await?;
            }
            Undo::SetAutostart { node, vm, on } => settled(app, node, Some(*vm))?.set_autostart(*vm, *on).await?,
            Undo::UnplugMemory { node, vm, alias } => {
                let node = settled(app, node, Some(*vm))?;
                if !node.unplug_memory(*vm, alias).await? {
                    tracing::warn!(%vm, alias, "the guest keeps a memory module until it is off");
                }
                crate::observe::refresh_after(app, &node, *vm).await;
            }
            Undo::ForgetTemplate { template } => app.store.forget_template(*template).await?,
            Undo::ForgetKeypair { keypair } => app.store.forget_keypair(*keypair).await?,
            Undo::ForgetToken { token } => app.store.forget_token(*token).await?,
            Undo::ForgetWebhook { webhook } => app.store.forget_webhook(*webhook).await?,
            Undo::DropLookupPool { node, pool } => settled(app, node, None)?.drop_lookup_pool(pool).await?,
        }
        Ok(())
    }
}

/// The node, once no call of an earlier step can still take effect on it.
fn settled(app: &App, node: &str, domain: Option<Uuid>) -> Result<Node> {
    let node = app.node(node)?;
    node.settle(domain, "take something back")?;
    Ok(node)
}

/// Puts back what was in a CD-ROM drive; a domain that is gone has none.
async fn restore_medium(app: &App, node: &str, vm: Uuid, drive: Drive, image: Option<&str>) -> Result<()> {
    let node = settled(app, node, Some(vm))?;
    if node.drive(vm, drive).await?.is_some() {
        node.change_medium(vm, drive, image, true).await?;
        crate::observe::refresh_after(app, &node, vm).await;
    }
    Ok(())
}
