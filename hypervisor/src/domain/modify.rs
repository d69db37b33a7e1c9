//! Changing a domain that is there: its size, by its definition and by hot-plug, its title and our metadata.

use super::{
    AtNextStart, BootDevice, BootPlaces, DomainView, Metadata, Power, boot,
    edits::{Edits, child},
    metadata::NAMESPACE,
    ops::power,
    resize::{self, Sizes},
};
use crate::{
    ErrorKind, Node, Result,
    error::if_there,
    node::{QUICK, SLOW},
    xml::Xml,
};
use libvirt::{Domain, flags};
use roxmltree::Document;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// The prefix of our element, as in what [`super::DomainSpec`] writes.
const PREFIX: &str = "vmyard";
/// How long a guest has to let go of a memory module.
const UNPLUG: Duration = Duration::from_secs(60);
/// How often it is asked: a guest that is still in its firmware doesn't hear it.
const ASK_AGAIN: Duration = Duration::from_secs(3);

/// A domain before it is changed.
pub struct Before {
    /// Its power state.
    pub power: Power,
    /// The sizes of its definition.
    pub sizes: Sizes,
    /// Whether the definition's memory is in one NUMA cell: such a domain can have headroom for memory.
    pub one_cell: bool,
    /// What is plugged into the running domain; `None` when it is off.
    pub on: Option<Plugged>,
    /// Which devices of its definition boot.
    pub boot: BootPlaces,
    /// Whether it starts with its node.
    pub autostart: bool,
    /// Its title and our metadata.
    pub labels: Labels,
    /// The same metadata, read; `None` where there is none.
    pub metadata: Option<Metadata>,
    /// The definition with its secrets, which stay here.
    definition: String,
}

impl Before {
    /// Whether the definition can have these sizes, or why not.
    pub fn takes(&self, sizes: &Sizes) -> std::result::Result<(), &'static str> {
        resize::edit(&self.definition, sizes).map(|_| ())
    }

    /// The places of devices for a boot order, or what the definition lacks for it.
    pub fn boot_places(&self, order: &[BootDevice]) -> std::result::Result<BootPlaces, &'static str> {
        let document = Document::parse(&self.definition).map_err(|_| "its definition can't be read")?;
        let places = boot::places_for(document.root_element(), order)?;
        boot::edit(&self.definition, &places).map(|_| places)
    }
}

/// What is plugged into a domain that is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plugged {
    /// Its sizes, with the modules.
    pub sizes: Sizes,
    /// What it booted from.
    pub boot: Vec<BootDevice>,
    /// Its memory modules, in KiB each.
    pub modules: Vec<u64>,
}

/// What people read of a domain.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Labels {
    /// Its title.
    pub title: Option<String>,
    /// Our element in its metadata, as XML without prefix.
    pub element: Option<String>,
}

impl Labels {
    /// Those of a VM, or the first character that XML can't hold.
    pub fn of(metadata: &Metadata) -> std::result::Result<Labels, char> {
        let mut xml = Xml::new();
        metadata.write_plain(&mut xml);
        Ok(Labels { title: Some(metadata.name.clone()), element: Some(xml.finish()?) })
    }
}

/// A definition's XML with other sizes, another boot order and other metadata, to show what a change would do; `None` where
/// it can't be told.
pub fn preview(xml: &str, sizes: &Sizes, boot: Option<&BootPlaces>, metadata: Option<&Metadata>) -> Option<String> {
    let mut xml = resize::edit(xml, sizes).ok()?;
    if let Some(places) = boot {
        xml = boot::edit(&xml, places).ok()?;
    }
    let Some(metadata) = metadata else { return Some(xml) };
    let document = Document::parse(&xml).ok()?;
    let domain = document.root_element();
    let mut edits = Edits::default();
    if let Some(title) = child(domain, "title") {
        edits.text(title, quick_xml::escape::escape(metadata.name.as_str()));
    }
    let all = child(domain, "metadata");
    if let Some(ours) = all.and_then(|all| all.children().find(|node| node.has_tag_name((NAMESPACE, "vm")))) {
        edits.replace(ours, metadata.indented()?);
    }
    Some(edits.apply(&xml))
}

