//! Finding a few top-level fields in a JSON body without taking it apart.
//!
//! The whole body is read, for two reasons: a second `model` further down must not smuggle another
//! model past the permission check (providers take the last one, a quick search the first), and a
//! broken body gets an answer from here instead of costing an attempt. Everything that is not asked
//! for is read over ([`reader`]) without being built, and what is found is a place in the body, so
//! that a rewrite can leave every other byte alone.

mod document;
mod reader;
mod text;
mod writer;

use core::ops::Range;

pub use document::{Document, Items, Node};
use reader::Reader;
pub use text::Text;
pub use writer::{ToJson, Writer};

/// Why fields could not be read.
#[derive(Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// The body is not one JSON object. Line and column (from 1) of the first fault.
    Broken(usize, usize),
    /// A field that was asked for stands there more than once.
    Duplicate(&'static str),
}

/// Where the values of the top-level fields `names` stand in the body, in their order.
///
/// # Errors
/// When the body is no JSON object, or one of the fields is in it twice.
pub fn fields<const N: usize>(body: &[u8], names: [&'static str; N]) -> Result<[Option<Range<usize>>; N], Unreadable> {
    let mut reader = Reader::new(body);
    let mut found = [const { None }; N];
    let mut duplicate = None;
    let read = read(&mut reader, body, &names, &mut found, &mut duplicate);
    match (duplicate, read) {
        (Some(name), _) => Err(Unreadable::Duplicate(name)),
        (None, Some(())) => Ok(found),
        (None, None) => {
            let (line, column) = reader.position();
            Err(Unreadable::Broken(line, column))
        }
    }
}

fn read<const N: usize>(
    reader: &mut Reader,
    body: &[u8],
    names: &[&'static str; N],
    found: &mut [Option<Range<usize>>; N],
    duplicate: &mut Option<&'static str>,
) -> Option<()> {
    reader.take(b'{')?;
    while reader.peek()? != b'}' {
        let key = reader.key()?;
        let key = body.get(key).unwrap_or_default();
        let escaped = reader.marks().escaped;
        let slot = names.iter().zip(found.iter_mut()).find(|(name, _)| is_key(key, escaped, name));
        let value = reader.value()?;
        if let Some((name, slot)) = slot {
            if slot.is_some() {
                *duplicate = Some(name);
                return None;
            }
            core::str::from_utf8(body.get(value.clone())?).ok()?;
            *slot = Some(value);
        }
        if reader.peek()? == b',' {
            reader.take(b',')?;
            // No comma before the end.
            reader.peek().filter(|byte| *byte == b'"')?;
        } else if reader.peek()? != b'}' {
            return None;
        }
    }
    reader.take(b'}')?;
    reader.is_at_end().then_some(())
}

/// Whether a quoted key is this name. It is decoded: `"mod\u0065l"` is `model` to every parser.
fn is_key(quoted: &[u8], escaped: bool, name: &str) -> bool {
    if escaped {
        return serde_json::from_slice::<String>(quoted).is_ok_and(|key| key == name);
    }
    // Comparing is dear, byte by byte; most names differ in their length or first letter.
    quoted.len() == name.len() + 2
        && quoted.get(1) == name.as_bytes().first()
        && quoted.get(1..quoted.len() - 1) == Some(name.as_bytes())
}

/// The text of a value that is a JSON string.
#[must_use]
pub fn string(body: &[u8], value: Range<usize>) -> Option<String> {
    serde_json::from_slice(body.get(value)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn model(body: &str) -> Result<Option<String>, Unreadable> {
        let found = fields(body.as_bytes(), ["model"]);
        found.map(|[value]| value.and_then(|value| string(body.as_bytes(), value)))
    }

    #[test]
    fn finds_the_top_level_field_only() {
        for (body, expected) in [
            (r#"{"model":"a"}"#, Some("a")),
            (r#" { "x" : [{"model":"inner"}], "model" : "a\u002fb" } "#, Some("a/b")),
            (r#"{"mod\u0065l":"a"}"#, Some("a")),
            (r#"{"messages":["\"model\":\"x\""]}"#, None),
            (r#"{"model":7}"#, None),
            ("{}", None),
        ] {
            assert_eq!(model(body), Ok(expected.map(str::to_owned)), "{body}");
        }
    }

    #[test]
    fn refuses_what_could_be_read_in_two_ways() {
        for body in [r#"{"model":"a","model":"b"}"#, r#"{"model":"a","x":1,"mod\u0065l":"a"}"#] {
            assert_eq!(model(body), Err(Unreadable::Duplicate("model")), "{body}");
        }
        for body in
            ["", "[]", "null", "\"model\"", "{", r#"{"model":"a""#, r#"{"model":"a"}x"#, r#"{"a":1,}"#, "{'a':1}"]
        {
            assert!(matches!(model(body), Err(Unreadable::Broken(..))), "{body}");
        }
        assert!(matches!(fields(b"{\"model\":\"\xff\"}", ["model"]), Err(Unreadable::Broken(..))));
    }

    #[test]
    fn any_depth_is_skipped_without_a_stack() {
        let deep = format!(r#"{{"x":{}{},"model":"m"}}"#, "[".repeat(1_000_000), "]".repeat(1_000_000));
        assert_eq!(model(&deep), Ok(Some("m".to_owned())));
    }

    proptest! {
        #[test]
        fn positions_are_the_values(before in "[ -~]{0,20}", name in "[ -~]{1,20}") {
            let body = serde_json::json!({"a": before, "model": name, "z": 1}).to_string();
            let [value] = fields(body.as_bytes(), ["model"]).unwrap();
            prop_assert_eq!(&body[value.unwrap()], serde_json::to_string(&name).unwrap());
        }

        #[test]
        fn any_bytes_have_an_answer(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = fields(&body, ["model", "user"]);
        }
    }
}
