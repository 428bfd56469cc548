//! What an answer's headers state about limits: how much is allowed, how much is left, and until when.
//!
//! Providers spell one idea in many ways: `x-ratelimit-remaining-tokens`, `…-tokens-minute`,
//! `anthropic-ratelimit-input-tokens-remaining`. The names are read word by word, so that a new
//! combination of known words needs no new code. A header with an unknown word is ignored.

use super::tokens::digits;
use super::{Answer, Exhausted, What, Window, reset};
use crate::time::{Span, Time};

/// One limit as an answer states it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatedLimit {
    /// What is counted.
    pub what: What,
    /// The time over which it is counted.
    pub window: Window,
    /// How much the window allows. Some answers state only the rest.
    pub limit: Option<u64>,
    /// How much is left.
    pub remaining: Option<u64>,
    /// When the next window begins or the bucket is full again, clamped.
    pub reset: Option<Time>,
}

impl StatedLimit {
    /// How many limits of one answer are kept.
    pub const MOST: usize = 8;

    fn of(name: Name) -> Self {
        StatedLimit { what: name.what, window: name.window, limit: None, remaining: None, reset: None }
    }

    /// Whether nothing is left. A rest of 0 counts only if the answer also states when the limit ends or
    /// its window, because Azure sends a lone 0 that means nothing.
    pub fn is_exhausted(&self) -> bool {
        let dated = self.reset.is_some() || self.window != Window::Unstated;
        self.remaining == Some(0) && self.limit != Some(0) && dated
    }
}

/// The part of a limit that a header states.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Field {
    Limit,
    Remaining,
    Reset,
}

/// What a header's name means.
#[derive(Clone, Copy)]
struct Name {
    field: Field,
    what: What,
    window: Window,
}

/// A window that has no name and ends within this time is a minute, with some slack for clocks.
const WITHIN_A_MINUTE: Span = Span::secs(65);

/// The limits that the answer's headers state.
pub fn from_headers(answer: &Answer) -> Vec<StatedLimit> {
    let mut limits = Vec::new();
    for (name, value) in answer.headers.iter() {
        if let Some(name) = understand(name) {
            add(&mut limits, name, value, answer);
        }
    }
    name_windows(&mut limits, answer);
    limits
}

/// Adds what a header states that is quoted in a body (OpenRouter's `metadata.headers`).
pub fn add_header(limits: &mut Vec<StatedLimit>, name: &str, value: &str, answer: &Answer) {
    if let Some(name) = understand(name.to_ascii_lowercase().as_bytes()) {
        add(limits, name, value.as_bytes(), answer);
    }
}

fn add(limits: &mut Vec<StatedLimit>, name: Name, value: &[u8], answer: &Answer) {
    // A negative rest or limit is not a number to this reader, and so it is ignored.
    let number = if name.field == Field::Reset { None } else { digits(value.trim_ascii()) };
    let end = if name.field == Field::Reset { end_of(name, value, answer) } else { None };
    if number.is_none() && end.is_none() {
        return;
    }
    let same = |limit: &StatedLimit| (limit.what, limit.window) == (name.what, name.window);
    if !limits.iter().any(same) && limits.len() < StatedLimit::MOST {
        limits.push(StatedLimit::of(name));
    }
    let Some(limit) = limits.iter_mut().find(|limit| same(limit)) else { return };
    match name.field {
        Field::Limit => limit.limit = number,
        Field::Remaining => limit.remaining = number,
        Field::Reset => limit.reset = end,
    }
}

fn end_of(name: Name, value: &[u8], answer: &Answer) -> Option<Time> {
    let longest = if name.window == Window::Month { reset::LONGEST_MONTHLY } else { reset::LONGEST };
    reset::parse(core::str::from_utf8(value).ok()?, answer.now).map(|at| reset::clamp(answer.now, at, longest))
}

/// Fills in the windows that the names leave open. Groq's requests are per day and its tokens per minute.
/// Elsewhere a near reset means a minute, because a minute's bucket is full again within a minute. A far
/// reset leaves the window open, because it may be a day's bucket (OpenAI's lowest tiers refill 200 a
/// day, one every 7m12s).
fn name_windows(limits: &mut [StatedLimit], answer: &Answer) {
    for limit in limits.iter_mut().filter(|limit| limit.window == Window::Unstated) {
        let near = limit.reset.is_some_and(|at| answer.now.until(at) <= WITHIN_A_MINUTE);
        limit.window = match (answer.provider.slug, limit.what) {
            ("groq", What::Requests) => Window::Day,
            // With OpenRouter only the message says whether it is the minute's or the day's.
            ("openrouter", _) => Window::Unstated,
            _ if near => Window::Minute,
            _ => Window::Unstated,
        };
    }
}

