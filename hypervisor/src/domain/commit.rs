//! Merging an image of a running domain's chain into the one below it: libvirt's block commit.
//!
//! Pulling (block rebase) is not used: when QEMU was killed just after such a job had ended, the header already pointed past
//! an image whose data were not written yet, and they were lost.

use super::{DomainView, layers, qemu};
use crate::{Node, Result, error::libvirt_error};
use libvirt::{Domain, ErrorCode, flags};
use std::time::Duration;
use uuid::Uuid;

/// The deadline of a whole merge. The caller watches its progress.
pub(super) const MERGE: Duration = Duration::from_secs(24 * 3600);
/// How often its progress is read.
const LOOK: Duration = Duration::from_millis(50);

/// Two images of a running domain's disk, the upper one right above the lower one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merge {
    /// The lower one's path: it takes in the other, and stays.
    pub into: String,
    /// The upper one's path.
    pub from: String,
}

impl Node {
    /// Writes an image into the one below it, while the guest runs on. What stood on the upper one, or the guest, is on the
    /// lower one then; the upper one's file stays. May be called again after it was cut off.
    pub async fn merge_live(
        &self,
        id: Uuid,
        merge: &Merge,
        progress: impl Fn(u64, u64) + Send + 'static,
    ) -> Result<()> {
        let (doing, merge) = (format!("merge {} into {} of domain {id}", merge.from, merge.into), merge.clone());
        let merged = self.job(Some(id), MERGE, &doing, move |connection| {
            let domain = connection.domain(id)?;
            if !domain.is_active()? {
                return Err(libvirt_error(ErrorCode::OPERATION_INVALID, "the domain has gone off"));
            }
            commit(&domain, &merge, &progress)?;
            let chain = layers::Switch { from: merge.into.clone(), to: merge.into.clone() };
            layers::forget_chains(&domain, &[chain])
        });
        merged.await
    }
}

/// The job itself, from its begin to its end.
pub(super) fn commit(domain: &Domain, merge: &Merge, progress: &impl Fn(u64, u64)) -> libvirt::Result<()> {
    let view = DomainView::parse(&domain.xml(0)?).ok_or_else(layers::unreadable)?;
    let Some(disk) = view.disks.iter().find(|disk| disk.is_on(&merge.from)) else {
        return Err(libvirt_error(ErrorCode::OPERATION_INVALID, "it doesn't stand on that image"));
    };
    let active = disk.path.as_ref() == Some(&merge.from);
    match domain.block_job_info(&disk.target)? {
        None => {}
        // What a call has left that was cut off: the guest is on the upper one as before.
        Some(job) if [flags::BLOCK_JOB_TYPE_COMMIT, flags::BLOCK_JOB_TYPE_ACTIVE_COMMIT].contains(&job.kind) => {
            domain.block_job_abort(&disk.target, 0)?;
        }
        Some(_) => {
            let why = format!("a block job of somebody else's works on disk {}", disk.target);
            return Err(libvirt_error(ErrorCode::OPERATION_INVALID, &why));
        }
    }
    let how = if active { flags::BLOCK_COMMIT_ACTIVE } else { 0 };
    match domain.block_commit(&disk.target, Some(&merge.into), Some(&merge.from), 0, how) {
        Err(error) if active && error.code == ErrorCode::BLOCK_COPY_ACTIVE => return lost(domain, merge),
        begun => begun?,
    }
    wait(domain, &disk.target, active, progress)
}

/// What is left of a merge when libvirt says that it goes on, and knows of no job: libvirtd was killed between QEMU's end of it
/// and its own note. Until the domain is off it lets no other job begin (9.0 and 11.3), and says that the guest is on the upper
/// image. If the guest is on the lower one, that one must be in the definition: on the upper one the next start would find what
/// was there before the end.
fn lost(domain: &Domain, merge: &Merge) -> libvirt::Result<()> {
    if !qemu::is_on(domain, &merge.into)? {
        let why = "libvirt lost track of a merge; it goes on when the VM is off";
        return Err(libvirt_error(ErrorCode::OPERATION_INVALID, why));
    }
    let definition = domain.xml(flags::XML_INACTIVE | flags::XML_SECURE)?;
    let switch = layers::Switch { from: merge.from.clone(), to: merge.into.clone() };
    for element in layers::switched_disks(&definition, &[switch])? {
        domain.update_device(&element, flags::AFFECT_CONFIG)?;
    }
    Ok(())
}

/// Waits for the end of the job on a disk; one on the image in use is switched over when it is ready.
pub(super) fn wait(domain: &Domain, target: &str, active: bool, progress: &impl Fn(u64, u64)) -> libvirt::Result<()> {
    loop {
        let Some(job) = domain.block_job_info(target)? else {
            let ended = "the job ended before it was ready";
            return if active { Err(libvirt_error(ErrorCode::OPERATION_FAILED, ended)) } else { Ok(()) };
        };
        progress(job.cur, job.end);
        if active && job.cur == job.end && job.end > 0 {
            match domain.block_job_abort(target, flags::BLOCK_JOB_PIVOT) {
                // It says so a moment before it is.
                Err(error) if error.code == ErrorCode::BLOCK_COPY_ACTIVE => {}
                done => return done,
            }
        }
        std::thread::sleep(LOOK);
    }
}
