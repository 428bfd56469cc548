//! The text of a JSON string: where it ends, and its escapes (RFC 8259, section 7).
//!
//! Everything here is built on [`plain_len`], which finds the next byte that is not simply text, a block
//! of bytes at a time. Bodies are mostly strings, so this is the loop in which most of a body's time is
//! spent. Prompts hold code and JSON, so an escape comes every few words: serde_json's `IgnoredAny`
//! takes twice as long from one to the next, and memchr, which is made for long distances, longer still.
//!
//! Two functions find a string's end. [`checked_end`] refuses what the grammar does not allow, and
//! [`end`] does not, because it reads answers, of which only a few values matter and which may be cut
//! anywhere.

/// Where a string ends that is read without a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Before this index, with the quote.
    At(usize),
    /// Not in this text.
    Missing {
        /// The text ends in a backslash, so that the byte that follows it is escaped.
        in_escape: bool,
    },
}

/// Finds the end of a string from an index in its text on.
pub(crate) fn end(text: &[u8], mut at: usize) -> End {
    loop {
        let rest = text.get(at..).unwrap_or_default();
        // Most strings of an answer are shorter than a block.
        at += match rest.split_first_chunk() {
            Some((block, behind)) => block::special(block).unwrap_or_else(|| block::SIZE + plain_len(behind)),
            None => plain_len(rest),
        };
        match text.get(at) {
            Some(b'"') => return End::At(at + 1),
            Some(b'\\') => at += 2,
            // A control character, which only a check would refuse.
            Some(_) => at += 1,
            None => return End::Missing { in_escape: at > text.len() },
        }
    }
}

/// A string that the grammar allows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Checked {
    /// Bytes up to its end, with the quote.
    pub(crate) len: usize,
    /// It has escapes.
    pub(crate) is_escaped: bool,
    /// It has an escaped surrogate, which may lack its other half: the grammar allows that, and most
    /// parsers refuse it.
    pub(crate) has_surrogate: bool,
}

/// Reads the text that follows a string's opening quote. UTF-8 is not checked.
///
/// # Errors
/// The index of the first byte that no string may have there.
pub(crate) fn checked_end(text: &[u8]) -> Result<Checked, usize> {
    let (mut is_escaped, mut has_surrogate) = (false, false);
    let mut rest = text;
    loop {
        rest = rest.get(plain_len(rest)..).unwrap_or_default();
        match rest {
            // A table is quickest, and text has an escape every few words.
            [b'\\', second, behind @ ..] if SHORT_ESCAPES.get(usize::from(*second)) == Some(&true) => rest = behind,
            [b'"', behind @ ..] => return Ok(Checked { len: text.len() - behind.len(), is_escaped, has_surrogate }),
            [b'\\', b'u', digits @ ..] if digits.first_chunk().is_some_and(are_hex) => {
                // D800 to DFFF.
                has_surrogate |= matches!(digits, [b'd' | b'D', second, ..] if !(b'0'..b'8').contains(second));
                rest = digits.get(4..).unwrap_or_default();
            }
            _ => return Err(text.len() - rest.len() + fault(rest)),
        }
        is_escaped = true;
    }
}

/// What may follow a backslash, except `u`.
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

/// Whether four bytes are hexadecimal digits. All four are compared at once, because some texts have
/// nothing but escapes.
fn are_hex(digits: &[u8; 4]) -> bool {
    const ONES: u32 = u32::from_le_bytes([1; 4]);
    const HIGH: u32 = ONES * 0x80;
    let word = u32::from_le_bytes(*digits);
    // Sets the high bit of each byte that is at least `bound`, unless it was set before.
    let from = |word: u32, bound: u8| word.wrapping_add(ONES * u32::from(0x80 - bound));
    let lower = word | (ONES * 0x20);
    let high_bits = (from(word, b'0') & !from(word, b'9' + 1)) | (from(lower, b'a') & !from(lower, b'f' + 1));
    high_bits & !word & HIGH == HIGH
}

/// How far it is to the byte that is at fault, from where plain text ends.
#[cold]
fn fault(rest: &[u8]) -> usize {
    match rest {
        [b'\\', b'u', digits @ ..] => 2 + digits.iter().take(4).take_while(|digit| digit.is_ascii_hexdigit()).count(),
        [b'\\', ..] => 1,
        _ => 0,
    }
}

