//! Events and their subscriptions.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{domain_xml, shared, wait_for};
use libvirt::{EventDetail, EventKind, LifecycleEvent, PoolChange, PoolEventKind, flags};

#[test]
fn lifecycle_events_come_in_order() {
    let conn = shared();
    let (send, receive) = channel();
    let send = Mutex::new(send);
    let subscription = conn
        .subscribe(EventKind::Lifecycle, move |event| {
            let thread = std::thread::current().name().map(str::to_owned);
            if event.name == "events" {
                send.lock().unwrap().send((event, thread)).unwrap();
            }
        })
        .unwrap();
    let domain = conn.define_domain(&domain_xml("events"), 0).unwrap();
    let uuid = domain.uuid();
    domain.start(0).unwrap();
    domain.suspend().unwrap();
    domain.resume().unwrap();
    domain.destroy(0).unwrap();
    domain.undefine(0).unwrap();
    let wanted = [
        (LifecycleEvent::Defined, flags::EVENT_DEFINED_ADDED),
        (LifecycleEvent::Started, flags::EVENT_STARTED_BOOTED),
        (LifecycleEvent::Suspended, flags::EVENT_SUSPENDED_PAUSED),
        (LifecycleEvent::Resumed, flags::EVENT_RESUMED_UNPAUSED),
        (LifecycleEvent::Stopped, flags::EVENT_STOPPED_DESTROYED),
        (LifecycleEvent::Undefined, flags::EVENT_UNDEFINED_REMOVED),
    ];
    for (event, detail) in wanted {
        let (got, thread) = receive.recv_timeout(Duration::from_secs(5)).unwrap();
        assert_eq!(got.detail, EventDetail::Lifecycle { event, detail });
        assert_eq!(got.uuid, uuid);
        assert_eq!(thread.as_deref(), Some("libvirt-events"));
    }
    drop(subscription);
}

#[test]
fn a_dropped_subscription_is_silent_and_freed() {
    let conn = shared();
    let state = Arc::new(AtomicUsize::new(0));
    let kept = state.clone();
    let count = move |event: libvirt::DomainEvent| {
        if event.name == "drops" {
            kept.fetch_add(1, Ordering::SeqCst);
        }
    };
    let subscription = conn.subscribe(EventKind::Lifecycle, count).unwrap();
    assert_eq!(Arc::strong_count(&state), 2);
    let domain = conn.define_domain(&domain_xml("drops"), 0).unwrap();
    wait_for(|| (state.load(Ordering::SeqCst) == 1).then_some(()));
    drop(subscription);
    wait_for(|| (Arc::strong_count(&state) == 1).then_some(()));

    // Another subscription that has seen the event proves that the dropped one would have.
    let (send, receive) = channel();
    let send = Mutex::new(send);
    let other = conn.subscribe(EventKind::Lifecycle, move |event| {
        let _ = send.lock().unwrap().send(event.name);
    });
    domain.undefine(0).unwrap();
    while receive.recv_timeout(Duration::from_secs(5)).unwrap() != "drops" {}
    drop(other);
    assert_eq!(state.load(Ordering::SeqCst), 1);
}

#[test]
fn a_panic_in_a_callback_is_caught() {
    let conn = shared();
    let calls = Arc::new(AtomicUsize::new(0));
    let kept = calls.clone();
    let subscription = conn
        .subscribe(EventKind::Lifecycle, move |event| {
            if event.name == "panics" {
                kept.fetch_add(1, Ordering::SeqCst);
                panic!("on purpose");
            }
        })
        .unwrap();
    let domain = conn.define_domain(&domain_xml("panics"), 0).unwrap();
    domain.undefine(0).unwrap();
    wait_for(|| (calls.load(Ordering::SeqCst) == 2).then_some(()));
    drop(subscription);
    wait_for(|| (Arc::strong_count(&calls) == 1).then_some(()));
}

#[test]
fn a_subscription_may_end_in_its_own_callback() {
    let conn = shared();
    let slot = Arc::new(Mutex::new(None));
    let kept = slot.clone();
    let subscription = conn
        .subscribe(EventKind::Lifecycle, move |event| {
            if event.name == "own" {
                drop(kept.lock().unwrap().take());
            }
        })
        .unwrap();
    *slot.lock().unwrap() = Some(subscription);
    let domain = conn.define_domain(&domain_xml("own"), 0).unwrap();
    wait_for(|| (Arc::strong_count(&slot) == 1).then_some(()));
    assert!(slot.lock().unwrap().is_none());
    domain.undefine(0).unwrap();
}

