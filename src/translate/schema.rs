//! JSON Schema in the narrower dialects: Gemini's `Schema` (for models before 2.5) and what Anthropic
//! takes for `output_config.format`.
//!
//! A keyword that the dialect has under another name is rewritten. One that only narrows what is allowed is
//! left out, and the client's own validation catches the difference. A schema that the dialect cannot
//! express at all is refused.

use serde_json::{Map, Value, json};

use super::fields::{Refusal, refuse};

/// How many bytes of definitions may be written in place of references. Ten definitions of which each uses
/// the next twice become a thousand.
const MOST_BYTES: usize = 256 * 1024;

/// How deep schemas may be nested, after references were replaced. Each level needs stack, and the module has
/// little.
const DEEPEST: usize = 64;

/// Gemini's `Schema`: <https://ai.google.dev/api/caching#Schema>. `field` is for the refusal.
pub(super) fn for_gemini(schema: &Value, field: &str) -> Result<Value, Refusal> {
    let mut writer = Gemini { root: schema, written_out: 0, depth: 0, open: Vec::new() };
    writer.schema(schema).ok_or_else(|| refuse(field, "is too large or deep, or refers to what it does not have"))
}

struct Gemini<'a> {
    root: &'a Value,
    /// How many bytes of definitions were written so far.
    written_out: usize,
    depth: usize,
    /// The references that are being replaced. One that contains itself is cut there.
    open: Vec<&'a str>,
}

/// Keywords that mean the same in both dialects.
const GEMINI_CARRIED: [&str; 15] = [
    "title",
    "description",
    "default",
    "example",
    "required",
    "nullable",
    "pattern",
    "minItems",
    "maxItems",
    "minLength",
    "maxLength",
    "minProperties",
    "maxProperties",
    "minimum",
    "maximum",
];

impl<'a> Gemini<'a> {
    fn schema(&mut self, schema: &'a Value) -> Option<Value> {
        if self.depth > DEEPEST {
            return None;
        }
        self.depth += 1;
        let written = self.write(schema);
        self.depth -= 1;
        written
    }

    fn write(&mut self, schema: &'a Value) -> Option<Value> {
        // `true` allows anything, which in Gemini's dialect is a schema without a type.
        let Some(map) = schema.as_object() else { return Some(json!({})) };
        let mut out = Map::new();
        if let Some(reference) = map.get("$ref").and_then(Value::as_str) {
            out = self.reference(reference)?;
        }
        for part in list(map, "allOf") {
            merge(&mut out, self.schema(part)?);
        }
        for name in GEMINI_CARRIED {
            out.extend(map.get(name).map(|value| (name.to_owned(), value.clone())));
        }
        kind(map, &mut out);
        values(map, &mut out);
        if let Some(properties) = map.get("properties").and_then(Value::as_object) {
            let written = properties.iter().map(|(name, schema)| Some((name.clone(), self.schema(schema)?)));
            let written = written.collect::<Option<Map<_, _>>>()?;
            merge(&mut out, json!({"properties": written}));
        }
        if let Some(items) = map.get("items") {
            out.insert("items".to_owned(), self.schema(items)?);
        }
        for name in ["anyOf", "oneOf"] {
            self.any_of(list(map, name), &mut out)?;
        }
        Some(out.into_iter().collect())
    }

    fn reference(&mut self, reference: &'a str) -> Option<Map<String, Value>> {
        if self.open.contains(&reference) {
            // A dialect without references cannot describe a tree, so from here on any object is allowed.
            return Some(Map::from_iter([("type".to_owned(), "object".into())]));
        }
        let target = self.root.pointer(reference.strip_prefix('#')?)?;
        self.written_out = self.written_out.saturating_add(target.to_string().len());
        if self.written_out > MOST_BYTES {
            return None;
        }
        self.open.push(reference);
        let written = self.schema(target);
        self.open.pop();
        match written? {
            Value::Object(map) => Some(map),
            _ => None,
        }
    }

    fn any_of(&mut self, schemas: &'a [Value], out: &mut Map<String, Value>) -> Option<()> {
        let is_null = |schema: &Value| schema.get("type").is_some_and(|kind| kind == "null");
        if schemas.iter().any(is_null) {
            out.insert("nullable".to_owned(), true.into());
        }
        let others: Vec<&Value> = schemas.iter().filter(|schema| !is_null(schema)).collect();
        match others.as_slice() {
            [] => {}
            [schema] => merge(out, self.schema(schema)?),
            schemas => {
                let written = schemas.iter().map(|schema| self.schema(schema)).collect::<Option<Value>>()?;
                out.insert("anyOf".to_owned(), written);
            }
        }
        Some(())
    }
}

