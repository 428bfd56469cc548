//! The driver of a request's life, for tests, the benchmark and the simulation: some workers on one shared
//! memory, a clock, requests. It calls the balancer as [`crate::filter`] does.
//!
//! It is compiled only with the feature `testing`, and panics where a test would.

#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "only tests use it")]

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::answer::stream::Usage;
use crate::balancer::progress::Exchange;
use crate::balancer::{Balancer, Next};
use crate::config::Config;
use crate::host::memory::Memory;
use crate::http::headers::Headers;
use crate::pool::{self, KeyId};
use crate::reply::Reply;
use crate::request::edits::Edit;
use crate::request::forward::{Forward, Outgoing};
use crate::request::{self, Step};
use crate::secret::Secret;
use crate::time::{Span, Time};

/// 24 November 2026, 15:00 UTC, a full minute.
pub const START: Time = Time::from_secs(1_795_532_400);

/// Some workers of one Envoy.
pub struct World {
    /// What the workers share, with the clock.
    pub host: Rc<Memory>,
    /// The configuration of all workers.
    pub config: Rc<Config>,
    /// The workers.
    pub workers: Vec<Balancer>,
}

/// A request under way: what the provider sees of it.
pub struct Sent {
    /// Its state.
    pub exchange: Exchange,
    /// The worker that serves it.
    pub worker: usize,
    /// The headers that its attempts have set.
    pub headers: BTreeMap<String, String>,
}

impl World {
    /// Two workers with this configuration and environment.
    pub fn new(json: &str, env: &[(&str, &str)]) -> Self {
        World::with_workers(json, env, 2)
    }

    /// Some workers.
    pub fn with_workers(json: &str, env: &[(&str, &str)], workers: usize) -> Self {
        let config = Rc::new(config(json, env));
        let host = Rc::new(Memory::default());
        host.now.set(START);
        host.random.set(7);
        pool::create_state(&*host);
        crate::d1::create_state(&*host);
        let workers = (0..workers).map(|_| Balancer::new(config.clone(), host.clone())).collect();
        World { host, config, workers }
    }

    /// The time.
    pub fn now(&self) -> Time {
        self.host.now.get()
    }

    /// Lets time pass.
    pub fn wait(&mut self, secs: u64) {
        self.host.now.set(self.now().plus(Span::secs(secs)));
    }

    /// A request for a model of a provider, as far as the first key.
    pub fn ask(&mut self, worker: usize, slug: &str, model: &str) -> Result<Sent, Reply> {
        let outgoing = self.outgoing(slug, model);
        self.send(worker, outgoing)
    }

    /// A plain request for a model of a provider.
    pub fn outgoing(&self, slug: &str, model: &str) -> Outgoing {
        Outgoing::new(self.config.upstreams[slug].clone(), model.to_owned())
    }

    /// Leases the first key of a request; no attempt takes it yet.
    pub fn admit(&mut self, worker: usize, outgoing: Outgoing) -> Result<Sent, Reply> {
        let progress = self.workers[worker].admit(&outgoing)?;
        Ok(Sent { exchange: Exchange { outgoing, progress }, worker, headers: BTreeMap::new() })
    }

    /// Sends a request, as far as the first key.
    pub fn send(&mut self, worker: usize, outgoing: Outgoing) -> Result<Sent, Reply> {
        let mut sent = self.admit(worker, outgoing)?;
        self.attempt(&mut sent)?;
        Ok(sent)
    }

    /// The next attempt.
    pub fn attempt(&mut self, sent: &mut Sent) -> Result<(), Reply> {
        let attempt = self.workers[sent.worker].attempt(&mut sent.exchange)?;
        for edit in attempt.edits {
            match edit {
                Edit::Set(name, value) => sent.headers.insert(name.to_owned(), value.into_owned()),
                Edit::Remove(name) => sent.headers.remove(&*name),
            };
        }
        Ok(())
    }

    /// The provider answers the attempt under way.
    pub fn answer(&mut self, sent: &mut Sent, status: u16, headers: &[(&str, &str)], body: &str) -> Next {
        let status = status.to_string();
        let all = headers.iter().copied().chain([(":status", status.as_str()), ("content-type", "application/json")]);
        self.answered(sent, &Headers::from_iter(all), body.as_bytes())
    }

