//! Taking a JSON object apart, field by field, with a refusal that names the field.
//!
//! A derived serde type would say `invalid type: string "x", expected u64 at line 1 column 80`, which
//! does not name the field, and would not notice the fields that nobody reads.

use core::fmt;

use serde_json::{Map, Number, Value};

/// A request that cannot be translated without changing what it means: a 400 for the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The field at fault as OpenAI writes it: `messages[2].content[0].image_url.url`. It goes into
    /// the error's `param`.
    pub field: String,
    /// What is wrong with it, for a person; it begins with the field's name.
    pub message: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// A refusal of `field` for a reason that reads on behind its name: "must be a number".
pub(super) fn refuse(field: impl Into<String>, reason: impl fmt::Display) -> Refusal {
    let field = field.into();
    let message = format!("`{field}` {reason}");
    Refusal { field, message }
}

/// The fields of one object that are still unread.
pub(super) struct Fields {
    path: String,
    map: Map<String, Value>,
}

impl Fields {
    /// The fields of `value`, which stands at `path` (empty for the request itself).
    pub fn of(path: &str, value: Value) -> Result<Self, Refusal> {
        match value {
            Value::Object(map) => Ok(Fields { path: path.to_owned(), map }),
            _ => Err(refuse(if path.is_empty() { "body" } else { path }, "must be an object")),
        }
    }

    /// The full name of a field.
    pub fn name(&self, field: &str) -> String {
        if self.path.is_empty() { field.to_owned() } else { format!("{}.{field}", self.path) }
    }

    /// Refuses `field`.
    pub fn refuse(&self, field: &str, reason: impl fmt::Display) -> Refusal {
        refuse(self.name(field), reason)
    }

    /// Takes a value out; `null` is the same as none, for every SDK sends some.
    pub fn take(&mut self, field: &str) -> Option<Value> {
        self.map.swap_remove(field).filter(|value| !value.is_null())
    }

    /// Takes a value out and makes something of it, or refuses it because it is not `expected`.
    fn take_as<T>(
        &mut self,
        field: &str,
        expected: &str,
        make: impl FnOnce(Value) -> Option<T>,
    ) -> Result<Option<T>, Refusal> {
        let Some(value) = self.take(field) else { return Ok(None) };
        make(value).map(Some).ok_or_else(|| self.refuse(field, format_args!("must be {expected}")))
    }

    pub fn text(&mut self, field: &str) -> Result<Option<String>, Refusal> {
        self.take_as(field, "a string", text)
    }

    pub fn required_text(&mut self, field: &str) -> Result<String, Refusal> {
        self.text(field)?.ok_or_else(|| self.refuse(field, "is missing"))
    }

    pub fn number(&mut self, field: &str) -> Result<Option<Number>, Refusal> {
        self.take_as(field, "a number", |value| match value {
            Value::Number(number) => Some(number),
            _ => None,
        })
    }

    pub fn count(&mut self, field: &str) -> Result<Option<u64>, Refusal> {
        self.take_as(field, "a whole number that is not negative", |value| value.as_u64())
    }

    pub fn flag(&mut self, field: &str) -> Result<Option<bool>, Refusal> {
        self.take_as(field, "true or false", |value| value.as_bool())
    }

    pub fn list(&mut self, field: &str) -> Result<Option<Vec<Value>>, Refusal> {
        self.take_as(field, "an array", |value| match value {
            Value::Array(list) => Some(list),
            _ => None,
        })
    }

    pub fn object(&mut self, field: &str) -> Result<Option<Fields>, Refusal> {
        self.take(field).map(|value| Fields::of(&self.name(field), value)).transpose()
    }

    pub fn required_object(&mut self, field: &str) -> Result<Fields, Refusal> {
        self.object(field)?.ok_or_else(|| self.refuse(field, "is missing"))
    }

    /// The names of the fields that nobody took and that say something.
    pub fn rest(&self) -> impl Iterator<Item = &str> {
        self.map.iter().filter(|(_, value)| !value.is_null()).map(|(name, _)| name.as_str())
    }
}

/// The text of a JSON string.
pub(super) fn text(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        _ => None,
    }
}
