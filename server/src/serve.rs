//! Starting and stopping the server.

use crate::{
    App, Config, Error, Result,
    app::Parts,
    attempts::Attempts,
    auth, console,
    copies::Copies,
    credential_checks::CredentialChecks,
    drift,
    events::{self, Events},
    housekeeping,
    index::Index,
    manifest::{self, Manifests},
    methods,
    metrics::{self, Metrics},
    nodes::{Member, Nodes},
    reconcile, rpc,
    store::{Store, name_key},
    task::{Tasks, hold, recover},
    webhooks,
};
use api::event::EventKind;
use axum::serve::ListenerExt;
use serde_json::json;
use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_util::sync::CancellationToken;

/// How long tasks at work may take to end when the server stops.
const STOP: Duration = Duration::from_secs(30);
/// How long answers may take to be sent after that.
const ANSWER: Duration = Duration::from_secs(2);
/// How long the nodes' manifests may take after that.
const MANIFESTS: Duration = Duration::from_secs(10);
/// How long the server is not ready while it takes back what was left.
const RECOVER: Duration = Duration::from_secs(20);
/// How long the server waits at its start for nodes to be reached, before it unwinds what is left on them.
const REACH: Duration = Duration::from_secs(3);

/// Serves until `stop` is ready. `listening` is told the address once the API answers.
pub async fn serve(
    config: Config,
    stop: impl Future<Output = ()> + Send + 'static,
    listening: impl FnOnce(SocketAddr),
) -> Result<()> {
    let addresses = [("listen", Some(config.listen.ip())), ("console_listen", config.console_listen)];
    for (field, ip) in addresses.into_iter().filter_map(|(field, ip)| Some((field, ip?))) {
        if !ip.is_loopback() && !config.insecure {
            return Err(Error::field(
                field,
                format!(
                    "{ip} is not a loopback address and the connection is not encrypted; use --insecure if that is meant"
                ),
            ));
        }
    }
    check_nodes(&config)?;
    config.metrics.check().map_err(|(key, why)| Error::field(format!("metrics.{key}"), why))?;
    let app = start(config).await?;
    let listener = TcpListener::bind(app.config.listen)
        .await
        .map_err(|error| Error::field("listen", format!("can't listen on {}: {error}", app.config.listen)))?;
    let address = listener.local_addr().map_err(|error| Error::Internal(format!("tell the address: {error}")))?;
    let router = rpc::router(app.clone(), methods::table()).into_make_service_with_connect_info::<SocketAddr>();
    listening(address);

    let (tasks, stopped) = (app.clone(), CancellationToken::new());
    let (stopping, gone) = (stopped.clone(), stopped.clone());
    tokio::spawn(async move {
        stop.await;
        tracing::info!("stopping: no new work is taken");
        tasks.tasks.stop(STOP).await;
        tasks.consoles.stop.cancel();
        stopping.cancel();
    });
    // Keys that are typed in a console leave at once, and machines that are gone are noticed.
    let listener = listener.tap_io(|stream| console::vnc::tune(stream));
    let serving = axum::serve(listener, router).with_graceful_shutdown(async move { stopped.cancelled().await });
    // Answers that are under way are sent; a client that dawdles over its request is not waited for.
    let dawdled = async move {
        gone.cancelled().await;
        tokio::time::sleep(ANSWER).await;
    };
    tokio::select! {
        served = serving => served.map_err(|error| Error::Internal(format!("serve: {error}")))?,
        () = dawdled => {}
    }
    // HTTP doesn't count them any more.
    app.consoles.open.close();
    let _ = tokio::time::timeout(ANSWER, app.consoles.open.wait()).await;
    app.manifests.stop.cancel();
    let _ = tokio::time::timeout(MANIFESTS, app.manifests.writer.wait()).await;
    let _ = tokio::time::timeout(ANSWER, metrics::close(&app.metrics)).await;
    Ok(())
}

async fn start(mut config: Config) -> Result<App> {
    auth::ensure_data_dir(&config.data_dir)?;
    let store = Store::open(&config.database_url()).await?;
    let installation = store.installation().await?;
    let left = store.open_tasks().await?;
    let replay_key = auth::ensure_admin_token(&store, &config.data_dir).await?;

    let added = store.nodes().await?;
    if added.is_empty() {
        config.nodes = config.nodes_or_local();
    }
    let (sender, node_events) = mpsc::unbounded_channel();
    let (events, told) = Events::new();
    let (newcomers, added_nodes) = mpsc::unbounded_channel();
    let nodes = Nodes::new(newcomers);
    let disabled = store.disabled_nodes().await?;
    let configured = config.nodes.iter().map(|(name, settings)| (name.clone(), settings.clone(), true));
    let added = added.into_iter().map(|node| (node.name, node.settings, false));
    for (name, settings, configured) in configured.chain(added) {
        // The configuration file's goes before one of the same name that was added.
        if nodes.find(&name).is_none() {
            let mut member = Member::connect(&name, settings, installation, sender.clone())?;
            (member.enabled, member.configured) = (!disabled.contains(&name_key(&name)), configured);
            nodes.insert(member);
        }
    }
    let (vms, volumes) = (store.vms().await?, store.volumes().await?);
    let names = nodes.all().into_iter().map(|member| member.node.name().to_owned());
    let index = Index::new(vms, volumes, names, store.last_states().await?, events.clone());
    let credential_checks = CredentialChecks::new(store.credential_checks().await?);
    let drift = drift::Left::read(&store, &index).await?;
    let history_path = config.metrics.file.clone().unwrap_or_else(|| config.data_dir.join("metrics.db"));
    let history = match config.metrics.url {
        Some(_) => None,
        // Whoever writes tries again, and says why it can't be opened.
        None => metrics::open(&history_path).await.ok(),
    };
    let (metrics, ticks) = Metrics::begin(config.metrics.clone(), history).await;
    let app = App::new(Parts {
        config,
        store,
        installation,
        nodes,
        index,
        node_events: sender,
        drift,
        events,
        copies: Copies::default(),
        metrics: Arc::new(metrics),
        manifests: Manifests::default(),
        later: crate::later::Later::default(),
        credential_checks,
        consoles: console::Consoles::default(),
        tasks: Tasks::new(),
        recovered: std::sync::atomic::AtomicBool::new(false),
        started_at: api::Time::now(),
        attempts: Attempts::default(),
        replay_key,
    });
    let left = hold(&app, left).await?;
    let version = env!("CARGO_PKG_VERSION");
    let started = format!("Vmyard {version} has started");
    app.events.tell(events::general(EventKind::ServerStarted, started, json!({"version": version})));
    tokio::spawn(events::write_for_ever(app.store.clone(), told));
    webhooks::begin(&app).await?;
    tokio::spawn(housekeeping::for_ever(app.clone()));
    tokio::spawn(housekeeping::give_memory_back_for_ever());
    app.manifests.writer.spawn(manifest::write_for_ever(app.clone(), installation));
    app.manifests.writer.close();
    if app.metrics.keeps() {
        tokio::spawn(metrics::write_for_ever(app.metrics.clone(), history_path, ticks));
    }
    tokio::spawn(reconcile::follow_events(app.clone(), node_events));
    tokio::spawn(reconcile::follow_nodes(app.clone(), added_nodes));
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
        settings.check().map_err(|(key, why)| Error::field(format!("nodes.{name}.{key}"), why))?;
    }
    Ok(())
}

/// Waits until every node was reached and scanned, or refused, or [`REACH`] has passed.
async fn reach(app: &App) {
    let mut changes = app.index.changes();
    let all_known = || {
        app.nodes.all().iter().all(|Member { node, .. }| {
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
