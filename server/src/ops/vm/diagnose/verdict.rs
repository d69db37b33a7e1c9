//! From what was seen to what it means. Nothing is looked at here.

use api::{
    Time,
    diagnose::{Finding, FindingCode},
    guest::CloudInitOutcome,
};
use hypervisor::domain::{Power, Why};

/// A guest that was started so lately may still be on its way, in milliseconds.
const BOOTING_MS: i64 = 20_000;
/// So long a guest may be without an address, or without its agent.
const SETTLED_MS: i64 = 60_000;
/// A system that boots reads more of its disks than this, in bytes.
const BOOTS: u64 = 256 << 10;
/// A pool is nearly full with less free than this, in bytes, or than a twentieth of it.
const FULL: u64 = 512 << 20;

/// What was seen of a VM.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Its name.
    pub name: String,
    /// Its node.
    pub node: String,
    /// Why that is not connected.
    pub node_away: Option<String>,
    /// Its power state and the reason; `None`: there is no domain.
    pub power: Option<(Power, Why)>,
    /// Whether its QEMU has left a call unanswered.
    pub silent: bool,
    /// The method that is at work on it.
    pub at_work: Option<String>,
    /// When it was started, or last reset.
    pub on_since: Option<Time>,
    /// Now.
    pub now: Time,
    /// What it has said on its serial line; `None`: that is not known.
    pub serial: Option<String>,
    /// Bytes read from its disks since it was started; `None`: not known.
    pub read_bytes: Option<u64>,
    /// The last error of a disk: whether there was no space, and in words.
    pub io_error: Option<(bool, String)>,
    /// Disks without their image, in words.
    pub images_gone: Vec<String>,
    /// The last line of QEMU's log that says something.
    pub qemu_said: Option<String>,
    /// Its interfaces: how many, and how many have their link up.
    pub nics: (usize, usize),
    /// Its networks, in words.
    pub networks: String,
    /// How many addresses of it are known.
    pub addresses: usize,
    /// Whether its guest agent is connected.
    pub agent: bool,
    /// How far cloud-init is, as the agent tells.
    pub cloud_init: Option<CloudInitOutcome>,
    /// The pools of its disks: name, size and what is free, in bytes.
    pub pools: Vec<(String, u64, u64)>,
}

/// All that was found, the weightiest first; at least one.
pub fn findings(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    found.extend(of_node(facts));
    if facts.node_away.is_none() {
        found.extend(of_domain(facts));
        if let Some((Power::Running, _)) = facts.power
            && !facts.silent
        {
            found.extend(of_guest(facts));
        }
        found.extend(of_pools(facts));
    }
    let wrong = |finding: &Finding| finding.code != FindingCode::PoolNearlyFull;
    if !found.iter().any(wrong) {
        found.push(told(
            FindingCode::Fine,
            format!("VM {} runs, and nothing is wrong with it that can be seen from outside", facts.name),
            None,
        ));
    }
    found.sort_by_key(|finding| finding.code);
    found
}

fn told(code: FindingCode, sentence: String, hint: Option<&str>) -> Finding {
    Finding { code, sentence, hint: hint.map(str::to_owned) }
}

fn of_node(facts: &Facts) -> Option<Finding> {
    let why = facts.node_away.as_ref()?;
    let sentence = format!("Node {} is not connected ({why}): what is told of VM {} is old", facts.node, facts.name);
    Some(told(FindingCode::NodeAway, sentence, Some("look after that host; Vmyard connects again by itself")))
}

