//! `list` and `show` of everything: `vmyard node|pool|network|volume list|show`, and what tasks, templates and VMs have of it.

use crate::{
    client::Client,
    complete,
    failure::Failure,
    output::Output,
    table::{self, Cell, Column},
};
use clap_complete::ArgValueCompleter;
use serde_json::{Value, json};

/// A kind of object that can be listed and shown.
pub struct Kind {
    /// What its objects are called: `VMs`.
    pub plural: &'static str,
    /// The method that lists, and the field of its reply that has the rows.
    pub list: (&'static str, &'static str),
    /// The method that describes, and the field that names the object.
    pub show: (&'static str, &'static str),
    /// The columns.
    pub columns: &'static [Column],
    /// More columns, with `-o wide`.
    pub wide: &'static [Column],
}

/// What every `list` takes
#[derive(clap::Args)]
pub struct Limit {
    /// At most so many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: Option<u32>,
}

/// The node, for kinds whose names are unique only on their node
#[derive(clap::Args)]
pub struct OnNode {
    /// Only those on this node
    #[arg(long, add = ArgValueCompleter::new(complete::nodes))]
    pub node: Option<String>,
}

/// The rows that fit the request, of all pages, as one answer.
pub fn all(client: &Client, kind: &Kind, mut request: Value, limit: Option<u32>) -> Result<Value, Failure> {
    /// The most rows that the server puts on a page.
    const PAGE: usize = 1000;
    let rows = kind.list.1;
    let limit = limit.map_or(usize::MAX, |limit| limit as usize);
    let mut all: Option<Value> = None;
    loop {
        let so_far = all.as_ref().and_then(|all| all[rows].as_array()).map_or(0, Vec::len);
        request["limit"] = json!((limit - so_far).min(PAGE));
        let mut page = client.call_json(kind.list.0, &request)?;
        request["cursor"] = page["next_cursor"].clone();
        let all = match &mut all {
            // One answer is made of all pages.
            Some(all) => {
                let more = page[rows].as_array_mut().map(std::mem::take).unwrap_or_default();
                all[rows].as_array_mut().into_iter().for_each(|rows| rows.extend(more.iter().cloned()));
                all["next_cursor"] = page["next_cursor"].clone();
                all
            }
            None => all.insert(page),
        };
        if request["cursor"].is_null() || all[rows].as_array().is_none_or(|rows| rows.len() >= limit) {
            break;
        }
    }
    Ok(all.unwrap_or_default())
}

/// Prints the rows that fit the request, of all pages.
pub fn list(client: &Client, output: Output, kind: &Kind, request: Value, limit: Option<u32>) -> Result<(), Failure> {
    let (rows, all) = (kind.list.1, all(client, kind, request, limit)?);
    for node in all["unreachable"].as_array().into_iter().flatten() {
        let node = node.as_str().unwrap_or_default();
        eprintln!("warning: node {node} does not answer; what is on it is missing");
    }
    let found = all[rows].as_array().map(Vec::as_slice).unwrap_or_default();
    let columns = [kind.columns, if output.is_wide() { kind.wide } else { &[] }].concat();
    output.answer(&all, || {
        if found.is_empty() {
            eprintln!("no {}", kind.plural);
        }
        table::of(&columns, found)
    })
}

/// Asks for one object, by name or id. The request has more fields, where the name may fit several.
pub fn describe(client: &Client, kind: &Kind, name: &str, mut request: Value) -> Result<Value, Failure> {
    request[kind.show.1] = json!(name);
    client.call_json(kind.show.0, &request)
}

/// Prints one object, by name or id.
pub fn show(client: &Client, output: Output, kind: &Kind, name: &str, request: Value) -> Result<(), Failure> {
    let object = describe(client, kind, name, request)?;
    // In the order of the table's columns; the rest follows.
    let fields = kind.columns.iter().chain(kind.wide).filter_map(|(_, cell)| match cell {
        Cell::Field(field) if !field.contains('.') => Some(*field),
        _ => None,
    });
    let mut first = vec!["name", "id"];
    first.extend(fields.filter(|field| !["name", "id"].contains(field)));
    output.answer(&object, || table::describe(&object, &first))
}
