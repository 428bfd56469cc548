//! Reading a JSON configuration so that every problem is found in one go.
//!
//! serde's derive stops at the first fault and does not know the path of it; whoever writes a
//! configuration wants to hear everything that is wrong with it, and where.

use core::ops::RangeInclusive;

use serde_json::{Map, Value};

/// What is wrong, each with its JSON path. Problems never quote a value that may be secret.
pub type Problems = Vec<String>;

/// A JSON object that is taken apart field by field; what is left at the end is unknown.
pub struct Reader<'p> {
    path: String,
    fields: Map<String, Value>,
    problems: &'p mut Problems,
}

impl<'p> Reader<'p> {
    /// Begins reading an object; `path` is what its fields' paths begin with.
    pub fn new(path: &str, value: Value, problems: &'p mut Problems) -> Self {
        let fields = match value {
            Value::Object(fields) => fields,
            Value::Null => Map::new(),
            other => {
                let at = if path.is_empty() { "the configuration" } else { path };
                problems.push(format!("{at}: must be an object, not {}", kind(&other)));
                Map::new()
            }
        };
        Reader { path: path.to_owned(), fields, problems }
    }

    /// Notes a problem of the field `name`.
    pub fn problem(&mut self, name: &str, what: impl core::fmt::Display) {
        let path = self.path_of(name);
        self.problems.push(format!("{path}: {what}"));
    }

    /// A text.
    pub fn text(&mut self, name: &str) -> Option<String> {
        match self.fields.remove(name)? {
            Value::String(text) => Some(text),
            other => self.wrong(name, "a string", &other),
        }
    }

    /// A list of texts.
    pub fn texts(&mut self, name: &str) -> Option<Vec<String>> {
        let value = self.fields.remove(name)?;
        let texts = value.as_array().map(|list| list.iter().map(|item| item.as_str().map(str::to_owned)).collect());
        match texts {
            Some(Some(texts)) => Some(texts),
            _ => self.wrong(name, "a list of strings", &value),
        }
    }

    /// A whole number in `range`. Istio hands every number over as a double, so `10.0` is one.
    pub fn number(&mut self, name: &str, range: RangeInclusive<u64>) -> Option<u64> {
        let value = self.fields.remove(name)?;
        let whole = value.as_u64().or_else(|| {
            let float = value.as_f64()?;
            (float.fract() == 0.0 && (0.0..=9e15).contains(&float)).then_some(float as u64)
        });
        match whole {
            Some(number) if range.contains(&number) => Some(number),
            None if !value.is_number() => self.wrong(name, "a number", &value),
            _ => {
                self.problem(name, format_args!("must be a whole number from {} to {}", range.start(), range.end()));
                None
            }
        }
    }

    /// A yes or no.
    pub fn flag(&mut self, name: &str) -> Option<bool> {
        match self.fields.remove(name)? {
            Value::Bool(flag) => Some(flag),
            other => self.wrong(name, "true or false", &other),
        }
    }

    /// One of a few words.
    pub fn choice<T: Copy>(&mut self, name: &str, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text(name)?;
        let found = choices.iter().find(|(word, _)| *word == text).map(|(_, choice)| *choice);
        if found.is_none() {
            let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
            self.problem(name, format_args!("must be one of {}", words.join(", ")));
        }
        found
    }

    /// An object within, as a reader of its own.
    pub fn object(&mut self, name: &str) -> Option<Reader<'_>> {
        let value = self.fields.remove(name)?;
        let path = self.path_of(name);
        Some(Reader::new(&path, value, self.problems))
    }

    /// Whether a field is there and has not been read.
    pub fn has(&self, name: &str) -> bool {
        self.fields.contains_key(name)
    }

    /// Passes over a field of which a problem has been noted.
    pub fn skip(&mut self, name: &str) {
        self.fields.remove(name);
    }

    /// The names of the fields that have not been read.
    pub fn names(&self) -> Vec<String> {
        self.fields.keys().cloned().collect()
    }

    /// Ends the reading: every field that is left is unknown.
    pub fn finish(mut self) {
        for name in self.names() {
            self.problem(&name, "unknown field");
        }
    }

    fn wrong<T>(&mut self, name: &str, expected: &str, value: &Value) -> Option<T> {
        self.problem(name, format_args!("must be {expected}, not {}", kind(value)));
        None
    }

    fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
