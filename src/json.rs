//! Finding a few top-level fields in a JSON body without taking it apart.
//!
//! The whole body is read, for two reasons: a second `model` further down must not smuggle another
//! model past the permission check (providers take the last one, a quick search the first), and a
//! broken body gets an answer from here instead of costing an attempt. Everything that is not asked
//! for is skipped by serde_json without being built, and what is found is a slice of the body, so
//! that a rewrite can leave every other byte alone.

use core::fmt;
use core::ops::Range;

use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Why fields could not be read.
#[derive(Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// The body is not one JSON object. Line and column (from 1) of the first fault.
    Broken(usize, usize),
    /// A field that was asked for stands there more than once.
    Duplicate(&'static str),
}

/// The raw values of the top-level fields `names`, in their order.
///
/// # Errors
/// When the body is no JSON object, or one of the fields is in it twice.
pub fn fields<'a, const N: usize>(
    body: &'a [u8],
    names: [&'static str; N],
) -> Result<[Option<&'a RawValue>; N], Unreadable> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    let mut duplicate = None;
    let visitor = Fields { names, duplicate: &mut duplicate };
    let found = reader.deserialize_map(visitor).and_then(|found| reader.end().map(|()| found));
    if let Some(name) = duplicate {
        return Err(Unreadable::Duplicate(name));
    }
    found.map_err(|error| Unreadable::Broken(error.line(), error.column()))
}

/// The text of a raw value that is a JSON string.
#[must_use]
pub fn string(value: &RawValue) -> Option<String> {
    serde_json::from_str(value.get()).ok()
}

/// Where in `body` a raw value that was found in it stands.
#[must_use]
pub fn position(body: &[u8], value: &RawValue) -> Option<Range<usize>> {
    let start = (value.get().as_ptr() as usize).checked_sub(body.as_ptr() as usize)?;
    let end = start.checked_add(value.get().len())?;
    (end <= body.len()).then_some(start..end)
}

struct Fields<'d, const N: usize> {
    names: [&'static str; N],
    duplicate: &'d mut Option<&'static str>,
}

impl<'de, const N: usize> Visitor<'de> for Fields<'_, N> {
    type Value = [Option<&'de RawValue>; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = [None; N];
        // The key is decoded: `"mod\u0065l"` is `model` to every parser.
        while let Some(key) = map.next_key::<Key>()? {
            match self.names.iter().zip(found.iter_mut()).find(|(name, _)| **name == key.0) {
                Some((name, Some(_))) => {
                    *self.duplicate = Some(name);
                    return Err(A::Error::custom("duplicate"));
                }
                Some((_, slot)) => *slot = Some(map.next_value()?),
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(found)
    }
}

/// A key, borrowed from the body where it has no escapes.
struct Key<'de>(std::borrow::Cow<'de, str>);

impl<'de> serde::Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Key<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }
            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(text.into()))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Key<'de>, E> {
                Ok(Key(text.to_owned().into()))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn model(body: &str) -> Result<Option<String>, Unreadable> {
        fields(body.as_bytes(), ["model"]).map(|[value]| value.and_then(string))
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
            let range = position(body.as_bytes(), value.unwrap()).unwrap();
            prop_assert_eq!(&body[range], serde_json::to_string(&name).unwrap());
        }

        #[test]
        fn any_bytes_have_an_answer(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = fields(&body, ["model", "user"]);
        }
    }
}