impl Node {
    /// What must be known of a domain before it is changed. One without a definition is in a wrong state.
    pub async fn before_change(&self, id: Uuid) -> Result<Before> {
        let doing = format!("read the definition of domain {id}");
        let read = self
            .ask_domain(id, &doing, move |domain| {
                if !domain.is_persistent()? {
                    return Ok(None);
                }
                let (state, reason) = domain.state()?;
                let power = power(state, reason);
                let running = (power != Power::Off).then(|| domain.xml(0)).transpose()?;
                let definition = domain.xml(flags::XML_INACTIVE | flags::XML_SECURE)?;
                let labels = Labels {
                    title: domain.title(flags::AFFECT_CONFIG)?,
                    element: domain.metadata(NAMESPACE, flags::AFFECT_CONFIG)?,
                };
                Ok(Some((power, running, definition, labels, domain.autostart()?)))
            })
            .await?;
        let Some((power, running, definition, labels, autostart)) = read else {
            return Err(self.error(ErrorKind::WrongState, &doing, "it has none: it is gone when it is off"));
        };
        let unreadable = || self.error(ErrorKind::Unsupported, &doing, "its sizes can't be read");
        let (sizes, one_cell, boot, metadata) = {
            let document = Document::parse(&definition).map_err(|_| unreadable())?;
            let domain = document.root_element();
            let sizes = Sizes::read(domain).ok_or_else(unreadable)?;
            (sizes, resize::has_one_cell(domain), boot::places(domain), Metadata::read(domain))
        };
        let on = running.map(|xml| plugged(&xml).ok_or_else(unreadable)).transpose()?;
        Ok(Before { power, sizes, one_cell, on, boot, autostart, labels, metadata, definition })
    }

    /// Gives a definition these sizes, from the next start on. A domain that is gone, or has no definition, has none to
    /// change.
    pub async fn resize(&self, id: Uuid, sizes: Sizes) -> Result<()> {
        let doing = format!("change the size of domain {id}");
        self.redefine(id, &doing, move |definition| resize::edit(definition, &sizes)).await
    }

    /// Defines a domain with its definition edited in place. One that is gone, or has no definition, has none to change; one
    /// that can't be edited so is `Unsupported`.
    pub(super) async fn redefine(
        &self,
        id: Uuid,
        doing: &str,
        edit: impl FnOnce(&str) -> std::result::Result<String, &'static str> + Send + 'static,
    ) -> Result<()> {
        let redefined = self
            .change_domain(id, QUICK, doing, move |domain| {
                // Defining it would make one of what has none.
                if !domain.is_persistent()? {
                    return Ok(Ok(()));
                }
                let before = domain.xml(flags::XML_INACTIVE | flags::XML_SECURE)?;
                match edit(&before) {
                    Ok(after) if after != before => domain.connect().define_domain(&after, 0).map(|_| Ok(())),
                    edited => Ok(edited.map(|_| ())),
                }
            })
            .await;
        match if_there(redefined)? {
            Some(Err(why)) => Err(self.error(ErrorKind::Unsupported, doing, why)),
            _ => Ok(()),
        }
    }

    /// Gives a domain this title and this metadata, in its definition and, while it is on, at once. One that is gone has
    /// none.
    pub async fn relabel(&self, id: Uuid, labels: Labels) -> Result<()> {
        let relabelled = self
            .change_domain(id, QUICK, &format!("change the metadata of domain {id}"), move |domain| {
                let on = if domain.is_active()? { flags::AFFECT_LIVE } else { 0 };
                let defined = if domain.is_persistent()? { flags::AFFECT_CONFIG } else { 0 };
                domain.set_title(labels.title.as_deref(), on | defined)?;
                let element = labels.element.as_deref().map(|element| compact(element).unwrap_or(element.to_owned()));
                domain.set_metadata(element.as_deref(), PREFIX, NAMESPACE, on | defined)
            })
            .await;
        if_there(relabelled).map(|_| ())
    }

    /// Plugs virtual CPUs into a domain that is on, up to this number, and makes sure of it. They can't be unplugged:
    /// under TCG that makes libvirt and QEMU disagree, and the next plug can crash QEMU.
    pub async fn plug_vcpus(&self, id: Uuid, count: u32) -> Result<()> {
        let doing = format!("plug virtual CPUs into domain {id}");
        let there = self
            .change_domain(id, SLOW, &doing, move |domain| {
                domain.set_vcpus(count, flags::AFFECT_LIVE)?;
                domain.vcpus(flags::AFFECT_LIVE)
            })
            .await?;
        match there == count {
            true => Ok(()),
            false => Err(self.error(ErrorKind::Failed, &doing, &format!("it has {there} instead of {count}"))),
        }
    }

    /// Plugs a memory module of this alias, which begins with `ua-`, into a domain that is on, and makes sure of it.
    ///
    /// A DIMM rather than virtio-mem: every Linux takes it by ACPI without a driver of its own, and it needs no device in
    /// the definition. The guest takes only whole blocks, which are 128 MiB.
    pub async fn plug_memory(&self, id: Uuid, alias: String, kib: u64) -> Result<()> {
        let doing = format!("plug memory into domain {id}");
        let there = self
            .change_domain(id, SLOW, &doing, move |domain| {
                domain.attach_device(&module(&alias, kib), flags::AFFECT_LIVE)?;
                has_module(domain, &alias)
            })
            .await?;
        match there {
            true => Ok(()),
            false => Err(self.error(ErrorKind::Failed, &doing, "libvirt doesn't show it")),
        }
    }

