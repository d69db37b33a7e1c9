//! Events as they happen, as server-sent events: <https://html.spec.whatwg.org/multipage/server-sent-events.html>.
//!
//! Everything is read from the store, after the number of the last event that was sent: nothing is missed or told twice, however
//! slow the client is or how often it comes back.

use super::http::{Shared, authenticate_reader, respond_error};
use crate::{App, Error, Result, console::outlived, events::CLIENTS, store::EventFilter};
use api::event::{Event, EventKind};
use axum::{
    Extension,
    extract::State,
    http::{HeaderMap, HeaderValue, Uri, header},
    response::{
        IntoResponse, Response, Sse,
        sse::{Event as Sent, KeepAlive},
    },
};
use futures::{Stream, StreamExt};
use serde_json::json;
use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};
use tokio::sync::{OwnedSemaphorePermit, watch};
use uuid::Uuid;

/// Events read at a time.
const PAGE: usize = 200;
/// How often something is sent when nothing happens, so that a proxy doesn't take the connection for dead.
const ALIVE: Duration = Duration::from_secs(15);
/// How soon a client should come back that was cut off.
const RETRY: Duration = Duration::from_secs(2);

/// `GET /api/events?after=…&vm=…&node=…&kinds=…`
pub(super) async fn events(
    State(shared): State<Arc<Shared>>,
    Extension(request_id): Extension<Uuid>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let app = shared.app.clone();
    let begun = async {
        let caller = authenticate_reader(&app, &headers).await?;
        let (filter, after) = asked(&uri, &headers)?;
        // The watch first: what happens from now on wakes.
        let news = app.store.follow_events();
        let range = app.store.event_range().await?;
        let after = after.unwrap_or(range.last);
        let full = || Error::Busy { detail: format!("{CLIENTS} clients follow the events already"), task: None };
        let place = app.events.follow().ok_or_else(full)?;
        Ok((caller, Feed { app: app.clone(), filter, after, ready: VecDeque::new(), news, _place: place }))
    };
    let (caller, feed) = match begun.await {
        Ok(begun) => begun,
        Err(error) => return respond_error(&error, request_id),
    };
    let ended = async move {
        tokio::select! {
            why = outlived(&app, &caller) => why,
            () = app.consoles.stop.cancelled() => "the server stops".to_owned(),
        }
    };
    let hello = futures::stream::once(async { Ok(Sent::default().retry(RETRY)) });
    let stream = hello.chain(feed.into_stream()).take_until(ended);
    let mut response = Sse::new(stream).keep_alive(KeepAlive::new().interval(ALIVE)).into_response();
    // A proxy that gathers answers would keep events back.
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// What is asked for, and after which event; a client that comes back says so in a header.
fn asked(uri: &Uri, headers: &HeaderMap) -> Result<(EventFilter, Option<i64>)> {
    let number = |name: &'static str, text: &str| {
        let number = text.parse::<i64>().ok().filter(|number| *number >= 0);
        number.ok_or_else(|| Error::field(name, format!("must be the id of an event, is {text:?}")))
    };
    let (mut filter, mut after) = (EventFilter::default(), None);
    // Only the part behind the question mark is read.
    let url = reqwest::Url::parse(&format!("http://server/?{}", uri.query().unwrap_or_default()));
    let url = url.map_err(|error| Error::field("", format!("the query can't be read: {error}")))?;
    for (name, value) in url.query_pairs() {
        match name.as_ref() {
            "vm" => filter.vm = Some(value.into_owned()),
            "node" => filter.node = Some(value.into_owned()),
            "kinds" => {
                for kind in value.split(',') {
                    let known = EventKind::parse(kind).ok_or_else(|| {
                        let all = EventKind::ALL.map(EventKind::as_str).join(", ");
                        Error::field("kinds", format!("must be some of {all}, with commas between them; has {kind:?}"))
                    })?;
                    filter.kinds.push(known);
                }
            }
            "after" => after = Some(number("after", &value)?),
            other => return Err(Error::field(other, "is not known; there are vm, node, kinds and after")),
        }
    }
    if let Some(last) = headers.get("last-event-id") {
        after = Some(number("Last-Event-ID", last.to_str().unwrap_or_default())?);
    }
    Ok((filter, after))
}

/// The events for one client.
struct Feed {
    app: App,
    filter: EventFilter,
    /// The last event that was looked at.
    after: i64,
    /// What is to be sent.
    ready: VecDeque<Sent>,
    news: watch::Receiver<u64>,
    /// Its place among the clients.
    _place: OwnedSemaphorePermit,
}

impl Feed {
    fn into_stream(self) -> impl Stream<Item = std::result::Result<Sent, Infallible>> {
        futures::stream::unfold(self, |mut feed| async move {
            loop {
                if let Some(sent) = feed.ready.pop_front() {
                    return Some((Ok(sent), feed));
                }
                // Before the look: what comes after it wakes.
                feed.news.mark_unchanged();
                match feed.look().await {
                    Ok(()) if feed.ready.is_empty() => feed.news.changed().await.ok()?,
                    Ok(()) => {}
                    Err(error) => {
                        tracing::warn!(%error, "events can't be read now");
                        tokio::time::sleep(RETRY).await;
                    }
                }
            }
        })
    }

    /// Reads what there is after the last one.
    async fn look(&mut self) -> Result<()> {
        let range = self.app.store.event_range().await?;
        if let Some(next) = range.gap_after(self.after) {
            let details = json!({"after": self.after, "first": range.first, "last": range.last});
            self.ready.push_back(Sent::default().event("gap").data(details.to_string()));
            self.after = next;
        }
        let events = self.app.store.events_after(&self.filter, self.after, range.last, PAGE).await?;
        self.after = match events.last() {
            Some(last) if events.len() == PAGE => last.id as i64,
            _ => range.last,
        };
        self.ready.extend(events.iter().map(sent));
        Ok(())
    }
}

fn sent(event: &Event) -> Sent {
    let data = serde_json::to_string(event).unwrap_or_default();
    Sent::default().id(event.id.to_string()).event(event.kind.as_str()).data(data)
}
