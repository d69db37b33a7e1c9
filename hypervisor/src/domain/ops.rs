//! The calls on domains.

use super::{DomainDisks, DomainView, agent::ANSWER_S, helper::is_helper, modify::at_next_start};
use crate::{
    ErrorKind, Node, Result,
    error::{again_while, if_there},
    node::{QUICK, SLOW},
};
use libvirt::{AddressSource as Source, Domain, DomainState, DomainStats, flags};
use std::time::Duration;
use uuid::Uuid;

/// How long libvirtd may be at odds with its own schema.
const SCHEMA: Duration = Duration::from_millis(500);

/// A domain's power state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Power {
    /// It runs (or is about to power off).
    Running,
    /// It is paused.
    Paused,
    /// It is off.
    Off,
}

/// A domain's XML.
struct Texts {
    power: Power,
    /// As it is now.
    xml: String,
    /// Of one that is on: its definition.
    definition: Option<String>,
}

impl Texts {
    /// Reads it, with as few round trips as can be: only what is on has an id, so of what is off nothing else must be asked.
    fn read(domain: &Domain) -> libvirt::Result<Texts> {
        let xml = domain.xml(0)?;
        if !has_id(&xml) {
            return Ok(Texts { power: Power::Off, xml, definition: None });
        }
        let (state, reason) = domain.state()?;
        let definition = domain.xml(flags::XML_INACTIVE)?;
        Ok(match power(state, reason) {
            // It went off in between, or is not on yet.
            Power::Off => Texts { power: Power::Off, xml: definition, definition: None },
            power => Texts { power, xml, definition: Some(definition) },
        })
    }
}

/// Whether a domain's XML has an id: `<domain type='kvm' id='3'>`.
fn has_id(xml: &str) -> bool {
    let root = xml.split_once("<domain").and_then(|(_, rest)| rest.split_once('>'));
    root.is_some_and(|(attributes, _)| attributes.contains(" id="))
}

/// A domain in a listing of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DomainStatus {
    /// The domain.
    pub uuid: Uuid,
    /// Its power state.
    pub power: Power,
}

/// An address of a domain.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// The hardware address of its interface.
    pub mac: String,
    /// IPv4 or IPv6, without prefix length.
    pub address: String,
    /// Where it was learnt.
    pub source: AddressSource,
}

/// Where an address was learnt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AddressSource {
    /// The DHCP leases of the libvirt network.
    Lease,
    /// The guest agent.
    Agent,
    /// The node's ARP table.
    Arp,
}

/// A domain as its XML has it now.
#[derive(Debug, Clone)]
pub struct DomainText {
    /// Its power state.
    pub power: Power,
    /// What is running; of one that is off the definition.
    pub live: DomainView,
    /// The definition.
    pub defined: DomainView,
    /// The XML of both.
    text: String,
}

impl DomainText {
    /// Its disks.
    pub fn disks(&self) -> DomainDisks {
        DomainDisks { power: self.power, live: self.live.disks.clone(), defined: self.defined.disks.clone() }
    }

    /// Whether the name of a file is anywhere in it: as a disk or what that stands on, as firmware, a log, or whatever else
    /// libvirt or its user may think of.
    pub fn names(&self, file: &str) -> bool {
        self.text.contains(file)
    }
}

impl Node {
    /// A domain's XML, of what runs and of the definition; `None` when there is no such domain.
    pub async fn domain_text(&self, id: Uuid) -> Result<Option<DomainText>> {
        let doing = format!("read domain {id}");
        let Some(read) = if_there(self.ask_domain(id, &doing, Texts::read).await)? else { return Ok(None) };
        let Texts { power, xml, definition } = read;
        let view = |text: &str| DomainView::parse(text).ok_or_else(|| self.unreadable(&doing));
        let live = view(&xml)?;
        let Some(definition) = definition else {
            return Ok(Some(DomainText { power, defined: live.clone(), live, text: xml }));
        };
        Ok(Some(DomainText { power, live, defined: view(&definition)?, text: xml + &definition }))
    }

    fn unreadable(&self, doing: &str) -> crate::Error {
        self.error(ErrorKind::Failed, doing, "libvirt's XML can't be read")
    }

    /// All domains of the node with their power states, by one call that asks no QEMU.
    pub async fn domains(&self) -> Result<Vec<DomainStatus>> {
        self.ask("list domains", |connection| {
            match connection.domain_stats(flags::STATS_STATE, 0) {
                Ok(stats) => Ok(stats.iter().filter(|one| !is_helper(&one.name)).map(status).collect()),
                // libvirt's test driver has no bulk statistics.
                Err(error) if error.code == libvirt::ErrorCode::NO_SUPPORT => {
                    let domains = connection.domains(0)?;
                    let statuses = domains.iter().map(|domain| {
                        let (state, reason) = domain.state()?;
                        Ok(DomainStatus { uuid: Uuid::from_bytes(domain.uuid()), power: power(state, reason) })
                    });
                    statuses.collect()
                }
                Err(error) => Err(error),
            }
        })
        .await
    }

