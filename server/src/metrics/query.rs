//! What was measured of a VM between two times.

use super::{
    Metrics, Samples,
    chunk::unpack,
    grid::Grid,
    kept_s, promql,
    rollup::{COARSE_S, FINE_S},
    series::Metric,
    writer::unpacked,
};
use crate::{
    Error, Result,
    store::{History, LEVELS, Level},
};
use api::{
    Time,
    metrics::{Aggregate, STEPS_MAX, Series},
};
use std::collections::HashSet;
use uuid::Uuid;

/// About how many steps an answer has when nobody asks for a length.
const STEPS: i64 = 300;
/// Lengths of steps that people like, in seconds.
const NICE: [i64; 13] = [1, 5, 10, 30, 60, 300, 600, 900, 1800, 3600, 10_800, 21_600, 86_400];

/// What is asked for, in seconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// From when on.
    pub start_s: i64,
    /// Until when, not included.
    pub end_s: i64,
    /// The length of a step.
    pub step_s: i64,
    /// How far apart the samples are.
    pub resolution_s: i64,
    level: Level,
}

/// Makes sense of what a client asks for.
pub fn range(metrics: &Metrics, start: Option<Time>, end: Option<Time>, step_s: Option<i64>) -> Result<Range> {
    let (settings, now_s) = (&metrics.settings, Time::now().0.div_euclid(1000));
    let interval_s = i64::from(settings.interval_s);
    let now_s = now_s - now_s.rem_euclid(interval_s);
    let end_s = end.map_or(now_s, |end| end.0.div_euclid(1000));
    let start_s = start.map_or(end_s - 3600, |start| start.0.div_euclid(1000));
    if start_s >= end_s {
        let (start, end) = (Time(start_s * 1000), Time(end_s * 1000));
        return Err(Error::field("start", format!("must be before `end`; it is {start}, `end` is {end}")));
    }
    let most_s = LEVELS.map(|level| kept_s(settings, level)).into_iter().max().unwrap_or(0);
    if end_s - start_s > most_s {
        let days = most_s / (24 * 3600);
        let why =
            format!("lies more than {days} days before `end`, and metrics are kept for {days} days; ask for less");
        return Err(Error::field("start", why));
    }
    let age_s = now_s - start_s;
    let is_kept = |level: &Level| settings.url.is_some() || age_s <= kept_s(settings, *level);
    let level = LEVELS.into_iter().find(is_kept).unwrap_or(Level::Coarse);
    let resolution_s = match level {
        Level::Raw => interval_s,
        Level::Fine => FINE_S,
        Level::Coarse => COARSE_S,
    };
    let wanted = step_s.unwrap_or_else(|| nice((end_s - start_s) / STEPS));
    // Steps are made of whole samples.
    let step_s = whole(wanted, resolution_s);
    let steps = (end_s - start_s) / step_s + 2;
    if steps > STEPS_MAX {
        let least = whole((end_s - start_s) / (STEPS_MAX - 2) + 1, resolution_s);
        let why = format!(
            "{wanted} would make {steps} steps, and {STEPS_MAX} is the most; the least for this range is {least}"
        );
        return Err(Error::field("step_s", why));
    }
    Ok(Range { start_s: start_s - start_s.rem_euclid(step_s), end_s, step_s, resolution_s, level })
}

fn nice(seconds: i64) -> i64 {
    NICE.into_iter().find(|nice| *nice >= seconds).unwrap_or(seconds)
}

/// As many whole samples as are needed.
fn whole(seconds: i64, resolution_s: i64) -> i64 {
    seconds.div_euclid(resolution_s).saturating_add(i64::from(seconds % resolution_s != 0)).max(1) * resolution_s
}

/// What was measured, by whoever keeps it.
pub async fn query(metrics: &Metrics, vm: Uuid, range: Range, aggregate: Aggregate) -> Result<Vec<Series>> {
    let mut series = match &metrics.settings.url {
        Some(url) => promql::query(url, vm, range, aggregate).await?,
        None => to_wire(&kept(metrics, vm, range).await?, aggregate),
    };
    // First those of the whole VM.
    series.sort_by_key(|series| series.device.is_some());
    Ok(series)
}

/// What Vmyard has kept.
async fn kept(metrics: &Metrics, vm: Uuid, range: Range) -> Result<Grid> {
    let mut grid = Grid::new(range.start_s, range.step_s, range.steps());
    // Memory first: what is written meanwhile is then there twice, and known by that.
    let (pending, head) = metrics.in_memory(vm);
    let mut raw_from_s = range.start_s;
    if let Some(history) = metrics.history() {
        if range.level != Level::Raw {
            // What is not rolled up yet is still there as it was measured.
            let until_s = history.rolled_until().await?.unwrap_or(range.start_s).clamp(range.start_s, range.end_s);
            for samples in rolled_up(&history, vm, range, until_s).await? {
                grid.add(&samples, range.start_s, until_s);
            }
            raw_from_s = until_s;
        }
        let in_memory: HashSet<(i64, i64)> = pending.iter().map(|chunk| (chunk.first_s, chunk.last_s)).collect();
        let mut chunks = history.chunks(vm, Level::Raw, raw_from_s, range.end_s).await?;
        chunks.retain(|chunk| !in_memory.contains(&(chunk.first_s, chunk.last_s)));
        for samples in unpacked(chunks) {
            grid.add(&samples, raw_from_s, range.end_s);
        }
    }
    for samples in pending.iter().filter_map(|chunk| unpack(&chunk.data)).chain(head) {
        grid.add(&samples, raw_from_s, range.end_s);
    }
    Ok(grid)
}

async fn rolled_up(history: &History, vm: Uuid, range: Range, until_s: i64) -> Result<Vec<Samples>> {
    let chunks = history.chunks(vm, range.level, range.start_s, until_s).await?;
    Ok(unpacked(chunks))
}

fn to_wire(grid: &Grid, aggregate: Aggregate) -> Vec<Series> {
    let series = grid.series(aggregate).filter(|(_, values)| values.iter().any(Option::is_some));
    series
        .map(|(key, values)| {
            let part = key.part.as_deref().map(str::to_owned);
            let is_source = matches!(part.as_deref(), Some(super::BALLOON | super::RSS));
            let (device, source) = if is_source { (None, part) } else { (part, None) };
            wire(key.metric, device, source, values)
        })
        .collect()
}

/// A series on the wire.
pub(super) fn wire(metric: Metric, device: Option<String>, source: Option<String>, values: Vec<Option<f64>>) -> Series {
    let values = values.into_iter().map(|value| value.map(|value| (value * 100.0).round() / 100.0)).collect();
    Series { name: metric.name().to_owned(), unit: metric.unit().to_owned(), device, source, values }
}

impl Range {
    /// How many steps there are.
    pub fn steps(&self) -> usize {
        usize::try_from((self.end_s - self.start_s + self.step_s - 1) / self.step_s).unwrap_or(0)
    }

    /// When each begins, in seconds since the Unix epoch.
    pub fn times(&self) -> impl Iterator<Item = i64> {
        let (start_s, step_s) = (self.start_s, self.step_s);
        (0..self.steps() as i64).map(move |step| start_s + step * step_s)
    }
}
