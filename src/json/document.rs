//! A document that is read as a whole: a flat index of its values, with nothing copied.
//!
//! One pass checks the text and indexes each value in the order of the text; an object's keys come in
//! the index before their values. So a document costs one list, however many values it has, where a
//! tree of maps and strings costs several allocations for each.
//!
//! ```text
//! {"a":[1,"x"],"b":null}      index: {…}  "a"  […]  1  "x"  "b"  null
//!                             after:  7    2    5   4   5    6    7     (the index behind it)
//! ```
//!
//! It accepts what `serde_json::Value` accepts: the grammar, without half surrogate pairs, numbers beyond
//! every float, or more than [`DEEPEST`] levels.

use core::ops::Range;

use super::reader::{LeafFlags, Reader, Visitor};
use super::text::Text;

/// Levels of arrays and objects, as in serde_json.
const DEEPEST: usize = 127;

/// A JSON text and the index of its values.
#[derive(Debug)]
pub(crate) struct Document<'t> {
    text: &'t str,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    start: u32,
    end: u32,
    /// The index that follows this value and everything in it. While the value is open, this is the index
    /// of its parent.
    after: u32,
    /// The first byte, which is enough to know what kind of value it is.
    first: u8,
    /// A string with escapes.
    escaped: bool,
}

/// One value of a document.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Node<'d> {
    document: &'d Document<'d>,
    at: u32,
}

impl<'t> Document<'t> {
    /// Reads a text that is one JSON value.
    ///
    /// # Errors
    /// Line and column of the first fault, both from 1.
    pub(crate) fn read(text: &'t [u8]) -> Result<Self, (usize, usize)> {
        let mut reader = Reader::new(text);
        // Entries have 32-bit offsets.
        let Some(valid) = core::str::from_utf8(text).ok().filter(|text| u32::try_from(text.len()).is_ok()) else {
            return Err((1, 1));
        };
        // Prose has one value in some hundred bytes, a list of numbers one in every few.
        let entries = Vec::with_capacity((text.len() / 16).clamp(16, 1024));
        let mut index = Index { text: valid, entries, open: 0, depth: 0 };
        if reader.visit_value(&mut index).is_some() && reader.is_at_end() {
            return Ok(Document { text: valid, entries: index.entries });
        }
        Err(reader.position())
    }

    pub(crate) fn root(&self) -> Node<'_> {
        Node { document: self, at: 0 }
    }

    fn entry(&self, at: u32) -> Entry {
        const NONE: Entry = Entry { start: 0, end: 0, after: u32::MAX, first: 0, escaped: false };
        self.entries.get(at as usize).copied().unwrap_or(NONE)
    }
}

/// An index that is being built.
struct Index<'t> {
    text: &'t str,
    entries: Vec<Entry>,
    /// The index of the innermost array or object that is open.
    open: u32,
    depth: usize,
}

impl Index<'_> {
    fn len(&self) -> u32 {
        self.entries.len() as u32
    }

    fn push(&mut self, range: Range<usize>, after: u32, escaped: bool) -> Option<()> {
        let first = *self.text.as_bytes().get(range.start)?;
        self.entries.push(Entry { start: range.start as u32, end: range.end as u32, after, first, escaped });
        Some(())
    }
}

impl Visitor for Index<'_> {
    fn leaf(&mut self, range: Range<usize>, flags: LeafFlags) -> Option<()> {
        if flags.doubtful {
            serde_json::from_str::<serde_json::Value>(self.text.get(range.clone())?).ok()?;
        }
        let after = self.len() + 1;
        self.push(range, after, flags.escaped)
    }

    fn open(&mut self, at: usize) -> Option<()> {
        if self.depth == DEEPEST {
            return None;
        }
        self.depth += 1;
        let this = self.len();
        self.push(at..at, self.open, false)?;
        self.open = this;
        Some(())
    }

    fn close(&mut self, end: usize) {
        self.depth = self.depth.saturating_sub(1);
        let after = self.len();
        if let Some(entry) = self.entries.get_mut(self.open as usize) {
            self.open = entry.after;
            (entry.end, entry.after) = (end as u32, after);
        }
    }
}

impl<'d> Node<'d> {
    fn entry(self) -> Entry {
        self.document.entry(self.at)
    }

