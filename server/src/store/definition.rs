//! What was last known of VMs' definitions.

use super::{NewEvent, Store, event, failed, from_json, parse_uuid, to_json};
use crate::Result;
use serde::{Deserialize, Serialize};
use sqlx::Row;
use std::collections::{BTreeMap, HashMap};
use uuid::Uuid;

/// What there is to be known of a definition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Definition {
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Memory, in MiB.
    pub memory_mib: u64,
    /// What it boots from.
    pub boot: Vec<String>,
    /// Whether it starts with its node.
    #[serde(default)]
    pub autostart: bool,
    /// What is in each disk and CD-ROM drive: a path, or pool and volume; nothing.
    pub disks: BTreeMap<String, String>,
    /// Interfaces, by hardware address.
    pub nics: BTreeMap<String, NicDefinition>,
}

/// What there is to be known of an interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NicDefinition {
    /// Its network, or bridge.
    pub network: String,
    /// Whether its link is up.
    pub link_up: bool,
}

impl Store {
    /// All that is known.
    pub async fn definitions(&self) -> Result<Vec<(Uuid, Definition)>> {
        let rows = sqlx::query("select vm, seen from definition").fetch_all(&self.pool).await;
        let rows = rows.map_err(failed("read the known definitions"))?;
        rows.iter().map(|row| Ok((parse_uuid(row.get("vm"))?, from_json(row.get("seen"))?))).collect()
    }

    /// Notes what is known of VMs' definitions, and tells that one was changed, in one. Nothing happens to those that are gone, nor
    /// is it told when all are.
    pub async fn know(&self, definitions: &HashMap<Uuid, Definition>, told: Option<NewEvent>) -> Result<()> {
        if definitions.is_empty() {
            return Ok(());
        }
        let doing = "note a definition";
        let mut transaction = self.begin().await?;
        let mut noted = 0;
        for (vm, definition) in definitions {
            let insert = sqlx::query(
                "insert into definition (vm, seen) select id, $2 from vm where id = $1
                 on conflict (vm) do update set seen = excluded.seen",
            );
            let inserted = insert.bind(vm.to_string()).bind(to_json(definition)?).execute(&mut *transaction).await;
            noted += inserted.map_err(failed(doing))?.rows_affected();
        }
        if noted > 0
            && let Some(told) = told
        {
            event::insert(&mut transaction, &[told]).await?;
        }
        transaction.commit().await.map_err(failed(doing))?;
        self.events_told();
        Ok(())
    }

    /// The objects of tasks that had not ended, or had ended so shortly before the last thing that was written down.
    pub async fn worked_on_last(&self, within_ms: i64) -> Result<Vec<Uuid>> {
        // Without events there is nothing that was known, either.
        let sql = "select distinct target_id from task where finished_at is null
                   or finished_at >= (select max(created_at) from event) - $1";
        let rows = sqlx::query(sql).bind(within_ms).fetch_all(&self.pool).await;
        let rows = rows.map_err(failed("read the last tasks"))?;
        rows.iter().map(|row| parse_uuid(row.get("target_id"))).collect()
    }
}
