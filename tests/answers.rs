//! Every golden answer is classified as its file expects, and properties hold for any others.

// Helpers of tests may panic as tests do, but clippy.toml exempts only the test functions themselves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use one_balance::answer::{
    Answer, LONGEST, LONGEST_MONTHLY, Outcome, Period, SHORTEST, StatedLimit, Verdict, Window, classify,
};
use one_balance::http::headers::Headers;
use one_balance::provider::{PROVIDERS, find};
use one_balance::time::{Span, Time};
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

/// One real answer.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Golden {
    /// Where the answer was seen, and when.
    provenance: String,
    provider: String,
    through_ai_gateway: bool,
    now: String,
    status: u16,
    headers: std::collections::BTreeMap<String, String>,
    /// JSON, or the text itself.
    body: Value,
    expect: Value,
}

fn time(text: &str) -> Time {
    let stamp: jiff::Timestamp = text.parse().expect(text);
    Time(stamp.as_millisecond() as u64)
}

fn date(at: Option<Time>) -> Value {
    at.map_or(Value::Null, |at| json!(jiff::Timestamp::from_millisecond(at.0 as i64).unwrap().to_string()))
}

/// `InputTokens` as `input_tokens`.
fn word(name: impl std::fmt::Debug) -> String {
    let mut word = String::new();
    for c in format!("{name:?}").chars() {
        if c.is_uppercase() && !word.is_empty() {
            word.push('_');
        }
        word.extend(c.to_lowercase());
    }
    word
}

/// A verdict in the words of the golden files.
fn in_words(verdict: &Verdict) -> Value {
    let mut words = match verdict.outcome {
        Outcome::Success { exhausted } => {
            let spent = exhausted.map(
                |spent| json!({"what": word(spent.what), "window": word(spent.window), "until": date(spent.until)}),
            );
            json!({"outcome": "success", "exhausted": spent})
        }
        Outcome::Quota(quota) => json!({"outcome": "quota", "period": word(quota.period),
            "until": date(quota.until), "retry": date(quota.retry)}),
        Outcome::RateLimit(limit) => json!({"outcome": "rate_limit", "what": word(limit.what),
            "window": word(limit.window), "until": date(limit.until), "oversized": limit.oversized}),
        Outcome::Transient { until } => json!({"outcome": "transient", "until": date(until)}),
        Outcome::Overloaded { until } => json!({"outcome": "overloaded", "until": date(until)}),
        Outcome::Gateway { until } => json!({"outcome": "gateway", "until": date(until)}),
        Outcome::Credential { conclusive } => json!({"outcome": "credential", "conclusive": conclusive}),
        other => json!({"outcome": word(other)}),
    };
    words["evidence"] = json!(verdict.evidence.to_string());
    words["limits"] = verdict.limits.iter().map(limit_in_words).collect();
    words
}

fn limit_in_words(limit: &StatedLimit) -> Value {
    json!({"what": word(limit.what), "window": word(limit.window), "limit": limit.limit,
        "remaining": limit.remaining, "reset": date(limit.reset)})
}

/// All golden answers with their file names.
static GOLDENS: LazyLock<Vec<(String, Golden)>> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/answers");
    let read = |path: PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let golden = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap_or_else(|e| panic!("{name}: {e}"));
        (name, golden)
    };
    let goldens: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| read(entry.unwrap().path())).collect();
    assert!(goldens.len() >= 100, "only {} golden answers found", goldens.len());
    goldens
});

impl Golden {
    fn headers(&self) -> Headers {
        self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }

    fn body(&self) -> String {
        match &self.body {
            Value::String(text) => text.clone(),
            json => json.to_string(),
        }
    }

    fn classify(&self, headers: &Headers, body: &[u8]) -> Verdict {
        classify(&Answer {
            provider: find(&self.provider).expect("a known provider"),
            through_ai_gateway: self.through_ai_gateway,
            status: self.status,
            headers,
            body,
            now: time(&self.now),
        })
    }
}

#[test]
fn golden_answers() {
    let mut wrong = Vec::new();
    for (name, golden) in GOLDENS.iter() {
        assert!(!golden.provenance.is_empty(), "{name} does not say where it is from");
        let got = in_words(&golden.classify(&golden.headers(), golden.body().as_bytes()));
        if got != golden.expect {
            wrong.push(format!("{name}\n  expected {}\n  got      {got}", golden.expect));
        }
    }
    assert!(wrong.is_empty(), "{} of {} are wrong:\n{}", wrong.len(), GOLDENS.len(), wrong.join("\n"));
}

