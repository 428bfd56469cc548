//! What do we do about it: from what an answer said to the pool's state and the request's next step.
//!
//! Classification ([`crate::answer`]) says what happened; this says what follows. The two are apart
//! because the first is a matter of facts about providers and the second of policy.
//!
//! | outcome | the key | the request |
//! |---|---|---|
//! | success | what was held against it is over; keys that this request was refused by are blamed | delivered |
//! | daily or monthly quota, none in the tier | cools until the reset, or a day | next key |
//! | credit spent | cools for the model a day, then one request tries | next key |
//! | rate limit, end stated | cools until then | next key; tokens: three keys at most |
//! | 429 that says nothing | cools 65 s, then one request tries; the 2nd in a row until the daily reset | next key |
//! | many keys with such 429s for one model at once | none is blamed, the model rests | stops |
//! | credential | rests briefly; blocked once another request sees it (many at once: rests) | next key |
//! | model access, other 403 | nothing, unless another key has served the model since: then this model cools on it | three keys at most |
//! | another key's resource | nothing | next key |
//! | transient, overloaded | nothing | next key, three more at most, with backoff; stops if it asks for a longer wait |
//! | reset, timeout | nothing | next key, with backoff; stops after two slow attempts |
//! | region, gateway | nothing | stops |
//! | the caller's fault | nothing | delivered |
//!
//! # What one request can do
//!
//! Almost any answer may be the doing of the request that it answers, so what one request can hold against keys is
//! bounded, here and in one place: where the provider has not stated the end, at most [`MAX_GUESSES`] keys are
//! held by one request, each for its model only, except for refused credentials.
//! A key is blocked only when two requests have seen it refused with no success between (of two clients, where
//! there are several), or when the answer says something that no request can cause.

use crate::answer::stream::Usage;
use crate::answer::{Evidence, Exhausted, Outcome, Period, Quota, RateLimit, StatedLimit, Verdict, What, Window};
use crate::balancer::progress::{Leased, Refused};
use crate::config::{DailyQuota, Escalate, Policy};
use crate::host::Host;
use crate::observe::key_log::KeyLog;
use crate::observe::metrics::{Counter, Counters, OutcomeLabel};
use crate::pool::Pool;
use crate::pool::providers::{MODEL_REST, ProviderState};
use crate::pool::record::{Block, LastError, Pause, Reason, Record, Refusal, SyncState, Trial};
use crate::provider::Api;
use crate::quota::{Dimension, UNLIMITED};
use crate::request::forward::Outgoing;
use crate::time::{DAY, MINUTE, Span, Time};

/// How long a key is left alone by more requests than it takes at a time.
const CONCURRENCY_REST: Span = Span::secs(5);
/// How long a key is not asked for a model that it may not use.
const MODEL_ACCESS_REST: Span = Span::secs(3600);
/// How long a key rests after its credential was refused, until another request confirms it; four times as long
/// after each further time.
const REFUSAL_REST: Span = Span::secs(5);
/// The longest rest or cooling after refusals that repeat themselves.
const LONGEST_REFUSAL: Span = DAY;
/// How many keys one request may hold by a guess.
pub const MAX_GUESSES: u8 = 3;
/// The longest wait that a provider may ask for, because it is overloaded or stumbled, before another key is tried in the same request.
const SHORT_WAIT: Span = Span::secs(2);
/// How long a key rests instead of being blocked, when too many are refused at once.
const REFUSED_REST: Span = Span::secs(600);

/// What follows for the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextStep {
    /// The answer is the client's.
    Deliver,
    /// Another key may do better.
    TryNext,
    /// Another key may do better, but not many: the request itself may be the reason.
    TryFewMore,
    /// No other key would do better. The client may come back at that time, if it is known.
    Stop(Option<Time>),
}

