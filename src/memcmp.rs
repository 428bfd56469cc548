//! Comparing bytes, eight at a time.
//!
//! Every comparison of strings calls `memcmp`, and a request compares about two hundred: header names, slugs, models.
//! The C library of Rust's WASI target compares byte by byte, with nine instructions each, which was a quarter of all
//! instructions of a request. So the adapter replaces its `memcmp` by [`compare`]. Therefore nothing in this module may
//! compare slices, because that would call this function again.

/// Compares two slices of the same length: negative if `one` is less than `other`, 0 if they are equal.
#[inline]
pub fn compare(one: &[u8], other: &[u8]) -> i32 {
    // Most names differ in their first byte.
    if let (Some(first), Some(other_first)) = (one.first(), other.first())
        && first != other_first
    {
        return i32::from(*first) - i32::from(*other_first);
    }
    let (mut left, mut right) = (one, other);
    while let (Some((word, rest)), Some((other_word, other_rest))) =
        (left.split_first_chunk(), right.split_first_chunk())
    {
        let (word, other_word) = (u64::from_le_bytes(*word), u64::from_le_bytes(*other_word));
        if word != other_word {
            return order(word, other_word);
        }
        (left, right) = (rest, other_rest);
    }
    // The last word overlaps the one before it, whose bytes are known to be equal.
    if let (Some(word), Some(other_word)) = (one.last_chunk(), other.last_chunk()) {
        return order(u64::from_le_bytes(*word), u64::from_le_bytes(*other_word));
    }
    let mut index = 0;
    while let (Some(byte), Some(other_byte)) = (left.get(index), right.get(index)) {
        if byte != other_byte {
            return i32::from(*byte) - i32::from(*other_byte);
        }
        index += 1;
    }
    0
}

/// Compares two words by the first byte that differs.
fn order(left: u64, right: u64) -> i32 {
    let shift = (left ^ right).trailing_zeros() & !7;
    let byte = |word: u64| i32::from(word.checked_shr(shift).unwrap_or_default() as u8);
    byte(left) - byte(right)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn as_slices_are_ordered(one: Vec<u8>, change: Option<(usize, u8)>) {
            let mut other = one.clone();
            if let Some((index, byte)) = change
                && let Some(slot) = other.len().checked_sub(1).and_then(|last| other.get_mut(index % (last + 1)))
            {
                *slot = byte;
            }
            prop_assert_eq!(compare(&one, &other).signum(), one.cmp(&other) as i32);
        }
    }
}
