//! Quotas: how much a key may be used for a model, as configured, as learned, and as counted.
//!
//! A key at its quota is not picked, for the 429 that does not happen is the cheapest. What counts
//! for a key is the configured quota; else what this key's own answers have stated; else what the
//! answers of the provider's other keys have stated for the model.

use serde::{Deserialize, Serialize};

use crate::time::{DailyReset, MINUTE, Span, Time};

/// The grain of counting: the requests of a quarter of a second are counted together.
const SLOT: Span = Span(250);
/// More slots than this in a minute are merged two by two, always to the later time: a count may
/// stay a little too long, but is never lost too early.
const MAX_SLOTS: usize = 96;
/// A limit that a request has gone beyond unharmed.
pub const UNLIMITED: u64 = u64::MAX;

/// What can be limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Dimension {
    /// Requests per minute.
    RequestsPerMinute,
    /// Requests per day.
    RequestsPerDay,
    /// Tokens per minute.
    TokensPerMinute,
    /// Tokens per day.
    TokensPerDay,
}

/// All dimensions.
pub const DIMENSIONS: [Dimension; 4] =
    [Dimension::RequestsPerMinute, Dimension::RequestsPerDay, Dimension::TokensPerMinute, Dimension::TokensPerDay];

/// The limits of a key for a model; `None` where nothing is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    /// Requests per minute.
    pub rpm: Option<u64>,
    /// Requests per day.
    pub rpd: Option<u64>,
    /// Tokens per minute.
    pub tpm: Option<u64>,
    /// Tokens per day.
    pub tpd: Option<u64>,
}

impl Quota {
    /// The limit of a dimension.
    #[must_use]
    pub fn get(&self, dimension: Dimension) -> Option<u64> {
        match dimension {
            Dimension::RequestsPerMinute => self.rpm,
            Dimension::RequestsPerDay => self.rpd,
            Dimension::TokensPerMinute => self.tpm,
            Dimension::TokensPerDay => self.tpd,
        }
    }

    /// Sets the limit of a dimension.
    pub fn set(&mut self, dimension: Dimension, limit: u64) {
        *match dimension {
            Dimension::RequestsPerMinute => &mut self.rpm,
            Dimension::RequestsPerDay => &mut self.rpd,
            Dimension::TokensPerMinute => &mut self.tpm,
            Dimension::TokensPerDay => &mut self.tpd,
        } = Some(limit);
    }

    /// This quota, and the other's limits where it has none.
    #[must_use]
    pub fn or(self, other: Quota) -> Quota {
        Quota {
            rpm: self.rpm.or(other.rpm),
            rpd: self.rpd.or(other.rpd),
            tpm: self.tpm.or(other.tpm),
            tpd: self.tpd.or(other.tpd),
        }
    }

    /// Whether nothing is limited.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Quota::default()
    }

    /// Whether tokens are limited.
    #[must_use]
    pub fn counts_tokens(&self) -> bool {
        self.tpm.is_some() || self.tpd.is_some()
    }
}

/// How a provider's minute runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Minute {
    /// From one full minute of the clock to the next.
    Calendar,
    /// The last 60 seconds, whenever they began.
    Rolling,
}

/// The windows of a provider's quotas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// Its minute.
    pub minute: Minute,
    /// Its day.
    pub day: DailyReset,
}

/// What a key has been used for one model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// The last minute, in the order of time.
    slots: Vec<Slot>,
    /// When the day that is counted ends.
    day_ends: Time,
    day_requests: u64,
    day_tokens: u64,
    /// What this key's own answers have stated.
    pub own: Quota,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Slot {
    /// Its end, in slots since the epoch.
    end: u64,
    requests: u32,
    tokens: u64,
}

impl Slot {
    fn time(&self) -> Time {
        Time(self.end.saturating_mul(SLOT.0))
    }
}

impl Usage {
    /// Whether one more request fits that will take about so many tokens.
    ///
    /// # Errors
    /// When it does not: the time at which it will, and the dimension that is full.
    pub fn room(&self, quota: Quota, windows: Windows, tokens: u64, now: Time) -> Result<(), (Time, Dimension)> {
        let full = DIMENSIONS.into_iter().filter_map(|dimension| {
            let limit = quota.get(dimension)?;
            self.full_until(dimension, limit, windows, tokens, now).map(|until| (until, dimension))
        });
        full.max().map_or(Ok(()), Err)
    }

