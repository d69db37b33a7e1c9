//! The one who writes the history: ticks and chunks as they come, roll-ups every hour, and what is too old goes.

use super::{
    Metrics, Samples,
    chunk::{Chunk, unpack},
    rollup::{COARSE_S, DAY_S, FINE_S, join, roll_up},
};
use crate::{
    Error, Result,
    store::{DAMAGED, History, LEVELS, Level, RollUp, Tick},
    sync::lock,
};
use api::Time;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

/// How often heads that have had no sample are packed, and old samples rolled up.
const CARE: Duration = Duration::from_secs(60);
/// How long after its end an hour is rolled up: by then its heads are packed and written.
const LAG_S: i64 = 900;
/// VMs rolled up in one transaction.
const AT_ONCE: usize = 100;

/// Opens the history; says so when the one there was damaged.
pub async fn open(path: &Path) -> Result<History> {
    let (history, aside) = History::open(path).await?;
    if let Some(aside) = aside {
        tracing::error!(
            path = %path.display(), put_aside = %aside.display(),
            "the history of metrics was damaged: a new one begins, the old one was put aside"
        );
    }
    Ok(history)
}

fn cause(error: &Error) -> String {
    match error {
        Error::History { cause, .. } | Error::Internal(cause) => cause.clone(),
        other => other.to_string(),
    }
}

/// Runs for ever: writes what comes, and looks after the history.
pub async fn write_for_ever(metrics: Arc<Metrics>, path: PathBuf, mut ticks: mpsc::Receiver<Option<Tick>>) {
    let mut troubled = false;
    let mut cared = Instant::now();
    loop {
        let tick = match tokio::time::timeout(CARE, ticks.recv()).await {
            Ok(Some(tick)) => tick,
            Ok(None) => return,
            Err(_) => None,
        };
        let mut done = write(&metrics, tick, &path).await;
        if done.is_ok() && cared.elapsed() >= CARE {
            cared = Instant::now();
            metrics.pack_idle();
            done = care(&metrics).await;
        }
        match done {
            Ok(()) if troubled => {
                tracing::info!(path = %path.display(), "the history of metrics is written again");
                troubled = false;
            }
            Ok(()) => {}
            Err(error) => {
                if !troubled {
                    let cause = cause(&error);
                    tracing::error!(path = %path.display(), cause, "the history of metrics can't be written; VMs go on");
                    troubled = true;
                }
                if matches!(error, Error::History { why: DAMAGED, .. }) {
                    close(&metrics).await;
                    match History::put_aside(&path) {
                        Ok(aside) => tracing::error!(put_aside = %aside.display(), "a new history of metrics begins"),
                        Err(error) => tracing::error!(cause = cause(&error), "the history of metrics stays damaged"),
                    }
                }
            }
        }
    }
}

/// Closes the history: the server stops, or its file is of no use.
pub async fn close(metrics: &Metrics) {
    let history = lock(&metrics.history).take();
    if let Some(history) = history {
        history.close().await;
    }
}

/// Writes a tick and what is packed; what can't be written waits for the next one.
pub async fn write(metrics: &Metrics, tick: Option<Tick>, path: &Path) -> Result<()> {
    if let Some(history) = metrics.history()
        && !history.is_there()
    {
        tracing::error!(path = %path.display(), "the history of metrics has been deleted: a new one begins");
        close(metrics).await;
    }
    let history = match metrics.history() {
        Some(history) => history,
        None => {
            let history = open(path).await?;
            *lock(&metrics.history) = Some(history.clone());
            history
        }
    };
    let (pending, oldest_s) = {
        let state = lock(&metrics.state);
        let oldest_s = state.heads.values().map(super::Head::first_s).min();
        (state.pending.clone(), oldest_s)
    };
    let ticks_from_s = oldest_s.unwrap_or(i64::MAX);
    history.write(tick.as_ref(), &pending, ticks_from_s).await?;
    let mut state = lock(&metrics.state);
    state.pending.retain(|(_, chunk)| !pending.iter().any(|(_, written)| Arc::ptr_eq(written, chunk)));
    Ok(())
}

/// Rolls up what is old enough, and forgets what is too old.
async fn care(metrics: &Metrics) -> Result<()> {
    let Some(history) = metrics.history() else { return Ok(()) };
    let now_s = Time::now().0 / 1000;
    while let Some(until) = history.rolled_until().await? {
        if until > now_s {
            // The clock was ahead, and has been set back: what comes from now on is to be rolled up again.
            history.set_rolled_until(now_s - now_s.rem_euclid(COARSE_S)).await?;
            break;
        }
        let start_s = until - until.rem_euclid(COARSE_S);
        if start_s + COARSE_S + LAG_S > now_s {
            break;
        }
        roll_up_hour(&history, start_s).await?;
        history.set_rolled_until(start_s + COARSE_S).await?;
    }
    forget(metrics, &history, now_s).await
}

