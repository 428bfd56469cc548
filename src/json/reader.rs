//! Reads over JSON without building any of it: the grammar of RFC 8259, checked, nothing kept.
//!
//! Bodies are mostly strings with many escapes (prompts hold code and JSON), so what counts is how fast
//! those are hopped over. serde_json's `IgnoredAny` takes twice as long for each hop, and memchr, which is
//! made for long ones, longer still. Whether strings are UTF-8 is not checked; who takes one out does that.

use core::ops::Range;

/// A place in a text. Methods return `None` at the first fault, and the place is then where it is.
#[derive(Debug)]
pub struct Reader<'a> {
    text: &'a [u8],
    at: usize,
    marks: Marks,
}

/// What is known of a string, a number or a word without looking at it again.
#[derive(Clone, Copy, Debug, Default)]
pub struct Marks {
    /// A string with escapes.
    pub escaped: bool,
    /// A string that may have half a surrogate pair, or a number that may be too large for a float: the
    /// grammar allows both, and most parsers refuse what they make.
    pub doubtful: bool,
}

/// Who hears of each value that is read over, in the order of the text. `None` stops the reading.
pub trait Listener {
    /// A string (keys too), a number, or a word.
    fn leaf(&mut self, place: Range<usize>, marks: Marks) -> Option<()>;
    /// An array or object begins with this byte.
    fn open(&mut self, at: usize) -> Option<()>;
    /// The innermost array or object ends before this byte.
    fn close(&mut self, end: usize);
}

/// Nobody.
impl Listener for () {
    fn leaf(&mut self, _: Range<usize>, _: Marks) -> Option<()> {
        Some(())
    }
    fn open(&mut self, _: usize) -> Option<()> {
        Some(())
    }
    fn close(&mut self, _: usize) {}
}

impl<'a> Reader<'a> {
    /// A reader at the beginning, behind any white space.
    #[must_use]
    pub fn new(text: &'a [u8]) -> Self {
        let mut reader = Reader { text, at: 0, marks: Marks::default() };
        reader.space();
        reader
    }

    /// Line and column of the place, both from 1.
    #[must_use]
    pub fn position(&self) -> (usize, usize) {
        let before = self.text.get(..self.at).unwrap_or(self.text);
        let line = memchr::memchr_iter(b'\n', before).count() + 1;
        let start = memchr::memrchr(b'\n', before).map_or(0, |newline| newline + 1);
        (line, before.len() - start + 1)
    }

    /// What is known of what was read last.
    #[must_use]
    pub fn marks(&self) -> Marks {
        self.marks
    }

    /// Whether nothing is left.
    #[must_use]
    pub fn is_at_end(&self) -> bool {
        self.at >= self.text.len()
    }

    /// The byte at this place.
    #[must_use]
    pub fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    /// Reads over this byte and the white space behind it.
    pub fn take(&mut self, byte: u8) -> Option<()> {
        if self.peek()? != byte {
            return None;
        }
        self.at += 1;
        self.space();
        Some(())
    }

    /// Reads over a key, its colon, and the white space around; where the key stands, with its quotes.
    pub fn key(&mut self) -> Option<Range<usize>> {
        let key = self.string()?;
        self.space();
        self.take(b':')?;
        Some(key)
    }

    /// Reads over a value of any kind and depth, and the white space behind it; where it stands.
    pub fn value(&mut self) -> Option<Range<usize>> {
        self.value_for(&mut ())
    }

