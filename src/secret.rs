//! A text that cannot be printed.
//!
//! Provider keys, AUTH_KEYs and tokens live in this type, so that no `{:?}` of a configuration, no
//! log line and no error can contain one. Reading the text takes a call to [`Secret::expose`], which reviewers notice.

use core::fmt;

use serde::{Deserialize, Deserializer};

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
    fn masks() {
        assert_eq!(Secret::new("AIzaSyA0123456789abcdef9f2c").mask(), "AIza…9f2c");
        assert_eq!(Secret::new("0123456789ab").mask(), "…ab");
        assert_eq!(Secret::new("short").mask(), "…");
        assert_eq!(Secret::new("").mask(), "…");
        assert_eq!(Secret::new("ключ-0123456789-ключ").mask(), "ключ…ключ");
    }
}
