//! Against a real daemon with QEMU, at `LIBVIRT_TEST_URI`, for example `qemu:///system`; it needs root on the same
//! machine, and makes and removes things whose names begin with `libvirt-test-`. Run with `--ignored`.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::{Read, Write};
use std::path::Path;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use common::wait_for;
use libvirt::{
    AddressSource, Connect, DomainState, ErrorCode, EventDetail, EventKind, LifecycleEvent, Pool, Stream, flags,
};

fn open() -> Connect {
    let uri = std::env::var("LIBVIRT_TEST_URI").unwrap_or_else(|_| "qemu:///system".to_owned());
    Connect::open(&uri).unwrap()
}

fn pool(conn: &Connect, dir: &Path, name: &str) -> Pool {
    let (name, path) = (format!("libvirt-test-{name}"), dir.join(name));
    if let Ok(old) = conn.domain_by_name(&name) {
        let _ = old.destroy(0);
        old.undefine(0).unwrap();
    }
    if let Ok(old) = conn.pool_by_name(&name) {
        let _ = old.destroy();
        old.undefine().unwrap();
    }
    let _ = std::fs::remove_dir_all(&path);
    let path = path.display();
    let xml = format!("<pool type='dir'><name>{name}</name><target><path>{path}</path></target></pool>");
    let pool = conn.define_pool(&xml).unwrap();
    pool.build(0).unwrap();
    pool.start(0).unwrap();
    pool
}

fn remove(pool: &Pool) {
    for volume in pool.volumes().unwrap() {
        volume.delete(0).unwrap();
    }
    pool.destroy().unwrap();
    pool.undefine().unwrap();
}

/// A guest without an operating system: its firmware writes to the serial line.
fn domain_xml(name: &str, disk: &str) -> String {
    format!(
        "<domain type='qemu'><name>libvirt-test-{name}</name><memory unit='MiB'>64</memory><vcpu>1</vcpu>\
         <os><type arch='x86_64'>hvm</type><bios useserial='yes'/></os>\
         <devices><disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{disk}'/>\
         <target dev='vda' bus='virtio'/></disk><serial type='pty'/><console type='pty'/>\
         <graphics type='vnc'><listen type='socket'/></graphics>\
         <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel></devices></domain>"
    )
}

#[test]
#[ignore = "needs libvirtd"]
fn the_node_and_the_connection() {
    let conn = open();
    assert!(conn.set_keep_alive(5, 3).unwrap());
    assert!(conn.lib_version().unwrap() >= 8_000_000);
    assert!(conn.hypervisor_version().unwrap() >= 6_000_000);
    let memory = conn.node_memory_stats().unwrap();
    assert!(memory.iter().any(|(name, kib)| name == "total" && *kib > 1 << 20), "{memory:?}");
    let xml = conn.domain_capabilities(None, Some("x86_64"), Some("q35"), Some("qemu")).unwrap();
    assert!(xml.contains("<domain>qemu</domain>"));
    let error = conn.domain_capabilities(None, Some("pdp11"), None, None).unwrap_err();
    assert_eq!(error.code, ErrorCode::INVALID_ARG, "{error}");
    let closed = Arc::new(());
    let kept = closed.clone();
    conn.on_close(move |_| drop(kept.clone())).unwrap();
    let clone = conn.clone();
    drop(conn);
    assert_eq!(Arc::strong_count(&closed), 2);
    drop(clone);
    assert_eq!(Arc::strong_count(&closed), 1, "freed with the last handle");
}

#[test]
#[ignore = "needs libvirtd"]
fn volumes_and_their_bytes() {
    let conn = open();
    let pool = pool(&conn, Path::new("/var/tmp"), "bytes");
    let xml = "<volume><name>raw</name><capacity>1048576</capacity><target><format type='raw'/></target></volume>";
    let volume = pool.create_volume(xml, 0).unwrap();
    assert_eq!(pool.create_volume(xml, 0).unwrap_err().code, ErrorCode::STORAGE_VOL_EXIST);

    let bytes: Vec<u8> = (0..1_000_000_u32).map(|i| (i % 251) as u8).collect();
    let stream = Stream::new(&conn, 0).unwrap();
    volume.upload(&stream, 0, bytes.len() as u64, 0).unwrap();
    stream.send_all(&bytes).unwrap();
    stream.finish().unwrap();

    let mut stream = Stream::new(&conn, 0).unwrap();
    volume.download(&stream, 0, bytes.len() as u64, 0).unwrap();
    let mut back = Vec::new();
    stream.read_to_end(&mut back).unwrap();
    stream.finish().unwrap();
    assert!(back == bytes);

    // Given up half way, and too much for the volume: neither harms the connection.
    let mut stream = Stream::new(&conn, 0).unwrap();
    volume.upload(&stream, 0, 0, 0).unwrap();
    stream.write_all(&bytes).unwrap();
    drop(stream);
    let stream = Stream::new(&conn, 0).unwrap();
    volume.upload(&stream, 0, 10, 0).unwrap();
    let sent = stream.send_all(&bytes).and_then(|()| stream.finish());
    assert!(sent.is_err());

    volume.resize(2 << 20, 0).unwrap();
    assert_eq!(volume.info().unwrap().capacity, 2 << 20);
    volume.wipe(0).unwrap();
    assert!(conn.is_alive());
    remove(&pool);
}