    /// The text of the value, with the white space in it.
    pub(crate) fn raw(self) -> &'d str {
        let entry = self.entry();
        self.document.text.get(entry.start as usize..entry.end as usize).unwrap_or_default()
    }

    /// The first byte of the value.
    fn first(self) -> u8 {
        self.document.entries.get(self.at as usize).map_or(0, |entry| entry.first)
    }

    pub(crate) fn is_null(self) -> bool {
        self.first() == b'n'
    }

    pub(crate) fn is_object(self) -> bool {
        self.first() == b'{'
    }

    pub(crate) fn is_array(self) -> bool {
        self.first() == b'['
    }

    pub(crate) fn is_number(self) -> bool {
        matches!(self.first(), b'-' | b'0'..=b'9')
    }

    pub(crate) fn as_bool(self) -> Option<bool> {
        match self.first() {
            b't' => Some(true),
            b'f' => Some(false),
            _ => None,
        }
    }

    /// The number, if it is whole and not negative.
    pub(crate) fn as_u64(self) -> Option<u64> {
        self.raw().parse().ok()
    }

    pub(crate) fn as_f64(self) -> Option<f64> {
        self.is_number().then(|| self.raw().parse().ok()).flatten()
    }

    pub(crate) fn as_text(self) -> Option<Text<'d>> {
        let Entry { start, end, first, .. } = *self.document.entries.get(self.at as usize)?;
        if first != b'"' {
            return None;
        }
        self.document.text.get(start as usize + 1..end as usize - 1).map(Text::escaped)
    }

    /// The values of an array, in order. Anything else has none.
    pub(crate) fn items(self) -> Items<'d> {
        let entry = self.entry();
        let end = if self.is_array() { entry.after } else { 0 };
        Items { document: self.document, at: self.at + 1, end }
    }

    /// The keys and values of an object, in order. Anything else has none.
    pub(crate) fn fields(self) -> impl Iterator<Item = (Node<'d>, Node<'d>)> {
        let end = if self.is_object() { self.entry().after } else { 0 };
        let mut inside = Items { document: self.document, at: self.at + 1, end };
        core::iter::from_fn(move || Some((inside.next()?, inside.next()?)))
    }

    /// The value of an object's field. If there are several of this name, the last one counts.
    pub(crate) fn get(self, name: &str) -> Option<Node<'d>> {
        let mut found = None;
        if self.is_object() {
            let Node { document, at } = self;
            let (mut key, end) = (Node { document, at: at + 1 }, self.entry().after);
            while key.at < end {
                let value = Node { document, at: key.at + 1 };
                if key.is(name) {
                    found = Some(value);
                }
                key.at = value.entry().after;
            }
        }
        found
    }

    /// The value at the end of a path of fields.
    pub(crate) fn at(self, path: &[&str]) -> Option<Node<'d>> {
        path.iter().try_fold(self, |node, name| node.get(name))
    }

    /// Whether it is the string `text`, which must not need escapes.
    pub(crate) fn is(self, text: &str) -> bool {
        let Some(entry) = self.document.entries.get(self.at as usize) else { return false };
        // Most strings differ in their length.
        if entry.end - entry.start != text.len() as u32 + 2 && !entry.escaped {
            return false;
        }
        self.as_text().is_some_and(|own| if entry.escaped { own.decoded() == text } else { own.as_escaped() == text })
    }

    /// The value as serde's, for code that rewrites it from the ground up.
    pub(crate) fn to_value(self) -> serde_json::Value {
        serde_json::from_str(self.raw()).unwrap_or_default()
    }

    /// The text of the value without the white space between its parts.
    pub(crate) fn compact(self) -> String {
        let whole = self.entry();
        let text = |start: u32, end: u32| self.document.text.get(start as usize..end as usize).unwrap_or_default();
        let mut out = String::with_capacity(self.raw().len());
        let mut at = whole.start;
        for part in
            (self.at..whole.after).map(|at| Node { at, ..self }).filter(|node| !node.is_array() && !node.is_object())
        {
            let leaf = part.entry();
            out.extend(text(at, leaf.start).split_ascii_whitespace());
            out.push_str(text(leaf.start, leaf.end));
            at = leaf.end;
        }
        out.extend(text(at, whole.end).split_ascii_whitespace());
        out
    }
}

/// Values that follow each other in a document.
#[derive(Clone, Debug)]
pub(crate) struct Items<'d> {
    document: &'d Document<'d>,
    at: u32,
    end: u32,
}

