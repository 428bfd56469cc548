//! What do we do about it: from what an answer said to the pool's state and the request's next step.
//!
//! Classification ([`crate::answer`]) says what happened; this says what follows. The two are apart
//! because the first is a matter of facts about providers and the second of policy.
//!
//! | outcome | the key | the request |
//! |---|---|---|
//! | success | what was held against it is over | delivered |
//! | daily or monthly quota, none in the tier | cools until the reset, or a day | next key |
//! | credit spent | rests for all models, then one request tries | next key |
//! | rate limit, end stated | cools until then | next key; tokens: three keys at most |
//! | 429 that says nothing | cools 65 s, then one request tries; the 2nd in a row until the daily reset | next key |
//! | many keys with such 429s at once | none is blamed, the provider rests | stops |
//! | credential | blocked (many at once: rests) | next key |
//! | model access, other 403 | this model cools on it | three keys at most |
//! | transient, reset, timeout | nothing | next key, with backoff |
//! | overloaded, region, gateway | nothing | stops |
//! | the caller's fault | nothing | delivered |

use crate::answer::stream::Usage;
use crate::answer::{Exhausted, Outcome, Period, Quota, RateLimit, StatedLimit, Verdict, What, Window};
use crate::config::{DailyQuota, Escalate, Policy, Upstream};
use crate::journal::Journal;
use crate::metrics::{Counter, NO_ANSWER, Tally};
use crate::pool::providers::EGRESS_REST;
use crate::pool::quota::{Dimension, UNLIMITED};
use crate::pool::record::{Block, Note, Pause, Reason, Record, Sync, Trial};
use crate::pool::store::Store;
use crate::pool::{Lease, Pool, counts};
use crate::provider::Api;
use crate::ticket::Ticket;
use crate::time::{DAY, MINUTE, Span, Time};

/// How long a key is left alone by more requests than it takes at a time.
const CONCURRENCY_REST: Span = Span::secs(5);
/// How long a key is not asked for a model that it may not use.
const MODEL_ACCESS_REST: Span = Span::secs(3600);
/// How long a key rests instead of being blocked, when too many are refused at once.
const REFUSED_REST: Span = Span::secs(600);

/// What an answer is about.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The provider.
    pub upstream: &'a Upstream,
    /// The model.
    pub model: &'a str,
    /// The key, as it was leased.
    pub lease: Lease,
    /// When that was.
    pub leased_at: Time,
    /// How keys are treated.
    pub policy: &'a Policy,
    /// The time.
    pub now: Time,
    /// What is counted.
    pub tally: &'a Tally,
    /// What is told in the log.
    pub journal: &'a Journal,
}

/// What follows for the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Walk {
    /// The answer is the client's.
    Deliver,
    /// Another key may do better.
    Next,
    /// Another key may do better, but not many: the request itself may be the reason.
    NextFew,
    /// No other key would do better. The client may come back at that time, if it is known.
    Stop(Option<Time>),
}

/// Learns from a verdict.
pub fn learn(pool: &mut Pool, store: &dyn Store, subject: Subject, verdict: &Verdict) -> Walk {
    let lesson = Lesson { subject, verdict };
    lesson.tally(Counter::Answer(verdict.outcome.name()));
    for limit in &verdict.limits {
        lesson.limit(pool, store, limit);
    }
    let walk = match verdict.outcome {
        Outcome::Success { exhausted } => lesson.success(pool, store, exhausted),
        Outcome::Quota(quota) => lesson.quota(pool, store, quota),
        Outcome::RateLimit(limit) => lesson.rate_limit(pool, store, limit),
        Outcome::Credential => lesson.credential(pool, store),
        Outcome::ModelAccess => lesson.few(pool, store, Reason::ModelAccess, MODEL_ACCESS_REST),
        Outcome::Forbidden => lesson.few(pool, store, Reason::Forbidden, subject.policy.default_cooling),
        Outcome::Transient { .. } => lesson.nothing(pool, store, Walk::Next),
        Outcome::Overloaded { until } | Outcome::Gateway { until } => lesson.nothing(pool, store, Walk::Stop(until)),
        Outcome::Region => lesson.nothing(pool, store, Walk::Stop(None)),
        Outcome::Caller => lesson.nothing(pool, store, Walk::Deliver),
    };
    if !matches!(verdict.outcome, Outcome::Success { .. }) {
        lesson.give_back(store);
    }
    walk
}

/// An attempt that came to no answer says nothing of its key.
pub fn unanswered(pool: &mut Pool, store: &dyn Store, subject: Subject) {
    subject.tally.add(&subject.upstream.slug, Counter::Answer(NO_ANSWER), 1);
    unused(pool, store, subject);
}

/// A lease has come to nothing.
pub fn unused(pool: &mut Pool, store: &dyn Store, subject: Subject) {
    release_trial(pool, store, subject);
    give_back(store, subject);
}