/// Rolls up an hour of all VMs.
async fn roll_up_hour(history: &History, start_s: i64) -> Result<()> {
    let day_s = start_s - start_s.rem_euclid(DAY_S);
    let vms = history.vms(start_s, start_s + COARSE_S).await?;
    for some in vms.chunks(AT_ONCE) {
        let mut roll_ups = Vec::new();
        for vm in some.iter().copied() {
            let raw = unpacked(history.chunks(vm, Level::Raw, start_s, start_s + COARSE_S).await?);
            let hour = roll_up(&raw, start_s, FINE_S);
            let day = history.chunks(vm, Level::Coarse, day_s, day_s + DAY_S).await?;
            let day = unpacked(day).into_iter().fold(Samples::default(), join);
            let day = join(day, roll_up(&raw, start_s, COARSE_S));
            for (level, from_s, samples) in [(Level::Fine, start_s, hour), (Level::Coarse, day_s, day)] {
                roll_ups.extend(samples.to_chunk().map(|chunk| RollUp { level, vm, from_s, chunk }));
            }
        }
        history.put_roll_ups(&roll_ups).await?;
    }
    Ok(())
}

/// What can be unpacked of chunks.
pub(super) fn unpacked(chunks: Vec<Chunk>) -> Vec<Samples> {
    let unpack = |chunk: Chunk| {
        let samples = unpack(&chunk.data);
        if samples.is_none() {
            tracing::warn!(first_s = chunk.first_s, "a part of the history of metrics is damaged, and is left out");
        }
        samples
    };
    chunks.into_iter().filter_map(unpack).collect()
}

