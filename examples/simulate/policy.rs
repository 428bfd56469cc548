//! The policies that are compared: the pool's real code, one-balance's policy, and no memory at all.

use std::collections::HashMap;
use std::rc::Rc;

use fastrand::Rng;
use one_balance::answer::stream::Usage;
use one_balance::balancer::{Balancer, Next};
use one_balance::config::{Config, Upstream};
use one_balance::pool::store::Memory;
use one_balance::pool::{self, KeyId};
use one_balance::ticket::Ticket;
use one_balance::time::{DailyReset, Span, Time};

use crate::provider::Answer;

/// The most attempts of a request.
const ATTEMPTS: usize = 11;
pub const MODEL: &str = "gemini-2.0-flash";

/// One request on its way.
#[derive(Default)]
pub struct Request {
    pub tried: Vec<usize>,
    /// What the request takes.
    pub tokens: u64,
    last_resort: bool,
    ticket: Option<Ticket>,
    worker: usize,
}

impl Request {
    pub fn new(tokens: u64) -> Self {
        Request { tokens, ..Request::default() }
    }
}

/// What becomes of an answer.
pub enum Step {
    Served,
    Retry,
    Failed,
}

pub trait Policy {
    /// The key of the next attempt; `None`: the client gets an error without one.
    fn pick(&mut self, request: &mut Request, now: Time) -> Option<usize>;
    fn learn(&mut self, request: &mut Request, answer: &Answer, now: Time) -> Step;
}

/// The pool's real code, in some workers on one shared memory.
pub struct Pool {
    store: Memory,
    workers: Vec<Balancer>,
    upstream: Rc<Upstream>,
    places: HashMap<KeyId, usize>,
    rng: Rng,
}

impl Pool {
    pub fn new(slug: &str, keys: usize, workers: usize, seed: u64) -> Self {
        let list: Vec<String> = (0..keys).map(key).collect();
        let text = format!("{slug}={}", list.join(","));
        let env = |name: &str| match name {
            "AUTH_KEY" => Some("simulation".to_owned()),
            "PROVIDER_KEYS" => Some(text.clone()),
            _ => None,
        };
        let config = Rc::new(Config::parse(b"", env).expect("a valid configuration"));
        let store = Memory::default();
        pool::create_state(&store);
        let ids = list.iter().map(|key| KeyId::of(slug, &one_balance::secret::Secret::new(key.as_str())));
        Pool {
            store,
            workers: (0..workers).map(|_| Balancer::new(config.clone())).collect(),
            upstream: config.upstreams[slug].clone(),
            places: ids.zip(0..).collect(),
            rng: Rng::with_seed(seed),
        }
    }
}

fn key(number: usize) -> String {
    format!("key-{number}")
}

impl Policy for Pool {
    fn pick(&mut self, request: &mut Request, now: Time) -> Option<usize> {
        let random = self.rng.u64(..);
        if request.tried.is_empty() {
            request.worker = self.rng.usize(..self.workers.len());
            let ticket = request.ticket.insert(Ticket::new(self.upstream.clone(), MODEL.to_owned()));
            // What a body's length tells of its tokens: 20 % off in either direction.
            ticket.tokens = request.tokens * self.rng.u64(80..=120) / 100;
            self.workers[request.worker].admit(&self.store, ticket, random, now).ok()?;
        }
        let ticket = request.ticket.as_mut()?;
        self.workers[request.worker].attempt(&self.store, ticket, random, || now).ok()?;
        let id = ticket.tried.last()?;
        self.places.get(id).copied()
    }

    fn learn(&mut self, request: &mut Request, answer: &Answer, now: Time) -> Step {
        let balancer = &mut self.workers[request.worker];
        let random = self.rng.u64(..);
        let ticket = request.ticket.as_mut().expect("a key was picked");
        match balancer.answered(&self.store, ticket, &answer.headers, &answer.body, random, now) {
            Next::Retry => Step::Retry,
            _ if answer.status == 200 => {
                let tokens = Usage { input: request.tokens, output: 0 };
                balancer.served(&self.store, ticket, tokens, || now);
                Step::Served
            }
            _ => Step::Failed,
        }
    }
}

/// What the Worker does: a random key that is not cooling; a 429 cools for 65 s, or for what Google
/// states and 2 s; the second 429 in a row cools until midnight, and no success resets the count; a
/// bad key is blocked. A request tries no key twice. When all are cooling, the one that recovers
/// first is tried, once.
pub struct OneBalance {
    cooling: Vec<Time>,
    limited: Vec<u32>,
    blocked: Vec<bool>,
    day: DailyReset,
    rng: Rng,
}

impl OneBalance {
    pub fn new(keys: usize, day: DailyReset, seed: u64) -> Self {
        OneBalance {
            cooling: vec![Time(0); keys],
            limited: vec![0; keys],
            blocked: vec![false; keys],
            day,
            rng: Rng::with_seed(seed),
        }
    }
}

impl Policy for OneBalance {
    fn pick(&mut self, request: &mut Request, now: Time) -> Option<usize> {
        let usable = |key: &usize| !self.blocked[*key] && !request.tried.contains(key);
        let ready: Vec<usize> =
            (0..self.cooling.len()).filter(usable).filter(|key| self.cooling[*key] <= now).collect();
        let earliest = || (0..self.cooling.len()).filter(usable).min_by_key(|key| self.cooling[*key]);
        if request.tried.len() >= ATTEMPTS || request.last_resort {
            return None;
        }
        request.last_resort = ready.is_empty();
        self.rng.choice(ready).or_else(earliest)
    }

    fn learn(&mut self, request: &mut Request, answer: &Answer, now: Time) -> Step {
        let Some(&key) = request.tried.last() else { return Step::Failed };
        match answer.status {
            200 => return Step::Served,
            400 | 401 | 403 => self.blocked[key] = true,
            429 => {
                self.limited[key] += 1;
                let stated = retry_delay(&answer.body).map(|delay| now.plus(delay).plus(Span::secs(2)));
                self.cooling[key] = match self.limited[key] {
                    1 => stated.unwrap_or(now.plus(Span::secs(65))),
                    _ => self.day.next(now),
                };
            }
            _ => {}
        }
        if request.tried.len() < ATTEMPTS { Step::Retry } else { Step::Failed }
    }
}

fn retry_delay(body: &[u8]) -> Option<Span> {
    let body: serde_json::Value = serde_json::from_slice(body).ok()?;
    let delay = body["error"]["details"].as_array()?.iter().find_map(|detail| detail["retryDelay"].as_str())?;
    Some(Span::secs(delay.trim_end_matches('s').parse().ok()?))
}

/// Keys in turn, and the next one after a failure; nothing is remembered.
pub struct NoMemory {
    keys: usize,
    next: usize,
}

impl NoMemory {
    pub fn new(keys: usize) -> Self {
        NoMemory { keys, next: 0 }
    }
}

impl Policy for NoMemory {
    fn pick(&mut self, request: &mut Request, _: Time) -> Option<usize> {
        self.next += 1;
        (request.tried.len() < ATTEMPTS.min(self.keys)).then_some(self.next % self.keys)
    }

    fn learn(&mut self, request: &mut Request, answer: &Answer, _: Time) -> Step {
        match answer.status {
            200 => Step::Served,
            _ if request.tried.len() < ATTEMPTS.min(self.keys) => Step::Retry,
            _ => Step::Failed,
        }
    }
}
