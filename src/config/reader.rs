//! Reads a JSON configuration and collects all of its problems.
//!
//! serde's derive stops at the first error and does not report its path. People who write a configuration need all
//! problems at once, each with its path.

use core::ops::RangeInclusive;

use serde_json::{Map, Value};

/// The problems, each with its JSON path. They never quote a value that may be secret.
pub type Problems = Vec<String>;

/// A JSON object whose fields are read one by one; fields that remain at the end are unknown.
pub struct Reader<'p> {
    path: String,
    fields: Map<String, Value>,
    problems: &'p mut Problems,
}

impl<'p> Reader<'p> {
    /// Begins to read an object. `path` is the prefix of the paths of its fields.
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

    /// Adds a problem of the field `name`.
    pub(crate) fn problem(&mut self, name: &str, what: impl core::fmt::Display) {
        let path = self.path_of(name);
        self.problems.push(format!("{path}: {what}"));
    }

    /// Reads a string.
    pub(crate) fn text(&mut self, name: &str) -> Option<String> {
        match self.fields.remove(name)? {
            Value::String(text) => Some(text),
            other => self.wrong(name, "a string", &other),
        }
    }

    /// Reads a list of strings.
    pub(crate) fn texts(&mut self, name: &str) -> Option<Vec<String>> {
        let value = self.fields.remove(name)?;
        let texts = value.as_array().map(|list| list.iter().map(|item| item.as_str().map(str::to_owned)).collect());
        match texts {
            Some(Some(texts)) => Some(texts),
            _ => self.wrong(name, "a list of strings", &value),
        }
    }

    /// Reads a whole number in `range`. Istio passes every number as a double, so `10.0` is accepted.
    pub(crate) fn number(&mut self, name: &str, range: RangeInclusive<u64>) -> Option<u64> {
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

    /// Reads a boolean.
    pub(crate) fn flag(&mut self, name: &str) -> Option<bool> {
        match self.fields.remove(name)? {
            Value::Bool(flag) => Some(flag),
            other => self.wrong(name, "true or false", &other),
        }
    }

    /// Reads one of several words.
    pub(crate) fn choice<T: Copy>(&mut self, name: &str, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text(name)?;
        let found = choices.iter().find(|(word, _)| *word == text).map(|(_, choice)| *choice);
        if found.is_none() {
            let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
            self.problem(name, format_args!("must be one of {}", words.join(", ")));
        }
        found
    }

    /// Reads a nested object: returns a reader for it.
    pub(crate) fn object(&mut self, name: &str) -> Option<Reader<'_>> {
        let value = self.fields.remove(name)?;
        let path = self.path_of(name);
        Some(Reader::new(&path, value, self.problems))
    }

    /// Whether a field exists and has not been read yet.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.fields.contains_key(name)
    }

    /// Skips a field whose problem has been added already.
    pub(crate) fn skip(&mut self, name: &str) {
        self.fields.remove(name);
    }

    /// The names of the fields that have not been read yet.
    pub(crate) fn names(&self) -> Vec<String> {
        self.fields.keys().cloned().collect()
    }

    /// Ends reading and reports every remaining field as unknown.
    pub(crate) fn finish(mut self) {
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
