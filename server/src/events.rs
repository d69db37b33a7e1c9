//! Writing down what happens beside the tasks. What tasks do is written with them, by the store.
//!
//! Whoever notices something tells it here and goes on at once; one writer gives the events their numbers, in the order
//! in which they were told. Those who follow them read them from the store, and are only woken from here.

use crate::{
    App,
    store::{Definition, NewEvent, Store},
};
use api::{Time, event::EventKind};
use serde_json::json;
use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::Instant,
};
use uuid::Uuid;

/// Clients that follow the events at a time: each reads the store whenever something happens.
pub const CLIENTS: usize = 200;
/// How many events wait at most while they can't be written; those beyond are lost, and counted.
const WAITING: usize = 10_000;
/// How many are written at a time.
const AT_ONCE: usize = 500;
/// The time between two attempts.
const PAUSE: Duration = Duration::from_secs(1);
/// What is known of definitions and is nothing new to anybody is written so much later, with what comes until then: the tasks that
/// have made them what they are want to be written first.
const LATER: Duration = Duration::from_millis(500);

/// Where events are told. Cheap to clone.
#[derive(Clone)]
pub struct Events {
    writer: mpsc::UnboundedSender<Note>,
    /// The places for clients that follow the events.
    places: Arc<Semaphore>,
}

/// What was told, for the writer.
pub type Told = mpsc::UnboundedReceiver<Note>;

/// What is to be written.
pub enum Note {
    /// Something that has happened.
    Event(NewEvent),
    /// What is known of a VM's definition, and that it was changed.
    Definition(Uuid, Definition, Option<NewEvent>),
}

impl Default for Events {
    /// Nobody writes them down.
    fn default() -> Events {
        Events::new().0
    }
}

impl Events {
    /// With what [`write_for_ever`] writes.
    pub fn new() -> (Events, Told) {
        let (writer, told) = mpsc::unbounded_channel();
        (Events { writer, places: Arc::new(Semaphore::new(CLIENTS)) }, told)
    }

    /// Tells that something has happened.
    pub fn tell(&self, event: NewEvent) {
        // Nobody writes any more: the server goes down.
        let _ = self.writer.send(Note::Event(event));
    }

    /// Has it written down what is known of a VM's definition, and in one with that what is told of it.
    pub fn knows(&self, vm: Uuid, definition: Definition, told: Option<NewEvent>) {
        let _ = self.writer.send(Note::Definition(vm, definition, told));
    }

    /// Keeps a place for a client that follows the events, unless all are taken.
    pub fn follow(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).try_acquire_owned().ok()
    }

    /// Tells of a VM.
    pub fn tell_of_vm(&self, app: &App, vm: Uuid, kind: EventKind, what: &str, details: serde_json::Value) {
        let Some(entry) = app.index.get(vm) else { return };
        self.tell(of_vm(kind, vm, entry.name(), &entry.node, what, details));
    }
}

/// About nothing in particular.
pub fn general(kind: EventKind, message: String, details: serde_json::Value) -> NewEvent {
    NewEvent { at: Time::now(), kind, vm: None, vm_name: None, node: None, task: None, message, details }
}

/// About a VM.
pub fn of_vm(kind: EventKind, vm: Uuid, name: &str, node: &str, what: &str, details: serde_json::Value) -> NewEvent {
    let event = general(kind, format!("{name}: {what}"), details);
    NewEvent { vm: Some(vm), vm_name: Some(name.to_owned()), node: Some(node.to_owned()), ..event }
}

/// Runs until nobody can tell anything any more: writes what is told. What can't be written is tried again.
pub async fn write_for_ever(store: Store, mut told: Told) {
    let mut waiting = Waiting::default();
    let mut received = Vec::new();
    loop {
        if !waiting.notes.is_empty() {
            // The last attempt has failed.
            tokio::time::sleep(PAUSE).await;
            while let Ok(note) = told.try_recv() {
                waiting.take(note);
            }
        } else {
            let due = waiting.due.unwrap_or_else(Instant::now);
            tokio::select! {
                count = told.recv_many(&mut received, AT_ONCE) => {
                    if count == 0 {
                        return write_definitions(&store, &mut waiting).await;
                    }
                    received.drain(..).for_each(|note| waiting.take(note));
                }
                () = tokio::time::sleep_until(due), if waiting.due.is_some() => {
                    write_definitions(&store, &mut waiting).await;
                }
            }
        }
        let written = async {
            write(&store, &mut waiting.notes).await?;
            let lost = waiting.lost;
            if lost > 0 {
                let message = format!("{lost} events could not be written, and are lost");
                store.insert_events(&[general(EventKind::EventsLost, message, json!({"count": lost}))]).await?;
                waiting.lost = 0;
            }
            crate::Result::Ok(())
        };
        if let Err(error) = written.await {
            tracing::warn!(%error, waiting = waiting.notes.len(), lost = waiting.lost, "events can't be written now");
        }
    }
}

