//! The manifests: on each node, in the pool of the seeds, a copy of what the database knows of that node. A database that is lost is
//! made again from them (`rebuild/`).
//!
//! They are written by looking, not by telling: some time after something was changed, all rows of nodes are read and compared with
//! what was last written, by their hashes. So no operation can forget to write one, waits for it, or fails with it, and a node that was
//! away gets what it has missed. What is lost with the database is what was changed in the last seconds before both died; what stopping
//! the server leaves behind is complete.

mod format;

pub use format::{File, Head, Key, Manifest, fold, key};

use crate::{
    App, Error, Result,
    nodes::Member,
    packed::Writer as Packer,
    seeds,
    store::{RawRow, SCHEMA, name_key},
};
use api::Time;
use format::{PREFIX, file_name, gone, parse_name};
use futures::future::join_all;
use hypervisor::{Node, Status};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};
use tokio::sync::{Notify, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

/// How long it is waited for more changes before they are written.
const PAUSE: Duration = Duration::from_millis(300);
/// How long a step waits for the manifests to be written.
const AHEAD: Duration = Duration::from_secs(5);
/// Looking takes no more than this part of the time.
const SHARE: u32 = 20;
/// How long a node may take.
const NODE: Duration = Duration::from_secs(10);
/// The time between two attempts at a node that can't be written to: at first, and at most.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Files after the one with all rows: with more, reading them would take long.
const FILES: u64 = 50;

/// What the writer of the manifests is told, and tells.
#[derive(Default)]
pub struct Manifests {
    /// Told when a node has come up.
    pub wake: Notify,
    /// Cancelled when the server stops: what is left is written, and the writer ends.
    pub stop: CancellationToken,
    /// The writer.
    pub writer: TaskTracker,
    /// Told when somebody waits.
    urgent: Notify,
    /// How many looks have begun, and how many are done.
    begun: AtomicU64,
    done: watch::Sender<u64>,
}

impl Manifests {
    /// Waits until what the database knows by now is written, but for nodes that can't be written to; some seconds at most, since
    /// nothing may depend on it. For steps that change images so that only what is known of them tells what they are.
    pub async fn write_ahead(&self) {
        let wanted = self.begun.load(Ordering::SeqCst) + 1;
        let mut done = self.done.subscribe();
        self.urgent.notify_one();
        let written = done.wait_for(|done| *done >= wanted);
        if tokio::time::timeout(AHEAD, written).await.is_err() {
            tracing::warn!("the manifests take long to be written");
        }
    }
}

/// What a node's manifest has.
struct Written {
    /// The hash of each row, and the last look that found it.
    rows: HashMap<Key, (u64, u64)>,
    /// Of the last file.
    number: u64,
    /// Of the file with all rows.
    whole: u64,
    /// The bytes of the file with all rows, and of those after it.
    bytes: (usize, usize),
}

/// Runs until the server stops: writes the manifests.
pub async fn write_for_ever(app: App, installation: Uuid) {
    let mut changes = app.store.follow_changes();
    let mut writer = Writer { app, installation, written: BTreeMap::new(), later: BTreeMap::new() };
    let app = writer.app.clone();
    let manifests = &app.manifests;
    // Ends early when somebody waits, or the server stops; returns whether it did.
    let pause = async |time| {
        tokio::select! {
            () = tokio::time::sleep(time) => false,
            () = manifests.urgent.notified() => true,
            () = manifests.stop.cancelled() => true,
        }
    };
    let mut again = None;
    loop {
        let hurry = tokio::select! {
            _ = changes.changed() => pause(PAUSE).await,
            () = manifests.wake.notified() => pause(PAUSE).await,
            hurry = pause(again.unwrap_or_default()), if again.is_some() => hurry,
            () = manifests.urgent.notified() => true,
            () = manifests.stop.cancelled() => true,
        };
        let (began, stops) = (Instant::now(), manifests.stop.is_cancelled());
        changes.mark_unchanged();
        let look = manifests.begun.fetch_add(1, Ordering::SeqCst) + 1;
        if stops {
            // Those that failed get their last chance.
            writer.later.clear();
        }
        again = match writer.write(look).await {
            Ok(()) => writer.next_attempt(),
            Err(error) => {
                tracing::warn!(%error, "the manifests are not written yet");
                Some(AGAIN.1)
            }
        };
        manifests.done.send_replace(look);
        if stops {
            return;
        }
        if !hurry {
            // Who waits meanwhile is found by the next turn.
            if pause(began.elapsed() * SHARE).await {
                manifests.urgent.notify_one();
            }
        }
    }
}

struct Writer {
    app: App,
    installation: Uuid,
    /// Of each node, by its name's key; of one that is not there nothing is known, so all is written.
    written: BTreeMap<String, Written>,
    /// Nodes that could not be written to, how long they are left alone, and until when.
    later: BTreeMap<String, (Duration, Instant)>,
}

/// What is to be written to a node.
struct Pending {
    node: Node,
    draft: Packer<Vec<u8>>,
    head: Head,
    /// What its manifest will have.
    written: Written,
}

impl Writer {
    /// Looks at all rows, for the `look`th time, and writes what has changed to the nodes that are up and not left alone.
    async fn write(&mut self, look: u64) -> Result<()> {
        let installation = self.installation;
        let nodes: BTreeMap<String, Member> =
            self.app.nodes.all().into_iter().map(|member| (name_key(member.node.name()), member)).collect();
        self.written.retain(|name, _| nodes.contains_key(name));
        let mut pending = BTreeMap::new();
        let is_up =
            |member: &Member| member.node.status().0 == Status::Up && self.app.nodes.same_host(member).is_none();
        self.later.retain(|name, _| nodes.get(name).is_some_and(is_up));
        let left_alone = |name: &String| self.later.get(name).is_some_and(|(_, until)| *until > Instant::now());
        let ready = nodes.into_iter().filter(|(name, member)| is_up(member) && !left_alone(name));
        let beginning: Vec<_> = ready
            .map(|(name, Member { node, .. })| {
                let last = self.written.remove(&name);
                async move { (name, in_time(&node, begin(&node, last, installation)).await) }
            })
            .collect();
        for (name, begun) in join_all(beginning).await {
            match begun {
                Ok(begun) => drop(pending.insert(name, begun)),
                Err(error) => self.try_later(name, &error),
            }
        }
        let rows = self.app.store.read_rows_on_nodes(|node, row| {
            if has_a_password(&row) {
                return Ok(());
            }
            let json = serde_json::to_vec(&row).unwrap_or_default();
            let key = key(&row);
            match node {
                "" => pending.values_mut().try_for_each(|pending| pending.take(key, &json, look)),
                node => pending.get_mut(&name_key(node)).map_or(Ok(()), |pending| pending.take(key, &json, look)),
            }
        });
        rows.await?;
        let writing = pending.into_iter().map(|(name, mut pending)| async move {
            let node = pending.node.clone();
            let written = async {
                pending.take_gone(look)?;
                pending.write(installation).await
            };
            (name, in_time(&node, written).await)
        });
        for (name, written) in join_all(writing).await {
            match written {
                Ok(written) => {
                    self.later.remove(&name);
                    self.written.insert(name, written);
                }
                Err(error) => self.try_later(name, &error),
            }
        }
        Ok(())
    }

    /// What has reached the node isn't known, so all is written the next time.
    fn try_later(&mut self, name: String, error: &Error) {
        tracing::warn!(%error, node = name, "the manifest of a node is not written yet");
        let pause = self.later.get(&name).map_or(AGAIN.0, |(last, _)| (*last * 2).min(AGAIN.1));
        self.later.insert(name, (pause, Instant::now() + pause));
    }

    /// How long to wait for the first of the nodes that are left alone.
    fn next_attempt(&self) -> Option<Duration> {
        let first = self.later.values().map(|(_, until)| *until).min();
        first.map(|until| until.saturating_duration_since(Instant::now()))
    }
}

/// A node that hangs keeps the others waiting for some seconds, once in a while.
async fn in_time<T>(node: &Node, work: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::time::timeout(NODE, work).await {
        Ok(done) => done,
        Err(_) => Err(node.unavailable("write its manifest", "it takes too long").into()),
    }
}

async fn begin(node: &Node, last: Option<Written>, installation: Uuid) -> Result<Pending> {
    let due =
        |written: &Written| written.number - written.whole >= FILES || written.bytes.1 > written.bytes.0.max(64 << 10);
    let (written, number, whole) = match last {
        Some(written) if !due(&written) => {
            let number = written.number + 1;
            (written, number, false)
        }
        last => {
            let number = match last {
                Some(last) => last.number,
                None => last_number(node, installation).await?,
            } + 1;
            (Written { rows: HashMap::new(), number, whole: number, bytes: (0, 0) }, number, true)
        }
    };
    let head = Head { installation, node: node.name().to_owned(), schema: SCHEMA, number, whole, at: Time::now() };
    Ok(Pending { node: node.clone(), draft: Packer::new(Vec::new(), &head)?, head, written })
}

impl Pending {
    /// Takes in a row, if it isn't as it was written last.
    fn take(&mut self, key: Key, json: &[u8], look: u64) -> Result<()> {
        let hash = blake3::hash(json);
        let hash = hash.as_bytes()[..8].iter().fold(0, |hash, byte| hash << 8 | u64::from(*byte));
        match self.written.rows.insert(key, (hash, look)) {
            Some((before, _)) if before == hash => Ok(()),
            _ => self.draft.json(json),
        }
    }

    /// Takes in which rows are gone.
    fn take_gone(&mut self, look: u64) -> Result<()> {
        let not_seen: Vec<Key> =
            self.written.rows.iter().filter(|(_, (_, seen))| *seen != look).map(|(key, _)| *key).collect();
        for key in not_seen {
            self.written.rows.remove(&key);
            self.draft.line(&gone(key))?;
        }
        Ok(())
    }

    /// Writes the file, if there is anything to write; after one with all rows the older files go.
    async fn write(mut self, installation: Uuid) -> Result<Written> {
        let (number, whole) = (self.head.number, self.head.whole);
        if self.draft.lines == 0 && !whole {
            return Ok(self.written);
        }
        let node = &self.node;
        let pool = seeds::pool(node).await?.uuid;
        let bytes = self.draft.finish()?;
        let length = bytes.len();
        node.create_from_bytes(pool, &file_name(installation, number), bytes).await?;
        self.written.number = number;
        if !whole {
            self.written.bytes.1 += length;
            return Ok(self.written);
        }
        self.written.bytes.0 = length;
        for (older, name) in files(node, installation).await? {
            if older < number {
                node.delete_volume(pool, &name).await?;
            }
        }
        Ok(self.written)
    }
}

/// Whether a row has a secret that doesn't belong on other hosts: a node's URI with a password.
fn has_a_password(row: &RawRow) -> bool {
    row.table == "node" && {
        let settings: Option<crate::config::NodeSettings> = serde_json::from_str(row.text("settings")).ok();
        settings.is_none_or(|settings| settings.uri.has_password())
    }
}

/// The last number of a manifest on a node. Those of others are told: the database of one of them may be lost.
async fn last_number(node: &Node, installation: Uuid) -> Result<u64> {
    let (ours, others): (Vec<_>, Vec<_>) = all_files(node).await?.into_iter().partition(|(of, ..)| *of == installation);
    let others: BTreeSet<String> = others.into_iter().map(|(of, ..)| of.to_string()).collect();
    if !others.is_empty() {
        let whose = others.into_iter().collect::<Vec<_>>().join(", ");
        tracing::warn!(
            node = node.name(),
            installations = whose,
            "the node has the manifest of another Vmyard: if its database was lost, stop this server, and see `vmyard rebuild --help`"
        );
    }
    Ok(ours.last().map_or(0, |(_, number, _)| *number))
}

/// The files of a manifest on a node, by their numbers.
async fn files(node: &Node, installation: Uuid) -> Result<Vec<(u64, String)>> {
    let all = all_files(node).await?;
    Ok(all.into_iter().filter(|(of, ..)| *of == installation).map(|(_, number, name)| (number, name)).collect())
}

/// The files of all manifests on a node: whose, which number, and the name.
pub async fn all_files(node: &Node) -> Result<Vec<(Uuid, u64, String)>> {
    let pool = seeds::pool(node).await?.uuid;
    let names = node.volume_names(pool, PREFIX).await?;
    let mut files: Vec<_> = names
        .into_iter()
        .filter_map(|name| {
            let (installation, number) = parse_name(&name)?;
            Some((installation, number, name))
        })
        .collect();
    files.sort();
    Ok(files)
}
