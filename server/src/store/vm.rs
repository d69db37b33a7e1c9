//! VMs that Vmyard manages.

use super::{
    SnapshotRecord, Store, expect_one, failed, from_json, is_taken, name_key, parse_uuid,
    snapshot::hide,
    task::{StepBegun, begin_step, close_journal, close_journal_with},
    to_json,
    volume::{self, VolumeRecord},
};
use crate::{Error, Result};
use api::{Time, cloud_init::GivenCloudInit, vm::Firmware};
use serde::{Deserialize, Serialize};
use sqlx::{Any, Row, Transaction, any::AnyRow};
use std::{collections::BTreeMap, net::Ipv4Addr};
use uuid::Uuid;

/// A VM that Vmyard manages.
#[derive(Debug, Clone, PartialEq)]
pub struct VmRecord {
    /// The domain's UUID.
    pub id: Uuid,
    /// The name.
    pub name: String,
    /// The node.
    pub node: String,
    /// libvirt's name for the domain.
    pub domain: String,
    /// What is being done with it as a whole.
    pub phase: VmPhase,
    /// The rest.
    pub spec: VmSpec,
    /// When it was asked for.
    pub created_at: Time,
    /// Counts the changes.
    pub revision: i64,
}

/// What is being done with a VM as a whole.
///
/// ```text
/// creating ──> ready ──> deleting ──> (gone)
///    └──> (gone: unwound)
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VmPhase {
    /// A create-vm is at work, or is being unwound.
    Creating,
    /// It is there.
    Ready,
    /// It is being deleted, which is never taken back: the reconciler repeats it until it is done.
    Deleting,
}

impl VmPhase {
    fn as_str(self) -> &'static str {
        match self {
            VmPhase::Creating => "creating",
            VmPhase::Ready => "ready",
            VmPhase::Deleting => "deleting",
        }
    }

    fn parse(text: &str) -> Result<VmPhase> {
        [VmPhase::Creating, VmPhase::Ready, VmPhase::Deleting]
            .into_iter()
            .find(|phase| phase.as_str() == text)
            .ok_or_else(|| Error::Internal(format!("the database has {text:?} for a VM's phase")))
    }
}

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VmSpec {
    /// The template's id.
    pub template: Option<Uuid>,
    /// The template's name at that time.
    pub template_name: Option<String>,
    /// The pool of the system disk.
    pub pool: Uuid,
    /// The pool's name.
    pub pool_name: String,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Virtual CPUs that hot-plug may reach.
    pub max_vcpus: u32,
    /// Memory, in MiB.
    pub memory_mib: u64,
    /// Memory that hot-plug may reach, in MiB.
    pub max_memory_mib: u64,
    /// The system disk's size when it was made, in bytes.
    pub disk_bytes: u64,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// Free text.
    pub description: String,
    /// The user that cloud-init sets up.
    pub user: Option<String>,
    /// What cloud-init was given.
    #[serde(default)]
    pub cloud_init: Option<GivenCloudInit>,
    /// What boots it.
    #[serde(default)]
    pub firmware: Firmware,
    /// The addresses that were reserved for it.
    #[serde(default)]
    pub reserved: Vec<Reserved>,
}

/// An address that a network's DHCP keeps for an interface of a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reserved {
    /// The network.
    pub network: Uuid,
    /// The interface's hardware address.
    pub mac: String,
    /// The address.
    pub ip: Ipv4Addr,
}

/// What forgets a VM with those of its volumes that go with it.
const FORGET: [&str; 6] = [
    "delete from made where kind in ('seed', 'nvram', 'domain') and (file = $1 or file like $1 || '.%')",
    "delete from made where exists (select 1 from volume v where v.vm = $1 and v.pool = made.pool
     and v.file = made.file and (v.role = 'system' or v.phase = 'deleting'))",
    "delete from volume where vm = $1 and (role = 'system' or phase = 'deleting')",
    "update volume set vm = null, device = null, phase = 'ready', revision = revision + 1 where vm = $1",
    "delete from credential_check where vm = $1",
    "delete from vm where id = $1",
];

