//! Random sequences of all VM methods by eight clients against a model of what each VM may be, with the server killed and
//! libvirtd restarted now and then. At the end the store, libvirt and the pools agree, and nothing is left that isn't
//! listed.
//!
//! ```text
//! VMYARD_TEST_SEQUENCES=200    how many sequences
//! VMYARD_TEST_SEED=…           the seed of an earlier run: the same calls and moments of death, as far as the VMs'
//!                              states are the same (threads run as they like)
//! ```

mod agree;
mod client;
mod model;

use crate::lab::{Answer, Lab};
use client::Client;
use model::Vm;
use serde_json::json;
use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::Command,
    sync::{
        Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

const CLIENTS: usize = 8;
/// How many sequences `make test` has, and `make test-full`.
const SEQUENCES: (u64, u64) = (24, 200);
/// VMs that all clients call about; each has two more of its own.
const SHARED: [&str; 3] = ["shared-0", "shared-1", "shared-2"];
/// Few VMs run at a time: emulated guests take all of a CPU while they boot.
const SETTINGS: &str = "cpu_overcommit = 5.0";
/// How long a disturbed server or node has to be well again.
const RECOVERY: Duration = Duration::from_secs(90);
/// Steps before or after which the server is told to die, beside its deaths at any moment.
const STEPS: [&str; 19] = [
    "record-vm",
    "make-system-disk",
    "write-seed",
    "reserve-address",
    "define-domain",
    "start-domain",
    "make-ready",
    "mark-deleting",
    "undefine-domain",
    "delete-system-disk",
    "delete-seed",
    "forget-vm",
    "cut-power",
    "reset",
    "pause-domain",
    "resume-domain",
    "change-metadata",
    "change-definition",
    "record-change",
];
/// How long it may take until a client makes it die there.
const DEATH: Duration = Duration::from_secs(4);
/// How an error begins that is only another one's consequence.
const GIVEN_UP: &str = "given up";

/// A generator of random numbers (splitmix64).
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }
}

/// What clients and disturber share.
pub struct Stage {
    lab: RwLock<Lab>,
    vms: BTreeMap<String, Mutex<Vm>>,
    /// Odd while something is disturbed.
    disturbances: AtomicU64,
    /// libvirtd's process id.
    libvirtd: AtomicU64,
    clients: AtomicUsize,
    failed: AtomicBool,
    counts: Mutex<BTreeMap<String, u64>>,
}

impl Stage {
    fn new(lab: Lab) -> Stage {
        let own = (0..CLIENTS).flat_map(|client| (0..2).map(move |number| format!("own-{client}-{number}")));
        let names = own.chain(SHARED.map(str::to_owned));
        let vms = names.map(|name| (name.clone(), Mutex::new(Vm::new(&name)))).collect();
        Stage {
            lab: RwLock::new(lab),
            vms,
            disturbances: AtomicU64::new(0),
            libvirtd: AtomicU64::new(0),
            clients: AtomicUsize::new(CLIENTS),
            failed: AtomicBool::new(false),
            counts: Mutex::default(),
        }
    }

    fn lab(&self) -> RwLockReadGuard<'_, Lab> {
        self.lab.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn vm(&self, name: &str) -> MutexGuard<'_, Vm> {
        self.vms[name].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn disturbances(&self) -> u64 {
        self.disturbances.load(Ordering::SeqCst)
    }

    /// Whether nothing was disturbed since then.
    fn is_calm_since(&self, disturbances: u64) -> bool {
        disturbances.is_multiple_of(2) && self.disturbances() == disturbances && self.libvirtd_lives()
    }

    /// It may die by itself: libvirt 9.0 has a race between the end of an upload and a deletion (its thread vol-refresh).
    /// A machine's own would be started again by systemd.
    fn libvirtd_lives(&self) -> bool {
        Path::new("/proc").join(self.libvirtd.load(Ordering::SeqCst).to_string()).exists()
    }

    fn note_libvirtd(&self) {
        let pid = self.lab().node.command("pid libvirtd").parse().unwrap();
        self.libvirtd.store(pid, Ordering::SeqCst);
    }

