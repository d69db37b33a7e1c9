//! What Vmyard costs beside the raw libvirt calls that it stands for: the same XML, the same pools, in one run, taking
//! turns. Prints medians and their ratio; design budgets are in the last column.
//!
//! `make bench`, as root, on a machine that does nothing else.

#![allow(clippy::unwrap_used, missing_docs)]

#[allow(dead_code)]
#[path = "../cli/tests/it/lab/mod.rs"]
mod lab;

use lab::Lab;
use libvirt::{Connect, Stream, flags};
use serde_json::json;
use std::time::{Duration, Instant};

/// Turns of each measurement.
const TURNS: usize = 21;

fn main() {
    // Called by `cargo test` as well, to see that it builds.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let lab = Lab::own();
    let raw = Connect::open(lab.node.uri()).unwrap();
    println!("{:<34}{:>12}{:>12}{:>8}{:>10}", "", "Vmyard", "raw", "ratio", "budget");
    create(&lab, &raw);
    start(&lab, &raw);
    reads(&lab);
    crowd(&lab);
}

fn timed<T>(f: impl FnOnce() -> T) -> (T, Duration) {
    let begun = Instant::now();
    (f(), begun.elapsed())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn row(what: &str, vmyard: Vec<Duration>, raw: Vec<Duration>, budget: f64) {
    let (vmyard, raw) = (median(vmyard), median(raw));
    let ratio = vmyard.as_secs_f64() / raw.as_secs_f64();
    let ms = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1000.0);
    println!("{what:<34}{:>12}{:>12}{ratio:>8.2}{:>10}", ms(vmyard), ms(raw), format!("<= {budget}"));
}

/// The raw calls of a create-vm: overlay, seed, define.
fn raw_create(raw: &Connect, name: &str, xml: &str, backing: &str, seed: &[u8]) {
    let (images, seeds) = (raw.pool_by_name("default").unwrap(), raw.pool_by_name("vmyard-seeds").unwrap());
    let overlay = format!(
        "<volume><name>{name}.qcow2</name><capacity unit='bytes'>536870912</capacity><allocation>0</allocation>
         <target><format type='qcow2'/><compat>1.1</compat><permissions><mode>0600</mode></permissions></target>
         <backingStore><path>{backing}</path><format type='qcow2'/></backingStore></volume>"
    );
    images.create_volume(&overlay, 0).unwrap();
    let iso = format!(
        "<volume><name>{name}.iso</name><capacity unit='bytes'>{}</capacity><allocation>0</allocation>
         <target><format type='raw'/><permissions><mode>0600</mode></permissions></target></volume>",
        seed.len()
    );
    let volume = seeds.create_volume(&iso, 0).unwrap();
    let stream = Stream::new(raw, 0).unwrap();
    volume.upload(&stream, 0, seed.len() as u64, 0).unwrap();
    stream.send_all(seed).unwrap();
    stream.finish().unwrap();
    raw.define_domain(xml, flags::DEFINE_VALIDATE).unwrap();
}

fn create(lab: &Lab, raw: &Connect) {
    let model = lab.create("model");
    let xml =
        model.ok("describe-vm-xml", json!({"inactive": true, "secrets": true}))["xml"].as_str().unwrap().to_owned();
    let disk = model.describe()["disks"][0]["path"].as_str().unwrap().to_owned();
    let seed_path = lab.node.dir.join(format!("pools/seeds/{}.iso", model.id));
    let seed = std::fs::read(&seed_path).unwrap();
    let template = lab.ok("describe-template", json!({"template": "tiny"}));
    let backing = template["copies"][0]["path"].as_str().unwrap();
    let domain = model.created["domain"].as_str().unwrap();
    let mac = model.created["networks"][0]["mac"].as_str().unwrap();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for turn in 0..TURNS {
        let (vm, time) = timed(|| lab.create("bench"));
        ours.push(time);
        let name = format!("raw-{turn}");
        let pools = lab.node.dir.join("pools").display().to_string();
        let xml = xml
            .replace(&model.id, &uuid::Uuid::new_v4().to_string())
            .replace(domain, &name)
            .replace(mac, &format!("52:54:00:ff:00:{turn:02x}"))
            .replace(&disk, &format!("{pools}/default/{name}.qcow2"));
        theirs.push(timed(|| raw_create(raw, &name, &xml, backing, &seed)).1);
        raw.domain_by_name(&name).unwrap().undefine(0).unwrap();
        let images = raw.pool_by_name("default").unwrap();
        images.volume_by_name(&format!("{name}.qcow2")).unwrap().delete(0).unwrap();
        let seeds = raw.pool_by_name("vmyard-seeds").unwrap();
        seeds.volume_by_name(&format!("{name}.iso")).unwrap().delete(0).unwrap();
        vm.delete();
    }
    row("create-vm", ours, theirs, 1.3);
}

fn start(lab: &Lab, raw: &Connect) {
    let vm = lab.create("started");
    let domain = raw.domain_by_name(vm.created["domain"].as_str().unwrap()).unwrap();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        ours.push(timed(|| vm.ok("start-vm", json!({}))).1);
        domain.destroy(0).unwrap();
        theirs.push(timed(|| domain.start(0).unwrap()).1);
        domain.destroy(0).unwrap();
        // Until the event is taken in.
        lab::eventually("it is off", Duration::from_secs(5), || (vm.state() == "shutoff").then_some(()));
    }
    row("start-vm", ours, theirs, 1.1);
}

fn reads(lab: &Lab) {
    let vm = lab.create("read");
    let list = (0..TURNS).map(|_| timed(|| lab.ok("list-vms", json!({}))).1).collect();
    let describe = (0..TURNS).map(|_| timed(|| vm.describe()).1).collect();
    println!("{:<34}{:>9.1} ms", "list-vms (a few)", median(list).as_secs_f64() * 1000.0);
    println!("{:<34}{:>9.1} ms{:>30}", "describe-vm", median(describe).as_secs_f64() * 1000.0, "<= 10 ms");
}

/// 200 creates by 16 clients: none may fail.
fn crowd(lab: &Lab) {
    let next = std::sync::atomic::AtomicU32::new(0);
    let (failed, time) = timed(|| {
        std::thread::scope(|scope| {
            let work = || {
                let mut failed = 0;
                loop {
                    let n = next.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    if n >= 200 {
                        return failed;
                    }
                    let request =
                        json!({"name": format!("crowd-{n}"), "template": "tiny", "vcpus": 1, "memory_mib": 64});
                    let answer = lab.server.call("create-vm", request);
                    if answer.status != 200 {
                        println!("{answer:?}");
                        failed += 1;
                    }
                }
            };
            let clients: Vec<_> = (0..16).map(|_| scope.spawn(work)).collect();
            clients.into_iter().map(|client| client.join().unwrap()).sum::<u32>()
        })
    });
    println!("{:<34}{:>9.1} s, {failed} failed", "200 creates by 16 clients", time.as_secs_f64());
    println!("{:<34}{:>9} MiB", "the server's memory then", lab.server.memory_mib());
}
