//! Many VMs: reads over 10,000, many clients at once, memory, and the CPU of an idle server.

use crate::{
    lab::{Lab, Server, fleet::Fleet, http_client},
    table::{alone, timed, within},
};
use libvirt::{Connect, flags};
use serde_json::{Value, json};
use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

const FLEET: usize = 10_000;
const READS: usize = 200;
const CREATES: u32 = 200;
const CLIENTS: usize = 16;
/// VMs of an idle server, and of the one whose memory is measured.
const IDLE: usize = 100;
const MEMORY: usize = 1_000;
/// Turns of the reading of counters.
const SAMPLES: usize = 21;
const IDLE_FOR: Duration = Duration::from_secs(30);

/// list-vms and describe-vm over a node of libvirt's test driver, scanned every other second, and one that is away.
pub fn reads() {
    let before = own_memory_mib();
    let fleet = Fleet::start(FLEET);
    let raw = Connect::open(&format!("test://{}/node.xml", fleet.dir.path.display())).unwrap();
    // The test driver lives in the process that uses it: in this one too now.
    let driver = own_memory_mib().saturating_sub(before);
    let client = Client::new(&fleet.server);
    let page = |body: Value| (0..READS).map(|_| client.time("list-vms", &body)).collect::<Vec<_>>();
    let raw_page = || {
        let list = || {
            for domain in raw.domains(0).unwrap().iter().take(100) {
                domain.state().unwrap();
                domain.xml(0).unwrap();
            }
        };
        (0..READS / 10).map(|_| timed(list).1).collect::<Vec<_>>()
    };
    let budget = Duration::from_millis(5);
    within("list-vms, 100 of 10,000", page(json!({})), raw_page(), budget);
    within("  by -created_at", page(json!({"sort": "-created_at"})), raw_page(), budget);
    let filter = json!({"tags": {"env": "prod"}, "name": "web", "sort": "state"});
    within("  by state, tag and name filtered", page(filter), raw_page(), budget);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for vm in fleet.vms.iter().filter(|vm| vm.node == "fleet").step_by(FLEET / READS) {
        ours.push(client.time("describe-vm", &json!({"vm": vm.id})));
        let describe = || {
            let domain = raw.domain_by_uuid(vm.id.into_bytes()).unwrap();
            (domain.state().unwrap(), domain.xml(0).unwrap())
        };
        theirs.push(timed(describe).1);
    }
    within("describe-vm, one of 10,000", ours, theirs, Duration::from_millis(10));
    let memory = format!("{} - {driver} MiB", fleet.server.memory_mib());
    alone("memory, 10,000 VMs - libvirt's driver", &memory, "", true);
}

/// Times calls until the answer is there, which nobody parses.
struct Client<'a> {
    server: &'a Server,
    http: reqwest::blocking::Client,
}

