//! Every metric: its family, its labels, its name. Envoy shows them as `wasmcustom.{name}`.
//!
//! Labels stand in the name as `.{label}.{value}`, from where the shipped bootstrap's `stats_tags`
//! take them for Prometheus. All names are defined at configure time: the host keeps each for good,
//! so none is made per request, and no label comes from a client: providers are those of the
//! configuration, all other values are lists in this file.
//!
//! Counting is adding in the VM's memory ([`Counters`]); the adapter hands the sums to the host at each
//! tick. A host call per count would cost a request more than all of its counting, and say the
//! same half a second earlier.

use std::cell::RefCell;

use crate::answer::Outcome;
use crate::config::Config;
use crate::d1::Status;
use crate::d1::api::Failure;
use crate::pool::record::Reason;
use crate::pool::{Census, State};
use crate::reply::{Code, Stage};
use crate::time::{Span, Time};

/// The `provider` of requests that were refused before it was known.
pub const NO_PROVIDER: &str = "none";

/// What became of a request, as metrics and the access log name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The provider's answer was sent to the client, and it was not an error.
    Served,
    /// The provider found fault with the request itself.
    CallerError,
    /// The provider's error was sent to the client, because no key did better.
    Failed,
    /// The client went away before there was an answer.
    Cancelled,
    /// An answer of ours took the place of the provider's.
    Own(Code),
    /// Another filter answered.
    Other,
}

impl Ending {
    /// Its name.
    pub const fn as_str(self) -> &'static str {
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

/// The label of what has none of its own.
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
/// One more than there are codes, for all others together.
const REFUSALS: usize = codes_at(Stage::Refusal) + 1;

const OUTCOMES: [&str; 13] = [
    SUCCESS,
    "quota",
    "rate_limit",
    "transient",
    "overloaded",
    "region",
    "credential",
    "model_access",
    "forbidden",
    "not_mine",
    "gateway",
    "caller",
    NO_ANSWER,
];
/// The outcome of an attempt that was served.
pub const SUCCESS: &str = "success";
/// The outcome of an attempt that was reset or timed out.
pub const NO_ANSWER: &str = "no_answer";

/// Why keys cool or rest; what D1 told is counted where it was found out.
const REASONS: [Reason; 8] = [
    Reason::Unstated,
    Reason::RateLimit,
    Reason::DailyQuota,
    Reason::MonthlyQuota,
    Reason::Credit,
    Reason::ModelAccess,
    Reason::Forbidden,
    Reason::Exhausted,
];

/// What is counted, of a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// A request has ended.
    Request(Ending),
    /// A key was tried.
    Attempt,
    /// What an answer said: one of [`OUTCOMES`].
    Answer(&'static str),
    /// A key cools or rests.
    Cooling(Reason),
    /// A key was blocked.
    Block,
    /// Tokens of prompts.
    TokensIn,
    /// Tokens of answers.
    TokensOut,
}

const ATTEMPTS: usize = ENDINGS;
const ANSWERS: usize = ATTEMPTS + 1;
const COOLINGS: usize = ANSWERS + OUTCOMES.len();
const BLOCKS: usize = COOLINGS + REASONS.len();
const TOKENS: usize = BLOCKS + 1;
const OF_A_PROVIDER: usize = TOKENS + 2;
const OF_NO_PROVIDER: usize = REFUSALS + FAILURES.len();

impl Outcome {
    /// Its name in metrics, the access log and the status.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Outcome::Success { .. } => SUCCESS,
            Outcome::Quota(_) => "quota",
            Outcome::RateLimit(_) => "rate_limit",
            Outcome::Transient { .. } => "transient",
            Outcome::Overloaded { .. } => "overloaded",
            Outcome::Region => "region",
            Outcome::Credential { .. } => "credential",
            Outcome::ModelAccess => "model_access",
            Outcome::Forbidden => "forbidden",
            Outcome::NotMine => "not_mine",
            Outcome::Gateway { .. } => "gateway",
            Outcome::Caller => "caller",
        }
    }
}

/// The counts of one worker that the host has not been told yet.
#[derive(Debug)]
pub struct Counters {
    providers: Vec<String>,
    counts: RefCell<Vec<u64>>,
}

