//! Follows the structure of JSON that arrives in any pieces, and copies out the few values that matter.
//!
//! The state is a handful of numbers and the value being copied. Long strings, which are most of a
//! body, are hopped over at memchr's speed.

use memchr::memchr2;

/// A copied value must not be longer than this many bytes; of a longer one the beginning counts.
const VALUE_LIMIT: usize = 16 * 1024;

/// A key whose value is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// `error`.
    Error,
    /// `usage` or `usageMetadata`.
    Usage,
    /// `message` (Anthropic's first event), `response` (OpenAI's Responses) and `x_groq`: their own
    /// `error` and `usage` count.
    Parent,
}

impl Key {
    fn of(name: &[u8]) -> Option<Key> {
        Some(match name {
            b"error" => Key::Error,
            b"usage" | b"usageMetadata" => Key::Usage,
            b"message" | b"response" | b"x_groq" => Key::Parent,
            _ => return None,
        })
    }
}

/// The longest key that matters, and one byte by which a longer one is known.
const NAME_LIMIT: usize = b"usageMetadata".len() + 1;

/// Follows the structure of JSON text in any pieces. What is no JSON makes it find nothing.
#[derive(Default)]
pub struct Scanner {
    /// Open brackets.
    depth: usize,
    /// 1 if the document is an array of objects (Gemini without `alt=sse`), else 0.
    base: usize,
    /// Whether the bracket below the document, and the one below that, is an object's.
    objects: [bool; 2],
    /// The next string in an object is a key, for it follows `{` or `,`; a value is hopped over.
    expects_key: bool,
    string: Text,
    /// The string's beginning, if it may be a key.
    name: Vec<u8>,
    /// The key before the colon at the top and one level down.
    keys: [Option<Key>; 2],
    /// Where the value being copied stands, and which key it has.
    copying: Option<(usize, Key)>,
    value: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Text {
    #[default]
    Outside,
    Key,
    Value,
    /// Behind a backslash; the flag is whether the string is a key.
    Escape(bool),
}

impl Scanner {
    /// Forgets an unfinished document, for a new one begins.
    pub fn start(&mut self) {
        let (mut name, mut value) = (core::mem::take(&mut self.name), core::mem::take(&mut self.value));
        name.clear();
        value.clear();
        *self = Scanner { name, value, ..Scanner::default() };
    }

    /// Reads on, up to the end of one value that matters. Returns how many bytes were read.
    pub fn step(&mut self, text: &[u8]) -> (usize, Option<(Key, Vec<u8>)>) {
        let mut at = 0;
        // Where the part of the value begins that is in this text.
        let mut copied = 0;
        while let Some(byte) = text.get(at) {
            match self.string {
                Text::Outside => {
                    if matches!(byte, b',' | b'}' | b']')
                        && let Some(key) = self.end_value()
                    {
                        self.copy(text.get(copied..at).unwrap_or_default());
                        let value = core::mem::take(&mut self.value);
                        self.outside(*byte);
                        return (at + 1, Some((key, value)));
                    }
                    at += 1;
                    if self.outside(*byte) {
                        copied = at;
                    }
                }
                Text::Key | Text::Value => {
                    // Most of a body is long strings: hop to what can end them.
                    let rest = text.get(at..).unwrap_or_default();
                    let hop = memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
                    self.note_name(rest.get(..hop).unwrap_or_default());
                    at += hop;
                    if let Some(byte) = text.get(at) {
                        self.in_string(*byte);
                        at += 1;
                    }
                }
                Text::Escape(of_key) => {
                    self.string = if of_key { Text::Key } else { Text::Value };
                    at += 1;
                }
            }
        }
        if self.copying.is_some() {
            self.copy(text.get(copied..).unwrap_or_default());
        }
        (at, None)
    }

    /// The quote or the backslash that a hop ended at.
    fn in_string(&mut self, byte: u8) {
        let is_key = self.string == Text::Key;
        if byte == b'\\' {
            // No key that matters has an escape; the backslash stays in the name and spoils it.
            self.note_name(&[byte]);
            self.string = Text::Escape(is_key);
            return;
        }
        self.string = Text::Outside;
        if is_key {
            self.end_key();
        }
    }

    fn note_name(&mut self, bytes: &[u8]) {
        if self.string == Text::Key {
            let room = NAME_LIMIT.saturating_sub(self.name.len());
            self.name.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        }
    }

    /// The level of the innermost bracket: 0 is the document's own object.
    fn level(&self) -> Option<usize> {
        self.depth.checked_sub(self.base + 1)
    }

    fn in_object(&self) -> bool {
        self.level().and_then(|level| self.objects.get(level)).copied().unwrap_or(false)
    }

    fn end_key(&mut self) {
        let key = Key::of(&self.name);
        // One level down counts only below a parent.
        let under = matches!(self.keys, [Some(Key::Parent), _]);
        match (self.level(), &mut self.keys) {
            (Some(0), [top, _]) => *top = key,
            (Some(1), [_, inner]) => *inner = key.filter(|key| under && *key != Key::Parent),
            _ => {}
        }
        self.expects_key = false;
    }

    /// A byte outside of strings. True if a value begins behind it that is to be copied.
    fn outside(&mut self, byte: u8) -> bool {
        match byte {
            b'"' => self.begin_string(),
            b':' => return self.begin_value(),
            b',' => self.expects_key = self.in_object(),
            b'{' | b'[' => self.open(byte == b'{'),
            b'}' | b']' => self.close(),
            _ => {}
        }
        false
    }

    fn begin_string(&mut self) {
        if self.expects_key && self.in_object() {
            self.name.clear();
            self.string = Text::Key;
        } else {
            self.string = Text::Value;
        }
    }

    fn begin_value(&mut self) -> bool {
        if self.copying.is_some() || !self.in_object() {
            return false;
        }
        let key = self.level().and_then(|level| self.keys.get(level)).copied().flatten();
        let Some(key @ (Key::Error | Key::Usage)) = key else { return false };
        self.copying = Some((self.depth, key));
        self.value.clear();
        true
    }

    /// The key of the value that ends here, if it is being copied.
    fn end_value(&mut self) -> Option<Key> {
        let (_, key) = self.copying.filter(|(depth, _)| *depth == self.depth)?;
        self.copying = None;
        Some(key)
    }

    fn copy(&mut self, bytes: &[u8]) {
        let bytes = if self.value.is_empty() { bytes.trim_ascii_start() } else { bytes };
        let room = VALUE_LIMIT.saturating_sub(self.value.len());
        self.value.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
    }

    fn open(&mut self, object: bool) {
        if self.depth == 0 {
            self.base = usize::from(!object);
        }
        self.depth = self.depth.saturating_add(1);
        let level = self.level();
        if let Some(kind) = level.and_then(|level| self.objects.get_mut(level)) {
            *kind = object;
        }
        if let (Some(0), [top, _]) = (level, &mut self.keys) {
            *top = None;
        }
        if let (Some(0 | 1), [_, inner]) = (level, &mut self.keys) {
            *inner = None;
        }
        self.expects_key = object;
    }

    fn close(&mut self) {
        self.depth = self.depth.saturating_sub(1);
        self.expects_key = false;
    }
}
