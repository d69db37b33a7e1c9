//! What several tests share. They run against libvirt's test driver, which lives in this process: no daemon.
#![allow(dead_code, clippy::unwrap_used)]

use std::time::{Duration, Instant};

use libvirt::Connect;

/// All connections of a process share this one: names must be a test's own.
pub fn shared() -> Connect {
    Connect::open("test:///default").unwrap()
}

/// The definition of a small domain.
pub fn domain_xml(name: &str) -> String {
    format!(
        "<domain type='test'><name>{name}</name><memory unit='KiB'>65536</memory><vcpu>2</vcpu>\
         <os><type arch='x86_64'>hvm</type></os>\
         <devices><disk type='file' device='disk'><source file='/guest/{name}.img'/>\
         <target dev='vda' bus='virtio'/></disk>\
         <interface type='network'><mac address='52:54:00:11:22:33'/><source network='default'/></interface>\
         <graphics type='vnc' port='-1' passwd='secret'/><memballoon model='virtio'/></devices></domain>"
    )
}

/// Asks until the answer is there, for 5 seconds.
pub fn wait_for<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "waited for 5 seconds in vain");
        std::thread::sleep(Duration::from_millis(2));
    }
}