impl Counters {
    /// Counts for the providers that can have keys: with D1 any, else those that are configured.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let has_keys = |upstream: &crate::config::Upstream| config.d1.is_some() || !upstream.keys.is_empty();
        let providers = config.upstreams.iter().filter(|(_, upstream)| has_keys(upstream));
        let providers: Vec<String> = providers.map(|(slug, _)| slug.clone()).collect();
        let counts = vec![0; OF_NO_PROVIDER + providers.len() * OF_A_PROVIDER];
        Counters { providers, counts: RefCell::new(counts) }
    }

    /// Its providers, in the order of their names.
    pub fn providers(&self) -> impl Iterator<Item = &str> {
        self.providers.iter().map(String::as_str)
    }

    /// Counts.
    pub fn add(&self, provider: &str, counter: Counter, count: u64) {
        let Ok(number) = self.providers.binary_search_by(|slug| slug.as_str().cmp(provider)) else {
            // A provider without keys.
            if let Counter::Request(ending) = counter {
                self.add_at(refusal(ending), 1);
            }
            return;
        };
        self.add_at(OF_NO_PROVIDER + number * OF_A_PROVIDER + place(counter), count);
    }

    /// Counts a request that was refused before its provider was known.
    pub fn refuse(&self, code: Code) {
        self.add_at(refusal(Ending::Own(code)), 1);
    }

    /// Counts a call to D1 that failed.
    pub fn d1_failed(&self, class: Failure) {
        if let Some(place) = FAILURES.iter().position(|other| *other == class) {
            self.add_at(REFUSALS + place, 1);
        }
    }

    fn add_at(&self, place: usize, count: u64) {
        if let Some(sum) = self.counts.borrow_mut().get_mut(place) {
            *sum = sum.saturating_add(count);
        }
    }

    /// The names of all counters.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let refusals = refusals().map(Code::as_str).chain([OTHER]);
        let refusals = refusals.map(|code| name("requests", NO_PROVIDER, "result", code));
        let own = self.providers.iter().flat_map(|slug| {
            let requests = endings().map(move |ending| name("requests", slug, "result", ending.as_str()));
            let attempts = [format!("one_balance.attempts.provider.{slug}")];
            let answers = OUTCOMES.iter().map(move |outcome| name("answers", slug, "outcome", outcome));
            let coolings = REASONS.iter().map(move |reason| name("coolings", slug, "reason", reason.name()));
            let blocks = [format!("one_balance.blocks.provider.{slug}")];
            let tokens = ["in", "out"].into_iter().map(move |direction| name("tokens", slug, "direction", direction));
            requests.chain(attempts).chain(answers).chain(coolings).chain(blocks).chain(tokens)
        });
        let d1 = FAILURES.iter().map(|class| format!("one_balance.d1.errors.class.{}", class.name()));
        refusals.chain(d1).chain(own).collect()
    }

    /// Hands over what was counted, each as the place of its name and its sum, and begins anew.
    pub fn drain(&self, mut tell: impl FnMut(usize, u64)) {
        for (place, sum) in self.counts.borrow_mut().iter_mut().enumerate().filter(|(_, sum)| **sum > 0) {
            tell(place, core::mem::take(sum));
        }
    }
}

fn place(counter: Counter) -> usize {
    match counter {
        // The first four are nearly all there is, and not looked for.
        Counter::Request(Ending::Served) => 0,
        Counter::Request(Ending::CallerError) => 1,
        Counter::Request(Ending::Failed) => 2,
        Counter::Request(Ending::Cancelled) => 3,
        Counter::Request(ending) => endings().position(|other| other == ending).unwrap_or(ENDINGS - 1),
        Counter::Attempt => ATTEMPTS,
        Counter::Answer(outcome) => ANSWERS + position(&OUTCOMES, outcome),
        Counter::Cooling(reason) => {
            COOLINGS + REASONS.iter().position(|other| *other == reason).unwrap_or(REASONS.len() - 1)
        }
        Counter::Block => BLOCKS,
        Counter::TokensIn => TOKENS,
        Counter::TokensOut => TOKENS + 1,
    }
}

/// The index of a refusal's counter; the last one's for an ending that is not a refusal.
fn refusal(ending: Ending) -> usize {
    refusals().position(|code| Ending::Own(code) == ending).unwrap_or(REFUSALS - 1)
}

/// The place in a list; the last one's for what is not in it.
fn position(list: &[&str], value: &str) -> usize {
    list.iter().position(|other| *other == value).unwrap_or(list.len() - 1)
}

fn name(family: &str, provider: &str, label: &str, value: &str) -> String {
    format!("one_balance.{family}.provider.{provider}.{label}.{value}")
}

const STATES: [State; 4] = [State::Ready, State::Cooling, State::Resting, State::Blocked];

/// The names of a provider's gauges, in the order of [`census_values`].
pub fn census_gauges(provider: &str) -> impl Iterator<Item = String> + use<'_> {
    let keys = STATES.into_iter().map(move |state| name("keys", provider, "state", state.name()));
    // Seconds until a key is ready, while none is for some model; else 0.
    keys.chain([format!("one_balance.recovery_seconds.provider.{provider}")])
}

/// The values of [`census_gauges`].
#[must_use]
pub fn census_values(census: &Census) -> [u64; 5] {
    let Census { ready, cooling, resting, blocked, recovery } = census;
    [*ready, *cooling, *resting, *blocked, recovery.map_or(0, Span::as_secs_up)]
}

