//! Usage: how much a key has been used for one model, as counted by this Envoy.
//!
//! The last minute is counted in slots, so that the usage of any window of a minute can be computed; the day is
//! counted in sums. The slots keep the form that they have in shared data ([`super::usage_pages`]), because a busy
//! key has dozens of them, and a request reads a few and changes one.

use crate::quota::{Dimension, Minute, Quota};
use crate::time::{DAY, MINUTE, Span, Time};

/// The length of a slot: requests within a quarter of a second are counted together.
const SLOT: Span = Span(250);
/// If there are more slots than this, they are merged in pairs, each pair at the later time: a request may be
/// counted a little too long, but never too briefly.
const MAX_SLOTS: usize = 96;
/// Longer than any day. A day that ends later was begun before a clock stepped back.
const LONGEST_DAY: Span = Span::secs(26 * 3600);

/// How much a key has been used for one model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// The last minute, in chronological order.
    slots: Vec<Packed>,
    /// When the counted day ends. A key without requests has a day that ended at the epoch.
    day_ends: Time,
    day_requests: u64,
    day_tokens: u64,
    /// The limits that this key's own answers have stated; never 0.
    stated: Quota,
}

/// The number of numbers in a usage besides its slots.
pub(crate) const NUMBERS: usize = 7;
/// The size of a slot in bytes.
pub(crate) const SLOT_BYTES: usize = size_of::<Packed>();

/// A slot as two little-endian numbers: the first holds its end and, in the low bits, its requests; the second its
/// tokens. Slots are sorted by their first numbers.
type Packed = [[u8; 8]; 2];

const REQUEST_BITS: u32 = 24;
const MAX_REQUESTS: u64 = (1 << REQUEST_BITS) - 1;

struct Slot {
    /// The end in slots since the epoch; the remaining bits of the packed number suffice for 8,000 years.
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
    /// A usage from what [`Self::numbers`] and [`Self::slots`] return.
    pub fn new(numbers: [u64; NUMBERS], slots: &[u8]) -> Self {
        let [day_ends, day_requests, day_tokens, limits @ ..] = numbers;
        let [rpm, rpd, tpm, tpd] = limits.map(|limit| (limit > 0).then_some(limit));
        let packed = slots.as_chunks().0.as_chunks().0;
        // Room for one more, because a usage is usually read to add to it.
        let mut slots = Vec::with_capacity(packed.len() + 1);
        slots.extend_from_slice(packed);
        Usage { slots, day_ends: Time(day_ends), day_requests, day_tokens, stated: Quota { rpm, rpd, tpm, tpd } }
    }

    /// Everything except the slots. Here 0 means no limit, so that each number has a fixed length.
    pub(crate) fn numbers(&self) -> [u64; NUMBERS] {
        let [rpm, rpd, tpm, tpd] =
            [self.stated.rpm, self.stated.rpd, self.stated.tpm, self.stated.tpd].map(Option::unwrap_or_default);
        [self.day_ends.0, self.day_requests, self.day_tokens, rpm, rpd, tpm, tpd]
    }

    /// The bytes of the slots, [`SLOT_BYTES`] each.
    pub(crate) fn slots(&self) -> &[u8] {
        self.slots.as_flattened().as_flattened()
    }

    /// The limits that this key's own answers have stated.
    pub(crate) fn stated(&self) -> Quota {
        self.stated
    }

    /// Learns a limit that an answer of this key has stated. False if it was known, or is 0.
    pub(crate) fn state_limit(&mut self, dimension: Dimension, limit: u64) -> bool {
        let is_new = limit > 0 && self.stated.get(dimension) != Some(limit);
        if is_new {
            self.stated.set(dimension, limit);
        }
        is_new
    }

    /// Whether one more request of about `tokens` tokens fits.
    ///
    /// # Errors
    /// If it does not fit: the time at which it will, and the dimension that is full.
    pub(crate) fn room(&self, quota: Quota, minute: Minute, tokens: u64, now: Time) -> Result<(), (Time, Dimension)> {
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

    /// The time at which `more` fits into the limit of a minute; `None` if it fits now. A minute without any usage
    /// has room for any request, because the size of a request is only an estimate.
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
        last.map(|slot| leaves_at(minute, slot.time()))
    }

