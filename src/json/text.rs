//! The text of a JSON string as it stands between its quotes, with its escapes.
//!
//! What goes from one document into another need not be unescaped and escaped again: it means the same
//! in both. Only who must look at the characters pays for it ([`Text::decoded`]).

use std::borrow::Cow;

use super::reader::plain;

/// Escaped text, without its quotes.
#[derive(Clone, Debug, Default)]
pub struct Text<'a>(Cow<'a, str>);

impl<'a> Text<'a> {
    /// Text that is escaped already, or has nothing to escape.
    #[must_use]
    pub const fn escaped(escaped: &'a str) -> Self {
        Text(Cow::Borrowed(escaped))
    }

    /// Escaped pieces, one behind the other.
    #[must_use]
    pub fn joined(pieces: &[&str]) -> Self {
        Text(Cow::Owned(pieces.concat()))
    }

    /// Any text, which is escaped where need be.
    #[must_use]
    pub fn of(text: impl Into<Cow<'a, str>>) -> Self {
        let text = text.into();
        if plain(text.as_bytes()) == text.len() {
            return Text(text);
        }
        let mut escaped = String::with_capacity(text.len() + text.len() / 8 + 8);
        escape(&text, &mut escaped);
        Text(Cow::Owned(escaped))
    }

    /// With the escapes.
    #[must_use]
    pub fn as_escaped(&self) -> &str {
        &self.0
    }

    /// Whether nothing is said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What it says.
    #[must_use]
    pub fn decoded(&self) -> Cow<'a, str> {
        match memchr::memchr(b'\\', self.0.as_bytes()) {
            None => self.0.clone(),
            // Escapes were checked when the document was read.
            Some(_) => Cow::Owned(serde_json::from_str(&["\"", &self.0, "\""].concat()).unwrap_or_default()),
        }
    }

    /// Appends more of it.
    pub fn push(&mut self, more: Text<'a>) {
        if self.is_empty() {
            *self = more;
        } else {
            self.0.to_mut().push_str(&more.0);
        }
    }
}

/// Whether both say the same, however it is escaped.
impl PartialEq for Text<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0 || self.decoded() == other.decoded()
    }
}

/// Appends a text as a JSON string has it between its quotes.
pub(super) fn escape(mut text: &str, out: &mut String) {
    loop {
        let (as_it_is, rest) = text.split_at_checked(plain(text.as_bytes())).unwrap_or((text, ""));
        out.push_str(as_it_is);
        let mut rest = rest.chars();
        let Some(special) = rest.next() else { return };
        out.push('\\');
        match special {
            '"' | '\\' => out.push(special),
            '\n' => out.push('n'),
            '\r' => out.push('r'),
            '\t' => out.push('t'),
            control => {
                out.push_str("u00");
                out.extend(
                    [u32::from(control) >> 4, u32::from(control) & 15]
                        .map(|digit| char::from_digit(digit, 16))
                        .into_iter()
                        .flatten(),
                );
            }
        }
        text = rest.as_str();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn equal_is_what_says_the_same() {
        assert_eq!(Text::escaped("caf\\u00e9\\/"), Text::escaped("café/"));
        assert_ne!(Text::escaped("a"), Text::escaped("b"));
    }

    proptest! {
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
