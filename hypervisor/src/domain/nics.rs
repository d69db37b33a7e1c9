//! Network interfaces of domains: plugging in, asking a guest to let go, link and limits.
//!
//! An interface is known by its hardware address, in the running domain and in its definition. They are kept in step here,
//! as disks are ([`super::disks`]).

use super::{
    DomainText, NicSpec, NicView, Power,
    disks::asked,
    edits::{Edits, child, text_of},
    layers::unreadable,
};
use crate::{
    Node, Result,
    node::{QUICK, SLOW},
    xml::Xml,
};
use libvirt::{Domain, flags};
use roxmltree::{Document, Node as Element};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The interfaces of a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainNics {
    /// Its power state.
    pub power: Power,
    /// Those that it has now; of a domain that is off those of its definition.
    pub live: Vec<NicView>,
    /// Those of its definition, which it has from its next start on.
    pub defined: Vec<NicView>,
}

impl DomainNics {
    /// The interface of this hardware address that it has now.
    pub fn live(&self, mac: &str) -> Option<&NicView> {
        self.live.iter().find(|nic| nic.mac.eq_ignore_ascii_case(mac))
    }

    /// The interface of this hardware address in its definition.
    pub fn defined(&self, mac: &str) -> Option<&NicView> {
        self.defined.iter().find(|nic| nic.mac.eq_ignore_ascii_case(mac))
    }
}

/// What is to be changed of an interface; what is `None` stays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NicChange {
    /// Whether its link is up.
    pub link_up: Option<bool>,
    /// The most that goes to the guest, in kilobytes (1,000 bytes) a second; 0 for no limit.
    pub rx_kb_per_s: Option<u64>,
    /// The most that comes from the guest, in kilobytes a second; 0 for no limit.
    pub tx_kb_per_s: Option<u64>,
}

impl Node {
    /// The interfaces of a domain; `None` when there is no such domain.
    pub async fn nics(&self, id: Uuid) -> Result<Option<DomainNics>> {
        let nics =
            |text: DomainText| DomainNics { power: text.power, live: text.live.nics, defined: text.defined.nics };
        Ok(self.domain_text(id).await?.map(nics))
    }

    /// Plugs an interface into a domain: into its definition and, when it is on, into the running one; both or none.
    pub async fn attach_nic(&self, id: Uuid, nic: &NicSpec) -> Result<()> {
        let (doing, xml) = (format!("attach interface {} to domain {id}", nic.mac), to_xml(nic));
        let attached = self.change_domain(id, SLOW, &doing, move |domain| {
            let live = if domain.is_active()? { flags::AFFECT_LIVE } else { 0 };
            domain.attach_device(&xml, live | flags::AFFECT_CONFIG)
        });
        attached.await
    }

    /// Adds an interface to a domain's definition alone.
    pub async fn define_nic(&self, id: Uuid, nic: &NicSpec) -> Result<()> {
        let (doing, xml) = (format!("add interface {} to the definition of domain {id}", nic.mac), to_xml(nic));
        self.change_domain(id, QUICK, &doing, move |domain| domain.attach_device(&xml, flags::AFFECT_CONFIG)).await
    }

    /// Takes an interface out of a domain's definition. One that is not there is fine.
    pub async fn undefine_nic(&self, id: Uuid, mac: &str) -> Result<()> {
        let (doing, mac) = (format!("take interface {mac} out of the definition of domain {id}"), mac.to_owned());
        let taken = self.change_domain(id, QUICK, &doing, move |domain| match element(domain, &mac, true)? {
            Some(xml) => domain.detach_device(&xml, flags::AFFECT_CONFIG),
            None => Ok(()),
        });
        taken.await
    }

    /// Asks the guest of a running domain to let go of an interface. It is done when it is gone from [`Node::nics`]; to be
    /// called again where the guest doesn't hear it.
    pub async fn ask_for_nic(&self, id: Uuid, mac: &str) -> Result<()> {
        let (doing, mac) = (format!("ask domain {id} to let go of interface {mac}"), mac.to_owned());
        let question = self.change_domain(id, QUICK, &doing, move |domain| {
            let Some(xml) = element(domain, &mac, false)? else { return Ok(()) };
            asked(domain.detach_device(&xml, flags::AFFECT_LIVE))
        });
        question.await
    }