    /// Counts a request of about `tokens` tokens that is leased now. The running day ends at `day_ends`.
    pub(crate) fn add(&mut self, minute: Minute, day_ends: Time, tokens: u64, now: Time) {
        self.slots.drain(..self.expired(minute, now));
        self.slots.truncate(self.position(far_future(now)));
        // The day must not stay the same forever because a clock stepped back.
        if self.day_ends <= now || now.until(self.day_ends) > LONGEST_DAY {
            self.day_ends = day_ends;
            (self.day_requests, self.day_tokens) = (0, 0);
        }
        self.day_requests = self.day_requests.saturating_add(1);
        self.day_tokens = self.day_tokens.saturating_add(tokens);
        let end = slot_end(now);
        let index = self.position(end);
        match self.slots.get_mut(index) {
            Some(packed) if Slot::unpack(packed).end == end => {
                let slot = Slot::unpack(packed);
                let (requests, tokens) = (slot.requests + 1, slot.tokens.saturating_add(tokens));
                *packed = Slot { requests, tokens, ..slot }.pack();
            }
            _ => self.slots.insert(index, Slot { end, requests: 1, tokens }.pack()),
        }
        if self.slots.len() > MAX_SLOTS {
            self.slots = self.slots.chunks(2).filter_map(merged).collect();
        }
    }

    /// Replaces the estimated tokens of a request by those that it used.
    pub(crate) fn correct(&mut self, minute: Minute, expected: u64, tokens: u64, leased: Time, now: Time) {
        let corrected = |count: u64| count.saturating_sub(expected).saturating_add(tokens);
        self.recount(minute, leased, now, |slot| Slot { tokens: corrected(slot.tokens), ..slot });
        if self.is_of_this_day(leased) {
            self.day_tokens = corrected(self.day_tokens);
        }
    }

    /// Removes a request from the counts, because it was not served.
    pub(crate) fn give_back(&mut self, minute: Minute, tokens: u64, leased: Time, now: Time) {
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

    /// Whether a request was counted for the day that is counted now. When daylight saving time begins or ends, one
    /// hour is attributed to the wrong day.
    fn is_of_this_day(&self, leased: Time) -> bool {
        leased.until(self.day_ends) <= DAY
    }

    /// Changes the slot in which a request was counted, which may be a later one if slots were merged. Does nothing
    /// if the slot has left the minute.
    fn recount(&mut self, minute: Minute, leased: Time, now: Time, change: impl FnOnce(Slot) -> Slot) {
        let end = slot_end(leased);
        let index = self.position(end);
        let expired = leaves_at(minute, Time(end * SLOT.0)) <= now;
        let Some(packed) = self.slots.get_mut(index).filter(|_| !expired) else { return };
        let slot = change(Slot::unpack(packed));
        if slot.requests == 0 && slot.tokens == 0 {
            self.slots.remove(index);
        } else {
            *packed = slot.pack();
        }
    }

    /// The requests of this minute and of this day, to compare how much keys are used.
    pub(crate) fn load(&self, now: Time) -> (u64, u64) {
        let minute = self.live(Minute::Rolling, now).fold(0u64, |used, slot| used.saturating_add(slot.requests));
        (minute, self.requests_today(now))
    }

    /// Whether nothing in it is worth keeping.
    pub(crate) fn is_over(&self, now: Time) -> bool {
        if self.day_requests == 0 && self.day_tokens == 0 && self.stated.is_empty() {
            return true;
        }
        self.day_ends <= now && self.live(Minute::Rolling, now).next().is_none()
    }

    fn requests_today(&self, now: Time) -> u64 {
        if now < self.day_ends { self.day_requests } else { 0 }
    }

    /// The number of slots that have left the minute.
    fn expired(&self, minute: Minute, now: Time) -> usize {
        self.slots.partition_point(|packed| leaves_at(minute, Slot::unpack(packed).time()) <= now)
    }

    /// The slots of the minute. Slots in the far future are left out: they are from before a clock stepped back, and
    /// would be counted until the clock reaches them again.
    fn live(&self, minute: Minute, now: Time) -> impl Iterator<Item = Slot> {
        let slots = self.slots.iter().skip(self.expired(minute, now)).map(Slot::unpack);
        slots.take_while(move |slot| slot.end < far_future(now))
    }

    /// The index of the first slot that does not end before `end`.
    fn position(&self, end: u64) -> usize {
        self.slots.partition_point(|packed| Slot::unpack(packed).end < end)
    }
}

fn slot_end(time: Time) -> u64 {
    (time.0 / SLOT.0 + 1).min(u64::MAX >> REQUEST_BITS)
}

/// The end of the first slot that no worker's clock can have reached, small differences included.
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

/// The time at which usage of `time` leaves the minute.
fn leaves_at(minute: Minute, time: Time) -> Time {
    match minute {
        // The provider counted the request when it arrived, a moment after it was leased.
        Minute::Rolling => time.plus(MINUTE).plus(SLOT),
        // A slot that ends with the minute belongs to it.
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
    fn the_day_is_counted_until_its_reset() {
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
    fn tokens_are_limited_by_the_minute() {
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
