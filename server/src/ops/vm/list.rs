//! Listing, from the index alone.

use crate::{Context, Error, Result, index::Entry, ops::page, store::name_key};
use api::{
    Page,
    vm::{ListVms, Vm, Vms},
};
use uuid::Uuid;

/// `list-vms`
pub async fn list(context: Context, request: ListVms) -> Result<Vms> {
    let app = &context.app;
    let order = Order::parse(request.sort.as_deref().unwrap_or("name"))?;
    let node =
        request.node.as_deref().map(|reference| app.node(reference).map(|node| node.name().to_owned())).transpose()?;
    let name = request.name.as_deref().map(name_key);
    let fits = |entry: &Entry| {
        let tags = entry.record.as_ref().map(|record| &record.spec.tags);
        let has_tag = |(key, value): (&String, &String)| tags.is_some_and(|tags| tags.get(key) == Some(value));
        node.as_ref().is_none_or(|node| entry.node == *node)
            && request.state.is_none_or(|state| entry.state() == state)
            && request.managed.is_none_or(|managed| entry.record.is_some() == managed)
            && name.as_ref().is_none_or(|name| name_key(entry.name()).contains(name))
            && request.tags.as_ref().is_none_or(|wanted| wanted.iter().all(has_tag))
    };

    // Keys first: only the rows of the page are copied out of the index.
    let mut keys: Vec<(String, Uuid)> = Vec::new();
    app.index.each(|id, entry, _| {
        if fits(entry) {
            keys.push((order.key(entry), id));
        }
    });
    keys.sort_unstable();
    let total = keys.len() as u64;
    if order.descending {
        keys.reverse();
    }
    let page = Page { limit: request.limit, cursor: request.cursor };
    let after = page.cursor.as_deref().map(read_cursor).transpose()?;
    let begin = after.map_or(0, |after| match order.descending {
        true => keys.partition_point(|key| *key >= after),
        false => keys.partition_point(|key| *key <= after),
    });
    let rows = &keys[begin..keys.len().min(begin + page.limit())];
    let more = begin + rows.len() < keys.len();
    let next_cursor = rows.last().filter(|_| more).map(|(key, id)| page::write_cursor(&format!("{id}{key}")));
    // One that went away since the keys were read is left out.
    let vms: Vec<Vm> = rows.iter().filter_map(|(_, id)| app.index.to_wire(*id).ok()).collect();
    Ok(Vms { vms, next_cursor, total })
}

fn read_cursor(cursor: &str) -> Result<(String, Uuid)> {
    let text = page::read_cursor(cursor)?;
    let parts = text.get(..36).and_then(|id| id.parse::<Uuid>().ok()).zip(text.get(36..));
    let (id, key) =
        parts.ok_or_else(|| Error::field("cursor", "is not one that this method gave; begin again without it"))?;
    Ok((key.to_owned(), id))
}

/// The order of a list.
struct Order {
    by: By,
    descending: bool,
}

enum By {
    Name,
    State,
    Node,
    CreatedAt,
    Tag(String),
}

impl Order {
    fn parse(text: &str) -> Result<Order> {
        let (descending, field) = text.strip_prefix('-').map_or((false, text), |field| (true, field));
        let by = match field {
            "name" => By::Name,
            "state" => By::State,
            "node" => By::Node,
            "created_at" => By::CreatedAt,
            field => match field.strip_prefix("tag:") {
                Some(key) if !key.is_empty() => By::Tag(key.to_owned()),
                _ => {
                    let message = format!(
                        "must be name, state, node, created_at or tag:<key>, with '-' in front for descending, is {text:?}"
                    );
                    return Err(Error::field("sort", message));
                }
            },
        };
        Ok(Order { by, descending })
    }

    /// What the order is by; the name decides between equals, then the id.
    fn key(&self, entry: &Entry) -> String {
        let name = name_key(entry.name());
        match &self.by {
            By::Name => name,
            By::State => format!("{}\n{name}", entry.state().as_str()),
            By::Node => format!("{}\n{name}", entry.node),
            By::CreatedAt => {
                let created_at = entry.record.as_ref().map_or(0, |record| record.created_at.0);
                format!("{created_at:020}\n{name}")
            }
            By::Tag(key) => {
                let tag = entry.record.as_ref().and_then(|record| record.spec.tags.get(key));
                format!("{}\n{name}", tag.map(String::as_str).unwrap_or_default())
            }
        }
    }
}
