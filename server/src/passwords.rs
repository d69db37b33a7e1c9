//! Passwords for users of guests: made, judged, and kept out of sight.

use crate::{Error, Result, seed};
use std::fmt;

/// How many characters one has that is made here: 141 bits.
const LENGTH: usize = 24;
/// Shorter ones are weak.
const SHORT: usize = 12;

/// A password in the clear, for as long as a step needs it. Nothing prints it.
pub struct Password(String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password")
    }
}

impl Password {
    /// One that a caller gave in this field, which has at least `shortest` characters.
    pub fn given(text: String, field: &str, shortest: usize) -> Result<Password> {
        match text.chars().count() {
            length if length < shortest => {
                let why = format!("must have at least {shortest} characters (min_password_length), has {length}");
                Err(Error::field(field, why))
            }
            _ => Ok(Password(text)),
        }
    }

    /// A new one.
    pub fn made(shortest: usize) -> Result<Password> {
        Ok(Password(seed::random_text(LENGTH.max(shortest))?))
    }

    /// Its `$6$` hash.
    pub fn hash(&self) -> Result<String> {
        seed::hash_password(&self.0)
    }

    /// Whether this is a `$6$` hash of it.
    pub fn fits(&self, hash: &str) -> bool {
        use sha_crypt::{PasswordVerifier, ShaCrypt};
        ShaCrypt::default().verify_password(self.0.as_bytes(), hash).is_ok()
    }

    /// It in the clear.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What makes it easy to guess.
    pub fn weaknesses(&self, user: &str) -> Vec<String> {
        let (text, lower) = (&self.0, self.0.to_lowercase());
        let kind = |c: char| match c {
            _ if c.is_lowercase() => 0,
            _ if c.is_uppercase() => 1,
            _ if c.is_numeric() => 2,
            _ => 3,
        };
        let one_kind = text.chars().all(|c| Some(kind(c)) == text.chars().next().map(kind));
        let weak = [
            (text.chars().count() < SHORT, format!("the password has fewer than {SHORT} characters")),
            (one_kind && text.chars().count() < 2 * SHORT, "the password has only one kind of characters".to_owned()),
            (lower.contains(&user.to_lowercase()), "the password contains the user's name".to_owned()),
        ];
        weak.into_iter().filter(|(is_weak, _)| *is_weak).map(|(_, text)| text).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weak_ones_are_told() {
        let weak = |text: &str| Password::given(text.to_owned(), "password", 0).unwrap().weaknesses("ann").len();
        assert_eq!([weak("secret"), weak("Ann1"), weak("correct Horse 9"), weak("1234567890123")], [2, 2, 0, 1]);
        assert!(Password::given("kurz".to_owned(), "password", 5).is_err());
        assert!(Password::given("länger".to_owned(), "password", 6).is_ok());
        let made = Password::made(0).unwrap();
        assert!(made.fits(&made.hash().unwrap()) && !made.fits("$6$a$b") && !made.fits("!"));
        assert!(made.reveal().len() >= 20 && made.weaknesses("ann").is_empty());
        assert_eq!(format!("{made:?}"), "Password");
    }
}
