//! Thousands of VMs that cost nothing: a node of libvirt's test driver, with records of some of them in the store.

use super::{Directory, Server, eventually};
use api::{Time, vm::Firmware};
use serde_json::{Value, json};
use server::store::{Store, VmPhase, VmRecord, VmSpec};
use std::{collections::BTreeMap, fmt::Write, fs, time::Duration};
use uuid::Uuid;

/// How long the first scan may take on a loaded machine, by a debug build.
const FIRST_SCAN: Duration = Duration::from_secs(90);
/// Records of VMs whose node is away.
pub const AWAY: usize = 20;

/// A server over such a node, `fleet`, and over one that is away, `away`.
pub struct Fleet {
    // Fields are dropped in this order.
    pub server: Server,
    #[allow(dead_code)]
    pub dir: Directory,
    pub vms: Vec<FleetVm>,
}

/// A VM as list-vms must show it.
#[derive(Clone)]
pub struct FleetVm {
    pub id: Uuid,
    pub name: String,
    pub node: &'static str,
    pub state: &'static str,
    pub tags: BTreeMap<String, String>,
    /// `None` for a domain that isn't Vmyard's.
    pub created_at: Option<i64>,
}

impl Fleet {
    /// A node of so many domains.
    pub fn start(count: usize) -> Fleet {
        let dir = Directory::new();
        let mut vms: Vec<FleetVm> = (0..count).map(fleet_vm).collect();
        fs::write(dir.path.join("node.xml"), node_file(&vms)).unwrap();
        vms.extend((count..count + AWAY).map(away_vm));
        fs::create_dir(dir.path.join("data")).unwrap();
        let url = Store::default_url(&dir.path.join("data"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let store = Store::open(&url).await.unwrap();
            for vm in &vms {
                if let Some(created_at) = vm.created_at {
                    store.adopt_vm(&record(vm, created_at), &[], Uuid::nil()).await.unwrap();
                }
            }
        });
        let here = dir.path.display();
        let config = format!(
            "scan_interval_s = 2\n[nodes.fleet]\nuri = \"test://{here}/node.xml\"\ncpu_overcommit = 1000.0\n\
             default_pool_path = \"{here}\"\nseed_pool_path = \"{here}/seeds\"\n\
             [nodes.away]\nuri = \"qemu+tcp://127.0.0.1:1/system\"\n"
        );
        fs::write(dir.path.join("vmyard.toml"), config).unwrap();
        let server = Server::start(&dir.path, &[]);
        let fleet = Fleet { server, dir, vms };
        eventually("the whole fleet is read", FIRST_SCAN, || {
            let unknown = fleet.server.call("list-vms", json!({"state": "unknown", "limit": 1})).body["total"] == AWAY;
            (unknown && fleet.list(json!({"limit": 1}))["total"] == count + AWAY).then_some(())
        });
        fleet
    }

    /// What list-vms answers; panics unless it is 200.
    #[track_caller]
    pub fn list(&self, body: Value) -> Value {
        let answer = self.server.call("list-vms", body.clone());
        assert_eq!(answer.status, 200, "list-vms {body}: {answer:?}");
        answer.body
    }
}

/// Names of several kinds, some of which differ in nothing but case, in no order; a quarter is Vmyard's.
fn fleet_vm(n: usize) -> FleetVm {
    let mixed = n * 7919 % 100_003;
    let managed = n.is_multiple_of(4);
    let name = match n % 5 {
        _ if managed => format!("Web-{mixed:05}.prod"),
        0 => format!("twin-{:05}", n / 5),
        1 => format!("CI_runner {mixed}"),
        2 => format!("db.{mixed}"),
        3 => format!("TWIN-{:05}", n / 5),
        _ => format!("{mixed}-old"),
    };
    let tag = |key: &str, value: String| (key.to_owned(), value);
    let tags = match managed {
        true => [tag("env", ["prod", "test", "Prod"][n % 3].to_owned()), tag("rack", (n % 40).to_string())],
        false => return FleetVm { tags: BTreeMap::new(), created_at: None, ..bare(n, name) },
    };
    // Many were made in the same millisecond.
    let created_at = Some(1_700_000_000_000 + (n % 97) as i64);
    FleetVm { tags: tags.into_iter().take(1 + n % 8 / 4).collect(), created_at, ..bare(n, name) }
}

fn bare(n: usize, name: String) -> FleetVm {
    let id = Uuid::from_u128(0x6f1f_3c1e_8a0b_4a7e_9d55_0000_0000_0000 + (n * 7907 % 100_003) as u128);
    let state = ["running", "shutoff", "paused", "shutoff"][n % 7 % 4];
    FleetVm { id, name, node: "fleet", state, tags: BTreeMap::new(), created_at: None }
}

fn away_vm(n: usize) -> FleetVm {
    let tags = BTreeMap::from([("env".to_owned(), "prod".to_owned())]);
    FleetVm { node: "away", state: "unknown", tags, created_at: Some(n as i64), ..bare(n, format!("away-{n}")) }
}

fn domain_name(vm: &FleetVm) -> String {
    match vm.created_at {
        // Ids of a fleet begin alike.
        Some(_) => format!("{}-{}", vm.name, vm.id.simple()),
        None => vm.name.clone(),
    }
}

fn record(vm: &FleetVm, created_at: i64) -> VmRecord {
    VmRecord {
        id: vm.id,
        name: vm.name.clone(),
        node: vm.node.to_owned(),
        domain: domain_name(vm),
        phase: VmPhase::Ready,
        spec: VmSpec {
            template: Some(Uuid::nil()),
            template_name: Some("tiny".to_owned()),
            pool: Uuid::nil(),
            pool_name: "default".to_owned(),
            vcpus: 1,
            max_vcpus: 1,
            memory_mib: 64,
            max_memory_mib: 64,
            disk_bytes: 1 << 30,
            tags: vm.tags.clone(),
            description: String::new(),
            user: None,
            cloud_init: None,
            firmware: Firmware::default(),
            reserved: Vec::new(),
        },
        created_at: Time(created_at),
        revision: 1,
    }
}

/// The file of a node: <https://libvirt.org/drvtest.html>.
fn node_file(vms: &[FleetVm]) -> String {
    let mut xml =
        "<node><cpu><mhz>3000</mhz><model>x86_64</model><active>100</active><nodes>1</nodes><sockets>1</sockets>\
                   <cores>100</cores><threads>1</threads></cpu><memory>4294967296</memory>"
            .to_owned();
    for (n, vm) in vms.iter().enumerate() {
        // virDomainState
        let state = match vm.state {
            "running" => 1,
            "paused" => 3,
            _ => 5,
        };
        // The tap device has a name, since libvirt would go through all domains to find a free one.
        write!(
            xml,
            "<domain type='test' xmlns:test='http://libvirt.org/schemas/domain/test/1.0'>\
             <test:runstate>{state}</test:runstate>\
             <name>{}</name><uuid>{}</uuid><memory unit='MiB'>64</memory><vcpu>1</vcpu>\
             <os><type arch='i686'>hvm</type></os><devices>\
             <disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/guest/{n}.qcow2'/>\
             <target dev='vda' bus='virtio'/></disk>\
             <interface type='network'><mac address='52:54:00:{:02x}:{:02x}:{:02x}'/><source network='default'/>\
             <target dev='tap{n}'/></interface></devices></domain>",
            domain_name(vm),
            vm.id,
            n >> 16 & 255,
            n >> 8 & 255,
            n & 255
        )
        .unwrap();
    }
    xml + "</node>"
}