/// An attempt with a leased key, and all that learning from its answer needs.
pub struct Lesson<'a> {
    /// The keys.
    pub pool: &'a mut Pool,
    /// The request.
    pub outgoing: &'a Outgoing,
    /// The key.
    pub leased: Leased,
    /// How many keys this request has held by a guess.
    pub guesses: &'a mut u8,
    /// How keys are treated.
    pub policy: &'a Policy,
    /// How many clients there are.
    pub clients: usize,
    /// The worker's surroundings.
    pub host: &'a dyn Host,
    /// Where events are counted.
    pub counters: &'a Counters,
    /// Where they are logged.
    pub log: &'a KeyLog,
}

impl Lesson<'_> {
    /// Learns from a verdict, and says what follows for the request.
    pub fn learn(mut self, verdict: &Verdict) -> NextStep {
        self.count(Counter::Answer(verdict.outcome.label()));
        for limit in &verdict.limits {
            self.learn_limit(limit, matches!(verdict.outcome, Outcome::Success { .. }));
        }
        let evidence = &verdict.evidence;
        let default_cooling = self.policy.default_cooling;
        let step = match verdict.outcome {
            Outcome::Success { exhausted } => {
                self.success(verdict, exhausted);
                NextStep::Deliver
            }
            Outcome::Quota(quota) => self.quota(quota, evidence),
            Outcome::RateLimit(limit) => self.rate_limit(limit, evidence),
            // What is not about a model may want another kind of key, such as an administrator's.
            Outcome::Credential { .. } if self.outgoing.model.is_empty() => {
                self.refused(Reason::Forbidden, default_cooling, evidence)
            }
            Outcome::Credential { conclusive } => self.credential(conclusive, evidence),
            Outcome::ModelAccess => self.refused(Reason::ModelAccess, MODEL_ACCESS_REST, evidence),
            Outcome::Forbidden => self.refused(Reason::Forbidden, default_cooling, evidence),
            Outcome::NotMine => self.release_and(NextStep::TryNext),
            Outcome::Transient { until } | Outcome::Overloaded { until } => self.release_and(match until {
                Some(at) if self.host.now().until(at) > SHORT_WAIT => NextStep::Stop(until),
                _ => NextStep::TryNext,
            }),
            Outcome::Gateway { until } => self.release_and(NextStep::Stop(until)),
            Outcome::Region => self.release_and(NextStep::Stop(None)),
            Outcome::Caller => self.release_and(NextStep::Deliver),
        };
        if !matches!(verdict.outcome, Outcome::Success { .. }) {
            self.give_back();
        }
        step
    }

    /// An attempt without an answer says nothing about its key.
    pub fn unanswered(self) {
        self.count(Counter::Answer(OutcomeLabel::NoAnswer));
        self.unused();
    }

    /// The lease was not used after all.
    pub fn unused(mut self) {
        self.release_trial();
        self.give_back();
    }

    /// The client has left before the answer: the request stays counted, because the provider has it, but what it
    /// would have taken of the tokens is not known and is given back.
    pub fn aborted(mut self) {
        self.release_trial();
        self.served(Usage::default());
    }

    /// The request was served: replaces the estimated token count by the real one, where tokens are limited.
    pub fn served(self, tokens: Usage) {
        let Outgoing { upstream, model, .. } = self.outgoing;
        let Leased { lease, at } = self.leased;
        let learned = self.pool.provider(&upstream.slug).map(|state| state.learned(model)).unwrap_or_default();
        let (Some(expected), true) = (lease.counted, upstream.quota(model).or(learned).counts_tokens()) else { return };
        let tokens = match upstream.provider.api {
            // Google's token quotas count what is sent to it.
            Api::Gemini => tokens.input,
            _ => tokens.input.saturating_add(tokens.output),
        };
        let now = self.host.now();
        self.pool.change_usage(lease.id, model, &mut |usage| {
            usage.correct(upstream.provider.minute, expected, tokens, at, now);
            true
        });
    }

    /// A request that may have been a trial says nothing about its key: another request may be the trial.
    pub fn release_trial(&mut self) {
        let (id, model) = (self.leased.lease.id, &self.outgoing.model);
        if self.pool.record(id).is_some_and(|record| record.needs_trial(model)) {
            self.pool.change(id, |record| record.release_trial(model));
        }
    }

    fn success(&mut self, verdict: &Verdict, exhausted: Option<Exhausted>) {
        let Outgoing { upstream, model, .. } = self.outgoing;
        let Leased { lease, at } = self.leased;
        let slug = &upstream.slug;
        let known =
            |record: &Record| record.resting.is_some() || record.refusal.is_some() || record.model(model).is_some();
        if self.pool.record(lease.id).is_some_and(known) {
            self.pool.change(lease.id, |record| record.succeeded(model, at));
        }
        let doubted = |state: &ProviderState| state.is_suspect(model) || state.denials.concerns(model, lease.id);
        if self.pool.provider(slug).is_some_and(doubted) {
            self.pool.change_provider(slug, |state| {
                state.succeeded(model);
                state.denials.served(model, lease.id, at);
            });
        }
        // An answer that states the limit itself knows better.
        let stated = |full: &Dimension| verdict.limits.iter().any(|limit| self.dimension(limit) == Some(*full));
        if let Some(dimension) = lease.beyond.filter(|full| !stated(full)) {
            self.pool.change_usage(lease.id, model, &mut |usage| usage.state_limit(dimension, UNLIMITED));
            self.pool.change_provider(slug, |state| state.limit_trial_succeeded(model));
        }
        if let Some(exhausted) = exhausted {
            // The provider wrote the header when the request came, not when its answer was ready.
            let late = at.until(self.host.now());
            let until = exhausted
                .until
                .map_or_else(|| self.end_of(exhausted.window), |until| Time(until.0.saturating_sub(late.0)));
            self.cool(Reason::Exhausted, until, Trial::Believed, &verdict.evidence);
        }
    }

    fn quota(&mut self, quota: Quota, evidence: &Evidence) -> NextStep {
        let (now, id, model) = (self.host.now(), self.leased.lease.id, &self.outgoing.model);
        self.count_429();
        match quota.period {
            Period::Daily => {
                let until = quota.until.unwrap_or_else(|| self.daily_reset());
                let repeated = self.pool.record(id).and_then(|record| record.model(model)?.quota) == quota.id;
                match quota.retry {
                    Some(retry) if self.policy.daily_quota == DailyQuota::HonourRetryDelayOnce && !repeated => {
                        self.cool(Reason::RateLimit, retry, Trial::Believed, evidence);
                        self.pool.change(id, |record| record.model_mut(model).quota = quota.id);
                    }
                    _ => {
                        self.cool(Reason::DailyQuota, until, Trial::Believed, evidence);
                    }
                }
            }
            Period::Monthly => {
                let (until, trial) =
                    quota.until.map_or((now.plus(DAY), Trial::Needed), |until| (until, Trial::Believed));
                self.cool(Reason::MonthlyQuota, until, trial, evidence);
            }
            Period::NotInTier => {
                self.cool(Reason::ModelAccess, now.plus(DAY), Trial::Needed, evidence);
            }
            Period::Credit => {
                let until = quota.until.unwrap_or_else(|| now.plus(self.policy.credit_rest));
                // For this model only: OpenRouter's free models are served without credit, for example.
                self.cool(Reason::Credit, until, Trial::Needed, evidence);
            }
        }
        NextStep::TryNext
    }

    fn rate_limit(&mut self, limit: RateLimit, evidence: &Evidence) -> NextStep {
        let (now, policy) = (self.host.now(), self.policy);
        if limit.oversized {
            return self.release_and(NextStep::Stop(limit.until));
        }
        let unstated = limit.until.is_none() && limit.what == What::Unstated && limit.window == Window::Unstated;
        if unstated && self.may_not_guess() {
            return match self.rest_model() {
                true => NextStep::Stop(Some(now.plus(MODEL_REST))),
                false => self.release_and(NextStep::TryNext),
            };
        }
        let escalates = self.count_429() && (unstated || policy.escalate == Escalate::Always);
        let (reason, until, trial) = match limit.until {
            _ if escalates => (Reason::DailyQuota, self.daily_reset(), Trial::Needed),
            Some(until) => (Reason::RateLimit, until, Trial::Believed),
            None if limit.what == What::Concurrency => (Reason::RateLimit, now.plus(CONCURRENCY_REST), Trial::Needed),
            None if limit.window == Window::Day => (Reason::DailyQuota, self.daily_reset(), Trial::Believed),
            None => {
                let reason = if unstated { Reason::Unstated } else { Reason::RateLimit };
                (reason, now.plus(policy.default_cooling), Trial::Needed)
            }
        };
        self.cool(reason, until, trial, evidence);
        if unstated && !escalates && self.rest_model() {
            return NextStep::Stop(Some(now.plus(MODEL_REST)));
        }
        NextStep::TryNext
    }

    /// Counts a 429, and returns whether it is one too many. Parallel answers to one wall are all counted,
    /// but only an attempt that was leased after the last of them was known shows that the wall is still
    /// there.
    fn count_429(&mut self) -> bool {
        let Leased { lease, at } = self.leased;
        let (now, threshold, model) = (self.host.now(), self.policy.consecutive_429_threshold, &self.outgoing.model);
        let escalates = self.pool.change(lease.id, |record| {
            let state = record.model_mut(model);
            let later = state.consecutive_429 == 0 || state.last_429.is_none_or(|last| at > last);
            state.consecutive_429 = state.consecutive_429.saturating_add(1);
            state.last_429 = state.last_429.max(Some(now));
            later && state.consecutive_429 >= threshold
        });
        escalates == Some(true)
    }

    /// Records an unexplained 429. If it is one of very many for the model, nobody has quota for it or the address
    /// that all requests come from is at fault: the model rests, and the keys are not blamed.
    fn rest_model(&mut self) -> bool {
        let (now, slug, model) = (self.host.now(), self.outgoing.slug(), &self.outgoing.model);
        let id = self.leased.lease.id;
        let noted = self.pool.change_provider(slug, |state| state.record_unexplained_429(id, model, now));
        let Some(Some(keys)) = noted else { return false };
        let acquit = |record: &mut Record| {
            let state = record.model_mut(model);
            state.consecutive_429 = state.consecutive_429.saturating_sub(1);
            state.cooling = state.cooling.filter(|cooling| cooling.reason != Reason::Unstated);
        };
        self.pool.change_many(keys.iter().copied(), |_, record| acquit(record));
        let (count, model) = (keys.len(), shown(model));
        self.log.warn(
            now,
            format_args!("{slug}: {count} keys got an unexplained 429 for {model} at once; it is not the keys, so the model rests"),
        );
        true
    }

    fn credential(&mut self, conclusive: bool, evidence: &Evidence) -> NextStep {
        let (now, slug, id) = (self.host.now(), self.outgoing.slug(), self.leased.lease.id);
        if !conclusive && !self.is_confirmed() {
            self.suspect_credential(evidence);
            return NextStep::TryNext;
        }
        let blamed = self.pool.change_provider(slug, |state| state.record_refusal(id, now));
        if blamed == Some(false) {
            let line = format_args!("{slug} refuses many keys at once; they rest instead of being blocked");
            self.log.warn(now, line);
            self.rest(Reason::Forbidden, now.plus(REFUSED_REST), evidence);
            return NextStep::TryNext;
        }
        let sync = self.sync();
        self.pool.change(id, |record| {
            if record.blocked.is_none() {
                record.blocked = Some(Block { since: now, sync });
            }
            record.last_error = Some(note(now, evidence));
        });
        self.count(Counter::Block);
        let key = self.shown_key();
        self.log.warn(now, format_args!("key {key} of {slug} blocked: {evidence}"));
        NextStep::TryNext
    }

    /// Whether another request has seen the credential refused before, with no success between: one of another
    /// client, where there are several.
    fn is_confirmed(&self) -> bool {
        let refusal = self.pool.record(self.leased.lease.id).and_then(|record| record.refusal);
        refusal.is_some_and(|refusal| {
            self.leased.at > refusal.at && (self.clients == 1 || refusal.client != self.outgoing.definition)
        })
    }

    /// A refused credential that only this client's requests have seen: the key rests briefly, and the next
    /// request tries it again.
    fn suspect_credential(&mut self, evidence: &Evidence) {
        let (now, client) = (self.host.now(), self.outgoing.definition);
        let before = self.pool.record(self.leased.lease.id).and_then(|record| record.refusal);
        let times = before.map_or(0, |refusal| refusal.times);
        if !self.rest(Reason::Forbidden, now.plus(grown(REFUSAL_REST, times)), evidence) {
            return;
        }
        let client = before.map_or(client, |refusal| refusal.client);
        self.pool.change(self.leased.lease.id, |record| {
            record.refusal = Some(Refusal { at: now, client, times: times.saturating_add(1) });
        });
    }

    /// A refusal that the request may have caused. The key is blamed if another one has served the model since
    /// this key was refused before; then the refusal does not use up the request's tries, and the key cools
    /// longer each time.
    fn refused(&mut self, reason: Reason, rest: Span, evidence: &Evidence) -> NextStep {
        let (now, id) = (self.host.now(), self.leased.lease.id);
        let Outgoing { model, upstream, .. } = self.outgoing;
        let proven = self.pool.provider(&upstream.slug).is_some_and(|state| state.denials.is_proven(model, id));
        self.pool.change_provider(&upstream.slug, |state| state.denials.record(model, id, now));
        if !proven {
            return self.release_and(NextStep::TryFewMore);
        }
        self.blame(reason, rest, evidence);
        NextStep::TryNext
    }

    /// Cools a key for the model that others serve, longer each time.
    fn blame(&mut self, reason: Reason, rest: Span, evidence: &Evidence) {
        let (id, model) = (self.leased.lease.id, &self.outgoing.model);
        let times = self.pool.record(id).and_then(|record| record.model(model)).map_or(0, |state| state.refusals);
        if self.cool(reason, self.host.now().plus(grown(rest, times)), Trial::Needed, evidence) {
            self.pool.change(id, |record| {
                let state = record.model_mut(model);
                state.refusals = state.refusals.saturating_add(1);
            });
        }
    }

    /// This request was refused by the key and then served with another one: the key is at fault.
    pub fn refused_before_success(mut self, refused: Refused) {
        let default = self.policy.default_cooling;
        let (reason, rest) = match refused.access {
            true => (Reason::ModelAccess, MODEL_ACCESS_REST),
            false => (Reason::Forbidden, default),
        };
        self.blame(reason, rest, &refused.evidence);
    }

    fn may_not_guess(&self) -> bool {
        *self.guesses >= MAX_GUESSES
    }

    /// Counts a key that is held by a guess. Returns false if this request has held as many as it may.
    fn may_hold(&mut self, trial: Trial) -> bool {
        let guessed = trial == Trial::Needed;
        if guessed && self.may_not_guess() {
            self.release_trial();
            return false;
        }
        *self.guesses = self.guesses.saturating_add(u8::from(guessed));
        true
    }

    fn release_and(&mut self, step: NextStep) -> NextStep {
        self.release_trial();
        step
    }

    /// Cools the key for the model. Returns false if this request may hold no more keys.
    fn cool(&mut self, reason: Reason, until: Time, trial: Trial, evidence: &Evidence) -> bool {
        if !self.may_hold(trial) {
            return false;
        }
        let (now, slug, model) = (self.host.now(), self.outgoing.slug(), &self.outgoing.model);
        let pause = Pause { from: now, until, reason, trial, sync: self.sync_of(reason) };
        self.pool.change(self.leased.lease.id, |record| {
            record.cool(model, pause);
            record.last_error = Some(note(now, evidence));
        });
        self.count(Counter::Cooling(reason));
        let (key, model, reason) = (self.shown_key(), shown(model), reason.name());
        let line = format_args!("key {key} of {slug} cooled for {model} until {until} ({reason}): {evidence}");
        self.log.info(now, line);
        true
    }

    /// Rests the key for all models. Returns false if this request may hold no more keys.
    fn rest(&mut self, reason: Reason, until: Time, evidence: &Evidence) -> bool {
        if !self.may_hold(Trial::Needed) {
            return false;
        }
        let (now, slug) = (self.host.now(), self.outgoing.slug());
        let pause = Pause { from: now, until, reason, trial: Trial::Needed, sync: SyncState::Local };
        self.pool.change(self.leased.lease.id, |record| {
            record.rest(pause);
            record.last_error = Some(note(now, evidence));
        });
        self.count(Counter::Cooling(reason));
        let (key, reason) = (self.shown_key(), reason.name());
        self.log.info(now, format_args!("key {key} of {slug} rests until {until} ({reason}): {evidence}"));
        true
    }

    /// Learns a limit, for the model or, if it differs from what other keys have said, for the key.
    fn learn_limit(&mut self, stated: &StatedLimit, succeeded: bool) {
        let Outgoing { upstream, model, .. } = self.outgoing;
        let slug = &upstream.slug;
        let (Some(dimension), Some(limit)) = (self.dimension(stated), stated.limit.filter(|limit| *limit > 0)) else {
            return;
        };
        if upstream.quota(model).get(dimension).is_some() {
            return;
        }
        let known = self.pool.provider(slug).and_then(|state| state.learned(model).get(dimension));
        // Every answer of some providers repeats it; what is known need not be written.
        if known == Some(limit) && succeeded {
            return;
        }
        if known.is_none() {
            let now = self.host.now();
            self.pool.change_provider(slug, |state| state.state_limit(model, dimension, limit, now));
        }
        self.pool.change_usage(self.leased.lease.id, model, &mut |usage| usage.state_limit(dimension, limit));
    }

    /// The dimension of a stated limit, if it is one that is counted here.
    fn dimension(&self, limit: &StatedLimit) -> Option<Dimension> {
        let what = match limit.what {
            What::InputTokens if self.outgoing.upstream.provider.api == Api::Gemini => What::Tokens,
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

    fn give_back(&self) {
        let Outgoing { upstream, model, .. } = self.outgoing;
        let Leased { lease, at } = self.leased;
        if let Some(tokens) = lease.counted {
            let now = self.host.now();
            self.pool.change_usage(lease.id, model, &mut |usage| {
                usage.give_back(upstream.provider.minute, tokens, at, now);
                true
            });
        }
    }

    fn daily_reset(&self) -> Time {
        self.outgoing.upstream.provider.daily_reset.next(self.host.now())
    }

    /// When a window ends whose end was not stated.
    fn end_of(&self, window: Window) -> Time {
        let now = self.host.now();
        match window {
            Window::Second => now.plus(Span::secs(1)),
            Window::Hour => now.plus(Span::secs(3600)),
            Window::Day | Window::Month => self.daily_reset(),
            Window::Minute | Window::Unstated => now.plus(MINUTE),
        }
    }

    fn sync_of(&self, reason: Reason) -> SyncState {
        match reason {
            // What one client's model name or request may have caused does not concern the Worker.
            Reason::ModelAccess | Reason::Forbidden | Reason::Exhausted | Reason::Credit => SyncState::Local,
            _ => self.sync(),
        }
    }

    fn sync(&self) -> SyncState {
        let has_row = self.pool.roster().key(self.leased.lease.id).is_some_and(|key| key.row.is_some());
        if has_row { SyncState::Pending(self.host.now()) } else { SyncState::Local }
    }

    fn count(&self, counter: Counter) {
        self.counters.add(self.outgoing.slug(), counter, 1);
    }

    fn shown_key(&self) -> String {
        let id = self.leased.lease.id;
        self.pool.roster().key(id).map_or_else(|| id.to_string(), crate::pool::Key::shown_id)
    }
}

/// Four times as long after each time before, up to a day.
fn grown(span: Span, times: u32) -> Span {
    Span(span.0.saturating_mul(4u64.saturating_pow(times.min(16)))).min(LONGEST_REFUSAL)
}

fn note(at: Time, evidence: &Evidence) -> LastError {
    LastError { at, evidence: evidence.to_string() }
}

/// A model's name comes from a client: no line break of it gets into the log.
fn shown(model: &str) -> String {
    if model.is_empty() { "requests without a model".to_owned() } else { model.escape_debug().to_string() }
}
