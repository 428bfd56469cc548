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
//! One balancer serves all streams of a worker. It knows no host: the adapter feeds it headers,
//! bodies and the time, and carries out what it returns.

use std::borrow::Cow;
use std::rc::Rc;

use memchr::memmem;

use crate::answer::stream::Usage;
use crate::answer::{self, Answer, Outcome, Verdict};
use crate::config::{Config, WhenAllCooling};
use crate::headers::Headers;
use crate::journal::Journal;
use crate::lifecycle::{self, Subject, Walk};
use crate::local_reply;
use crate::metrics::{CALLER_ERROR, CANCELLED, Counter, FAILED, OTHER, SERVED, SUCCESS, Tally, UNREADABLE};
use crate::pool::store::Store;
use crate::pool::{Ask, Lease, NoKey, Pool};
use crate::provider::Auth;
use crate::reply::{Reply, retry_headers};
use crate::rewrite::{Edit, REMOVED_UPSTREAM};
use crate::ticket::Ticket;
use crate::time::Time;

/// How many keys a request may try whose own fault is likely.
const FEW: u8 = 3;
/// The response header that tells Envoy's router to try again; it never reaches a client.
pub const RETRY_HEADER: &str = "x-one-balance-retry";
/// So many bytes has a key at least that no text holds by chance.
const SHORTEST_KEY: usize = 12;
/// How many keys were tried, on every answer that the upstream filter has seen.
pub const ATTEMPTS_HEADER: &str = "x-one-balance-attempts";
/// The id of the key that answered.
pub const KEY_ID_HEADER: &str = "x-one-balance-key-id";

/// The decisions, and what they are made on.
#[derive(Debug)]
pub struct Balancer {
    /// The configuration.
    pub config: Rc<Config>,
    /// The keys.
    pub pool: Pool,
    /// What was counted and not told to the host yet.
    pub tally: Tally,
    journal: Journal,
}

/// What an attempt sends.
#[derive(Debug)]
pub struct Attempt {
    /// Changes of the request's headers.
    pub edits: [Edit; 3],
}

