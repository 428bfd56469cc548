//! Follows the structure of JSON that arrives in any pieces, and copies out the few values that matter.
//!
//! The state is a handful of numbers and, of a string or value that a piece cuts, its beginning. Only the
//! two outermost levels are followed byte by byte; of what lies deeper, or in a value being copied,
//! brackets are counted and strings hopped over.

use std::borrow::Cow;

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
    /// The beginning of a key that a piece has cut, and how long it is.
    name: [u8; NAME_LIMIT],
    named: usize,
    /// The key before the colon at the top and one level down.
    keys: [Option<Key>; 2],
    /// Where the value being copied stands, and which key it has.
    copying: Option<(usize, Key)>,
    /// Its beginning, if a piece has cut it.
    value: Vec<u8>,
}

/// Where the next byte stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Text {
    #[default]
    Outside,
    Key,
    Value,
    /// Behind a backslash; the flag is whether the string is a key.
    Escape(bool),
}

/// A key that matters and the whole of its value.
pub type Found<'t> = (Key, Cow<'t, [u8]>);

impl Scanner {
    /// Forgets an unfinished document, for a new one begins.
    pub fn start(&mut self) {
        let mut value = core::mem::take(&mut self.value);
        value.clear();
        *self = Scanner { value, ..Scanner::default() };
    }

    /// Reads on, up to the end of one value that matters. Returns how many bytes were read.
    pub fn step<'t>(&mut self, text: &'t [u8]) -> (usize, Option<Found<'t>>) {
        let mut at = if self.string == Text::Outside { 0 } else { self.go_on(text) };
        at = self.hop(text, at);
        // Where the part of the value begins that is in this text.
        let mut copied = 0;
        while let Some(&byte) = text.get(at) {
            at += 1;
            match byte {
                b'"' => at = self.begin_string(text, at),
                b':' if self.begins_value() => copied = at,
                b'{' | b'[' => {
                    self.open(byte == b'{');
                    at = self.hop(text, at);
                }
                b',' | b'}' | b']' => {
                    let ended = self.end_value();
                    if byte == b',' {
                        self.expects_key = self.in_object();
                    } else {
                        self.close();
                    }
                    if let Some(key) = ended {
                        return (at, Some((key, self.copied(text.get(copied..at - 1).unwrap_or_default()))));
                    }
                }
                _ => {}
            }
        }
        if self.copying.is_some() {
            self.copy(text.get(copied..).unwrap_or_default());
        }
        (at, None)
    }

    /// Hops over what lies too deep to matter, behind the bracket that leads out of it.
    fn hop(&mut self, text: &[u8], mut at: usize) -> usize {
        let floor = self.copying.map_or(self.base + 2, |(depth, _)| depth);
        let mut depth = self.depth;
        if depth <= floor {
            return at;
        }
        while let Some(byte) = text.get(at) {
            at += 1;
            if *byte == b'"' {
                at = end_of_string(text, at);
                if at > text.len() {
                    self.string = if at > text.len() + 1 { Text::Escape(false) } else { Text::Value };
                    at = text.len();
                }
                continue;
            }
            // Brackets are braces but for one bit.
            match byte | 0x20 {
                b'{' => depth = depth.saturating_add(1),
                b'}' => {
                    depth -= 1;
                    if depth == floor {
                        break;
                    }
                }
                _ => {}
            }
        }
        self.depth = depth;
        self.expects_key = false;
        at
    }

    /// Behind the quote that begins a string.
    fn begin_string(&mut self, text: &[u8], at: usize) -> usize {
        let is_key = self.expects_key && self.in_object();
        let end = end_of_string(text, at);
        if end > text.len() {
            self.named = 0;
            return self.cut(text, at, end, is_key);
        }
        if is_key {
            self.end_key(Key::of(text.get(at..end - 1).unwrap_or_default()));
        }
        end
    }

    /// Reads on in a string that the last piece has cut.
    #[cold]
    fn go_on(&mut self, text: &[u8]) -> usize {
        let is_key = matches!(self.string, Text::Key | Text::Escape(true));
        let start = usize::from(matches!(self.string, Text::Escape(_))).min(text.len());
        let end = end_of_string(text, start);
        if end > text.len() {
            return self.cut(text, 0, end, is_key);
        }
        self.string = Text::Outside;
        if is_key {
            self.note_name(text.get(..end - 1).unwrap_or_default());
            self.end_key(Key::of(self.name.get(..self.named).unwrap_or_default()));
        }
        end
    }

    /// The text ends in the string that goes on at `at`.
    #[cold]
    fn cut(&mut self, text: &[u8], at: usize, end: usize, is_key: bool) -> usize {
        if is_key {
            self.note_name(text.get(at..).unwrap_or_default());
        }
        self.string = match (end > text.len() + 1, is_key) {
            (true, _) => Text::Escape(is_key),
            (false, true) => Text::Key,
            (false, false) => Text::Value,
        };
        text.len()
    }

    fn note_name(&mut self, bytes: &[u8]) {
        let room = self.name.get_mut(self.named..).unwrap_or_default();
        let fits = bytes.len().min(room.len());
        room.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        self.named += fits;
    }

    /// The level of the innermost bracket: 0 is the document's own object.
    fn level(&self) -> Option<usize> {
        self.depth.checked_sub(self.base + 1)
    }

    fn in_object(&self) -> bool {
        self.level().and_then(|level| self.objects.get(level)).copied().unwrap_or(false)
    }

    /// No key that matters has an escape, and a backslash in its name spoils it.
    fn end_key(&mut self, key: Option<Key>) {
        // One level down counts only below a parent.
        let under = matches!(self.keys, [Some(Key::Parent), _]);
        match (self.level(), &mut self.keys) {
            (Some(0), [top, _]) => *top = key,
            (Some(1), [_, inner]) => *inner = key.filter(|key| under && *key != Key::Parent),
            _ => {}
        }
        self.expects_key = false;
    }

    /// Whether a value begins behind a colon that is to be copied.
    fn begins_value(&mut self) -> bool {
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

    /// The whole value, of which this is the last part.
    fn copied<'t>(&mut self, last: &'t [u8]) -> Cow<'t, [u8]> {
        if self.value.is_empty() {
            let value = last.trim_ascii_start();
            return Cow::Borrowed(value.get(..VALUE_LIMIT).unwrap_or(value));
        }
        self.copy(last);
        Cow::Owned(core::mem::take(&mut self.value))
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

