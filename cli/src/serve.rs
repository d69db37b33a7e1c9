//! `vmyard serve`

use server::{Config, config::NodeSettings};
use std::{io::IsTerminal, net::SocketAddr, path::PathBuf, process::ExitCode};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Where a server's configuration is, and what goes before it.
#[derive(clap::Args)]
pub struct Source {
    /// The configuration file (TOML); what is given here goes before it
    #[arg(long)]
    config: Option<PathBuf>,
    /// Where database and tokens are [default: /var/lib/vmyard]
    #[arg(long, env = "VMYARD_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// The database [default: sqlite://DATA_DIR/vmyard.db]
    #[arg(long, env = "VMYARD_DATABASE", hide_env_values = true)]
    database: Option<String>,
    /// A node: NAME=URI; may be repeated [default: local=qemu:///system]
    #[arg(long = "node", value_name = "NAME=URI", value_parser = node)]
    nodes: Vec<(String, String)>,
}

/// `vmyard serve`
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    source: Source,
    /// Where to listen [default: 127.0.0.1:7777]
    #[arg(long, env = "VMYARD_LISTEN")]
    listen: Option<SocketAddr>,
    /// Listen beyond loopback although the connection is not encrypted
    #[arg(long)]
    insecure: bool,
    /// Stop when standard input ends: for a parent that wants the server gone with it
    #[arg(long)]
    stop_at_eof: bool,
    /// Log as JSON lines
    #[arg(long)]
    log_json: bool,
}

fn node(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, uri)) if !name.is_empty() && uri.contains("://") => Ok((name.to_owned(), uri.to_owned())),
        _ => Err("must be NAME=URI, like host1=qemu+ssh://root@host1/system".to_owned()),
    }
}

/// Serves until SIGINT or SIGTERM.
pub fn run(args: Args) -> ExitCode {
    log(args.log_json, "info,sqlx=warn");
    let stop_at_eof = args.stop_at_eof;
    match config(args).and_then(|config| serve(config, stop_at_eof)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn config(args: Args) -> Result<Config, String> {
    let mut config = args.source.read()?;
    config.listen = args.listen.unwrap_or(config.listen);
    config.insecure |= args.insecure;
    Ok(config)
}

impl Source {
    /// The configuration.
    pub fn read(self) -> Result<Config, String> {
        let mut config = match &self.config {
            None => Config::default(),
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
                toml::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?
            }
        };
        config.data_dir = self.data_dir.unwrap_or(config.data_dir);
        config.database = self.database.or(config.database);
        for (name, uri) in self.nodes {
            match config.nodes.get_mut(&name) {
                Some(node) => node.uri = NodeSettings::at(&uri).uri,
                None => {
                    config.nodes.insert(name, NodeSettings::at(&uri));
                }
            }
        }
        Ok(config)
    }
}

fn serve(config: Config, stop_at_eof: bool) -> Result<(), String> {
    server::keep_memory_small();
    let runtime = tokio::runtime::Runtime::new().map_err(|error| format!("start the runtime: {error}"))?;
    let token = config.data_dir.join("admin.token");
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| format!("wait for signals: {error}"))?;
        let mut terminate = signal(SignalKind::terminate()).map_err(|error| format!("wait for signals: {error}"))?;
        let stop = async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                () = end_of_input(), if stop_at_eof => {}
            }
        };
        let listening =
            move |address: SocketAddr| println!("vmyard serves http://{address} (token: {})", token.display());
        server::serve(config, stop, listening).await.map_err(explain)
    })
}

/// Ends with standard input. On a thread of its own, which nobody waits for: a read can't be cancelled.
async fn end_of_input() {
    let (ended, end) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        let _ = ended.send(());
    });
    let _ = end.await;
}

/// Logs to standard error from now on; what, `VMYARD_LOG` says.
pub fn log(as_json: bool, by_default: &str) {
    let log = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_from_env("VMYARD_LOG").unwrap_or_else(|_| EnvFilter::new(by_default)))
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        // Else a log that nobody reads any more is a panic, and the task that wanted to stop the server is gone.
        .log_internal_errors(false);
    if as_json {
        log.json().init();
    } else {
        log.init();
    }
}

/// An error in words, with what to do.
pub fn explain(error: server::Error) -> String {
    match error {
        server::Error::Invalid(fields) => {
            fields.into_iter().map(|field| format!("{}: {}", field.field, field.message)).collect::<Vec<_>>().join("; ")
        }
        server::Error::WrongState { detail, hint: Some(hint) } => format!("{detail}\nhint: {hint}"),
        other => other.to_string(),
    }
}
