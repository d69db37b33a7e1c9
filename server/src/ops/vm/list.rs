//! Listing, from the index alone.

use crate::{
    Context, Error, Result,
    index::{Entry, Moment},
    ops::page,
    store::name_key,
};
use api::{
    Page,
    vm::{ListVms, Vm, Vms},
};
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
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
            && name.as_ref().is_none_or(|name| entry.name_key().contains(name))
            && request.tags.as_ref().is_none_or(|wanted| wanted.iter().all(has_tag))
    };
    let page = Page { limit: request.limit, cursor: request.cursor };
    let after = page.cursor.as_deref().map(|cursor| order.read_cursor(cursor)).transpose()?;
    let after = after.as_ref().map(Key::borrowed);

    let filtered = node.is_some()
        || request.state.is_some()
        || request.managed.is_some()
        || request.name.is_some()
        || request.tags.is_some();
    app.index.at_once(|moment| {
        // The page, and one row that tells whether there is another page.
        let wanted = page.limit() + 1;
        let (mut rows, total) = match order.by {
            By::Name if !filtered => {
                let after = after.as_ref().map(|after| (after.name, after.id));
                let rows = moment.by_name(after, order.descending, wanted);
                (rows.map(|(id, entry)| (order.key(id, entry), entry)).collect(), moment.count() as u64)
            }
            _ => select(moment, &order, fits, after.as_ref(), wanted),
        };
        let more = rows.len() > page.limit();
        rows.truncate(page.limit());
        let last = rows.last().filter(|_| more);
        let next_cursor = last.map(|(key, _)| order.write_cursor(key)).transpose()?;
        let wire = |entry: &Entry| {
            let usage = entry.seen.as_ref().filter(|_| request.usage).and_then(|seen| seen.usage.clone());
            Vm { usage, ..moment.to_wire(entry) }
        };
        Ok(Vms { vms: rows.iter().map(|(_, entry)| wire(entry)).collect(), next_cursor, total })
    })
}

/// A VM with its place in the order.
type Row<'a> = (Key<&'a str>, &'a Entry);

/// The first so many of those that fit and come after a place, in their order, and how many fit.
fn select<'a>(
    moment: Moment<'a>,
    order: &Order<'_>,
    fits: impl Fn(&Entry) -> bool,
    after: Option<&Key<&str>>,
    wanted: usize,
) -> (Vec<Row<'a>>, u64) {
    let compare = |a: &Row<'a>, b: &Row<'a>| order.compare(&a.0, &b.0);
    let (mut total, mut rows) = (0, Vec::with_capacity(2 * wanted));
    let mut worst: Option<Key<&str>> = None;
    for (id, entry) in moment.vms().filter(|(_, entry)| fits(entry)) {
        total += 1;
        let key = order.key(id, entry);
        let is_after = |other: &Key<&str>| order.compare(&key, other).is_gt();
        if after.is_some_and(|after| !is_after(after)) || worst.as_ref().is_some_and(is_after) {
            continue;
        }
        rows.push((key, entry));
        // What can't be on the page goes now and then, so that nothing but the page is ever sorted.
        if rows.len() == 2 * wanted {
            rows.select_nth_unstable_by(wanted - 1, compare);
            rows.truncate(wanted);
            worst = rows.last().map(|(key, _)| *key);
        }
    }
    rows.sort_unstable_by(compare);
    (rows, total)
}

/// A row's place in the order. Where it is decided by nothing else the name decides, then the id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Key<S> {
    number: i64,
    text: S,
    name: S,
    id: Uuid,
}

impl Key<String> {
    fn borrowed(&self) -> Key<&str> {
        Key { number: self.number, text: &self.text, name: &self.name, id: self.id }
    }
}

/// What a cursor has in it: the last row's place, and in which order.
#[derive(Serialize, Deserialize)]
struct Cursor<S> {
    sort: S,
    after: Key<S>,
}

/// The order of a list.
struct Order<'a> {
    text: &'a str,
    by: By<'a>,
    descending: bool,
}

enum By<'a> {
    Name,
    State,
    Node,
    CreatedAt,
    Tag(&'a str),
}

impl<'a> Order<'a> {
    fn parse(text: &'a str) -> Result<Order<'a>> {
        let (descending, field) = text.strip_prefix('-').map_or((false, text), |field| (true, field));
        let by = match field {
            "name" => By::Name,
            "state" => By::State,
            "node" => By::Node,
            "created_at" => By::CreatedAt,
            field => match field.strip_prefix("tag:") {
                Some(key) if !key.is_empty() => By::Tag(key),
                _ => {
                    let message = format!(
                        "must be name, state, node, created_at or tag:<key>, with '-' in front for descending, is {text:?}"
                    );
                    return Err(Error::field("sort", message));
                }
            },
        };
        Ok(Order { text, by, descending })
    }

    fn key<'e>(&self, id: Uuid, entry: &'e Entry) -> Key<&'e str> {
        let record = entry.record.as_ref();
        let text = match &self.by {
            By::Name | By::CreatedAt => "",
            By::State => entry.state().as_str(),
            By::Node => &entry.node,
            By::Tag(key) => record.and_then(|record| record.spec.tags.get(*key)).map_or("", String::as_str),
        };
        let number = match &self.by {
            By::CreatedAt => record.map_or(0, |record| record.created_at.0),
            By::Name | By::State | By::Node | By::Tag(_) => 0,
        };
        Key { number, text, name: entry.name_key(), id }
    }

    fn compare(&self, a: &Key<&str>, b: &Key<&str>) -> Ordering {
        if self.descending { b.cmp(a) } else { a.cmp(b) }
    }

    fn write_cursor(&self, after: &Key<&str>) -> Result<String> {
        let cursor = Cursor { sort: self.text, after: *after };
        let text =
            serde_json::to_string(&cursor).map_err(|error| Error::Internal(format!("write a cursor: {error}")))?;
        Ok(page::write_cursor(&text))
    }

    fn read_cursor(&self, cursor: &str) -> Result<Key<String>> {
        let cursor: Option<Cursor<String>> = serde_json::from_str(&page::read_cursor(cursor)?).ok();
        let cursor = cursor.filter(|cursor| cursor.sort == self.text);
        let message = "is not one that this method gave for this order; begin again without it";
        cursor.map(|cursor| cursor.after).ok_or_else(|| Error::field("cursor", message))
    }
}
