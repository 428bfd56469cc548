//! Every metric: its family, its labels, its name. Envoy shows them as `wasmcustom.{name}`.
//!
//! Labels are part of the name, as `.{label}.{value}`, from which the shipped bootstrap's `stats_tags`
//! extract them for Prometheus. All names are defined at configure time: the host keeps each name
//! forever, so none is made per request. No label comes from a client: providers are those of the
//! configuration, and all other values are lists in this module and beside the enums it counts.
//!
//! Counting means adding in the VM's memory ([`Counters`]); the adapter hands the sums to the host at
//! each tick. One host call per event would cost a request more than all of its counting does, only to
//! show the same numbers half a second earlier.

use std::cell::RefCell;

use crate::answer::Outcome;
use crate::config::{Config, Upstream};
use crate::d1::Status;
use crate::d1::api::Failure;
use crate::pool::record::Reason;
use crate::pool::{KeyCounts, KeyState};
use crate::reply::{Code, Stage};
use crate::time::{Span, Time};

/// The `provider` label of requests that were refused before their provider was known.
pub(crate) const NO_PROVIDER: &str = "none";

/// How a request ended, as metrics and the access log name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The provider's answer was sent to the client, and it was not an error.
    Served,
    /// The provider rejected the request because of the request itself.
    CallerError,
    /// The provider's error was sent to the client, because no other key did better.
    Failed,
    /// The client disconnected before there was an answer.
    Cancelled,
    /// The client got a reply of this filter instead of a provider's answer.
    Own(Code),
    /// Another filter answered.
    Other,
}

impl Ending {
    /// The value of the label.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Ending::Served => "served",
            Ending::CallerError => "caller_error",
            Ending::Failed => "failed",
            Ending::Cancelled => "cancelled",
            Ending::Own(code) => code.as_str(),
            Ending::Other => OTHER,
        }
    }
}

/// The label of everything that has no label of its own.
const OTHER: &str = "other";

/// The endings of requests whose provider is known, in the order of their counters. `Other` is the last.
fn endings() -> impl Iterator<Item = Ending> {
    let common = [Ending::Served, Ending::CallerError, Ending::Failed, Ending::Cancelled];
    let own = Code::ALL.iter().filter(|code| code.stage() != Stage::Refusal).map(|code| Ending::Own(*code));
    common.into_iter().chain(own).chain([Ending::Other])
}

/// The codes of requests that were refused before their provider was known, in the order of their counters.
fn refusals() -> impl Iterator<Item = Code> {
    Code::ALL.iter().copied().filter(|code| code.stage() != Stage::Attempt)
}

/// The number of codes that can be sent at a stage.
const fn codes_at(stage: Stage) -> usize {
    let (mut count, mut rest) = (0, Code::ALL);
    while let [code, tail @ ..] = rest {
        if code.stage() as u8 == stage as u8 || code.stage() as u8 == Stage::Both as u8 {
            count += 1;
        }
        rest = tail;
    }
    count
}

const ENDINGS: usize = 4 + codes_at(Stage::Attempt) + 1;
/// The codes, and one counter more for everything else.
const REFUSALS: usize = codes_at(Stage::Refusal) + 1;

/// The outcome of an attempt, as the metric `answers` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutcomeLabel {
    /// The provider served the request.
    Success,
    /// [`Outcome::Quota`].
    Quota,
    /// [`Outcome::RateLimit`].
    RateLimit,
    /// [`Outcome::Transient`].
    Transient,
    /// [`Outcome::Overloaded`].
    Overloaded,
    /// [`Outcome::Region`].
    Region,
    /// [`Outcome::Credential`].
    Credential,
    /// [`Outcome::ModelAccess`].
    ModelAccess,
    /// [`Outcome::Forbidden`].
    Forbidden,
    /// [`Outcome::NotMine`].
    NotMine,
    /// [`Outcome::Gateway`].
    Gateway,
    /// [`Outcome::Caller`].
    Caller,
    /// The attempt was reset or timed out.
    NoAnswer,
}

impl OutcomeLabel {
    /// All labels, in the order of their counters.
    const ALL: [Self; 13] = [
        Self::Success,
        Self::Quota,
        Self::RateLimit,
        Self::Transient,
        Self::Overloaded,
        Self::Region,
        Self::Credential,
        Self::ModelAccess,
        Self::Forbidden,
        Self::NotMine,
        Self::Gateway,
        Self::Caller,
        Self::NoAnswer,
    ];