    fn full_until(&self, dimension: Dimension, limit: u64, windows: Windows, tokens: u64, now: Time) -> Option<Time> {
        let today = now < self.day_ends;
        match dimension {
            Dimension::RequestsPerDay => (today && self.day_requests >= limit).then_some(self.day_ends),
            Dimension::TokensPerDay => {
                let next = self.day_tokens.saturating_add(tokens);
                (today && self.day_tokens > 0 && next > limit).then_some(self.day_ends)
            }
            Dimension::RequestsPerMinute => {
                self.minute_full(windows.minute, now, limit, 1, |slot| u64::from(slot.requests))
            }
            Dimension::TokensPerMinute => self.minute_full(windows.minute, now, limit, tokens, |slot| slot.tokens),
        }
    }

    /// When what is used and `more` fit into the limit of a minute; `None` if they do now. A minute
    /// in which nothing was used has room for anything: how much a request takes is only a guess.
    fn minute_full(&self, minute: Minute, now: Time, limit: u64, more: u64, of: impl Fn(&Slot) -> u64) -> Option<Time> {
        let live: Vec<&Slot> = self.slots.iter().filter(|slot| leaves(minute, slot.time()) > now).collect();
        let mut used: u64 = live.iter().map(|slot| of(slot)).fold(0, u64::saturating_add);
        if used == 0 || used.saturating_add(more) <= limit {
            return None;
        }
        for slot in live {
            used = used.saturating_sub(of(slot));
            if used == 0 || used.saturating_add(more) <= limit {
                return Some(leaves(minute, slot.time()));
            }
        }
        None
    }

    /// Counts a request that was leased at `leased` and will take about so many tokens.
    pub fn add(&mut self, windows: Windows, tokens: u64, leased: Time, now: Time) {
        self.roll(windows, now);
        self.slot(leased, now, |slot| {
            slot.requests = slot.requests.saturating_add(1);
            slot.tokens = slot.tokens.saturating_add(tokens);
        });
        self.day_requests = self.day_requests.saturating_add(1);
        self.day_tokens = self.day_tokens.saturating_add(tokens);
    }

    /// Puts the tokens that a request took in the place of those that were expected.
    pub fn correct(&mut self, windows: Windows, expected: u64, tokens: u64, leased: Time, now: Time) {
        let corrected = |count: u64| count.saturating_sub(expected).saturating_add(tokens);
        if let Some(slot) = self.counted_in(windows, leased, now) {
            slot.tokens = corrected(slot.tokens);
        }
        self.day_tokens = corrected(self.day_tokens);
    }

    /// A request that was counted has not been served: it does not count after all.
    pub fn give_back(&mut self, windows: Windows, tokens: u64, leased: Time, now: Time) {
        if let Some(slot) = self.counted_in(windows, leased, now) {
            slot.requests = slot.requests.saturating_sub(1);
            slot.tokens = slot.tokens.saturating_sub(tokens);
        }
        self.slots.retain(|slot| slot.requests > 0 || slot.tokens > 0);
        self.day_requests = self.day_requests.saturating_sub(1);
        self.day_tokens = self.day_tokens.saturating_sub(tokens);
    }

    /// The slot in which a request was counted: its own, or the later one that it was merged into.
    /// `None` if its minute is over.
    fn counted_in(&mut self, windows: Windows, leased: Time, now: Time) -> Option<&mut Slot> {
        let end = slot_end(leased);
        let over = leaves(windows.minute, Time(end.saturating_mul(SLOT.0))) <= now;
        let place = self.slots.partition_point(|slot| slot.end < end);
        self.slots.get_mut(place).filter(|_| !over)
    }

    /// How much a key is in use: requests of this minute, then of this day.
    #[must_use]
    pub fn load(&self, now: Time) -> (u64, u64) {
        let live = self.slots.iter().filter(|slot| leaves(Minute::Rolling, slot.time()) > now);
        (live.map(|slot| u64::from(slot.requests)).fold(0, u64::saturating_add), self.requests_today(now))
    }

