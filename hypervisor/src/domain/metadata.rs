//! What Vmyard keeps in a domain's `<metadata>`, so that a lost database can be made again from the nodes.

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
    pub(crate) fn write(&self, xml: &mut Xml) {
        let created_at = self.created_at.to_string();
        let attributes = [("xmlns:vmyard", NAMESPACE), ("name", &self.name), ("created-at", &created_at)];
        xml.nest("vmyard:vm", &attributes, |xml| {
            if let Some(template) = &self.template {
                xml.empty("vmyard:template", &[("id", &template.id.to_string()), ("name", &template.name)]);
            }
            if let Some(volume) = self.system_volume {
                xml.empty("vmyard:system-volume", &[("id", &volume.to_string())]);
            }
            if let Some(user) = &self.user {
                xml.empty("vmyard:user", &[("name", user)]);
            }
            if !self.description.is_empty() {
                xml.text("vmyard:description", &[], &self.description);
            }
            for (key, value) in &self.tags {
                xml.empty("vmyard:tag", &[("key", key), ("value", value)]);
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
