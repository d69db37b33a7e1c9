//! `vmyard vm top`: who uses most, now.

use crate::{
    client::{Client, to_json},
    complete,
    failure::Failure,
    human, lists,
    output::{Output, print},
    table::{self, Cell::Field, Cell::Made, Column},
};
use api::vm::{ListVms, Usage, VmState};
use clap_complete::ArgValueCompleter;
use serde_json::{Value, json};
use std::{cmp::Ordering, io::IsTerminal, time::Duration};

/// To the upper left, and nothing below: <https://www.ecma-international.org/publications-and-standards/standards/ecma-48/>, CUP and ED.
const CLEAR: &str = "\u{1b}[H\u{1b}[J";

/// `vmyard vm top`
#[derive(clap::Args)]
pub struct Args {
    /// Only VMs of this node
    #[arg(long, add = ArgValueCompleter::new(complete::nodes))]
    node: Option<String>,
    /// Who comes first: who uses most of cpu, memory, disk or net
    #[arg(long, value_enum, default_value_t = Order::Cpu)]
    sort: Order,
    /// Only so many
    #[arg(long, value_name = "N", default_value_t = 20)]
    first: usize,
    /// Seconds between two looks; the server measures every 10 s
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    every: u64,
    /// Look once
    #[arg(long)]
    once: bool,
}

/// What is compared.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// Share of the virtual CPUs
    Cpu,
    /// Memory in use
    Memory,
    /// Bytes read and written
    Disk,
    /// Bytes received and sent
    Net,
}

const COLUMNS: &[Column] = &[
    ("NAME", Field("name")),
    ("NODE", Field("node")),
    ("CPU", Made(|row| percent(&row["usage"]["cpu_percent"]))),
    ("VCPUS", Field("vcpus")),
    ("MEMORY", Made(memory)),
    ("READ", Made(|row| rate(&row["usage"]["disk_read_bytes_per_s"]))),
    ("WRITTEN", Made(|row| rate(&row["usage"]["disk_write_bytes_per_s"]))),
    ("RECEIVED", Made(|row| rate(&row["usage"]["net_rx_bytes_per_s"]))),
    ("SENT", Made(|row| rate(&row["usage"]["net_tx_bytes_per_s"]))),
    ("MEASURED", Made(age)),
];

/// Shows the table until somebody ends it; once, where nobody looks.
pub fn run(client: &Client, output: Output, args: Args) -> Result<(), Failure> {
    let once = args.once || output.is_data() || !std::io::stdout().is_terminal();
    loop {
        let vms = running(client, args.node.as_deref())?;
        let total = vms.len();
        let mut rows = vms;
        rows.sort_by(|one, other| {
            let by_use = used(other, args.sort).partial_cmp(&used(one, args.sort)).unwrap_or(Ordering::Equal);
            by_use.then_with(|| one["name"].as_str().cmp(&other["name"].as_str()))
        });
        rows.truncate(args.first);
        let answer = json!({"vms": rows, "total": total});
        let table = format!("{}{} of {total} running VMs\n", table::of(COLUMNS, &rows), rows.len());
        if once {
            return output.answer(&answer, || table);
        }
        print(&format!("{CLEAR}{table}"))?;
        std::thread::sleep(Duration::from_secs(args.every));
    }
}

/// All VMs that run.
fn running(client: &Client, node: Option<&str>) -> Result<Vec<Value>, Failure> {
    let (state, node) = (Some(VmState::Running), node.map(str::to_owned));
    let request = to_json(&ListVms { state, node, usage: true, ..ListVms::default() })?;
    let mut all = lists::all(client, &super::KIND, request, None)?;
    Ok(all["vms"].as_array_mut().map(std::mem::take).unwrap_or_default())
}

fn used(row: &Value, order: Order) -> f64 {
    let of = |field: &str| row["usage"][field].as_f64().unwrap_or(-1.0);
    match order {
        Order::Cpu => of("cpu_percent"),
        Order::Memory => of("memory_used_mib"),
        Order::Disk => of("disk_read_bytes_per_s") + of("disk_write_bytes_per_s"),
        Order::Net => of("net_rx_bytes_per_s") + of("net_tx_bytes_per_s"),
    }
}

fn percent(value: &Value) -> String {
    value.as_f64().map_or("-".to_owned(), |percent| format!("{percent:.1} %"))
}

fn rate(value: &Value) -> String {
    value.as_f64().map_or("-".to_owned(), |bytes| format!("{}/s", human::size(bytes as u64)))
}

/// Memory in use, and of how much; with a word where the guest doesn't tell.
fn memory(row: &Value) -> String {
    let usage = &row["usage"];
    let Some(used) = usage["memory_used_mib"].as_f64() else { return "-".to_owned() };
    let source = if usage["memory_source"] == "rss" { " (rss)" } else { "" };
    format!("{} {}{source}", human::size((used * 1_048_576.0) as u64), percent(&usage["memory_percent"]))
}

fn age(row: &Value) -> String {
    let at = serde_json::from_value::<api::Time>(row["usage"]["sampled_at"].clone());
    let ago = at.map(|at| format!("{} ago", human::duration(api::Time::now().0 - at.0)));
    let stale = if row["stale"] == true { " (stale)" } else { "" };
    format!("{}{stale}", ago.unwrap_or_else(|_| "not yet".to_owned()))
}

/// What one VM uses, in a line.
pub fn in_words(usage: &Usage) -> String {
    let percent = |value: Option<f64>| value.map_or("?".to_owned(), |value| format!("{value} %"));
    let source = usage.memory_source.as_deref().map(|source| format!(" ({source})")).unwrap_or_default();
    let (cpu, memory) = (percent(usage.cpu_percent), percent(usage.memory_percent));
    format!("cpu {cpu}, memory {memory}{source} at {}", usage.sampled_at)
}