async fn forget(metrics: &Metrics, history: &History, now_s: i64) -> Result<()> {
    let settings = &metrics.settings;
    let rolled_s = history.rolled_until().await?.unwrap_or(i64::MAX);
    for level in LEVELS {
        let before_s = now_s - super::kept_s(settings, level);
        // What isn't rolled up yet is kept for that.
        history.forget(level, if level == Level::Raw { before_s.min(rolled_s) } else { before_s }).await?;
    }
    let most = settings.max_mib.saturating_mul(1 << 20);
    // An hour more of the finest that there is, until it fits.
    while history.used_bytes().await? > most {
        let mut gone = 0;
        for level in LEVELS {
            if let Some(oldest) = history.oldest(level).await? {
                gone = history.forget(level, oldest + COARSE_S).await?;
                break;
            }
        }
        if gone == 0 {
            break;
        }
        tracing::warn!(
            max_mib = settings.max_mib,
            "the history of metrics is full: the oldest samples were forgotten early"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            chunk::Head,
            query,
            series::{Key, Metric},
        },
        *,
    };
    use crate::config::MetricsSettings;
    use api::metrics::Aggregate;
    use uuid::Uuid;

    /// A history with a sample every 10 s for so many hours until now: CPU at 10 %, and at 50 % in each hour's first minute.
    async fn filled(path: &Path, vm: Uuid, hours: i64, settings: MetricsSettings) -> Metrics {
        let history = open(path).await.unwrap();
        let now_s = Time::now().0 / 1000 / COARSE_S * COARSE_S;
        let mut head = Head::default();
        let mut chunks = Vec::new();
        for at_s in (now_s - hours * COARSE_S..now_s).step_by(10) {
            let percent = if at_s % COARSE_S < 60 { 5000 } else { 1000 };
            head.push(at_s, &vec![(Key::whole(Metric::CpuPercent), percent)]);
            if head.count() == 60 {
                chunks.push((vm, Arc::new(std::mem::take(&mut head).to_chunk())));
            }
        }
        history.write(None, &chunks, 0).await.unwrap();
        Metrics::begin(settings, Some(history)).await.0
    }

    async fn ask(
        metrics: &Metrics,
        vm: Uuid,
        hours: i64,
        step_s: Option<i64>,
        aggregate: Aggregate,
    ) -> (i64, Vec<Option<f64>>) {
        let end = Time::now().0 / 1000 / COARSE_S * COARSE_S;
        let range =
            query::range(metrics, Some(Time((end - hours * COARSE_S) * 1000)), Some(Time(end * 1000)), step_s).unwrap();
        let mut series = query::query(metrics, vm, range, aggregate).await.unwrap();
        (range.step_s, series.remove(0).values)
    }

    #[tokio::test]
    async fn what_is_old_is_kept_in_less_detail() {
        let dir = std::env::temp_dir().join(format!("vmyard-history-{}", Uuid::now_v7()));
        std::fs::create_dir(&dir).unwrap();
        let (path, vm) = (dir.join("metrics.db"), Uuid::now_v7());
        let settings = MetricsSettings { raw_hours: 2, five_minute_days: 1, ..MetricsSettings::default() };
        let metrics = filled(&path, vm, 60, settings).await;
        care(&metrics).await.unwrap();
        let history = metrics.history().unwrap();
        let now_s = Time::now().0 / 1000;
        let count = async |level| history.chunks(vm, level, 0, now_s).await.unwrap().len();
        assert!((6..=30).contains(&count(Level::Raw).await), "{}", count(Level::Raw).await);
        assert!((23..=25).contains(&count(Level::Fine).await));
        assert!((3..=4).contains(&count(Level::Coarse).await));

        // Of the last hour there are samples, of the last day five minutes each, of all days hours; nowhere is a hole.
        let average = Aggregate::Average;
        let (step_s, values) = ask(&metrics, vm, 1, Some(10), average).await;
        assert_eq!((step_s, values.len(), values[0], values[7]), (10, 360, Some(50.0), Some(10.0)));
        let (step_s, values) = ask(&metrics, vm, 20, Some(10), average).await;
        assert_eq!((step_s, values.len(), values[0], values[1]), (300, 240, Some(18.0), Some(10.0)));
        assert!(values.iter().all(Option::is_some));
        let (step_s, values) = ask(&metrics, vm, 59, None, average).await;
        assert_eq!((step_s, values.len(), values[0]), (3600, 59, Some(10.67)));
        assert!(values.iter().all(Option::is_some), "{values:?}");
        // What was least and most outlives the samples.
        assert_eq!(ask(&metrics, vm, 59, None, Aggregate::Maximum).await.1[3], Some(50.0));
        assert_eq!(ask(&metrics, vm, 20, Some(3600), Aggregate::Maximum).await.1[3], Some(50.0));
        assert_eq!(ask(&metrics, vm, 59, None, Aggregate::Minimum).await.1[3], Some(10.0));
        // Once more changes nothing; nor does a server that was killed before it noted that an hour was rolled up.
        let (fine, coarse) = (count(Level::Fine).await, count(Level::Coarse).await);
        care(&metrics).await.unwrap();
        let rolled_s = history.rolled_until().await.unwrap().unwrap();
        history.set_rolled_until(rolled_s - COARSE_S).await.unwrap();
        care(&metrics).await.unwrap();
        assert_eq!((count(Level::Fine).await, count(Level::Coarse).await), (fine, coarse));
        assert_eq!(history.rolled_until().await.unwrap(), Some(rolled_s));
        // A clock that was ahead for a while doesn't stop what is to come.
        let now_s = Time::now().0 / 1000;
        history.set_rolled_until(now_s + 50 * COARSE_S).await.unwrap();
        care(&metrics).await.unwrap();
        assert!(history.rolled_until().await.unwrap().unwrap() <= Time::now().0 / 1000);
        close(&metrics).await;
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[tokio::test]
    async fn what_is_too_much_goes_early() {
        let dir = std::env::temp_dir().join(format!("vmyard-history-{}", Uuid::now_v7()));
        std::fs::create_dir(&dir).unwrap();
        let (path, vm) = (dir.join("metrics.db"), Uuid::now_v7());
        let metrics = filled(&path, vm, 20, MetricsSettings { max_mib: 1, ..MetricsSettings::default() }).await;
        let history = metrics.history().unwrap();
        let noise = |at_s: i64| Arc::new(Chunk { first_s: at_s, last_s: at_s, data: vec![7; 20_000] });
        let now_s = Time::now().0 / 1000;
        let many: Vec<_> = (0..80).map(|hour| (Uuid::now_v7(), noise(now_s - hour * 600))).collect();
        history.write(None, &many, 0).await.unwrap();
        assert!(history.used_bytes().await.unwrap() > 1 << 20);
        care(&metrics).await.unwrap();
        assert!(history.used_bytes().await.unwrap() <= 1 << 20);
        assert_eq!(ask(&metrics, vm, 1, Some(10), Aggregate::Average).await.1.len(), 360);
        close(&metrics).await;
        std::fs::remove_dir_all(dir).unwrap();
    }
}
