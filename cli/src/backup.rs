//! `vmyard backup`, `vmyard restore`, `vmyard rebuild`: Vmyard's own database. They work on it directly, without the API.

use crate::serve::{Source, explain, log};
use server::{
    Config,
    backup::{self, Summary},
    rebuild::{self, Rebuilt, Which},
};
use std::{path::PathBuf, process::ExitCode};
use uuid::Uuid;

/// `vmyard backup`
#[derive(clap::Args)]
pub struct Backup {
    /// The file to write; one of this name is replaced when the new one is whole
    file: PathBuf,
    #[command(flatten)]
    source: Source,
}

/// `vmyard restore`
#[derive(clap::Args)]
pub struct Restore {
    /// A file that `vmyard backup` wrote
    file: PathBuf,
    /// Take the backup as it is: what has changed on the nodes since is not looked at
    #[arg(long)]
    no_nodes: bool,
    #[command(flatten)]
    nodes: Without,
    #[command(flatten)]
    source: Source,
}

/// `vmyard rebuild`
#[derive(clap::Args)]
pub struct Rebuild {
    /// Only say what would be in the database
    #[arg(long)]
    plan: bool,
    /// Whose manifests to take, where the nodes have those of several Vmyards
    #[arg(long, value_name = "UUID")]
    installation: Option<Uuid>,
    #[command(flatten)]
    nodes: Without,
    #[command(flatten)]
    source: Source,
}

#[derive(clap::Args)]
struct Without {
    /// A node to leave out, since it can't be reached; may be repeated
    #[arg(long, value_name = "NODE")]
    without: Vec<String>,
}

/// Writes a backup.
pub fn backup(args: Backup) -> ExitCode {
    let file = args.file.clone();
    run(args.source, async move |config| {
        let written = backup::backup(&config, &args.file).await?;
        println!("{}: {}", file.display(), summary(&written));
        Ok(())
    })
}

/// Restores one.
pub fn restore(args: Restore) -> ExitCode {
    let which = Which { none: args.no_nodes, without: args.nodes.without };
    run(args.source, async move |config| {
        let (read, caught_up) = backup::restore(&config, &args.file, &which).await?;
        println!("restored {}: {}", args.file.display(), summary(&read));
        if which.none {
            println!("the nodes were not looked at: what has changed there since is not known");
        }
        print(&caught_up, "the database knows");
        Ok(())
    })
}

/// Makes a lost database again.
pub fn rebuild(args: Rebuild) -> ExitCode {
    let which = Which { none: false, without: args.nodes.without };
    run(args.source, async move |config| {
        let rebuilt = rebuild::rebuild(&config, &which, args.installation, args.plan).await?;
        print(&rebuilt, if args.plan { "the database would know" } else { "the database knows" });
        Ok(())
    })
}

fn summary(summary: &Summary) -> String {
    format!("{} rows, {} bytes, as of {}", summary.rows, summary.bytes, summary.at)
}

fn print(rebuilt: &Rebuilt, knows: &str) {
    for (node, at) in &rebuilt.nodes {
        println!("node {node}: its manifest is of {at}");
    }
    let counts: Vec<_> = rebuilt.counts.iter().map(|(what, count)| format!("{count} {what}")).collect();
    println!("{knows} {}", counts.join(", "));
    for note in &rebuilt.notes {
        println!("note: {note}");
    }
}

/// Does something with the configuration, and tells how it went.
fn run(source: Source, work: impl AsyncFnOnce(Config) -> server::Result<()>) -> ExitCode {
    log(false, "error");
    let done = source.read().and_then(|config| {
        let runtime = tokio::runtime::Runtime::new().map_err(|error| format!("start the runtime: {error}"))?;
        let done = runtime.block_on(work(config)).map_err(explain);
        // A node that hangs keeps its threads.
        runtime.shutdown_background();
        done
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
