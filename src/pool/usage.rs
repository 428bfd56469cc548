//! Usage: how much a key has been used for one model, as counted here.
//!
//! The minute is counted in slots, so that any window of a minute can be told, and the day by its sums.
//! The slots stay as they lie in shared data ([`super::usage_pages`]): a busy key has dozens, and a request
//! looks at a few of them and changes one.

use crate::quota::{Dimension, Minute, Quota};
use crate::time::{MINUTE, Span, Time};

/// The grain of counting: the requests of a quarter of a second are counted together.
const SLOT: Span = Span(250);
/// More slots than this in a minute are merged two by two, always to the later time: a count may
/// stay a little too long, but is never lost too early.
const MAX_SLOTS: usize = 96;
/// Longer than any day: a day that ends later was begun by another clock.
const LONGEST_DAY: Span = Span::secs(26 * 3600);
const DAY: Span = Span::secs(24 * 3600);

/// What a key has been used for one model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// The last minute, in the order of time.
    slots: Vec<Packed>,
    /// When the day that is counted ends.
    day_ends: Time,
    day_requests: u64,
    day_tokens: u64,
    /// What this key's own answers have stated; never a limit of 0.
    own: Quota,
}

/// How many numbers a usage has beside its slots.
pub const NUMBERS: usize = 7;
/// The bytes of a slot.
pub const SLOT_BYTES: usize = size_of::<Packed>();

/// A slot as two little-endian numbers: its end and, in the low bits, its requests; its tokens. Slots are
/// in the order of their first numbers.
type Packed = [[u8; 8]; 2];

const REQUEST_BITS: u32 = 24;
const MAX_REQUESTS: u64 = (1 << REQUEST_BITS) - 1;

struct Slot {
    /// In slots since the epoch; what is left of a packed number has room for 8,000 years.
    end: u64,
    /// At most [`MAX_REQUESTS`].
    requests: u64,
    tokens: u64,
}

impl Slot {
    fn unpack(packed: &Packed) -> Self {
        let [first, tokens] = packed.map(u64::from_le_bytes);
        Slot { end: first >> REQUEST_BITS, requests: first & MAX_REQUESTS, tokens }
    }

    fn pack(self) -> Packed {
        [self.end << REQUEST_BITS | self.requests.min(MAX_REQUESTS), self.tokens].map(u64::to_le_bytes)
    }

    fn time(&self) -> Time {
        Time(self.end * SLOT.0)
    }
}

impl Usage {
    /// A usage from its numbers and slots as [`Self::numbers`] and [`Self::slots`] give them.
    #[must_use]
    pub fn new(numbers: [u64; NUMBERS], slots: &[u8]) -> Self {
        let [day_ends, day_requests, day_tokens, limits @ ..] = numbers;
        let [rpm, rpd, tpm, tpd] = limits.map(|limit| (limit > 0).then_some(limit));
        let packed = slots.as_chunks().0.as_chunks().0;
        // One more is about to be added.
        let mut slots = Vec::with_capacity(packed.len() + 1);
        slots.extend_from_slice(packed);
        Usage { slots, day_ends: Time(day_ends), day_requests, day_tokens, own: Quota { rpm, rpd, tpm, tpd } }
    }

    /// Everything but the slots; 0 stands for no limit.
    #[must_use]
    pub fn numbers(&self) -> [u64; NUMBERS] {
        let [rpm, rpd, tpm, tpd] =
            [self.own.rpm, self.own.rpd, self.own.tpm, self.own.tpd].map(Option::unwrap_or_default);
        [self.day_ends.0, self.day_requests, self.day_tokens, rpm, rpd, tpm, tpd]
    }

    /// The slots, [`SLOT_BYTES`] each.
    #[must_use]
    pub fn slots(&self) -> &[u8] {
        self.slots.as_flattened().as_flattened()
    }

    /// What this key's own answers have stated.
    #[must_use]
    pub fn own(&self) -> Quota {
        self.own
    }

    /// An answer of this key has stated a limit. False if that was known, or is no limit.
    pub fn state(&mut self, dimension: Dimension, limit: u64) -> bool {
        let news = limit > 0 && self.own.get(dimension) != Some(limit);
        if news {
            self.own.set(dimension, limit);
        }
        news
    }