/// Gauges of the sync with D1, in the order of [`d1_values`].
pub const D1_GAUGES: [&str; 10] = [
    // 1 once D1's keys are in the pool.
    "one_balance.d1.loaded",
    // Seconds since the snapshot in force was read.
    "one_balance.d1.snapshot_age_seconds",
    // Blocks and cooldowns that wait to be written.
    "one_balance.d1.outbox",
    // 1 while the last call has failed for this reason.
    "one_balance.d1.failing.class.unreachable",
    "one_balance.d1.failing.class.token",
    "one_balance.d1.failing.class.database",
    "one_balance.d1.failing.class.rate_limited",
    "one_balance.d1.failing.class.server",
    "one_balance.d1.failing.class.statement",
    "one_balance.d1.failing.class.garbled",
];

const FAILURES: [Failure; 7] = [
    Failure::Unreachable,
    Failure::Token,
    Failure::Database,
    Failure::RateLimited,
    Failure::Server,
    Failure::Statement,
    Failure::Garbled,
];

/// The values of [`D1_GAUGES`].
pub fn d1_values(status: &Status, now: Time) -> impl Iterator<Item = u64> {
    let loaded = status.snapshot.is_some();
    let age = status.snapshot.map_or(0, |read| read.until(now).0 / 1000);
    let failure = status.failure;
    let failures = FAILURES.into_iter().map(move |class| u64::from(failure == Some(class)));
    [u64::from(loaded), age, u64::from(status.outbox)].into_iter().chain(failures)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally() -> Counters {
        let env = |name: &str| match name {
            "AUTH_KEY" => Some("a".to_owned()),
            "PROVIDER_KEYS" => Some("openai=k;groq=g".to_owned()),
            _ => None,
        };
        Counters::new(&Config::parse(b"", env).unwrap())
    }

    fn counted(tally: &Counters) -> Vec<(String, u64)> {
        let names = tally.names();
        let mut counted = Vec::new();
        tally.drain(|place, sum| counted.push((names[place].clone(), sum)));
        counted
    }

    #[test]
    fn counts_stand_at_their_names() {
        let tally = tally();
        assert_eq!(tally.names().len(), tally.counts.borrow().len());
        let mut expected = Vec::new();
        for slug in ["groq", "openai"] {
            let mut add = |counter, name: String| {
                tally.add(slug, counter, 2);
                expected.push((name, 2));
            };
            for ending in endings() {
                let result = ending.as_str();
                add(Counter::Request(ending), format!("one_balance.requests.provider.{slug}.result.{result}"));
            }
            add(Counter::Attempt, format!("one_balance.attempts.provider.{slug}"));
            for outcome in OUTCOMES {
                add(Counter::Answer(outcome), format!("one_balance.answers.provider.{slug}.outcome.{outcome}"));
            }
            for reason in REASONS {
                let name = format!("one_balance.coolings.provider.{slug}.reason.{}", reason.name());
                add(Counter::Cooling(reason), name);
            }
            add(Counter::Block, format!("one_balance.blocks.provider.{slug}"));
            add(Counter::TokensIn, format!("one_balance.tokens.provider.{slug}.direction.in"));
            add(Counter::TokensOut, format!("one_balance.tokens.provider.{slug}.direction.out"));
        }
        assert_eq!(counted(&tally), expected);
        assert_eq!(counted(&tally), [], "what was told is not told again");
    }

    #[test]
    fn no_label_comes_from_elsewhere() {
        let tally = tally();
        tally.refuse(Code::InvalidAuthKey);
        tally.refuse(Code::ProviderTimeout);
        tally.add("mistral", Counter::Request(Ending::Own(Code::NoKeys)), 1);
        tally.add("mistral", Counter::Attempt, 1);
        tally.add("openai", Counter::Request(Ending::Own(Code::UnknownPath)), 1);
        tally.d1_failed(Failure::Token);
        let none = |code: &str| format!("one_balance.requests.provider.none.result.{code}");
        assert_eq!(
            counted(&tally),
            [
                (none("invalid_auth_key"), 1),
                (none("other"), 2),
                ("one_balance.d1.errors.class.token".to_owned(), 1),
                ("one_balance.requests.provider.openai.result.other".to_owned(), 1)
            ]
        );
    }

    #[test]
    fn values_stand_at_their_names() {
        let status = Status { snapshot: Some(Time::from_secs(100)), outbox: 7, failure: Some(Failure::RateLimited) };
        let values: Vec<u64> = d1_values(&status, Time::from_secs(142)).collect();
        let named: Vec<_> = D1_GAUGES.iter().zip(&values).filter(|(_, value)| **value > 0).collect();
        let name = |suffix| D1_GAUGES.iter().find(|name| name.ends_with(suffix)).unwrap();
        assert_eq!(
            named,
            [(name("loaded"), &1), (name("age_seconds"), &42), (name("outbox"), &7), (name("rate_limited"), &1)]
        );
        assert_eq!(values.len(), D1_GAUGES.len());
        for (class, gauge) in FAILURES.iter().zip(D1_GAUGES.iter().skip(3)) {
            assert_eq!(*gauge, format!("one_balance.d1.failing.class.{}", class.name()));
        }
        assert_eq!(d1_values(&Status::default(), Time::from_secs(142)).sum::<u64>(), 0);
    }
}
