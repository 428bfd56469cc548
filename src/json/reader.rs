//! Reads JSON without building any of it: the grammar of RFC 8259 is checked, and nothing is kept.
//!
//! Whether strings are UTF-8 is not checked; a caller that takes one out must do that. Nested values
//! are followed with a list of open brackets, because a stack of calls would end at a hostile depth.

use core::ops::Range;

use super::string::{self, Checked};

/// An index in a text. Methods return `None` at the first fault, and the index is then that of the fault.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    text: &'a [u8],
    at: usize,
    flags: LeafFlags,
}

/// What is known of a string, a number or a word without looking at it again.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LeafFlags {
    /// A string with escapes.
    pub(crate) escaped: bool,
    /// A string that may have half a surrogate pair, or a number that may be too large for a float. The
    /// grammar allows both, and most parsers refuse them.
    pub(crate) doubtful: bool,
}

/// Called for each value that is skipped, in the order of the text. `None` stops the reading.
pub(crate) trait Visitor {
    /// A string (keys too), a number, or a word.
    fn leaf(&mut self, range: Range<usize>, flags: LeafFlags) -> Option<()>;
    /// An array or object begins with this byte.
    fn open(&mut self, at: usize) -> Option<()>;
    /// The innermost array or object ends before this byte.
    fn close(&mut self, end: usize);
}

/// A visitor that ignores everything.
impl Visitor for () {
    fn leaf(&mut self, _: Range<usize>, _: LeafFlags) -> Option<()> {
        Some(())
    }
    fn open(&mut self, _: usize) -> Option<()> {
        Some(())
    }
    fn close(&mut self, _: usize) {}
}

impl<'a> Reader<'a> {
    /// A reader at the first byte that is not white space.
    pub(crate) fn new(text: &'a [u8]) -> Self {
        let mut reader = Reader { text, at: 0, flags: LeafFlags::default() };
        reader.space();
        reader
    }

    /// Line and column of the index, both from 1.
    pub(crate) fn position(&self) -> (usize, usize) {
        let before = self.text.get(..self.at).unwrap_or(self.text);
        let line = memchr::memchr_iter(b'\n', before).count() + 1;
        let start = memchr::memrchr(b'\n', before).map_or(0, |newline| newline + 1);
        (line, before.len() - start + 1)
    }

    /// The flags of the string, number or word that was read last.
    pub(crate) fn flags(&self) -> LeafFlags {
        self.flags
    }

    pub(crate) fn is_at_end(&self) -> bool {
        self.at >= self.text.len()
    }

    pub(crate) fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    /// Skips this byte and the white space that follows.
    pub(crate) fn take(&mut self, byte: u8) -> Option<()> {
        if self.peek()? != byte {
            return None;
        }
        self.at += 1;
        self.space();
        Some(())
    }

    /// Skips a key, its colon, and the white space around; returns the range of the key, with its quotes.
    pub(crate) fn key(&mut self) -> Option<Range<usize>> {
        let key = self.string()?;
        self.space();
        self.take(b':')?;
        Some(key)
    }

    /// Skips a value of any kind and depth, and the white space that follows; returns the value's range.
    pub(crate) fn value(&mut self) -> Option<Range<usize>> {
        self.visit_value(&mut ())
    }

    /// Skips a value as [`Self::value`] does, and calls `visitor` for everything in it.
    pub(crate) fn visit_value(&mut self, visitor: &mut impl Visitor) -> Option<Range<usize>> {
        let start = self.at;
        // The closing brackets of those that are open.
        let mut open = Vec::new();
        loop {
            let first = self.peek()?;
            if let b'{' | b'[' = first {
                // In ASCII both closing brackets are two above the opening ones.
                let close = first + 2;
                visitor.open(self.at)?;
                self.at += 1;
                self.space();
                if self.peek()? != close {
                    open.push(close);
                    if close == b'}' {
                        self.visit_key(visitor)?;
                    }
                    continue;
                }
                self.at += 1;
                visitor.close(self.at);
            } else {
                let range = self.leaf(first)?;
                visitor.leaf(range, self.flags)?;
            }
            loop {
                let Some(close) = open.last() else {
                    let end = self.at;
                    self.space();
                    return Some(start..end);
                };
                self.space();
                match self.peek()? {
                    b',' => {
                        self.take(b',')?;
                        if *close == b'}' {
                            self.visit_key(visitor)?;
                        }
                        break;
                    }
                    byte if byte == *close => {
                        self.at += 1;
                        visitor.close(self.at);
                        open.pop();
                    }
                    _ => return None,
                }
            }
        }
    }

