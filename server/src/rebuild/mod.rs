//! Making a lost database again, and an older one newer, by the manifests on the nodes (`manifest/`).
//!
//! The server must not run. What the manifests say is compared with the domains: where a task was at work when the last server died,
//! there is nobody any more who could take it back, so each thing goes to the end that it is nearer to.

mod merge;
mod settle;

use crate::{
    Config, Error, Result, auth,
    config::NodeSettings,
    manifest::{self, File, Manifest},
    nodes::Member,
    seeds,
    store::{RawRow, SCHEMA, Store, sqlite_file},
};
use api::Time;
use hypervisor::{Node, NodeEvent};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tokio::sync::mpsc;
use uuid::Uuid;

/// How long a node may take to be reached.
const REACH: Duration = Duration::from_secs(15);

/// What came of it.
#[derive(Debug, Default)]
pub struct Rebuilt {
    /// The nodes that were read, with when their manifests were last written.
    pub nodes: Vec<(String, Time)>,
    /// How many of each thing the database knows now: `VMs`, …
    pub counts: Vec<(&'static str, usize)>,
    /// What its reader should know.
    pub notes: Vec<String>,
}

/// Which nodes are read.
#[derive(Debug, Default)]
pub struct Which {
    /// None at all.
    pub none: bool,
    /// All but these.
    pub without: Vec<String>,
}

impl Which {
    fn is_all(&self) -> bool {
        !self.none && self.without.is_empty()
    }
}

/// Makes the database again that the configuration names; with `plan` only says what would be made. `installation` tells whose
/// manifests are meant, where nodes have those of several.
pub async fn rebuild(config: &Config, which: &Which, installation: Option<Uuid>, plan: bool) -> Result<Rebuilt> {
    let url = config.database_url();
    let mut nodes = Nodes::default();
    nodes.visit(config.nodes_or_local(), which).await?;
    let installation = nodes.choose(installation)?;
    nodes.visit_those_that_are_told_of(installation, which).await?;
    nodes.check_all_reached()?;
    let schema = nodes.manifests(installation).map(|manifest| manifest.head.schema).max().unwrap_or(SCHEMA);
    if schema > SCHEMA {
        return Err(newer(schema));
    }
    let merged = nodes.merge(installation, schema, Vec::new(), None);
    if plan {
        return nodes.put(merged, None).await;
    }
    auth::ensure_data_dir(&config.data_dir)?;
    let store = Store::open_at(&url, schema).await?;
    if let Some(what) = store.first_row_of_work().await? {
        return Err(not_empty(&url, &what));
    }
    let rebuilt = nodes.put(merged, Some(&store)).await?;
    store.migrate_to(SCHEMA).await?;
    // Last: one that was cut off is another Vmyard, which doesn't write over the manifests.
    store.set_installation(whose(installation, which)).await?;
    Ok(rebuilt)
}

/// Reads the nodes that a backup knows, and those of the configuration, before anything is written.
pub(crate) async fn reach(
    config: &Config,
    mut known: BTreeMap<String, NodeSettings>,
    installation: Uuid,
    which: &Which,
) -> Result<Nodes> {
    let mut nodes = Nodes::default();
    if which.none {
        return Ok(nodes);
    }
    if known.is_empty() || !config.nodes.is_empty() {
        known.extend(config.nodes_or_local());
    }
    nodes.visit(known, which).await?;
    nodes.visit_those_that_are_told_of(installation, which).await?;
    nodes.check_all_reached()?;
    Ok(nodes)
}

/// Brings a database that was restored as of `since` to what the nodes' manifests say, as far as they were written later. Only then it is
/// known as the same Vmyard: one that was cut off before doesn't write over the manifests.
pub(crate) async fn catch_up(
    mut nodes: Nodes,
    store: &Store,
    installation: Uuid,
    since: Time,
    which: &Which,
) -> Result<Rebuilt> {
    let mut existing = Vec::new();
    let read = store.read_rows_on_nodes(|node, row| {
        existing.push((node.to_owned(), row));
        Ok(())
    });
    read.await?;
    let merged = nodes.merge(installation, SCHEMA, existing, Some(since));
    let rebuilt = nodes.put(merged, Some(store)).await?;
    store.set_installation(whose(installation, which)).await?;
    Ok(rebuilt)
}

/// Where a node was left out, what is known of it now is not what its manifest says, which must not be written over: from now on this is
/// another Vmyard.
fn whose(installation: Uuid, which: &Which) -> Uuid {
    if which.is_all() { installation } else { Uuid::new_v4() }
}

/// A database, or what was made of one, is of a newer Vmyard.
pub(crate) fn newer(schema: i64) -> Error {
    Error::WrongState {
        detail: format!("it was written by a newer Vmyard (its tables are of step {schema}, this one knows {SCHEMA})"),
        hint: Some("use that Vmyard, or a newer one".to_owned()),
    }
}

/// A database that would be written over has something in it.
pub(crate) fn not_empty(url: &str, what: &str) -> Error {
    let hint = match sqlite_file(url) {
        Some(path) => {
            format!(
                "stop its server, move it away (mv {path} {path}.old; with {path}-wal and {path}-shm, where they are there), and call this again"
            )
        }
        None => "name another, empty database".to_owned(),
    };
    Error::WrongState { detail: format!("the database is not empty: it knows {what}"), hint: Some(hint) }
}

/// The nodes that are read.
#[derive(Default)]
pub(crate) struct Nodes {
    /// Those that were reached.
    reached: BTreeMap<String, Node>,
    /// All that were tried.
    tried: BTreeSet<String>,
    /// The manifests on them: of which node, and what was found.
    manifests: Vec<(String, Manifest)>,
    /// Those that could not be read, and why.
    away: Vec<String>,
    notes: Vec<String>,
    /// Kept, since the nodes tell their events there.
    events: Vec<mpsc::UnboundedReceiver<NodeEvent>>,
}

impl Nodes {
    /// Reads the manifests on these nodes.
    async fn visit(&mut self, nodes: impl IntoIterator<Item = (String, NodeSettings)>, which: &Which) -> Result<()> {
        let (sender, events) = mpsc::unbounded_channel();
        self.events.push(events);
        let mut members = Vec::new();
        for (name, settings) in nodes {
            let is_left_out = which.none || which.without.iter().any(|without| without.eq_ignore_ascii_case(&name));
            if self.tried.insert(name.clone()) && !is_left_out {
                // Whose it will be is not known yet. Nothing is made on it.
                members.push(Member::connect(&name, settings, Uuid::nil(), sender.clone())?);
            }
        }
        let reads = members.iter().map(|member| read_node(&member.node));
        for (member, read) in members.iter().zip(futures::future::join_all(reads).await) {
            let node = &member.node;
            let name = node.name();
            match read {
                Ok((manifests, notes)) => {
                    self.reached.insert(name.to_owned(), node.clone());
                    self.notes.extend(notes);
                    self.manifests.extend(manifests.into_iter().map(|manifest| (name.to_owned(), manifest)));
                }
                Err(error) => self.away.push(format!("node {name} ({}) can't be read: {error}", node.uri())),
            }
        }
        Ok(())
    }