/// Writes `type`, of which Gemini has one and `nullable`, and `format`, of which it has a few.
fn kind(map: &Map<String, Value>, out: &mut Map<String, Value>) {
    match map.get("type") {
        Some(Value::String(kind)) => {
            out.insert("type".to_owned(), kind.as_str().into());
        }
        Some(Value::Array(kinds)) => {
            let others: Vec<&Value> = kinds.iter().filter(|kind| *kind != "null").collect();
            if others.len() < kinds.len() {
                out.insert("nullable".to_owned(), true.into());
            }
            match others.as_slice() {
                [] => {}
                [kind] => {
                    out.insert("type".to_owned(), (*kind).clone());
                }
                kinds => {
                    out.insert("anyOf".to_owned(), kinds.iter().map(|kind| json!({"type": kind})).collect());
                }
            }
        }
        _ => {}
    }
    let format = map.get("format").and_then(Value::as_str);
    let known = ["date-time", "float", "double", "int32", "int64"];
    if let Some(format) = format.filter(|format| known.contains(format)) {
        out.insert("format".to_owned(), format.into());
    }
}

/// Writes `enum` and `const`, which Gemini has only for strings.
fn values(map: &Map<String, Value>, out: &mut Map<String, Value>) {
    let constant = map.get("const").map(core::slice::from_ref);
    let Some(values) = constant.or_else(|| map.get("enum")?.as_array().map(Vec::as_slice)) else { return };
    if values.contains(&Value::Null) {
        out.insert("nullable".to_owned(), true.into());
    }
    let texts: Vec<&Value> = values.iter().filter(|value| value.is_string()).collect();
    let nulls = values.iter().filter(|value| value.is_null()).count();
    if !texts.is_empty() && texts.len() + nulls == values.len() {
        out.insert("type".to_owned(), "string".into());
        out.insert("enum".to_owned(), texts.into_iter().cloned().collect());
    } else {
        describe(out, &format!("One of {}.", Value::from(values.to_vec())));
    }
}

/// Keywords that Anthropic refuses in a schema for its output. Its own SDK moves them to the description too.
const ANTHROPIC_DESCRIBED: [&str; 14] = [
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "maxItems",
    "uniqueItems",
    "minProperties",
    "maxProperties",
    "contains",
    "minContains",
    "maxContains",
];

/// Schema for `output_config.format`: objects are closed, numbers and lengths only described.
/// <https://platform.claude.com/docs/en/build-with-claude/structured-outputs>
///
/// Closing an object keeps the meaning, because whatever the model then writes is valid in the open one too.
/// Only an object whose property names are free cannot be expressed, and is refused at `field`.
pub(super) fn for_anthropic(schema: &Value, field: &str) -> Result<Value, Refusal> {
    let Some(map) = schema.as_object() else { return Ok(schema.clone()) };
    let each = |value: &Value| -> Result<Value, Refusal> {
        value.as_array().into_iter().flatten().map(|schema| for_anthropic(schema, field)).collect()
    };
    let mut out = Map::new();
    let mut described = Vec::new();
    for (name, value) in map {
        match name.as_str() {
            "$schema" | "additionalProperties" => {}
            name if ANTHROPIC_DESCRIBED.contains(&name) => described.push(format!("{name}: {value}")),
            // It accepts only 0 and 1.
            "minItems" if value.as_u64().is_none_or(|least| least > 1) => described.push(format!("{name}: {value}")),
            "properties" | "$defs" | "definitions" => {
                let inner = value.as_object().into_iter().flatten();
                let inner = inner.map(|(name, schema)| Ok((name.clone(), for_anthropic(schema, field)?)));
                out.insert(name.clone(), Value::Object(inner.collect::<Result<_, Refusal>>()?));
            }
            "items" | "not" => {
                out.insert(name.clone(), for_anthropic(value, field)?);
            }
            "oneOf" => {
                out.insert("anyOf".to_owned(), each(value)?);
            }
            "anyOf" | "allOf" | "prefixItems" => {
                out.insert(name.clone(), each(value)?);
            }
            _ => {
                out.insert(name.clone(), value.clone());
            }
        }
    }
    let names = map.get("properties").and_then(Value::as_object).map_or(0, Map::len);
    if map.get("type").is_some_and(|kind| kind == "object") || names > 0 {
        let is_open = map.get("additionalProperties") != Some(&Value::Bool(false));
        if names == 0 && is_open {
            return Err(refuse(field, "has an object whose properties are free; this provider must know their names"));
        }
        out.insert("additionalProperties".to_owned(), false.into());
    }
    if !described.is_empty() {
        describe(&mut out, &format!("{{{}}}", described.join(", ")));
    }
    Ok(Value::Object(out))
}

fn list<'a>(map: &'a Map<String, Value>, name: &str) -> &'a [Value] {
    map.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// Adds words to the description.
fn describe(out: &mut Map<String, Value>, words: &str) {
    let text = match out.get("description").and_then(Value::as_str) {
        Some(text) => format!("{text} {words}"),
        None => words.to_owned(),
    };
    out.insert("description".to_owned(), text.into());
}