#[test]
fn a_subscription_keeps_the_connection() {
    let conn = shared();
    let seen = Arc::new(AtomicUsize::new(0));
    let kept = seen.clone();
    let subscription = conn.subscribe(EventKind::Lifecycle, move |event| {
        if event.name == "keeps" {
            kept.fetch_add(1, Ordering::SeqCst);
        }
    });
    drop(conn);
    let domain = shared().create_domain(&domain_xml("keeps"), 0).unwrap();
    wait_for(|| (seen.load(Ordering::SeqCst) > 0).then_some(()));
    domain.destroy(0).unwrap();
    drop(subscription);
}

#[test]
fn subscriptions_come_and_go_while_events_fly() {
    let conn = shared();
    let state = Arc::new(());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let domain = conn.define_domain(&domain_xml("flies"), 0).unwrap();
            for _ in 0..300 {
                domain.start(0).unwrap();
                domain.destroy(0).unwrap();
            }
            domain.undefine(0).unwrap();
        });
        for _ in 0..2 {
            scope.spawn(|| {
                // A connection each, as one takes each callback once.
                let conn = shared();
                for _ in 0..300 {
                    let kept = state.clone();
                    let used = move |_| assert!(Arc::strong_count(&kept) > 1);
                    drop(conn.subscribe(EventKind::Lifecycle, used).unwrap());
                }
            });
        }
    });
    wait_for(|| (Arc::strong_count(&state) == 1).then_some(()));
}

#[test]
fn a_kind_is_subscribed_to_once_in_a_connection() {
    let conn = shared();
    let state = Arc::new(());
    let kept = state.clone();
    let first = conn.subscribe(EventKind::Reboot, |_| ()).unwrap();
    let error = conn.subscribe(EventKind::Reboot, move |_| drop(kept.clone())).unwrap_err();
    assert_eq!(error.code, libvirt::ErrorCode::INVALID_ARG);
    assert_eq!(Arc::strong_count(&state), 1, "the refused closure is freed");
    drop(first);
    drop(conn.subscribe(EventKind::Reboot, |_| ()).unwrap());
}

#[test]
fn every_kind_can_be_subscribed_to() {
    use EventKind::*;
    let conn = shared();
    let kinds = [
        Lifecycle,
        Reboot,
        RtcChange,
        Watchdog,
        IoError,
        BlockJob,
        TrayChange,
        BalloonChange,
        DeviceAdded,
        DeviceRemoved,
        DeviceRemovalFailed,
        AgentLifecycle,
        MetadataChange,
        BlockThreshold,
        MemoryDeviceSizeChange,
    ];
    for kind in kinds {
        drop(conn.subscribe(kind, |_| ()).unwrap());
    }
}

#[test]
fn metadata_and_reboots_are_told() {
    let conn = shared();
    let (send, receive) = channel();
    let send = Mutex::new(send);
    let subscription = conn
        .subscribe(EventKind::MetadataChange, move |event| {
            if event.name == "told" {
                send.lock().unwrap().send(event.detail).unwrap();
            }
        })
        .unwrap();
    let domain = conn.define_domain(&domain_xml("told"), 0).unwrap();
    domain.set_metadata(Some("<a/>"), "a", "urn:a", flags::AFFECT_CONFIG).unwrap();
    domain.set_title(Some("t"), flags::AFFECT_CONFIG).unwrap();
    let element = EventDetail::MetadataChange { kind: flags::METADATA_ELEMENT, uri: Some("urn:a".to_owned()) };
    let title = EventDetail::MetadataChange { kind: flags::METADATA_TITLE, uri: None };
    assert_eq!(receive.recv_timeout(Duration::from_secs(5)).unwrap(), element);
    assert_eq!(receive.recv_timeout(Duration::from_secs(5)).unwrap(), title);
    domain.undefine(0).unwrap();
    drop(subscription);
}

#[test]
fn pool_events_come() {
    let conn = shared();
    let (send, receive) = channel();
    let send = Arc::new(Mutex::new(send));
    let subscribe = |kind| {
        let send = send.clone();
        conn.subscribe_pools(kind, move |event| {
            if event.name == "pool-events" {
                send.lock().unwrap().send(event.change).unwrap();
            }
        })
    };
    let subscriptions = (subscribe(PoolEventKind::Lifecycle).unwrap(), subscribe(PoolEventKind::Refresh).unwrap());
    let xml = "<pool type='dir'><name>pool-events</name><target><path>/p-e</path></target></pool>";
    let pool = conn.define_pool(xml).unwrap();
    pool.start(0).unwrap();
    pool.refresh(0).unwrap();
    pool.destroy().unwrap();
    pool.undefine().unwrap();
    use PoolChange::*;
    for change in [Defined, Started, Refreshed, Stopped, Undefined] {
        assert_eq!(receive.recv_timeout(Duration::from_secs(5)).unwrap(), change);
    }
    drop(subscriptions);
}