#[test]
#[ignore = "needs libvirtd"]
fn a_domain_runs() {
    let conn = open();
    let pool = pool(&conn, Path::new("/var/tmp"), "runs");
    let xml = "<volume><name>a</name><capacity>1048576</capacity><target><format type='qcow2'/></target></volume>";
    let disk = pool.create_volume(xml, 0).unwrap().path().unwrap();
    let (send, receive) = channel();
    let send = Arc::new(Mutex::new(send));
    let subscribe = |kind| {
        let send = send.clone();
        conn.subscribe(kind, move |event| {
            if event.name == "libvirt-test-runs" {
                send.lock().unwrap().send(event.detail).unwrap();
            }
        })
        .unwrap()
    };
    let subscriptions = [EventKind::Lifecycle, EventKind::BlockJob, EventKind::MetadataChange].map(subscribe);
    let wait = |wanted: EventDetail| {
        while receive.recv_timeout(Duration::from_secs(10)).unwrap() != wanted {}
    };
    let lifecycle = |event, detail| EventDetail::Lifecycle { event, detail };

    let domain = conn.define_domain(&domain_xml("runs", &disk), flags::DEFINE_VALIDATE).unwrap();
    wait(lifecycle(LifecycleEvent::Defined, flags::EVENT_DEFINED_ADDED));
    domain.start(flags::START_PAUSED).unwrap();
    assert_eq!(domain.state().unwrap().0, DomainState::Paused);
    assert_eq!(domain.start(0).unwrap_err().code, ErrorCode::OPERATION_INVALID);

    console_by_events(&conn, &domain);

    wait(lifecycle(LifecycleEvent::Resumed, flags::EVENT_RESUMED_UNPAUSED));
    let mut vnc = std::fs::File::from(domain.open_graphics_fd(0, flags::GRAPHICS_SKIPAUTH).unwrap());
    let mut hello = [0; 11];
    vnc.read_exact(&mut hello).unwrap();
    assert_eq!(&hello, b"RFB 003.008");
    let stream = Stream::new(&conn, 0).unwrap();
    // PNG from QEMU 7.1 on.
    let mime = domain.screenshot(&stream, 0, 0).unwrap();
    let mut picture = Vec::new();
    (&stream).read_to_end(&mut picture).unwrap();
    stream.finish().unwrap();
    let magic: &[u8] = if mime == "image/png" { b"\x89PNG" } else { b"P6" };
    assert!(picture.starts_with(magic), "{mime}");

    assert!(domain.monitor_command("{\"execute\":\"query-status\"}").unwrap().contains("\"return\""));
    let quiet = domain.agent_command("{\"execute\":\"guest-ping\"}", 1, 0).unwrap_err();
    assert_eq!(quiet.code, ErrorCode::AGENT_UNRESPONSIVE, "{quiet}");
    let quiet = domain.interface_addresses(AddressSource::Agent).unwrap_err();
    assert_eq!(quiet.code, ErrorCode::AGENT_UNRESPONSIVE, "{quiet}");
    domain.agent_set_response_timeout(1).unwrap();
    domain.set_memory_stats_period(5, flags::AFFECT_LIVE).unwrap();
    domain.send_key(flags::KEYCODE_LINUX, 10, &[28]).unwrap();

    let stats = domain.stats(flags::STATS_BLOCK | flags::STATS_CPU_TOTAL).unwrap().unwrap();
    assert_eq!(stats.get("block.0.name").unwrap().as_str(), Some("vda"));
    assert!(stats.get("cpu.time").unwrap().as_u64().unwrap() > 0);
    assert!(conn.domain_stats(0, flags::STATS_NOWAIT).unwrap().contains(&stats) || stats.params.len() > 3);
    assert_eq!(domain.block_info("vda").unwrap().capacity, 1 << 20);
    domain.block_resize("vda", 2 << 20).unwrap();
    assert_eq!(domain.block_info("vda").unwrap().capacity, 2 << 20);

    layers(&domain, &wait);

    let (uri, both) = ("urn:x", flags::AFFECT_LIVE | flags::AFFECT_CONFIG);
    domain.set_metadata(Some("<v/>"), "x", uri, both).unwrap();
    wait(EventDetail::MetadataChange { kind: flags::METADATA_ELEMENT, uri: Some(uri.to_owned()) });
    domain.suspend().unwrap();
    wait(lifecycle(LifecycleEvent::Suspended, flags::EVENT_SUSPENDED_PAUSED));
    domain.destroy(flags::DESTROY_GRACEFUL).unwrap();
    wait(lifecycle(LifecycleEvent::Stopped, flags::EVENT_STOPPED_DESTROYED));
    domain.undefine(flags::UNDEFINE_MANAGED_SAVE | flags::UNDEFINE_NVRAM).unwrap();
    wait(lifecycle(LifecycleEvent::Undefined, flags::EVENT_UNDEFINED_REMOVED));
    drop(subscriptions);
    pool.refresh(0).unwrap();
    remove(&pool);
}