#[test]
fn every_provider_has_goldens() {
    for provider in PROVIDERS {
        let count = GOLDENS.iter().filter(|(_, golden)| golden.provider == provider.slug).count();
        assert!(count >= 2, "{} has {count}", provider.slug);
    }
}

/// A quota is recognised when it comes again, and distinguished from another.
#[test]
fn quota_ids_tell_quotas_apart() {
    let id = |name: &str| {
        let (_, golden) = GOLDENS.iter().find(|(file, _)| file == name).expect(name);
        match golden.classify(&golden.headers(), golden.body().as_bytes()).outcome {
            Outcome::Quota(quota) => quota.id.expect(name),
            other => panic!("{name}: {other:?}"),
        }
    };
    assert_eq!(id("google-daily.json"), id("google-daily-in-array.json"));
    assert_eq!(id("google-daily.json"), id("google-daily-cut-off.json"));
    // Of three quotas without a value the last one decides the verdict: tokens per minute.
    assert_ne!(id("google-daily.json"), id("google-not-in-free-tier.json"));
}

/// A client must not be able to block or cool keys with words that the answer repeats.
#[test]
fn words_of_the_request_accuse_no_key() {
    let headers = Headers::default();
    let verdict = |slug: &str, status, message: &str| {
        let body = serde_json::json!({"error": {"message": message, "type": "invalid_request_error"}}).to_string();
        let provider = one_balance::provider::find(slug).expect(slug);
        let (through_ai_gateway, body, now) = (false, body.as_bytes(), Time(0));
        classify(&Answer { provider, through_ai_gateway, status, headers: &headers, body, now }).outcome
    };
    for words in
        ["api key not valid", "credit balance", "/ month", "doesn't have a free quota tier", "x' spend limit '"]
    {
        for (slug, status, message) in [
            ("openai", 400, format!("Invalid value: '{words}'. Supported values are: 'system' and 'user'.")),
            ("openai", 400, format!("Unrecognized request argument supplied: {words}")),
            ("openai", 404, format!("The model `{words}` does not exist or you do not have access to it.")),
            ("openai", 403, format!("Project `p` does not have access to model `{words}`")),
            (
                "google-ai-studio",
                400,
                format!("Invalid JSON payload received. Unknown name \"{words}\": Cannot find field."),
            ),
            ("google-ai-studio", 404, format!("models/{words} is not found for API version v1beta.")),
            ("anthropic", 400, format!("{words}: Extra inputs are not permitted")),
            ("anthropic", 404, format!("model: {words}")),
            ("openrouter", 400, format!("{words} is not a valid model ID")),
            ("mistral", 400, format!("Invalid model: {words}")),
        ] {
            let outcome = verdict(slug, status, &message);
            assert!(
                !matches!(outcome, Outcome::Credential { .. } | Outcome::Quota(_)),
                "{slug} {status} {message}: {outcome:?}"
            );
        }
    }
    let role = verdict("openai", 400, "Invalid value: 'you do not have access to'. Supported values are: 'system'.");
    assert_eq!(role, Outcome::Caller, "nor does the model cool on the key");
    let suspended = verdict("google-ai-studio", 403, "Consumer 'api_key:AIzaX' has been suspended.");
    assert_eq!(suspended, Outcome::Credential { conclusive: false }, "it stands behind the quotes");
    assert_eq!(
        verdict("google-ai-studio", 400, "API key expired. Don't use it."),
        Outcome::Credential { conclusive: true }
    );
}

/// On the hot path, a good answer without rate limit headers costs no allocation.
#[test]
fn plain_success_allocates_nothing() {
    let headers: Headers = [("content-type", "application/json"), ("x-request-id", "1")].into_iter().collect();
    let answer = Answer {
        provider: &PROVIDERS[1],
        through_ai_gateway: false,
        status: 200,
        headers: &headers,
        body: b"",
        now: Time(0),
    };
    let verdict = classify(&answer);
    assert_eq!(verdict.outcome, Outcome::Success { exhausted: None });
    assert_eq!(verdict.limits.capacity(), 0);
}