    /// The value of the label.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Quota => "quota",
            Self::RateLimit => "rate_limit",
            Self::Transient => "transient",
            Self::Overloaded => "overloaded",
            Self::Region => "region",
            Self::Credential => "credential",
            Self::ModelAccess => "model_access",
            Self::Forbidden => "forbidden",
            Self::NotMine => "not_mine",
            Self::Gateway => "gateway",
            Self::Caller => "caller",
            Self::NoAnswer => "no_answer",
        }
    }
}

impl Outcome {
    /// The outcome without its details.
    pub(crate) fn label(&self) -> OutcomeLabel {
        match self {
            Outcome::Success { .. } => OutcomeLabel::Success,
            Outcome::Quota(_) => OutcomeLabel::Quota,
            Outcome::RateLimit(_) => OutcomeLabel::RateLimit,
            Outcome::Transient { .. } => OutcomeLabel::Transient,
            Outcome::Overloaded { .. } => OutcomeLabel::Overloaded,
            Outcome::Region => OutcomeLabel::Region,
            Outcome::Credential { .. } => OutcomeLabel::Credential,
            Outcome::ModelAccess => OutcomeLabel::ModelAccess,
            Outcome::Forbidden => OutcomeLabel::Forbidden,
            Outcome::NotMine => OutcomeLabel::NotMine,
            Outcome::Gateway { .. } => OutcomeLabel::Gateway,
            Outcome::Caller => OutcomeLabel::Caller,
        }
    }
}

/// What is counted for a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// A request has ended.
    Request(Ending),
    /// A key was tried.
    Attempt,
    /// What the answer to an attempt said.
    Answer(OutcomeLabel),
    /// A key began to cool or to rest.
    Cooling(Reason),
    /// A key was blocked.
    Block,
    /// Tokens of prompts.
    TokensIn,
    /// Tokens of answers.
    TokensOut,
}

// The counters lie in one list: first those without a provider, then one group for each provider. These are
// the offsets within a provider's group, in the order of `Counters::names`.
const ATTEMPTS: usize = ENDINGS;
const ANSWERS: usize = ATTEMPTS + 1;
const COOLINGS: usize = ANSWERS + OutcomeLabel::ALL.len();
const BLOCKS: usize = COOLINGS + Reason::LEARNED.len();
const TOKENS: usize = BLOCKS + 1;
const OF_A_PROVIDER: usize = TOKENS + 2;
const OF_NO_PROVIDER: usize = REFUSALS + Failure::ALL.len();

/// The counts of one worker that the host has not been told yet.
#[derive(Debug)]
pub struct Counters {
    providers: Vec<String>,
    counts: RefCell<Vec<u64>>,
}

impl Counters {
    /// Counters for the providers that can have keys: every provider if there is D1, otherwise those with
    /// keys in the configuration.
    pub fn new(config: &Config) -> Self {
        let has_keys = |upstream: &Upstream| config.d1.is_some() || !upstream.keys.is_empty();
        let providers = config.upstreams.iter().filter(|(_, upstream)| has_keys(upstream));
        let providers: Vec<String> = providers.map(|(slug, _)| slug.clone()).collect();
        let counts = vec![0; OF_NO_PROVIDER + providers.len() * OF_A_PROVIDER];
        Counters { providers, counts: RefCell::new(counts) }
    }

    /// The providers with counters, in the order of their names.
    pub fn providers(&self) -> impl Iterator<Item = &str> {
        self.providers.iter().map(String::as_str)
    }

    /// Adds `count` to a provider's counter.
    pub(crate) fn add(&self, provider: &str, counter: Counter, count: u64) {
        let Ok(group) = self.providers.binary_search_by(|slug| slug.as_str().cmp(provider)) else {
            // A provider without keys.
            if let Counter::Request(ending) = counter {
                self.add_at(refusal_index(ending), 1);
            }
            return;
        };
        self.add_at(OF_NO_PROVIDER + group * OF_A_PROVIDER + offset(counter), count);
    }

    /// Counts a request that was refused before its provider was known.
    pub(crate) fn refuse(&self, code: Code) {
        self.add_at(refusal_index(Ending::Own(code)), 1);
    }

    /// Counts a failed call to D1.
    pub fn d1_failed(&self, class: Failure) {
        if let Some(index) = Failure::ALL.iter().position(|other| *other == class) {
            self.add_at(REFUSALS + index, 1);
        }
    }

