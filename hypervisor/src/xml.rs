//! Writing XML: nested elements with escaped attributes and texts, and a refusal of what XML 1.0 can't hold.

use quick_xml::{
    Writer,
    escape::escape,
    events::{BytesEnd, BytesStart, BytesText, Event},
};

/// A document being written. Elements are closed by closures, so nesting can't go wrong.
pub(crate) struct Xml {
    writer: Writer<Vec<u8>>,
    refused: Option<char>,
}

impl Xml {
    pub(crate) fn new() -> Xml {
        Xml { writer: Writer::new_with_indent(Vec::new(), b' ', 2), refused: None }
    }

    /// An element with content.
    pub(crate) fn nest(&mut self, name: &str, attributes: &[(&str, &str)], content: impl FnOnce(&mut Xml)) {
        let start = self.start(name, attributes);
        self.write(Event::Start(start));
        content(self);
        self.write(Event::End(BytesEnd::new(name)));
    }

    /// An element without content.
    pub(crate) fn empty(&mut self, name: &str, attributes: &[(&str, &str)]) {
        let start = self.start(name, attributes);
        self.write(Event::Empty(start));
    }

    /// An element with a text.
    pub(crate) fn text(&mut self, name: &str, attributes: &[(&str, &str)], text: &str) {
        self.check(text);
        let start = self.start(name, attributes);
        self.write(Event::Start(start));
        self.write(Event::Text(BytesText::from_escaped(escape(text))));
        self.write(Event::End(BytesEnd::new(name)));
    }

    /// The document, or the first character that XML can't hold.
    pub(crate) fn finish(self) -> Result<String, char> {
        match self.refused {
            Some(character) => Err(character),
            None => Ok(String::from_utf8_lossy(&self.writer.into_inner()).into_owned()),
        }
    }

    fn start<'a>(&mut self, name: &'a str, attributes: &[(&str, &str)]) -> BytesStart<'a> {
        let mut start = BytesStart::new(name);
        for (key, value) in attributes {
            self.check(value);
            start.push_attribute((*key, *value));
        }
        start
    }

    fn check(&mut self, text: &str) {
        let bad =
            |c: &char| !matches!(c, '\t' | '\n' | '\r' | ' '..='\u{D7FF}' | '\u{E000}'..='\u{FFFD}' | '\u{10000}'..);
        if let Some(character) = text.chars().find(bad) {
            self.refused.get_or_insert(character);
        }
    }

    fn write(&mut self, event: Event<'_>) {
        // Writing into memory doesn't fail.
        let _ = self.writer.write_event(event);
    }
}

#[cfg(test)]
mod tests {
    use super::Xml;

    #[test]
    fn escapes_and_refuses() {
        let nasty = "a\"/><x y='&'>]]>é\n\tend";
        let mut xml = Xml::new();
        xml.nest("root", &[("key", nasty)], |xml| xml.text("child", &[], nasty));
        let text = xml.finish().unwrap();
        let document = roxmltree::Document::parse(&text).unwrap();
        assert_eq!(document.root_element().attribute("key"), Some(nasty));
        assert_eq!(
            document.root_element().descendants().find(|n| n.has_tag_name("child")).unwrap().text(),
            Some(nasty)
        );

        let mut xml = Xml::new();
        xml.text("root", &[], "bell \u{7}");
        assert_eq!(xml.finish(), Err('\u{7}'));
    }
}
