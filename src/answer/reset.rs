//! Reads the end of a limit in every form in which providers write it. Which of several ends counts is
//! chosen in [`super::ends`].
//!
//! These yield `None`: negative numbers and 0 (Azure sends both to mean "unknown"), times more than
//! [`STALE`] in the past, and text that is not a time. An end that is too near or too far is clamped.

use super::tokens::digits;
use crate::time::date;
use crate::time::{DAY, MINUTE, Span, Time};

/// The earliest end of a limit that is believed, from now.
pub const SHORTEST: Span = Span::secs(1);
/// The latest end that is believed: a Pacific day with the hour of the daylight-saving switch.
pub const LONGEST: Span = Span::secs(25 * 3600);
/// The latest end of a monthly quota that is believed.
pub const LONGEST_MONTHLY: Span = Span::secs(31 * 24 * 3600);

/// A stated time may be this much in the past, because clocks differ. It then counts as now.
const STALE: Span = MINUTE;
/// Numbers from here on are Unix seconds (September 2001); below, they are a length in seconds.
const EPOCH_SECS: f64 = 1e9;
/// Numbers from here on are Unix milliseconds (March 1973; as seconds it would be the year 5138).
const EPOCH_MILLIS: f64 = 1e11;
/// Numbers from here on are not a time at all (the year 5138 in milliseconds).
const NO_TIME: f64 = 1e14;
/// A longer text is not read as a time.
const TEXT_LIMIT: usize = 64;

/// `at`, but not sooner than [`SHORTEST`] and not later than `longest` from `now`.
pub fn clamp(now: Time, at: Time, longest: Span) -> Time {
    at.max(now.plus(SHORTEST)).min(now.plus(longest))
}

/// The end that a header's or field's value states: seconds from now (`37`, `33011.38`), a duration
/// (`6m0s`, `20ms`, `1h2m3s`), Unix seconds or milliseconds, RFC 3339 or an HTTP date.
pub fn parse(text: &str, now: Time) -> Option<Time> {
    let text = text.trim();
    if text.len() > TEXT_LIMIT {
        return None;
    }
    // Parsing a floating-point number is expensive, and most texts are whole numbers or end in a unit.
    let whole = digits(text.as_bytes()).map(|number| number as f64);
    let ends_in_digits = text.ends_with(|last: char| last.is_ascii_digit() || last == '.');
    match whole.or_else(|| if ends_in_digits { text.parse().ok() } else { None }) {
        Some(number) => from_number(number, now),
        None => duration(text).map(|span| now.plus(span)).or_else(|| fresh(date::parse(text)?, now)),
    }
}

/// The end that a bare number states, as in [`parse`].
pub fn from_number(number: f64, now: Time) -> Option<Time> {
    if !(number > 0.0 && number < NO_TIME) {
        None
    } else if number < EPOCH_SECS {
        Some(now.plus(Span((number * 1000.0).round() as u64)))
    } else {
        let millis = if number < EPOCH_MILLIS { number * 1000.0 } else { number };
        fresh(Time(millis as u64), now)
    }
}

fn fresh(at: Time, now: Time) -> Option<Time> {
    (at.plus(STALE) >= now).then_some(at)
}

/// The duration that is all of `text`, as Go and plain words write it: `1h2m3.5s`, `20ms`, `37 seconds`,
/// or a bare number of seconds. `None` if it is 0 or not a duration.
pub fn duration(text: &str) -> Option<Span> {
    let (span, rest) = leading_duration(text)?;
    rest.is_empty().then_some(span)
}

/// The duration that `text` begins with, and the text that follows it.
fn leading_duration(text: &str) -> Option<(Span, &str)> {
    let mut rest = text.trim_start();
    let mut millis = 0.0;
    loop {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        // A full stop ends a sentence, too: "in 20."
        let Ok(number) = number.trim_end_matches('.').parse::<f64>() else { break };
        let words = tail.trim_start();
        let letters = words.find(|c: char| !c.is_alphabetic()).unwrap_or(words.len());
        let (unit, after) = words.split_at(letters);
        match unit_millis(unit) {
            Some(factor) => millis += number * factor,
            // A bare number means seconds, but only at the very beginning.
            None if millis == 0.0 => {
                millis = number * 1000.0;
                rest = tail;
                break;
            }
            None => break,
        }
        rest = after.trim_start();
    }
    // The cast saturates.
    let span = Span(millis.round() as u64);
    (span.0 > 0).then_some((span, rest))
}

fn unit_millis(unit: &str) -> Option<f64> {
    Some(match unit {
        "us" | "µs" | "μs" => 0.001,
        "ms" | "millisecond" | "milliseconds" => 1.0,
        "s" | "sec" | "secs" | "second" | "seconds" => 1000.0,
        "m" | "min" | "mins" | "minute" | "minutes" => MINUTE.0 as f64,
        "h" | "hr" | "hrs" | "hour" | "hours" => 60.0 * MINUTE.0 as f64,
        "d" | "day" | "days" => DAY.0 as f64,
        _ => return None,
    })
}

