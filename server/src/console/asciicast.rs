//! Recordings of terminals: asciicast, version 2 (<https://docs.asciinema.org/manual/asciicast/v2/>).

use serde_json::{Map, Value, json};
use std::time::Instant;

/// The terminal that a serial line is shown on: it has no size of its own.
const SIZE: (u32, u32) = (80, 24);

/// Writes lines of a recording.
pub struct Cast {
    began: Instant,
    /// The beginning of a character whose end has not come yet.
    rest: Vec<u8>,
}

impl Cast {
    /// Begins one: its first line, with more fields in it. `at`: the time, in seconds since 1970.
    pub fn begin(title: &str, at: i64, more: Map<String, Value>) -> (Cast, String) {
        let mut header = json!({
            "version": 2, "width": SIZE.0, "height": SIZE.1, "timestamp": at, "title": title,
            "env": {"TERM": "xterm-256color"},
        });
        if let Value::Object(header) = &mut header {
            header.extend(more);
        }
        (Cast { began: Instant::now(), rest: Vec::new() }, format!("{header}\n"))
    }

    /// The line for what was said now; none for half a character.
    pub fn say(&mut self, bytes: &[u8]) -> Option<String> {
        self.say_at(self.began.elapsed().as_secs_f64(), bytes)
    }

    fn say_at(&mut self, seconds: f64, bytes: &[u8]) -> Option<String> {
        self.rest.extend_from_slice(bytes);
        let keep = self.rest.len() - unfinished(&self.rest);
        let text: Vec<u8> = self.rest.drain(..keep).collect();
        let text = String::from_utf8_lossy(&text);
        let seconds = (seconds * 1e6).round() / 1e6;
        (!text.is_empty()).then(|| format!("{}\n", json!([seconds, "o", text])))
    }
}

/// How many bytes at the end are the beginning of a character.
fn unfinished(bytes: &[u8]) -> usize {
    let mut rest = bytes;
    loop {
        match std::str::from_utf8(rest) {
            Ok(_) => return 0,
            Err(error) => match error.error_len() {
                Some(wrong) => rest = &rest[error.valid_up_to() + wrong..],
                None => return rest.len() - error.valid_up_to(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_json_and_characters_whole() {
        let (mut cast, header) = Cast::begin("web", 1_700_000_000, Map::new());
        let header: Value = serde_json::from_str(&header).unwrap();
        assert_eq!((&header["version"], &header["width"], &header["title"]), (&json!(2), &json!(80), &json!("web")));
        assert_eq!(cast.say_at(0.5, b"a\r\n\x1b[1m").unwrap(), "[0.5,\"o\",\"a\\r\\n\\u001b[1m\"]\n");
        let euro = "€".as_bytes();
        assert_eq!(cast.say_at(1.0, &euro[..2]), None);
        assert_eq!(cast.say_at(1.25, &[&euro[2..], b"!"].concat()).unwrap(), "[1.25,\"o\",\"€!\"]\n");
        assert_eq!(cast.say_at(2.0, b"\xff.").unwrap(), "[2.0,\"o\",\"\u{fffd}.\"]\n");
        // Not the end of a character that never ends.
        assert_eq!(unfinished(b"\xff\xe2\x82"), 2);
    }
}
