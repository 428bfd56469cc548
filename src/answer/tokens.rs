//! Token counts, as the usage object of an answer states them.
//!
//! Providers name one count in several ways. Every answer has such an object, and so has every event of
//! some streams, so only its top-level fields are read and no value is built.

use crate::json::string::{self, End};

/// What one usage object states.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tokens {
    /// Tokens of the prompt.
    pub(crate) input: Option<u64>,
    /// Tokens of the answer.
    pub(crate) output: Option<u64>,
    /// Tokens of Gemini's thoughts, which are counted in addition to the answer's.
    pub(crate) thoughts: Option<u64>,
}

impl Tokens {
    /// Reads a usage object. Anything else yields no counts.
    pub(crate) fn read(object: &[u8]) -> Self {
        let mut tokens = Tokens::default();
        let mut at = if object.first() == Some(&b'{') { 1 } else { object.len() };
        // `name` is the key of the field whose value comes next; without one, a key comes next.
        let (mut depth, mut name) = (0usize, None);
        while let Some(byte) = object.get(at) {
            let start = at;
            at += 1;
            match byte {
                b'"' => {
                    let End::At(end) = string::end(object, at) else { break };
                    let text = object.get(at..end - 1).unwrap_or_default();
                    at = end;
                    match name {
                        None => name = Some(text),
                        Some(name) if depth == 0 => tokens.set(name, text.trim_ascii()),
                        Some(_) => {}
                    }
                }
                b',' if depth == 0 => name = None,
                b'{' | b'[' => depth = depth.saturating_add(1),
                b'}' | b']' => depth = depth.saturating_sub(1),
                b'-' | b'0'..=b'9' if depth == 0 => {
                    let is_number = |byte: &&u8| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-');
                    at += object.get(at..).unwrap_or_default().iter().take_while(is_number).count();
                    tokens.set(name.unwrap_or_default(), object.get(start..at).unwrap_or_default());
                }
                _ => {}
            }
        }
        tokens
    }

    /// Takes a field's value. Some providers state one count under two names, of which OpenAI's counts.
    fn set(&mut self, name: &[u8], value: &[u8]) {
        match name {
            b"prompt_tokens" => self.input = number(value).or(self.input),
            b"completion_tokens" => self.output = number(value).or(self.output),
            b"input_tokens" | b"promptTokenCount" => self.input = self.input.or(number(value)),
            b"output_tokens" | b"candidatesTokenCount" => self.output = self.output.or(number(value)),
            b"thoughtsTokenCount" => self.thoughts = number(value),
            _ => {}
        }
    }
}

/// Parses a number. The cast saturates.
fn number(text: &[u8]) -> Option<u64> {
    digits(text).or_else(|| core::str::from_utf8(text).ok()?.parse::<f64>().ok().map(|number| number as u64))
}

/// A `u64` holds every number of this many digits, so that reading one needs no overflow checks.
const MOST_DIGITS: usize = 19;

/// A whole number that is written in digits only, read without first checking for UTF-8. `None` for
/// anything else, and for a number that is longer than any provider states.
pub(crate) fn digits(text: &[u8]) -> Option<u64> {
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
            (r#"{"input_tokens":1,"prompt_tokens":2,"completion_tokens":3,"output_tokens":4}"#, Some(2), Some(3), None),
            (r#"{"prompt_tokens":null,"input_tokens":5,"completion_tokens":{}}"#, Some(5), None, None),
            (r#"{"prompt_tokens":-1,"completion_tokens":99999999999999999999}"#, Some(0), Some(u64::MAX), None),
            (r#"{"a\"prompt_tokens":3,"completion_tokens":"","output_tokens":true}"#, None, None, None),
            (r#"{"input_tokens":5,"prompt_tokens":"6"#, Some(5), None, None),
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
