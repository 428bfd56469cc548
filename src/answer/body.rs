//! An error body, read leniently: whatever shape it has, its codes and its messages.
//!
//! The shapes differ (`{"error":{…}}`, the same in an array, `{"error":"…"}`, flat, `{"detail":…}`,
//! `{"__type":…}`) but the words in them do not, so all of them are collected in two bags: codes for
//! programs and messages for people. A body that is not JSON, because it was cut off or is HTML, is one
//! long message.

use serde_json::Value;

use super::{Answer, BODY_LIMIT};

/// The words of an error body, in lower case.
#[derive(Default)]
pub(crate) struct ErrorBody {
    /// The values of `code`, `type`, `status`, `reason` and similar fields.
    codes: Vec<String>,
    /// The values of `message` and similar fields, one per line; the whole body if it is not JSON.
    pub(crate) message: String,
    /// The body, if it is JSON.
    pub(crate) json: Option<Value>,
}

/// Fields whose values are words for programs.
const CODE_FIELDS: &[&str] =
    &["code", "type", "status", "reason", "__type", "name", "limit_source", "error_code", "error_type"];
/// Fields whose values are sentences for people.
const TEXT_FIELDS: &[&str] = &["message", "Message", "error", "detail", "title", "msg", "raw", "error_message"];
/// Fields whose values have codes and messages of their own.
const INNER_FIELDS: &[&str] = &["error", "errors", "detail", "details", "metadata"];

/// How deep a body is read: array, `error`, `details`, detail, and one level to spare.
const DEPTH: usize = 5;
/// How many elements of an array are read.
const ELEMENTS: usize = 16;
/// How many bytes of a body that is not JSON are searched. A web page names the error early.
const MESSAGE_LIMIT: usize = 16 * 1024;
/// A longer text is not a code.
const CODE_LIMIT: usize = 100;

impl ErrorBody {
    /// Reads the body, and the header in which AWS names the error.
    pub(crate) fn read(answer: &Answer) -> Self {
        let mut error = ErrorBody::default();
        if let Some(name) = answer.headers.text("x-amzn-errortype") {
            error.add_code(name);
        }
        let bytes = answer.body.get(..BODY_LIMIT).unwrap_or(answer.body);
        match serde_json::from_slice::<Value>(bytes) {
            Ok(json) => {
                error.collect(&json, DEPTH);
                if let Value::String(text) = &json {
                    error.message = text.to_lowercase();
                }
                error.json = Some(json);
            }
            Err(_) => {
                let bytes = bytes.get(..MESSAGE_LIMIT).unwrap_or(bytes);
                error.message = String::from_utf8_lossy(bytes).to_lowercase();
            }
        }
        error
    }

    /// Whether the answer had a body that could be read.
    pub(crate) fn is_empty(&self) -> bool {
        self.json.is_none() && self.message.trim().is_empty()
    }

    /// Whether it is a web page, which a proxy or a firewall between us and the provider sends.
    pub(crate) fn is_html(&self) -> bool {
        self.json.is_none() && self.message.trim_start().starts_with('<')
    }

    /// Whether one of the codes is `code`; in a body that was cut off, whether it occurs in quotes.
    pub(crate) fn has_code(&self, code: &str) -> bool {
        self.codes.iter().any(|have| have == code) || (self.json.is_none() && self.quotes(code))
    }

    fn quotes(&self, word: &str) -> bool {
        self.message.match_indices(word).any(|(at, _)| {
            let before = self.message.get(..at).unwrap_or_default();
            let after = self.message.get(at.saturating_add(word.len())..).unwrap_or_default();
            before.ends_with('"') && after.starts_with('"')
        })
    }

    /// The number in one of these fields, at the top, in `error` or in its `metadata`.
    pub(crate) fn number(&self, fields: &[&str]) -> Option<f64> {
        let top = self.json.as_ref()?;
        let error = self.error();
        let objects = [Some(top), error, error.and_then(|error| error.get("metadata"))];
        objects.into_iter().flatten().find_map(|object| fields.iter().find_map(|field| number(object.get(field)?)))
    }

    /// The `error` object, or the whole body where it is flat; the first one of an array.
    pub(crate) fn error(&self) -> Option<&Value> {
        let json = self.json.as_ref()?;
        let top = json.get(0).unwrap_or(json);
        Some(top.get("error").filter(|error| error.is_object()).unwrap_or(top))
    }

    fn collect(&mut self, value: &Value, depth: usize) {
        let Some(depth) = depth.checked_sub(1) else { return };
        match value {
            Value::Array(elements) => elements.iter().take(ELEMENTS).for_each(|element| self.collect(element, depth)),
            Value::Object(fields) => {
                for (name, field) in fields {
                    self.collect_field(name, field, depth);
                }
            }
            _ => {}
        }
    }

    fn collect_field(&mut self, name: &str, field: &Value, depth: usize) {
        match field {
            Value::String(text) => {
                if CODE_FIELDS.contains(&name) {
                    self.add_code(text);
                } else if TEXT_FIELDS.contains(&name) {
                    self.message.push_str(&text.to_lowercase());
                    self.message.push('\n');
                }
            }
            Value::Number(number) if CODE_FIELDS.contains(&name) => self.codes.push(number.to_string()),
            Value::Array(_) | Value::Object(_) if INNER_FIELDS.contains(&name) => self.collect(field, depth),
            _ => {}
        }
    }

    /// AWS writes `com.amazon.coral#Name` in the body, and `Name:http://…` in the header.
    fn add_code(&mut self, text: &str) {
        let name = text.rsplit('#').next().unwrap_or(text);
        let name = name.split(':').next().unwrap_or(name);
        if name.len() <= CODE_LIMIT {
            self.codes.push(name.to_lowercase());
        }
    }
}

/// A number, or text that is one.
pub(crate) fn number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.trim().parse().ok())
}
