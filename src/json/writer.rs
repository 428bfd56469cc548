//! Writes JSON piece by piece, without building a tree of values first.
//!
//! Objects and arrays are written by closures, so that none can be left open. Commas need no state: a
//! value is preceded by one exactly if the last byte neither opens a bracket nor ends a name, because no
//! value ends in such a byte.

use super::document::Node;
use super::string::escape;
use super::text::Text;

/// Compact JSON that is being written.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    out: String,
}

/// A type whose values can be written as JSON.
pub(crate) trait ToJson {
    /// Appends the value, without a comma.
    fn append_to(&self, out: &mut String);
}

impl Writer {
    /// A writer that does not allocate again before it has this many bytes.
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Writer { out: String::with_capacity(bytes) }
    }

    pub(crate) fn finish(self) -> String {
        self.out
    }

    /// Appends text as it is: a value that is JSON already, or what frames a document.
    pub(crate) fn raw(&mut self, text: &str) {
        self.out.push_str(text);
    }

    /// Writes an object whose fields `write` adds.
    pub(crate) fn object<R>(&mut self, write: impl FnOnce(&mut Self) -> R) -> R {
        self.separate();
        self.enclose('{', write, '}')
    }

    /// Writes an array whose values `write` adds.
    pub(crate) fn array<R>(&mut self, write: impl FnOnce(&mut Self) -> R) -> R {
        self.separate();
        self.enclose('[', write, ']')
    }

    /// Names the field whose value is written next. The name must not need escapes.
    pub(crate) fn name(&mut self, name: &str) {
        self.separate();
        self.out.push('"');
        self.out.push_str(name);
        self.out.push_str("\":");
    }

    /// Writes a field that is an object.
    pub(crate) fn object_field<R>(&mut self, name: &str, write: impl FnOnce(&mut Self) -> R) -> R {
        self.name(name);
        self.enclose('{', write, '}')
    }

    /// Writes a field that is an array.
    pub(crate) fn array_field<R>(&mut self, name: &str, write: impl FnOnce(&mut Self) -> R) -> R {
        self.name(name);
        self.enclose('[', write, ']')
    }

    /// Writes a field that is an object, or nothing at all if `write` adds no fields.
    pub(crate) fn object_field_unless_empty<R>(&mut self, name: &str, write: impl FnOnce(&mut Self) -> R) -> R {
        let start = self.out.len();
        self.name(name);
        self.out.push('{');
        let written = write(self);
        if self.out.ends_with('{') {
            self.out.truncate(start);
        } else {
            self.out.push('}');
        }
        written
    }

    pub(crate) fn value(&mut self, value: impl ToJson) {
        self.separate();
        value.append_to(&mut self.out);
    }

    pub(crate) fn field(&mut self, name: &str, value: impl ToJson) {
        self.name(name);
        value.append_to(&mut self.out);
    }

    /// Writes a field if it has a value.
    pub(crate) fn field_if(&mut self, name: &str, value: Option<impl ToJson>) {
        if let Some(value) = value {
            self.field(name, value);
        }
    }

    fn enclose<R>(&mut self, open: char, write: impl FnOnce(&mut Self) -> R, close: char) -> R {
        self.out.push(open);
        let written = write(self);
        self.out.push(close);
        written
    }

    fn separate(&mut self) {
        if !matches!(self.out.as_bytes().last(), None | Some(b'{' | b'[' | b':')) {
            self.out.push(',');
        }
    }
}

impl<T: ToJson + ?Sized> ToJson for &T {
    fn append_to(&self, out: &mut String) {
        (*self).append_to(out);
    }
}

impl ToJson for str {
    fn append_to(&self, out: &mut String) {
        out.push('"');
        escape(self, out);
        out.push('"');
    }
}

impl ToJson for Text<'_> {
    fn append_to(&self, out: &mut String) {
        out.push('"');
        out.push_str(self.as_escaped());
        out.push('"');
    }
}

/// The value's own text, with its white space.
impl ToJson for Node<'_> {
    fn append_to(&self, out: &mut String) {
        out.push_str(self.raw());
    }
}

impl ToJson for bool {
    fn append_to(&self, out: &mut String) {
        out.push_str(if *self { "true" } else { "false" });
    }
}

impl ToJson for u64 {
    fn append_to(&self, out: &mut String) {
        let mut digits = [0; 20];
        let mut left = *self;
        let mut begin = digits.len();
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + (left % 10) as u8;
            left /= 10;
            begin -= 1;
            if left == 0 {
                break;
            }
        }
        out.push_str(digits.get(begin..).and_then(|digits| core::str::from_utf8(digits).ok()).unwrap_or_default());
    }
}

/// `None` is `null`.
impl<T: ToJson> ToJson for Option<T> {
    fn append_to(&self, out: &mut String) {
        match self {
            Some(value) => value.append_to(out),
            None => out.push_str("null"),
        }
    }
}

/// `null`.
impl ToJson for () {
    fn append_to(&self, out: &mut String) {
        out.push_str("null");
    }
}

impl ToJson for serde_json::Value {
    fn append_to(&self, out: &mut String) {
        out.push_str(&self.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    /// Writes any value call by call.
    fn write(value: &Value, writer: &mut Writer) {
        match value {
            Value::Array(values) => writer.array(|out| values.iter().for_each(|value| write(value, out))),
            Value::Object(fields) => writer.object(|out| {
                for (name, value) in fields {
                    out.name(Text::of(name.as_str()).as_escaped());
                    write(value, out);
                }
            }),
            Value::String(text) => writer.value(text.as_str()),
            Value::Bool(flag) => writer.value(*flag),
            Value::Number(number) => writer.value(number.as_u64()),
            Value::Null => writer.value(()),
        }
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            "[ -~é\n{}\\[:]{0,5}".prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            (0u64..12).prop_map(Value::from),
            any::<bool>().prop_map(Value::from),
            Just(Value::Null),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec(("[ -~]{0,3}", inner), 0..4).prop_map(|fields| fields.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn as_serde_writes_it(value in any_value()) {
            let mut writer = Writer::default();
            write(&value, &mut writer);
            prop_assert_eq!(writer.finish(), value.to_string());
        }
    }

    #[test]
    fn fields() {
        let mut writer = Writer::with_capacity(64);
        writer.object(|out| {
            out.field("a", 1u64);
            out.field_if("b", None::<bool>);
            out.field("c", Some("x"));
            out.field("d", json!([{}]));
            out.object_field_unless_empty("e", |_| ());
            out.object_field_unless_empty("f", |out| out.field("g", "{"));
            out.array_field("h", |_| ());
        });
        assert_eq!(writer.finish(), r#"{"a":1,"c":"x","d":[{}],"f":{"g":"{"},"h":[]}"#);
    }
}
