//! A small world for transcripts: some workers on one shared memory, a clock, requests.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::collections::BTreeMap;
use std::rc::Rc;

use one_balance::balancer::{Balancer, Next};
use one_balance::config::Config;
use one_balance::headers::Headers;
use one_balance::pool::store::Memory;
use one_balance::pool::{self, KeyId};
use one_balance::reply::Reply;
use one_balance::request::{self, Forward, Step};
use one_balance::rewrite::Edit;
use one_balance::secret::Secret;
use one_balance::ticket::Ticket;
use one_balance::time::{Span, Time};

/// 24 November 2026, 15:00 UTC, a full minute.
pub const START: Time = Time::from_secs(1_795_532_400);

pub struct World {
    pub store: Memory,
    pub config: Rc<Config>,
    pub workers: Vec<Balancer>,
    pub now: Time,
}

/// A request on its way: what the provider sees of it.
pub struct Sent {
    pub ticket: Ticket,
    pub worker: usize,
    pub headers: BTreeMap<String, String>,
}

impl World {
    pub fn new(json: &str, env: &[(&str, &str)]) -> Self {
        World::with_workers(json, env, 2)
    }

    pub fn with_workers(json: &str, env: &[(&str, &str)], workers: usize) -> Self {
        let env: BTreeMap<_, _> = env.iter().copied().collect();
        let value = |name: &str| env.get(name).map(|&text| text.to_owned());
        let config = Config::parse(json.as_bytes(), value).expect("a valid configuration");
        let config = Rc::new(config);
        let store = Memory::default();
        pool::create_state(&store);
        one_balance::d1::create_state(&store);
        let workers = (0..workers).map(|_| Balancer::new(config.clone())).collect();
        World { store, config, workers, now: START }
    }

    pub fn wait(&mut self, secs: u64) {
        self.now = self.now.plus(Span::secs(secs));
    }

    /// A request for a model of a provider, as far as the first key.
    pub fn ask(&mut self, worker: usize, slug: &str, model: &str) -> Result<Sent, Reply> {
        let ticket = self.ticket(slug, model);
        self.send(worker, ticket)
    }

    pub fn ticket(&self, slug: &str, model: &str) -> Ticket {
        Ticket::new(self.config.upstreams[slug].clone(), model.to_owned())
    }

    pub fn send(&mut self, worker: usize, mut ticket: Ticket) -> Result<Sent, Reply> {
        self.workers[worker].admit(&self.store, &mut ticket, 7, self.now)?;
        let mut sent = Sent { ticket, worker, headers: BTreeMap::new() };
        self.attempt(&mut sent)?;
        Ok(sent)
    }

    /// The next attempt.
    pub fn attempt(&mut self, sent: &mut Sent) -> Result<(), Reply> {
        let attempt = self.workers[sent.worker].attempt(&self.store, &mut sent.ticket, 7, || self.now)?;
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
        let headers = Headers::from_iter(all);
        self.workers[sent.worker].answered(&self.store, &mut sent.ticket, &headers, body.as_bytes(), 7, self.now)
    }

    /// A whole request over all of its attempts, answered by `provider` key by key; the keys in the
    /// order in which they were tried, and the last status.
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

    pub fn available_from(&mut self, slug: &str, key: &str, model: &str) -> Time {
        let pool = &mut self.workers[0].pool;
        pool.refresh(&self.store, self.now);
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
}

pub fn id(slug: &str, key: &str) -> KeyId {
    KeyId::of(slug, &Secret::new(key))
}

/// What the downstream filter makes of a request.
pub fn forward(
    config: &Config,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Result<Forward, Reply> {
    let all = [(":method", method), (":path", path)].into_iter().chain(headers.iter().copied());
    match request::begin(config, Headers::from_iter(all), body.is_empty(), || START) {
        Step::Reply(reply, _) => Err(reply),
        Step::Answer(answer) => Err(Reply::new(answer.status, "answer", String::from_utf8_lossy(&answer.body))),
        Step::Console(asked, _) => Err(Reply::new(200, "console", format!("{asked:?}"))),
        Step::Proceed(intake) => intake.finish(config, body.as_bytes(), body.len(), 0),
    }
}