impl Store {
    /// Adds a VM with its system volume, both still being made, in one with the beginning of the step that does it. Its name may be
    /// taken; the template that the volume stands on may be on its way out, which is `wrong_state`.
    pub async fn insert_vm(&self, vm: &VmRecord, system: &VolumeRecord, step: &StepBegun) -> Result<()> {
        let mut transaction = self.begin().await?;
        begin_step(&mut transaction, step).await?;
        insert(&mut transaction, vm).await?;
        volume::insert(&mut transaction, system).await?;
        self.commit(transaction, "add a VM").await
    }

    /// Adds a VM that is taken over, with its volumes, and ends the journal of the task that does it, in one: from here on a crash takes
    /// nothing back.
    pub async fn adopt_vm(&self, vm: &VmRecord, volumes: &[VolumeRecord], task: Uuid) -> Result<()> {
        let mut transaction = self.begin().await?;
        insert(&mut transaction, vm).await?;
        for volume in volumes {
            volume::insert(&mut transaction, volume).await?;
        }
        close_journal(&mut transaction, task).await?;
        self.commit(transaction, "add a VM").await
    }

    /// Forgets a VM that is given back, with all its volumes and that they were made here, and ends the journal of the task that does
    /// it, in one: from here on a crash takes nothing back. `reply` is the task's.
    pub async fn release_vm(&self, id: Uuid, task: Uuid, reply: &str) -> Result<()> {
        let mut transaction = self.begin().await?;
        let id = id.to_string();
        let all_go = "update volume set phase = 'deleting' where vm = $1";
        for sql in [all_go].iter().chain(&FORGET) {
            sqlx::query(*sql).bind(&id).execute(&mut *transaction).await.map_err(failed("forget a VM"))?;
        }
        close_journal_with(&mut transaction, task, reply).await?;
        self.commit(transaction, "forget a VM").await
    }

    /// Marks a VM as one that goes, with all its data volumes if they go too, and these snapshots. From here on it is not
    /// taken back.
    pub async fn mark_vm_deleting(
        &self,
        vm: &mut VmRecord,
        with_volumes: bool,
        with_snapshots: &[SnapshotRecord],
    ) -> Result<()> {
        let mut transaction = self.begin().await?;
        let sql = "update vm set phase = 'deleting', revision = revision + 1 where id = $1 and revision = $2";
        let marked = sqlx::query(sql).bind(vm.id.to_string()).bind(vm.revision).execute(&mut *transaction).await;
        expect_one(marked.map_err(failed("mark a VM"))?.rows_affected(), &format!("VM {}", vm.name))?;
        if with_volumes {
            let sql = "update volume set phase = 'deleting', revision = revision + 1 where vm = $1 and role = 'data'";
            let marked = sqlx::query(sql).bind(vm.id.to_string()).execute(&mut *transaction).await;
            marked.map_err(failed("mark the volumes of a VM"))?;
        }
        for snapshot in with_snapshots {
            hide(&mut transaction, snapshot).await?;
        }
        self.commit(transaction, "mark a VM").await?;
        vm.phase = VmPhase::Deleting;
        vm.revision += 1;
        Ok(())
    }

    /// Makes a VM and its system volume ready and ends the journal of the task that made it, in one with the beginning of the step that does it: from
    /// here on a crash takes nothing back.
    pub async fn vm_is_ready(&self, vm: &mut VmRecord, step: &StepBegun) -> Result<()> {
        let mut transaction = self.begin().await?;
        begin_step(&mut transaction, step).await?;
        let updated = sqlx::query("update vm set phase = $1, revision = revision + 1 where id = $2 and revision = $3")
            .bind(VmPhase::Ready.as_str())
            .bind(vm.id.to_string())
            .bind(vm.revision)
            .execute(&mut *transaction)
            .await
            .map_err(failed("make a VM ready"))?;
        expect_one(updated.rows_affected(), &format!("VM {}", vm.name))?;
        sqlx::query("update volume set phase = 'ready', revision = revision + 1 where vm = $1 and phase = 'creating'")
            .bind(vm.id.to_string())
            .execute(&mut *transaction)
            .await
            .map_err(failed("make a volume ready"))?;
        close_journal(&mut transaction, step.task).await?;
        self.commit(transaction, "make a VM ready").await?;
        vm.phase = VmPhase::Ready;
        vm.revision += 1;
        Ok(())
    }

