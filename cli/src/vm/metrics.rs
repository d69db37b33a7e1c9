//! `vmyard vm metrics`: what a VM has used, as small charts.

use super::Name;
use crate::{
    client::{Client, from_json, to_json},
    failure::Failure,
    human,
    output::Output,
    table::{self, Cell::Field, Column},
};
use api::{
    Rpc, Time,
    metrics::{Aggregate, DescribeVmMetrics, Series, VmMetrics},
};
use serde_json::{Value, json};

/// How many steps a chart has, about.
const CHART: i64 = 60;
/// From the least to the most.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// `vmyard vm metrics`
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    name: Name,
    /// How far back: 90s, 15m, 1h, 7d
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = human::length, conflicts_with = "start")]
    last: i64,
    /// From this moment on, like 2026-11-24T00:00:00Z
    #[arg(long, value_name = "TIME", value_parser = human::moment)]
    start: Option<Time>,
    /// Until this moment; now when absent
    #[arg(long, value_name = "TIME", value_parser = human::moment)]
    end: Option<Time>,
    /// Seconds in a step
    #[arg(long, value_name = "SECONDS")]
    step: Option<u32>,
    /// What is told of the samples in a step
    #[arg(long, value_name = "WHICH", default_value = "average", value_parser = aggregate)]
    aggregate: Aggregate,
    /// Also each disk and each interface
    #[arg(long)]
    devices: bool,
}

fn aggregate(text: &str) -> Result<Aggregate, String> {
    human::one_of(text, "average, minimum or maximum")
}

const COLUMNS: &[Column] = &[
    ("FIGURE", Field("figure")),
    ("OF", Field("of")),
    ("FROM THE LEFT TO THE RIGHT", Field("chart")),
    ("LAST", Field("last")),
    ("AVERAGE", Field("average")),
    ("MOST", Field("most")),
];

/// Shows the figures.
pub fn run(client: &Client, output: Output, args: Args) -> Result<(), Failure> {
    let end = args.end.unwrap_or_else(Time::now);
    let start = args.start.unwrap_or(Time(end.0.saturating_sub(args.last.saturating_mul(1000))));
    let for_chart = (end.0.saturating_sub(start.0) / 1000 / CHART).clamp(1, 31_536_000) as u32;
    let request = DescribeVmMetrics {
        vm: args.name.vm,
        start: Some(start),
        end: Some(end),
        step_s: args.step.or((!output.is_data()).then_some(for_chart)),
        aggregate: args.aggregate,
        history: true,
    };
    let reply = client.call_json(DescribeVmMetrics::NAME, &to_json(&request)?)?;
    let metrics: VmMetrics = from_json(reply.clone())?;
    output.answer(&reply, || text(&metrics, args.devices))
}

fn text(metrics: &VmMetrics, devices: bool) -> String {
    let shown = metrics.series.iter().filter(|series| devices || series.device.is_none());
    let rows: Vec<Value> = shown.map(row).collect();
    if rows.is_empty() {
        return format!("VM {} was not measured in this time\n", metrics.name);
    }
    let begin = metrics.times.first().map(|at| format!("from {at} on, ")).unwrap_or_default();
    let step = human::duration(metrics.step_s * 1000);
    format!("{}{begin}{step} a step; a blank is a gap\n", table::of(COLUMNS, &rows))
}

fn row(series: &Series) -> Value {
    let known: Vec<f64> = series.values.iter().flatten().copied().collect();
    let most = known.iter().copied().fold(0.0, f64::max);
    let average = known.iter().sum::<f64>() / known.len().max(1) as f64;
    // Shares are out of all there is.
    let top = if series.unit == "%" { 100.0 } else { most };
    let figure = series.name.trim_end_matches("_percent").trim_end_matches("_mib");
    let figure = figure.trim_end_matches("_per_s").trim_end_matches("_bytes").replace('_', " ");
    json!({
        "figure": figure,
        "of": series.device.as_ref().or(series.source.as_ref()),
        "chart": chart(&series.values, top),
        "last": series.values.iter().rev().find_map(|value| *value).map(|value| number(&series.unit, value)),
        "average": number(&series.unit, average),
        "most": number(&series.unit, most),
    })
}

fn chart(values: &[Option<f64>], top: f64) -> String {
    let bar = |value: &Option<f64>| match value {
        None => ' ',
        Some(value) if top <= 0.0 || *value <= 0.0 => BARS[0],
        Some(value) => BARS[((value / top * 8.0).ceil() as usize).clamp(1, 8) - 1],
    };
    values.iter().map(bar).collect()
}

fn number(unit: &str, value: f64) -> String {
    match unit {
        "bytes/s" => format!("{}/s", human::size(value as u64)),
        "MiB" => human::size((value * 1_048_576.0) as u64),
        "%" => format!("{value:.1} %"),
        _ => format!("{value:.1}/s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_blank() {
        assert_eq!(chart(&[Some(0.0), None, Some(50.0), Some(100.0)], 100.0), "▁ ▄█");
        assert_eq!(chart(&[Some(0.0)], 0.0), "▁");
    }
}