    /// That there is none whose manifest would be missed.
    fn check_all_reached(&self) -> Result<()> {
        if self.away.is_empty() {
            return Ok(());
        }
        Err(Error::WrongState {
            detail: self.away.join("; "),
            hint: Some(
                "bring it up, or leave it out with --without NAME: then its VMs are not known as they are now (its manifest stays there)"
                    .to_owned(),
            ),
        })
    }

    /// Reads the nodes that the manifests tell of, and those that these tell of.
    async fn visit_those_that_are_told_of(&mut self, installation: Uuid, which: &Which) -> Result<()> {
        loop {
            let rows = self.manifests(installation).flat_map(|manifest| manifest.rows.values());
            let mut told = BTreeMap::new();
            for row in rows.filter(|row| row.table == "node" && !self.tried.contains(row.text("name"))) {
                match serde_json::from_str::<NodeSettings>(row.text("settings")) {
                    Ok(settings) => drop(told.insert(row.text("name").to_owned(), settings)),
                    Err(error) => tracing::warn!(%error, "a node's settings can't be read"),
                }
            }
            if told.is_empty() {
                return Ok(());
            }
            self.visit(told, which).await?;
        }
    }

    fn manifests(&self, installation: Uuid) -> impl Iterator<Item = &Manifest> {
        self.manifests.iter().map(|(_, manifest)| manifest).filter(move |one| one.head.installation == installation)
    }

