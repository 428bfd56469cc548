//! Reads a JSON object field by field, with refusals that name the field.
//!
//! A derived serde type would say `invalid type: string "x", expected u64 at line 1 column 80`, which
//! does not name the field, and it would not notice fields that are never read.

use core::fmt;

use crate::json::{Items, Node, Text};

/// Why a request cannot be translated without changing its meaning. The client gets a 400.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The field at fault as OpenAI writes it: `messages[2].content[0].image_url.url`. It becomes the
    /// error's `param`.
    pub field: String,
    /// What is wrong with it, in words that begin with the field's name.
    pub message: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// A refusal of `field` for a reason that continues its name, such as "must be a number".
#[cold]
pub(super) fn refuse(field: impl Into<String>, reason: impl fmt::Display) -> Refusal {
    let field = field.into();
    let message = format!("`{field}` {reason}");
    Refusal { field, message }
}

/// The path of a value in the request. It is written out only for a refusal.
#[derive(Clone, Copy, Debug)]
pub(super) enum Path<'p> {
    /// The request itself.
    Root,
    /// A field of the object at a path.
    Field(&'p Path<'p>, &'p str),
    /// A value of a field that is a list, by its index.
    Item(&'p Path<'p>, &'p str, usize),
}

impl Path<'_> {
    #[cold]
    fn refuse(self, reason: impl fmt::Display) -> Refusal {
        refuse(if let Path::Root = self { "body".to_owned() } else { self.to_string() }, reason)
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Path::Field(parent, name) | Path::Item(parent, name, _)) = self else { return Ok(()) };
        if !matches!(parent, Path::Root) {
            write!(f, "{parent}.")?;
        }
        f.write_str(name)?;
        if let Path::Item(_, _, index) = self { write!(f, "[{index}]") } else { Ok(()) }
    }
}

/// More fields than any object of a chat has, and few enough to search all of them for each name.
const MOST_FIELDS: usize = 500;

/// The fields of one object that are still unread.
pub(super) struct Fields<'p, 'd> {
    path: Path<'p>,
    /// Key and value; `None` where the value was taken.
    fields: Vec<Option<(Node<'d>, Node<'d>)>>,
}

impl<'p, 'd> Fields<'p, 'd> {
    /// The fields of `value`, whose path is `path`.
    pub fn of(path: Path<'p>, value: Node<'d>) -> Result<Self, Refusal> {
        if !value.is_object() {
            return Err(path.refuse("must be an object"));
        }
        // Few objects of a chat have more.
        let mut fields = Vec::with_capacity(8);
        fields.extend(value.fields().take(MOST_FIELDS + 1).map(Some));
        if fields.len() > MOST_FIELDS {
            return Err(path.refuse(format_args!("must not have more than {MOST_FIELDS} fields")));
        }
        Ok(Fields { path, fields })
    }

    /// The path of a field.
    pub fn path<'s>(&'s self, field: &'s str) -> Path<'s> {
        Path::Field(&self.path, field)
    }

    /// The path of a value of a list.
    pub fn item<'s>(&'s self, field: &'s str, index: usize) -> Path<'s> {
        Path::Item(&self.path, field, index)
    }

    #[cold]
    pub fn refuse(&self, field: &str, reason: impl fmt::Display) -> Refusal {
        refuse(self.path(field).to_string(), reason)
    }

    /// Takes a value out. Of several with this name the last one counts, and `null` is the same as no value,
    /// because every SDK sends some.
    pub fn take(&mut self, field: &str) -> Option<Node<'d>> {
        let mut last = None;
        for slot in &mut self.fields {
            if slot.is_some_and(|(key, _)| key.is(field)) {
                last = slot.take();
            }
        }
        last.map(|(_, value)| value).filter(|value| !value.is_null())
    }

    /// Takes a value out and converts it, or refuses it because it is not `expected`.
    fn take_as<T>(
        &mut self,
        field: &str,
        expected: &str,
        make: impl FnOnce(Node<'d>) -> Option<T>,
    ) -> Result<Option<T>, Refusal> {
        let Some(value) = self.take(field) else { return Ok(None) };
        make(value).map(Some).ok_or_else(|| self.refuse(field, format_args!("must be {expected}")))
    }

    pub fn text(&mut self, field: &str) -> Result<Option<Text<'d>>, Refusal> {
        self.take_as(field, "a string", Node::as_text)
    }

    pub fn required_text(&mut self, field: &str) -> Result<Text<'d>, Refusal> {
        self.text(field)?.ok_or_else(|| self.refuse(field, "is missing"))
    }

    pub fn number(&mut self, field: &str) -> Result<Option<Node<'d>>, Refusal> {
        self.take_as(field, "a number", |value| value.is_number().then_some(value))
    }

    pub fn count(&mut self, field: &str) -> Result<Option<u64>, Refusal> {
        self.take_as(field, "a whole number that is not negative", Node::as_u64)
    }

    pub fn flag(&mut self, field: &str) -> Result<Option<bool>, Refusal> {
        self.take_as(field, "true or false", Node::as_bool)
    }

    pub fn list(&mut self, field: &str) -> Result<Option<Items<'d>>, Refusal> {
        self.take_as(field, "an array", |value| value.is_array().then(|| value.items()))
    }

    pub fn object<'s>(&'s mut self, field: &'s str) -> Result<Option<Fields<'s, 'd>>, Refusal> {
        let value = self.take(field);
        value.map(|value| Fields::of(self.path(field), value)).transpose()
    }

    pub fn required_object<'s>(&'s mut self, field: &'s str) -> Result<Fields<'s, 'd>, Refusal> {
        match self.take(field) {
            Some(value) => Fields::of(self.path(field), value),
            None => Err(self.refuse(field, "is missing")),
        }
    }

    /// The names of the fields that were not taken and are not `null`.
    pub fn rest(&self) -> impl Iterator<Item = Text<'d>> {
        self.fields.iter().flatten().filter(|(_, value)| !value.is_null()).filter_map(|(key, _)| key.as_text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::Document;

    #[test]
    fn takes_the_last_of_a_name_and_knows_what_is_left() {
        let document = Document::read(br#"{"a":1,"b":"x","a":2,"c":null,"d":{"e":[]}}"#).unwrap();
        let mut fields = Fields::of(Path::Root, document.root()).unwrap();
        assert_eq!((fields.count("a").unwrap(), fields.count("a").unwrap()), (Some(2), None));
        assert!(fields.take("c").is_none());
        let mut inner = fields.required_object("d").unwrap();
        assert_eq!(inner.count("e").unwrap_err().field, "d.e");
        assert_eq!(fields.rest().map(|name| name.decoded().into_owned()).collect::<Vec<_>>(), ["b"]);
        assert_eq!(fields.number("b").unwrap_err().message, "`b` must be a number");
        assert_eq!(fields.required_text("z").unwrap_err().message, "`z` is missing");
    }

    #[test]
    fn paths_and_bounds() {
        let messages = Path::Item(&Path::Root, "messages", 2);
        assert_eq!(Path::Field(&messages, "content").to_string(), "messages[2].content");
        let fields = |count| format!("{{{}}}", vec!["\"x\":1"; count].join(","));
        for (count, allowed) in [(MOST_FIELDS, true), (MOST_FIELDS + 1, false)] {
            let text = fields(count);
            let document = Document::read(text.as_bytes()).unwrap();
            assert_eq!(Fields::of(messages, document.root()).is_ok(), allowed, "{count}");
        }
    }
}
