//! Nodes, tokens, sessions, the audit, keypairs.

use super::steps::{step, task};
use api::{
    Access, Time,
    task::{StepState, Target, TaskState},
};
use server::{
    Error,
    config::NodeSettings,
    store::{AuditFilter, AuditRecord, KeypairRecord, NodeRecord, SessionRecord, Store, TokenRecord},
};
use uuid::Uuid;

pub async fn tokens(store: &Store) {
    let token = TokenRecord {
        id: Uuid::now_v7(),
        name: "t".into(),
        hash: "h".into(),
        role: Access::Viewer,
        expires_at: Some(Time(5)),
        created_at: Time(4),
    };
    store.put_token(&token).await.unwrap();
    store.put_token(&token).await.unwrap();
    let found = store.token("h").await.unwrap().unwrap();
    assert_eq!((found.role, found.expires_at), (Access::Viewer, Some(Time(5))));
    assert!(store.token("other").await.unwrap().is_none());
    // What is known of it follows each change.
    store.put_token(&TokenRecord { role: Access::Operator, ..token.clone() }).await.unwrap();
    assert_eq!(store.token("h").await.unwrap().unwrap().role, Access::Operator);
    store.forget_tokens_but("t", "another").await.unwrap();
    assert!(store.token("h").await.unwrap().is_none());
    store.insert_token(&token).await.unwrap();
    assert_eq!(store.token("h").await.unwrap().unwrap().role, Access::Viewer);
    store.forget_token(token.id).await.unwrap();
    assert!(store.token("h").await.unwrap().is_none());
}

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

pub async fn nodes(store: &Store) {
    let add = async |name: &str| {
        let adding = task();
        store.insert_task(&adding, None, None).await.unwrap();
        let settings = NodeSettings::at("qemu+tcp://root:hunter2@far/system");
        let record = NodeRecord { id: Uuid::new_v4(), name: name.into(), settings, created_at: Time::now() };
        let added = store.insert_node(&record, adding.id).await;
        store.set_task_state(adding.id, TaskState::Done, None, None).await.unwrap();
        added
    };
    add("Far_1").await.unwrap();
    add("FarX1").await.unwrap();
    assert!(matches!(add("far_1").await, Err(Error::AlreadyExists { .. })));
    let all = store.nodes().await.unwrap();
    assert_eq!(all.iter().map(|node| node.name.as_str()).collect::<Vec<_>>(), ["Far_1", "FarX1"]);
    assert!(!format!("{all:?}").contains("hunter2"));
    for _ in 0..2 {
        store.set_node_enabled("FAR_1", false).await.unwrap();
    }
    assert!(store.disabled_nodes().await.unwrap().contains("far_1"));

    // What is to be taken back on a node is found by its name, which is no pattern.
    let cut = task();
    store.insert_task(&cut, None, None).await.unwrap();
    store.insert_step(&step(cut.id, 0, "a", Some("{\"undo\":\"x\",\"node\":\"Far_1\"}".into()), None)).await.unwrap();
    assert_eq!(store.open_undos_on("Far_1").await.unwrap(), ["create-vm"]);
    assert!(store.open_undos_on("FarX1").await.unwrap().is_empty());
    assert!(store.forget_node("Far_1", true).await.unwrap());
    assert_eq!(store.steps(cut.id).await.unwrap()[0].state, StepState::Undone);
    assert!(store.open_undos_on("Far_1").await.unwrap().is_empty());
    store.set_task_state(cut.id, TaskState::Failed, None, None).await.unwrap();
    assert!(store.forget_node("FarX1", false).await.unwrap());
    assert!(store.nodes().await.unwrap().is_empty() && store.disabled_nodes().await.unwrap().is_empty());
}

