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

use std::rc::Rc;

use crate::config::{Config, WhenAllCooling};
use crate::pool::record::{Block, Pause, Reason, Sync, Trial};
use crate::pool::store::Store;
use crate::pool::{Ask, KeyId, NoKey, Pool, Roster};
use crate::provider::{Auth, Provider};
use crate::reply::Reply;
use crate::request::{Edit, REMOVED_UPSTREAM};
use crate::ticket::Ticket;
use crate::time::Time;

/// The response header that tells Envoy's router to try again; it never reaches a client.
pub const RETRY_HEADER: &str = "x-one-balance-retry";
/// How many keys were tried, on every answer that the upstream filter has seen.
pub const ATTEMPTS_HEADER: &str = "x-one-balance-attempts";
/// The id of the key that answered.
pub const KEY_ID_HEADER: &str = "x-one-balance-key-id";
/// The request header by which the router learns how many retries this request may have.
pub const MAX_RETRIES_HEADER: &str = "x-envoy-max-retries";

/// The decisions, and what they are made on.
#[derive(Debug)]
pub struct Balancer {
    /// The configuration.
    pub config: Rc<Config>,
    pool: Pool,
}

/// What an attempt sends.
#[derive(Debug)]
pub struct Attempt {
    /// Changes of the request's headers.
    pub edits: Vec<Edit>,
}

/// What becomes of an answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// It goes to the client, with these headers set.
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
        let pool = Pool::new(Roster::new(&config, Vec::new()));
        Balancer { config, pool }
    }

    /// Downstream: leases the first key, so that a request for which there is none never leaves.
    ///
    /// # Errors
    /// The answer when there is no key.
    pub fn admit(&mut self, store: &dyn Store, ticket: &mut Ticket, now: Time) -> Result<(), Reply> {
        let id = self.lease(store, ticket, now)?;
        ticket.leased = Some(id);
        ticket.leased_at = now;
        Ok(())
    }

    /// Upstream: the key and the headers of the next attempt.
    ///
    /// # Errors
    /// The answer when there is none any more.
    pub fn attempt(&mut self, store: &dyn Store, ticket: &mut Ticket, now: Time) -> Result<Attempt, Reply> {
        if ticket.unanswered
            && let Some(&last) = ticket.tried.last()
        {
            self.unanswered(store, ticket, last, now);
        }
        let id = match ticket.leased.take() {
            Some(id) => id,
            None if ticket.tried.len() > self.config.max_retries as usize => return Err(unreachable(ticket)),
            None => match self.lease(store, ticket, now) {
                Ok(id) => id,
                Err(_) if ticket.unanswered => return Err(unreachable(ticket)),
                Err(reply) => return Err(reply),
            },
        };
        let Some(key) = self.pool.roster().key(id) else { return Err(no_key(ticket, NoKey::Empty, now)) };
        let Some((_, upstream)) = self.config.upstream(&ticket.slug) else {
            return Err(no_key(ticket, NoKey::Empty, now));
        };
        let (name, value) = credential(upstream.provider, ticket.openai_auth, key.secret.expose());
        ticket.tried.push(id);
        ticket.leased_at = now;
        ticket.unanswered = true;
        Ok(Attempt { edits: vec![Edit::Set(name, value), Edit::Remove(REMOVED_UPSTREAM.to_owned())] })
    }

    /// Upstream: learns from an answer and says what becomes of it.
    pub fn answered(&mut self, store: &dyn Store, ticket: &mut Ticket, status: u16, now: Time) -> Next {
        let Some(&id) = ticket.tried.last() else { return Next::Deliver(Vec::new()) };
        ticket.unanswered = false;
        let retryable = self.learn(store, ticket, id, status, now);
        let ask = Ask { slug: &ticket.slug, model: &ticket.model, tried: &ticket.tried, now };
        let left = ticket.tried.len() <= self.config.max_retries as usize;
        let another = if retryable { self.pool.has_another(store, ask) } else { Err(NoKey::Tried) };
        if retryable && left && another.is_ok() {
            return Next::Retry;
        }
        if matches!(status, 401 | 403) {
            // The provider's own text may hold the key.
            let message = "The provider refused the pool's keys for this request.";
            return Next::Replace(Reply::new(status, "provider_keys_refused", message));
        }
        let mut headers = self.marks(ticket);
        if status == 429
            && let Err(NoKey::Cooling(until, _)) = another
        {
            headers.push(("retry-after", now.until(until).as_secs_up().max(1).to_string()));
        }
        Next::Deliver(headers)
    }

    /// What a client may know of an answer's way.
    #[must_use]
    pub fn marks(&self, ticket: &Ticket) -> Vec<(&'static str, String)> {
        let mut marks = vec![(ATTEMPTS_HEADER, ticket.tried.len().to_string())];
        let key = ticket.tried.last().and_then(|id| self.pool.roster().key(*id));
        marks.extend(key.map(|key| (KEY_ID_HEADER, key.shown_id())));
        marks
    }

    fn lease(&mut self, store: &dyn Store, ticket: &Ticket, now: Time) -> Result<KeyId, Reply> {
        let ask = Ask { slug: &ticket.slug, model: &ticket.model, tried: &ticket.tried, now };
        self.pool.lease(store, ask).or_else(|reason| match (reason, self.config.when_all_cooling) {
            (NoKey::Cooling(_, id), WhenAllCooling::TryEarliest) if !ticket.tried.contains(&id) => Ok(id),
            _ => Err(no_key(ticket, reason, now)),
        })
    }

    fn learn(&mut self, store: &dyn Store, ticket: &Ticket, id: KeyId, status: u16, now: Time) -> bool {
        let model = &ticket.model;
        match status {
            200..=399 => false,
            401 | 403 => {
                let block = Block { since: now, sync: Sync::Pending };
                self.pool.change(store, id, now, |record| record.blocked = Some(block));
                true
            }
            429 => {
                let until = now.plus(self.config.policy.default_cooling);
                let pause =
                    Pause { from: now, until, reason: Reason::Unstated, trial: Trial::Needed, sync: Sync::Pending };
                self.pool.change(store, id, now, |record| record.cool(model, pause));
                true
            }
            408 | 500.. => true,
            _ => false,
        }
    }

    /// The attempt before this one was reset, or timed out, before there was an answer.
    fn unanswered(&mut self, store: &dyn Store, ticket: &Ticket, id: KeyId, now: Time) {
        if self.pool.record(id).is_some_and(|record| record.needs_trial(&ticket.model)) {
            self.pool.change(store, id, now, |record| record.release_trial(&ticket.model));
        }
    }
}