    /// Whether one more request fits that will take about so many tokens.
    ///
    /// # Errors
    /// When it does not: the time at which it will, and the dimension that is full.
    pub fn room(&self, quota: Quota, minute: Minute, tokens: u64, now: Time) -> Result<(), (Time, Dimension)> {
        let full = Dimension::ALL.into_iter().filter_map(|dimension| {
            let limit = quota.get(dimension)?;
            self.full_until(dimension, limit, minute, tokens, now).map(|until| (until, dimension))
        });
        full.max().map_or(Ok(()), Err)
    }

    fn full_until(&self, dimension: Dimension, limit: u64, minute: Minute, tokens: u64, now: Time) -> Option<Time> {
        let today = now < self.day_ends;
        match dimension {
            Dimension::RequestsPerDay => (today && self.day_requests >= limit).then_some(self.day_ends),
            Dimension::TokensPerDay => {
                let next = self.day_tokens.saturating_add(tokens);
                (today && self.day_tokens > 0 && next > limit).then_some(self.day_ends)
            }
            Dimension::RequestsPerMinute => self.minute_full(minute, now, limit, 1, |slot| slot.requests),
            Dimension::TokensPerMinute => self.minute_full(minute, now, limit, tokens, |slot| slot.tokens),
        }
    }

    /// When what is used and `more` fit into the limit of a minute; `None` if they do now. A minute
    /// in which nothing was used has room for anything: how much a request takes is only a guess.
    fn minute_full(&self, minute: Minute, now: Time, limit: u64, more: u64, of: impl Fn(&Slot) -> u64) -> Option<Time> {
        let mut used = self.live(minute, now).fold(0u64, |used, slot| used.saturating_add(of(&slot)));
        let fits = |used: u64| used == 0 || used.saturating_add(more) <= limit;
        if fits(used) {
            return None;
        }
        let last = self.live(minute, now).find(|slot| {
            used = used.saturating_sub(of(slot));
            fits(used)
        });
        last.map(|slot| leaves(minute, slot.time()))
    }

    /// Counts a request that is leased now and will take about so many tokens. The running day ends
    /// at `day_ends`.
    pub fn add(&mut self, minute: Minute, day_ends: Time, tokens: u64, now: Time) {
        self.slots.drain(..self.over(minute, now));
        self.slots.truncate(self.place(far_future(now)));
        // A clock that stepped back, or a state from the far future, must not freeze the day.
        if self.day_ends <= now || now.until(self.day_ends) > LONGEST_DAY {
            self.day_ends = day_ends;
            (self.day_requests, self.day_tokens) = (0, 0);
        }
        self.day_requests = self.day_requests.saturating_add(1);
        self.day_tokens = self.day_tokens.saturating_add(tokens);
        let end = slot_end(now);
        let place = self.place(end);
        match self.slots.get_mut(place) {
            Some(packed) if Slot::unpack(packed).end == end => {
                let slot = Slot::unpack(packed);
                let (requests, tokens) = (slot.requests + 1, slot.tokens.saturating_add(tokens));
                *packed = Slot { requests, tokens, ..slot }.pack();
            }
            _ => self.slots.insert(place, Slot { end, requests: 1, tokens }.pack()),
        }
        if self.slots.len() > MAX_SLOTS {
            self.slots = self.slots.chunks(2).filter_map(merged).collect();
        }
    }

    /// Puts the tokens that a request took in the place of those that were expected.
    pub fn correct(&mut self, minute: Minute, expected: u64, tokens: u64, leased: Time, now: Time) {
        let corrected = |count: u64| count.saturating_sub(expected).saturating_add(tokens);
        self.recount(minute, leased, now, |slot| Slot { tokens: corrected(slot.tokens), ..slot });
        if self.is_of_this_day(leased) {
            self.day_tokens = corrected(self.day_tokens);
        }
    }