    /// Unplugs a memory module; returns whether it is gone. The guest may keep it, since it is in use: then it stays until
    /// the domain is off. One that is gone already is fine.
    pub async fn unplug_memory(&self, id: Uuid, alias: &str) -> Result<bool> {
        let end = Instant::now() + UNPLUG;
        let mut ask_at = Instant::now();
        loop {
            let (alias, ask) = (alias.to_owned(), Instant::now() >= ask_at);
            if ask {
                ask_at = Instant::now() + ASK_AGAIN;
            }
            let left = self
                .change_domain(id, SLOW, &format!("unplug memory from domain {id}"), move |domain| {
                    if !domain.is_active()? || !has_module(domain, &alias)? {
                        return Ok(false);
                    }
                    // Refused while the guest thinks about it: what counts is whether the module is there.
                    if ask {
                        let _ = domain.detach_device_alias(&alias, flags::AFFECT_LIVE);
                    }
                    Ok(true)
                })
                .await;
            match if_there(left)? {
                Some(true) if Instant::now() < end => tokio::time::sleep(Duration::from_millis(200)).await,
                left => return Ok(left != Some(true)),
            }
        }
    }
}

/// An element without the space between its elements: libvirt indents what has none, and nothing else.
fn compact(element: &str) -> Option<String> {
    let document = Document::parse(element).ok()?;
    let mut edits = Edits::default();
    for node in document.descendants().filter(|node| node.is_text()) {
        let alone = node.prev_sibling().or_else(|| node.next_sibling()).is_none();
        if !alone && node.text().is_some_and(|text| text.trim().is_empty()) {
            edits.drop(node);
        }
    }
    Some(edits.apply(element))
}

fn plugged(xml: &str) -> Option<Plugged> {
    let document = Document::parse(xml).ok()?;
    let domain = document.root_element();
    Some(Plugged { sizes: Sizes::read(domain)?, boot: boot::order(domain), modules: resize::modules(domain) })
}

fn module(alias: &str, kib: u64) -> String {
    let mut xml = Xml::new();
    xml.nest("memory", &[("model", "dimm")], |xml| {
        xml.nest("target", &[], |xml| {
            xml.text("size", &[("unit", "KiB")], &kib.to_string());
            xml.text("node", &[], "0");
        });
        xml.empty("alias", &[("name", alias)]);
    });
    // An alias is of our making.
    xml.finish().unwrap_or_default()
}

fn has_module(domain: &Domain, alias: &str) -> libvirt::Result<bool> {
    // With its quotes: no other alias ends so.
    Ok(domain.xml(0)?.contains(&format!("<alias name='{alias}'/>")))
}

/// What the next start will make of a domain that is on, where its definition says something else than it is.
pub(super) fn at_next_start(definition: &str, now: &DomainView) -> Option<AtNextStart> {
    let document = Document::parse(definition).ok()?;
    let domain = document.root_element();
    let sizes = Sizes::read(domain)?;
    let next = AtNextStart { vcpus: sizes.vcpus, memory_mib: sizes.memory_kib >> 10, boot: boot::order(domain) };
    let same = (next.vcpus, next.memory_mib, &next.boot) == (now.vcpus, now.memory_mib, &now.boot);
    (!same).then_some(next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::spec::tests::example;

    #[test]
    fn a_preview_has_the_new_name_where_libvirt_will_have_it() {
        let spec = example();
        // As libvirt writes sizes.
        let xml = spec.to_xml().unwrap().replace("unit=\"MiB\"", "unit=\"KiB\"");
        let document = Document::parse(&xml).unwrap();
        let sizes = Sizes::read(document.root_element()).unwrap();
        let metadata = Metadata { name: "other".into(), tags: [("a".into(), "<b>".into())].into(), ..spec.metadata };
        let shown = preview(&xml, &Sizes { vcpus: 2, ..sizes }, None, Some(&metadata)).unwrap();
        let view = DomainView::parse(&shown).unwrap();
        assert_eq!((view.title.as_deref(), view.vcpus), (Some("other"), 2));
        assert_eq!(view.metadata.as_ref(), Some(&metadata));
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        let same = lines(&xml).iter().filter(|line| lines(&shown).contains(line)).count();
        assert!(lines(&xml).len() - same <= 4, "{shown}");
    }

    #[test]
    fn an_element_without_prefix() {
        let Labels { title, element } = Labels::of(&example().metadata).unwrap();
        assert_eq!(title.as_deref(), Some("web"));
        let element = element.unwrap();
        let document = Document::parse(&element).unwrap();
        assert!(document.root_element().has_tag_name("vm") && !element.contains("vmyard:"), "{element}");
        assert!(!compact(&element).unwrap().contains(">\n"), "{element}");
        assert_eq!(compact("<a>\n <b> </b>\n <c d='e'/></a>").unwrap(), "<a><b> </b><c d='e'/></a>");
    }
}
