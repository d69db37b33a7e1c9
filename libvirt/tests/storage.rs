//! Pools, volumes, streams.
#![allow(clippy::unwrap_used)]

mod common;

use common::shared;
use libvirt::{Connect, ErrorCode, Pool, PoolState, Stream, VolumeKind, flags};

fn pool(conn: &Connect, name: &str) -> Pool {
    let xml = format!("<pool type='dir'><name>{name}</name><target><path>/pools/{name}</path></target></pool>");
    conn.define_pool(&xml).unwrap()
}

fn volume_xml(name: &str, bytes: u64) -> String {
    format!("<volume><name>{name}</name><capacity>{bytes}</capacity><target><format type='qcow2'/></target></volume>")
}

#[test]
fn a_pool_lives_from_definition_to_undefinition() {
    let conn = shared();
    let pool = pool(&conn, "life");
    assert_eq!((pool.is_active().unwrap(), pool.is_persistent().unwrap()), (false, true));
    assert_eq!(pool.volumes().unwrap_err().code, ErrorCode::OPERATION_INVALID);
    pool.build(0).unwrap();
    pool.start(0).unwrap();
    assert_eq!(pool.start(0).unwrap_err().code, ErrorCode::OPERATION_INVALID);
    let info = pool.info().unwrap();
    assert_eq!(info.state, PoolState::Running);
    assert_eq!(info.capacity, info.allocation + info.available);
    pool.set_autostart(true).unwrap();
    assert!(pool.autostart().unwrap());
    assert_eq!(conn.pool_by_uuid(pool.uuid()).unwrap().name(), "life");
    assert!(conn.pools(flags::LIST_POOLS_ACTIVE).unwrap().iter().any(|pool| pool.name() == "life"));
    assert!(!conn.pools(flags::LIST_POOLS_INACTIVE).unwrap().iter().any(|pool| pool.name() == "life"));
    assert!(pool.xml(0).unwrap().contains("<path>/pools/life</path>"));
    pool.refresh(0).unwrap();
    pool.destroy().unwrap();
    pool.undefine().unwrap();
    assert_eq!(conn.pool_by_name("life").unwrap_err().code, ErrorCode::NO_STORAGE_POOL);
}

#[test]
fn volumes_are_made_copied_and_deleted() {
    let conn = shared();
    let pool = pool(&conn, "volumes");
    pool.start(0).unwrap();
    let volume = pool.create_volume(&volume_xml("one", 1 << 20), 0).unwrap();
    assert_eq!(volume.name(), "one");
    assert_eq!(volume.path().unwrap(), "/pools/volumes/one");
    assert_eq!(volume.key(), "/pools/volumes/one");
    let info = volume.info().unwrap();
    assert_eq!((info.kind, info.capacity), (VolumeKind::File, 1 << 20));
    assert!(volume.xml().unwrap().contains("<format type='qcow2'/>"));
    assert_eq!(volume.pool().unwrap().name(), "volumes");
    let again = pool.create_volume(&volume_xml("one", 1), 0).unwrap_err();
    assert_eq!(again.code, ErrorCode::OPERATION_FAILED, "a real driver says STORAGE_VOL_EXIST");

    let copy = pool.create_volume_from(&volume_xml("two", 1 << 20), &volume, 0).unwrap();
    let mut names: Vec<_> = pool.volumes().unwrap().iter().map(|volume| volume.name()).collect();
    names.sort();
    assert_eq!(names, ["one", "two"]);
    assert_eq!(conn.volume_by_path("/pools/volumes/two").unwrap().name(), "two");
    assert_eq!(conn.volume_by_key(&copy.key()).unwrap().name(), "two");
    copy.delete(0).unwrap();
    assert_eq!(pool.volume_by_name("two").unwrap_err().code, ErrorCode::NO_STORAGE_VOL);
    assert_eq!(copy.info().unwrap_err().code, ErrorCode::NO_STORAGE_VOL);
    assert_eq!(volume.resize(2 << 20, 0).unwrap_err().code, ErrorCode::NO_SUPPORT);

    volume.clone().delete(0).unwrap();
    pool.destroy().unwrap();
    pool.undefine().unwrap();
}

#[test]
fn a_stream_that_is_not_connected_says_so() {
    let conn = shared();
    let stream = Stream::new(&conn, flags::STREAM_NONBLOCK).unwrap();
    assert_eq!(stream.send(b"x").unwrap_err().code, ErrorCode::NO_SUPPORT);
    assert_eq!(stream.try_recv(&mut [0; 8]).unwrap_err().code, ErrorCode::NO_SUPPORT);
    let state = std::sync::Arc::new(());
    let kept = state.clone();
    let events = stream.on_event(flags::STREAM_EVENT_READABLE, move |_| drop(kept.clone()));
    assert_eq!(events.unwrap_err().code, ErrorCode::NO_SUPPORT);
    assert_eq!(std::sync::Arc::strong_count(&state), 1, "the refused closure is freed");
    stream.remove_event().unwrap();
    drop(conn);
    drop(stream);
}

/// The test driver has one stream: a picture, read from a file of this process.
#[test]
fn a_screenshot_is_read_to_its_end() {
    use std::io::Read;
    let conn = shared();
    let domain = conn.domain_by_name("test").unwrap();
    let stream = Stream::new(&conn, 0).unwrap();
    match domain.screenshot(&stream, 0, 0) {
        Ok(mime) => {
            assert_eq!(mime, "image/png");
            let mut picture = Vec::new();
            (&stream).read_to_end(&mut picture).unwrap();
            assert_eq!(picture.get(..4), Some(&b"\x89PNG"[..]));
            stream.finish().unwrap();
            assert_eq!(stream.finish().unwrap_err().code, ErrorCode::INVALID_STREAM);
            stream.abort().unwrap();
        }
        // Debian leaves the file out.
        Err(error) => assert_eq!(error.code, ErrorCode::SYSTEM_ERROR, "{error}"),
    }
}