impl<'d> Iterator for Items<'d> {
    type Item = Node<'d>;

    fn next(&mut self) -> Option<Node<'d>> {
        if self.at >= self.end {
            return None;
        }
        let node = Node { document: self.document, at: self.at };
        self.at = node.entry().after;
        Some(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    /// The value that serde would build of the same text, built node by node.
    fn value(node: Node) -> Value {
        match node.first() {
            b'{' => node
                .fields()
                .map(|(key, inner)| (key.as_text().unwrap().decoded().into_owned(), value(inner)))
                .collect(),
            b'[' => node.items().map(value).collect(),
            b'"' => node.as_text().unwrap().decoded().into(),
            b't' | b'f' => node.as_bool().into(),
            b'n' => Value::Null,
            _ => match node.as_u64() {
                Some(number) => number.into(),
                None => serde_json::from_str(node.raw()).unwrap(),
            },
        }
    }

    #[test]
    fn looks_into_objects() {
        let text = br#" {"a": {"b": [1, -2.5, "x\ny", true, null]}, "c": 1, "\u0063": 2, "n": 18446744073709551615} "#;
        let document = Document::read(text).unwrap();
        let root = document.root();
        let list = root.at(&["a", "b"]).unwrap();
        assert_eq!(list.items().count(), 5);
        assert_eq!(list.items().filter_map(Node::as_f64).collect::<Vec<_>>(), [1.0, -2.5]);
        assert_eq!(list.items().filter_map(Node::as_u64).collect::<Vec<_>>(), [1]);
        assert_eq!(root.get("c").unwrap().as_u64(), Some(2), "the last one counts");
        assert_eq!(root.get("n").unwrap().as_u64(), Some(u64::MAX));
        assert!(root.get("b").is_none() && list.get("b").is_none() && root.get("c").unwrap().items().next().is_none());
        assert_eq!(list.compact(), r#"[1,-2.5,"x\ny",true,null]"#);
        assert!(list.items().any(|item| item.is("x\ny")) && !root.is("a"));
    }

    #[test]
    fn documents_that_serde_refuses_are_refused() {
        let deep = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        assert!(Document::read(deep(DEEPEST).as_bytes()).is_ok());
        for text in [
            "",
            "[1",
            "1 2",
            r#""\ud800""#,
            r#"{"\udc00x":1}"#,
            "1e999",
            "\"\u{1}\"",
            &deep(DEEPEST + 1),
            &"9".repeat(400),
        ] {
            assert!(Document::read(text.as_bytes()).is_err(), "{text}");
            assert!(serde_json::from_str::<Value>(text).is_err(), "{text}");
        }
        assert!(Document::read(b"\"\xff\"").is_err());
        assert_eq!(Document::read(b"[1,\n x]").err(), Some((2, 2)));
    }

    proptest! {
        #[test]
        fn as_serde_reads_it(text in "([\\[\\]{},:\" ]|\"[a\\\\\"\u{e9}\n/ub0-9]{0,6}\"|\"(\\\\u(d8|D[cF]|0)[0-9a]{2}){1,2}\"|-?[0-9]{1,2}|[0-9.eE+-]{1,7}|true|null|fals|\"k\":|[\\[{,])*") {
            let expected = serde_json::from_str::<Value>(&text).ok();
            let document = Document::read(text.as_bytes()).ok();
            prop_assert_eq!(document.as_ref().map(|document| value(document.root())), expected);
        }

        #[test]
        fn good_documents(depth in 0usize..5, keys in prop::collection::vec("[^/]{0,9}", 0..5), pretty: bool) {
            let mut inner = json!([1.5e3, null, true, -0, {}, [], 1e300, "\u{1f600}\u{0}"]);
            for _ in 0..depth {
                inner = keys.iter().map(|key| (key.clone(), inner.clone())).collect();
            }
            let text = if pretty { format!(" {inner:#}\n") } else { inner.to_string() };
            let document = Document::read(text.as_bytes()).unwrap();
            prop_assert_eq!(value(document.root()), inner.clone());
            prop_assert_eq!(document.root().compact(), inner.to_string());
            prop_assert_eq!(serde_json::from_str::<Value>(document.root().raw()).unwrap(), inner);
        }

        #[test]
        fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            prop_assert_eq!(Document::read(&bytes).is_ok(), serde_json::from_slice::<Value>(&bytes).is_ok());
        }
    }
}
