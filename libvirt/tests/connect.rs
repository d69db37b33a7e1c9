//! Connections, errors, the node.
#![allow(clippy::unwrap_used)]

mod common;

use common::shared;
use std::sync::Arc;

use libvirt::{Connect, ErrorCode, flags, library_version};

#[test]
fn handles_are_send_and_sync() {
    fn check<T: Send + Sync>() {}
    check::<Connect>();
    check::<libvirt::Domain>();
    check::<libvirt::Pool>();
    check::<libvirt::Volume>();
    check::<libvirt::Network>();
    check::<libvirt::Stream>();
    check::<libvirt::Subscription>();
    check::<libvirt::Error>();
}

#[test]
fn opens_and_tells_of_the_node() {
    let conn = shared();
    assert!(conn.is_alive());
    assert_eq!(conn.uri().unwrap(), "test:///default");
    assert!(!conn.hostname().unwrap().is_empty());
    assert_eq!(conn.lib_version().unwrap(), library_version());
    assert!(library_version() >= 8_000_000, "{}", library_version());
    assert_eq!(conn.hypervisor_version().unwrap(), 2);
    assert!(conn.capabilities().unwrap().starts_with("<capabilities>"));
    let node = conn.node_info().unwrap();
    assert_eq!((node.model.as_str(), node.cpus, node.memory_kib), ("i686", 16, 3_145_728));
}

#[test]
fn a_clone_outlives_the_original() {
    let conn = shared();
    let clone = conn.clone();
    let domain = conn.domain_by_name("test").unwrap();
    drop(conn);
    assert!(clone.is_alive());
    drop(clone);
    assert!(domain.is_active().unwrap());
    assert!(domain.connect().is_alive());
}

#[test]
fn many_threads_share_a_connection() {
    let conn = shared();
    let domain = conn.domain_by_name("test").unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..500 {
                    let (conn, domain) = (conn.clone(), domain.clone());
                    assert_eq!(conn.domain_by_uuid(domain.uuid()).unwrap().name(), "test");
                    assert_eq!(conn.domain_by_name("nobody").unwrap_err().code, ErrorCode::NO_DOMAIN);
                }
            });
        }
    });
}

#[test]
fn errors_say_what_they_are() {
    let conn = shared();
    let error = conn.domain_by_name("nobody").unwrap_err();
    assert_eq!(error.code, ErrorCode::NO_DOMAIN);
    assert!(error.message.contains("Domain not found"), "{error}");
    assert!(error.to_string().ends_with("(libvirt error 42)"), "{error}");
    assert_ne!(error.domain, 0);
    assert_eq!(conn.domain_by_uuid([9; 16]).unwrap_err().code, ErrorCode::NO_DOMAIN);
    assert_eq!(conn.pool_by_name("nobody").unwrap_err().code, ErrorCode::NO_STORAGE_POOL);
    assert_eq!(conn.network_by_name("nobody").unwrap_err().code, ErrorCode::NO_NETWORK);
    assert_eq!(conn.volume_by_path("/nowhere").unwrap_err().code, ErrorCode::NO_STORAGE_VOL);
    assert_eq!(conn.define_domain("<domain", 0).unwrap_err().code, ErrorCode::XML_DETAIL);
    assert_eq!(conn.define_domain("<domain type='test'/>", 0).unwrap_err().code, ErrorCode::NO_NAME);
    let nonsense = common::domain_xml("nonsense").replace("<vcpu>2", "<vcpu>two");
    assert_eq!(conn.define_domain(&nonsense, 0).unwrap_err().code, ErrorCode::XML_ERROR);
    let unknown = common::domain_xml("unknown").replace("<vcpu>2", "<unknown/><vcpu>2");
    assert_eq!(conn.define_domain(&unknown, flags::DEFINE_VALIDATE).unwrap_err().code, ErrorCode::XML_INVALID_SCHEMA);
    // An unknown scheme would be passed to a local daemon, which a machine needn't have; an unknown transport is not.
    assert_eq!(Connect::open("qemu+nonsense:///system").unwrap_err().code, ErrorCode::INVALID_ARG);
    let unix = Connect::open("qemu+unix:///system?socket=/nowhere").unwrap_err();
    assert_eq!(unix.code, ErrorCode::SYSTEM_ERROR, "{unix}");
}

#[test]
fn a_nul_byte_is_an_error() {
    let conn = shared();
    let domain = conn.domain_by_name("test").unwrap();
    let errors = [
        Connect::open("test:///\0").unwrap_err(),
        conn.domain_by_name("te\0st").unwrap_err(),
        conn.define_domain("<domain/>\0", 0).unwrap_err(),
        conn.restore_domain("/x", Some("\0"), 0).unwrap_err(),
        domain.set_title(Some("\0"), 0).unwrap_err(),
        domain.set_authorized_keys("root", &["\0".to_owned()], 0).unwrap_err(),
    ];
    for error in errors {
        assert_eq!((error.code, error.domain), (ErrorCode::INVALID_ARG, 0));
    }
}

#[test]
fn what_the_driver_lacks_is_an_error() {
    let conn = shared();
    assert_eq!(conn.node_memory_stats().unwrap_err().code, ErrorCode::NO_SUPPORT);
    assert_eq!(conn.set_keep_alive(5, 3).unwrap_err().code, ErrorCode::NO_SUPPORT);
    // What a domain can have it tells in newer versions (11.3 does, 9.0 doesn't).
    if let Err(error) = conn.domain_capabilities(None, Some("x86_64"), None, None) {
        assert_eq!(error.code, ErrorCode::NO_SUPPORT);
    }
}

#[test]
fn a_connection_has_one_close_callback() {
    let conn = shared();
    let (first, second) = (Arc::new(()), Arc::new(()));
    let (kept, refused) = (first.clone(), second.clone());
    conn.on_close(move |_| drop(kept.clone())).unwrap();
    let error = conn.on_close(move |_| drop(refused.clone())).unwrap_err();
    assert_eq!(error.code, ErrorCode::OPERATION_INVALID);
    assert_eq!((Arc::strong_count(&first), Arc::strong_count(&second)), (2, 1));
    let clone = conn.clone();
    drop(conn);
    assert_eq!(Arc::strong_count(&first), 2);
    drop(clone);
    assert_eq!(Arc::strong_count(&first), 1, "freed with the last clone");
}