    fn add_at(&self, index: usize, count: u64) {
        if let Some(sum) = self.counts.borrow_mut().get_mut(index) {
            *sum = sum.saturating_add(count);
        }
    }

    /// The names of all counters.
    pub fn names(&self) -> Vec<String> {
        let refusals = refusals().map(Code::as_str).chain([OTHER]);
        let refusals = refusals.map(|code| name("requests", NO_PROVIDER, "result", code));
        let own = self.providers.iter().flat_map(|slug| {
            let requests = endings().map(move |ending| name("requests", slug, "result", ending.as_str()));
            let attempts = [format!("one_balance.attempts.provider.{slug}")];
            let answers = OutcomeLabel::ALL.iter().map(move |label| name("answers", slug, "outcome", label.as_str()));
            let coolings = Reason::LEARNED.iter().map(move |reason| name("coolings", slug, "reason", reason.name()));
            let blocks = [format!("one_balance.blocks.provider.{slug}")];
            let tokens = ["in", "out"].into_iter().map(move |direction| name("tokens", slug, "direction", direction));
            requests.chain(attempts).chain(answers).chain(coolings).chain(blocks).chain(tokens)
        });
        let d1 = Failure::ALL.iter().map(|class| format!("one_balance.d1.errors.class.{}", class.name()));
        refusals.chain(d1).chain(own).collect()
    }

    /// Hands each non-zero sum to `report`, with the index of its name in [`Self::names`], and resets it.
    pub fn drain(&self, mut report: impl FnMut(usize, u64)) {
        for (index, sum) in self.counts.borrow_mut().iter_mut().enumerate().filter(|(_, sum)| **sum > 0) {
            report(index, core::mem::take(sum));
        }
    }
}

/// The index of a counter in its provider's group.
fn offset(counter: Counter) -> usize {
    match counter {
        // The first four are nearly all there is, and not looked for.
        Counter::Request(Ending::Served) => 0,
        Counter::Request(Ending::CallerError) => 1,
        Counter::Request(Ending::Failed) => 2,
        Counter::Request(Ending::Cancelled) => 3,
        Counter::Request(ending) => endings().position(|other| other == ending).unwrap_or(ENDINGS - 1),
        Counter::Attempt => ATTEMPTS,
        Counter::Answer(label) => ANSWERS + label as usize,
        Counter::Cooling(reason) => {
            COOLINGS + Reason::LEARNED.iter().position(|other| *other == reason).unwrap_or(Reason::LEARNED.len() - 1)
        }
        Counter::Block => BLOCKS,
        Counter::TokensIn => TOKENS,
        Counter::TokensOut => TOKENS + 1,
    }
}

/// The index of a refusal's counter; the last one's for an ending that is not a refusal.
fn refusal_index(ending: Ending) -> usize {
    refusals().position(|code| Ending::Own(code) == ending).unwrap_or(REFUSALS - 1)
}

fn name(family: &str, provider: &str, label: &str, value: &str) -> String {
    format!("one_balance.{family}.provider.{provider}.{label}.{value}")
}

/// The names of a provider's gauges, in the order of [`key_values`].
pub fn key_gauges(provider: &str) -> impl Iterator<Item = String> + use<'_> {
    let keys = KeyState::ALL.into_iter().map(move |state| name("keys", provider, "state", state.name()));
    // Seconds until every model has a ready key again; 0 if each has one now.
    keys.chain([format!("one_balance.recovery_seconds.provider.{provider}")])
}

/// The values of [`key_gauges`].
pub fn key_values(counts: &KeyCounts) -> [u64; 5] {
    let KeyCounts { ready, cooling, resting, blocked, recovery } = counts;
    [*ready, *cooling, *resting, *blocked, recovery.map_or(0, Span::as_secs_up)]
}

/// The names of the gauges of the sync with D1, in the order of [`d1_values`].
pub fn d1_gauges() -> impl Iterator<Item = String> {
    let common = [
        // 1 once D1's keys are in the pool.
        "one_balance.d1.loaded",
        // Seconds since the snapshot in force was read.
        "one_balance.d1.snapshot_age_seconds",
        // Blocks and coolings that wait to be written.
        "one_balance.d1.outbox",
    ];
    // 1 while the last call has failed for this reason.
    let failing = Failure::ALL.iter().map(|class| format!("one_balance.d1.failing.class.{}", class.name()));
    common.map(str::to_owned).into_iter().chain(failing)
}

