//! The text of a JSON string as a document has it between its quotes, with its escapes.
//!
//! A text that goes from one document into another need not be unescaped and escaped again, because it
//! means the same in both. Only a caller that must look at the characters pays for it
//! ([`Text::decoded`]).

use std::borrow::Cow;

use super::string::{escape, plain_len, unescape};

/// Escaped text, without its quotes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Text<'a>(Cow<'a, str>);

impl<'a> Text<'a> {
    /// Text that is escaped already, or has nothing to escape.
    pub(crate) const fn escaped(escaped: &'a str) -> Self {
        Text(Cow::Borrowed(escaped))
    }

    /// Escaped pieces, joined.
    pub(crate) fn joined(pieces: &[&str]) -> Self {
        Text(Cow::Owned(pieces.concat()))
    }

    /// Any text, which is escaped if necessary.
    pub(crate) fn of(text: impl Into<Cow<'a, str>>) -> Self {
        let text = text.into();
        if plain_len(text.as_bytes()) == text.len() {
            return Text(text);
        }
        let mut escaped = String::with_capacity(text.len() + text.len() / 8 + 8);
        escape(&text, &mut escaped);
        Text(Cow::Owned(escaped))
    }

    pub(crate) fn as_escaped(&self) -> &str {
        &self.0
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The text that is meant, without escapes.
    pub(crate) fn decoded(&self) -> Cow<'a, str> {
        match memchr::memchr(b'\\', self.0.as_bytes()) {
            None => self.0.clone(),
            Some(_) => Cow::Owned(unescape(&self.0)),
        }
    }

    pub(crate) fn push(&mut self, more: Text<'a>) {
        if self.is_empty() {
            *self = more;
        } else {
            self.0.to_mut().push_str(&more.0);
        }
    }
}

/// Two texts are equal if they mean the same, however they are escaped.
impl PartialEq for Text<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0 || self.decoded() == other.decoded()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn texts_that_mean_the_same_are_equal() {
        assert_eq!(Text::escaped("caf\\u00e9\\/"), Text::escaped("café/"));
        assert_ne!(Text::escaped("a"), Text::escaped("b"));
    }

    #[test]
    fn every_escape() {
        let all = r#"\"\\\/\b\f\n\r\t\u00e9\u20AC\ud83d\ude00\ud83d\uDE00x\u0000y"#;
        assert_eq!(Text::escaped(all).decoded(), "\"\\/\u{8}\u{c}\n\r\té€😀😀x\0y");
    }

    proptest! {
        /// Every text that a document accepts is decoded as serde decodes it.
        #[test]
        fn as_serde_decodes_it(text in r#"([ -!#-\[\]-~é😀]|\\["\\/bfnrt]|\\u([0-9a-cA-C][0-9a-fA-F]{3}|[dD][89abAB][0-9a-f]{2}\\u[dD][c-fC-F][0-9a-f]{2})){0,12}"#) {
            let quoted = format!("\"{text}\"");
            prop_assert_eq!(Text::escaped(&text).decoded().into_owned(), serde_json::from_str::<String>(&quoted).unwrap());
        }

        #[test]
        fn round_trip(text in "[ -~é\u{0}-\u{20}\u{7f}😀]{0,40}", more in "[a\"\n]{0,3}") {
            let mut escaped = Text::of(text.as_str());
            prop_assert_eq!(escaped.decoded(), text.as_str());
            prop_assert_eq!(escaped.as_escaped().is_empty(), text.is_empty());
            escaped.push(Text::of(more.as_str()));
            prop_assert_eq!(escaped.decoded(), text.clone() + &more);
            let quoted = format!("\"{}\"", escaped.as_escaped());
            prop_assert_eq!(serde_json::from_str::<String>(&quoted).unwrap(), text + &more);
        }
    }
}