/// What is to be written.
#[derive(Default)]
struct Waiting {
    notes: VecDeque<Note>,
    /// How many were too many.
    lost: u64,
    /// What is known of definitions, without anything to tell.
    definitions: HashMap<Uuid, Definition>,
    /// When these are written, if there are any.
    due: Option<Instant>,
}

impl Waiting {
    fn take(&mut self, note: Note) {
        match note {
            Note::Definition(vm, definition, None) => {
                self.definitions.insert(vm, definition);
                self.due = self.due.or_else(|| Some(Instant::now() + LATER));
            }
            _ if self.notes.len() >= WAITING => self.lost += 1,
            note => {
                if let Note::Definition(vm, ..) = &note {
                    self.definitions.remove(vm);
                }
                self.notes.push_back(note);
            }
        }
    }
}

async fn write_definitions(store: &Store, waiting: &mut Waiting) {
    waiting.due = None;
    match store.know(&waiting.definitions, None).await {
        Ok(()) => waiting.definitions.clear(),
        Err(error) => {
            tracing::warn!(%error, "what is known of definitions can't be written now");
            waiting.due = Some(Instant::now() + PAUSE);
        }
    }
}

/// Writes what waits, in its order; events that follow one another in one transaction.
async fn write(store: &Store, waiting: &mut VecDeque<Note>) -> crate::Result<()> {
    while let Some(first) = waiting.front() {
        if let Note::Definition(vm, definition, told) = first {
            store.know(&HashMap::from([(*vm, definition.clone())]), told.clone()).await?;
            waiting.pop_front();
            continue;
        }
        let events = waiting.iter().take(AT_ONCE).map_while(|note| match note {
            Note::Event(event) => Some(event.clone()),
            Note::Definition(..) => None,
        });
        let events: Vec<NewEvent> = events.collect();
        store.insert_events(&events).await?;
        waiting.drain(..events.len());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{EventFilter, EventRange};

    #[tokio::test]
    async fn numbers_have_no_holes_and_what_is_old_goes() {
        let store = Store::open("sqlite::memory:").await.unwrap();
        assert_eq!(store.event_range().await.unwrap(), EventRange { first: 1, last: 0 });
        let (events, told) = Events::new();
        for number in 0..1200 {
            events.tell(general(EventKind::NodeState, number.to_string(), json!({})));
        }
        drop(events);
        write_for_ever(store.clone(), told).await;
        assert_eq!(store.event_range().await.unwrap(), EventRange { first: 1, last: 1200 });
        let all = store.events_after(&EventFilter::default(), 0, 1200, 2000).await.unwrap();
        assert!(all.iter().enumerate().all(|(at, event)| event.id == at as u64 + 1 && event.message == at.to_string()));
        store.forget_events(Time(0), 1000).await.unwrap();
        assert_eq!(store.event_range().await.unwrap(), EventRange { first: 201, last: 1200 });
        store.forget_events(Time(i64::MAX), 1000).await.unwrap();
        assert_eq!(store.event_range().await.unwrap(), EventRange { first: 1201, last: 1200 });
    }
    #[tokio::test]
    async fn what_can_not_be_written_waits_and_beyond_many_is_counted() {
        let dir = std::env::temp_dir().join(format!("vmyard-events-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let url = Store::default_url(&dir);
        let store = Store::open(&url).await.unwrap();
        let beside = sqlx::AnyPool::connect(&url).await.unwrap();
        sqlx::query("alter table event rename to event_away").execute(&beside).await.unwrap();
        let (events, told) = Events::new();
        let tell = |numbers: std::ops::Range<usize>| {
            for number in numbers {
                events.tell(general(EventKind::NodeState, number.to_string(), json!({})));
            }
        };
        // The first ones are tried at once, so that all others are found waiting.
        tell(0..10);
        let writer = tokio::spawn(write_for_ever(store.clone(), told));
        while store.events_after(&EventFilter::default(), 0, 1, 1).await.is_ok() {
            tokio::task::yield_now().await;
        }
        tell(10..WAITING + 700);
        tokio::time::sleep(PAUSE * 2).await;
        sqlx::query("alter table event_away rename to event").execute(&beside).await.unwrap();
        drop(events);
        writer.await.unwrap();
        let last = store.event_range().await.unwrap().last;
        assert_eq!(last, WAITING as i64 + 1);
        let all = store.events_after(&EventFilter::default(), 0, last, WAITING + 10).await.unwrap();
        assert!(all.iter().take(WAITING).enumerate().all(|(at, event)| event.message == at.to_string()));
        let lost = all.last().unwrap();
        assert_eq!((lost.kind, &lost.details["count"]), (EventKind::EventsLost, &json!(700)));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
