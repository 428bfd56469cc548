//! The balancer: the decisions of a request's life, in their order.
//!
//! ```text
//! downstream   begin ─▶ finish ─▶ admit ──────────────┐          deliver ─▶ client
//!              who, for what      is there a key      │             ▲
//! upstream                                            ▼             │
//!              attempt ─▶ provider ─▶ answered ──▶ retry? ──no──────┘
//!              which key              what did it say  └──yes──▶ attempt
//! ```
//!
//! One balancer serves all streams of a worker. [`crate::request`] has the first two steps;
//! [`crate::filter`] feeds the others with headers and bodies, and carries out what they return. The picture
//! of a request's states is at the head of [`progress`].

pub mod lifecycle;
pub mod progress;
pub mod replies;

use std::borrow::Cow;
use std::rc::Rc;

use crate::answer::stream::Usage;
use crate::answer::{self, Answer, Outcome, Verdict};
use crate::config::{Config, WhenAllCooling};
use crate::host::Host;
use crate::http::headers::Headers;
use crate::observe::key_log::KeyLog;
use crate::observe::metrics::{Counter, Counters, Ending, OutcomeLabel};
use crate::pool::{Lease, LeaseRequest, NoKey, Pool};
use crate::provider::Auth;
use crate::reply::{Reply, refusals, retry_headers};
use crate::request::edits::{Edit, REMOVED_UPSTREAM};
use crate::request::forward::Outgoing;
use crate::secret::MIN_SEARCHABLE_BYTES;
use crate::time::Time;
use lifecycle::{Lesson, NextStep};
use progress::{Exchange, Leased, Phase, Progress, Refused};

/// How many keys a request may try when the request itself is likely to be at fault.
const MAX_DOUBTFUL_KEYS: u8 = 3;
/// How often a request is tried again because the provider stumbled or had no room: more would only add to its
/// load.
const MAX_STUMBLES: u8 = 3;
/// How many attempts may take long and come to no answer. The provider may bill each of them.
const MAX_SLOW_ATTEMPTS: u8 = 2;
/// The response header by which Envoy's router knows that it has to retry; it never reaches a client.
pub const RETRY_HEADER: &str = "x-one-balance-retry";
/// How many keys were tried, on every answer that the upstream filter has seen.
pub const ATTEMPTS_HEADER: &str = "x-one-balance-attempts";
/// The id of the key that answered.
pub const KEY_ID_HEADER: &str = "x-one-balance-key-id";
/// The status of an answer that has none that can be read.
const UNREADABLE_STATUS: u16 = 502;

/// The decisions, and what they are made on.
#[derive(Debug)]
pub struct Balancer {
    /// The configuration.
    pub config: Rc<Config>,
    /// The worker's surroundings.
    pub host: Rc<dyn Host>,
    /// The keys.
    pub pool: Pool,
    /// What was counted and not handed to the host yet.
    pub counters: Counters,
    log: KeyLog,
}

/// What an attempt sends.
#[derive(Debug)]
pub struct Attempt {
    /// Changes to the request's headers.
    pub edits: [Edit; 3],
}

