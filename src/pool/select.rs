//! Selection policies: where the search for the next key begins.
//!
//! A policy chooses only the turn at which the search begins. The pool takes the first usable key from there on,
//! so every policy works together with failover.

use std::cmp::Ordering;

use crate::config::Selection;

/// Where a search begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the shared cursor, which is then moved.
    Cursor,
    /// At this turn of the ring.
    At(u32),
    /// At the less used of the keys at these two turns.
    LessUsed(u32, u32),
}

impl Start {
    /// The start of a search among `turns` turns.
    pub(crate) fn of(selection: Selection, conversation: Option<u64>, random: u64, turns: u32) -> Self {
        let turn = |value: u64| u32::try_from(value.checked_rem(u64::from(turns)).unwrap_or_default()).unwrap_or(0);
        match selection {
            Selection::RoundRobin => Start::Cursor,
            Selection::Random => Start::At(turn(random)),
            Selection::LeastUsed => Start::LessUsed(turn(random), turn(random >> 32)),
            Selection::Sticky => conversation.map_or(Start::Cursor, |conversation| Start::At(turn(conversation))),
        }
    }
}

/// The turns of a provider's keys. A key has as many turns as its weight says, and one by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ring {
    /// The end of each key's turns; empty if every key has one turn.
    ends: Vec<u32>,
    count: u32,
}

impl Ring {
    /// A ring without keys.
    pub(crate) const EMPTY: Ring = Ring { ends: Vec::new(), count: 0 };

    /// A ring of keys with these weights.
    pub fn new(weights: &[u32]) -> Self {
        let count = u32::try_from(weights.len()).unwrap_or(u32::MAX);
        if weights.iter().all(|weight| *weight == 1) {
            return Ring { ends: Vec::new(), count };
        }
        let ends = weights.iter().scan(0u32, |end, weight| {
            *end = end.saturating_add((*weight).max(1));
            Some(*end)
        });
        Ring { ends: ends.collect(), count }
    }

    /// The number of turns.
    pub(crate) fn turns(&self) -> u32 {
        self.ends.last().copied().unwrap_or(self.count)
    }

    /// The position of the key whose turn it is.
    pub(crate) fn position(&self, turn: u32) -> u32 {
        if self.ends.is_empty() {
            return turn;
        }
        let position = self.ends.binary_search_by(|end| if *end > turn { Ordering::Greater } else { Ordering::Less });
        position.unwrap_or_else(|position| position) as u32
    }

    /// The turn after `turn` if the key found is the one whose turn it is; otherwise the turn after the first
    /// turn of the key found.
    pub(crate) fn after(&self, turn: u32, found: u32) -> u32 {
        if self.position(turn) == found {
            return turn + 1;
        }
        match found.checked_sub(1) {
            _ if self.ends.is_empty() => found + 1,
            None => 1,
            Some(before) => self.ends.get(before as usize).map_or(0, |end| end + 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_policy_has_its_start() {
        assert_eq!(Start::of(Selection::RoundRobin, Some(7), 9, 5), Start::Cursor);
        assert_eq!(Start::of(Selection::Random, Some(7), 9, 5), Start::At(4));
        assert_eq!(Start::of(Selection::Sticky, Some(7), 9, 5), Start::At(2));
        assert_eq!(Start::of(Selection::Sticky, None, 9, 5), Start::Cursor);
        // 2^32 is 1 modulo 5, so the first is (9 + 6) % 5.
        assert_eq!(Start::of(Selection::LeastUsed, None, 9 << 32 | 6, 5), Start::LessUsed(0, 4));
        assert_eq!(Start::of(Selection::Random, None, 9, 0), Start::At(0));
    }

    #[test]
    fn turns_by_weight() {
        let ring = Ring::new(&[1, 3, 2]);
        assert_eq!(ring.turns(), 6);
        assert_eq!((0..6).map(|turn| ring.position(turn)).collect::<Vec<_>>(), [0, 1, 1, 1, 2, 2]);
        // Around the ring as the pool goes, with all keys usable.
        let mut turn = 0;
        let mut picked = [0; 3];
        for _ in 0..12 {
            let turn_now = turn % ring.turns();
            let position = ring.position(turn_now);
            picked[position as usize] += 1;
            turn = ring.after(turn_now, position);
        }
        assert_eq!(picked, [2, 6, 4]);
        assert_eq!(ring.after(1, 2), 5, "key 1 was skipped, so the turns go on behind the first one of key 2");
        assert_eq!(ring.after(4, 0), 1);
    }

    #[test]
    fn without_weights_turns_are_positions() {
        let ring = Ring::new(&[1, 1, 1]);
        assert_eq!((ring.turns(), ring.position(2), ring.after(2, 2), ring.after(1, 0)), (3, 2, 3, 1));
        assert_eq!(Ring::new(&[]).turns(), 0);
    }
}