    /// A request that was counted has not been served: it does not count after all.
    pub fn give_back(&mut self, minute: Minute, tokens: u64, leased: Time, now: Time) {
        self.recount(minute, leased, now, |slot| Slot {
            requests: slot.requests.saturating_sub(1),
            tokens: slot.tokens.saturating_sub(tokens),
            ..slot
        });
        if self.is_of_this_day(leased) {
            self.day_requests = self.day_requests.saturating_sub(1);
            self.day_tokens = self.day_tokens.saturating_sub(tokens);
        }
    }

    /// Whether a request that is over was counted for the day that is counted now. When the clocks change,
    /// an hour of one day in the year is taken for the other's.
    fn is_of_this_day(&self, leased: Time) -> bool {
        leased.until(self.day_ends) <= DAY
    }

    /// Changes the slot in which a request was counted: its own, or the later one that it was merged
    /// into. Does nothing if its minute is over.
    fn recount(&mut self, minute: Minute, leased: Time, now: Time, change: impl FnOnce(Slot) -> Slot) {
        let end = slot_end(leased);
        let place = self.place(end);
        let over = leaves(minute, Time(end * SLOT.0)) <= now;
        let Some(packed) = self.slots.get_mut(place).filter(|_| !over) else { return };
        let slot = change(Slot::unpack(packed));
        if slot.requests == 0 && slot.tokens == 0 {
            self.slots.remove(place);
        } else {
            *packed = slot.pack();
        }
    }

    /// How much a key is in use: requests of this minute, then of this day.
    #[must_use]
    pub fn load(&self, now: Time) -> (u64, u64) {
        let minute = self.live(Minute::Rolling, now).fold(0u64, |used, slot| used.saturating_add(slot.requests));
        (minute, self.requests_today(now))
    }

    /// Whether there is nothing in it that is worth keeping.
    #[must_use]
    pub fn is_over(&self, now: Time) -> bool {
        if self.day_requests == 0 && self.day_tokens == 0 && self.own.is_empty() {
            return true;
        }
        self.day_ends <= now && self.live(Minute::Rolling, now).next().is_none()
    }

    /// Requests of this day.
    fn requests_today(&self, now: Time) -> u64 {
        if now < self.day_ends { self.day_requests } else { 0 }
    }

    /// How many slots have left the minute.
    fn over(&self, minute: Minute, now: Time) -> usize {
        self.slots.partition_point(|packed| leaves(minute, Slot::unpack(packed).time()) <= now)
    }

    /// The slots of the minute. Those from the far future are from before a clock stepped back: they would
    /// count until it is there again.
    fn live(&self, minute: Minute, now: Time) -> impl Iterator<Item = Slot> {
        let slots = self.slots.iter().skip(self.over(minute, now)).map(Slot::unpack);
        slots.take_while(move |slot| slot.end < far_future(now))
    }

    /// The place of the first slot that does not end before `end`.
    fn place(&self, end: u64) -> usize {
        self.slots.partition_point(|packed| Slot::unpack(packed).end < end)
    }
}

fn slot_end(time: Time) -> u64 {
    (time.0 / SLOT.0 + 1).min(u64::MAX >> REQUEST_BITS)
}

/// The end of the first slot that no running clock has come to, workers' small differences included.
fn far_future(now: Time) -> u64 {
    slot_end(now.plus(MINUTE))
}

