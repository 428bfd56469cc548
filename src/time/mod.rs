//! Points in time and the ends of quota days.
//!
//! Nothing here reads a clock; the host provides the time ([`crate::host::Host::now`]), so that tests and the simulation
//! can set it. The clock of a host can step, and providers send implausible times, so all arithmetic saturates.

pub mod date;

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

/// A point in time: milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Time(pub u64);

/// A length of time in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Span(pub u64);

/// One minute, the window of every `…PerMinute` quota.
pub const MINUTE: Span = Span::secs(60);
/// One day, for providers that do not say when theirs begins.
pub const DAY: Span = Span::secs(24 * 3600);

impl Span {
    /// A span of whole seconds.
    pub const fn secs(secs: u64) -> Self {
        Span(secs.saturating_mul(1000))
    }

    /// The span in seconds, rounded up, so that a client that waits this long has waited long enough.
    pub const fn as_secs_up(self) -> u64 {
        self.0.div_ceil(1000)
    }

    /// A span of a floating number of seconds; `None` unless it is finite and not negative.
    pub(crate) fn from_secs_f64(secs: f64) -> Option<Self> {
        // The cast saturates for very large numbers.
        (secs.is_finite() && secs >= 0.0).then_some(Span((secs * 1000.0).round() as u64))
    }
}

impl Time {
    /// A point in time given in whole Unix seconds.
    pub const fn from_secs(secs: u64) -> Self {
        Time(secs.saturating_mul(1000))
    }

    /// Unix seconds, rounded down.
    pub const fn as_secs(self) -> u64 {
        self.0 / 1000
    }

    /// Unix seconds, rounded up: the first full second that is not before this moment.
    pub const fn as_secs_up(self) -> u64 {
        self.0.div_ceil(1000)
    }

    /// The moment `span` after this one.
    pub const fn plus(self, span: Span) -> Self {
        Time(self.0.saturating_add(span.0))
    }

    /// The span from this moment to `later`; zero if `later` is earlier.
    pub const fn until(self, later: Time) -> Span {
        Span(later.0.saturating_sub(self.0))
    }
}

/// When a provider's daily quotas are reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DailyReset {
    /// Midnight in America/Los_Angeles (Google).
    MidnightPacific,
    /// Midnight UTC (OpenRouter).
    MidnightUtc,
    /// Unknown: 24 hours after the quota was found to be spent.
    After24Hours,
}

impl DailyReset {
    /// The first reset after `now`.
    ///
    /// A Pacific day has 23 or 25 hours when daylight saving time begins or ends. The zone's rules are embedded at build
    /// time, so no zone database is needed at run time.
    pub fn next(self, now: Time) -> Time {
        match self {
            DailyReset::MidnightPacific => next_midnight(now, &jiff::tz::get!("America/Los_Angeles")),
            DailyReset::MidnightUtc => Time(now.0 - now.0 % DAY.0).plus(DAY),
            DailyReset::After24Hours => now.plus(DAY),
        }
    }
}

/// Caches the end of the running Pacific day. Every lease needs it, and computing it from the zone's rules costs more
/// than the rest of the lease.
#[derive(Debug, Default)]
pub struct Days {
    pacific: Option<Day>,
}

/// A period that is known to lie within one day.
#[derive(Clone, Copy, Debug)]
struct Day {
    /// When the end was computed.
    since: Time,
    ends: Time,
}

impl Days {
    /// The first reset after `now`, like [`DailyReset::next`].
    pub(crate) fn end(&mut self, reset: DailyReset, now: Time) -> Time {
        if reset != DailyReset::MidnightPacific {
            return reset.next(now);
        }
        match self.pacific {
            Some(day) if day.since <= now && now < day.ends => day.ends,
            _ => {
                let ends = reset.next(now);
                self.pacific = Some(Day { since: now, ends });
                ends
            }
        }
    }
}

#[cold]
fn next_midnight(now: Time, zone: &TimeZone) -> Time {
    let midnight = i64::try_from(now.0)
        .ok()
        .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
        .and_then(|stamp| stamp.to_zoned_datetime(zone.clone()).tomorrow().ok())
        .and_then(|day| day.start_of_day().ok())
        .and_then(|start| u64::try_from(start.timestamp().as_millisecond()).ok());
    // The default is only needed beyond the year 9999.
    midnight.map_or_else(|| now.plus(DAY), Time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> Time {
        let stamp: jiff::Timestamp = text.parse().unwrap();
        Time(stamp.as_millisecond() as u64)
    }

    #[test]
    fn daily_resets() {
        use DailyReset::*;
        for (reset, now, next) in [
            (MidnightUtc, "2026-11-24T14:36:00Z", "2026-11-25T00:00:00Z"),
            (MidnightUtc, "2026-12-31T23:59:59.999Z", "2027-01-01T00:00:00Z"),
            (After24Hours, "2026-11-24T14:36:00Z", "2026-11-25T14:36:00Z"),
            // Pacific Standard Time is UTC-8, Daylight Time UTC-7.
            (MidnightPacific, "2026-11-24T14:36:00Z", "2026-11-25T08:00:00Z"),
            (MidnightPacific, "2026-07-01T06:59:59Z", "2026-07-01T07:00:00Z"),
            (MidnightPacific, "2026-07-01T07:00:00Z", "2026-07-02T07:00:00Z"),
            // 8 March 2026 has 23 hours: it begins in standard time, the next one in daylight time.
            (MidnightPacific, "2026-03-08T07:59:59Z", "2026-03-08T08:00:00Z"),
            (MidnightPacific, "2026-03-08T08:00:00Z", "2026-03-09T07:00:00Z"),
            // 1 November 2026 has 25 hours.
            (MidnightPacific, "2026-11-01T07:00:00Z", "2026-11-02T08:00:00Z"),
            (MidnightPacific, "2026-11-01T09:30:00Z", "2026-11-02T08:00:00Z"),
        ] {
            assert_eq!(reset.next(at(now)), at(next), "{reset:?} after {now}");
        }
    }

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(DailyReset::MidnightUtc.next(Time(u64::MAX)), Time(u64::MAX));
        let end = Time(u64::MAX);
        assert_eq!(end.plus(DAY), end);
        assert_eq!(end.until(Time(0)), Span(0));
        assert_eq!(DailyReset::MidnightPacific.next(end), end);
        assert_eq!(Span::from_secs_f64(f64::NAN), None);
        assert_eq!(Span::from_secs_f64(-1.0), None);
        assert_eq!(Span::from_secs_f64(1e300), Some(Span(u64::MAX)));
        assert_eq!(Time::from_secs(u64::MAX).to_string(), (u64::MAX / 1000).to_string());
    }

    proptest! {
        /// The cache is right whichever way the clock steps.
        #[test]
        fn cached_days_are_right(times in proptest::collection::vec(0u64..253_402_300_800_000, 1..20), steps: [i32; 20]) {
            let mut days = Days::default();
            for (time, step) in times.into_iter().zip(steps) {
                for now in [time, time.saturating_add_signed(step.into())].map(Time) {
                    for reset in [DailyReset::MidnightPacific, DailyReset::MidnightUtc, DailyReset::After24Hours] {
                        prop_assert_eq!(days.end(reset, now), reset.next(now));
                    }
                    prop_assert_eq!(DailyReset::MidnightUtc.next(now), next_midnight(now, &TimeZone::UTC));
                }
            }
        }
    }
}