    /// The same with all headers and a body of bytes.
    pub fn answered(&mut self, sent: &mut Sent, headers: &Headers, body: &[u8]) -> Next {
        self.workers[sent.worker].answered(&mut sent.exchange, headers, body)
    }

    /// A successful answer has ended.
    pub fn served(&mut self, sent: &mut Sent, tokens: Usage) {
        self.workers[sent.worker].served(&mut sent.exchange, tokens);
    }

    /// The stream of a request is over.
    pub fn ended(&mut self, sent: &mut Sent) {
        self.workers[sent.worker].ended(&mut sent.exchange);
    }

    /// A whole request over all of its attempts, answered by `provider` key by key; the keys in the order in
    /// which they were tried, and the last status.
    pub fn serve(
        &mut self,
        worker: usize,
        slug: &str,
        model: &str,
        provider: impl Fn(&str) -> (u16, &'static str),
    ) -> (Vec<String>, u16) {
        let mut tried = Vec::new();
        let mut sent = match self.ask(worker, slug, model) {
            Ok(sent) => sent,
            Err(reply) => return (tried, reply.status),
        };
        loop {
            let key = sent.key();
            let (status, body) = provider(&key);
            tried.push(key);
            match self.answer(&mut sent, status, &[], body) {
                Next::Retry => {
                    if let Err(reply) = self.attempt(&mut sent) {
                        return (tried, reply.status);
                    }
                }
                Next::Deliver(_) => return (tried, status),
                Next::Replace(reply) => return (tried, reply.status),
            }
        }
    }

    /// When a key can be used for a model again.
    pub fn available_from(&mut self, slug: &str, key: &str, model: &str) -> Time {
        let pool = &mut self.workers[0].pool;
        pool.refresh();
        let record = pool.record(id(slug, key));
        record.map_or(Time(0), |record| record.available_from(model))
    }
}

impl Sent {
    /// The key that the provider gets.
    pub fn key(&self) -> String {
        let values = ["authorization", "x-goog-api-key", "x-api-key", "api-key", "xi-api-key"];
        let value = values.iter().find_map(|name| self.headers.get(*name)).expect("a credential");
        value.trim_start_matches("Bearer ").to_owned()
    }

    /// What became of it, as the access log names it; empty until that is known.
    pub fn result(&self) -> &'static str {
        self.exchange.progress.ending().map_or("", |ending| ending.as_str())
    }
}

/// A valid configuration.
pub fn config(json: &str, env: &[(&str, &str)]) -> Config {
    let env: BTreeMap<_, _> = env.iter().copied().collect();
    let value = |name: &str| env.get(name).map(|&text| text.to_owned());
    Config::parse(json.as_bytes(), value).expect("a valid configuration")
}

/// The id of a key.
pub fn id(slug: &str, key: &str) -> KeyId {
    KeyId::of(slug, &Secret::new(key))
}

/// A request that is not sent on: status, code ("answer" or "console" where it is not an error) and message.
#[derive(Debug, PartialEq, Eq)]
pub struct Stopped {
    /// HTTP status.
    pub status: u16,
    /// Why.
    pub code: &'static str,
    /// The text for a person.
    pub message: String,
}

/// What the downstream filter makes of a request.
pub fn forward(
    config: &Rc<Config>,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Result<Forward, Stopped> {
    let all = [(":method", method), (":path", path)].into_iter().chain(headers.iter().copied());
    let host = Memory::default();
    host.now.set(START);
    let stopped = |reply: Reply| Stopped { status: reply.status, code: reply.code.as_str(), message: reply.message };
    match request::begin(config, &host, Headers::from_iter(all), body.is_empty()) {
        Step::Reply(reply, _) => Err(stopped(reply)),
        Step::Answer(answer) => {
            let message = String::from_utf8_lossy(&answer.body).into_owned();
            Err(Stopped { status: answer.status, code: "answer", message })
        }
        Step::Console(asked, _) => Err(Stopped { status: 200, code: "console", message: format!("{asked:?}") }),
        Step::Proceed(pending) => pending.finish(body.as_bytes(), body.len(), 0).map_err(stopped),
    }
}
