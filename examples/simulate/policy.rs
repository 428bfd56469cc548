//! What a policy is, and two of those that are compared: the pool's real code, and no memory at all.

use std::collections::HashMap;

use fastrand::Rng;
use one_balance::answer::stream::Usage;
use one_balance::balancer::Next;
use one_balance::pool::KeyId;
use one_balance::testing::{self, Sent, World};
use one_balance::time::{Span, Time};

use crate::hostile::Hostile;
use crate::one_balance_worker::ActiveKeys;
use crate::provider::Answer;

/// The most attempts of a request.
const ATTEMPTS: usize = 11;

/// One request on its way.
#[derive(Default)]
pub struct Request {
    pub arrived: Time,
    pub model: &'static str,
    /// What is wrong with the request itself, if anything is.
    pub hostile: Option<Hostile>,
    pub tried: Vec<usize>,
    /// What the request takes.
    pub tokens: u64,
    /// The array of keys from which the Worker serves this request.
    pub active_keys: Option<ActiveKeys>,
    sent: Option<Sent>,
}

impl Request {
    pub fn new(arrived: Time, model: &'static str, hostile: Option<Hostile>, tokens: u64) -> Self {
        Request { arrived, model, hostile, tokens, ..Request::default() }
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

    /// The pause before a request's next attempt. The default is that of Envoy's router.
    fn backoff(&self, attempts: usize) -> Span {
        Span((1 << attempts.min(9)) - 1)
    }
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
            let mut outgoing = self.world.outgoing(&self.slug, request.model);
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
