//! Follows the structure of JSON that arrives in any pieces, and copies out the few values that matter.
//!
//! The caller says which keys matter ([`Key`]). A value counts if its key is at the top level, or one
//! level down in an object whose own key is a parent. The state is a handful of numbers and, of a string
//! or value that a piece cuts, its beginning. Only these two levels are followed byte by byte. In
//! anything deeper, and in a value being copied, brackets are counted and strings are skipped.

use std::borrow::Cow;

use super::string::{self, End};

/// A copied value must not be longer than this many bytes; of a longer one the beginning counts.
const VALUE_LIMIT: usize = 16 * 1024;

/// The keys that a caller looks for.
pub(crate) trait Key: Copy {
    /// What a key of this name, which is shorter than [`NAME_LIMIT`] and has no escapes, is to the caller.
    fn role(name: &[u8]) -> Option<Role<Self>>;
}

/// What a key is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role<K> {
    /// Its value is copied out.
    Value(K),
    /// Its value is an object whose own keys count too.
    Parent,
}

/// Longer keys are cut to this length, so no key that is looked for may have it.
pub(crate) const NAME_LIMIT: usize = 24;

/// Follows the structure of JSON text in any pieces. In anything but JSON it finds nothing.
pub(crate) struct Scanner<K> {
    /// How many brackets are open.
    depth: usize,
    /// 1 if the document is an array of objects (Gemini without `alt=sse`), else 0.
    base: usize,
    /// Whether the bracket of the document's own level, and that of the level below, is an object's.
    objects: [bool; 2],
    /// Whether the next string in an object is a key, because it follows `{` or `,`.
    expects_key: bool,
    string: StringState,
    /// The beginning of a key that a piece has cut, and its length.
    name: [u8; NAME_LIMIT],
    name_len: usize,
    /// The key before the colon at the top and one level down.
    keys: [Option<Role<K>>; 2],
    /// The depth and key of the value being copied.
    copying: Option<(usize, K)>,
    /// Its beginning, if a piece has cut it.
    value: Vec<u8>,
}

/// Whether the next byte belongs to a string that began in an earlier piece.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum StringState {
    #[default]
    Outside,
    Key,
    Value,
    /// It follows a backslash.
    Escape {
        in_key: bool,
    },
}

/// A key that matters and its whole value.
pub(crate) type Found<'t, K> = (K, Cow<'t, [u8]>);

impl<K> Default for Scanner<K> {
    fn default() -> Self {
        Scanner {
            depth: 0,
            base: 0,
            objects: [false; 2],
            expects_key: false,
            string: StringState::Outside,
            name: [0; NAME_LIMIT],
            name_len: 0,
            keys: [None, None],
            copying: None,
            value: Vec::new(),
        }
    }
}

impl<K: Key> Scanner<K> {
    /// Forgets an unfinished document, because a new one begins.
    pub(crate) fn start(&mut self) {
        let mut value = core::mem::take(&mut self.value);
        value.clear();
        *self = Scanner { value, ..Scanner::default() };
    }