/// What becomes of an answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// It goes to the client, with these headers set beside the marks.
    Deliver(Vec<(&'static str, String)>),
    /// It is dropped, and the next key tried.
    Retry,
    /// Ours goes to the client in its place.
    Replace(Reply),
}

impl Balancer {
    /// A balancer for a configuration.
    #[must_use]
    pub fn new(config: Rc<Config>) -> Self {
        let (pool, tally) = (Pool::new(config.clone()), Tally::new(&config));
        Balancer { config, pool, tally, journal: Journal::default() }
    }

    /// Downstream: leases the first key, so that a request for which there is none never leaves.
    ///
    /// # Errors
    /// The answer when there is no key.
    pub fn admit(&mut self, store: &dyn Store, ticket: &mut Ticket, random: u64, now: Time) -> Result<(), Reply> {
        ticket.leased = Some(self.lease(store, ticket, random, now).map_err(|reply| self.refused(ticket, reply))?);
        ticket.leased_at = now;
        Ok(())
    }

    /// Upstream: the key and the headers of the next attempt. The `clock` is asked from the second one on.
    ///
    /// # Errors
    /// The answer when there is none any more.
    pub fn attempt(
        &mut self,
        store: &dyn Store,
        ticket: &mut Ticket,
        random: u64,
        clock: impl Fn() -> Time,
    ) -> Result<Attempt, Reply> {
        let first = ticket.leased.take();
        let now = if first.is_some() { ticket.leased_at } else { clock() };
        if ticket.unanswered {
            let subject = subject(&self.config, &self.tally, &self.journal, ticket, now);
            lifecycle::unanswered(&mut self.pool, store, subject);
        }
        if first.is_none() && ticket.tried.len() > self.config.max_retries as usize {
            let reply = local_reply::unreachable(ticket);
            return Err(self.refused(ticket, reply));
        }
        let lease = match first.map_or_else(|| self.lease(store, ticket, random, now), Ok) {
            Ok(lease) => lease,
            Err(reply) => {
                let reply = if ticket.unanswered { local_reply::unreachable(ticket) } else { reply };
                return Err(self.refused(ticket, reply));
            }
        };
        let Some(key) = self.pool.roster().key(lease.id) else {
            let reply = local_reply::no_key(ticket, NoKey::Empty, now);
            return Err(self.refused(ticket, reply));
        };
        let (name, value) = credential(ticket.auth, key.secret.expose());
        self.tally.add(ticket.slug(), Counter::Attempt, 1);
        ticket.tried.push(lease.id);
        ticket.lease = lease;
        ticket.leased_at = now;
        ticket.unanswered = true;
        ticket.result = "";
        let [proto, count] = REMOVED_UPSTREAM.map(|name| Edit::Remove(name.into()));
        Ok(Attempt { edits: [Edit::Set(name, value), proto, count] })
    }

    /// Upstream: learns from an answer and says what becomes of it. `body` is an error's, as far as
    /// it was read.
    pub fn answered(
        &mut self,
        store: &dyn Store,
        ticket: &mut Ticket,
        headers: &Headers,
        body: &[u8],
        random: u64,
        now: Time,
    ) -> Next {
        ticket.unanswered = false;
        let status = headers.text(":status").and_then(|text| text.parse().ok()).unwrap_or(502);
        let verdict = answer::classify(&Answer {
            provider: ticket.upstream.provider,
            through_ai_gateway: ticket.through_ai_gateway,
            status,
            headers,
            body: if headers.is_encoded() { &[] } else { body },
            now,
        });
        let subject = subject(&self.config, &self.tally, &self.journal, ticket, now);
        let walk = lifecycle::learn(&mut self.pool, store, subject, &verdict);
        let goes_on = goes_on(ticket, walk, &verdict) && ticket.tried.len() <= self.config.max_retries as usize;
        let another = match walk {
            Walk::Deliver => Err(NoKey::Tried),
            _ => self.pool.has_another(store, ask(&self.config, ticket, random, now)),
        };
        if goes_on && another.is_ok() {
            return Next::Retry;
        }
        let next = self.last(ticket, status, &verdict, walk, another, now);
        ticket.result = match (&next, verdict.outcome) {
            (Next::Replace(reply), _) => reply.code,
            (_, Outcome::Success { .. }) => SERVED,
            // "Not modified" or "it is over there" finds no fault with anything.
            (_, Outcome::Caller) if status < 400 => SERVED,
            (_, Outcome::Caller) => CALLER_ERROR,
            _ => FAILED,
        };
        match next {
            Next::Deliver(_) if self.shows_key(ticket, body) => {
                Next::Replace(local_reply::withheld(ticket.slug(), status))
            }
            next => next,
        }
    }

    /// Upstream: the answer goes to the client, unless it had to be translated and cannot be read.
    pub fn delivered(&self, ticket: &mut Ticket, readable: bool) {
        if !readable {
            ticket.result = UNREADABLE;
        }
        self.tally.add(ticket.slug(), Counter::Request(ticket.result), 1);
    }

    /// Whether an error has the key in it that it was asked with, as some servers quote what they were sent.
    fn shows_key(&self, ticket: &Ticket, error: &[u8]) -> bool {
        if error.is_empty() {
            return false;
        }
        let key = self.pool.roster().key(ticket.lease.id).map_or("", |key| key.secret.expose()).as_bytes();
        // A short one, as of a server of one's own, may stand in any text by chance.
        key.len() >= SHORTEST_KEY && memmem::find(error, key).is_some()
    }

    /// Upstream: an error that came inside an answer after its start, which cannot be retried.
    pub fn failed_late(&mut self, store: &dyn Store, ticket: &Ticket, verdict: &Verdict, now: Time) {
        let mut subject = subject(&self.config, &self.tally, &self.journal, ticket, now);
        // It was served in part: it stays counted, and `served` puts the tokens right.
        subject.lease.counted = None;
        lifecycle::learn(&mut self.pool, store, subject, verdict);
    }

    /// Upstream: a successful answer has ended, with so many tokens. The `clock` is asked if they count.
    pub fn served(&self, store: &dyn Store, ticket: &Ticket, tokens: Usage, clock: impl Fn() -> Time) {
        lifecycle::served(&self.pool, store, ticket, tokens, clock);
        if self.config.token_metrics {
            self.tally.add(ticket.slug(), Counter::TokensIn, tokens.input);
            self.tally.add(ticket.slug(), Counter::TokensOut, tokens.output);
        }
    }

    /// Downstream: Envoy itself has answered, without or after attempts. What the client gets in the
    /// place of that answer, which would be plain text. The `clock` is asked after an attempt.
    pub fn answered_by_envoy(
        &mut self,
        store: &dyn Store,
        headers: &Headers,
        ticket: Option<&mut Ticket>,
        clock: impl Fn() -> Time,
    ) -> Reply {
        let reply = local_reply::by_envoy(headers, ticket.as_deref());
        let Some(ticket) = ticket else {
            self.tally.refuse(reply.code);
            return reply;
        };
        if ticket.unanswered {
            ticket.unanswered = false;
            let subject = subject(&self.config, &self.tally, &self.journal, ticket, clock());
            lifecycle::unanswered(&mut self.pool, store, subject);
        }
        self.refused(ticket, reply)
    }

    /// Downstream: Envoy hands on an answer that is no error, without its body, and the upstream filter has not
    /// seen it: the provider's to an upgrade that it did not carry out, or that of a filter behind this one.
    /// The `clock` is asked in the first case.
    pub fn passed_by_envoy(&mut self, store: &dyn Store, ticket: &mut Ticket, clock: impl Fn() -> Time) {
        ticket.result = if ticket.unanswered { SERVED } else { OTHER };
        if ticket.unanswered {
            ticket.unanswered = false;
            let subject = subject(&self.config, &self.tally, &self.journal, ticket, clock());
            lifecycle::release_trial(&mut self.pool, store, subject);
            self.tally.add(ticket.slug(), Counter::Answer(SUCCESS), 1);
        }
        self.tally.add(ticket.slug(), Counter::Request(ticket.result), 1);
    }

    /// Downstream: an answer was to be retried, and Envoy let it through, for its circuit breaker was
    /// open or its own retries were used up. What the client gets in its place: nobody has looked whether it
    /// shows the key, nor translated it.
    pub fn not_retried(&self, headers: &Headers, ticket: &mut Ticket) -> Reply {
        ticket.result = FAILED;
        self.tally.add(ticket.slug(), Counter::Request(FAILED), 1);
        let status = headers.text(":status").and_then(|text| text.parse().ok()).unwrap_or(502);
        local_reply::not_retried(ticket.slug(), status)
    }

    /// Downstream: the stream is over. A lease that no attempt took goes back: a filter behind this one
    /// has answered, or the client has gone. If it went before the answer to a key that went first, another
    /// request may go. The `clock` is asked in both cases.
    pub fn ended(&mut self, store: &dyn Store, ticket: &mut Ticket, clock: impl Fn() -> Time) {
        let unused = ticket.leased.take();
        if unused.is_none() && !(ticket.unanswered && ticket.result.is_empty()) {
            return;
        }
        ticket.lease = unused.unwrap_or(ticket.lease);
        let subject = subject(&self.config, &self.tally, &self.journal, ticket, clock());
        match unused {
            Some(_) => lifecycle::unused(&mut self.pool, store, subject),
            None => lifecycle::release_trial(&mut self.pool, store, subject),
        }
    }

    /// Downstream: the client has gone before there was an answer.
    pub fn cancelled(&self, slug: &str) {
        self.tally.add(slug, Counter::Request(CANCELLED), 1);
    }

    /// Notes that a request ends with an answer of ours.
    fn refused(&self, ticket: &mut Ticket, reply: Reply) -> Reply {
        ticket.result = reply.code;
        self.tally.add(ticket.slug(), Counter::Request(reply.code), 1);
        reply
    }

    /// The answer that ends the request.
    fn last(
        &self,
        ticket: &Ticket,
        status: u16,
        verdict: &Verdict,
        walk: Walk,
        another: Result<(), NoKey>,
        now: Time,
    ) -> Next {
        let slug = ticket.slug();
        match verdict.outcome {
            Outcome::Credential => return Next::Replace(local_reply::keys_refused(slug, status)),
            Outcome::Gateway { .. } if matches!(status, 401 | 403) => {
                return Next::Replace(local_reply::gateway_refused(slug, &verdict.evidence));
            }
            _ => {}
        }
        let mut headers = Vec::new();
        if matches!(status, 429 | 503 | 529) {
            let until = match (walk, another) {
                (Walk::Stop(until), _) => until,
                (_, Err(NoKey::Cooling(until, _) | NoKey::Resting(until))) => Some(until),
                (_, Ok(())) if status == 429 => Some(self.keys_left(ticket, verdict, now)),
                _ => None,
            };
            if let Some(until) = until {
                headers.extend(retry_headers(now.until(until)));
            }
        }
        Next::Deliver(headers)
    }

    /// When to come back after a 429 that other keys were not asked about: they may be ready now, unless the
    /// request is too large for the tokens of a minute.
    fn keys_left(&self, ticket: &Ticket, verdict: &Verdict, now: Time) -> Time {
        match verdict.outcome {
            Outcome::RateLimit(limit) if ticket.token_limits >= FEW => {
                limit.until.unwrap_or_else(|| now.plus(self.config.policy.default_cooling))
            }
            _ => now,
        }
    }

    /// What a client may know of an answer's way.
    #[must_use]
    pub fn marks(&self, ticket: &Ticket) -> Vec<(&'static str, String)> {
        let mut marks = vec![(ATTEMPTS_HEADER, ticket.tried.len().to_string())];
        let key = ticket.tried.last().and_then(|id| self.pool.roster().key(*id));
        marks.extend(key.map(|key| (KEY_ID_HEADER, key.shown_id())));
        marks
    }

    fn lease(&mut self, store: &dyn Store, ticket: &Ticket, random: u64, now: Time) -> Result<Lease, Reply> {
        let config = &self.config;
        self.pool.lease(store, ask(config, ticket, random, now)).or_else(|reason| match reason {
            NoKey::Cooling(_, id)
                if config.when_all_cooling == WhenAllCooling::TryEarliest && !ticket.tried.contains(&id) =>
            {
                Ok(Lease { id, ..Lease::default() })
            }
            NoKey::Empty if config.d1.is_some() && !self.pool.is_loaded() => Err(local_reply::not_loaded()),
            _ => Err(local_reply::no_key(ticket, reason, now)),
        })
    }
}

fn subject<'a>(
    config: &'a Config,
    tally: &'a Tally,
    journal: &'a Journal,
    ticket: &'a Ticket,
    now: Time,
) -> Subject<'a> {
    let Ticket { upstream, model, lease, leased_at, .. } = ticket;
    Subject { upstream, model, lease: *lease, leased_at: *leased_at, policy: &config.policy, now, tally, journal }
}