impl<'a> Client<'a> {
    fn new(server: &'a Server) -> Client<'a> {
        Client { server, http: http_client(Duration::from_secs(30)) }
    }

    fn time(&self, method: &str, body: &Value) -> Duration {
        let url = format!("{}/api/{method}", self.server.url);
        let request = self.http.post(url).bearer_auth(&self.server.token).json(body);
        let (answer, time) = timed(|| {
            let answer = request.send().unwrap();
            (answer.status(), answer.bytes().unwrap())
        });
        assert_eq!(answer.0, 200, "{method} {body}: {answer:?}");
        time
    }
}

fn own_memory_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

/// Domains as create-vm makes them, off, until there are so many.
fn fill(lab: &Lab, raw: &Connect, xml: &str, count: usize) {
    let text = |name: &str| xml.split(&format!("<{name}>")).nth(1).unwrap().split('<').next().unwrap().to_owned();
    let (name, id) = (text("name"), text("uuid"));
    let mac = xml.split("mac address='").nth(1).unwrap().split('\'').next().unwrap();
    for n in raw.domains(0).unwrap().len()..count {
        let xml = xml
            .replace(&id, &uuid::Uuid::new_v4().to_string())
            .replace(&name, &format!("filled-{n}"))
            .replace(mac, &format!("52:54:00:fe:{:02x}:{:02x}", n >> 8 & 255, n & 255));
        raw.define_domain(&xml, 0).unwrap();
    }
    crate::lab::eventually("all are listed", Duration::from_secs(60), || {
        (lab.ok("list-vms", json!({"limit": 1}))["total"] == count).then_some(())
    });
}

/// The CPU time of a server that nobody asks anything.
pub fn idle(lab: &Lab, raw: &Connect, xml: &str) {
    fill(lab, raw, xml, IDLE);
    std::thread::sleep(Duration::from_secs(2));
    let before = lab.server.cpu_time();
    std::thread::sleep(IDLE_FOR);
    let percent = (lab.server.cpu_time() - before).as_secs_f64() / IDLE_FOR.as_secs_f64() * 100.0;
    alone("CPU of the idle server, 100 VMs", &format!("{percent:.2} %"), "< 1 %", percent < 1.0);
}

/// What reading the counters of many QEMUs takes, beside the one call that it stands for.
pub fn sampling() {
    let lab = Lab::with_settings("\n[metrics]\ninterval_s = 1\n");
    let raw = Connect::open(lab.node.uri()).unwrap();
    let vms: Vec<_> = (0..IDLE).map(|_| lab.create_with("sampled", json!({"memory_mib": 64}))).collect();
    for vm in &vms {
        let domain = raw.domain_by_uuid(vm.id.parse::<uuid::Uuid>().unwrap().into_bytes()).unwrap();
        // They are asked as if they ran, and take no CPU from what is measured.
        domain.start(flags::START_PAUSED).unwrap();
    }
    let what = flags::STATS_STATE
        | flags::STATS_CPU_TOTAL
        | flags::STATS_VCPU
        | flags::STATS_BALLOON
        | flags::STATS_BLOCK
        | flags::STATS_INTERFACE;
    let scrape = || {
        let request = http_client(Duration::from_secs(30)).get(format!("{}/metrics", lab.server.url));
        let text = request.bearer_auth(&lab.server.token).send().unwrap().text().unwrap();
        let line = text.lines().find(|line| line.starts_with("vmyard_sampler_duration_seconds{")).unwrap();
        Duration::from_secs_f64(line.rsplit(' ').next().unwrap().parse().unwrap())
    };
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    std::thread::sleep(Duration::from_secs(5));
    for _ in 0..SAMPLES {
        theirs.push(timed(|| raw.domain_stats(what, flags::STATS_NOWAIT | flags::STATS_ONLY_ACTIVE).unwrap().len()).1);
        std::thread::sleep(Duration::from_millis(1200));
        ours.push(scrape());
    }
    crate::table::beside("counters of 100 QEMUs, and figures", ours, theirs, 1.3);
    let before = lab.server.cpu_time();
    std::thread::sleep(IDLE_FOR);
    let tick = (lab.server.cpu_time() - before).as_secs_f64() * 1000.0 / IDLE_FOR.as_secs_f64();
    alone("  the server's CPU, a tick of 100 QEMUs", &format!("{tick:.1} ms"), "", true);
    for vm in vms {
        vm.delete();
    }
}

/// Many creates at once. Returns how many have failed.
pub fn crowd(lab: &Lab) -> u32 {
    let next = AtomicU32::new(0);
    let work = || {
        let mut failed = 0;
        loop {
            let n = next.fetch_add(1, Ordering::SeqCst);
            if n >= CREATES {
                return failed;
            }
            let request = json!({"name": format!("crowd-{n}"), "template": "tiny", "vcpus": 1, "memory_mib": 64});
            let answer = lab.server.call("create-vm", request);
            if answer.status != 200 {
                println!("{answer:?}");
                failed += 1;
            }
        }
    };
    let (failed, time) = timed(|| {
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(work)).collect();
            clients.into_iter().map(|client| client.join().unwrap()).sum::<u32>()
        })
    });
    let value = format!("{:.1} s, {failed} failed", time.as_secs_f64());
    alone("200 creates by 16 clients", &value, "none fails", failed == 0);
    failed
}

/// The memory of the server with many VMs, after all that it has done before.
pub fn memory(lab: &Lab, raw: &Connect, xml: &str) {
    fill(lab, raw, xml, MEMORY);
    let pages = || lab.ok("list-vms", json!({"limit": 1000}))["vms"].as_array().unwrap().len();
    assert_eq!(pages(), MEMORY);
    let mib = lab.server.memory_mib();
    alone("memory, 1,000 VMs", &format!("{mib} MiB"), "< 60 MiB", mib < 60);
}