    /// Reads over a value as [`Self::value`] does, and tells of all that is in it.
    pub fn value_for(&mut self, listener: &mut impl Listener) -> Option<Range<usize>> {
        let start = self.at;
        // What closes the brackets that are open; a stack of calls would end at a hostile depth.
        let mut open = Vec::new();
        loop {
            let first = self.peek()?;
            if let b'{' | b'[' = first {
                // Of both, the closing bracket stands two behind the opening one.
                let close = first + 2;
                listener.open(self.at)?;
                self.at += 1;
                self.space();
                if self.peek()? != close {
                    open.push(close);
                    if close == b'}' {
                        self.key_for(listener)?;
                    }
                    continue;
                }
                self.at += 1;
                listener.close(self.at);
            } else {
                let place = self.leaf(first)?;
                listener.leaf(place, self.marks)?;
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
                            self.key_for(listener)?;
                        }
                        break;
                    }
                    byte if byte == *close => {
                        self.at += 1;
                        listener.close(self.at);
                        open.pop();
                    }
                    _ => return None,
                }
            }
        }
    }

    fn key_for(&mut self, listener: &mut impl Listener) -> Option<()> {
        let key = self.key()?;
        listener.leaf(key, self.marks)
    }

    fn leaf(&mut self, first: u8) -> Option<Range<usize>> {
        if first == b'"' {
            return self.string();
        }
        let start = self.at;
        self.marks = Marks::default();
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
        self.marks = Marks::default();
        let Some([b'"', rest @ ..]) = self.text.get(start..) else { return None };
        let mut rest = rest;
        loop {
            rest = rest.get(plain(rest)..).unwrap_or_default();
            match rest {
                // Looked up, for text has an escape for every few words.
                [b'\\', second, behind @ ..] if SHORT_ESCAPES.get(usize::from(*second)) == Some(&true) => rest = behind,
                [b'"', behind @ ..] => {
                    self.at = self.text.len() - behind.len();
                    return Some(start..self.at);
                }
                [b'\\', b'u', digits @ ..] if digits.first_chunk().is_some_and(are_hex) => {
                    // D800 to DFFF, where it is doubtful whether both halves of a pair are there.
                    self.marks.doubtful |=
                        matches!(digits, [b'd' | b'D', second, ..] if !(b'0'..b'8').contains(second));
                    rest = digits.get(4..).unwrap_or_default();
                }
                _ => {
                    self.at = self.text.len() - rest.len() + fault_in_string(rest);
                    return None;
                }
            }
            self.marks.escaped = true;
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
        self.marks.doubtful = self.at - start > 300;
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.marks.doubtful = true;
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

/// What may stand behind a backslash, but for `u`.
const SHORT_ESCAPES: [bool; 256] = {
    let mut table = [false; 256];
    let mut escapes = b"\"\\/bfnrt".as_slice();
    while let [first, rest @ ..] = escapes {
        if let Some((_, [slot, ..])) = table.split_at_mut_checked(*first as usize) {
            *slot = true;
        }
        escapes = rest;
    }
    table
};

/// Whether four bytes are hexadecimal digits: all four at once, for some texts have nothing but escapes.
fn are_hex(digits: &[u8; 4]) -> bool {
    const ONES: u32 = u32::from_le_bytes([1; 4]);
    const HIGH: u32 = ONES * 0x80;
    let word = u32::from_le_bytes(*digits);
    // The high bit of each byte that is at least `bound`, if none had it before.
    let from = |word: u32, bound: u8| word.wrapping_add(ONES * u32::from(0x80 - bound));
    let lower = word | (ONES * 0x20);
    let marks = (from(word, b'0') & !from(word, b'9' + 1)) | (from(lower, b'a') & !from(lower, b'f' + 1));
    marks & !word & HIGH == HIGH
}

/// How far it is to what no string may have, from a place where plain text ends.
#[cold]
fn fault_in_string(rest: &[u8]) -> usize {
    match rest {
        [b'\\', b'u', digits @ ..] => 2 + digits.iter().take(4).take_while(|digit| digit.is_ascii_hexdigit()).count(),
        [b'\\', ..] => 1,
        _ => 0,
    }
}

/// How many bytes come before the next quote, backslash or control character: those that a JSON string
/// has as they are. A block is looked at at once.
pub fn plain(text: &[u8]) -> usize {
    let (blocks, tail) = text.as_chunks();
    let mut hop = 0;
    for block in blocks {
        if let Some(at) = block::special(block) {
            return hop + at;
        }
        hop += block::SIZE;
    }
    let is_special = |byte: &u8| *byte < b' ' || matches!(byte, b'"' | b'\\');
    hop + tail.iter().position(is_special).unwrap_or(tail.len())
}

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod block {
    use core::arch::wasm32::{u8x16_bitmask, u8x16_eq, u8x16_lt, u8x16_splat, u64x2, v128_any_true, v128_or};

    pub const SIZE: usize = 16;

    /// Where the first quote, backslash or control character is.
    pub fn special(block: &[u8; SIZE]) -> Option<usize> {
        let (halves, _) = block.as_chunks();
        let [low, high] = halves else { return None };
        let block = u64x2(u64::from_le_bytes(*low), u64::from_le_bytes(*high));
        let is = |byte| u8x16_eq(block, u8x16_splat(byte));
        let marks = v128_or(v128_or(is(b'"'), is(b'\\')), u8x16_lt(block, u8x16_splat(b' ')));
        v128_any_true(marks).then(|| u8x16_bitmask(marks).trailing_zeros() as usize)
    }
}

#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
mod block {
    pub const SIZE: usize = 8;

    /// Where the first quote, backslash or control character is.
    pub fn special(block: &[u8; SIZE]) -> Option<usize> {
        const ONES: u64 = u64::from_le_bytes([1; SIZE]);
        let word = u64::from_le_bytes(*block);
        let below = |word: u64, bound: u8| word.wrapping_sub(ONES * u64::from(bound));
        let flip = |bits: u8| word ^ (ONES * u64::from(bits));
        // The high bit of each such byte; with the second bit flipped, the quote comes right behind the
        // control characters. Bytes above such a one may be marked wrongly (a borrow runs on), so only
        // the lowest mark counts.
        let marks = (below(flip(2), b' ' + 1) | below(flip(b'\\'), 1)) & !word & (ONES * 0x80);
        (marks != 0).then(|| marks.trailing_zeros() as usize / 8)
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

    #[test]
    fn hexadecimal_digits() {
        for byte in 0..=u8::MAX {
            for place in 0..4 {
                let mut digits = *b"0aF9";
                digits[place] = byte;
                assert_eq!(are_hex(&digits), byte.is_ascii_hexdigit(), "{digits:?}");
            }
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
