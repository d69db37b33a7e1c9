//! Nodes that were added, and which nodes are disabled.

use super::{Store, failed, from_json, is_taken, name_key, parse_uuid, task::close_journal, to_json};
use crate::{Error, Result, config::NodeSettings};
use api::Time;
use sqlx::Row;
use std::collections::HashSet;
use uuid::Uuid;

/// A node that was added.
#[derive(Debug, Clone)]
pub struct NodeRecord {
    /// The host's UUID.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Its settings.
    pub settings: NodeSettings,
    /// When it was added.
    pub created_at: Time,
}

impl Store {
    /// Adds a node and ends the journal of the task that does so, in one.
    pub async fn insert_node(&self, node: &NodeRecord, task: Uuid) -> Result<()> {
        let mut transaction = self.begin().await?;
        let inserted =
            sqlx::query("insert into node (id, name, name_key, settings, created_at) values ($1, $2, $3, $4, $5)")
                .bind(node.id.to_string())
                .bind(&node.name)
                .bind(name_key(&node.name))
                .bind(to_json(&node.settings)?)
                .bind(node.created_at.0)
                .execute(&mut *transaction)
                .await;
        match inserted {
            Ok(_) => {}
            Err(error) if is_taken(&error) => return Err(Error::exists("node", &node.name)),
            Err(error) => return Err(failed("add a node")(error)),
        }
        close_journal(&mut transaction, task).await?;
        self.commit(transaction, "add a node").await
    }

    /// The nodes that were added.
    pub async fn nodes(&self) -> Result<Vec<NodeRecord>> {
        let rows = sqlx::query("select id, name, settings, created_at from node order by name_key")
            .fetch_all(&self.pool)
            .await
            .map_err(failed("read the nodes"))?;
        let read = |row: &sqlx::any::AnyRow| {
            Ok(NodeRecord {
                id: parse_uuid(row.get("id"))?,
                name: row.get("name"),
                settings: from_json(row.get("settings"))?,
                created_at: Time(row.get("created_at")),
            })
        };
        rows.iter().map(read).collect()
    }

    /// The keys of the names of the nodes that are disabled.
    pub async fn disabled_nodes(&self) -> Result<HashSet<String>> {
        let rows = sqlx::query("select name_key from node_disabled").fetch_all(&self.pool).await;
        Ok(rows.map_err(failed("read the disabled nodes"))?.iter().map(|row| row.get("name_key")).collect())
    }

    /// Enables or disables a node. Doing it twice is doing it once.
    pub async fn set_node_enabled(&self, name: &str, enabled: bool) -> Result<()> {
        let sql = match enabled {
            true => "delete from node_disabled where name_key = $1",
            false => "insert into node_disabled (name_key) values ($1) on conflict (name_key) do nothing",
        };
        let done = sqlx::query(sql).bind(name_key(name)).execute(&self.pool).await;
        self.changed();
        done.map(|_| ()).map_err(failed("enable or disable a node"))
    }

    /// Forgets a node that was added, with the copies of templates on it (their files stay), unless volumes or snapshots
    /// that Vmyard knows are on it: returns whether it was forgotten. With `all`, its VMs, their volumes and snapshots, and what
    /// open tasks have to take back there, are forgotten as well. What was made there stays in the ledger: the host may come back.
    pub async fn forget_node(&self, name: &str, all: bool) -> Result<bool> {
        let mut transaction = self.begin().await?;
        if all {
            for sql in [
                "delete from volume where lower(node) = $1",
                "delete from credential_check where vm in (select id from vm where lower(node) = $1)",
                "delete from vm where lower(node) = $1",
                "delete from snapshot_disk where snapshot in (select id from snapshot where lower(node) = $1)",
                "delete from snapshot where lower(node) = $1",
                "delete from leftover where lower(node) = $1",
            ] {
                sqlx::query(sql)
                    .bind(name_key(name))
                    .execute(&mut *transaction)
                    .await
                    .map_err(failed("forget a node's VMs"))?;
            }
            sqlx::query("update task_step set state = 'undone' where state <> 'undone' and undo like $1 escape '\\'")
                .bind(undo_on(name)?)
                .execute(&mut *transaction)
                .await
                .map_err(failed("forget what is to be taken back on a node"))?;
        }
        for sql in [
            "delete from node where name_key = $1",
            "delete from node_disabled where name_key = $1",
            "delete from template_copy where lower(node) = $1",
        ] {
            sqlx::query(sql).bind(name_key(name)).execute(&mut *transaction).await.map_err(failed("forget a node"))?;
        }
        let used = sqlx::query(
            "select (select count(*) from volume where lower(node) = $1)
             + (select count(*) from snapshot where lower(node) = $1) as n",
        )
        .bind(name_key(name))
        .fetch_one(&mut *transaction)
        .await
        .map_err(failed("forget a node"))?;
        if used.get::<i64, _>("n") > 0 {
            transaction.rollback().await.map_err(failed("forget a node"))?;
            return Ok(false);
        }
        self.commit(transaction, "forget a node").await?;
        Ok(true)
    }

    /// The tasks that are at work and still have something to take back on a node, by their methods.
    pub async fn open_undos_on(&self, node: &str) -> Result<Vec<String>> {
        let rows = sqlx::query(
            "select distinct task.method as method from task join task_step on task_step.task = task.id
             where task.state in ('running', 'unwinding') and task_step.state <> 'undone' and task_step.undo like $1 escape '\\'",
        )
        .bind(undo_on(node)?)
        .fetch_all(&self.pool)
        .await
        .map_err(failed("read the journal"))?;
        Ok(rows.iter().map(|row| row.get("method")).collect())
    }
}

/// What an undo on this node has in its JSON, for `like`.
fn undo_on(node: &str) -> Result<String> {
    Ok(format!("%\"node\":{}%", to_json(&node)?.replace('_', "\\_")))
}
