//! Token counts, as the usage object of an answer states them.
//!
//! Providers name one count in several ways. Of each answer, and of each event of some streams, one such
//! object is read, so only its top-level fields are looked at and nothing is built of them.

use super::scanner::end_of_string;

/// What one usage object states.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Tokens of the prompt.
    pub input: Option<u64>,
    /// Tokens of the answer.
    pub output: Option<u64>,
    /// Tokens of Gemini's thoughts, which come on top of the answer's.
    pub thoughts: Option<u64>,
}

impl Tokens {
    /// Reads a usage object; what is none states nothing.
    #[must_use]
    pub fn read(object: &[u8]) -> Self {
        let mut tokens = Tokens::default();
        let mut rest = object.strip_prefix(b"{").unwrap_or_default();
        while let Some((name, value, after)) = field(rest) {
            rest = after;
            let count = match name {
                b"prompt_tokens" | b"input_tokens" | b"promptTokenCount" => &mut tokens.input,
                b"completion_tokens" | b"output_tokens" | b"candidatesTokenCount" => &mut tokens.output,
                b"thoughtsTokenCount" => &mut tokens.thoughts,
                _ => continue,
            };
            *count = count.or(number(value));
        }
        tokens
    }
}

/// The first field of an object's inside: its name, its value, and what follows.
fn field(text: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let text = text.trim_ascii_start();
    let text = text.strip_prefix(b",").map_or(text, <[u8]>::trim_ascii_start);
    let inside = text.strip_prefix(b"\"")?;
    let end = end_of_string(inside, 0);
    let name = inside.get(..end - 1)?;
    let text = inside.get(end..)?.trim_ascii_start().strip_prefix(b":")?;
    let (mut at, mut depth) = (0, 0usize);
    loop {
        match text.get(at)? {
            b'"' => at = end_of_string(text, at + 1),
            b'{' | b'[' => (at, depth) = (at + 1, depth.saturating_add(1)),
            b',' | b'}' if depth == 0 => break,
            b'}' | b']' => (at, depth) = (at + 1, depth.checked_sub(1)?),
            _ => at += 1,
        }
    }
    let (value, after) = text.split_at_checked(at)?;
    Some((name, value.trim_ascii(), after))
}

/// A number, or a text that is one.
fn number(value: &[u8]) -> Option<u64> {
    let value = value.strip_prefix(b"\"").map_or(value, |text| text.strip_suffix(b"\"").unwrap_or(text).trim_ascii());
    // The cast saturates.
    digits(value).or_else(|| core::str::from_utf8(value).ok()?.parse::<f64>().ok().map(|number| number as u64))
}

/// Numbers of so many digits fit, so that no step of reading them need be checked.
const MOST_DIGITS: usize = 19;

/// A whole number that is written in digits only, without the detour over text; `None` if it is no such
/// number, or a longer one than anybody states.
pub fn digits(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > MOST_DIGITS {
        return None;
    }
    text.iter().try_fold(0, |number, byte| byte.is_ascii_digit().then(|| number * 10 + u64::from(byte - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn objects() {
        for (text, input, output, thoughts) in [
            (r#"{"prompt_tokens":9,"completion_tokens":12,"total_tokens":21}"#, Some(9), Some(12), None),
            (r#"{ "input_tokens" : 37 , "output_tokens" : 11 }"#, Some(37), Some(11), None),
            (r#"{"x":{"prompt_tokens":1,"y":["}"]},"prompt_tokens":2}"#, Some(2), None, None),
            (r#"{"promptTokenCount":8,"thoughtsTokenCount":30}"#, Some(8), None, Some(30)),
            (r#"{"prompt_tokens":" 6 ","completion_tokens":1.5e3}"#, Some(6), Some(1500), None),
            (r#"{"prompt_tokens":null,"input_tokens":5,"completion_tokens":{}}"#, Some(5), None, None),
            (r#"{"prompt_tokens":-1,"completion_tokens":99999999999999999999}"#, Some(0), Some(u64::MAX), None),
            (r#"{"a\"prompt_tokens":3,"completion_tokens":"","output_tokens":true}"#, None, None, None),
            ("{}", None, None, None),
            ("null", None, None, None),
            ("7", None, None, None),
            (r#"["prompt_tokens",1]"#, None, None, None),
        ] {
            assert_eq!(Tokens::read(text.as_bytes()), Tokens { input, output, thoughts }, "{text}");
        }
    }

    proptest! {
        #[test]
        fn among_any_fields(
            name in "[^\u{0}]{0,20}", text in "\\PC{0,20}", input: u32, output: u32, pretty: bool,
        ) {
            let value = json!({name: [text, {"prompt_tokens": text}], "prompt_tokens": input, "output_tokens": output});
            let text = if pretty { format!("{value:#}") } else { value.to_string() };
            let tokens = Tokens { input: Some(input.into()), output: Some(output.into()), thoughts: None };
            prop_assert_eq!(Tokens::read(text.as_bytes()), tokens, "{}", text);
        }

        #[test]
        fn any_bytes(object in "\\{([\"{}\\[\\],:0-9\\\\ e.-]|\"prompt_tokens\":){0,30}") {
            let _ = Tokens::read(object.as_bytes());
        }
    }
}