/// Headers that state limits and waits, and values that they may have.
const NAMES: &[&str] = &[
    "retry-after",
    "retry-after-ms",
    "x-ratelimit-limit-requests",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-reset-requests",
    "x-ratelimit-remaining-tokens-minute",
    "x-ratelimit-reset-tokens-minute",
    "x-ratelimit-reset",
    "x-ratelimit-reset-tokens-month",
    "x-ratelimit-remaining-tokens-month",
    "x-ratelimit-remaining",
    "anthropic-ratelimit-tokens-remaining",
    "anthropic-ratelimit-tokens-reset",
    "x-amzn-errortype",
];

fn any_value() -> impl Strategy<Value = Vec<u8>> {
    let text =
        "0|-?[0-9]{1,20}(\\.[0-9]{1,4})?|[0-9]{1,3}h[0-9]{1,3}m[0-9.]{1,6}s|2026-1[0-9]-[0-9]{2}T12:00:00Z|1e[0-9]{3}";
    prop_oneof![text.prop_map(String::into_bytes), prop::collection::vec(any::<u8>(), 0..40)]
}

fn any_headers() -> impl Strategy<Value = Headers> {
    let header = (prop::sample::select(NAMES), any_value());
    prop::collection::vec(header, 0..8).prop_map(Headers::from_iter)
}

/// Every moment of a verdict, with the longest time from now that it may be.
fn moments(verdict: &Verdict) -> Vec<(Time, Span)> {
    let (at, longest) = match verdict.outcome {
        // A used-up limit's end is one of the limits' resets, which are checked below.
        Outcome::Success { .. } => (None, LONGEST),
        Outcome::Quota(quota) if quota.period == Period::Monthly => (quota.until, LONGEST_MONTHLY),
        Outcome::Quota(quota) => (quota.until.max(quota.retry), LONGEST),
        Outcome::RateLimit(limit) => (limit.until, LONGEST),
        Outcome::Transient { until } | Outcome::Overloaded { until } | Outcome::Gateway { until } => (until, LONGEST),
        _ => (None, LONGEST),
    };
    let longest_of = |window| if window == Window::Month { LONGEST_MONTHLY } else { LONGEST };
    let resets = verdict.limits.iter().filter_map(|limit| Some((limit.reset?, longest_of(limit.window))));
    at.map(|at| (at, longest)).into_iter().chain(resets).collect()
}

proptest! {
    /// Whatever comes, there is no panic, limits are bounded, and every moment is within its clamp.
    #[test]
    fn any_answer_has_a_bounded_verdict(
        provider in 0..PROVIDERS.len(),
        through_ai_gateway: bool,
        status in prop_oneof![prop::sample::select(&[101u16, 200, 400, 401, 402, 403, 404, 413, 429, 500, 503, 529]), any::<u16>()],
        headers in any_headers(),
        body in prop::collection::vec(any::<u8>(), 0..200),
        now in prop_oneof![Just(1_795_521_600_000u64), any::<u64>()],
    ) {
        let now = Time(now);
        let verdict = classify(&Answer { provider: &PROVIDERS[provider], through_ai_gateway, status, headers: &headers, body: &body, now });
        prop_assert!(verdict.limits.len() <= StatedLimit::MOST);
        for (at, longest) in moments(&verdict) {
            prop_assert!(at >= now.plus(SHORTEST) && at <= now.plus(longest), "{at} from {now}");
        }
    }

    /// A body that is cut off anywhere, with any headers, keeps to the same bounds, and a key anywhere in it
    /// is in no part of the verdict.
    #[test]
    fn cut_bodies_and_keys(
        choice: prop::sample::Index,
        headers in any_headers(),
        cut: prop::sample::Index,
        place: prop::sample::Index,
        key in "(sk-|AIza|gsk_)?[A-Za-z0-9]{20,40}",
    ) {
        let (name, golden) = choice.get(&GOLDENS);
        let mut body = golden.body().into_bytes();
        let at = place.index(body.len() + 1);
        body.splice(at..at, key.bytes());
        body.truncate(cut.index(body.len() + 1).max(body.len() / 2));
        let now = time(&golden.now);
        for headers in [headers, golden.headers()] {
            let verdict = golden.classify(&headers, &body);
            for (at, longest) in moments(&verdict) {
                prop_assert!(at >= now.plus(SHORTEST) && at <= now.plus(longest), "{name}: {at}");
            }
            let printed = format!("{verdict:?} {}", verdict.evidence);
            prop_assert!(!printed.contains(&key), "{name}: {printed}");
        }
    }
}
