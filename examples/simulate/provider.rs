//! A provider that keeps to its quotas: what a key is worth, and what the answers say of it.

use std::collections::{HashMap, VecDeque};

use one_balance::http::headers::Headers;
use one_balance::quota::Minute;
use one_balance::time::{DailyReset, MINUTE, Span, Time};
use serde_json::json;

use crate::hostile::Hostile;
use crate::policy::Request;

/// How a provider words its answers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Google: QuotaFailure and RetryInfo.
    Google,
    /// OpenAI: rate limit headers on every answer.
    Headers,
    /// A bare 429.
    Bare,
}

/// What a key may do for each model.
#[derive(Clone, Copy)]
pub struct Limits {
    pub rpm: u64,
    pub rpd: u64,
    pub tpm: u64,
}

pub const UNLIMITED: u64 = u64::MAX;

pub struct Key {
    pub valid: bool,
    pub limits: Limits,
    models: HashMap<&'static str, Usage>,
}

/// What a key has served of one model.
#[derive(Default)]
struct Usage {
    used: VecDeque<(Time, u64)>,
    day_ends: Time,
    today: u64,
    /// Until then it has said that it is full.
    said_full: Time,
}

pub struct Provider {
    pub style: Style,
    pub minute: Minute,
    pub day: DailyReset,
    pub keys: Vec<Key>,
    /// Times in which every request gets 503.
    pub outages: Vec<(Time, Time)>,
    /// Times in which the address is limited: every request gets a bare 429.
    pub egress: Vec<(Time, Time)>,
}

/// An answer: status, headers with `:status`, and body.
pub struct Answer {
    pub status: u16,
    pub headers: Headers,
    pub body: Vec<u8>,
}

enum Full {
    Minute(Time),
    Tokens(Time),
    Day,
}

impl Key {
    pub fn new(valid: bool, limits: Limits) -> Self {
        Key { valid, limits, models: HashMap::new() }
    }
}

impl Usage {
    fn full(&self, limits: Limits, minute: Minute, tokens: u64, now: Time) -> Option<Full> {
        if now < self.day_ends && self.today >= limits.rpd {
            return Some(Full::Day);
        }
        let live = || self.used.iter().filter(|(at, _)| *at <= now && leaves(minute, *at) > now);
        let first = live().next().map_or(now, |(at, _)| leaves(minute, *at));
        if live().count() as u64 >= limits.rpm {
            return Some(Full::Minute(first));
        }
        let sum: u64 = live().map(|(_, tokens)| tokens).sum();
        (sum > 0 && sum.saturating_add(tokens) > limits.tpm).then_some(Full::Tokens(first))
    }

    fn serve(&mut self, day: DailyReset, tokens: u64, now: Time) {
        // A little longer than they count, for `had_room` looks back.
        while self.used.front().is_some_and(|(at, _)| at.plus(MINUTE).plus(Span::secs(5)) <= now) {
            self.used.pop_front();
        }
        if self.day_ends <= now {
            (self.day_ends, self.today) = (day.next(now), 0);
        }
        self.today += 1;
        self.used.push_back((now, tokens));
    }
}

fn leaves(minute: Minute, at: Time) -> Time {
    match minute {
        Minute::Rolling => at.plus(MINUTE),
        Minute::Calendar => Time((at.0 / MINUTE.0 + 1) * MINUTE.0),
    }
}

fn within(times: &[(Time, Time)], now: Time) -> bool {
    times.iter().any(|(from, until)| *from <= now && now < *until)
}

impl Provider {
    /// Whether some key would have served a request all the time from `before` to `now`, and had not
    /// said itself that it is full.
    pub fn had_room(&self, model: &str, tokens: u64, before: Time, now: Time) -> bool {
        let closed = |time| within(&self.outages, time) || within(&self.egress, time);
        let times = || (before.0..=now.0).step_by(50).map(Time);
        let room = |key: &Key| {
            key.models.get(model).is_none_or(|usage| {
                let is_full = |time| usage.full(key.limits, self.minute, tokens, time).is_some();
                usage.said_full <= before && !times().any(is_full)
            })
        };
        !times().any(closed) && self.keys.iter().any(|key| key.valid && room(key))
    }

