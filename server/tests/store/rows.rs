//! Rows as they are: out of one database, into another.

use api::Time;
use serde_json::{Value, json};
use server::store::{RawRow, SCHEMA, Store, TABLES};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};
use uuid::Uuid;

async fn all(store: &Store) -> BTreeMap<String, RawRow> {
    let mut rows = BTreeMap::new();
    let read = store.read_rows(|row| {
        rows.insert(format!("{} {}", row.table, json!(row.key())), row);
        Ok(())
    });
    read.await.unwrap();
    rows
}

fn directory(name: &str) -> PathBuf {
    let dir = PathBuf::from(format!("/tmp/vmyard-rows-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).unwrap();
    dir
}

/// What a database has can be put into one of the other kind, and back.
pub async fn go_there_and_back(store: &Store) {
    let other = Store::open("sqlite::memory:").await.unwrap();
    move_over(store, &other).await;
    store.replace_rows(std::iter::empty()).await.unwrap();
    move_over(&other, store).await;
}

async fn move_over(from: &Store, empty: &Store) {
    let before = all(from).await;
    let tables: BTreeSet<&str> = before.values().map(|row| row.table.as_str()).collect();
    assert!(tables.len() >= 8, "{tables:?}");
    assert!(before.values().any(|row| row.row.values().any(Value::is_null)));
    empty.replace_rows(before.values().cloned().rev().collect::<Vec<_>>().into_iter().map(Ok)).await.unwrap_err();
    let place = |row: &RawRow| TABLES.iter().position(|table| table.name == row.table);
    let mut in_order: Vec<RawRow> = before.values().cloned().collect();
    in_order.sort_by_key(place);
    empty.replace_rows(in_order.into_iter().map(Ok)).await.unwrap();
    assert_eq!(all(empty).await, before);
    assert!(empty.first_row_of_work().await.unwrap().is_some());
}

#[tokio::test]
async fn every_table_is_known() {
    let dir = directory("tables");
    let url = Store::default_url(&dir);
    let _store = Store::open(&url).await.unwrap();
    let beside = sqlx::AnyPool::connect(&url).await.unwrap();
    let all = "select m.name, c.type from sqlite_master m, pragma_table_info(m.name) c
               where m.type = 'table' and m.name not like '\\_%' escape '\\'";
    let all: Vec<(String, String)> = sqlx::query_as(all).fetch_all(&beside).await.unwrap();
    // Both databases read and write these alike.
    assert!(all.iter().all(|(_, kind)| ["TEXT", "BIGINT"].contains(&kind.to_uppercase().as_str())), "{all:?}");
    let made: BTreeSet<String> = all.into_iter().map(|(name, _)| name).collect();
    let known: BTreeSet<String> = TABLES.iter().map(|table| table.name.to_owned()).collect();
    // A backup has all but who is signed in.
    let without: Vec<_> = made.difference(&known).collect();
    assert_eq!(without, ["session"]);
    assert_eq!(known.difference(&made).count(), 0);
    fs::remove_dir_all(&dir).unwrap();
}

#[tokio::test]
async fn an_old_backup_is_brought_up_to_date() {
    let dir = directory("old");
    let url = Store::default_url(&dir);
    // As a Vmyard before nodes, snapshots and the ledger had it.
    let store = Store::open_at(&url, 3).await.unwrap();
    assert_eq!((store.version().await.unwrap(), store.first_row_of_work().await.unwrap()), (3, None));
    let (id, pool) = (Uuid::now_v7(), Uuid::now_v7());
    let row =
        |table: &str, row: Value| -> RawRow { serde_json::from_value(json!({"table": table, "row": row})).unwrap() };
    let spec = json!({"template": null, "template_name": null, "pool": pool, "pool_name": "default", "vcpus": 1, "max_vcpus": 1,
                      "memory_mib": 64, "max_memory_mib": 64, "disk_bytes": 1, "tags": {}, "description": "", "user": null});
    let vm = json!({"id": id, "name": "Old", "name_key": "old", "node": "local", "domain": "old-1", "phase": "ready",
                    "spec": spec.to_string(), "created_at": 7, "revision": 3});
    store.replace_rows([Ok(row("vm", vm))].into_iter()).await.unwrap();
    // What this version has no place for is refused, and then nothing has changed.
    for wrong in
        [row("keypair", json!({"id": "x"})), row("vm", json!({"id": "x; drop table vm"})), row("vm", json!({"Id,": 1}))]
    {
        store.replace_rows([Ok(wrong)].into_iter()).await.unwrap_err();
        assert_eq!(all(&store).await.len(), 1);
    }
    store.migrate_to(SCHEMA).await.unwrap();
    let vms = store.vms().await.unwrap();
    assert_eq!((vms[0].id, vms[0].name.as_str(), vms[0].created_at), (id, "Old", Time(7)));
    assert_eq!(store.installation().await.unwrap(), store.installation().await.unwrap());
    drop(store);
    // Nobody else has it meanwhile, but it can be read.
    let store = Store::open(&url).await.unwrap();
    assert!(Store::open(&url).await.is_err());
    assert_eq!(all(&Store::open_to_read(&url).await.unwrap()).await, all(&store).await);
    fs::remove_dir_all(&dir).unwrap();
    assert!(Store::open_to_read(&url).await.is_err());
    assert!(!dir.exists());
}