    /// Reads on, up to the end of one value that matters. Returns how many bytes were read.
    pub(crate) fn step<'t>(&mut self, text: &'t [u8]) -> (usize, Option<Found<'t, K>>) {
        let mut at = if self.string == StringState::Outside { 0 } else { self.resume_string(text) };
        at = self.skip_nested(text, at);
        // Where this text's part of the value begins.
        let mut copied = 0;
        while let Some(&byte) = text.get(at) {
            at += 1;
            match byte {
                b'"' => at = self.begin_string(text, at),
                b':' if self.begins_value() => copied = at,
                b'{' | b'[' => {
                    self.open(byte == b'{');
                    at = self.skip_nested(text, at);
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

    /// Skips what lies too deep to matter, up to behind the bracket that leads out of it.
    fn skip_nested(&mut self, text: &[u8], mut at: usize) -> usize {
        let floor = self.copying.map_or(self.base + 2, |(depth, _)| depth);
        let mut depth = self.depth;
        if depth <= floor {
            return at;
        }
        while let Some(byte) = text.get(at) {
            at += 1;
            if *byte == b'"' {
                match string::end(text, at) {
                    End::At(end) => at = end,
                    End::Missing { in_escape } => {
                        self.string =
                            if in_escape { StringState::Escape { in_key: false } } else { StringState::Value };
                        at = text.len();
                    }
                }
                continue;
            }
            // Square brackets and braces differ in this bit only.
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

    /// Reads a string from behind its opening quote.
    fn begin_string(&mut self, text: &[u8], at: usize) -> usize {
        let is_key = self.expects_key && self.in_object();
        match string::end(text, at) {
            End::At(end) => {
                if is_key {
                    self.end_key(K::role(text.get(at..end - 1).unwrap_or_default()));
                }
                end
            }
            End::Missing { in_escape } => {
                self.name_len = 0;
                self.suspend_string(text.get(at..).unwrap_or_default(), in_escape, is_key);
                text.len()
            }
        }
    }

    /// Reads on in a string that the last piece has cut.
    #[cold]
    fn resume_string(&mut self, text: &[u8]) -> usize {
        let is_key = matches!(self.string, StringState::Key | StringState::Escape { in_key: true });
        let start = usize::from(matches!(self.string, StringState::Escape { .. }));
        match string::end(text, start) {
            End::At(end) => {
                self.string = StringState::Outside;
                if is_key {
                    self.push_name(text.get(..end - 1).unwrap_or_default());
                    self.end_key(K::role(self.name.get(..self.name_len).unwrap_or_default()));
                }
                end
            }
            End::Missing { in_escape } => {
                self.suspend_string(text, in_escape, is_key);
                text.len()
            }
        }
    }

    /// Keeps what is needed to read on in a string of which `part` is all that this piece has.
    #[cold]
    fn suspend_string(&mut self, part: &[u8], in_escape: bool, is_key: bool) {
        if is_key {
            self.push_name(part);
        }
        self.string = match (in_escape, is_key) {
            (true, in_key) => StringState::Escape { in_key },
            (false, true) => StringState::Key,
            (false, false) => StringState::Value,
        };
    }

    fn push_name(&mut self, bytes: &[u8]) {
        let room = self.name.get_mut(self.name_len..).unwrap_or_default();
        let fits = bytes.len().min(room.len());
        room.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        self.name_len += fits;
    }

    /// The level of the innermost bracket: 0 is the document's own object.
    fn level(&self) -> Option<usize> {
        self.depth.checked_sub(self.base + 1)
    }

    fn in_object(&self) -> bool {
        self.level().and_then(|level| self.objects.get(level)).copied().unwrap_or(false)
    }

    /// A key ends. One with escapes has no role, because its backslashes are part of the name here.
    fn end_key(&mut self, role: Option<Role<K>>) {
        // One level down, keys count only below a parent, and none is a parent itself.
        let below_parent = matches!(self.keys, [Some(Role::Parent), _]);
        match (self.level(), &mut self.keys) {
            (Some(0), [top, _]) => *top = role,
            (Some(1), [_, inner]) => *inner = role.filter(|role| below_parent && matches!(role, Role::Value(_))),
            _ => {}
        }
        self.expects_key = false;
    }

    /// Whether a value begins behind a colon that is to be copied.
    fn begins_value(&mut self) -> bool {
        if self.copying.is_some() || !self.in_object() {
            return false;
        }
        let role = self.level().and_then(|level| self.keys.get(level)).copied().flatten();
        let Some(Role::Value(key)) = role else { return false };
        self.copying = Some((self.depth, key));
        self.value.clear();
        true
    }

    /// The key of the value that ends here, if it is being copied.
    fn end_value(&mut self) -> Option<K> {
        let (_, key) = self.copying.filter(|(depth, _)| *depth == self.depth)?;
        self.copying = None;
        Some(key)
    }

    /// The whole value, whose last part is `last`.
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