pub async fn access(store: &Store) {
    let token = |name: &str, hash: &str| TokenRecord {
        id: Uuid::now_v7(),
        name: name.into(),
        hash: hash.into(),
        role: Access::Operator,
        expires_at: None,
        created_at: Time::now(),
    };
    let (ann, admin) = (token("Ann", "ann"), token("admin", "first"));
    store.insert_token(&ann).await.unwrap();
    assert!(matches!(store.insert_token(&token("aNN", "other")).await, Err(Error::AlreadyExists { .. })));
    assert_eq!(store.token_named("ANN").await.unwrap(), Some(ann.clone()));
    assert_eq!(store.token_named(&ann.id.to_string().to_uppercase()).await.unwrap(), Some(ann.clone()));
    assert!(store.tokens().await.unwrap().contains(&ann));
    store.put_token(&admin).await.unwrap();

    // Sessions end with their token.
    let entry = |caller: &str, outcome: &str, at: i64| AuditRecord {
        id: Uuid::now_v7(),
        at: Time(at),
        caller: caller.into(),
        method: "sign-in".into(),
        target: Some(Target { kind: "token".into(), id: ann.id, name: "Ann".into() }),
        task: None,
        request_id: Uuid::now_v7(),
        remote: Some("::1".into()),
        outcome: outcome.into(),
    };
    let session = |token: &TokenRecord, hash: &str, ends: i64| SessionRecord {
        hash: hash.into(),
        token: token.id,
        created_at: Time(1),
        expires_at: Time(ends),
    };
    for (hash, ends) in [("a", 10), ("b", 20), ("c", 30)] {
        store.insert_session(&session(&ann, hash, ends), &entry("Ann", "accepted", ends)).await.unwrap();
    }
    store.insert_session(&session(&admin, "d", 30), &entry("admin", "accepted", 40)).await.unwrap();
    assert_eq!(store.session("b").await.unwrap(), Some((ann.clone(), Time(20))));
    store.forget_sessions_before(Time(20)).await.unwrap();
    store.end_session("b", &entry("Ann", "accepted", 50)).await.unwrap();
    for gone in ["a", "b"] {
        assert_eq!(store.session(gone).await.unwrap(), None, "{gone}");
    }
    store.forget_token(ann.id).await.unwrap();
    store.forget_token(ann.id).await.unwrap();
    assert_eq!(store.session("c").await.unwrap(), None);
    let late = store.insert_session(&session(&ann, "e", 30), &entry("Ann", "accepted", 60)).await;
    assert!(matches!(late, Err(Error::Unauthenticated(_))), "{late:?}");
    // A replaced administrator's token takes its sessions along, and another's secret in its place is the administrator's.
    store.insert_token(&token("bob", "second")).await.unwrap();
    store.forget_tokens_but("admin", "second").await.unwrap();
    store.put_token(&TokenRecord { role: Access::Administrator, ..token("admin", "second") }).await.unwrap();
    assert_eq!(store.session("d").await.unwrap(), None);
    assert_eq!(store.token("second").await.unwrap().unwrap().role, Access::Administrator);
    assert_eq!((store.token_named("bob").await.unwrap(), store.token("first").await.unwrap()), (None, None));

    // The audit.
    store.insert_audit(&AuditRecord { target: None, remote: None, ..entry("", "unauthenticated", 70) }).await.unwrap();
    let count = async |filter: AuditFilter| store.audit(&filter, None, 1).await.unwrap().1;
    let sign_ins = AuditFilter { method: Some("sign-in".into()), ..AuditFilter::default() };
    let (page, total) = store.audit(&sign_ins, None, 2).await.unwrap();
    assert_eq!((page.len(), total), (2, 6));
    assert_eq!((page[0].caller.as_str(), &page[0].target, page[1].at), ("", &None, Time(50)));
    let (next, total) = store.audit(&sign_ins, Some(page[1].id), 9).await.unwrap();
    assert_eq!((next.len(), total, next[3].at), (4, 6, Time(10)));
    assert_eq!(count(AuditFilter { caller: Some("ANN".into()), ..sign_ins.clone() }).await, 4);
    for target in ["ann".to_owned(), ann.id.to_string()] {
        assert_eq!(count(AuditFilter { target: Some(target), ..sign_ins.clone() }).await, 5);
    }
    let between = AuditFilter { since: Some(Time(20)), until: Some(Time(40)), ..sign_ins.clone() };
    assert_eq!(count(between).await, 2);
    store.forget_audit_before(Time(50)).await.unwrap();
    assert_eq!(count(sign_ins).await, 2);

    // With its task, or neither.
    let first = task();
    let accepted = AuditRecord { task: Some(first.id), ..entry("Ann", "accepted", 80) };
    store.insert_task(&first, None, Some(&accepted)).await.unwrap();
    let second = task();
    assert!(store.insert_task(&second, None, Some(&accepted)).await.is_err(), "the entry's id is taken");
    assert!(store.task(second.id).await.unwrap().is_none());
    store.set_task_state(first.id, TaskState::Done, None, None).await.unwrap();
    assert_eq!(store.audit(&AuditFilter::default(), None, 1).await.unwrap().0, [accepted]);
}