    fn visit_key(&mut self, visitor: &mut impl Visitor) -> Option<()> {
        let key = self.key()?;
        visitor.leaf(key, self.flags)
    }

    fn leaf(&mut self, first: u8) -> Option<Range<usize>> {
        if first == b'"' {
            return self.string();
        }
        let start = self.at;
        self.flags = LeafFlags::default();
        match first {
            b't' => self.word(b"true")?,
            b'f' => self.word(b"false")?,
            b'n' => self.word(b"null")?,
            _ => self.number()?,
        }
        Some(start..self.at)
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    fn string(&mut self) -> Option<Range<usize>> {
        let start = self.at;
        self.flags = LeafFlags::default();
        let Some([b'"', rest @ ..]) = self.text.get(start..) else { return None };
        match string::checked_end(rest) {
            Ok(Checked { len, is_escaped, has_surrogate }) => {
                self.flags = LeafFlags { escaped: is_escaped, doubtful: has_surrogate };
                self.at = start + 1 + len;
                Some(start..self.at)
            }
            Err(fault) => {
                self.at = start + 1 + fault;
                None
            }
        }
    }

    fn word(&mut self, word: &[u8]) -> Option<()> {
        for byte in word {
            self.peek().filter(|other| other == byte)?;
            self.at += 1;
        }
        Some(())
    }

    fn number(&mut self) -> Option<()> {
        let start = self.at;
        if self.peek()? == b'-' {
            self.at += 1;
        }
        if self.peek()? == b'0' {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        // The largest float has 309 digits.
        self.flags.doubtful = self.at - start > 300;
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.flags.doubtful = true;
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Some(())
    }

    fn digits(&mut self) -> Option<()> {
        self.peek().filter(u8::is_ascii_digit)?;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::de::IgnoredAny;

    fn reads(text: &[u8]) -> bool {
        let mut reader = Reader::new(text);
        reader.value().is_some() && reader.is_at_end()
    }

    #[test]
    fn where_the_fault_is() {
        for (text, place) in [
            ("", (1, 1)),
            ("{\n \"a\": 01}", (2, 8)),
            ("[1,]", (1, 4)),
            ("{\"a\":\"x\ny\"}", (1, 8)),
            ("\"\\u12g4\"", (1, 6)),
            ("[tru]", (1, 5)),
            ("[1 2]", (1, 4)),
            ("{\"a\" 1}", (1, 6)),
            ("-", (1, 2)),
        ] {
            let mut reader = Reader::new(text.as_bytes());
            assert_eq!(reader.value(), None, "{text}");
            assert_eq!(reader.position(), place, "{text}");
        }
    }

    proptest! {
        /// It accepts what serde_json accepts: pieces of JSON, mostly well put together.
        #[test]
        fn as_serde_reads_it(text in "([\\[\\]{},:\" ]|\"[a\\\\\"\u{e9}\n/ub0-9]{0,6}\"|-?[0-9]{1,2}|[0-9.eE+-]{1,5}|true|null|fals|\"k\":|[\\[{,])*") {
            let expected = serde_json::from_slice::<IgnoredAny>(text.as_bytes()).is_ok();
            prop_assert_eq!(reads(text.as_bytes()), expected, "{}", text);
        }

        #[test]
        fn good_documents(depth in 0usize..5, keys in prop::collection::vec("[^\"]{0,9}", 0..5), pretty: bool) {
            let mut value = serde_json::json!([1.5e3, null, true, -0, {}, []]);
            for _ in 0..depth {
                value = keys.iter().map(|key| (key.clone(), value.clone())).collect();
            }
            let text = if pretty { format!(" {value:#}\n") } else { value.to_string() };
            prop_assert!(reads(text.as_bytes()), "{}", text);
            prop_assert!(!reads(text.trim_end().as_bytes().split_last().map_or(&[], |(_, most)| most)));
        }

        #[test]
        fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            prop_assert_eq!(reads(&bytes), serde_json::from_slice::<IgnoredAny>(&bytes).is_ok());
        }
    }
}