/// Reads the firmware's output from a non-blocking stream, resuming the domain when the stream is ready.
fn console_by_events(conn: &Connect, domain: &libvirt::Domain) {
    let stream = Arc::new(Stream::new(conn, flags::STREAM_NONBLOCK).unwrap());
    domain.open_console(None, &stream, 0).unwrap();
    assert_eq!(stream.try_recv(&mut [0; 8]).unwrap(), None);
    let second = Stream::new(conn, 0).unwrap();
    assert_eq!(domain.open_console(None, &second, 0).unwrap_err().code, ErrorCode::OPERATION_FAILED);
    drop(second);

    let (state, calls) = (Arc::new(()), Arc::new(Mutex::new(0)));
    let (send, ready) = channel();
    let (kept, count, send) = (state.clone(), calls.clone(), Mutex::new(send));
    let weak: Weak<Stream> = Arc::downgrade(&stream);
    let readable = flags::STREAM_EVENT_READABLE;
    stream
        .on_event(readable, move |events| {
            let _ = (&kept, &weak);
            *count.lock().unwrap() += 1;
            let _ = send.lock().unwrap().send(events);
        })
        .unwrap();
    domain.resume().unwrap();
    let mut text = Vec::new();
    while !String::from_utf8_lossy(&text).contains("SeaBIOS") {
        let events = ready.recv_timeout(Duration::from_secs(20)).unwrap();
        assert_ne!(events & readable, 0);
        let mut buffer = [0; 1024];
        while let Some(len) = stream.try_recv(&mut buffer).unwrap() {
            text.extend_from_slice(&buffer[..len]);
        }
        stream.set_events(readable).unwrap();
    }
    // Nobody reads now: the callback comes at most once more, and doesn't keep the event thread busy.
    std::thread::sleep(Duration::from_millis(300));
    assert!(*calls.lock().unwrap() < 10_000, "{}", calls.lock().unwrap());
    stream.remove_event().unwrap();
    wait_for(|| (Arc::strong_count(&state) == 1).then_some(()));
    stream.abort().unwrap();
}

/// A layer on top of the disk, and its commit into the disk below.
fn layers(domain: &libvirt::Domain, wait: &dyn Fn(EventDetail)) {
    let xml = "<domainsnapshot><disks><disk name='vda' snapshot='external'/></disks></domainsnapshot>";
    let disk_only = flags::SNAPSHOT_DISK_ONLY | flags::SNAPSHOT_ATOMIC | flags::SNAPSHOT_NO_METADATA;
    domain.snapshot_create_xml(xml, disk_only).unwrap();
    assert_eq!(domain.snapshot_count().unwrap(), 0);
    assert_eq!(domain.block_job_info("vda").unwrap(), None);
    assert!(domain.block_job_abort("vda", 0).is_err());
    domain.block_commit("vda", None, None, 0, flags::BLOCK_COMMIT_ACTIVE).unwrap();
    let job_type = flags::BLOCK_JOB_TYPE_ACTIVE_COMMIT;
    wait(EventDetail::BlockJob { disk: "vda".to_owned(), job_type, status: flags::BLOCK_JOB_READY });
    let job = domain.block_job_info("vda").unwrap().unwrap();
    assert_eq!((job.kind, job.cur == job.end), (job_type, true));
    let twice = domain.block_commit("vda", None, None, 0, flags::BLOCK_COMMIT_ACTIVE).unwrap_err();
    assert_eq!(twice.code, ErrorCode::BLOCK_COPY_ACTIVE, "{twice}");
    domain.block_job_abort("vda", flags::BLOCK_JOB_PIVOT).unwrap();
    wait(EventDetail::BlockJob { disk: "vda".to_owned(), job_type, status: flags::BLOCK_JOB_COMPLETED });
}