/// What becomes of an answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// It is sent to the client, with these headers beside those of [`Balancer::answer_headers`].
    Deliver(Vec<(&'static str, String)>),
    /// It is dropped, and the next key tried.
    Retry,
    /// Ours is sent to the client in its place.
    Replace(Reply),
}

impl Balancer {
    /// A balancer for a configuration.
    pub fn new(config: Rc<Config>, host: Rc<dyn Host>) -> Self {
        let (pool, counters) = (Pool::new(config.clone(), host.clone()), Counters::new(&config));
        Balancer { config, host, pool, counters, log: KeyLog::default() }
    }

    /// Downstream: leases the first key, so that a request without a key never leaves.
    ///
    /// # Errors
    /// Returns the reply to send when there is no key.
    pub fn admit(&mut self, outgoing: &Outgoing) -> Result<Progress, Reply> {
        match self.lease(outgoing, &[]) {
            Ok(lease) => Ok(Progress::admitted(Leased { lease, at: self.host.now() })),
            Err(reply) => {
                self.count_ending(outgoing, Ending::Own(reply.code));
                Err(reply)
            }
        }
    }

    /// Upstream: the key and the headers of the next attempt.
    ///
    /// # Errors
    /// Returns the reply to send when no key is left.
    pub fn attempt(&mut self, exchange: &mut Exchange) -> Result<Attempt, Reply> {
        let Exchange { outgoing, progress } = exchange;
        let unanswered = progress.unanswered();
        if let Some(leased) = unanswered {
            self.lesson(outgoing, progress, leased).unanswered();
            progress.count_slow(leased, self.host.now());
        }
        if progress.slow >= MAX_SLOW_ATTEMPTS {
            let reply = replies::timeout(outgoing, progress);
            return Err(self.refused(outgoing, progress, reply));
        }
        self.next_key(outgoing, progress).map_err(|reply| {
            // Keys that are left would not have answered either, as far as this request can know.
            let reply = if unanswered.is_some() { replies::unreachable(outgoing, progress) } else { reply };
            self.refused(outgoing, progress, reply)
        })
    }

    fn next_key(&mut self, outgoing: &Outgoing, progress: &mut Progress) -> Result<Attempt, Reply> {
        let admitted = match progress.phase {
            // The first attempt uses the lease's time; only a retry reads the clock.
            Phase::Admitted(leased) => Some(leased),
            _ if progress.tried.len() > self.config.max_retries as usize => {
                return Err(replies::unreachable(outgoing, progress));
            }
            _ => None,
        };
        let send = |pool: &Pool, leased: Leased| {
            let key = pool.roster().key(leased.lease.id)?;
            Some((leased, credential(outgoing.auth, key.secret.expose())))
        };
        let (leased, (name, value)) = match admitted.and_then(|leased| send(&self.pool, leased)) {
            Some(sent) => sent,
            // The key has left the pool since it was leased, or this is not the first attempt.
            None => {
                let leased = Leased { lease: self.lease(outgoing, &progress.tried)?, at: self.host.now() };
                let no_key = || replies::no_key(outgoing, NoKey::Empty, leased.at);
                send(&self.pool, leased).ok_or_else(no_key)?
            }
        };
        self.counters.add(outgoing.slug(), Counter::Attempt, 1);
        progress.tried.push(leased.lease.id);
        progress.phase = Phase::Attempting(leased);
        let [proto, count] = REMOVED_UPSTREAM.map(|name| Edit::Remove(name.into()));
        Ok(Attempt { edits: [Edit::Set(name, value), proto, count] })
    }

    /// Upstream: learns from an answer and decides what becomes of it. `body` is there as far as it was read.
    pub fn answered(&mut self, exchange: &mut Exchange, headers: &Headers, body: &[u8]) -> Next {
        let Exchange { outgoing, progress } = exchange;
        // Without an attempt there is no answer.
        let Some(leased) = progress.leased() else { return Next::Deliver(Vec::new()) };
        let status = headers.status().unwrap_or(UNREADABLE_STATUS);
        let body_of_error = if status < 400 || headers.is_encoded() { &[] } else { body };
        let verdict = self.classify(outgoing, headers, body_of_error);
        let step = self.lesson(outgoing, progress, leased).learn(&verdict);
        match verdict.outcome {
            Outcome::ModelAccess | Outcome::Forbidden => {
                let access = matches!(verdict.outcome, Outcome::ModelAccess);
                progress.refused.push(Refused { leased, access, evidence: verdict.evidence });
            }
            Outcome::Success { .. } => {
                for refused in core::mem::take(&mut progress.refused) {
                    self.lesson(outgoing, progress, refused.leased).refused_before_success(refused);
                }
            }
            _ => {}
        }
        let goes_on = goes_on(progress, step, &verdict) && progress.tried.len() <= self.config.max_retries as usize;
        let another = match step {
            NextStep::Deliver => Err(NoKey::Tried),
            _ => self.pool.has_another(lease_request(outgoing, &progress.tried)),
        };
        if goes_on && another.is_ok() {
            progress.phase = Phase::Retrying(leased);
            return Next::Retry;
        }
        let next = match verdict.outcome {
            // A bare 401 would send the client looking for the fault at its AUTH_KEY.
            Outcome::Forbidden if status == 401 && body.is_empty() => {
                Next::Replace(replies::keys_refused(outgoing.slug(), status))
            }
            _ => self.final_answer(outgoing, progress, status, &verdict, step, another),
        };
        progress.end(match (&next, verdict.outcome) {
            (Next::Replace(reply), _) => Ending::Own(reply.code),
            (_, Outcome::Success { .. }) => Ending::Served,
            // "Not modified" or "it is over there" finds no fault with anything.
            (_, Outcome::Caller) if status < 400 => Ending::Served,
            (_, Outcome::Caller) => Ending::CallerError,
            _ => Ending::Failed,
        });
        match (next, self.withheld(exchange, status, headers, body)) {
            (Next::Deliver(_), Some(reply)) => Next::Replace(reply),
            (next, _) => next,
        }
    }

    /// Upstream: an error broke off or came to a halt before its body was complete, and Envoy tries the next key.
    /// What its headers say is learned.
    pub fn broke_off(&mut self, exchange: &mut Exchange, headers: &Headers) {
        let Exchange { outgoing, progress } = exchange;
        let Some(leased) = progress.unanswered() else { return };
        let verdict = self.classify(outgoing, headers, &[]);
        self.lesson(outgoing, progress, leased).learn(&verdict);
        progress.count_slow(leased, self.host.now());
        progress.phase = Phase::Retrying(leased);
    }

    fn classify(&self, outgoing: &Outgoing, headers: &Headers, body: &[u8]) -> Verdict {
        answer::classify(&Answer {
            provider: outgoing.upstream.provider,
            through_ai_gateway: outgoing.through_ai_gateway,
            status: headers.status().unwrap_or(UNREADABLE_STATUS),
            headers,
            body,
            now: self.host.now(),
        })
    }

    /// Upstream: the answer is sent to the client, with this ending if that differs from what was decided.
    pub fn delivered(&self, exchange: &mut Exchange, instead: Option<Ending>) {
        let Exchange { outgoing, progress } = exchange;
        if let Some(ending) = instead {
            progress.end(ending);
        }
        if let Some(ending) = progress.ending() {
            self.count_ending(outgoing, ending);
        }
    }

    /// Whether a provider's text contains the key that was sent, as some servers quote what they were sent.
    pub fn shows_key(&self, exchange: &Exchange, text: &[u8]) -> bool {
        // Most values of headers are shorter than any key, which need not be looked up for them.
        if text.len() < MIN_SEARCHABLE_BYTES {
            return false;
        }
        let key = exchange.progress.leased().and_then(|leased| self.pool.roster().key(leased.lease.id));
        key.is_some_and(|key| key.secret.shows_in(text))
    }

    /// What takes the place of an answer that shows the key where it cannot be removed, or that may show it
    /// where nobody can look.
    fn withheld(&self, exchange: &Exchange, status: u16, headers: &Headers, body: &[u8]) -> Option<Reply> {
        let slug = exchange.outgoing.slug();
        if status >= 400 && !body.is_empty() && headers.is_encoded() {
            return Some(replies::withheld_encoded(slug, status));
        }
        // A redirect that has lost its `location` leads nowhere.
        let redirect =
            headers.all("location").any(|location| (300..400).contains(&status) && self.shows_key(exchange, location));
        // A successful answer to anything but a GET is only read to be translated, which is written anew.
        let quotes = status >= 400 || exchange.outgoing.is_get;
        (redirect || (quotes && self.shows_key(exchange, body))).then(|| replies::withheld(slug, status))
    }

    /// Upstream: an error that came inside an answer after its start, which cannot be retried.
    pub fn failed_late(&mut self, exchange: &mut Exchange, verdict: &Verdict) {
        let Some(mut leased) = exchange.progress.leased() else { return };
        // It was served in part: it stays counted, and `served` corrects the tokens.
        leased.lease.counted = None;
        self.lesson(&exchange.outgoing, &mut exchange.progress, leased).learn(verdict);
    }

    /// Upstream: a successful answer has ended, and took this many tokens.
    pub fn served(&mut self, exchange: &mut Exchange, tokens: Usage) {
        let Exchange { outgoing, progress } = exchange;
        if let Some(leased) = progress.leased() {
            self.lesson(outgoing, progress, leased).served(tokens);
        }
        if self.config.token_metrics {
            self.counters.add(outgoing.slug(), Counter::TokensIn, tokens.input);
            self.counters.add(outgoing.slug(), Counter::TokensOut, tokens.output);
        }
    }

    /// Downstream: Envoy itself has answered, without or after attempts. Returns what the client gets in
    /// place of that answer, which would be plain text.
    pub fn answered_by_envoy(&mut self, headers: &Headers, exchange: Option<&mut Exchange>) -> Reply {
        let reply = replies::by_envoy(headers, exchange.as_deref());
        let Some(Exchange { outgoing, progress }) = exchange else {
            self.counters.refuse(reply.code);
            return reply;
        };
        if let Some(leased) = progress.unanswered() {
            self.lesson(outgoing, progress, leased).unanswered();
            progress.phase = Phase::Retrying(leased);
        }
        self.refused(outgoing, progress, reply)
    }

    /// Downstream: Envoy sends on an answer that is not an error, without its body, and the upstream filter
    /// has not seen it: the provider's to an upgrade that it did not carry out, or that of a filter behind
    /// this one.
    pub fn passed_by_envoy(&mut self, exchange: &mut Exchange) {
        let Exchange { outgoing, progress } = exchange;
        let ending = match progress.unanswered() {
            Some(leased) => {
                self.lesson(outgoing, progress, leased).release_trial();
                self.counters.add(outgoing.slug(), Counter::Answer(OutcomeLabel::Success), 1);
                progress.end(Ending::Served);
                Ending::Served
            }
            None => self.end_without_attempt(outgoing, progress),
        };
        self.count_ending(outgoing, ending);
    }

    /// A filter behind this one has answered, so the lease that no attempt took is given back.
    fn end_without_attempt(&mut self, outgoing: &Outgoing, progress: &mut Progress) -> Ending {
        if let Phase::Admitted(leased) = progress.phase {
            self.lesson(outgoing, progress, leased).unused();
        }
        progress.end(Ending::Other);
        Ending::Other
    }

    /// Downstream: an answer was to be retried, and Envoy let it through, because its circuit breaker was
    /// open or its own retries were used up. Returns what the client gets in its place: nobody has looked
    /// whether it shows the key, nor translated it.
    pub fn not_retried(&self, headers: &Headers, exchange: &mut Exchange) -> Reply {
        let Exchange { outgoing, progress } = exchange;
        progress.end(Ending::Failed);
        self.count_ending(outgoing, Ending::Failed);
        replies::not_retried(outgoing.slug(), headers.status().unwrap_or(UNREADABLE_STATUS))
    }

    /// Downstream: the stream is over. A lease that no attempt took is given back: a filter behind this one
    /// has answered, or the client has left. If the client left before the answer to a trial request,
    /// another request may be the trial.
    pub fn ended(&mut self, exchange: &mut Exchange) {
        let Exchange { outgoing, progress } = exchange;
        match progress.phase {
            Phase::Admitted(leased) => self.lesson(outgoing, progress, leased).unused(),
            Phase::Attempting(leased) => self.lesson(outgoing, progress, leased).aborted(),
            Phase::Retrying(_) | Phase::Over(..) => {}
        }
    }

    /// Downstream: the client has left before there was an answer.
    pub fn cancelled(&self, outgoing: &Outgoing) {
        self.count_ending(outgoing, Ending::Cancelled);
    }

    /// Records that a request ends with an answer of ours.
    fn refused(&mut self, outgoing: &Outgoing, progress: &mut Progress, reply: Reply) -> Reply {
        let ending = Ending::Own(reply.code);
        if let Phase::Admitted(leased) = progress.phase {
            self.lesson(outgoing, progress, leased).unused();
        }
        progress.end(ending);
        self.count_ending(outgoing, ending);
        reply
    }

    fn count_ending(&self, outgoing: &Outgoing, ending: Ending) {
        self.counters.add(outgoing.slug(), Counter::Request(ending), 1);
    }

    /// The answer that ends the request.
    fn final_answer(
        &self,
        outgoing: &Outgoing,
        progress: &Progress,
        status: u16,
        verdict: &Verdict,
        step: NextStep,
        another: Result<(), NoKey>,
    ) -> Next {
        let slug = outgoing.slug();
        match verdict.outcome {
            Outcome::Credential { .. } => return Next::Replace(replies::keys_refused(slug, status)),
            Outcome::Gateway { .. } if matches!(status, 401 | 403) => {
                return Next::Replace(replies::gateway_refused(slug, &verdict.evidence));
            }
            _ => {}
        }
        let mut headers = Vec::new();
        if matches!(status, 429 | 503 | 529) {
            let until = match (step, another) {
                (NextStep::Stop(until), _) => until,
                (_, Err(NoKey::Cooling(until, _) | NoKey::Resting(until))) => Some(until),
                (_, Ok(())) if status == 429 => Some(self.when_keys_are_left(progress, verdict)),
                _ => None,
            };
            if let Some(until) = until {
                headers.extend(retry_headers(self.host.now().until(until)));
            }
        }
        Next::Deliver(headers)
    }

    /// When to come back after a 429 while other keys have not been tried: now, because they may be ready,
    /// unless the request is too large for the tokens of a minute.
    fn when_keys_are_left(&self, progress: &Progress, verdict: &Verdict) -> Time {
        let now = self.host.now();
        match verdict.outcome {
            Outcome::RateLimit(limit) if progress.token_limits >= MAX_DOUBTFUL_KEYS => {
                limit.until.unwrap_or_else(|| now.plus(self.config.policy.default_cooling))
            }
            _ => now,
        }
    }

    /// The headers by which a client may know how its answer came about.
    pub fn answer_headers(&self, progress: &Progress) -> Vec<(&'static str, String)> {
        let mut headers = vec![(ATTEMPTS_HEADER, progress.tried.len().to_string())];
        let key = progress.tried.last().and_then(|id| self.pool.roster().key(*id));
        headers.extend(key.map(|key| (KEY_ID_HEADER, key.shown_id())));
        headers
    }

    fn lease(&mut self, outgoing: &Outgoing, tried: &[crate::pool::KeyId]) -> Result<Lease, Reply> {
        self.pool.lease(lease_request(outgoing, tried)).or_else(|reason| match reason {
            NoKey::Cooling(_, id)
                if self.config.when_all_cooling == WhenAllCooling::TryEarliest && !tried.contains(&id) =>
            {
                Ok(Lease { id, ..Lease::default() })
            }
            NoKey::Empty if self.config.d1.is_some() && !self.pool.is_loaded() => Err(refusals::not_loaded()),
            _ => Err(replies::no_key(outgoing, reason, self.host.now())),
        })
    }

    /// What can be learned from an attempt with a leased key.
    fn lesson<'a>(&'a mut self, outgoing: &'a Outgoing, progress: &'a mut Progress, leased: Leased) -> Lesson<'a> {
        let Balancer { config, host, pool, counters, log } = self;
        let (policy, clients, guesses) = (&config.policy, config.auth.count(), &mut progress.guesses);
        Lesson { pool, outgoing, leased, guesses, policy, clients, host: &**host, counters, log }
    }
}