/// How many bytes come before the next quote, backslash or control character. A JSON string has all
/// other bytes as they are.
pub(crate) fn plain_len(text: &[u8]) -> usize {
    let (blocks, tail) = text.as_chunks();
    let mut passed = 0;
    for block in blocks {
        if let Some(at) = block::special(block) {
            return passed + at;
        }
        passed += block::SIZE;
    }
    let is_special = |byte: &u8| *byte < b' ' || matches!(byte, b'"' | b'\\');
    passed + tail.iter().position(is_special).unwrap_or(tail.len())
}

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod block {
    use core::arch::wasm32::{u8x16_bitmask, u8x16_eq, u8x16_lt, u8x16_splat, u64x2, v128_any_true, v128_or};

    pub(super) const SIZE: usize = 16;

    /// The index of the first quote, backslash or control character.
    pub(super) fn special(block: &[u8; SIZE]) -> Option<usize> {
        let (halves, _) = block.as_chunks();
        let [low, high] = halves else { return None };
        let block = u64x2(u64::from_le_bytes(*low), u64::from_le_bytes(*high));
        let is = |byte| u8x16_eq(block, u8x16_splat(byte));
        let found = v128_or(v128_or(is(b'"'), is(b'\\')), u8x16_lt(block, u8x16_splat(b' ')));
        v128_any_true(found).then(|| u8x16_bitmask(found).trailing_zeros() as usize)
    }
}

#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
mod block {
    pub(super) const SIZE: usize = 8;

    /// The index of the first quote, backslash or control character.
    pub(super) fn special(block: &[u8; SIZE]) -> Option<usize> {
        const ONES: u64 = u64::from_le_bytes([1; SIZE]);
        let word = u64::from_le_bytes(*block);
        let below = |word: u64, bound: u8| word.wrapping_sub(ONES * u64::from(bound));
        let flip = |bits: u8| word ^ (ONES * u64::from(bits));
        // Sets the high bit of each such byte. With its second bit flipped, the quote comes right behind
        // the control characters. A borrow can set the bit of a byte above such a one wrongly, so only
        // the lowest bit counts.
        let high_bits = (below(flip(2), b' ' + 1) | below(flip(b'\\'), 1)) & !word & (ONES * 0x80);
        (high_bits != 0).then(|| high_bits.trailing_zeros() as usize / 8)
    }
}

/// Appends a text as a JSON string has it between its quotes.
pub(crate) fn escape(mut text: &str, out: &mut String) {
    loop {
        let (as_it_is, rest) = text.split_at_checked(plain_len(text.as_bytes())).unwrap_or((text, ""));
        out.push_str(as_it_is);
        let mut rest = rest.chars();
        let Some(special) = rest.next() else { return };
        out.push('\\');
        match special {
            '"' | '\\' => out.push(special),
            '\n' => out.push('n'),
            '\r' => out.push('r'),
            '\t' => out.push('t'),
            control => {
                out.push_str("u00");
                out.extend(
                    [u32::from(control) >> 4, u32::from(control) & 15]
                        .map(|digit| char::from_digit(digit, 16))
                        .into_iter()
                        .flatten(),
                );
            }
        }
        text = rest.as_str();
    }
}

/// Resolves escapes, which were checked when the document was read. Anything that is not one is left out.
pub(crate) fn unescape(mut text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    loop {
        let (as_it_is, rest) = text.split_at_checked(plain_len(text.as_bytes())).unwrap_or((text, ""));
        out.push_str(as_it_is);
        let mut rest = rest.chars();
        let Some(kind) = rest.nth(1) else { return out };
        text = rest.as_str();
        out.push(match kind {
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let Some((character, behind)) = character(text) else { continue };
                text = behind;
                character
            }
            itself => itself,
        });
    }
}

/// The character that four digits mean, or eight in two escapes, and the text that follows them.
fn character(digits: &str) -> Option<(char, &str)> {
    let (first, behind) = code_unit(digits)?;
    if let Some(alone) = char::from_u32(first.into()) {
        return Some((alone, behind));
    }
    let (second, behind) = code_unit(behind.strip_prefix("\\u")?)?;
    Some((char::decode_utf16([first, second]).next()?.ok()?, behind))
}

fn code_unit(digits: &str) -> Option<(u16, &str)> {
    let (digits, behind) = digits.split_at_checked(4)?;
    Some((u16::from_str_radix(digits, 16).ok()?, behind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hexadecimal_digits() {
        for byte in 0..=u8::MAX {
            for index in 0..4 {
                let mut digits = *b"0aF9";
                digits[index] = byte;
                assert_eq!(are_hex(&digits), byte.is_ascii_hexdigit(), "{digits:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn strings_end_at_the_first_bare_quote(text in "[a-z\n\u{80}]{0,50}(\\\\[a\"\\\\]|[ab]){0,6}\"?[a\"\\\\]{0,9}", from in 0usize..3) {
            let text = text.as_bytes();
            let mut at = from;
            let expected = loop {
                match text.get(at) {
                    Some(b'"') => break End::At(at + 1),
                    Some(b'\\') => at += 2,
                    Some(_) => at += 1,
                    None => break End::Missing { in_escape: at > text.len() },
                }
            };
            prop_assert_eq!(end(text, from), expected);
        }
    }
}