/// The answer in the place of one that Envoy made itself, which would be plain text.
#[must_use]
pub fn delivered_by_envoy(status: u16, ticket: Option<&Ticket>) -> Reply {
    match (status, ticket) {
        (404, _) => Reply::new(404, "no_route", "Envoy has no route for this request; check its route configuration."),
        (413, _) => Reply::new(413, "body_too_large", "The body is larger than Envoy's buffer limit."),
        (504, Some(ticket)) => {
            let message = format!("{} gave no answer in time.", ticket.slug);
            Reply::new(504, "provider_timeout", message)
        }
        (500.., Some(ticket)) => Reply { status, ..unreachable(ticket) },
        _ => Reply::new(status, "envoy_error", "Envoy could not serve this request; see its log."),
    }
}

fn credential(provider: &Provider, openai: bool, key: &str) -> (&'static str, String) {
    let auth = match provider.openai {
        Some(api) if openai => api.auth,
        _ => provider.auth,
    };
    match auth {
        Auth::Bearer => ("authorization", format!("Bearer {key}")),
        Auth::Header(name) => (name, key.to_owned()),
    }
}

fn no_key(ticket: &Ticket, reason: NoKey, now: Time) -> Reply {
    let slug = &ticket.slug;
    match reason {
        NoKey::Empty => {
            Reply::new(503, "no_keys", format!("The pool has no key for {slug}; add one to PROVIDER_KEYS."))
        }
        NoKey::Blocked => {
            let message =
                format!("All keys for {slug} are blocked, for the provider refused them; add or replace keys.");
            Reply::new(503, "all_keys_blocked", message)
        }
        NoKey::Cooling(until, _) => {
            let wait = now.until(until);
            let seconds = wait.as_secs_up().max(1);
            let message = format!("All keys for {slug} are cooling for this model; the first is ready in {seconds} s.");
            Reply::new(429, "all_keys_cooling", message).retry_after(wait)
        }
        NoKey::Tried => Reply::new(503, "all_keys_tried", format!("Every key for {slug} has been tried; try again.")),
    }
}

fn unreachable(ticket: &Ticket) -> Reply {
    let (slug, count) = (&ticket.slug, ticket.tried.len());
    let message = format!("{slug} gave no answer in {count} attempts; it may be down, or not be reachable from here.");
    Reply::new(502, "provider_unreachable", message)
}