fn understand(name: &[u8]) -> Option<Name> {
    // The first letter is enough to pass over most headers.
    let prefixes: &[&[u8]] = match name.first()? {
        b'x' => &[b"x-ratelimit-", b"x-trial-endpoint-call-"],
        b'a' => &[b"anthropic-ratelimit-"],
        b'r' => &[b"ratelimit-"],
        _ => return None,
    };
    let words = prefixes.iter().find_map(|prefix| name.strip_prefix(*prefix))?;
    let (mut field, mut what, mut window) = (None, What::Requests, Window::Unstated);
    for word in words.split(|byte| *byte == b'-') {
        match word {
            b"limit" => field = Some(Field::Limit),
            b"remaining" => field = Some(Field::Remaining),
            b"reset" => field = Some(Field::Reset),
            b"requests" | b"req" => what = What::Requests,
            b"input" => what = What::InputTokens,
            b"output" => what = What::OutputTokens,
            b"tokens" if what == What::Requests => what = What::Tokens,
            b"tokens" => {}
            b"second" => window = Window::Second,
            b"minute" => window = Window::Minute,
            b"hour" => window = Window::Hour,
            b"day" => window = Window::Day,
            b"month" => window = Window::Month,
            _ => return None,
        }
    }
    // Cohere counts the calls of a trial key per minute.
    if name.starts_with(b"x-trial") {
        window = Window::Minute;
    }
    field.map(|field| Name { field, what, window })
}

/// The used-up limit that ends last.
pub fn exhausted(limits: &[StatedLimit]) -> Option<Exhausted> {
    let spent = limits.iter().filter(|limit| limit.is_exhausted());
    let last = spent.max_by_key(|limit| (limit.reset, limit.window as u8))?;
    Some(Exhausted { what: last.what, window: last.window, until: last.reset })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::headers::Headers;
    use crate::provider::find;

    fn read(slug: &str, headers: &[(&str, &str)]) -> Vec<StatedLimit> {
        let headers: Headers = headers.iter().copied().collect();
        let provider = find(slug).unwrap();
        let now = Time::from_secs(1_000_000);
        from_headers(&Answer { provider, through_ai_gateway: false, status: 200, headers: &headers, body: b"", now })
    }

    #[test]
    fn names_are_read_word_by_word() {
        use What::{InputTokens, OutputTokens, Requests, Tokens};
        use Window::{Day, Minute, Month, Unstated};
        for (slug, name, what, window) in [
            ("openai", "x-ratelimit-remaining-requests", Requests, Unstated),
            ("openai", "x-ratelimit-remaining-tokens", Tokens, Unstated),
            ("groq", "x-ratelimit-remaining-requests", Requests, Day),
            ("cerebras", "x-ratelimit-remaining-requests-day", Requests, Day),
            ("cerebras", "x-ratelimit-remaining-tokens-minute", Tokens, Minute),
            ("mistral", "x-ratelimit-remaining-req-minute", Requests, Minute),
            ("mistral", "x-ratelimit-remaining-tokens-month", Tokens, Month),
            ("anthropic", "anthropic-ratelimit-requests-remaining", Requests, Unstated),
            ("anthropic", "anthropic-ratelimit-input-tokens-remaining", InputTokens, Unstated),
            ("anthropic", "anthropic-ratelimit-output-tokens-remaining", OutputTokens, Unstated),
            ("openrouter", "x-ratelimit-remaining", Requests, Unstated),
            ("replicate", "ratelimit-remaining", Requests, Unstated),
            ("cohere", "x-trial-endpoint-call-remaining", Requests, Minute),
        ] {
            let expected = StatedLimit { what, window, limit: None, remaining: Some(7), reset: None };
            assert_eq!(read(slug, &[(name, "7")]), [expected], "{name}");
        }
        for name in
            ["x-ratelimit-cost", "x-ratelimit-", "x-ratelimit-requests", "anthropic-ratelimit-unified-remaining"]
        {
            assert_eq!(read("openai", &[(name, "7")]), [], "{name}");
        }
    }

    #[test]
    fn a_rest_of_zero_counts_only_with_an_end_or_a_window() {
        for (headers, spent) in [
            (&[("x-ratelimit-remaining-tokens", "0"), ("x-ratelimit-reset-tokens", "6s")][..], true),
            (&[("x-ratelimit-remaining-tokens-minute", "0")], true),
            // Azure sends these, and they mean nothing.
            (&[("x-ratelimit-remaining-tokens", "0")], false),
            (&[("x-ratelimit-remaining-tokens", "0"), ("x-ratelimit-reset-tokens", "0")], false),
            (&[("x-ratelimit-remaining-tokens", "-1"), ("x-ratelimit-reset-tokens", "6")], false),
            // A limit of 0 does not exist.
            (&[("x-ratelimit-limit-tokens-minute", "0"), ("x-ratelimit-remaining-tokens-minute", "0")], false),
        ] {
            assert_eq!(exhausted(&read("azure-openai", headers)).is_some(), spent, "{headers:?}");
        }
    }

    #[test]
    fn a_flood_of_headers_stays_bounded() {
        let names: Vec<String> = ["requests", "tokens", "input-tokens", "output-tokens"]
            .iter()
            .flat_map(|what| {
                ["second", "minute", "hour", "day"].map(|window| format!("x-ratelimit-limit-{what}-{window}"))
            })
            .collect();
        let headers: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
        assert_eq!(read("openai", &headers).len(), StatedLimit::MOST);
    }
}
