//! Changing XML in place: what is not named stays as libvirt wrote it, byte by byte.

use super::layers::unreadable;
use roxmltree::{Document, Node};
use std::ops::Range;

/// Places in a text, and what is to be there.
#[derive(Default)]
pub(super) struct Edits(Vec<(Range<usize>, String)>);

impl Edits {
    /// Another text in an element.
    pub(super) fn text(&mut self, node: Node<'_, '_>, text: impl ToString) {
        if let Some(inner) = node.first_child() {
            self.0.push((inner.range(), text.to_string()));
        }
    }

    /// Another value of an attribute, which may not be there yet. The value needs no escaping.
    pub(super) fn attribute(&mut self, node: Node<'_, '_>, name: &str, value: impl ToString) {
        match node.attributes().find(|attribute| attribute.name() == name) {
            Some(attribute) => self.0.push((attribute.range_value(), value.to_string())),
            None => {
                let name_ends = node.range().start + "<".len() + node.tag_name().name().len();
                let at = node.attributes().next_back().map_or(name_ends, |last| last.range().end);
                self.insert(at, format!(" {name}='{}'", value.to_string()));
            }
        }
    }

    /// More at a place.
    pub(super) fn insert(&mut self, at: usize, text: String) {
        self.0.push((at..at, text));
    }

    /// No such element, and not the space before it.
    pub(super) fn remove(&mut self, xml: &str, node: Node<'_, '_>) {
        let Range { start, end } = node.range();
        self.0.push((xml[..start].trim_end().len()..end, String::new()));
    }

    /// Nothing in the place of a node.
    pub(super) fn drop(&mut self, node: Node<'_, '_>) {
        self.0.push((node.range(), String::new()));
    }

    /// Something else in the place of an element.
    pub(super) fn replace(&mut self, node: Node<'_, '_>, text: String) {
        self.0.push((node.range(), text));
    }

    /// These as well.
    pub(super) fn append(&mut self, mut more: Edits) {
        self.0.append(&mut more.0);
    }

    /// The text with all of it done.
    pub(super) fn apply(self, xml: &str) -> String {
        self.apply_within(xml, 0..xml.len())
    }

    /// A part of the text with all of it done, which must lie in that part.
    pub(super) fn apply_within(mut self, xml: &str, part: Range<usize>) -> String {
        // From the end, so that what is before keeps its place.
        self.0.sort_by_key(|(range, _)| std::cmp::Reverse(range.start));
        let mut text = xml[part.clone()].to_owned();
        for (range, new) in self.0 {
            text.replace_range(range.start - part.start..range.end - part.start, &new);
        }
        text
    }
}

/// The first child of this name.
pub(super) fn child<'a, 'input>(node: Node<'a, 'input>, name: &str) -> Option<Node<'a, 'input>> {
    node.children().find(|child| child.has_tag_name(name))
}

/// The first element that is meant, as it is written.
pub(super) fn text_of(xml: &str, is_it: impl Fn(Node<'_, '_>) -> bool) -> libvirt::Result<Option<String>> {
    let document = Document::parse(xml).map_err(|_| unreadable())?;
    Ok(document.descendants().find(|node| is_it(*node)).map(|node| xml[node.range()].to_owned()))
}