fn lease_request<'a>(outgoing: &'a Outgoing, tried: &'a [crate::pool::KeyId]) -> LeaseRequest<'a> {
    LeaseRequest {
        upstream: &outgoing.upstream,
        model: &outgoing.model,
        tried,
        conversation: outgoing.conversation,
        tokens: outgoing.tokens,
    }
}

/// Whether more keys are tried, as far as this request's own count of keys goes.
fn goes_on(progress: &mut Progress, step: NextStep, verdict: &Verdict) -> bool {
    match step {
        NextStep::Deliver | NextStep::Stop(_) => false,
        NextStep::TryFewMore => {
            progress.doubtful = progress.doubtful.saturating_add(1);
            progress.doubtful < MAX_DOUBTFUL_KEYS
        }
        // A request larger than the tokens of a minute meets the same wall with every key.
        NextStep::TryNext if matches!(verdict.outcome, Outcome::RateLimit(limit) if limit.what.is_tokens()) => {
            progress.token_limits = progress.token_limits.saturating_add(1);
            progress.token_limits < MAX_DOUBTFUL_KEYS
        }
        NextStep::TryNext if matches!(verdict.outcome, Outcome::Transient { .. } | Outcome::Overloaded { .. }) => {
            progress.stumbles = progress.stumbles.saturating_add(1);
            progress.stumbles <= MAX_STUMBLES
        }
        NextStep::TryNext => true,
    }
}

fn credential(auth: Auth, key: &str) -> (&'static str, Cow<'static, str>) {
    match auth {
        Auth::Bearer => ("authorization", ["Bearer ", key].concat().into()),
        Auth::Header(name) => (name, key.to_owned().into()),
    }
}
