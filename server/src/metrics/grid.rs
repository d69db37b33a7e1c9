//! Samples put into steps of equal length.

use super::{
    chunk::{Samples, Stat},
    rollup::STATS,
    series::{Key, Metric, fixed, number},
};
use api::metrics::Aggregate;
use std::collections::BTreeMap;

/// Steps of equal length, with what is known of each.
pub struct Grid {
    start_s: i64,
    step_s: i64,
    steps: usize,
    series: BTreeMap<Key, Vec<Step>>,
}

/// What is known of a series in one step.
#[derive(Clone, Copy)]
struct Step {
    sum: f64,
    count: u32,
    least: f64,
    most: f64,
}

const EMPTY: Step = Step { sum: 0.0, count: 0, least: f64::INFINITY, most: f64::NEG_INFINITY };

impl Grid {
    /// So many empty steps, from this time on (seconds since the Unix epoch).
    pub fn new(start_s: i64, step_s: i64, steps: usize) -> Grid {
        Grid { start_s, step_s: step_s.max(1), steps, series: BTreeMap::new() }
    }

    /// Takes in the samples whose times are from `from_s` on and before `until_s`.
    pub fn add(&mut self, samples: &Samples, from_s: i64, until_s: i64) {
        let until_s = until_s.min(self.start_s.saturating_add(self.step_s.saturating_mul(self.steps as i64)));
        let from_s = from_s.max(self.start_s);
        let wanted: Vec<(usize, usize)> = samples
            .times
            .iter()
            .enumerate()
            .filter(|(_, at)| (from_s..until_s).contains(at))
            .map(|(place, at)| (place, ((at - self.start_s) / self.step_s) as usize))
            .collect();
        if wanted.is_empty() {
            return;
        }
        for (key, stat, values) in &samples.columns {
            let steps = self.series.entry(key.clone()).or_insert_with(|| vec![EMPTY; self.steps]);
            for (place, step) in &wanted {
                let Some(value) = values.get(*place).copied().flatten() else { continue };
                steps[*step].take(*stat, number(key.metric, value));
            }
        }
    }

    /// The series, a value or a gap for each step.
    pub fn series(&self, aggregate: Aggregate) -> impl Iterator<Item = (&Key, Vec<Option<f64>>)> {
        let value = move |step: &Step| {
            let value = match aggregate {
                Aggregate::Average => step.average()?,
                Aggregate::Minimum => step.least,
                Aggregate::Maximum => step.most,
            };
            (step.count > 0).then_some(value)
        };
        self.series.iter().map(move |(key, steps)| (key, steps.iter().map(value).collect()))
    }

    /// As samples of a roll-up; steps without any are left out.
    pub(super) fn to_samples(&self) -> Samples {
        let known: Vec<usize> =
            (0..self.steps).filter(|step| self.series.values().any(|steps| steps[*step].count > 0)).collect();
        let mut samples = Samples {
            times: known.iter().map(|step| self.start_s + *step as i64 * self.step_s).collect(),
            columns: Vec::with_capacity(self.series.len() * STATS.len()),
        };
        for (key, steps) in &self.series {
            for stat in STATS {
                let values = known.iter().map(|step| steps[*step].kept(key.metric, stat)).collect();
                samples.columns.push((key.clone(), stat, values));
            }
        }
        samples
    }
}

impl Step {
    /// A raw sample is its own least and most; a roll-up tells them apart.
    fn take(&mut self, stat: Stat, value: f64) {
        if stat == Stat::Average {
            self.sum += value;
            self.count += 1;
        }
        self.least = self.least.min(value);
        self.most = self.most.max(value);
    }

    fn average(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / f64::from(self.count))
    }

    fn kept(&self, metric: Metric, stat: Stat) -> Option<i64> {
        let average = self.average()?;
        Some(fixed(
            metric,
            match stat {
                Stat::Average => average,
                Stat::Least => self.least,
                Stat::Most => self.most,
            },
        ))
    }
}