    pub fn answer(&mut self, key: usize, request: &Request, now: Time) -> Answer {
        if within(&self.outages, now) {
            return answer(503, &[], json!({"error": {"message": "The server is overloaded or not ready yet."}}));
        }
        if within(&self.egress, now) {
            return answer(
                429,
                &[],
                json!({"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "Resource has been exhausted (e.g. check quota)."}}),
            );
        }
        let (style, minute, day) = (self.style, self.minute, self.day);
        let key = &mut self.keys[key];
        if !key.valid {
            let refused = refused(style);
            return if request.hostile == Some(Hostile::Head) { refused.without_body() } else { refused };
        }
        if let Some(hostile) = request.hostile {
            return hostile.answer();
        }
        let usage = key.models.entry(request.model).or_default();
        match usage.full(key.limits, minute, request.tokens, now) {
            None => {
                usage.serve(day, request.tokens, now);
                let left = key
                    .limits
                    .rpm
                    .saturating_sub(usage.used.iter().filter(|(at, _)| leaves(minute, *at) > now).count() as u64);
                let first = usage.used.iter().map(|(at, _)| leaves(minute, *at)).find(|end| *end > now);
                let reset = first.map_or(MINUTE, |end| now.until(end));
                served(style, key.limits, left, reset)
            }
            Some(full) => {
                usage.said_full = match full {
                    Full::Minute(end) | Full::Tokens(end) => end,
                    Full::Day => usage.day_ends,
                };
                limited(style, key.limits, full, now)
            }
        }
    }
}

impl Answer {
    pub fn without_body(self) -> Self {
        Answer { body: Vec::new(), ..self }
    }
}

pub fn answer(status: u16, headers: &[(&str, String)], body: serde_json::Value) -> Answer {
    let number = status.to_string();
    let fixed = [("content-type", "application/json"), (":status", &number)];
    let own = headers.iter().map(|(name, value)| (*name, value.as_str()));
    Answer { status, headers: fixed.into_iter().chain(own).collect(), body: body.to_string().into_bytes() }
}

fn refused(style: Style) -> Answer {
    match style {
        Style::Google => answer(
            400,
            &[],
            json!({"error": {"code": 400, "status": "INVALID_ARGUMENT", "message": "API key not valid.",
            "details": [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}]}}),
        ),
        _ => answer(
            401,
            &[],
            json!({"error": {"message": "Incorrect API key provided.", "type": "invalid_request_error", "code": "invalid_api_key"}}),
        ),
    }
}

fn served(style: Style, limits: Limits, left: u64, reset: Span) -> Answer {
    let headers = match style {
        Style::Headers if limits.rpm != UNLIMITED => vec![
            ("x-ratelimit-limit-requests", limits.rpm.to_string()),
            ("x-ratelimit-remaining-requests", left.to_string()),
            ("x-ratelimit-reset-requests", format!("{}ms", reset.0)),
        ],
        _ => Vec::new(),
    };
    answer(200, &headers, json!({}))
}

fn limited(style: Style, limits: Limits, full: Full, now: Time) -> Answer {
    let (id, value, wait) = match full {
        Full::Minute(end) => ("GenerateRequestsPerMinutePerProjectPerModel-FreeTier", limits.rpm, now.until(end)),
        Full::Tokens(end) => ("GenerateContentInputTokensPerModelPerMinute-FreeTier", limits.tpm, now.until(end)),
        Full::Day => ("GenerateRequestsPerDayPerProjectPerModel-FreeTier", limits.rpd, Span::secs(20)),
    };
    let message = "You exceeded your current quota.";
    match style {
        Style::Google => answer(
            429,
            &[],
            json!({"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": message, "details": [
                {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaId": id, "quotaValue": value.to_string()}]},
                {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": format!("{}s", wait.as_secs_up())},
            ]}}),
        ),
        Style::Headers => answer(
            429,
            &[("retry-after", wait.as_secs_up().to_string())],
            json!({"error": {"message": "Rate limit reached for requests", "type": "requests", "code": "rate_limit_exceeded"}}),
        ),
        Style::Bare => answer(429, &[], json!({"error": {"message": "Too many requests"}})),
    }
}
