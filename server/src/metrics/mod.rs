//! What VMs have used, over time.
//!
//! ```text
//! sampler.rs ── counters of a node ──> rates ──> figures ──> heads (memory) ── an hour's sixth ──> chunks ─┐
//!   every 10 s                                     │                                                      v
//!                                                  └── tick: all figures of this moment ──────────> history (metrics.db)
//!                                                      in case the server is killed                  │
//!                                              query <── heads, chunks, roll-ups <─── rollup (hourly) ┘
//! ```
//!
//! Nothing here is on the path of another request, and nothing that goes wrong here harms a VM: what can't be written is
//! kept for a while, then lost, and said so.

pub mod chunk;
pub mod export;
mod grid;
mod promql;
pub mod query;
mod rates;
mod rollup;
pub mod series;
mod writer;

pub use rates::{BALLOON, RSS};
pub use writer::{close, open, write, write_for_ever};

use crate::{
    Result,
    config::MetricsSettings,
    store::{History, Level, Tick},
    sync::lock,
};
use api::{Time, vm::Usage};
use chunk::{Chunk, Head, Samples};
use hypervisor::{
    domain::{DomainView, Power, Sample},
    storage::PoolView,
};
use series::Point;
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::sync::mpsc;
use uuid::Uuid;

/// Samples in a chunk.
const CHUNK: usize = 60;
/// A head that has had no sample for so many intervals is packed.
const IDLE: i64 = 6;
/// Ticks that wait to be written; those beyond are not written.
const WAITING: usize = 64;
/// Chunks that wait to be written, in bytes; the oldest beyond are lost.
const PENDING: usize = 32 << 20;

/// What is known of the use of VMs.
pub struct Metrics {
    /// The settings.
    pub settings: MetricsSettings,
    state: Mutex<State>,
    history: Mutex<Option<History>>,
    /// How long calls took.
    pub latency: export::Latency,
    /// To the one who writes.
    ticks: mpsc::Sender<Option<Tick>>,
}

#[derive(Default)]
struct State {
    /// The last sample of each domain, by node.
    before: HashMap<String, HashMap<Uuid, Arc<Sample>>>,
    heads: HashMap<Uuid, Head>,
    /// Packed, and not yet written.
    pending: Vec<(Uuid, Arc<Chunk>)>,
    /// How the readings of each node went.
    sampling: HashMap<String, export::Sampling>,
    /// The pools of each node.
    pools: HashMap<String, Vec<PoolView>>,
    /// Runs of domains whose balloon driver was asked to tell.
    watched: HashSet<(Uuid, i32)>,
    /// How many chunks were lost, since they could not be written.
    lost: u64,
}

/// What came of a reading.
#[derive(Default)]
pub struct Taken {
    /// What each VM uses now, and whether its QEMU has answered.
    pub usage: Vec<(Uuid, Option<Usage>, bool)>,
    /// Domains whose balloon driver tells nothing, and was never asked to.
    pub unwatched: Vec<Uuid>,
}

impl Metrics {
    /// With what a server before this one has left in the history. What is to be written comes out of the other end.
    pub async fn begin(settings: MetricsSettings, history: Option<History>) -> (Metrics, mpsc::Receiver<Option<Tick>>) {
        let mut state = State::default();
        if let Some(history) = &history
            && let Err(error) = take_up(history, &mut state).await
        {
            tracing::error!(%error, "the last samples before the start are lost");
        }
        let (ticks, written) = mpsc::channel(WAITING);
        let (state, history) = (Mutex::new(state), Mutex::new(history));
        (Metrics { settings, state, history, latency: export::latency(), ticks }, written)
    }

    /// The time between two samples.
    pub fn interval(&self) -> Duration {
        Duration::from_secs(self.settings.interval_s.into())
    }

    /// Whether there is a history here, and not at a Prometheus.
    pub fn keeps(&self) -> bool {
        self.settings.url.is_none()
    }

    /// Takes in what was read of a node at `at_s` (seconds since the Unix epoch): it stands for the interval that begins there.
    /// `view` tells what is known of a domain; one that isn't known on this node is left out.
    pub fn take(
        &self,
        node: &str,
        at_s: i64,
        samples: Vec<Sample>,
        view: impl Fn(Uuid) -> Option<Arc<DomainView>>,
    ) -> Taken {
        let (mut taken, mut points) = (Taken::default(), Vec::with_capacity(samples.len()));
        let (now, interval) = (Time::now(), self.interval());
        let mut state = lock(&self.state);
        let before = state.before.remove(node).unwrap_or_default();
        let mut after = HashMap::with_capacity(samples.len());
        for sample in samples {
            let Some(view) = view(sample.domain) else { continue };
            let earlier = before.get(&sample.domain).map(Arc::as_ref);
            let point = rates::point(earlier, &sample, &view, interval, now.0 / 1000);
            let is_told = point.iter().any(|(key, _)| key.part.as_deref() == Some(BALLOON));
            let could_tell = sample.complete && sample.power == Power::Running && !view.memory_watched;
            if !is_told && could_tell && state.watched.insert((sample.domain, sample.run)) {
                taken.unwatched.push(sample.domain);
            }
            let whole = series::with_sums(point.clone());
            taken.usage.push((sample.domain, rates::usage(&whole, sample.power, now), sample.complete));
            if self.keeps() && !point.is_empty() {
                state.heads.entry(sample.domain).or_default().push(at_s, &whole);
                points.push((sample.domain, point));
            }
            after.insert(sample.domain, Arc::new(sample));
        }
        let runs = |id: &Uuid, run: i32| after.get(id).is_some_and(|sample| sample.run == run);
        state.watched.retain(|(id, run)| runs(id, *run) || !before.contains_key(id));
        let tick = (!points.is_empty()).then(|| Tick { at_s, data: pack_tick(&points) });
        let turn = at_s / i64::from(self.settings.interval_s).max(1);
        // Those of other nodes have their sample of this moment before or after this.
        let is_due = |id: &Uuid| after.contains_key(id) && is_turn(*id, turn);
        pack_heads(&mut state, |id, head| head.count() >= CHUNK || is_due(id));
        state.before.insert(node.to_owned(), after);
        drop(state);
        if let Some(tick) = tick {
            self.tell(Some(tick));
        }
        taken
    }

