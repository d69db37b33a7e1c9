//! What Vmyard costs beside the raw libvirt calls that it stands for: the same XML, the same pools, in one run, taking
//! turns. Prints medians, and whether they are within their budgets; that they aren't is no failure.
//!
//! `make bench`, as root, on a machine that does nothing else; `make bench parts="vms disks"` measures some of it again
//! (see `PARTS`).

#![allow(clippy::unwrap_used, missing_docs)]

mod consoles;
mod disks;
#[allow(dead_code)]
#[path = "../cli/tests/it/lab/mod.rs"]
mod lab;
mod many;
mod table;

use lab::Lab;
use libvirt::{Connect, Stream, flags};
use serde_json::json;
use std::{process::ExitCode, time::Duration};
use table::{beside, timed};

/// Turns of each measurement.
const TURNS: usize = 21;
/// What can be measured alone.
const PARTS: [&str; 5] = ["reads", "vms", "disks", "consoles", "samples"];

fn main() -> ExitCode {
    // Called by `cargo test` as well, to see that it builds.
    if !std::env::args().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    let named: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    if let Some(unknown) = named.iter().find(|name| !PARTS.contains(&name.as_str())) {
        eprintln!("bench: {unknown:?} is no part of it: {}", PARTS.join(", "));
        return ExitCode::FAILURE;
    }
    let wanted = |part: &str| named.is_empty() || named.iter().any(|name| name == part);
    table::head();
    if wanted("reads") {
        many::reads();
    }
    let lab = Lab::own();
    let raw = Connect::open(lab.node.uri()).unwrap();
    let xml = wanted("vms").then(|| create(&lab, &raw));
    if xml.is_some() {
        start(&lab, &raw);
    }
    if wanted("disks") {
        disks::all(&lab, &raw);
    }
    let mut failed = 0;
    if let Some(xml) = xml {
        many::idle(&lab, &raw, &xml);
        failed = many::crowd(&lab);
        many::memory(&lab, &raw, &xml);
    }
    if wanted("consoles") {
        consoles::all(&lab, &raw);
    }
    drop(lab);
    if wanted("samples") {
        many::sampling();
    }
    if failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
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

/// Returns the XML of a VM that create-vm made.
fn create(lab: &Lab, raw: &Connect) -> String {
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
    beside("create-vm", ours, theirs, 1.3);
    xml
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
    beside("start-vm", ours, theirs, 1.1);
}