    /// Changes a VM's name and spec, and ends the journal of the task that does it, in one: from here on a crash takes
    /// nothing back. `reply` is what the next start makes the task's reply of. The name may be taken.
    pub async fn change_vm(&self, vm: &mut VmRecord, task: Uuid, reply: &str) -> Result<()> {
        let mut transaction = self.begin().await?;
        update(&mut transaction, vm).await?;
        close_journal_with(&mut transaction, task, reply).await?;
        self.commit(transaction, "change a VM").await?;
        vm.revision += 1;
        Ok(())
    }

    /// Changes a VM's spec, as a step of a task that goes on.
    pub async fn change_vm_spec(&self, vm: &mut VmRecord) -> Result<()> {
        let mut transaction = self.begin().await?;
        update(&mut transaction, vm).await?;
        self.commit(transaction, "change a VM").await?;
        vm.revision += 1;
        Ok(())
    }

    /// Forgets a VM, of which nothing is left on its node, with its system volumes and those data volumes that were marked to go
    /// with it. The others are kept
    /// and belong to nobody from then on.
    pub async fn forget_vm(&self, id: Uuid) -> Result<()> {
        let mut transaction = self.begin().await?;
        let id = id.to_string();
        for sql in FORGET {
            sqlx::query(sql).bind(&id).execute(&mut *transaction).await.map_err(failed("forget a VM"))?;
        }
        self.commit(transaction, "forget a VM").await
    }

    /// All VMs.
    pub async fn vms(&self) -> Result<Vec<VmRecord>> {
        let rows = sqlx::query("select id, name, node, domain, phase, spec, created_at, revision from vm")
            .fetch_all(&self.pool)
            .await
            .map_err(failed("read the VMs"))?;
        rows.iter().map(read).collect()
    }
}

/// Adds a VM within a transaction.
async fn insert(transaction: &mut Transaction<'_, Any>, vm: &VmRecord) -> Result<()> {
    let inserted = sqlx::query(
        "insert into vm (id, name, name_key, node, domain, phase, spec, created_at, revision)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(vm.id.to_string())
    .bind(&vm.name)
    .bind(name_key(&vm.name))
    .bind(&vm.node)
    .bind(&vm.domain)
    .bind(vm.phase.as_str())
    .bind(to_json(&vm.spec)?)
    .bind(vm.created_at.0)
    .bind(vm.revision)
    .execute(&mut **transaction)
    .await;
    match inserted {
        Ok(_) => Ok(()),
        Err(error) if is_taken(&error) => Err(Error::exists("VM", &vm.name)),
        Err(error) => Err(failed("add a VM")(error)),
    }
}

/// Writes a VM's name and spec, if it is still as it was read. The name may be taken.
async fn update(transaction: &mut Transaction<'_, Any>, vm: &VmRecord) -> Result<()> {
    let updated = sqlx::query(
        "update vm set name = $1, name_key = $2, spec = $3, revision = revision + 1 where id = $4 and revision = $5",
    )
    .bind(&vm.name)
    .bind(name_key(&vm.name))
    .bind(to_json(&vm.spec)?)
    .bind(vm.id.to_string())
    .bind(vm.revision)
    .execute(&mut **transaction)
    .await;
    let updated = match updated {
        Err(error) if is_taken(&error) => return Err(Error::exists("VM", &vm.name)),
        updated => updated.map_err(failed("change a VM"))?,
    };
    expect_one(updated.rows_affected(), &format!("VM {}", vm.name))
}

fn read(row: &AnyRow) -> Result<VmRecord> {
    Ok(VmRecord {
        id: parse_uuid(row.get("id"))?,
        name: row.get("name"),
        node: row.get("node"),
        domain: row.get("domain"),
        phase: VmPhase::parse(row.get("phase"))?,
        spec: from_json(row.get("spec"))?,
        created_at: Time(row.get("created_at")),
        revision: row.get("revision"),
    })
}
