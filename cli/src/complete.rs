//! What the shell offers when an argument is being typed: names from the server. A server that is away, slow, or wants
//! another token offers nothing, and nobody is told: the user is in the middle of a line.

use crate::{
    Cli,
    client::{Client, Server},
    keypair,
    lists::Kind,
    network, node, orphan, pool, task, template, token, vm, volume, webhook,
};
use clap::{CommandFactory, FromArgMatches};
use clap_complete::CompletionCandidate;
use serde_json::{Value, json};
use std::{ffi::OsStr, time::Duration};

/// How long a user waits for names.
const PATIENCE: Duration = Duration::from_secs(1);
/// How many names are asked for.
const NAMES: u32 = 1000;

/// VMs.
pub fn vms(begun: &OsStr) -> Vec<CompletionCandidate> {
    // The server knows which names fit: there may be more VMs than it is asked for.
    let request = match begun.to_str() {
        Some(text) if !text.is_empty() => json!({ "name": text }),
        _ => json!({}),
    };
    names(begun, &vm::KIND, request, "name", "state")
}

/// Templates.
pub fn templates(begun: &OsStr) -> Vec<CompletionCandidate> {
    names(begun, &template::KIND, json!({}), "name", "state")
}

/// Nodes.
pub fn nodes(begun: &OsStr) -> Vec<CompletionCandidate> {
    names(begun, &node::KIND, json!({}), "name", "state")
}

/// Storage pools.
pub fn pools(begun: &OsStr) -> Vec<CompletionCandidate> {
    names(begun, &pool::KIND, json!({}), "name", "node")
}

/// Networks.
pub fn networks(begun: &OsStr) -> Vec<CompletionCandidate> {
    names(begun, &network::KIND, json!({}), "name", "node")
}

/// Volumes.
pub fn volumes(begun: &OsStr) -> Vec<CompletionCandidate> {
    names(begun, &volume::KIND, json!({}), "name", "vm")
}

/// Orphans, by path or UUID.
pub fn orphans(begun: &OsStr) -> Vec<CompletionCandidate> {
    names(begun, &orphan::KIND, json!({}), "id", "kind")
}

/// Keypairs.
pub fn keypairs(begun: &OsStr) -> Vec<CompletionCandidate> {
    names(begun, &keypair::KIND, json!({}), "name", "fingerprint")
}

/// Tokens.
pub fn tokens(begun: &OsStr) -> Vec<CompletionCandidate> {
    names(begun, &token::KIND, json!({}), "name", "role")
}

/// Webhooks.
pub fn webhooks(begun: &OsStr) -> Vec<CompletionCandidate> {
    names(begun, &webhook::KIND, json!({}), "name", "url")
}

/// Tasks, by id.
pub fn tasks(begun: &OsStr) -> Vec<CompletionCandidate> {
    names(begun, &task::KIND, json!({}), "id", "method")
}

/// Methods of the API; this program has their table.
pub fn methods(begun: &OsStr) -> Vec<CompletionCandidate> {
    let begun = begun.to_str().unwrap_or_default();
    let table = server::table();
    let fitting = table.methods().filter(|method| method.name.starts_with(begun));
    fitting.map(|method| CompletionCandidate::new(method.name)).collect()
}

/// The objects whose field begins with what was typed, each with another field beside it.
fn names(begun: &OsStr, kind: &Kind, mut request: Value, field: &str, beside: &str) -> Vec<CompletionCandidate> {
    let (Some(begun), Some(client)) = (begun.to_str(), client()) else { return Vec::new() };
    request["limit"] = json!(NAMES);
    let Ok(page) = client.call_json(kind.list.0, &request) else { return Vec::new() };
    let rows = page[kind.list.1].as_array().into_iter().flatten();
    let fitting = rows.filter_map(|row| Some((row[field].as_str()?, row[beside].as_str())));
    let fitting = fitting.filter(|(name, _)| name.starts_with(begun));
    fitting
        .map(|(name, beside)| CompletionCandidate::new(name).help(beside.map(|text| text.to_owned().into())))
        .collect()
}

/// A client for the server that the line begun names.
fn client() -> Option<Client> {
    let line = std::env::args_os().skip_while(|argument| argument != "--").skip(1);
    let matches = Cli::command().ignore_errors(true).try_get_matches_from(line).ok()?;
    Server::from_arg_matches(&matches).ok()?.connect_within(PATIENCE).ok()
}
