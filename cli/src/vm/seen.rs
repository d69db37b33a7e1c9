//! What a console has shown, so that after a break only what came since is shown.

use std::collections::VecDeque;

/// The most that is kept, in bytes: as much as the server repeats.
const KEPT: usize = 1 << 20;

/// The last bytes that were shown.
#[derive(Default)]
pub struct Seen(VecDeque<u8>);

impl Seen {
    /// More was shown.
    pub fn add(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
        let over = self.0.len().saturating_sub(KEPT);
        self.0.drain(..over);
    }

    /// What is new of what the server has repeated. It begins somewhere in what was shown, or with the line's first byte, and goes on
    /// from there: what was shown last is looked for at its beginning, as much of it as there is.
    pub fn new_in<'a>(&self, repeated: &'a [u8]) -> &'a [u8] {
        &repeated[overlap(repeated, self.0.iter().copied())..]
    }
}

/// How many of the first bytes of `text` are the last of `before`, at most (Knuth, Morris and Pratt's automaton).
fn overlap(text: &[u8], before: impl Iterator<Item = u8>) -> usize {
    let mut borders = vec![0; text.len()];
    let mut length = 0;
    for at in 1..text.len() {
        while length > 0 && text[at] != text[length] {
            length = borders[length - 1];
        }
        length += usize::from(text[at] == text[length]);
        borders[at] = length;
    }
    let mut matched = 0;
    for byte in before {
        while matched > 0 && text.get(matched) != Some(&byte) {
            matched = borders[matched - 1];
        }
        matched += usize::from(text.get(matched) == Some(&byte));
    }
    matched
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(shown: &str, repeated: &str) -> String {
        let mut seen = Seen::default();
        seen.add(shown.as_bytes());
        String::from_utf8(seen.new_in(repeated.as_bytes()).to_vec()).unwrap()
    }

    #[test]
    fn what_was_shown_is_left_out() {
        assert_eq!(new("", "login: "), "login: ");
        assert_eq!(new("boot\nlogin: ", "boot\nlogin: "), "");
        assert_eq!(new("boot\nlogin: ", "boot\nlogin: \nlogin: "), "\nlogin: ");
        // The server repeats less than was shown, or what has nothing to do with it.
        assert_eq!(new("boot\nlogin: ", "gin: x\n"), "x\n");
        assert_eq!(new("boot\n", "other"), "other");
        assert_eq!(new("aaaa", "aabaa"), "baa");
        assert_eq!(new("ab", ""), "");
    }

    #[test]
    fn the_last_bytes_are_kept() {
        let mut seen = Seen::default();
        let all: Vec<u8> = (0..KEPT + 1000).map(|at| (at % 251) as u8).collect();
        all.chunks(1000).for_each(|chunk| seen.add(chunk));
        assert_eq!(seen.0.len(), KEPT);
        assert_eq!(seen.new_in(&[&all[1000..], b"!"].concat()), b"!");
    }
}
