//! Asking a Prometheus that reads our `/metrics`, or what speaks as it does:
//! <https://prometheus.io/docs/prometheus/latest/querying/api/#range-queries>.

use super::{
    query::{Range, wire},
    series::Metric,
};
use crate::{Error, Result};
use api::metrics::{Aggregate, Series};
use serde::Deserialize;
use std::{collections::BTreeMap, time::Duration};
use uuid::Uuid;

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(15);
/// The shortest time that a rate is made of, in seconds: two readings must be in it.
const WINDOW_S: i64 = 60;

/// A figure, and how it is told of what `/metrics` says.
struct Query {
    metric: Metric,
    /// What is asked for.
    text: String,
}

/// What an answer of query_range looks like, as far as it is read.
#[derive(Deserialize)]
struct Answer {
    status: String,
    #[serde(default)]
    error: String,
    data: Option<Data>,
}

#[derive(Deserialize)]
struct Data {
    result: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    metric: BTreeMap<String, String>,
    /// Seconds since the Unix epoch, and the number as a text.
    values: Vec<(f64, String)>,
}

/// What was measured, as that server keeps it.
pub(super) async fn query(url: &str, vm: Uuid, range: Range, aggregate: Aggregate) -> Result<Vec<Series>> {
    let failed = |error: reqwest::Error| unusable(&error.without_url().to_string());
    let address = format!("{}/api/v1/query_range", url.trim_end_matches('/'));
    let address = reqwest::Url::parse(&address).map_err(|error| unusable(&error.to_string()))?;
    let client = crate::http::client(&address).timeout(ANSWER).build().map_err(failed)?;
    let asked = queries(vm, range, aggregate).into_iter().map(|query| {
        let (client, address) = (&client, address.clone());
        async move { ask(client, address, &query, range).await }
    });
    Ok(futures::future::try_join_all(asked).await?.into_iter().flatten().collect())
}

fn unusable(cause: &str) -> Error {
    Error::History { why: "metrics.url does not answer as a Prometheus does", cause: cause.to_owned() }
}

/// A sum of what all devices have comes beside what each has.
fn queries(vm: Uuid, range: Range, aggregate: Aggregate) -> Vec<Query> {
    let of = |name: &str| format!("{name}{{vm=\"{vm}\"}}");
    let window_s = range.step_s.max(WINDOW_S);
    // A window of windows: how far apart those are.
    let apart_s = (window_s / 100).max(5);
    let over = match aggregate {
        Aggregate::Average => "avg_over_time",
        Aggregate::Minimum => "min_over_time",
        Aggregate::Maximum => "max_over_time",
    };
    let gauge = |text: &str| format!("{over}({text}[{window_s}s])");
    // The rate over all of a step is its average; what is least and most is looked for among shorter ones.
    let rate = |text: &str| match aggregate {
        Aggregate::Average => format!("rate({text}[{window_s}s])"),
        _ => format!("{over}(rate({text}[{WINDOW_S}s])[{window_s}s:{apart_s}s])"),
    };
    // A VM that got another name has a series for each.
    let memory = of("vmyard_vm_memory_used_bytes");
    let used = format!("max by (source) ({})", gauge(&memory));
    let total = format!("max({})", gauge(&of("vmyard_vm_memory_bytes")));
    let cpus = format!("max(max_over_time({}[{window_s}s]))", of("vmyard_vm_vcpus"));
    let mut queries = vec![
        Query {
            metric: Metric::CpuPercent,
            text: format!("clamp_max(100 * max({}) / {cpus}, 100)", rate(&of("vmyard_vm_cpu_seconds_total"))),
        },
        Query { metric: Metric::MemoryUsed, text: format!("{used} / 1048576") },
        Query { metric: Metric::MemoryTotal, text: format!("{total} / 1048576") },
        Query {
            metric: Metric::MemoryPercent,
            text: format!("clamp_max(100 * {used} / on () group_left {total}, 100)"),
        },
    ];
    for (metric, name) in [
        (Metric::DiskReadBytes, "vmyard_vm_disk_read_bytes_total"),
        (Metric::DiskWriteBytes, "vmyard_vm_disk_written_bytes_total"),
        (Metric::DiskReadRequests, "vmyard_vm_disk_reads_total"),
        (Metric::DiskWriteRequests, "vmyard_vm_disk_writes_total"),
        (Metric::NetRxBytes, "vmyard_vm_net_received_bytes_total"),
        (Metric::NetTxBytes, "vmyard_vm_net_sent_bytes_total"),
        (Metric::NetRxPackets, "vmyard_vm_net_received_packets_total"),
        (Metric::NetTxPackets, "vmyard_vm_net_sent_packets_total"),
    ] {
        let each = format!("max by (device) ({})", rate(&of(name)));
        let all = match aggregate {
            Aggregate::Average => format!("sum({each})"),
            _ => format!("{over}(sum(rate({}[{WINDOW_S}s]))[{window_s}s:{apart_s}s])", of(name)),
        };
        queries.push(Query { metric, text: all });
        queries.push(Query { metric, text: each });
    }
    queries
}

async fn ask(client: &reqwest::Client, mut url: reqwest::Url, query: &Query, range: Range) -> Result<Vec<Series>> {
    // What is asked for at a time is of the step before it.
    let (first_s, last_s) = (range.start_s + range.step_s, range.start_s + range.steps() as i64 * range.step_s);
    url.query_pairs_mut()
        .append_pair("query", &query.text)
        .append_pair("start", &first_s.to_string())
        .append_pair("end", &last_s.to_string())
        .append_pair("step", &range.step_s.to_string());
    let failed = |error: reqwest::Error| unusable(&error.without_url().to_string());
    let answer: Answer = client.get(url).send().await.map_err(failed)?.json().await.map_err(failed)?;
    let Some(data) = answer.data.filter(|_| answer.status == "success") else {
        return Err(unusable(&format!("{}: {}", query.text, answer.error)));
    };
    Ok(data.result.into_iter().map(|row| series(query.metric, row, first_s, range)).collect())
}

fn series(metric: Metric, mut row: Row, first_s: i64, range: Range) -> Series {
    let mut values = vec![None; range.steps()];
    for (at_s, text) in row.values {
        let step = (at_s as i64 - first_s).div_euclid(range.step_s);
        let value = text.parse().ok().filter(|value: &f64| value.is_finite());
        if let Some(place) = usize::try_from(step).ok().and_then(|step| values.get_mut(step)) {
            *place = value;
        }
    }
    wire(metric, row.metric.remove("device"), row.metric.remove("source"), values)
}