    /// Changes link and limits of an interface: of the running domain first, since that can fail, then in the definition. All
    /// else that either says of it stays, its place on the PCI bus too, which may be another in each. Where it is not there,
    /// there is nothing to change.
    pub async fn change_nic(&self, id: Uuid, mac: &str, change: NicChange) -> Result<()> {
        let (doing, mac) = (format!("change interface {mac} of domain {id}"), mac.to_owned());
        let changed = self.change_domain(id, SLOW, &doing, move |domain| {
            if domain.is_active()?
                && let Some(xml) = element(domain, &mac, false)?
            {
                domain.update_device(&changed(&xml, &change)?, flags::AFFECT_LIVE)?;
            }
            if let Some(xml) = element(domain, &mac, true)? {
                domain.update_device(&changed(&xml, &change)?, flags::AFFECT_CONFIG)?;
            }
            Ok(())
        });
        changed.await
    }
}

fn to_xml(nic: &NicSpec) -> String {
    let mut xml = Xml::new();
    super::spec::write_nic(&mut xml, nic, None);
    xml.finish().unwrap_or_default()
}

/// An interface's element as libvirt writes it, of the definition or of the running domain.
fn element(domain: &Domain, mac: &str, defined: bool) -> libvirt::Result<Option<String>> {
    let is_it = |node: Element<'_, '_>| {
        let address = child(node, "mac").and_then(|mac| mac.attribute("address"));
        node.has_tag_name("interface") && address.is_some_and(|address| address.eq_ignore_ascii_case(mac))
    };
    text_of(&domain.xml(if defined { flags::XML_INACTIVE | flags::XML_SECURE } else { 0 })?, is_it)
}

/// The element with the change made.
fn changed(xml: &str, change: &NicChange) -> libvirt::Result<String> {
    let document = Document::parse(xml).map_err(|_| unreadable())?;
    let nic = document.root_element();
    let mut edits = Edits::default();
    let at_the_end = xml.rfind("</interface>").ok_or_else(unreadable)?;
    if let Some(up) = change.link_up {
        let state = if up { "up" } else { "down" };
        match child(nic, "link") {
            Some(link) => edits.attribute(link, "state", state),
            None => edits.insert(at_the_end, format!("<link state='{state}'/>")),
        }
    }
    if change.rx_kb_per_s.is_some() || change.tx_kb_per_s.is_some() {
        let before = child(nic, "bandwidth");
        // What somebody has set beside the average (peak, burst) goes with it: it belongs to the old limit.
        let direction = |name: &str, new: Option<u64>| match new {
            Some(0) => String::new(),
            Some(average) => format!("<{name} average='{average}'/>"),
            None => before.and_then(|all| child(all, name)).map_or("", |old| &xml[old.range()]).to_owned(),
        };
        let inner = direction("inbound", change.rx_kb_per_s) + &direction("outbound", change.tx_kb_per_s);
        let after = if inner.is_empty() { inner } else { format!("<bandwidth>{inner}</bandwidth>") };
        match before {
            Some(before) => edits.replace(before, after),
            None => edits.insert(at_the_end, after),
        }
    }
    Ok(edits.apply(xml))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NIC: &str = "<interface type='network'>\n  <mac address='52:54:00:00:00:01'/>
  <bandwidth>\n    <inbound average='5' peak='7'/>\n  </bandwidth>
  <driver queues='2'/>\n  <model type='virtio'/>\n</interface>";

    fn with(change: NicChange) -> String {
        changed(NIC, &change).unwrap()
    }

    #[test]
    fn only_what_is_named_is_changed() {
        assert_eq!(with(NicChange::default()), NIC);
        let down = with(NicChange { link_up: Some(false), ..NicChange::default() });
        assert_eq!(down, NIC.replace("</interface>", "<link state='down'/></interface>"));
        let up = changed(&down, &NicChange { link_up: Some(true), ..NicChange::default() }).unwrap();
        assert_eq!(up, down.replace("down", "up"));
        let tx = with(NicChange { tx_kb_per_s: Some(9), ..NicChange::default() });
        assert!(tx.contains("<bandwidth><inbound average='5' peak='7'/><outbound average='9'/></bandwidth>"), "{tx}");
        let none = with(NicChange { rx_kb_per_s: Some(0), ..NicChange::default() });
        assert!(!none.contains("bandwidth") && none.contains("queues='2'"), "{none}");
    }
}
