//! The store on SQLite and on PostgreSQL: one SQL text, the same behaviour.

#![allow(clippy::unwrap_used, missing_docs)]

#[path = "store/access.rs"]
mod access;
#[path = "store/rows.rs"]
mod rows;
#[path = "store/steps.rs"]
mod steps;

use api::{
    Time,
    credential::{CheckState, CredentialKind},
    event::EventKind,
    orphan::OrphanKind,
    task::{StepState, Target, TaskState},
    vm::Firmware,
};
use server::{
    Error,
    store::{
        Boot, CheckRecord, ClientToken, CopyRecord, EventFilter, EventRange, Made, NewEvent, Reserved, StepBegun,
        Store, TaskRecord, TemplatePhase, TemplateRecord, TemplateSpec, VmPhase, VmRecord, VmSpec, VolumePhase,
        VolumeRecord, VolumeRole,
    },
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use steps::{first_step, step, task};
use uuid::Uuid;

/// A PostgreSQL cluster of the test's, gone when it is dropped. It refuses to run as root, so it runs as `postgres`.
struct Cluster {
    dir: PathBuf,
    server: Child,
}

impl Cluster {
    fn start() -> Cluster {
        let versions =
            fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is not installed: scripts/prepare --test");
        let mut programs: Vec<PathBuf> = versions.map(|entry| entry.unwrap().path().join("bin")).collect();
        programs.sort();
        let programs = programs.pop().unwrap();
        let dir = PathBuf::from(format!("/tmp/vmyard-pg-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir(&dir).unwrap();
        assert!(Command::new("chown").arg("postgres").arg(&dir).status().unwrap().success());
        let as_postgres = |program: &str, args: &[&str]| {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--pdeathsig=KILL"]);
            command
                .arg(programs.join(program))
                .args(args)
                .current_dir(&dir)
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            command
        };
        let data = dir.join("data");
        let data = data.to_str().unwrap();
        assert!(
            as_postgres("initdb", &["-A", "trust", "-U", "vmyard", "--locale=C.UTF-8", "-D", data])
                .status()
                .unwrap()
                .success()
        );
        // A socket of its own, and no TCP port.
        let socket = dir.to_str().unwrap();
        let server = as_postgres("postgres", &["-D", data, "-c", "listen_addresses=", "-k", socket]).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        while !as_postgres("pg_isready", &["-h", socket]).status().unwrap().success() {
            assert!(Instant::now() < deadline, "PostgreSQL doesn't start");
            std::thread::sleep(Duration::from_millis(50));
        }
        Cluster { dir, server }
    }

    fn url(&self) -> String {
        let socket = self.dir.display().to_string().replace('/', "%2F");
        format!("postgres://vmyard@{socket}/postgres")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn template(name: &str) -> TemplateRecord {
    TemplateRecord {
        id: Uuid::now_v7(),
        name: name.into(),
        phase: TemplatePhase::Creating,
        spec: TemplateSpec {
            os: None,
            cloud_init: true,
            guest_agent: false,
            default_user: None,
            format: "qcow2".into(),
            virtual_bytes: 1 << 40,
        },
        created_at: Time(1_700_000_000_123),
    }
}

fn vm(name: &str, template: Uuid) -> VmRecord {
    VmRecord {
        id: Uuid::new_v4(),
        name: name.into(),
        node: "local".into(),
        domain: format!("{name}-x"),
        phase: VmPhase::Creating,
        spec: VmSpec {
            template: Some(template),
            template_name: Some("t".into()),
            pool: Uuid::nil(),
            pool_name: "default".into(),
            vcpus: 1,
            max_vcpus: 2,
            memory_mib: 64,
            max_memory_mib: 64,
            disk_bytes: 1 << 29,
            tags: [("ключ".to_owned(), "\"'\\".to_owned())].into(),
            description: "two\nlines".into(),
            user: None,
            cloud_init: None,
            firmware: Firmware::Uefi,
            reserved: vec![Reserved {
                network: Uuid::nil(),
                mac: "52:54:00:00:00:01".into(),
                ip: [10, 0, 0, 2].into(),
            }],
        },
        created_at: Time::now(),
        revision: 1,
    }
}

fn volume(vm: &VmRecord, role: VolumeRole, name: &str, template: Option<Uuid>) -> VolumeRecord {
    VolumeRecord {
        id: Uuid::now_v7(),
        name: name.into(),
        node: "local".into(),
        pool: Uuid::nil(),
        pool_name: "default".into(),
        file: format!("{name}.qcow2"),
        path: format!("/pool/{name}.qcow2"),
        format: "qcow2".into(),
        size_bytes: 1 << 33,
        role,
        phase: VolumePhase::Ready,
        vm: Some(vm.id),
        device: Some("vda".into()),
        template,
        base: None,
        created_at: Time::now(),
    }
}

/// A volume is one VM's at most, and is marked for deletion only when it is nobody's.
async fn volumes_change_hands(store: &Store, web: &VmRecord) {
    let mut free = volume(web, VolumeRole::Data, "free", None);
    (free.vm, free.device, free.phase) = (None, None, VolumePhase::Creating);
    store.insert_volume(&free).await.unwrap();
    assert!(!store.claim_volume(free.id, web.id, "vdb", None).await.unwrap(), "it is not ready");
    let making = task();
    store.insert_task(&making, None, None).await.unwrap();
    store.volume_is_ready(free.id, making.id).await.unwrap();
    assert!(store.task(making.id).await.unwrap().unwrap().result.is_some());
    store.set_task_state(making.id, TaskState::Done, None, None).await.unwrap();
    assert!(store.claim_volume(free.id, web.id, "vdb", None).await.unwrap());
    assert!(!store.claim_volume(free.id, web.id, "vdc", None).await.unwrap());
    let claimed = store.volume(free.id).await.unwrap().unwrap();
    assert_eq!((claimed.vm, claimed.device.as_deref()), (Some(web.id), Some("vdb")));
    store.set_volume_detaching(free.id, web.id, true).await.unwrap();
    assert_eq!(store.volume(free.id).await.unwrap().unwrap().phase, VolumePhase::Detaching);
    store.set_volume_detaching(free.id, web.id, false).await.unwrap();
    store.release_volume(free.id, Uuid::nil()).await.unwrap();
    assert_eq!(store.volumes_named("FREE").await.unwrap(), [claimed], "it is not that VM's");
    store.release_volume(free.id, web.id).await.unwrap();
    store.set_volume_size(free.id, 1 << 34).await.unwrap();
    let freed = store.volume(free.id).await.unwrap().unwrap();
    assert_eq!((freed.vm, freed.device, freed.phase, freed.size_bytes), (None, None, VolumePhase::Ready, 1 << 34));
    assert!(store.mark_volume_deleting(free.id).await.unwrap());
    assert!(!store.claim_volume(free.id, web.id, "vdb", None).await.unwrap(), "it goes");
    store.forget_volume(free.id).await.unwrap();
}

async fn behaves(store: &Store) {
    // Templates.
    let base = template("Base");
    store.insert_template(&base).await.unwrap();
    assert!(matches!(store.insert_template(&template("bAsE")).await, Err(Error::AlreadyExists { .. })));
    assert_eq!(store.template("BASE").await.unwrap().as_ref(), Some(&base));
    assert_eq!(store.template(&base.id.to_string()).await.unwrap().as_ref(), Some(&base));
    let task = task();
    store.insert_task(&task, None, None).await.unwrap();
    store.insert_step(&step(task.id, 0, "copy", Some("{}".into()), None)).await.unwrap();
    let copy = CopyRecord {
        template: base.id,
        node: "local".into(),
        pool: Uuid::nil(),
        pool_name: "default".into(),
        file: "f".into(),
        path: "/f".into(),
    };
    store.template_is_ready(&copy, task.id).await.unwrap();
    assert_eq!(store.template("base").await.unwrap().unwrap().phase, TemplatePhase::Ready);
    assert_eq!(store.template_copies(Some(base.id)).await.unwrap(), [copy]);
    // The end of the journal is in the same transaction.
    assert!(store.task(task.id).await.unwrap().unwrap().result.is_some());
    assert_eq!(store.steps(task.id).await.unwrap()[0].undo, None);
    store.set_task_state(task.id, TaskState::Done, None, None).await.unwrap();

    // VMs and volumes.
    let mut web = vm("web", base.id);
    let being_made = |vm: &VmRecord, name, template| VolumeRecord {
        phase: VolumePhase::Creating,
        ..volume(vm, VolumeRole::System, name, template)
    };
    let system = being_made(&web, "system", Some(base.id));
    let foretelling = first_step(store).await;
    let next = step(foretelling.task, 1, "make-system-disk", Some("{}".into()), None);
    store.insert_vm(&web, &system, &StepBegun { foretold: vec![next], ..foretelling }).await.unwrap();
    let taken = first_step(store).await;
    let (other, its) = (vm("WEB", base.id), being_made(&web, "its", None));
    assert!(matches!(store.insert_vm(&other, &its, &taken).await, Err(Error::AlreadyExists { .. })));
    assert_eq!(store.steps(taken.task).await.unwrap().len(), 0, "what has not come about has not begun");
    assert_eq!(store.vms().await.unwrap(), [web.clone()]);
    assert_eq!(store.volumes().await.unwrap(), std::slice::from_ref(&system));
    let data = volume(&web, VolumeRole::Data, "data", None);
    store.insert_volume(&data).await.unwrap();
    assert_eq!(store.volumes_on_template(base.id).await.unwrap(), 1);
    assert!(!store.mark_template_deleting(base.id).await.unwrap(), "a disk stands on it");
    let mut stale = web.clone();
    let making = first_step(store).await;
    store.vm_is_ready(&mut web, &making).await.unwrap();
    assert_eq!(store.volume(system.id).await.unwrap().unwrap().phase, VolumePhase::Ready);
    assert_eq!(store.steps(making.task).await.unwrap().len(), 1);
    assert!(store.mark_vm_deleting(&mut stale, true, &[]).await.is_err(), "its revision is old");
    a_vm_is_changed(store, &mut web, &mut stale).await;
    volumes_change_hands(store, &web).await;
    let gone_too = volume(&web, VolumeRole::Data, "gone-too", None);
    store.insert_volume(&gone_too).await.unwrap();
    assert!(!store.mark_volume_deleting(gone_too.id).await.unwrap(), "a VM has it");
    store.set_volume_detaching(data.id, web.id, true).await.unwrap();
    store.mark_vm_deleting(&mut web, false, &[]).await.unwrap();
    assert_eq!(store.volume(gone_too.id).await.unwrap().unwrap().phase, VolumePhase::Ready);
    store.release_volume(gone_too.id, web.id).await.unwrap();
    assert!(store.mark_volume_deleting(gone_too.id).await.unwrap());
    store.forget_volume(gone_too.id).await.unwrap();
    store.forget_vm(web.id).await.unwrap();
    store.forget_vm(web.id).await.unwrap();
    let left = store.volumes().await.unwrap();
    assert_eq!(left.len(), 1, "data outlives its VM");
    assert_eq!((left[0].id, left[0].vm, &left[0].device), (data.id, None, &None));
    // Nothing new may stand on what goes.
    let late = vm("late", base.id);
    assert!(store.mark_template_deleting(base.id).await.unwrap());
    let disk = being_made(&late, "late", Some(base.id));
    let refused = store.insert_vm(&late, &disk, &first_step(store).await).await;
    assert!(matches!(refused, Err(Error::WrongState { .. })), "{refused:?}");
    assert_eq!(store.vms().await.unwrap(), []);
    store.forget_template(base.id).await.unwrap();
    store.forget_template(base.id).await.unwrap();

    access::tokens(store).await;
    access::keypairs(store).await;
    journal(store).await;
}

async fn resets_that_wait(store: &Store) {
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
    let told = NewEvent {
        at: Time(2),
        kind: EventKind::VmCredentials,
        vm: Some(check.vm),
        vm_name: None,
        node: None,
        task: Some(task.id),
        message: "settled".to_owned(),
        details: serde_json::json!({}),
    };
    let superseded = CheckRecord { task: Uuid::now_v7(), ..settled.clone() };
    store.credential_checked(&superseded, told.clone()).await.unwrap();
    assert!(store.credential_checks().await.unwrap().contains(&check));
    store.credential_checked(&settled, told).await.unwrap();
    let filter = EventFilter { vm: Some(check.vm.to_string()), ..EventFilter::default() };
    assert_eq!(store.events(&filter, None, 9).await.unwrap().1, 1);
    assert!(store.credential_checks().await.unwrap().contains(&settled));
    store.reset_waits_no_more(&settled, task.id, "{\"a\":1}").await.unwrap();
    assert_eq!(store.credential_checks().await.unwrap(), [CheckRecord { state: CheckState::Pending, ..keys }]);
    assert_eq!(store.task(task.id).await.unwrap().unwrap().result.as_deref(), Some("{\"a\":1}"));
    store.forget_vm(check.vm).await.unwrap();
    assert!(store.credential_checks().await.unwrap().is_empty());
}

/// A VM's name and spec are changed with the end of the journal, or neither.
async fn a_vm_is_changed(store: &Store, web: &mut VmRecord, stale: &mut VmRecord) {
    let task = TaskRecord { method: "modify-vm-spec".into(), ..task() };
    store.insert_task(&task, None, None).await.unwrap();
    store.insert_step(&step(task.id, 0, "change-definition", Some("{}".into()), None)).await.unwrap();
    let other = vm("other", web.spec.template.unwrap());
    let disk = volume(&other, VolumeRole::System, "other", None);
    store.insert_vm(&other, &disk, &first_step(store).await).await.unwrap();
    let mut taken = VmRecord { name: "OTHER".into(), ..web.clone() };
    assert!(matches!(store.change_vm(&mut taken, task.id, "{}").await, Err(Error::AlreadyExists { .. })));
    assert!(store.change_vm(stale, task.id, "{}").await.is_err(), "its revision is old");
    assert!(store.steps(task.id).await.unwrap()[0].undo.is_some());
    assert_eq!(store.task(task.id).await.unwrap().unwrap().result, None);
    store.forget_vm(other.id).await.unwrap();

    let before = web.name.clone();
    web.name = "Web-2".into();
    web.spec.vcpus = 7;
    store.change_vm(web, task.id, "{\"live\":[]}").await.unwrap();
    assert_eq!(store.vms().await.unwrap(), std::slice::from_ref(web));
    assert_eq!(store.steps(task.id).await.unwrap()[0].undo, None);
    assert_eq!(store.task(task.id).await.unwrap().unwrap().result.as_deref(), Some("{\"live\":[]}"));
    store.set_task_state(task.id, TaskState::Done, None, None).await.unwrap();
    web.name = before;
    store.change_vm(web, task.id, "null").await.unwrap();
}

async fn client_tokens(store: &Store) {
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

async fn journal(store: &Store) {
    let tasks: Vec<TaskRecord> = (0..3).map(|_| task()).collect();
    for task in &tasks {
        store.insert_task(task, None, None).await.unwrap();
    }
    assert_eq!(
        store.open_tasks().await.unwrap().iter().map(|task| task.id).collect::<Vec<_>>(),
        [tasks[0].id, tasks[1].id, tasks[2].id]
    );
    store.set_task_progress(tasks[0].id, 5000).await.unwrap();
    store.set_task_progress(tasks[0].id, 4000).await.unwrap();
    assert_eq!(store.task(tasks[0].id).await.unwrap().unwrap().progress, Some(5000), "progress doesn't go back");
    store.insert_step(&step(tasks[0].id, 0, "a", Some("{\"undo\":1}".into()), None)).await.unwrap();
    store.set_step_state(tasks[0].id, 0, StepState::Done).await.unwrap();
    store.set_task_state(tasks[0].id, TaskState::Failed, None, Some("{}".into())).await.unwrap();
    let ended = store.task(tasks[0].id).await.unwrap().unwrap();
    assert!(ended.finished_at.is_some() && ended.error.is_some());
    let (page, total) = store.tasks(None, Some("create-vm"), None, None, 2).await.unwrap();
    assert_eq!((page[0].id, page[1].id, total), (tasks[2].id, tasks[1].id, 10));
    let (page, _) = store.tasks(None, None, None, Some(tasks[1].id), 2).await.unwrap();
    assert_eq!(page[0].id, tasks[0].id);
    let (page, total) = store.tasks(Some(TaskState::Failed), None, Some(Uuid::nil()), None, 9).await.unwrap();
    assert_eq!((page.len(), total), (1, 1));
}

/// Eight writers that all change rows: none fails, none is lost.
async fn takes_many_writers(store: &Store) {
    let writers = (0..8).map(|_| {
        let store = store.clone();
        tokio::spawn(async move {
            for _ in 0..10 {
                let task = task();
                store.insert_task(&task, None, None).await.unwrap();
                store.insert_step(&step(task.id, 0, "a", None, None)).await.unwrap();
                store.set_task_state(task.id, TaskState::Done, Some("1".into()), None).await.unwrap();
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let (_, total) = store.tasks(Some(TaskState::Done), None, None, None, 1).await.unwrap();
    assert!(total >= 80);
}

#[tokio::test]
async fn on_sqlite() {
    let dir = PathBuf::from(format!("/tmp/vmyard-sqlite-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let url = Store::default_url(Path::new(&dir));
    let store = Store::open(&url).await.unwrap();
    behaves(&store).await;
    client_tokens(&store).await;
    access::access(&store).await;
    access::nodes(&store).await;
    old_tasks(&store).await;
    ledger(&store).await;
    resets_that_wait(&store).await;
    events(&store).await;
    takes_many_writers(&store).await;
    // Opened again, it is the same.
    drop(store);
    let (_, total) = Store::open(&url).await.unwrap().tasks(None, None, None, None, 1).await.unwrap();
    assert!(total > 80);
    fs::remove_dir_all(&dir).unwrap();
}

#[tokio::test]
async fn on_postgresql() {
    let cluster = Cluster::start();
    let store = Store::open(&cluster.url()).await.unwrap();
    behaves(&store).await;
    client_tokens(&store).await;
    access::access(&store).await;
    access::nodes(&store).await;
    old_tasks(&store).await;
    ledger(&store).await;
    resets_that_wait(&store).await;
    events(&store).await;
    takes_many_writers(&store).await;
    rows::go_there_and_back(&store).await;
}

/// Tasks are told with their ends, in one; numbers follow the order in which transactions end, however many there are at once.
async fn events(store: &Store) {
    let owner = vm("told", Uuid::nil());
    let before = store.event_range().await.unwrap().last;
    let TaskRecord { id, .. } = {
        let target = Target { kind: "vm".to_owned(), id: owner.id, name: owner.name.clone() };
        let told = TaskRecord { target, ..task() };
        store.insert_task(&told, None, None).await.unwrap();
        told
    };
    store.set_task_state(id, TaskState::Unwinding, None, None).await.unwrap();
    store.set_task_state(id, TaskState::Failed, None, Some("no JSON".to_owned())).await.unwrap();
    let filter = EventFilter { vm: Some("TOLD".to_owned()), ..EventFilter::default() };
    let last = store.event_range().await.unwrap().last;
    let told = store.events_after(&filter, before, last, 100).await.unwrap();
    let kinds: Vec<EventKind> = told.iter().map(|event| event.kind).collect();
    assert_eq!(kinds, [EventKind::TaskStarted, EventKind::TaskFailed]);
    assert_eq!((told[0].task, told[0].vm, told[0].id), (Some(id), Some(owner.id), before as u64 + 1));
    let of_kind = EventFilter { kinds: vec![EventKind::TaskFailed], task: Some(id), ..EventFilter::default() };
    let (page, total) = store.events(&of_kind, None, 10).await.unwrap();
    assert_eq!((page.len(), total, page[0].id), (1, 1, told[1].id));
    assert_eq!(store.events(&of_kind, Some(told[1].id as i64), 10).await.unwrap().0.len(), 0);

    // Whoever reads up to the last number misses none below it.
    let writers = (0..8).map(|_| {
        let store = store.clone();
        tokio::spawn(async move {
            for _ in 0..20 {
                store.insert_task(&task(), None, None).await.unwrap();
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    let (mut seen, mut news) = (last, store.follow_events());
    while seen < last + 160 {
        news.changed().await.unwrap();
        let now = store.event_range().await.unwrap().last;
        let told = store.events_after(&EventFilter::default(), seen, now, 1000).await.unwrap();
        assert_eq!(told.len() as i64, now - seen);
        assert!(told.iter().zip(seen + 1..).all(|(event, number)| event.id == number as u64));
        seen = now;
    }
    for writer in writers {
        writer.await.unwrap();
    }
    store.forget_events(Time(0), 10).await.unwrap();
    let range = store.event_range().await.unwrap();
    assert_eq!(range, EventRange { first: seen - 9, last: seen });
    // Whoever has seen what is before the first of them, or what isn't there yet, has missed something.
    assert_eq!([seen - 10, seen].map(|last| range.gap_after(last)), [None, None]);
    assert_eq!([seen - 11, 0].map(|last| range.gap_after(last)), [Some(seen - 10); 2]);
    assert_eq!(range.gap_after(seen + 1), Some(seen));
    store.forget_events(Time(i64::MAX), 10).await.unwrap();
    assert_eq!(store.event_range().await.unwrap(), EventRange { first: seen + 1, last: seen });
}

/// What was made is known as long as it may be there: it goes with the last row that refers to it, but not with its node's.
async fn ledger(store: &Store) {
    let base = template("ledger");
    store.insert_template(&base).await.unwrap();
    let owner = vm("ledger", base.id);
    let making = task();
    store.insert_task(&making, None, None).await.unwrap();
    let made = |kind, pool, file: String| Made { kind, node: "local".into(), pool, file };
    let (system, data) =
        (volume(&owner, VolumeRole::System, "l-system", None), volume(&owner, VolumeRole::Data, "l-data", None));
    let mut all = vec![
        made(OrphanKind::Seed, None, owner.id.to_string()),
        made(OrphanKind::Domain, None, owner.id.to_string()),
        made(OrphanKind::Nvram, Some(Uuid::nil()), format!("{}.nvram.fd", owner.id)),
        made(OrphanKind::Volume, Some(Uuid::nil()), system.file.clone()),
        made(OrphanKind::Volume, Some(Uuid::nil()), data.file.clone()),
        made(OrphanKind::Template, Some(Uuid::nil()), "l-copy".into()),
        made(OrphanKind::Memory, Some(Uuid::nil()), "l-memory".into()),
    ];
    for (seq, made) in all.iter().enumerate() {
        // The same twice is noted once.
        for seq in [2 * seq, 2 * seq + 1] {
            store.insert_step(&step(making.id, seq as i64, "a", None, Some(made))).await.unwrap();
        }
    }
    let known = async || {
        let mut ledger = store.ledger().await.unwrap();
        ledger.sort_by_key(|record| all.iter().position(|made| *made == record.made));
        ledger
    };
    let rows = known().await;
    assert_eq!(rows.iter().map(|record| record.made.clone()).collect::<Vec<_>>(), all);
    assert_eq!((rows[0].by.task, rows[0].by.method.as_str()), (making.id, "create-vm"));
    assert_eq!(rows[0].by.target, making.target);
    // It outlives the task that has made it.
    store.set_task_state(making.id, TaskState::Done, None, None).await.unwrap();
    store.forget_tasks_before(Time(Time::now().0 + 60_000)).await.unwrap();
    assert_eq!(known().await.len(), all.len());

    store.insert_vm(&owner, &system, &first_step(store).await).await.unwrap();
    store.insert_volume(&data).await.unwrap();
    store.forget_vm(owner.id).await.unwrap();
    let left: Vec<_> = known().await.into_iter().map(|record| record.made).collect();
    assert_eq!(left, all.split_off(4), "its data volume is kept");
    store.forget_volume(data.id).await.unwrap();
    store.forget_made(&left[1..2]).await.unwrap();
    assert!(store.forget_node("LOCAL", true).await.unwrap());
    let left: Vec<_> = store.ledger().await.unwrap().into_iter().map(|record| record.made.file).collect();
    assert_eq!(left, ["l-memory"], "the host may come back");
}

async fn old_tasks(store: &Store) {
    let (ended, open) = (task(), task());
    let token =
        ClientToken { caller: "admin".into(), method: "create-vm".into(), token: "old".into(), body_hash: "h".into() };
    store.insert_task(&ended, Some(&token), None).await.unwrap();
    store.insert_step(&step(ended.id, 0, "a", None, None)).await.unwrap();
    store.insert_task(&open, None, None).await.unwrap();
    store.set_task_state(ended.id, TaskState::Done, None, None).await.unwrap();
    let now = Time::now().0;
    store.forget_tasks_before(Time(now - 60_000)).await.unwrap();
    assert!(store.task(ended.id).await.unwrap().is_some(), "not yet");
    store.forget_tasks_before(Time(now + 60_000)).await.unwrap();
    assert!(store.task(ended.id).await.unwrap().is_none() && store.steps(ended.id).await.unwrap().is_empty());
    assert_eq!(store.first_use(&token).await.unwrap(), None);
    assert!(store.task(open.id).await.unwrap().is_some(), "one that is at work stays");
    store.set_task_state(open.id, TaskState::Done, None, None).await.unwrap();
}
