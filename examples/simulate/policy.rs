//! The policies that are compared: the pool's real code, one-balance's policy, and no memory at all.

use std::collections::HashMap;

use fastrand::Rng;
use one_balance::answer::stream::Usage;
use one_balance::balancer::Next;
use one_balance::pool::KeyId;
use one_balance::testing::{self, Sent, World};
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
    sent: Option<Sent>,
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
    world: World,
    slug: String,
    places: HashMap<KeyId, usize>,
    rng: Rng,
}

impl Pool {
    pub fn new(slug: &str, keys: usize, workers: usize, seed: u64) -> Self {
        let list: Vec<String> = (0..keys).map(key).collect();
        let keys = format!("{slug}={}", list.join(","));
        let world = World::with_workers("", &[("AUTH_KEY", "simulation"), ("PROVIDER_KEYS", &keys)], workers);
        let places = list.iter().map(|key| testing::id(slug, key)).zip(0..).collect();
        Pool { world, slug: slug.to_owned(), places, rng: Rng::with_seed(seed) }
    }

    fn begin(&mut self, now: Time) {
        self.world.host.now.set(now);
        self.world.host.random.set(self.rng.u64(..));
    }
}

fn key(number: usize) -> String {
    format!("key-{number}")
}

impl Policy for Pool {
    fn pick(&mut self, request: &mut Request, now: Time) -> Option<usize> {
        self.begin(now);
        if request.tried.is_empty() {
            let worker = self.rng.usize(..self.world.workers.len());
            let mut outgoing = self.world.outgoing(&self.slug, MODEL);
            // What a body's length says about its tokens: 20 % off in either direction.
            outgoing.tokens = request.tokens * self.rng.u64(80..=120) / 100;
            request.sent = Some(self.world.admit(worker, outgoing).ok()?);
        }
        let sent = request.sent.as_mut()?;
        self.world.attempt(sent).ok()?;
        let id = sent.exchange.progress.tried.last()?;
        self.places.get(id).copied()
    }

    fn learn(&mut self, request: &mut Request, answer: &Answer, now: Time) -> Step {
        self.begin(now);
        let sent = request.sent.as_mut().expect("a key was picked");
        match self.world.answered(sent, &answer.headers, &answer.body) {
            Next::Retry => Step::Retry,
            _ if answer.status == 200 => {
                self.world.served(sent, Usage { input: request.tokens, output: 0 });
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