/// A request was served with so many tokens: they take the place of those that were expected, if
/// tokens are limited at all. Only then the `clock` is asked.
pub fn served(pool: &Pool, store: &dyn Store, ticket: &Ticket, tokens: Usage, clock: impl Fn() -> Time) {
    let Ticket { upstream, model, lease, leased_at, .. } = ticket;
    let learned = pool.provider(&upstream.slug).map(|state| state.learned(model)).unwrap_or_default();
    let (Some(expected), true) = (lease.counted, upstream.quota(model).or(learned).counts_tokens()) else { return };
    let tokens = match upstream.provider.api {
        // Google's token quotas count what goes in.
        Api::Gemini => tokens.input,
        _ => tokens.input.saturating_add(tokens.output),
    };
    let now = clock();
    counts::change(store, lease.id, model, now, &mut |usage| {
        usage.correct(upstream.provider.minute, expected, tokens, *leased_at, now);
        true
    });
}

struct Lesson<'a> {
    subject: Subject<'a>,
    verdict: &'a Verdict,
}

impl Lesson<'_> {
    fn success(&self, pool: &mut Pool, store: &dyn Store, exhausted: Option<Exhausted>) -> Walk {
        let Subject { upstream: Upstream { slug, .. }, model, lease, leased_at, now, .. } = self.subject;
        let held =
            pool.record(lease.id).is_some_and(|record| record.resting.is_some() || record.model(model).is_some());
        if held {
            pool.change(store, lease.id, now, |record| record.succeeded(model, leased_at));
        }
        if pool.provider(slug).is_some_and(crate::pool::providers::ProviderState::is_suspect) {
            pool.change_provider(store, slug, |state| state.succeeded());
        }
        // An answer that states the limit itself knows better.
        let stated = |full: &Dimension| self.verdict.limits.iter().any(|limit| self.dimension(limit) == Some(*full));
        if let Some(dimension) = lease.beyond.filter(|full| !stated(full)) {
            counts::change(store, lease.id, model, now, &mut |usage| usage.state(dimension, UNLIMITED));
            pool.change_provider(store, slug, |state| state.limit_trial_succeeded(model));
        }
        if let Some(exhausted) = exhausted {
            // The provider wrote the header when the request came, not when its answer was ready.
            let late = leased_at.until(now);
            let until = exhausted
                .until
                .map_or_else(|| self.end_of(exhausted.window), |until| Time(until.0.saturating_sub(late.0)));
            self.cool(pool, store, Reason::Exhausted, until, Trial::Believed);
        }
        Walk::Deliver
    }

    fn quota(&self, pool: &mut Pool, store: &dyn Store, quota: Quota) -> Walk {
        let Subject { lease, model, policy, now, .. } = self.subject;
        self.count(pool, store);
        match quota.period {
            Period::Daily => {
                let until = quota.until.unwrap_or_else(|| self.daily_reset());
                let repeated = pool.record(lease.id).and_then(|record| record.model(model)?.quota) == quota.id;
                match quota.retry {
                    Some(retry) if policy.daily_quota == DailyQuota::HonourRetryDelayOnce && !repeated => {
                        self.cool(pool, store, Reason::RateLimit, retry, Trial::Believed);
                        pool.change(store, lease.id, now, |record| record.model_mut(model).quota = quota.id);
                    }
                    _ => self.cool(pool, store, Reason::DailyQuota, until, Trial::Believed),
                }
            }
            Period::Monthly => {
                let (until, trial) =
                    quota.until.map_or((now.plus(DAY), Trial::Needed), |until| (until, Trial::Believed));
                self.cool(pool, store, Reason::MonthlyQuota, until, trial);
            }
            Period::NotInTier => self.cool(pool, store, Reason::ModelAccess, now.plus(DAY), Trial::Needed),
            Period::Credit => {
                let until = quota.until.unwrap_or_else(|| now.plus(policy.credit_rest));
                self.rest(pool, store, Reason::Credit, until);
            }
        }
        Walk::Next
    }

    fn rate_limit(&self, pool: &mut Pool, store: &dyn Store, limit: RateLimit) -> Walk {
        let Subject { policy, now, .. } = self.subject;
        if limit.oversized {
            return self.nothing(pool, store, Walk::Stop(limit.until));
        }
        let unstated = limit.until.is_none() && limit.what == What::Unstated && limit.window == Window::Unstated;
        let escalates = self.count(pool, store) && (unstated || policy.escalate == Escalate::Always);
        match limit.until {
            _ if escalates => self.cool(pool, store, Reason::DailyQuota, self.daily_reset(), Trial::Needed),
            Some(until) => self.cool(pool, store, Reason::RateLimit, until, Trial::Believed),
            None if limit.what == What::Concurrency => {
                self.cool(pool, store, Reason::RateLimit, now.plus(CONCURRENCY_REST), Trial::Needed);
            }
            None if limit.window == Window::Day => {
                self.cool(pool, store, Reason::DailyQuota, self.daily_reset(), Trial::Believed);
            }
            None => {
                let reason = if unstated { Reason::Unstated } else { Reason::RateLimit };
                self.cool(pool, store, reason, now.plus(policy.default_cooling), Trial::Needed);
            }
        }
        if unstated && !escalates && self.is_the_address(pool, store) {
            return Walk::Stop(Some(now.plus(EGRESS_REST)));
        }
        Walk::Next
    }

    /// Counts a 429; whether it is one too many. Parallel answers to one wall are all counted, but
    /// only an attempt that was leased after the last of them was known shows that the wall is
    /// still there.
    fn count(&self, pool: &mut Pool, store: &dyn Store) -> bool {
        let Subject { lease, leased_at, model, policy, now, .. } = self.subject;
        let escalates = pool.change(store, lease.id, now, |record| {
            let state = record.model_mut(model);
            let later = state.consecutive_429 == 0 || leased_at > state.last_429;
            state.consecutive_429 = state.consecutive_429.saturating_add(1);
            state.last_429 = now.max(state.last_429);
            later && state.consecutive_429 >= policy.consecutive_429_threshold
        });
        escalates == Some(true)
    }

    /// Notes an unexplained 429. If it is one of very many, the fault is that of the address all
    /// requests come from: the provider rests, and the keys are not blamed.
    fn is_the_address(&self, pool: &mut Pool, store: &dyn Store) -> bool {
        let Subject { upstream: Upstream { slug, .. }, model, lease, now, .. } = self.subject;
        let noted = pool.change_provider(store, slug, |state| state.unexplained(lease.id, now));
        let Some(Some(keys)) = noted else { return false };
        let acquit = |record: &mut Record| {
            let state = record.model_mut(model);
            state.consecutive_429 = state.consecutive_429.saturating_sub(1);
            state.cooling = state.cooling.filter(|cooling| cooling.reason != Reason::Unstated);
        };
        pool.change_many(store, keys.iter().copied(), now, |_, record| acquit(record));
        let count = keys.len();
        self.subject.journal.warn(
            now,
            format_args!("{slug}: {count} keys got an unexplained 429 at once; it is not the keys, so {slug} rests"),
        );
        true
    }

    fn credential(&self, pool: &mut Pool, store: &dyn Store) -> Walk {
        let Subject { upstream: Upstream { slug, .. }, lease, now, .. } = self.subject;
        let blamed = pool.change_provider(store, slug, |state| state.refused(lease.id, now));
        if blamed == Some(false) {
            let line = format_args!("{slug} refuses many keys at once; they rest instead of being blocked");
            self.subject.journal.warn(now, line);
            self.rest(pool, store, Reason::Forbidden, now.plus(REFUSED_REST));
            return Walk::Next;
        }
        let sync = self.sync(pool);
        pool.change(store, lease.id, now, |record| {
            if record.blocked.is_none() {
                record.blocked = Some(Block { since: now, sync });
            }
            record.last = Some(self.note());
        });
        self.tally(Counter::Block);
        let (key, evidence) = (self.shown_key(pool), self.verdict.evidence);
        self.subject.journal.warn(now, format_args!("key {key} of {slug} blocked: {evidence}"));
        Walk::Next
    }

    fn few(&self, pool: &mut Pool, store: &dyn Store, reason: Reason, rest: Span) -> Walk {
        self.cool(pool, store, reason, self.subject.now.plus(rest), Trial::Needed);
        Walk::NextFew
    }

    fn nothing(&self, pool: &mut Pool, store: &dyn Store, walk: Walk) -> Walk {
        release_trial(pool, store, self.subject);
        walk
    }

    fn cool(&self, pool: &mut Pool, store: &dyn Store, reason: Reason, until: Time, trial: Trial) {
        let Subject { upstream: Upstream { slug, .. }, model, lease, now, .. } = self.subject;
        let pause = Pause { from: now, until, reason, trial, sync: self.sync_of(pool, reason) };
        pool.change(store, lease.id, now, |record| {
            record.cool(model, pause);
            record.last = Some(self.note());
        });
        self.tally(Counter::Cooling(reason));
        let (key, evidence) = (self.shown_key(pool), self.verdict.evidence);
        let (model, reason) = (shown(model), reason.name());
        let line = format_args!("key {key} of {slug} cooled for {model} until {until} ({reason}): {evidence}");
        self.subject.journal.info(now, line);
    }

    fn rest(&self, pool: &mut Pool, store: &dyn Store, reason: Reason, until: Time) {
        let Subject { upstream: Upstream { slug, .. }, lease, now, .. } = self.subject;
        let pause = Pause { from: now, until, reason, trial: Trial::Needed, sync: Sync::Local };
        pool.change(store, lease.id, now, |record| {
            record.rest(pause);
            record.last = Some(self.note());
        });
        self.tally(Counter::Cooling(reason));
        let (key, evidence) = (self.shown_key(pool), self.verdict.evidence);
        let reason = reason.name();
        self.subject.journal.info(now, format_args!("key {key} of {slug} rests until {until} ({reason}): {evidence}"));
    }

    /// Learns a limit, for the model or, if it differs from what other keys have said, for the key.
    fn limit(&self, pool: &mut Pool, store: &dyn Store, stated: &StatedLimit) {
        let Subject { model, lease, upstream, now, .. } = self.subject;
        let slug = &upstream.slug;
        let (Some(dimension), Some(limit)) = (self.dimension(stated), stated.limit.filter(|limit| *limit > 0)) else {
            return;
        };
        if upstream.quota(model).get(dimension).is_some() {
            return;
        }
        let known = pool.provider(slug).and_then(|state| state.learned(model).get(dimension));
        // Every answer of some providers repeats it; what is known need not be written.
        if known == Some(limit) && matches!(self.verdict.outcome, Outcome::Success { .. }) {
            return;
        }
        if known.is_none() {
            pool.change_provider(store, slug, |state| state.state_limit(model, dimension, limit, now));
        }
        counts::change(store, lease.id, model, now, &mut |usage| usage.state(dimension, limit));
    }

    /// What a stated limit is, if it is one that is counted here.
    fn dimension(&self, limit: &StatedLimit) -> Option<Dimension> {
        let what = match limit.what {
            What::InputTokens if self.subject.upstream.provider.api == Api::Gemini => What::Tokens,
            what => what,
        };
        match (what, limit.window) {
            (What::Requests, Window::Minute) => Some(Dimension::RequestsPerMinute),
            (What::Requests, Window::Day) => Some(Dimension::RequestsPerDay),
            (What::Tokens, Window::Minute) => Some(Dimension::TokensPerMinute),
            (What::Tokens, Window::Day) => Some(Dimension::TokensPerDay),
            // Prompts and completions alone are not what is counted here.
            _ => None,
        }
    }

    fn give_back(&self, store: &dyn Store) {
        give_back(store, self.subject);
    }

    fn daily_reset(&self) -> Time {
        self.subject.upstream.provider.daily_reset.next(self.subject.now)
    }

    /// When a window ends whose end was not stated.
    fn end_of(&self, window: Window) -> Time {
        let now = self.subject.now;
        match window {
            Window::Second => now.plus(Span::secs(1)),
            Window::Hour => now.plus(Span::secs(3600)),
            Window::Day | Window::Month => self.daily_reset(),
            Window::Minute | Window::Unstated => now.plus(MINUTE),
        }
    }

    fn sync_of(&self, pool: &Pool, reason: Reason) -> Sync {
        match reason {
            // What one client's model name or request may have caused does not concern the Worker.
            Reason::ModelAccess | Reason::Forbidden | Reason::Exhausted => Sync::Local,
            _ => self.sync(pool),
        }
    }

    fn sync(&self, pool: &Pool) -> Sync {
        let has_row = pool.roster().key(self.subject.lease.id).is_some_and(|key| key.row.is_some());
        if has_row { Sync::Pending(self.subject.now) } else { Sync::Local }
    }

    fn note(&self) -> Note {
        Note { at: self.subject.now, evidence: self.verdict.evidence.to_string() }
    }

    fn tally(&self, counter: Counter) {
        self.subject.tally.add(&self.subject.upstream.slug, counter, 1);
    }

    fn shown_key(&self, pool: &Pool) -> String {
        let id = self.subject.lease.id;
        pool.roster().key(id).map_or_else(|| id.to_string(), crate::pool::Key::shown_id)
    }
}

/// A request that may have been the one that goes first says nothing of its key: another may go.
pub fn release_trial(pool: &mut Pool, store: &dyn Store, subject: Subject) {
    let Subject { lease, model, now, .. } = subject;
    if pool.record(lease.id).is_some_and(|record| record.needs_trial(model)) {
        pool.change(store, lease.id, now, |record| record.release_trial(model));
    }
}

fn give_back(store: &dyn Store, subject: Subject) {
    let Subject { upstream, lease, model, leased_at, now, .. } = subject;
    if let Some(tokens) = lease.counted {
        counts::change(store, lease.id, model, now, &mut |usage| {
            usage.give_back(upstream.provider.minute, tokens, leased_at, now);
            true
        });
    }
}

/// A model's name comes from a client: no line break of it gets into the log.
fn shown(model: &str) -> String {
    if model.is_empty() { "requests without a model".to_owned() } else { model.escape_debug().to_string() }
}