/// The place behind the quote that ends a string, from a place in it on. If the text ends before, it is
/// beyond its end: by one or, if that is behind a backslash, by two.
pub fn end_of_string(text: &[u8], mut at: usize) -> usize {
    let mut words = 0;
    loop {
        let Some(rest) = text.get(at..) else { return text.len() + 2 };
        match rest.first_chunk() {
            // Most strings are shorter than what memchr takes to begin.
            Some(word) if words < FEW_WORDS => match quote_or_backslash(u64::from_le_bytes(*word)) {
                Some(hop) => at += hop,
                None => {
                    (at, words) = (at + word.len(), words + 1);
                    continue;
                }
            },
            _ => at += far_quote_or_backslash(rest),
        }
        match text.get(at) {
            Some(b'"') => return at + 1,
            Some(_) => (at, words) = (at + 2, 0),
            None => return text.len() + 1,
        }
    }
}

#[cold]
fn far_quote_or_backslash(text: &[u8]) -> usize {
    memchr2(b'"', b'\\', text).unwrap_or(text.len())
}

/// So many words of a string are searched before memchr is asked.
const FEW_WORDS: usize = 4;

/// The first of eight bytes that is a quote or a backslash.
fn quote_or_backslash(word: u64) -> Option<usize> {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    // The high bit of each byte that is the one looked for, and maybe of some behind it.
    let marks = |byte: u8| {
        let other = word ^ (ONES * u64::from(byte));
        other.wrapping_sub(ONES) & !other & (ONES * 0x80)
    };
    let marks = marks(b'"') | marks(b'\\');
    (marks != 0).then(|| marks.trailing_zeros() as usize / 8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn strings_end_at_the_first_bare_quote(text in "[a-z\u{80}]{0,50}(\\\\[a\"\\\\]|[ab]){0,6}\"?[a\"\\\\]{0,9}", at in 0usize..3) {
            let text = text.as_bytes();
            let mut place = at;
            let expected = loop {
                match text.get(place) {
                    Some(b'"') => break place + 1,
                    Some(b'\\') => place += 2,
                    Some(_) => place += 1,
                    None => break text.len() + if place > text.len() { 2 } else { 1 },
                }
            };
            prop_assert_eq!(end_of_string(text, at), expected);
        }
    }
}