    /// Packs what has had no sample for a while.
    pub fn pack_idle(&self) {
        let old = Time::now().0 / 1000 - IDLE * i64::from(self.settings.interval_s);
        let mut state = lock(&self.state);
        pack_heads(&mut state, |_, head| head.last_s() < old);
        drop(state);
        self.tell(None);
    }

    /// Forgets what was last read of a node: it is gone, or was away.
    pub fn forget_node(&self, node: &str) {
        let mut state = lock(&self.state);
        state.before.remove(node);
        state.sampling.remove(node);
        state.pools.remove(node);
    }

    /// Whoever writes is slow when it isn't taken: then this tick would be lost by a crash, and no more.
    fn tell(&self, tick: Option<Tick>) {
        if self.ticks.try_send(tick).is_err() {
            tracing::debug!("the history of metrics is written too slowly for ticks");
        }
    }

    /// The history, where there is one that can be used.
    pub fn history(&self) -> Option<History> {
        lock(&self.history).clone()
    }

    /// What is in memory of a VM: packed chunks that are not written yet, and its head.
    fn in_memory(&self, id: Uuid) -> (Vec<Arc<Chunk>>, Option<Samples>) {
        let state = lock(&self.state);
        let pending = state.pending.iter().filter(|(of, _)| *of == id).map(|(_, chunk)| Arc::clone(chunk));
        (pending.collect(), state.heads.get(&id).and_then(Head::samples))
    }

    /// How many VMs have samples in memory, and how many chunks were lost since they couldn't be written.
    pub fn figures(&self) -> (usize, u64) {
        let state = lock(&self.state);
        (state.heads.len(), state.lost)
    }
}

/// How long what a level has is kept, in seconds.
fn kept_s(settings: &MetricsSettings, level: Level) -> i64 {
    3600 * match level {
        Level::Raw => i64::from(settings.raw_hours),
        Level::Fine => i64::from(settings.five_minute_days) * 24,
        Level::Coarse => i64::from(settings.hour_days) * 24,
    }
}

/// Makes heads of the ticks, but for what was packed and not yet forgotten.
async fn take_up(history: &History, state: &mut State) -> Result<()> {
    let ticks = history.ticks().await?;
    let Some(first_s) = ticks.iter().map(|tick| tick.at_s).min() else { return Ok(()) };
    let packed = history.packed_until(first_s).await?;
    for tick in ticks {
        let Some(points) = unpack_tick(&tick.data) else {
            tracing::warn!(at_s = tick.at_s, "a tick of the history of metrics is damaged");
            continue;
        };
        for (id, point) in points {
            if packed.get(&id).is_none_or(|until| *until < tick.at_s) {
                state.heads.entry(id).or_default().push(tick.at_s, &point);
            }
        }
    }
    Ok(())
}

/// Packs heads, and keeps what is packed until it is written.
fn pack_heads(state: &mut State, is_full: impl Fn(&Uuid, &Head) -> bool) {
    let State { heads, pending, .. } = state;
    heads.retain(|id, head| {
        if head.count() == 0 {
            return false;
        }
        if !is_full(id, head) {
            return true;
        }
        pending.push((*id, Arc::new(head.to_chunk())));
        false
    });
    let mut size: usize = pending.iter().map(|(_, chunk)| chunk.data.len()).sum();
    while size > PENDING {
        size -= pending.remove(0).1.data.len();
        state.lost += 1;
    }
}

/// Whether it is a VM's turn to be packed, by its id, so that not all are packed at the same moment. By the tick's number, not by the
/// samples' times: the clock may have been set back.
fn is_turn(id: Uuid, tick: i64) -> bool {
    (id.as_u128() % CHUNK as u128) as i64 == tick.rem_euclid(CHUNK as i64)
}

/// As a tick keeps it: a VM's id and its values.
type Packed = Vec<([u8; 16], Vec<Value>)>;
/// Figure, part and value.
type Value = (u8, Option<String>, i64);

fn pack_tick(points: &[(Uuid, Point)]) -> Vec<u8> {
    let pack = |(id, point): &(Uuid, Point)| {
        let values =
            point.iter().map(|(key, value)| (key.metric as u8, key.part.as_deref().map(str::to_owned), *value));
        (*id.as_bytes(), values.collect())
    };
    let packed: Packed = points.iter().map(pack).collect();
    chunk::pack(&packed)
}

fn unpack_tick(data: &[u8]) -> Option<Vec<(Uuid, Point)>> {
    let packed: Packed = chunk::unpack_as(data)?;
    let unpack = |(id, values): ([u8; 16], Vec<Value>)| {
        let known = values.into_iter().filter_map(|(code, part, value)| {
            let key = series::Key { metric: series::Metric::of(code)?, part: part.map(Arc::from) };
            Some((key, value))
        });
        (Uuid::from_bytes(id), series::with_sums(known.collect()))
    };
    Some(packed.into_iter().map(unpack).collect())
}
