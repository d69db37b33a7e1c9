//! What Vmyard keeps in a domain's `<metadata>`: what whoever reads the domain should know of it, and a VM that is taken over begins with.

use crate::xml::Xml;
use roxmltree::Node;
use std::collections::BTreeMap;
use uuid::Uuid;

/// The namespace of our element.
pub(crate) const NAMESPACE: &str = "urn:vmyard:domain:1";

/// What Vmyard knows of a domain and libvirt doesn't.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Metadata {
    /// The VM's name, as its user gave it.
    pub name: String,
    /// When it was made, in milliseconds since the Unix epoch.
    pub created_at: i64,
    /// The template that it was made from.
    pub template: Option<TemplateRef>,
    /// The id of the system disk's volume.
    pub system_volume: Option<Uuid>,
    /// The user that cloud-init sets up.
    pub user: Option<String>,
    /// Free text.
    pub description: String,
    /// Tags.
    pub tags: BTreeMap<String, String>,
}

/// A template, by id and by the name that it had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateRef {
    /// Its id.
    pub id: Uuid,
    /// Its name at that time.
    pub name: String,
}

impl Metadata {
    /// Writes our element as it stands in a domain's XML.
    pub(crate) fn write(&self, xml: &mut Xml) {
        self.write_as(xml, "vmyard:", &[("xmlns:vmyard", NAMESPACE)]);
    }

    /// The same without prefix and namespace, which libvirt puts in when it is told apart from the rest.
    pub(crate) fn write_plain(&self, xml: &mut Xml) {
        self.write_as(xml, "", &[]);
    }

    /// The element as it stands in a domain's XML, but for its first line's indentation; `None` where XML can't hold it.
    pub(crate) fn indented(&self) -> Option<String> {
        let mut xml = Xml::new();
        xml.nest("domain", &[], |xml| xml.nest("metadata", &[], |xml| self.write(xml)));
        let text = xml.finish().ok()?;
        let inner = text.split_once("<metadata>")?.1.rsplit_once("</metadata>")?.0;
        Some(inner.trim().to_owned())
    }

    fn write_as(&self, xml: &mut Xml, prefix: &str, namespace: &[(&str, &str)]) {
        let created_at = self.created_at.to_string();
        let attributes = [namespace, &[("name", &self.name), ("created-at", &created_at)]].concat();
        let named = |name: &str| format!("{prefix}{name}");
        xml.nest(&named("vm"), &attributes, |xml| {
            if let Some(template) = &self.template {
                xml.empty(&named("template"), &[("id", &template.id.to_string()), ("name", &template.name)]);
            }
            if let Some(volume) = self.system_volume {
                xml.empty(&named("system-volume"), &[("id", &volume.to_string())]);
            }
            if let Some(user) = &self.user {
                xml.empty(&named("user"), &[("name", user)]);
            }
            if !self.description.is_empty() {
                xml.text(&named("description"), &[], &self.description);
            }
            for (key, value) in &self.tags {
                xml.empty(&named("tag"), &[("key", key), ("value", value)]);
            }
        });
    }

    /// Reads our element out of a `<domain>`; `None` where there is none.
    pub(crate) fn read(domain: Node<'_, '_>) -> Option<Metadata> {
        let all = domain.children().find(|node| node.has_tag_name("metadata"))?;
        let ours = all.children().find(|node| node.has_tag_name((NAMESPACE, "vm")))?;
        let mut found = Metadata {
            name: ours.attribute("name")?.to_owned(),
            created_at: ours.attribute("created-at")?.parse().ok()?,
            ..Metadata::default()
        };
        for node in ours.children().filter(|node| node.tag_name().namespace() == Some(NAMESPACE)) {
            let attribute = |name: &str| node.attribute(name).unwrap_or_default().to_owned();
            match node.tag_name().name() {
                "template" => {
                    let id = attribute("id").parse().ok()?;
                    found.template = Some(TemplateRef { id, name: attribute("name") });
                }
                "system-volume" => found.system_volume = attribute("id").parse().ok(),
                "user" => found.user = Some(attribute("name")),
                "description" => found.description = node.text().unwrap_or_default().to_owned(),
                "tag" => {
                    found.tags.insert(attribute("key"), attribute("value"));
                }
                _ => {}
            }
        }
        Some(found)
    }
}
