//! `vmyard vm diagnose`: how it stands with a VM, and what helps.

use super::Name;
use crate::{
    client::{Client, from_json, to_json},
    failure::Failure,
    human,
    output::Output,
};
use api::{
    Rpc,
    diagnose::{DiagnoseVm, Diagnosis, Finding},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use std::fmt::Write;

/// `vmyard vm diagnose`
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    name: Name,
    /// Write a picture of its screen into this PNG file
    #[arg(long, value_name = "FILE")]
    screenshot: Option<String>,
}

/// Asks, and prints.
pub fn run(client: &Client, output: Output, args: Args) -> Result<(), Failure> {
    let request = DiagnoseVm { vm: args.name.vm, screenshot: args.screenshot.is_some() };
    let answer = client.call_json(DiagnoseVm::NAME, &to_json(&request)?)?;
    let diagnosis: Diagnosis = from_json(answer.clone())?;
    if let (Some(path), Some(picture)) = (&args.screenshot, &diagnosis.screenshot_base64) {
        let png = STANDARD.decode(picture).unwrap_or_default();
        std::fs::write(path, png).map_err(|error| Failure::Usage(format!("{path}: {error}")))?;
    }
    output.answer(&answer, || text(&diagnosis))
}

fn text(diagnosis: &Diagnosis) -> String {
    let mut out = finding(&diagnosis.verdict);
    for also in &diagnosis.also {
        let _ = write!(out, "\nalso: {}", finding(also));
    }
    let mut part = |title: &str, lines: Vec<String>| {
        if !lines.is_empty() {
            let _ = write!(out, "\n{title}:\n");
            lines.iter().for_each(|line| out.push_str(&format!("  {line}\n")));
        }
    };
    let reason = diagnosis.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
    let node = if diagnosis.node_up { "connected" } else { "not connected" };
    part("state", vec![format!("{}{reason}, on node {} ({node})", diagnosis.state.as_str(), diagnosis.node)]);
    part(
        "since it was started",
        diagnosis.phases.iter().map(|phase| format!("{}  {}", phase.at, phase.what)).collect(),
    );
    let address = |known: &api::diagnose::KnownAddress| {
        format!("{} {} ({})", known.mac, known.address, format!("{:?}", known.source).to_lowercase())
    };
    part("addresses", diagnosis.addresses.iter().map(address).collect());
    let disk = |disk: &api::diagnose::DiskEvidence| {
        let below = if disk.below.is_empty() { String::new() } else { format!(" on {}", disk.below.join(" on ")) };
        let problem = disk.problem.as_ref().map(|problem| format!(": {problem}")).unwrap_or_default();
        format!("{} {}{below}{problem}", disk.device, disk.path.as_deref().unwrap_or("-"))
    };
    part("disks", diagnosis.disks.iter().map(disk).collect());
    let pool = |pool: &api::diagnose::PoolEvidence| {
        format!("{}: {} of {} free", pool.pool, human::size(pool.available_bytes), human::size(pool.capacity_bytes))
    };
    part("pools", diagnosis.pools.iter().map(pool).collect());
    let task =
        |task: &api::task::Task| format!("{}  {}  {}  {}", task.created_at, task.method, task.state.as_str(), task.id);
    part("tasks", diagnosis.tasks.iter().map(task).collect());
    part("serial line", diagnosis.serial.clone());
    part("QEMU's log", diagnosis.qemu_log.clone());
    part("not known", diagnosis.not_known.clone());
    out
}

fn finding(finding: &Finding) -> String {
    let hint = finding.hint.as_ref().map(|hint| format!("hint: {hint}\n")).unwrap_or_default();
    format!("{}\n{hint}", finding.sentence)
}
