//! Starting and stopping the server.

use crate::{
    App, Config, Error, Result,
    admission::Admission,
    app::Parts,
    auth,
    config::NodeSettings,
    index::Index,
    methods, reconcile, rpc,
    store::Store,
    task::{Locks, Tasks, recover},
};
use hypervisor::{Node, NodeConfig};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_util::sync::CancellationToken;

/// How long tasks at work may take to end when the server stops.
const STOP: Duration = Duration::from_secs(30);
/// How long answers may take to be sent after that.
const ANSWER: Duration = Duration::from_secs(2);
/// How long the server is not ready while it takes back what was left.
const RECOVER: Duration = Duration::from_secs(20);
/// How long the server waits at its start for nodes to be reached, before it unwinds what is left on them.
const REACH: Duration = Duration::from_secs(3);

/// Serves until `stop` is ready. `listening` is told the address once the API answers.
pub async fn serve(
    mut config: Config,
    stop: impl Future<Output = ()> + Send + 'static,
    listening: impl FnOnce(SocketAddr),
) -> Result<()> {
    if !config.listen.ip().is_loopback() && !config.insecure {
        return Err(Error::field(
            "listen",
            format!(
                "{} is not a loopback address and the connection is not encrypted; use --insecure if that is meant",
                config.listen
            ),
        ));
    }
    if config.nodes.is_empty() {
        config.nodes.insert("local".to_owned(), NodeSettings::at("qemu:///system"));
    }
    check_nodes(&config)?;
    let app = start(config).await?;
    let listener = TcpListener::bind(app.config.listen)
        .await
        .map_err(|error| Error::field("listen", format!("can't listen on {}: {error}", app.config.listen)))?;
    let address = listener.local_addr().map_err(|error| Error::Internal(format!("tell the address: {error}")))?;
    let router = rpc::router(app.clone(), methods::table());
    listening(address);

    let (tasks, stopped) = (app.clone(), CancellationToken::new());
    let (stopping, gone) = (stopped.clone(), stopped.clone());
    tokio::spawn(async move {
        stop.await;
        tracing::info!("stopping: no new work is taken");
        tasks.tasks.stop(STOP).await;
        stopping.cancel();
    });
    let serving = axum::serve(listener, router).with_graceful_shutdown(async move { stopped.cancelled().await });
    // Answers that are under way are sent; a client that dawdles over its request is not waited for.
    let dawdled = async move {
        gone.cancelled().await;
        tokio::time::sleep(ANSWER).await;
    };
    tokio::select! {
        served = serving => served.map_err(|error| Error::Internal(format!("serve: {error}"))),
        () = dawdled => Ok(()),
    }
}

async fn start(config: Config) -> Result<App> {
    auth::ensure_data_dir(&config.data_dir)?;
    let url = config.database.clone().unwrap_or_else(|| Store::default_url(&config.data_dir));
    let store = Store::open(&url).await?;
    let left = store.open_tasks().await?;
    let replay_key = auth::ensure_admin_token(&store, &config.data_dir).await?;

    let (sender, events) = mpsc::unbounded_channel();
    let mut nodes = BTreeMap::new();
    for (name, settings) in &config.nodes {
        let config = NodeConfig { name: name.clone(), uri: settings.uri.clone(), virt_type: settings.virt_type.into() };
        let node =
            Node::spawn(config, sender.clone()).map_err(|error| Error::Internal(format!("node {name}: {error}")))?;
        nodes.insert(name.clone(), node);
    }
    let index = Index::new(store.vms().await?, nodes.keys().cloned());
    let app = App::new(Parts {
        config,
        store,
        nodes,
        index,
        locks: Locks::default(),
        admission: Admission::default(),
        tasks: Tasks::new(),
        recovered: std::sync::atomic::AtomicBool::new(false),
        started_at: api::Time::now(),
        replay_key,
    });
    tokio::spawn(reconcile::follow_events(app.clone(), events));
    for node in app.nodes.values() {
        tokio::spawn(reconcile::scan_for_ever(app.clone(), node.clone()));
        tokio::spawn(reconcile::sample_for_ever(app.clone(), node.clone()));
    }
    let recovering = app.clone();
    tokio::spawn(async move {
        reach(&recovering).await;
        // What takes longer goes on in the background.
        let _ = tokio::time::timeout(RECOVER, recover(&recovering, left)).await;
        recovering.recovered.store(true, std::sync::atomic::Ordering::SeqCst);
    });
    Ok(app)
}

fn check_nodes(config: &Config) -> Result<()> {
    let mut names = BTreeSet::new();
    for (name, settings) in &config.nodes {
        let field = || format!("nodes.{name}");
        api::rules::name(name, &()).map_err(|error| Error::field(field(), error.message()))?;
        if !names.insert(name.to_lowercase()) {
            return Err(Error::field(field(), "is there twice; names are the same without case"));
        }
        let wrong = |key: &str, message: &str| Err(Error::field(format!("nodes.{name}.{key}"), message));
        if !settings.uri.contains(":/") {
            return wrong("uri", "must be a libvirt URI, like qemu:///system or qemu+ssh://root@host/system");
        }
        for (key, value) in
            [("cpu_overcommit", settings.cpu_overcommit), ("memory_overcommit", settings.memory_overcommit)]
        {
            if !(0.01..=1000.0).contains(&value) {
                return wrong(key, "must be between 0.01 and 1000");
            }
        }
        for (key, path) in
            [("default_pool_path", &settings.default_pool_path), ("seed_pool_path", &settings.seed_pool_path)]
        {
            if !path.starts_with('/') {
                return wrong(key, "must be an absolute path on the node");
            }
        }
    }
    Ok(())
}

/// Waits until every node was reached and scanned, or refused, or [`REACH`] has passed.
async fn reach(app: &App) {
    let mut changes = app.index.changes();
    let all_known = || {
        app.nodes.values().all(|node| {
            let refused = matches!(node.status().0, hypervisor::Status::Down(_));
            refused || app.index.node(node.name()).scanned_at.is_some()
        })
    };
    let _ = tokio::time::timeout(REACH, async {
        while !all_known() {
            let _ = tokio::time::timeout(Duration::from_millis(50), changes.changed()).await;
        }
    })
    .await;
}
