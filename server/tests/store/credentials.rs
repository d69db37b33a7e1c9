//! Client tokens, keypairs, and resets of credentials that wait for a boot.

use super::task;
use api::{
    Time,
    credential::{CheckState, CredentialKind},
    task::TaskState,
};
use server::{
    Error,
    store::{Boot, CheckRecord, ClientToken, KeypairRecord, Store},
};
use uuid::Uuid;

pub async fn keypairs(store: &Store) {
    let keypair = |name: &str| KeypairRecord {
        id: Uuid::now_v7(),
        name: name.into(),
        public_key: "ssh-ed25519 AAAA ü".into(),
        created_at: Time(4),
    };
    let web = keypair("Web");
    store.insert_keypair(&web).await.unwrap();
    assert!(matches!(store.insert_keypair(&keypair("wEB")).await, Err(Error::AlreadyExists { .. })));
    for reference in ["WEB", &web.id.to_string().to_uppercase()] {
        assert_eq!(store.keypair(reference).await.unwrap().as_ref(), Some(&web));
    }
    assert_eq!(store.keypairs().await.unwrap(), std::slice::from_ref(&web));
    store.forget_keypair(web.id).await.unwrap();
    store.forget_keypair(web.id).await.unwrap();
    assert_eq!(store.keypair("web").await.unwrap(), None);
}

pub async fn resets_that_wait(store: &Store) {
    let task = task();
    store.insert_task(&task, None, None).await.unwrap();
    let check = CheckRecord {
        vm: Uuid::new_v4(),
        user: "ann".into(),
        kind: CredentialKind::Password,
        task: task.id,
        state: CheckState::Pending,
        reason: None,
        boot: Boot::Id("b1".into()),
        created_at: Time(1),
        checked_at: None,
    };
    let keys = CheckRecord { kind: CredentialKind::SshKeys, boot: Boot::Off, task: Uuid::now_v7(), ..check.clone() };
    for one in [&check, &keys, &check] {
        store.reset_waits(one, "{}").await.unwrap();
    }
    let mut all = store.credential_checks().await.unwrap();
    all.sort_by_key(|one| one.kind.as_str());
    assert_eq!(all, [check.clone(), keys.clone()]);
    // Only the last one is settled.
    let settled = CheckRecord {
        state: CheckState::Failed,
        reason: Some("no such user".into()),
        checked_at: Some(Time(2)),
        ..check.clone()
    };
    store.credential_checked(&CheckRecord { task: Uuid::now_v7(), ..settled.clone() }).await.unwrap();
    assert!(store.credential_checks().await.unwrap().contains(&check));
    store.credential_checked(&settled).await.unwrap();
    assert!(store.credential_checks().await.unwrap().contains(&settled));
    store.reset_waits_no_more(&settled, task.id, "{\"a\":1}").await.unwrap();
    assert_eq!(store.credential_checks().await.unwrap(), [CheckRecord { state: CheckState::Pending, ..keys }]);
    assert_eq!(store.task(task.id).await.unwrap().unwrap().result.as_deref(), Some("{\"a\":1}"));
    store.forget_vm(check.vm).await.unwrap();
    assert!(store.credential_checks().await.unwrap().is_empty());
}

pub async fn client_tokens(store: &Store) {
    let token = |hash: &str| ClientToken {
        caller: "admin".into(),
        method: "create-vm".into(),
        token: "once".into(),
        body_hash: hash.into(),
    };
    assert_eq!(store.first_use(&token("h")).await.unwrap(), None);
    let first = task();
    store.insert_task(&first, Some(&token("h")), None).await.unwrap();
    assert_eq!(store.first_use(&token("other")).await.unwrap(), Some(("h".into(), first.id)));
    let second = task();
    assert!(store.insert_task(&second, Some(&token("h")), None).await.is_err());
    assert!(store.task(second.id).await.unwrap().is_none(), "both or none");
    store.set_task_state(first.id, TaskState::Done, None, None).await.unwrap();
}
