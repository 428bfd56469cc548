//! Which keys of a provider can be used for one model, so that choosing among 10,000 costs no more
//! than among 10.
//!
//! One bit a key says that it is ready; keys that wait stand in a heap by the time at which they are
//! ready again. The search for the next ready key from a place on looks at 64 keys a step. The
//! obvious alternative, asking each key's record on the way, is linear in the keys that cool.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use super::record::NEVER;
use crate::time::Time;

/// Ready and waiting keys, by their place in the provider's list.
#[derive(Debug, Default)]
pub struct ReadyKeys {
    words: Vec<u64>,
    count: u32,
    waiting: BinaryHeap<Reverse<(Time, u32)>>,
    /// The time at which each waiting key is ready; a heap entry that says otherwise is stale.
    from: HashMap<u32, Time>,
}

impl ReadyKeys {
    /// An index in which all `count` keys are ready.
    #[must_use]
    pub fn new(count: usize) -> Self {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let mut index = ReadyKeys { words: vec![0; (count as usize).div_ceil(64)], count, ..ReadyKeys::default() };
        (0..count).for_each(|place| index.mark(place, true));
        index
    }

    /// How many keys there are.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Says from when on a key can be used.
    pub fn set(&mut self, place: u32, from: Time, now: Time) {
        let ready = from <= now;
        self.mark(place, ready);
        if ready {
            self.from.remove(&place);
        } else {
            self.from.insert(place, from);
            if from != NEVER {
                self.waiting.push(Reverse((from, place)));
            }
        }
    }

    /// Makes those ready whose time has come.
    pub fn advance(&mut self, now: Time) {
        while let Some(&Reverse((from, place))) = self.waiting.peek() {
            let current = self.from.get(&place) == Some(&from);
            if current && from > now {
                break;
            }
            self.waiting.pop();
            if current {
                self.set(place, from, now);
            }
        }
    }

    /// The first ready key from `start` on, around the end, that is not to be skipped.
    pub fn next(&self, start: u32, skip: impl Fn(u32) -> bool) -> Option<u32> {
        let start = if start < self.count { start } else { 0 };
        let mut place = start;
        let mut wrapped = false;
        loop {
            match self.next_ready(place).filter(|found| !wrapped || *found < start) {
                Some(found) if skip(found) => place = found + 1,
                Some(found) => return Some(found),
                None if wrapped => return None,
                None => {
                    wrapped = true;
                    place = 0;
                }
            }
        }
    }

    /// The first of the waiting keys to be ready, and when; `None` if none will be.
    pub fn first_recovery(&mut self) -> Option<(Time, u32)> {
        while let Some(&Reverse((from, place))) = self.waiting.peek() {
            if self.from.get(&place) == Some(&from) {
                return Some((from, place));
            }
            self.waiting.pop();
        }
        None
    }

    /// Up to `most` waiting keys, the first to be ready among them.
    #[must_use]
    pub fn waiting(&self, most: usize) -> Vec<u32> {
        let current = |(time, place): (Time, u32)| (self.from.get(&place) == Some(&time)).then_some(place);
        self.waiting.iter().filter_map(|Reverse(entry)| current(*entry)).take(most).collect()
    }

    fn next_ready(&self, place: u32) -> Option<u32> {
        let (first, bit) = ((place / 64) as usize, place % 64);
        let mut words = self.words.iter().enumerate().skip(first);
        let mut mask = u64::MAX << bit;
        words.find_map(|(number, word)| {
            let ready = word & mask;
            mask = u64::MAX;
            (ready != 0).then(|| number as u32 * 64 + ready.trailing_zeros())
        })
    }

    fn mark(&mut self, place: u32, ready: bool) {
        if let Some(word) = self.words.get_mut((place / 64) as usize) {
            let bit = 1 << (place % 64);
            if ready { *word |= bit } else { *word &= !bit }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn in_turn() {
        let index = ReadyKeys::new(3);
        let mut place = 0;
        let turns: Vec<u32> = (0..5)
            .map(|_| {
                let found = index.next(place, |_| false).unwrap();
                place = found + 1;
                found
            })
            .collect();
        assert_eq!(turns, [0, 1, 2, 0, 1]);
        assert_eq!(index.next(1, |place| place != 0), Some(0));
        assert_eq!(index.next(1, |_| true), None);
        assert_eq!(ReadyKeys::new(0).next(7, |_| false), None);
    }

    #[test]
    fn waiting_keys_come_back() {
        let mut index = ReadyKeys::new(2);
        index.set(0, Time(100), Time(0));
        index.set(1, NEVER, Time(0));
        assert_eq!(index.next(0, |_| false), None);
        assert_eq!(index.first_recovery(), Some((Time(100), 0)));
        index.set(0, Time(200), Time(0));
        index.advance(Time(150));
        assert_eq!(index.next(0, |_| false), None, "the first end does not count any more");
        index.advance(Time(200));
        assert_eq!(index.next(0, |_| false), Some(0));
        assert_eq!(index.first_recovery(), None, "a blocked key does not recover");
    }

    proptest! {
        /// Against the obvious way: ask every key.
        #[test]
        fn agrees_with_a_linear_search(
            count in 1u32..200,
            steps in proptest::collection::vec((0u32..200, 0u64..100, 0u64..5, 0u32..250, 0u32..4), 1..60),
        ) {
            let mut index = ReadyKeys::new(count as usize);
            let mut from = vec![Time(0); count as usize];
            let mut now = Time(0);
            for (place, wait, step, start, skip) in steps {
                now = Time(now.0 + step);
                let place = place % count;
                from[place as usize] = Time(now.0 + wait);
                index.set(place, from[place as usize], now);
                index.advance(now);
                let start = if start < count { start } else { 0 };
                let usable = |place: &u32| from[*place as usize] <= now && (skip == 0 || place % 4 != skip);
                let expected = (start..count).chain(0..start).find(usable);
                prop_assert_eq!(index.next(start, |place| skip != 0 && place % 4 == skip), expected);
                let first = from.iter().filter(|from| **from > now).min();
                prop_assert_eq!(index.first_recovery().map(|(time, _)| time), first.copied());
            }
        }
    }
}