    /// A domain's power state and configuration: of the running domain while it runs, with what its next start will
    /// change, else of the definition. `None` when there is no such domain.
    pub async fn domain(&self, id: Uuid) -> Result<Option<(Power, DomainView)>> {
        let doing = format!("read domain {id}");
        let read = self
            .ask_domain(id, &doing, move |domain| {
                let texts = Texts::read(domain)?;
                // One without a definition has none.
                Ok((texts, domain.autostart().unwrap_or(false)))
            })
            .await;
        let Some((Texts { power, xml, definition }, autostart)) = if_there(read)? else { return Ok(None) };
        match DomainView::parse(&xml) {
            Some(mut view) => {
                view.autostart = autostart;
                view.at_next_start = definition.and_then(|definition| at_next_start(&definition, &view));
                Ok(Some((power, view)))
            }
            None => Err(self.unreadable(&doing)),
        }
    }

    /// A domain's power state, and why it is in it (virDomain…Reason); `None` when there is no such domain.
    pub async fn power(&self, id: Uuid) -> Result<Option<(Power, i32)>> {
        let read = self
            .ask_domain(id, &format!("read the state of domain {id}"), move |domain| {
                let (state, reason) = domain.state()?;
                Ok((power(state, reason), reason))
            })
            .await;
        if_there(read)
    }

    /// Whether a domain that is off keeps the memory of a run (`virsh managedsave`, or `libvirt-guests` when its host was shut
    /// down): its next start goes on from there, with the disks and devices that it had. One that is gone keeps none.
    pub async fn has_saved_memory(&self, id: Uuid) -> Result<bool> {
        let doing = format!("look for saved memory of domain {id}");
        let has = if_there(self.ask_domain(id, &doing, |domain| domain.has_managed_save()).await)?;
        Ok(has.unwrap_or(false))
    }

    /// Has a domain started, or not, whenever its node is booted. One that is gone is not.
    pub async fn set_autostart(&self, id: Uuid, on: bool) -> Result<()> {
        let doing = format!("set whether domain {id} starts with its node");
        let set = self.change_domain(id, QUICK, &doing, move |domain| domain.set_autostart(on)).await;
        if_there(set).map(|_| ())
    }

    /// A domain's XML.
    pub async fn domain_xml(&self, id: Uuid, inactive: bool, secrets: bool) -> Result<String> {
        self.ask_domain(id, &format!("read the XML of domain {id}"), move |domain| {
            let flags = if inactive { flags::XML_INACTIVE } else { 0 } | if secrets { flags::XML_SECURE } else { 0 };
            domain.xml(flags)
        })
        .await
    }

    /// Defines a domain from XML that is checked against libvirt's schema.
    pub async fn define(&self, name: &str, xml: String) -> Result<()> {
        self.change(QUICK, &format!("define domain {name}"), move |connection| {
            // Two first checks at once in a libvirtd that has just started get in each other's way: its XML library sets up the
            // schema's data types without a lock, and one of them is told that the schema can't be parsed. It can a moment later.
            let define = || connection.define_domain(&xml, flags::DEFINE_VALIDATE).map(|_| ());
            again_while("Unable to parse RNG", SCHEMA, define)
        })
        .await
    }

    /// Takes a domain's definition away, with what libvirt keeps beside it (managed save, NVRAM, snapshot metadata).
    /// Returns whether there was one. The domain must be off: a running one would live on without a definition.
    pub async fn undefine(&self, id: Uuid) -> Result<bool> {
        let all = flags::UNDEFINE_MANAGED_SAVE
            | flags::UNDEFINE_NVRAM
            | flags::UNDEFINE_SNAPSHOTS_METADATA
            | flags::UNDEFINE_CHECKPOINTS_METADATA;
        self.undefine_with(id, all).await
    }

    /// Takes a domain's definition away and nothing else: its NVRAM stays, and libvirt refuses it where it keeps a managed save
    /// or snapshots of the domain. Returns whether there was one. The domain must be off.
    pub async fn undefine_only(&self, id: Uuid) -> Result<bool> {
        self.undefine_with(id, flags::UNDEFINE_KEEP_NVRAM).await
    }

    async fn undefine_with(&self, id: Uuid, with: u32) -> Result<bool> {
        let doing = format!("undefine domain {id}");
        let undefined = self
            .change_domain(id, QUICK, &doing, move |domain| {
                if domain.is_active()? {
                    return Ok(false);
                }
                domain.undefine(with).map(|()| true)
            })
            .await;
        match if_there(undefined)? {
            Some(false) => Err(self.error(ErrorKind::WrongState, &doing, "the domain is not off")),
            undefined => Ok(undefined.is_some()),
        }
    }

    /// Starts a domain.
    pub async fn start(&self, id: Uuid) -> Result<()> {
        self.change_domain(id, SLOW, &format!("start domain {id}"), move |domain| domain.start(0)).await
    }

    /// Presses a domain's ACPI power button. The guest decides what comes of it.
    pub async fn press_power_button(&self, id: Uuid) -> Result<()> {
        self.change_domain(id, QUICK, &format!("ask domain {id} to power off"), move |domain| {
            domain.shutdown(flags::SHUTDOWN_ACPI)
        })
        .await
    }