    /// Whether there is nothing in it that is worth keeping.
    #[must_use]
    pub fn is_over(&self, now: Time) -> bool {
        if self.day_requests == 0 && self.day_tokens == 0 && self.own.is_empty() {
            return true;
        }
        self.day_ends <= now && self.slots.iter().all(|slot| leaves(Minute::Rolling, slot.time()) <= now)
    }

    /// Requests of this day, for the status page.
    #[must_use]
    pub fn requests_today(&self, now: Time) -> u64 {
        if now < self.day_ends { self.day_requests } else { 0 }
    }

    fn roll(&mut self, windows: Windows, now: Time) {
        self.slots.retain(|slot| leaves(windows.minute, slot.time()) > now);
        // A clock that stepped back, or a state from the far future, must not freeze the day.
        if self.day_ends <= now || now.until(self.day_ends) > Span::secs(26 * 3600) {
            self.day_ends = windows.day.next(now);
            (self.day_requests, self.day_tokens) = (0, 0);
        }
    }

    fn slot(&mut self, at: Time, now: Time, change: impl FnOnce(&mut Slot)) {
        if leaves(Minute::Rolling, at) <= now {
            return;
        }
        let end = slot_end(at);
        let place = self.slots.partition_point(|slot| slot.end < end);
        match self.slots.get_mut(place) {
            Some(slot) if slot.end == end => change(slot),
            _ => {
                let mut slot = Slot { end, requests: 0, tokens: 0 };
                change(&mut slot);
                self.slots.insert(place, slot);
            }
        }
        if self.slots.len() > MAX_SLOTS {
            self.slots = self.slots.chunks(2).filter_map(merged).collect();
        }
    }
}

fn slot_end(time: Time) -> u64 {
    time.0 / SLOT.0 + 1
}

fn merged(pair: &[Slot]) -> Option<Slot> {
    pair.iter().copied().reduce(|first, second| Slot {
        end: second.end,
        requests: first.requests.saturating_add(second.requests),
        tokens: first.tokens.saturating_add(second.tokens),
    })
}