    /// Whose manifests are meant: those that were named, or the only ones that tell of anything.
    fn choose(&self, wanted: Option<Uuid>) -> Result<Uuid> {
        let mut known: BTreeMap<Uuid, (usize, Option<Time>)> = BTreeMap::new();
        for (_, manifest) in &self.manifests {
            let vms = manifest.rows.values().filter(|row| matches!(row.table.as_str(), "vm" | "volume" | "template"));
            let (things, at) = known.entry(manifest.head.installation).or_default();
            *things += vms.count();
            *at = Some(manifest.head.at).max(*at);
        }
        if let Some(wanted) = wanted {
            return match known.contains_key(&wanted) {
                true => Ok(wanted),
                false => Err(self.nothing(&format!("of installation {wanted}"))),
            };
        }
        known.retain(|_, (things, _)| *things > 0);
        let mut all = known.iter();
        match (all.next(), all.next()) {
            (Some((installation, _)), None) => Ok(*installation),
            (None, _) => Err(self.nothing("that tells of anything")),
            _ => {
                let list = known.iter().map(|(id, (things, at))| {
                    let at = at.map(|at| at.to_string()).unwrap_or_default();
                    format!("{id} ({things} VMs, volumes and templates, last written at {at})")
                });
                let list = list.collect::<Vec<_>>().join(", ");
                Err(Error::WrongState {
                    detail: format!("the nodes have the manifests of several Vmyards: {list}"),
                    hint: Some("say which one is meant with --installation".to_owned()),
                })
            }
        }
    }

    fn nothing(&self, which: &str) -> Error {
        let tried: Vec<_> = self.tried.iter().map(String::as_str).collect();
        let notes = self.notes.iter().chain(&self.away).map(|note| format!("; {note}")).collect::<String>();
        Error::WrongState {
            detail: format!("there is no manifest {which} on the nodes that were asked ({}){notes}", tried.join(", ")),
            hint: Some(
                "name the nodes with --node NAME=URI or --config, each by the name that it had; a VM alone can be taken over with \
                 `vmyard vm adopt`"
                    .to_owned(),
            ),
        }
    }

    /// The rows that the database will have.
    fn merge(
        &mut self,
        installation: Uuid,
        schema: i64,
        existing: Vec<(String, RawRow)>,
        since: Option<Time>,
    ) -> merge::Merged {
        let (mut used, mut notes) = (Vec::new(), Vec::new());
        for (node, manifest) in self.manifests.drain(..).filter(|(_, one)| one.head.installation == installation) {
            let head = &manifest.head;
            if head.node != node {
                notes.push(format!(
                    "node {node} has the manifest of a node {:?}, which is left out: give it that name (--node {}=URI)",
                    head.node, head.node
                ));
            } else if head.schema != schema {
                notes.push(format!(
                    "the manifest on node {node} is of another version of Vmyard (step {}, the others {schema}) and is left out: \
                     take its VMs over with `vmyard vm adopt`",
                    head.schema
                ));
            } else if since.is_some_and(|since| head.at < since) {
                // Nothing has changed there since the backup.
            } else {
                used.push(manifest);
            }
        }
        self.notes.extend(notes);
        merge::merge(existing, used)
    }

    /// Compares the rows with the domains, and puts them into the database.
    async fn put(self, merged: merge::Merged, store: Option<&Store>) -> Result<Rebuilt> {
        let merge::Merged { rows, read, notes } = merged;
        let mut rebuilt = Rebuilt { nodes: read, notes: self.notes, ..Rebuilt::default() };
        rebuilt.notes.extend(notes);
        let rows = settle::settle(rows, &self.reached, &mut rebuilt.notes).await;
        for (table, what) in [
            ("vm", "VMs"),
            ("volume", "volumes"),
            ("snapshot", "snapshots"),
            ("template", "templates"),
            ("keypair", "keypairs"),
        ] {
            rebuilt.counts.push((what, rows.iter().filter(|row| row.table == table).count()));
        }
        if let Some(store) = store {
            store.replace_rows_on_nodes(rows.into_iter().map(Ok)).await?;
        }
        Ok(rebuilt)
    }
}

/// Reads the manifests on a node, and notes those that are damaged.
async fn read_node(node: &Node) -> Result<(Vec<Manifest>, Vec<String>)> {
    node.reach(REACH).await?;
    let pool = seeds::pool(node).await?.uuid;
    let mut files: BTreeMap<Uuid, Vec<File>> = BTreeMap::new();
    let (mut manifests, mut notes) = (Vec::new(), Vec::new());
    for (installation, _, name) in manifest::all_files(node).await? {
        match File::read(&node.read_small(pool, &name).await?) {
            Ok(file) => files.entry(installation).or_default().push(file),
            // The last one may have been cut off.
            Err(why) => notes.push(format!("file {name} on node {} was left out: {why}", node.name())),
        }
    }
    for (installation, files) in files {
        match manifest::fold(files) {
            Some(manifest) => manifests.push(manifest),
            None => notes
                .push(format!("the manifest of installation {installation} on node {} has no beginning", node.name())),
        }
    }
    Ok((manifests, notes))
}