/// The values of [`d1_gauges`].
pub fn d1_values(status: &Status, now: Time) -> impl Iterator<Item = u64> {
    let loaded = status.snapshot.is_some();
    let age = status.snapshot.map_or(0, |read| read.until(now).0 / 1000);
    let failure = status.failure;
    let failures = Failure::ALL.into_iter().map(move |class| u64::from(failure == Some(class)));
    [u64::from(loaded), age, u64::from(status.outbox)].into_iter().chain(failures)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters() -> Counters {
        let env = |name: &str| match name {
            "AUTH_KEY" => Some("a".to_owned()),
            "PROVIDER_KEYS" => Some("openai=k;groq=g".to_owned()),
            _ => None,
        };
        Counters::new(&Config::parse(b"", env).unwrap())
    }

    fn counted(counters: &Counters) -> Vec<(String, u64)> {
        let names = counters.names();
        let mut counted = Vec::new();
        counters.drain(|index, sum| counted.push((names[index].clone(), sum)));
        counted
    }

    #[test]
    fn each_count_is_reported_under_its_name() {
        let counters = counters();
        assert_eq!(counters.names().len(), counters.counts.borrow().len());
        let mut expected = Vec::new();
        for slug in ["groq", "openai"] {
            let mut add = |counter, name: String| {
                counters.add(slug, counter, 2);
                expected.push((name, 2));
            };
            for ending in endings() {
                let result = ending.as_str();
                add(Counter::Request(ending), format!("one_balance.requests.provider.{slug}.result.{result}"));
            }
            add(Counter::Attempt, format!("one_balance.attempts.provider.{slug}"));
            for label in OutcomeLabel::ALL {
                let outcome = label.as_str();
                add(Counter::Answer(label), format!("one_balance.answers.provider.{slug}.outcome.{outcome}"));
            }
            for reason in Reason::LEARNED {
                let name = format!("one_balance.coolings.provider.{slug}.reason.{}", reason.name());
                add(Counter::Cooling(reason), name);
            }
            add(Counter::Block, format!("one_balance.blocks.provider.{slug}"));
            add(Counter::TokensIn, format!("one_balance.tokens.provider.{slug}.direction.in"));
            add(Counter::TokensOut, format!("one_balance.tokens.provider.{slug}.direction.out"));
        }
        assert_eq!(counted(&counters), expected);
        assert_eq!(counted(&counters), [], "what was reported is not reported again");
    }

    #[test]
    fn unknown_words_are_counted_as_other() {
        let counters = counters();
        counters.refuse(Code::InvalidAuthKey);
        counters.refuse(Code::ProviderTimeout);
        counters.add("mistral", Counter::Request(Ending::Own(Code::NoKeys)), 1);
        counters.add("mistral", Counter::Attempt, 1);
        counters.add("openai", Counter::Request(Ending::Own(Code::UnknownPath)), 1);
        counters.d1_failed(Failure::Token);
        let none = |code: &str| format!("one_balance.requests.provider.none.result.{code}");
        assert_eq!(
            counted(&counters),
            [
                (none("invalid_auth_key"), 1),
                (none("other"), 2),
                ("one_balance.d1.errors.class.token".to_owned(), 1),
                ("one_balance.requests.provider.openai.result.other".to_owned(), 1)
            ]
        );
    }

    #[test]
    fn each_d1_value_is_reported_under_its_name() {
        let status = Status { snapshot: Some(Time::from_secs(100)), outbox: 7, failure: Some(Failure::RateLimited) };
        let values: Vec<u64> = d1_values(&status, Time::from_secs(142)).collect();
        let gauges: Vec<String> = d1_gauges().collect();
        let named: Vec<_> = gauges.iter().zip(&values).filter(|(_, value)| **value > 0).collect();
        let name = |suffix| gauges.iter().find(|name| name.ends_with(suffix)).unwrap();
        assert_eq!(
            named,
            [(name("loaded"), &1), (name("age_seconds"), &42), (name("outbox"), &7), (name("rate_limited"), &1)]
        );
        assert_eq!(values.len(), gauges.len());
        for (class, gauge) in Failure::ALL.iter().zip(gauges.iter().skip(3)) {
            assert_eq!(*gauge, format!("one_balance.d1.failing.class.{}", class.name()));
        }
        assert_eq!(d1_values(&Status::default(), Time::from_secs(142)).sum::<u64>(), 0);
    }
}
