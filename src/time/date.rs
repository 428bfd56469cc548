//! Dates in the formats that providers and the log use.
//!
//! jiff reads and writes all of these, but its parsers and their errors would be a tenth of the module. So it is used only
//! for time zones, which should not be written by hand.
//!
//! Days and dates are converted by counting from 1 March of year 0, so that the leap day is the last
//! one of a year: a year then has `365 y + y/4 - y/100 + y/400` days before it, and a month
//! `(153 m + 2) / 5`.

use core::fmt;
use std::time::UNIX_EPOCH;

use crate::time::{DAY, Time};

/// Days from 1 March of year 0 to 1 January 1970.
const EPOCH: u64 = 719_468;
/// The last day whose year has four digits.
const LAST_DAY: u64 = 2_932_896;

/// Parses RFC 3339 (`2026-11-24T08:00:00.5+01:00`) or an HTTP date. `None` if the text is neither, or the time is
/// before 1970.
pub(crate) fn parse(text: &str) -> Option<Time> {
    rfc3339(text.as_bytes()).or_else(|| {
        let since = httpdate::parse_http_date(text).ok()?.duration_since(UNIX_EPOCH).ok()?;
        Some(Time(u64::try_from(since.as_millis()).unwrap_or(u64::MAX)))
    })
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(*self, f)
    }
}

/// Writes RFC 3339 in UTC with full seconds; beyond the year 9999, Unix seconds.
fn write(time: Time, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let (days, secs) = (time.0 / DAY.0, time.0 % DAY.0 / 1000);
    if days > LAST_DAY {
        return write!(f, "{}", time.as_secs());
    }
    let (year, month, day) = date_of(days);
    write!(f, "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", secs / 3600, secs / 60 % 60, secs % 60)
}

/// The date of a day since 1970.
fn date_of(days: u64) -> (u64, u64, u64) {
    let days = days + EPOCH;
    // 400 years have 146,097 days; the leap days are subtracted before dividing by 365.
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (days / 146_097 * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// The days from 1970 to a date; `None` if the date does not exist.
fn day_of(year: u64, month: u64, day: u64) -> Option<u64> {
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let (year, from_march) = if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
    let before = 365 * year + year / 4 - year / 100 + year / 400 + (153 * from_march + 2) / 5;
    let days = (before + day - 1).checked_sub(EPOCH)?;
    // 30 February would become a day in March.
    (date_of(days).1 == month).then_some(days)
}

fn rfc3339(text: &[u8]) -> Option<Time> {
    let mut rest = text;
    let year = number(&mut rest, 4)?;
    let month = number(mark(&mut rest, b"-")?, 2)?;
    let day = number(mark(&mut rest, b"-")?, 2)?;
    let hour = number(mark(&mut rest, b"Tt ")?, 2)?;
    let minute = number(mark(&mut rest, b":")?, 2)?;
    let second = number(mark(&mut rest, b":")?, 2)?;
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let millis = fraction(&mut rest)?;
    let offset = match rest {
        b"Z" | b"z" => 0,
        [sign @ (b'+' | b'-'), ..] => {
            mark(&mut rest, b"+-")?;
            let hours = number(&mut rest, 2)?;
            let minutes = number(mark(&mut rest, b":")?, 2)?;
            let secs = (rest.is_empty() && hours < 24 && minutes < 60).then_some(hours * 3600 + minutes * 60)? as i64;
            if *sign == b'-' { -secs } else { secs }
        }
        _ => return None,
    };
    // A leap second counts as the last second of its minute, as in Unix time.
    let secs = day_of(year, month, day)? * 86_400 + hour * 3600 + minute * 60 + second.min(59);
    Some(Time(secs.checked_add_signed(-offset)? * 1000 + millis))
}

/// Reads exactly `digits` ASCII digits.
fn number(rest: &mut &[u8], digits: usize) -> Option<u64> {
    let (text, after) = rest.split_at_checked(digits)?;
    *rest = after;
    text.iter().try_fold(0, |number, byte| byte.is_ascii_digit().then(|| number * 10 + u64::from(byte - b'0')))
}

/// Reads one of the characters in `marks`.
fn mark<'r, 't>(rest: &'r mut &'t [u8], marks: &[u8]) -> Option<&'r mut &'t [u8]> {
    let (mark, after) = rest.split_first()?;
    *rest = after;
    marks.contains(mark).then_some(rest)
}

/// Reads a fraction of a second as milliseconds, rounded down; 0 if there is none.
fn fraction(rest: &mut &[u8]) -> Option<u64> {
    let Some(digits) = rest.strip_prefix(b".") else { return Some(0) };
    let count = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, after) = digits.split_at_checked(count)?;
    *rest = after;
    let digit = |index: usize| digits.get(index).map_or(0, |digit| u64::from(digit - b'0'));
    (1..=9).contains(&count).then(|| digit(0) * 100 + digit(1) * 10 + digit(2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;
    use proptest::prelude::*;

    #[test]
    fn texts_that_are_not_dates() {
        for text in [
            "",
            "2026-11-24",
            "2026-11-24T08:00:00",
            "2026-02-29T00:00:00Z",
            "2026-02-30T00:00:00Z",
            "2026-04-31T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-01-00T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:60:00Z",
            "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00:00Zz",
            "2026-01-01T00:00:00+24:00",
            "2026-01-01T00:00:00+1:00",
            "1969-12-31T23:59:59Z",
            "0000-01-01T00:00:00Z",
            "+026-01-01T00:00:00Z",
            "Tue, 99 Nov 2026 12:01:00 GMT",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn formats_of_dates() {
        let eight = Some(Time::from_secs(1_795_507_200));
        for text in [
            "2026-11-24T08:00:00Z",
            "2026-11-24t08:00:00z",
            "2026-11-24 08:00:00Z",
            "2026-11-24T09:30:00+01:30",
            "2026-11-23T23:00:00-09:00",
            "Tue, 24 Nov 2026 08:00:00 GMT",
        ] {
            assert_eq!(parse(text), eight, "{text}");
        }
        assert_eq!(parse("2024-02-29T00:00:00.25Z"), Some(Time(1_709_164_800_250)));
        assert_eq!(parse("2016-12-31T23:59:60Z"), Some(Time::from_secs(1_483_228_799)));
    }

    proptest! {
        #[test]
        fn agrees_with_jiff(secs in 0i64..253_402_300_800, millis in 0u64..1000) {
            let stamp = Timestamp::from_second(secs).unwrap();
            let time = Time(secs as u64 * 1000 + millis);
            prop_assert_eq!(time.to_string(), stamp.to_string());
            let text = Timestamp::from_millisecond(time.0 as i64).unwrap().to_string();
            prop_assert_eq!(parse(&text), Some(time), "{}", text);
        }

        #[test]
        fn parsed_text_agrees_with_jiff(text in "[0-9TZ:. +-]{0,40}|\\PC{0,40}") {
            if let Some(time) = rfc3339(text.as_bytes()) {
                prop_assert_eq!(text.parse::<Timestamp>().unwrap().as_millisecond() as u64, time.0);
            }
        }
    }
}
