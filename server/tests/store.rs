//! The store on SQLite and on PostgreSQL: one SQL text, the same behaviour.

#![allow(clippy::unwrap_used, missing_docs)]

use api::{
    Access, Time,
    task::{StepState, Target, TaskState},
};
use server::{
    Error,
    store::{
        ClientToken, CopyRecord, Store, TaskRecord, TemplatePhase, TemplateRecord, TemplateSpec, TokenRecord, VmPhase,
        VmRecord, VmSpec, VolumeRecord, VolumeRole,
    },
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
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
            template,
            template_name: "t".into(),
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
        vm: Some(vm.id),
        device: Some("vda".into()),
        template,
        created_at: Time::now(),
    }
}

async fn behaves(store: &Store) {
    // Templates.
    let base = template("Base");
    store.insert_template(&base).await.unwrap();
    assert!(matches!(store.insert_template(&template("bAsE")).await, Err(Error::AlreadyExists { .. })));
    assert_eq!(store.template("BASE").await.unwrap().as_ref(), Some(&base));
    assert_eq!(store.template(&base.id.to_string()).await.unwrap().as_ref(), Some(&base));
    let task = task();
    store.insert_task(&task, None).await.unwrap();
    store.insert_step(task.id, 0, "copy", Some("{}".into())).await.unwrap();
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
    store.insert_vm(&web).await.unwrap();
    assert!(matches!(store.insert_vm(&vm("WEB", base.id)).await, Err(Error::AlreadyExists { .. })));
    assert_eq!(store.vms().await.unwrap(), [web.clone()]);
    let system = volume(&web, VolumeRole::System, "system", Some(base.id));
    let data = volume(&web, VolumeRole::Data, "data", None);
    store.insert_volume(&system).await.unwrap();
    store.insert_volume(&data).await.unwrap();
    assert_eq!(store.volumes_on_template(base.id).await.unwrap(), 1);
    assert!(!store.mark_template_deleting(base.id).await.unwrap(), "a disk stands on it");
    let mut stale = web.clone();
    store.set_vm_phase(&mut web, VmPhase::Ready).await.unwrap();
    assert!(store.set_vm_phase(&mut stale, VmPhase::Deleting).await.is_err(), "its revision is old");
    store.forget_vm(web.id).await.unwrap();
    store.forget_vm(web.id).await.unwrap();
    let left = store.volumes().await.unwrap();
    assert_eq!(left.len(), 1, "data outlives its VM");
    assert_eq!((left[0].id, left[0].vm, &left[0].device), (data.id, None, &None));
    // Nothing new may stand on what goes.
    let late = vm("late", base.id);
    store.insert_vm(&late).await.unwrap();
    assert!(store.mark_template_deleting(base.id).await.unwrap());
    let refused = store.insert_volume(&volume(&late, VolumeRole::System, "late", Some(base.id))).await;
    assert!(matches!(refused, Err(Error::WrongState { .. })), "{refused:?}");
    store.forget_vm(late.id).await.unwrap();
    store.forget_template(base.id).await.unwrap();
    store.forget_template(base.id).await.unwrap();

    // Tokens.
    let token = TokenRecord {
        id: Uuid::now_v7(),
        name: "t".into(),
        hash: "h".into(),
        role: Access::Viewer,
        expires_at: Some(Time(5)),
    };
    store.insert_token(&token).await.unwrap();
    store.insert_token(&token).await.unwrap();
    let found = store.token("h").await.unwrap().unwrap();
    assert_eq!((found.role, found.expires_at), (Access::Viewer, Some(Time(5))));
    assert!(store.token("other").await.unwrap().is_none());
    journal(store).await;
}

fn task() -> TaskRecord {
    TaskRecord {
        id: Uuid::now_v7(),
        method: "create-vm".into(),
        target: Target { kind: "vm".into(), id: Uuid::nil(), name: "web".into() },
        caller: "admin".into(),
        state: TaskState::Running,
        progress: None,
        result: None,
        error: None,
        created_at: Time::now(),
        finished_at: None,
    }
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
    store.insert_task(&first, Some(&token("h"))).await.unwrap();
    assert_eq!(store.first_use(&token("other")).await.unwrap(), Some(("h".into(), first.id)));
    let second = task();
    assert!(store.insert_task(&second, Some(&token("h"))).await.is_err());
    assert!(store.task(second.id).await.unwrap().is_none(), "both or none");
    store.set_task_state(first.id, TaskState::Done, None, None).await.unwrap();
}

async fn journal(store: &Store) {
    let tasks: Vec<TaskRecord> = (0..3).map(|_| task()).collect();
    for task in &tasks {
        store.insert_task(task, None).await.unwrap();
    }
    assert_eq!(
        store.open_tasks().await.unwrap().iter().map(|task| task.id).collect::<Vec<_>>(),
        [tasks[0].id, tasks[1].id, tasks[2].id]
    );
    store.set_task_progress(tasks[0].id, 5000).await.unwrap();
    store.set_task_progress(tasks[0].id, 4000).await.unwrap();
    assert_eq!(store.task(tasks[0].id).await.unwrap().unwrap().progress, Some(5000), "progress doesn't go back");
    store.insert_step(tasks[0].id, 0, "a", Some("{\"undo\":1}".into())).await.unwrap();
    store.set_step_state(tasks[0].id, 0, StepState::Done).await.unwrap();
    store.set_task_state(tasks[0].id, TaskState::Failed, None, Some("{}".into())).await.unwrap();
    let ended = store.task(tasks[0].id).await.unwrap().unwrap();
    assert!(ended.finished_at.is_some() && ended.error.is_some());
    let (page, total) = store.tasks(None, Some("create-vm"), None, None, 2).await.unwrap();
    assert_eq!((page[0].id, page[1].id, total), (tasks[2].id, tasks[1].id, 4));
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
                store.insert_task(&task, None).await.unwrap();
                store.insert_step(task.id, 0, "a", None).await.unwrap();
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
    takes_many_writers(&store).await;
}
