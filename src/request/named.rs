//! The models that the tools of a request name.
//!
//! A provider's own tool may use a model of its own: OpenAI's and OpenRouter's `image_generation`, Anthropic's
//! `advisor`. Which tools do so changes by the month, so every `model`, `models` or `…_model` of a tool that is a text
//! counts, except in what describes a client's own function: there a `model` is an argument, and no provider
//! reads it. The JSON is read as it goes by, and nothing is kept of it but the names.

use core::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// The most models that a request's tools name.
const MAX_NAMED: usize = 64;
/// What is not looked into: the description of a function.
const DESCRIPTIONS: &[&str] =
    &["function", "properties", "input_schema", "$defs", "definitions", "default", "examples", "enum", "const"];

/// The models that a JSON value names. `None` if it cannot be read, or names too many.
pub(super) fn models(text: &[u8]) -> Option<Vec<String>> {
    let mut found = Vec::new();
    let mut reader = serde_json::Deserializer::from_slice(text);
    Walk { found: &mut found, names_models: false }.deserialize(&mut reader).ok()?;
    reader.end().ok()?;
    Some(found)
}

/// A walk through a value, whose texts are models if its field's name says so.
struct Walk<'a> {
    found: &'a mut Vec<String>,
    names_models: bool,
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        if !self.names_models {
            return Ok(());
        }
        if self.found.len() >= MAX_NAMED {
            return Err(E::custom("too many models"));
        }
        self.found.push(text.to_owned());
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Walk { found, names_models } = self;
        while list.next_element_seed(Walk { found: &mut *found, names_models })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<(), A::Error> {
        let found = self.found;
        while let Some(name) = object.next_key::<String>()? {
            if DESCRIPTIONS.contains(&name.as_str()) {
                object.next_value::<IgnoredAny>()?;
            } else {
                object.next_value_seed(Walk { found: &mut *found, names_models: is_models(&name) })?;
            }
        }
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
}

fn is_models(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let one = name.strip_suffix('s').unwrap_or(&name);
    one == "model" || one.ends_with("_model")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_models_of_tools() {
        for (text, expected) in [
            ("[]", Some(vec![])),
            (r#"[{"type":"web_search"},{"type":"image_generation","model":"a"}]"#, Some(vec!["a"])),
            (r#"[{"type":"x:image","parameters":{"model":"a","n":1.5}}]"#, Some(vec!["a"])),
            (r#"[{"id":"fusion","analysis_models":["a","b"],"Model":"c"}]"#, Some(vec!["a", "b", "c"])),
            (r#"[{"model":"a","model":"b"}]"#, Some(vec!["a", "b"])),
            (r#"[{"mod\u0065l":"a"}]"#, Some(vec!["a"])),
            (
                r#"[{"type":"function","function":{"name":"f","parameters":{"default":{"model":"x"}}}},
                    {"name":"g","input_schema":{"properties":{"model":{"type":"string"}},"required":["model"]}},
                    {"type":"function","parameters":{"properties":{"model":{"enum":["x"]}}, "strict":true, "n":-1}}]"#,
                Some(vec![]),
            ),
            (r#"{"model":null}"#, Some(vec![])),
            (r#"[{"model":"#, None),
        ] {
            assert_eq!(
                models(text.as_bytes()).as_deref().map(|found| found.to_vec()),
                expected.map(|expected| expected.into_iter().map(str::to_owned).collect::<Vec<_>>()),
                "{text}"
            );
        }
        let many = format!(r#"{{"models":[{}"a"]}}"#, r#""a","#.repeat(MAX_NAMED));
        assert_eq!(models(many.as_bytes()), None);
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(models(deep.as_bytes()), None, "the stack has an end");
    }
}
