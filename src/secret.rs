//! A text that cannot be printed.
//!
//! Provider keys, AUTH_KEYs and tokens live in this type, so that no `{:?}` of a configuration, no
//! log line and no error can contain one. Reading the text takes a call to [`Secret::expose`], which reviewers notice.

use core::fmt;
use std::borrow::Cow;

use memchr::memmem;
use serde::{Deserialize, Deserializer};

use crate::http::url::percent_decode;

/// A shorter secret could be in a text by accident.
pub(crate) const MIN_SEARCHABLE_BYTES: usize = 12;
/// How often a text can be JSON in a string of JSON before it is taken as it is.
const MAX_NESTED_ESCAPES: usize = 4;

/// A secret text. It has no `Display` and no `Serialize`, and its `Debug` reveals nothing.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Secret(Box<str>);

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Secret(text.into())
    }

    /// The text itself, for the code that puts it into a request or hashes it.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    /// Whether `candidate` is this secret. The duration depends only on the candidate's length.
    pub(crate) fn matches(&self, candidate: &[u8]) -> bool {
        let secret = self.0.as_bytes();
        let mut difference = u8::from(secret.len() != candidate.len());
        // The secret is repeated to the candidate's length, so that a wrong length takes the same time.
        for (theirs, ours) in candidate.iter().zip(secret.iter().cycle()) {
            difference |= theirs ^ ours;
        }
        // Prevents an optimisation that leaves the loop at the first difference.
        core::hint::black_box(difference) == 0 && !secret.is_empty()
    }

    /// Whether it can be a provider's key: a text that is allowed in a header.
    pub(crate) fn is_credential(&self) -> bool {
        !self.0.is_empty() && self.0.bytes().all(|byte| byte.is_ascii_graphic())
    }

    /// Whether a text that a provider sent shows this secret: as it is, in the escapes of JSON (also of JSON in
    /// a string of JSON), or percent-encoded. A short secret is not looked for, because it could be in any text
    /// by accident.
    pub(crate) fn shows_in(&self, text: &[u8]) -> bool {
        let secret = self.0.as_bytes();
        if secret.len() < MIN_SEARCHABLE_BYTES || text.len() < secret.len() {
            return false;
        }
        let finder = memmem::Finder::new(secret);
        if finder.find(text).is_some() {
            return true;
        }
        let mut unescaped = Cow::Borrowed(text);
        for _ in 0..MAX_NESTED_ESCAPES {
            if memchr::memchr(b'\\', &unescaped).is_none() {
                break;
            }
            unescaped = without_escapes(&unescaped).into();
            if finder.find(&unescaped).is_some() {
                return true;
            }
        }
        let encoded = memchr::memchr(b'%', &unescaped).is_some();
        encoded && finder.find(percent_decode(&String::from_utf8_lossy(&unescaped)).as_bytes()).is_some()
    }

    /// The part that may be shown so that people can distinguish keys: `AIza…9f2c`.
    pub(crate) fn mask(&self) -> String {
        let (head, tail) = self.edges();
        format!("{head}…{tail}")
    }

    /// The first and last four characters of a secret with at least 20 characters, only the last two of one with at least
    /// 12, and nothing of a shorter one.
    pub(crate) fn edges(&self) -> (&str, &str) {
        let (head, tail) = match self.0.chars().count() {
            20.. => (4, 4),
            12.. => (0, 2),
            _ => (0, 0),
        };
        let end = self.0.char_indices().nth(head).map_or(0, |(end, _)| end);
        let start = self.0.char_indices().rev().take(tail).last().map_or(self.0.len(), |(start, _)| start);
        (self.0.get(..end).unwrap_or_default(), self.0.get(start..).unwrap_or_default())
    }
}

/// The text with the escapes of JSON resolved wherever they are. Secrets are ASCII, so that an escape beyond it
/// need not be: a space takes its place.
fn without_escapes(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, behind)) = rest.split_first() {
        let escaped = if byte == b'\\' { behind.split_first() } else { None };
        let (plain_byte, behind) = match escaped {
            Some((b'u', digits)) => unicode_escape(digits).unwrap_or((b'u', digits)),
            Some((&other, behind)) => (other, behind),
            None => (byte, behind),
        };
        plain.push(plain_byte);
        rest = behind;
    }
    plain
}

/// The character of the four digits after `\u`, and what is behind them.
fn unicode_escape(text: &[u8]) -> Option<(u8, &[u8])> {
    let (digits, behind) = text.split_at_checked(4)?;
    let code = u32::from_str_radix(core::str::from_utf8(digits).ok()?, 16).ok()?;
    Some((u8::try_from(code).unwrap_or(b' '), behind))
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Secret::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_reveals_nothing() {
        assert_eq!(format!("{:?}", Secret::new("sk-live-abc")), "Secret(…)");
    }

    #[test]
    fn matches_only_itself() {
        let secret = Secret::new("sk-abc");
        assert!(secret.matches(b"sk-abc"));
        for other in ["", "s", "sk-ab", "sk-abd", "sk-abcsk-abc", "sk-abcd"] {
            assert!(!secret.matches(other.as_bytes()), "{other}");
        }
        assert!(!Secret::new("").matches(b""), "an empty secret opens nothing");
    }

    #[test]
    fn shows_in_any_spelling() {
        let secret = Secret::new("own/secret-key-001");
        for (text, shows) in [
            ("", false),
            (r#"{"error":"no"}"#, false),
            ("key own/secret-key-001!", true),
            (r#"{"m":"own\/secret-key-001"}"#, true),
            (r#"{"m":"own\u002fsecret\u002Dkey-001"}"#, true),
            (r#"{"m":"{\"m\":\"own\\/secret\\u002dkey-001\"}"}"#, true),
            ("/x?key=own%2Fsecret%2dkey-001", true),
            (r"own\u002", false),
            (r"own\", false),
            ("own/secret-key-002", false),
        ] {
            assert_eq!(secret.shows_in(text.as_bytes()), shows, "{text}");
        }
        assert!(!Secret::new("k1").shows_in(b"k1"), "it may be there by accident");
    }

    #[test]
    fn masks() {
        assert_eq!(Secret::new("AIzaSyA0123456789abcdef9f2c").mask(), "AIza…9f2c");
        assert_eq!(Secret::new("0123456789ab").mask(), "…ab");
        assert_eq!(Secret::new("short").mask(), "…");
        assert_eq!(Secret::new("").mask(), "…");
        assert_eq!(Secret::new("ключ-0123456789-ключ").mask(), "ключ…ключ");
    }
}