fn of_domain(facts: &Facts) -> Vec<Finding> {
    let name = &facts.name;
    let mut found = Vec::new();
    if let Some(method) = &facts.at_work {
        found.push(told(
            FindingCode::AtWork,
            format!("{method} is at work on VM {name}"),
            Some("describe-task says how far it is"),
        ));
    }
    for gone in &facts.images_gone {
        found.push(told(
            FindingCode::ImageGone,
            format!("VM {name}: {gone}"),
            Some("bring the file back, or delete the VM; it can't start without it"),
        ));
    }
    let said = facts.qemu_said.as_ref().map(|said| format!("; QEMU's last words: {said}")).unwrap_or_default();
    match facts.power {
        None => found.push(told(
            FindingCode::DomainGone,
            format!("VM {name} has no domain on node {} any more: it was undefined outside of Vmyard", facts.node),
            Some("delete-vm clears what is left of it"),
        )),
        Some((Power::Paused, Why::IoError)) => {
            // QEMU pauses for nothing else, unless its definition says so.
            let full = facts.io_error.as_ref().is_none_or(|(no_space, _)| *no_space);
            let why = facts.io_error.as_ref().map(|(_, error)| format!(" ({error})")).unwrap_or_default();
            found.push(match full {
                true => told(
                    FindingCode::PoolFull,
                    format!("VM {name} was paused, since there was no space left for one of its disks{why}"),
                    Some("make room in the pool, then resume-vm goes on where it stopped; nothing was lost"),
                ),
                false => told(
                    FindingCode::DiskError,
                    format!("VM {name} was paused, since one of its disks could not be read or written{why}"),
                    Some("look after the storage, then resume-vm tries it again"),
                ),
            });
        }
        Some((Power::Paused, Why::Crashed)) => found.push(told(
            FindingCode::KernelPanic,
            format!("VM {name}'s guest has crashed, and was paused"),
            Some("look at its screen and serial line, then reboot-vm with force"),
        )),
        Some((Power::Paused, Why::Passing)) => {
            found.push(told(FindingCode::AtWork, format!("VM {name} is paused for a moment"), None));
        }
        Some((Power::Paused, _)) => {
            found.push(told(FindingCode::Paused, format!("VM {name} is paused"), Some("resume-vm lets it go on")));
        }
        Some((Power::Off, Why::Crashed | Why::Failed)) => found.push(told(
            FindingCode::QemuGone,
            format!("VM {name} is off, since its QEMU has ended by itself{said}"),
            Some("start it again (start-vm); the end of QEMU's log may say more, and the host's kernel log, if it ran out of memory"),
        )),
        Some((Power::Off, why)) => {
            let (how, hint) = match why {
                Why::PoweredOff => ("its guest powered off", "start-vm starts it"),
                Why::PowerCut => ("its power was cut", "start-vm starts it"),
                Why::Saved => (
                    "it was suspended with its memory outside of Vmyard (virsh managedsave, or when its host was shut down)",
                    "start-vm lets it go on where it was; until then its disks, interfaces and size can't be changed",
                ),
                _ => ("it was not started since its host was", "start-vm starts it"),
            };
            found.push(told(FindingCode::Off, format!("VM {name} is off: {how}"), Some(hint)));
        }
        Some((Power::Running, _)) if facts.silent => found.push(told(
            FindingCode::QemuHangs,
            format!("VM {name} runs, but its QEMU does not answer"),
            Some("the host may be out of memory, or its storage hangs; stop-vm with force ends it"),
        )),
        Some((Power::Running, _)) => {}
    }
    found
}

fn of_guest(facts: &Facts) -> Vec<Finding> {
    let name = &facts.name;
    let age_ms = facts.on_since.map(|since| facts.now.0 - since.0);
    let older_than = |ms: i64| age_ms.is_none_or(|age| age > ms);
    if let Some(panic) = facts.serial.as_deref().and_then(panic) {
        return vec![told(
            FindingCode::KernelPanic,
            format!("VM {name}'s kernel has panicked: {panic}"),
            Some(
                "reboot-vm with force starts it anew; a panic at each boot is the guest's to mend: boot another disk or an ISO image",
            ),
        )];
    }
    let quiet = facts.serial.as_deref().is_none_or(|serial| serial.trim().is_empty());
    // One that was booted from the network reads nothing of its disks, but has an address.
    let unseen = quiet && !facts.agent && facts.addresses == 0;
    if unseen && facts.read_bytes.is_some_and(|bytes| bytes < BOOTS) {
        let read = facts.read_bytes.unwrap_or(0);
        return vec![match older_than(BOOTING_MS) {
            true => told(
                FindingCode::NothingToBoot,
                format!(
                    "VM {name} has found nothing to boot from: it has read {read} bytes of its disks since it was started, and said nothing"
                ),
                Some(
                    "attach an ISO image to install from (attach-iso), or look at boot_order; its screen says what it waits for",
                ),
            ),
            false => told(FindingCode::Booting, format!("VM {name} has just been started"), None),
        }];
    }
    let mut found = Vec::new();
    match &facts.cloud_init {
        Some(outcome) if !outcome.errors.is_empty() => found.push(told(
            FindingCode::CloudInitFailed,
            format!("VM {name}'s cloud-init has failed: {}", outcome.errors.join("; ")),
            Some("its log is /var/log/cloud-init.log in the guest (vmyard vm exec, or the console)"),
        )),
        Some(outcome) if !outcome.done => {
            found.push(told(FindingCode::CloudInitAtWork, format!("VM {name}'s cloud-init is at work"), None));
        }
        _ => {}
    }
    match facts.nics {
        (0, _) => {}
        (_, 0) => found.push(told(
            FindingCode::LinkDown,
            format!("The links of all interfaces of VM {name} are down"),
            Some("modify-nic with link up connects them"),
        )),
        _ if facts.addresses == 0 && older_than(SETTLED_MS) => found.push(told(
            FindingCode::NoAddress,
            format!("VM {name} has no address that is known: it has asked no DHCP of {}, or got no answer", facts.networks),
            Some("look at the serial line; is there a DHCP server in that network, and does the guest bring its interface up?"),
        )),
        _ => {}
    }
    if !facts.agent && older_than(SETTLED_MS) {
        found.push(told(
            FindingCode::NoAgent,
            format!("VM {name} has no guest agent that is connected"),
            Some("install qemu-guest-agent in the guest: for its addresses, resets of passwords, and snapshots of quiet file systems"),
        ));
    }
    if found.is_empty() && !older_than(BOOTING_MS) && facts.addresses == 0 && !facts.agent {
        found.push(told(FindingCode::Booting, format!("VM {name} has just been started"), None));
    }
    found
}