/// Phrases (in lower case) after which a message states the time to wait.
const WAIT_PHRASES: &[&str] =
    &["try again in ", "retry after ", "retry in ", "resets in ~", "resets in ", "replenished in "];
/// Anthropic's phrase for the end of a spend limit: "…on 2026-12-01 at 00:00 UTC".
const REGAIN: &str = "regain access on ";

/// The wait that a message (in lower case) requests: "Please retry after 37 seconds".
pub fn in_message(message: &str, now: Time) -> Option<Time> {
    let wait = WAIT_PHRASES.iter().find_map(|phrase| leading_duration(message.split_once(phrase)?.1));
    wait.map(|(span, _)| now.plus(span)).or_else(|| regained(message, now))
}

fn regained(message: &str, now: Time) -> Option<Time> {
    let words: Vec<&str> = message.split_once(REGAIN)?.1.split_ascii_whitespace().take(3).collect();
    match *words.as_slice() {
        [day, "at", hour] => fresh(date::parse(&format!("{day}T{hour}:00Z"))?, now),
        [day, ..] => fresh(date::parse(&format!("{}T00:00:00Z", day.trim_end_matches('.')))?, now),
        [] => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Time {
        Time(text.parse::<jiff::Timestamp>().unwrap().as_millisecond() as u64)
    }

    #[test]
    fn values() {
        let now = at("2026-11-24T12:00:00Z");
        let after = |millis| Some(now.plus(Span(millis)));
        for (text, expected) in [
            ("37", after(37_000)),
            (" 37 ", after(37_000)),
            ("0.5", after(500)),
            ("33011.38", after(33_011_380)),
            ("6m0s", after(360_000)),
            ("20ms", after(20)),
            ("1h2m3s", after(3_723_000)),
            ("2m59.56s", after(179_560)),
            ("1s", after(1_000)),
            ("1d", after(86_400_000)),
            ("36000s", after(36_000_000)),
            ("1795564800", Some(at("2026-11-25T00:00:00Z"))),
            ("1795564800000", Some(at("2026-11-25T00:00:00Z"))),
            ("2026-11-24T12:00:30Z", after(30_000)),
            ("2026-11-24T13:00:30+01:00", after(30_000)),
            ("Tue, 24 Nov 2026 12:01:00 GMT", after(60_000)),
            // Half a minute ago, by another clock.
            ("2026-11-24T11:59:30Z", Some(at("2026-11-24T11:59:30Z"))),
            // Not usable.
            ("", None),
            ("0", None),
            ("-1", None),
            ("0s", None),
            ("NaN", None),
            ("inf", None),
            ("1e300", None),
            ("soon", None),
            ("20 seconds or so", None),
            ("37, 38", None),
            ("1600000000", None),
            ("Tue, 24 Nov 2020 12:01:00 GMT", None),
            ("Tue, 99 Nov 2026 12:01:00 GMT", None),
        ] {
            assert_eq!(parse(text, now), expected, "{text:?}");
        }
        assert_eq!(parse(&"9".repeat(65), now), None);
    }

    #[test]
    fn messages() {
        let now = at("2026-11-24T12:00:00Z");
        for (message, millis) in [
            ("rate limit reached. please try again in 6m0s. visit https://…", Some(360_000)),
            ("please try again in 644ms.", Some(644)),
            ("please try again in 9m38.016s. need more tokens", Some(578_016)),
            ("please try again in 1m0.363142857s.", Some(60_363)),
            ("please retry after 37 seconds. please go here", Some(37_000)),
            ("please retry in 22.5s.", Some(22_500)),
            ("your rate limit resets in ~5s.", Some(5_000)),
            ("please retry after 20.", Some(20_000)),
            ("please try again in a moment", None),
            ("try again in 0s", None),
            ("try again later", None),
            ("you will regain access on 2026-12-01 at 00:00 utc.", Some(6 * 86_400_000 + 43_200_000)),
            ("you will regain access on 2026-12-01.", Some(6 * 86_400_000 + 43_200_000)),
            ("you will regain access on monday", None),
        ] {
            assert_eq!(in_message(message, now), millis.map(|ms| now.plus(Span(ms))), "{message}");
        }
    }

    #[test]
    fn clamps() {
        let now = Time::from_secs(1_000_000);
        assert_eq!(clamp(now, now, LONGEST), now.plus(SHORTEST));
        assert_eq!(clamp(now, Time(0), LONGEST), now.plus(SHORTEST));
        assert_eq!(clamp(now, Time(u64::MAX), LONGEST), now.plus(LONGEST));
    }
}
