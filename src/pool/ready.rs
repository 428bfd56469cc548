//! Which keys of a provider can be used for one model, arranged so that choosing among 10,000 keys costs no more
//! than choosing among 10.
//!
//! One bit per key says whether it is ready; keys that wait are in a heap, ordered by the time at which they are
//! ready again. The search for the next ready key examines 64 keys per step. The obvious alternative, looking at
//! each key's record on the way, takes time linear in the number of cooling keys.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use super::record::NEVER;
use crate::time::Time;

/// The ready and the waiting keys, by their position among the provider's keys.
#[derive(Debug, Default)]
pub struct ReadyKeys {
    words: Vec<u64>,
    count: u32,
    waiting: BinaryHeap<Reverse<(Time, u32)>>,
    /// The time at which each waiting key is ready. A heap entry with another time is stale.
    from: HashMap<u32, Time>,
}

impl ReadyKeys {
    /// All of `count` keys are ready.
    pub fn new(count: usize) -> Self {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let mut keys = ReadyKeys { words: vec![0; (count as usize).div_ceil(64)], count, ..ReadyKeys::default() };
        (0..count).for_each(|position| keys.mark(position, true));
        keys
    }

    /// Sets the time from which a key can be used.
    pub(crate) fn set(&mut self, position: u32, from: Time, now: Time) {
        let ready = from <= now;
        self.mark(position, ready);
        if ready {
            self.from.remove(&position);
        } else {
            self.from.insert(position, from);
            if from != NEVER {
                self.waiting.push(Reverse((from, position)));
            }
        }
    }

    /// Marks the waiting keys whose time has come as ready.
    pub(crate) fn advance(&mut self, now: Time) {
        while let Some(&Reverse((from, position))) = self.waiting.peek() {
            let current = self.from.get(&position) == Some(&from);
            if current && from > now {
                break;
            }
            self.waiting.pop();
            if current {
                self.set(position, from, now);
            }
        }
    }

    /// The first ready key from `start` on that is not to be skipped; the search wraps around at the end.
    pub fn next(&self, start: u32, skip: impl Fn(u32) -> bool) -> Option<u32> {
        let start = if start < self.count { start } else { 0 };
        let mut position = start;
        let mut wrapped = false;
        loop {
            match self.next_ready(position).filter(|found| !wrapped || *found < start) {
                Some(found) if skip(found) => position = found + 1,
                Some(found) => return Some(found),
                None if wrapped => return None,
                None => {
                    wrapped = true;
                    position = 0;
                }
            }
        }
    }

    /// The waiting key that is ready first, and when; `None` if no key waits.
    pub(crate) fn first_recovery(&mut self) -> Option<(Time, u32)> {
        while let Some(&Reverse((from, position))) = self.waiting.peek() {
            if self.from.get(&position) == Some(&from) {
                return Some((from, position));
            }
            self.waiting.pop();
        }
        None
    }

    /// Up to `most` waiting keys, among them the one that is ready first.
    pub(crate) fn waiting(&self, most: usize) -> Vec<u32> {
        let current = |(time, position): (Time, u32)| (self.from.get(&position) == Some(&time)).then_some(position);
        self.waiting.iter().filter_map(|Reverse(entry)| current(*entry)).take(most).collect()
    }

    fn next_ready(&self, position: u32) -> Option<u32> {
        let (first, bit) = ((position / 64) as usize, position % 64);
        let mut words = self.words.iter().enumerate().skip(first);
        let mut mask = u64::MAX << bit;
        words.find_map(|(index, word)| {
            let ready = word & mask;
            mask = u64::MAX;
            (ready != 0).then(|| index as u32 * 64 + ready.trailing_zeros())
        })
    }

    fn mark(&mut self, position: u32, ready: bool) {
        if let Some(word) = self.words.get_mut((position / 64) as usize) {
            let bit = 1 << (position % 64);
            if ready { *word |= bit } else { *word &= !bit }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_next_ready_key_is_found_around_the_end() {
        let keys = ReadyKeys::new(3);
        let mut position = 0;
        let turns: Vec<u32> = (0..5)
            .map(|_| {
                let found = keys.next(position, |_| false).unwrap();
                position = found + 1;
                found
            })
            .collect();
        assert_eq!(turns, [0, 1, 2, 0, 1]);
        assert_eq!(keys.next(1, |position| position != 0), Some(0));
        assert_eq!(keys.next(1, |_| true), None);
        assert_eq!(ReadyKeys::new(0).next(7, |_| false), None);
    }

    #[test]
    fn waiting_keys_come_back() {
        let mut keys = ReadyKeys::new(2);
        keys.set(0, Time(100), Time(0));
        keys.set(1, NEVER, Time(0));
        assert_eq!(keys.next(0, |_| false), None);
        assert_eq!(keys.first_recovery(), Some((Time(100), 0)));
        keys.set(0, Time(200), Time(0));
        keys.advance(Time(150));
        assert_eq!(keys.next(0, |_| false), None, "the first end does not count any more");
        keys.advance(Time(200));
        assert_eq!(keys.next(0, |_| false), Some(0));
        assert_eq!(keys.first_recovery(), None, "a blocked key does not recover");
    }

    proptest! {
        /// Compares with the obvious way, which looks at every key.
        #[test]
        fn agrees_with_a_linear_search(
            count in 1u32..200,
            steps in proptest::collection::vec((0u32..200, 0u64..100, 0u64..5, 0u32..250, 0u32..4), 1..60),
        ) {
            let mut keys = ReadyKeys::new(count as usize);
            let mut from = vec![Time(0); count as usize];
            let mut now = Time(0);
            for (position, wait, step, start, skip) in steps {
                now = Time(now.0 + step);
                let position = position % count;
                from[position as usize] = Time(now.0 + wait);
                keys.set(position, from[position as usize], now);
                keys.advance(now);
                let start = if start < count { start } else { 0 };
                let usable = |position: &u32| from[*position as usize] <= now && (skip == 0 || position % 4 != skip);
                let expected = (start..count).chain(0..start).find(usable);
                prop_assert_eq!(keys.next(start, |position| skip != 0 && position % 4 == skip), expected);
                let first = from.iter().filter(|from| **from > now).min();
                prop_assert_eq!(keys.first_recovery().map(|(time, _)| time), first.copied());
            }
        }
    }
}
