//! Memory that libvirt hands out is given back. One test, so that nothing else allocates in this process meanwhile.
#![allow(clippy::unwrap_used)]

mod common;

use common::{domain_xml, shared};
use libvirt::{AddressSource, EventKind, Stream};

/// Resident memory of this process, in KiB.
fn rss_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// How much `calls` calls leave behind, in KiB.
fn growth(calls: u32, mut call: impl FnMut()) -> u64 {
    for _ in 0..calls / 10 {
        call();
    }
    let before = rss_kib();
    for _ in 0..calls {
        call();
    }
    rss_kib().saturating_sub(before)
}

#[test]
fn nothing_leaks() {
    let conn = shared();
    let domain = conn.create_domain(&domain_xml("leak"), 0).unwrap();
    let xml = domain_xml("leak");
    let mut report = Vec::new();
    let mut measure = |what: &str, grown: u64| report.push((what.to_owned(), grown));

    measure("stats of all", growth(20_000, || drop(conn.domain_stats(0, 0).unwrap())));
    measure("stats of one", growth(20_000, || drop(domain.stats(0).unwrap())));
    measure("lists", growth(20_000, || drop(conn.domains(0).unwrap())));
    measure("strings", growth(5_000, || drop(domain.xml(0).unwrap())));
    measure("addresses", growth(20_000, || drop(domain.interface_addresses(AddressSource::Lease).unwrap())));
    measure("errors", growth(20_000, || drop(conn.domain_by_name("nobody").unwrap_err())));
    measure("refused definitions", growth(5_000, || drop(conn.create_domain(&xml, 0).unwrap_err())));
    measure("handles", growth(20_000, || drop(domain.clone())));
    measure("streams", growth(20_000, || drop(Stream::new(&conn, 0).unwrap())));
    // With none left, libvirt's timer goes as well, which the event thread frees later: keep one.
    let _other = conn.subscribe(EventKind::Reboot, |_| ()).unwrap();
    measure("subscriptions", growth(20_000, || drop(conn.subscribe(EventKind::Lifecycle, |_| ()).unwrap())));
    measure("connections", growth(5_000, || shared().on_close(|_| ()).unwrap()));

    println!("{report:?}");
    for (what, grown) in report {
        assert!(grown < 1024, "{what}: {grown} KiB");
    }
    domain.destroy(0).unwrap();
}