fn merged(pair: &[Packed]) -> Option<Packed> {
    let merged = pair.iter().map(Slot::unpack).reduce(|first, second| Slot {
        end: second.end,
        requests: first.requests + second.requests,
        tokens: first.tokens.saturating_add(second.tokens),
    });
    merged.map(Slot::pack)
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
    use crate::time::DailyReset;
    use proptest::prelude::*;

    const ROLLING: Minute = Minute::Rolling;
    const CALENDAR: Minute = Minute::Calendar;
    /// A full minute, at 10:00 UTC.
    const START: Time = Time(1_764_064_800_000);

    fn after(secs: u64) -> Time {
        START.plus(Span::secs(secs))
    }

    fn add(usage: &mut Usage, minute: Minute, tokens: u64, now: Time) {
        usage.add(minute, DailyReset::MidnightUtc.next(now), tokens, now);
    }

    fn rpm(limit: u64) -> Quota {
        Quota { rpm: Some(limit), ..Quota::default() }
    }

    #[test]
    fn a_rolling_minute() {
        let mut usage = Usage::default();
        for secs in [0, 10, 20] {
            assert_eq!(usage.room(rpm(3), ROLLING, 0, after(secs)), Ok(()));
            add(&mut usage, ROLLING, 0, after(secs));
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
        add(&mut usage, CALENDAR, 0, after(59));
        assert_eq!(usage.room(rpm(1), CALENDAR, 0, after(59)), Err((after(60), Dimension::RequestsPerMinute)));
        assert_eq!(usage.room(rpm(1), CALENDAR, 0, after(60)), Ok(()));
        add(&mut usage, CALENDAR, 0, Time(after(120).0 - 100));
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
        add(&mut usage, ROLLING, 0, START);
        add(&mut usage, ROLLING, 0, START);
        let midnight = after(14 * 3600);
        assert_eq!(usage.room(quota, ROLLING, 0, START), Err((midnight, Dimension::RequestsPerDay)));
        assert_eq!(usage.room(quota, ROLLING, 0, midnight), Ok(()));
        add(&mut usage, ROLLING, 0, midnight);
        assert_eq!(usage.requests_today(midnight), 1);
        // What ends now and began yesterday changes nothing of today.
        usage.give_back(ROLLING, 7, START, midnight);
        usage.correct(ROLLING, 1, 7, START, midnight);
        assert_eq!((usage.requests_today(midnight), usage.day_tokens), (1, 0));
        usage.correct(ROLLING, 1, 7, midnight, midnight);
        usage.give_back(ROLLING, 3, midnight, midnight);
        assert_eq!((usage.requests_today(midnight), usage.day_tokens), (0, 4));
    }

    #[test]
    fn tokens() {
        let quota = Quota { tpm: Some(1000), ..Quota::default() };
        let mut usage = Usage::default();
        add(&mut usage, ROLLING, 400, after(1));
        add(&mut usage, ROLLING, 400, after(2));
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
        add(&mut usage, ROLLING, 5, START);
        assert!(!usage.is_over(START));
        usage.give_back(ROLLING, 5, START, START);
        assert!(usage.is_over(START));
    }

    #[test]
    fn what_was_merged_is_corrected_and_given_back() {
        let mut usage = Usage::default();
        let times: Vec<Time> = (0..200).map(|step| START.plus(Span(step * 251))).collect();
        for time in &times {
            add(&mut usage, ROLLING, 10, *time);
        }
        for time in &times {
            usage.correct(ROLLING, 10, 20, *time, after(51));
        }
        let sum = |usage: &Usage| {
            usage
                .slots
                .iter()
                .map(Slot::unpack)
                .map(|slot| (slot.requests, slot.tokens))
                .fold((0, 0), |sum, slot| (sum.0 + slot.0, sum.1 + slot.1))
        };
        assert_eq!(sum(&usage), (200, 4000));
        for time in &times {
            usage.give_back(ROLLING, 20, *time, after(51));
        }
        assert_eq!(sum(&usage), (0, 0));
    }

    #[test]
    fn a_clock_that_stepped_back_freezes_no_minute() {
        let mut usage = Usage::default();
        add(&mut usage, ROLLING, 0, after(3600));
        assert_eq!(usage.room(rpm(1), ROLLING, 0, START), Ok(()));
        assert_eq!(usage.load(START), (0, 1));
        add(&mut usage, ROLLING, 0, START);
        assert!(usage.room(rpm(1), ROLLING, 0, after(1)).is_err());
        assert_eq!(usage.room(rpm(1), ROLLING, 0, after(62)), Ok(()));
        assert_eq!(usage.slots.len(), 1);
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
                    add(&mut usage, ROLLING, 0, now);
                    served.push(now);
                }
                let in_minute = served.iter().filter(|time| time.plus(MINUTE) > now).count();
                prop_assert!(in_minute as u64 <= limit);
                prop_assert!(usage.slots.len() <= MAX_SLOTS);
            }
        }
    }
}