    /// Asks the guest by ACPI to power off, upon which libvirt resets it. The guest decides what comes of it.
    pub async fn ask_reboot(&self, id: Uuid) -> Result<()> {
        self.change_domain(id, QUICK, &format!("ask domain {id} to reboot"), move |domain| {
            domain.reboot(flags::REBOOT_ACPI)
        })
        .await
    }

    /// Presses a domain's reset button.
    pub async fn reset(&self, id: Uuid) -> Result<()> {
        self.change_domain(id, QUICK, &format!("reset domain {id}"), move |domain| domain.reset()).await
    }

    /// Stops a running domain's CPUs.
    pub async fn pause(&self, id: Uuid) -> Result<()> {
        self.change_domain(id, QUICK, &format!("pause domain {id}"), move |domain| domain.suspend()).await
    }

    /// Lets a paused domain's CPUs run on.
    pub async fn resume(&self, id: Uuid) -> Result<()> {
        self.change_domain(id, QUICK, &format!("resume domain {id}"), move |domain| domain.resume()).await
    }

    /// Cuts a domain's power. One that is off already, or is gone, is fine. It needs no answer of QEMU's, so it doesn't
    /// wait for the places that calls about the domain have: they may hang, and this is what ends them.
    pub async fn cut_power(&self, id: Uuid) -> Result<()> {
        let cut = self
            .change(SLOW, &format!("cut the power of domain {id}"), move |connection| {
                let domain = connection.domain(id)?;
                match domain.destroy(0) {
                    Err(_) if !domain.is_active()? => Ok(()),
                    done => done,
                }
            })
            .await;
        if_there(cut).map(|_| ())
    }

    /// The addresses of a running domain that one source knows. No answer of the source means none.
    pub async fn addresses(&self, id: Uuid, source: AddressSource) -> Result<Vec<Address>> {
        let from = match source {
            AddressSource::Lease => Source::Lease,
            AddressSource::Agent => Source::Agent,
            AddressSource::Arp => Source::Arp,
        };
        self.ask_domain(id, &format!("read the addresses of domain {id}"), move |domain| {
            if source == AddressSource::Agent {
                // Without it libvirt waits for ever for a guest whose agent falls silent in the middle.
                domain.agent_set_response_timeout(ANSWER_S)?;
            }
            let interfaces = domain.interface_addresses(from)?;
            let addresses = interfaces.into_iter().flat_map(|interface| {
                let mac = interface.mac.unwrap_or_default();
                interface.addresses.into_iter().map(move |(address, _)| Address { mac: mac.clone(), address, source })
            });
            Ok(addresses.collect())
        })
        .await
    }
}

/// A domain that comes up or goes down is on, though libvirt calls it paused: nobody has paused it, and nobody can resume it.
pub(super) fn power(state: DomainState, reason: i32) -> Power {
    match (state, reason) {
        (DomainState::Running | DomainState::Blocked | DomainState::Shutdown, _) => Power::Running,
        (DomainState::Paused, flags::REASON_PAUSED_STARTING_UP | flags::REASON_PAUSED_SHUTTING_DOWN) => Power::Running,
        (DomainState::Paused | DomainState::PmSuspended, _) => Power::Paused,
        _ => Power::Off,
    }
}

pub(super) fn status(stats: &DomainStats) -> DomainStatus {
    let number = |name: &str| stats.get(name).and_then(libvirt::Value::as_u64).and_then(|n| i32::try_from(n).ok());
    // virDomainState: 1 running, 2 blocked, 3 paused, 4 shutting down, 5 shutoff, 6 crashed, 7 suspended by the guest.
    let state = match number("state.state") {
        Some(1 | 2 | 4) => DomainState::Running,
        Some(3) => DomainState::Paused,
        Some(7) => DomainState::PmSuspended,
        _ => DomainState::Shutoff,
    };
    DomainStatus { uuid: Uuid::from_bytes(stats.uuid), power: power(state, number("state.reason").unwrap_or(0)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_on_has_an_id() {
        assert!(has_id("<domain type='kvm' id='3'>\n  <name>x</name>"));
        assert!(has_id("<?xml version='1.0'?>\n<domain id='3' type='kvm' xmlns:qemu='…'>"));
        assert!(!has_id("<domain type='kvm'>\n  <name>x</name><vcpus><vcpu id='0'/></vcpus>"));
        assert!(!has_id(""));
    }

    #[test]
    fn a_domain_that_comes_up_is_not_paused() {
        assert_eq!(power(DomainState::Paused, flags::REASON_PAUSED_USER), Power::Paused);
        assert_eq!(power(DomainState::Paused, flags::REASON_PAUSED_IOERROR), Power::Paused);
        assert_eq!(power(DomainState::Paused, flags::REASON_PAUSED_STARTING_UP), Power::Running);
        assert_eq!(power(DomainState::Paused, flags::REASON_PAUSED_SHUTTING_DOWN), Power::Running);
    }
}