/// When what was used at `time` does not count any more.
fn leaves(minute: Minute, time: Time) -> Time {
    match minute {
        // The provider counted it when it got there, a moment after it was leased.
        Minute::Rolling => time.plus(MINUTE).plus(SLOT),
        // The slot's end may be the minute's; what is in it was used before.
        Minute::Calendar => Time(time.0.saturating_sub(1) / MINUTE.0 * MINUTE.0).plus(MINUTE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ROLLING: Windows = Windows { minute: Minute::Rolling, day: DailyReset::MidnightUtc };
    const CALENDAR: Windows = Windows { minute: Minute::Calendar, day: DailyReset::MidnightUtc };
    /// A full minute, at 10:00 UTC.
    const START: Time = Time(1_764_064_800_000);

    fn after(secs: u64) -> Time {
        START.plus(Span::secs(secs))
    }

    fn rpm(limit: u64) -> Quota {
        Quota { rpm: Some(limit), ..Quota::default() }
    }

    #[test]
    fn a_rolling_minute() {
        let mut usage = Usage::default();
        for secs in [0, 10, 20] {
            assert_eq!(usage.room(rpm(3), ROLLING, 0, after(secs)), Ok(()));
            usage.add(ROLLING, 0, after(secs), after(secs));
        }
        // A minute after the end of its slot, and the moment that it took to the provider.
        let left = |secs| after(secs).plus(Span(500));
        let full = |secs| Err((left(secs), Dimension::RequestsPerMinute));
        assert_eq!(usage.room(rpm(3), ROLLING, 0, after(20)), full(60));
        assert_eq!(usage.room(rpm(3), ROLLING, 0, left(60)), Ok(()), "the first has left");
        assert_eq!(usage.room(rpm(2), ROLLING, 0, left(60)), full(70));
        usage.give_back(ROLLING, 0, after(20), left(60));
        assert_eq!(usage.room(rpm(2), ROLLING, 0, left(60)), Ok(()));
    }

    #[test]
    fn a_calendar_minute() {
        let mut usage = Usage::default();
        usage.add(CALENDAR, 0, after(59), after(59));
        assert_eq!(usage.room(rpm(1), CALENDAR, 0, after(59)), Err((after(60), Dimension::RequestsPerMinute)));
        assert_eq!(usage.room(rpm(1), CALENDAR, 0, after(60)), Ok(()));
        usage.add(CALENDAR, 0, Time(after(120).0 - 100), Time(after(120).0 - 100));
        assert_eq!(
            usage.room(rpm(1), CALENDAR, 0, after(120)),
            Ok(()),
            "a slot that ends with the minute belongs to it"
        );
    }

    #[test]
    fn a_day() {
        let quota = Quota { rpd: Some(2), ..Quota::default() };
        let mut usage = Usage::default();
        usage.add(ROLLING, 0, START, START);
        usage.add(ROLLING, 0, START, START);
        let midnight = after(14 * 3600);
        assert_eq!(usage.room(quota, ROLLING, 0, START), Err((midnight, Dimension::RequestsPerDay)));
        assert_eq!(usage.room(quota, ROLLING, 0, midnight), Ok(()));
        usage.add(ROLLING, 0, midnight, midnight);
        assert_eq!(usage.requests_today(midnight), 1);
    }

    #[test]
    fn tokens() {
        let quota = Quota { tpm: Some(1000), ..Quota::default() };
        let mut usage = Usage::default();
        usage.add(ROLLING, 400, after(1), after(1));
        usage.add(ROLLING, 400, after(2), after(2));
        assert_eq!(usage.room(quota, ROLLING, 200, after(2)), Ok(()));
        assert_eq!(
            usage.room(quota, ROLLING, 201, after(2)),
            Err((after(61).plus(Span(500)), Dimension::TokensPerMinute))
        );
        usage.correct(ROLLING, 400, 300, after(1), after(3));
        assert_eq!(usage.room(quota, ROLLING, 300, after(3)), Ok(()));
        usage.give_back(ROLLING, 400, after(2), after(3));
        assert_eq!(usage.room(quota, ROLLING, 700, after(3)), Ok(()));
        assert_eq!(usage.room(quota, ROLLING, 5000, after(62)), Ok(()), "an empty minute takes any request");
    }

    #[test]
    fn nothing_is_left_of_requests_that_were_given_back() {
        let mut usage = Usage::default();
        usage.add(ROLLING, 5, START, START);
        assert!(!usage.is_over(START));
        usage.give_back(ROLLING, 5, START, START);
        assert!(usage.is_over(START));
    }

    #[test]
    fn what_was_merged_is_corrected_and_given_back() {
        let mut usage = Usage::default();
        let times: Vec<Time> = (0..200).map(|step| START.plus(Span(step * 251))).collect();
        for time in &times {
            usage.add(ROLLING, 10, *time, *time);
        }
        for time in &times {
            usage.correct(ROLLING, 10, 20, *time, after(51));
        }
        let sum = |usage: &Usage| {
            usage
                .slots
                .iter()
                .map(|slot| (u64::from(slot.requests), slot.tokens))
                .fold((0, 0), |sum, slot| (sum.0 + slot.0, sum.1 + slot.1))
        };
        assert_eq!(sum(&usage), (200, 4000));
        for time in &times {
            usage.give_back(ROLLING, 20, *time, after(51));
        }
        assert_eq!(sum(&usage), (0, 0));
    }

    proptest! {
        /// Merging slots may only make a count stay longer.
        #[test]
        fn never_more_than_the_limit_in_any_minute(gaps in proptest::collection::vec(0u64..3000, 1..400), limit in 1u64..50) {
            let (mut usage, mut now) = (Usage::default(), START);
            let mut served: Vec<Time> = Vec::new();
            for gap in gaps {
                now = now.plus(Span(gap));
                if usage.room(rpm(limit), ROLLING, 0, now).is_ok() {
                    usage.add(ROLLING, 0, now, now);
                    served.push(now);
                }
                let in_minute = served.iter().filter(|time| time.plus(MINUTE) > now).count();
                prop_assert!(in_minute as u64 <= limit);
                prop_assert!(usage.slots.len() <= MAX_SLOTS);
            }
        }
    }
}