    fn wait_until_calm(&self) -> Result<(), String> {
        let end = Instant::now() + 2 * RECOVERY;
        while !self.disturbances().is_multiple_of(2) {
            if self.is_over() || Instant::now() > end {
                return Err(format!("{GIVEN_UP}: no calm"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        self.failed.load(Ordering::SeqCst)
    }

    fn count(&self, method: &str, answer: &Answer) {
        let code = answer.body["code"].as_str().map_or(answer.status.to_string(), str::to_owned);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(format!("{method} {code}")).or_default() += 1;
    }
}

/// A client's sequences: every eighth one.
fn client(stage: &Stage, number: usize, seed: u64, sequences: u64) -> Result<(), String> {
    let mut client = Client::new(stage, number);
    let mut outcome = Ok(());
    for sequence in (number as u64..sequences).step_by(CLIENTS) {
        outcome = client.sequence(seed.wrapping_mul(1_000_003).wrapping_add(sequence));
        if outcome.is_err() {
            stage.failed.store(true, Ordering::SeqCst);
            break;
        }
    }
    stage.clients.fetch_sub(1, Ordering::SeqCst);
    outcome
}

/// Kills the server, restarts libvirtd, or both at once, until the clients are done. Returns how often it did what.
fn disturb(stage: &Stage, mut dice: Dice) -> Result<(u64, u64), String> {
    let (mut deaths, mut restarts) = (0, 0);
    loop {
        let pause = Instant::now() + Duration::from_millis(1000 + dice.below(4000));
        while Instant::now() < pause && stage.libvirtd_lives() {
            if stage.clients.load(Ordering::SeqCst) == 0 || stage.is_over() {
                return Ok((deaths, restarts));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let what = dice.below(6);
        let (server, libvirtd) = (what != 0, what < 2);
        stage.disturbances.fetch_add(1, Ordering::SeqCst);
        if server {
            deaths += 1;
            kill(stage.lab().server.pid());
        }
        if libvirtd {
            restarts += 1;
            restart_libvirtd(stage);
        }
        if server && dice.one_in(3) {
            deaths += 1;
            die_at_a_step(stage, &mut dice);
        }
        if server {
            restart(stage, &[]);
        }
        let well = wait_until_well(stage);
        stage.disturbances.fetch_add(1, Ordering::SeqCst);
        if let Err(error) = well {
            stage.failed.store(true, Ordering::SeqCst);
            return Err(error);
        }
    }
}

fn restart(stage: &Stage, env: &[(&str, &str)]) {
    stage.lab.write().unwrap_or_else(PoisonError::into_inner).server.kill_and_restart(env);
}

fn restart_libvirtd(stage: &Stage) {
    if stage.libvirtd_lives() {
        stage.lab().node.command("kill-libvirtd");
    }
    stage.lab().node.command("start-libvirtd");
    stage.note_libvirtd();
}

/// Starts the server so that it dies at some step, and waits for that.
fn die_at_a_step(stage: &Stage, dice: &mut Dice) {
    let step = STEPS[dice.below(STEPS.len() as u64) as usize];
    let point = if dice.one_in(2) { "before" } else { "after" };
    restart(stage, &[("VMYARD_CRASH_AT", &format!("{step}:{point}"))]);
    let end = Instant::now() + DEATH;
    while Instant::now() < end && stage.lab().server.get("/healthz").status != 0 {
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Kills the server while others call it, which `kill_and_restart` can't.
fn kill(pid: u32) {
    assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
}

/// The node is up, and each VM on it has been looked at.
fn wait_until_well(stage: &Stage) -> Result<(), String> {
    let end = Instant::now() + RECOVERY;
    loop {
        if !stage.libvirtd_lives() {
            restart_libvirtd(stage);
        }
        let node = stage.lab().server.call("describe-node", json!({"node": "local"}));
        let vms = stage.lab().server.call("list-vms", json!({"limit": 1000}));
        let rows = vms.body["vms"].as_array().cloned().unwrap_or_default();
        let known = rows.iter().all(|row| row["stale"] == false && row["state"] != "unknown");
        if node.body["state"] == "up" && vms.status == 200 && known {
            return Ok(());
        }
        if Instant::now() > end {
            return Err(format!("not well within {RECOVERY:?}: {node:?} {vms:?}"));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// An image with nothing to boot: a guest of it costs next to nothing.
pub fn register_blank(lab: &Lab) {
    let image = lab.dir.path.join("blank.raw");
    fs::File::create(&image).unwrap().set_len(1 << 20).unwrap();
    lab.ok("register-template", json!({"name": "blank", "file": image, "default_user": "nobody"}));
}

pub fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

#[test]
fn random_sequences_agree_with_the_model() {
    let time = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64 % 1_000_000;
    let seed = number("VMYARD_TEST_SEED").unwrap_or(time);
    let full = std::env::var_os("VMYARD_TEST_FULL").is_some();
    let sequences = number("VMYARD_TEST_SEQUENCES").unwrap_or(if full { SEQUENCES.1 } else { SEQUENCES.0 });
    println!("VMYARD_TEST_SEED={seed} VMYARD_TEST_SEQUENCES={sequences}");

    let begun = Instant::now();
    let lab = Lab::with_settings(SETTINGS);
    register_blank(&lab);
    let stage = Stage::new(lab);
    stage.note_libvirtd();
    let (errors, disturbed) = std::thread::scope(|scope| {
        let disturber = scope.spawn(|| disturb(&stage, Dice::new(seed)));
        let stage = &stage;
        let clients: Vec<_> =
            (0..CLIENTS).map(|number| scope.spawn(move || client(stage, number, seed, sequences))).collect();
        let ended = clients.into_iter().map(|client| client.join().unwrap());
        (ended.filter_map(Result::err).collect::<Vec<_>>(), disturber.join().unwrap())
    });
    println!("{:?} {:#?}", begun.elapsed(), stage.counts.lock().unwrap());
    let first = errors.iter().find(|error| !error.starts_with(GIVEN_UP));
    assert!(first.is_none(), "VMYARD_TEST_SEED={seed}: {}", first.unwrap());
    let (deaths, restarts) = disturbed.unwrap_or_else(|error| panic!("VMYARD_TEST_SEED={seed}: {error}"));
    println!("{deaths} deaths of the server, {restarts} of libvirtd");
    agree::all_agree(&stage);
    agree::nothing_is_left(&stage);
    println!("VMYARD_TEST_SEED={seed}: {:?}", begun.elapsed());
}