/// The line in which Linux says that it has panicked, since it was last booted.
fn panic(serial: &str) -> Option<&str> {
    let last_boot = serial.rfind("Linux version ").unwrap_or(0);
    let line = serial[last_boot..].lines().find(|line| line.contains("Kernel panic - not syncing"))?;
    Some(line.trim().trim_start_matches(|c: char| "[]. ".contains(c) || c.is_ascii_digit()))
}

fn of_pools(facts: &Facts) -> Vec<Finding> {
    let full = facts.pools.iter().filter(|(_, size, free)| *free < FULL.min(size / 20));
    full.map(|(pool, _, free)| {
        told(
            FindingCode::PoolNearlyFull,
            format!("Pool {pool} has {} MiB free", free >> 20),
            Some("a VM whose disk finds no room is paused until there is some"),
        )
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running() -> Facts {
        Facts {
            name: "web".into(),
            node: "a".into(),
            power: Some((Power::Running, Why::Booted)),
            on_since: Some(Time(0)),
            now: Time(120_000),
            serial: Some("Linux version 6\nlogin:".into()),
            read_bytes: Some(1 << 30),
            nics: (1, 1),
            networks: "network default".into(),
            addresses: 1,
            agent: true,
            ..Facts::default()
        }
    }

    fn first(facts: &Facts) -> FindingCode {
        findings(facts)[0].code
    }

    #[test]
    fn each_finding_is_found() {
        assert_eq!(first(&running()), FindingCode::Fine);
        let with = |change: fn(&mut Facts)| {
            let mut facts = running();
            change(&mut facts);
            first(&facts)
        };
        assert_eq!(with(|f| f.node_away = Some("refused".into())), FindingCode::NodeAway);
        assert_eq!(with(|f| f.power = None), FindingCode::DomainGone);
        assert_eq!(with(|f| f.at_work = Some("stop-vm".into())), FindingCode::AtWork);
        assert_eq!(with(|f| f.images_gone = vec!["x".into()]), FindingCode::ImageGone);
        assert_eq!(with(|f| f.power = Some((Power::Paused, Why::IoError))), FindingCode::PoolFull);
        let broken = |f: &mut Facts| {
            f.power = Some((Power::Paused, Why::IoError));
            f.io_error = Some((false, "can't read or write disk vda".into()));
        };
        assert_eq!(with(broken), FindingCode::DiskError);
        assert_eq!(with(|f| f.silent = true), FindingCode::QemuHangs);
        assert_eq!(with(|f| f.power = Some((Power::Off, Why::Crashed))), FindingCode::QemuGone);
        assert_eq!(with(|f| f.power = Some((Power::Off, Why::PowerCut))), FindingCode::Off);
        assert_eq!(with(|f| f.power = Some((Power::Paused, Why::User))), FindingCode::Paused);
        assert_eq!(with(|f| f.nics = (2, 0)), FindingCode::LinkDown);
        assert_eq!(with(|f| f.addresses = 0), FindingCode::NoAddress);
        assert_eq!(with(|f| f.agent = false), FindingCode::NoAgent);
        let nothing = |f: &mut Facts| {
            (f.serial, f.read_bytes, f.agent, f.addresses) = (Some(String::new()), Some(4096), false, 0);
        };
        assert_eq!(with(nothing), FindingCode::NothingToBoot);
        let just = |f: &mut Facts| {
            (f.serial, f.read_bytes, f.agent, f.addresses) = (Some(String::new()), Some(4096), false, 0);
            f.now = Time(5000);
        };
        assert_eq!(with(just), FindingCode::Booting);
        let failed = |f: &mut Facts| {
            f.cloud_init = Some(CloudInitOutcome { done: true, datasource: None, errors: vec!["no".into()] });
        };
        assert_eq!(with(failed), FindingCode::CloudInitFailed);
        // What weighs less comes after.
        let full = |f: &mut Facts| {
            f.pools = vec![("default".into(), 1 << 40, 1 << 20)];
            f.agent = false;
        };
        let mut facts = running();
        full(&mut facts);
        let codes: Vec<_> = findings(&facts).iter().map(|finding| finding.code).collect();
        assert_eq!(codes, [FindingCode::NoAgent, FindingCode::PoolNearlyFull]);
    }

    #[test]
    fn a_panic_of_an_earlier_boot_is_over() {
        let panic_line = "[    1.2] Kernel panic - not syncing: VFS: Unable to mount root fs\n";
        assert_eq!(
            panic(&format!("Linux version 6\n{panic_line}")),
            Some("Kernel panic - not syncing: VFS: Unable to mount root fs")
        );
        assert_eq!(panic(&format!("Linux version 6\n{panic_line}Linux version 6\nlogin:")), None);
    }
}
