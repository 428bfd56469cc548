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
            Some(_) => Cow::Owned(unescape(&self.0)),
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

/// The escapes were checked when the document was read; what could not be one would be left out.
fn unescape(mut text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    loop {
        let (as_it_is, rest) = text.split_at_checked(plain(text.as_bytes())).unwrap_or((text, ""));
        out.push_str(as_it_is);
        let mut rest = rest.chars();
        let Some(kind) = rest.nth(1) else { return out };
        text = rest.as_str();
        out.push(match kind {
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let Some((character, behind)) = character(text) else { continue };
                text = behind;
                character
            }
            itself => itself,
        });
    }
}

/// The character whose four digits these are, or eight in two escapes, and what stands behind them.
fn character(digits: &str) -> Option<(char, &str)> {
    let (first, behind) = code_unit(digits)?;
    if let Some(alone) = char::from_u32(first.into()) {
        return Some((alone, behind));
    }
    let (second, behind) = code_unit(behind.strip_prefix("\\u")?)?;
    Some((char::decode_utf16([first, second]).next()?.ok()?, behind))
}

fn code_unit(digits: &str) -> Option<(u16, &str)> {
    let (digits, behind) = digits.split_at_checked(4)?;
    Some((u16::from_str_radix(digits, 16).ok()?, behind))
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

    #[test]
    fn every_escape() {
        let all = r#"\"\\\/\b\f\n\r\t\u00e9\u20AC\ud83d\ude00\ud83d\uDE00x\u0000y"#;
        assert_eq!(Text::escaped(all).decoded(), "\"\\/\u{8}\u{c}\n\r\té€😀😀x\0y");
    }

    proptest! {
        /// What a document takes, it decodes as serde does.
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