fn ask<'a>(config: &Config, ticket: &'a Ticket, random: u64, now: Time) -> Ask<'a> {
    Ask {
        upstream: &ticket.upstream,
        model: &ticket.model,
        tried: &ticket.tried,
        selection: config.policy.selection,
        conversation: ticket.conversation,
        tokens: ticket.tokens,
        random,
        now,
    }
}

/// Whether the walk through the pool goes on, as far as this request's own count of keys goes.
fn goes_on(ticket: &mut Ticket, walk: Walk, verdict: &Verdict) -> bool {
    match walk {
        Walk::Deliver | Walk::Stop(_) => false,
        Walk::NextFew => {
            ticket.doubtful = ticket.doubtful.saturating_add(1);
            ticket.doubtful < FEW
        }
        // A request larger than the tokens of a minute meets the same wall with every key.
        Walk::Next if matches!(verdict.outcome, Outcome::RateLimit(limit) if limit.what.is_tokens()) => {
            ticket.token_limits = ticket.token_limits.saturating_add(1);
            ticket.token_limits < FEW
        }
        Walk::Next => true,
    }
}

fn credential(auth: Auth, key: &str) -> (&'static str, Cow<'static, str>) {
    match auth {
        Auth::Bearer => ("authorization", ["Bearer ", key].concat().into()),
        Auth::Header(name) => (name, key.to_owned().into()),
    }
}