/// Merges two schemas. Properties and required names are joined; of any other keyword the later one counts.
fn merge(out: &mut Map<String, Value>, other: Value) {
    let Value::Object(other) = other else { return };
    for (name, value) in other {
        match (out.get_mut(&name), value) {
            (Some(Value::Object(old)), Value::Object(new)) if name == "properties" => old.extend(new),
            (Some(Value::Array(old)), Value::Array(new)) if name == "required" => old.extend(new),
            (_, value) => {
                out.insert(name, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gemini_dialect() {
        for (schema, expected) in [
            (
                json!({"$schema": "x", "type": "object", "additionalProperties": false, "properties": {"b": {"type": "string"}, "a": {"type": "integer"}}, "required": ["b"]}),
                json!({"required": ["b"], "type": "object", "properties": {"b": {"type": "string"}, "a": {"type": "integer"}}}),
            ),
            (json!({"type": ["string", "null"]}), json!({"nullable": true, "type": "string"})),
            (json!({"type": ["string", "integer"]}), json!({"anyOf": [{"type": "string"}, {"type": "integer"}]})),
            (json!({"anyOf": [{"type": "string"}, {"type": "null"}]}), json!({"nullable": true, "type": "string"})),
            (
                json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
                json!({"anyOf": [{"type": "string"}, {"type": "number"}]}),
            ),
            (json!({"const": "a"}), json!({"type": "string", "enum": ["a"]})),
            (json!({"enum": ["a", null]}), json!({"nullable": true, "type": "string", "enum": ["a"]})),
            (
                json!({"type": "integer", "enum": [1, 2], "description": "N."}),
                json!({"description": "N. One of [1,2].", "type": "integer"}),
            ),
            (json!({"type": "string", "format": "uuid", "minLength": 1}), json!({"minLength": 1, "type": "string"})),
            (json!({"type": "string", "format": "date-time"}), json!({"type": "string", "format": "date-time"})),
            (json!({"type": "array", "items": true}), json!({"type": "array", "items": {}})),
            (
                json!({"allOf": [{"type": "object", "properties": {"a": {}}, "required": ["a"]}, {"properties": {"b": {}}, "required": ["b"]}]}),
                json!({"type": "object", "properties": {"a": {}, "b": {}}, "required": ["a", "b"]}),
            ),
            (
                json!({"$ref": "#/$defs/A", "description": "d", "$defs": {"A": {"type": "string", "description": "x"}}}),
                json!({"type": "string", "description": "d"}),
            ),
            // A tree is cut where it meets itself.
            (
                json!({"$ref": "#/$defs/T", "$defs": {"T": {"type": "object", "properties": {"next": {"$ref": "#/$defs/T"}}}}}),
                json!({"type": "object", "properties": {"next": {"type": "object"}}}),
            ),
        ] {
            assert_eq!(for_gemini(&schema, "f").unwrap(), expected, "{schema}");
        }
    }

    #[test]
    fn refuses_what_has_no_end_or_no_target() {
        let bomb: Map<String, Value> = (0..20)
            .map(|n| {
                let next = json!({"$ref": format!("#/$defs/{}", n + 1)});
                (n.to_string(), json!({"properties": {"a": next, "b": next}}))
            })
            .chain([("20".to_owned(), json!({"type": "string"}))])
            .collect();
        for schema in
            [json!({"$ref": "#/$defs/0", "$defs": bomb}), json!({"$ref": "#/none"}), json!({"$ref": "http://x"})]
        {
            assert_eq!(for_gemini(&schema, "f").unwrap_err().field, "f");
        }
    }

    #[test]
    fn anthropic_dialect() {
        for (schema, expected) in [
            (
                json!({"$schema": "x", "type": "object", "properties": {"a": {"type": "object", "properties": {"b": {}}, "additionalProperties": true}}}),
                json!({"type": "object", "properties": {"a": {"type": "object", "properties": {"b": {}}, "additionalProperties": false}}, "additionalProperties": false}),
            ),
            (
                json!({"type": "integer", "minimum": 1, "maximum": 5, "description": "Stars."}),
                json!({"type": "integer", "description": "Stars. {minimum: 1, maximum: 5}"}),
            ),
            (
                json!({"type": "array", "minItems": 1, "items": {"type": "string", "maxLength": 3}}),
                json!({"type": "array", "minItems": 1, "items": {"type": "string", "description": "{maxLength: 3}"}}),
            ),
            (
                json!({"oneOf": [{"$ref": "#/$defs/A"}], "$defs": {"A": {"type": "string"}}}),
                json!({"anyOf": [{"$ref": "#/$defs/A"}], "$defs": {"A": {"type": "string"}}}),
            ),
            // A property may have a keyword's name.
            (
                json!({"type": "object", "properties": {"minimum": {"type": "number"}}}),
                json!({"type": "object", "properties": {"minimum": {"type": "number"}}, "additionalProperties": false}),
            ),
        ] {
            assert_eq!(for_anthropic(&schema, "f"), Ok(expected), "{schema}");
        }
        let free = json!({"type": "object", "properties": {"a": {"type": "object", "additionalProperties": {"type": "string"}}}});
        assert_eq!(for_anthropic(&free, "f").unwrap_err().field, "f");
    }
}
