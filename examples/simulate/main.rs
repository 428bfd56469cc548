//! How much quota a policy turns into answers, and at what price: a discrete-event simulation.
//!
//! The same arrivals meet the same provider under each policy; nothing sleeps, and a seed gives the
//! same table every time. `yield` is answers served against what quota and demand allowed,
//! `429s` upstream 429s per 1,000 answers, `errors` client-visible errors per 1,000 requests although
//! some key had had room for two seconds, `attempts` attempts per answer.
//!
//! ```sh
//! cargo run --release --example simulate [seed]
//! ```

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "a panic here ends a simulation, and no request")]

mod policy;
mod provider;
mod scenario;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::process::ExitCode;

use fastrand::Rng;
use one_balance::time::{Span, Time};

use policy::{NoMemory, OneBalance, Policy, Pool, Request, Step};
use scenario::Scenario;

/// An error is needless if some key has had room for so long: what a client waits anyway that is told
/// to come back in the next second, and the moment in which nobody can know yet.
const GRACE: Span = Span::secs(2);

/// As long as the way to the provider takes.
const UNDER_WAY: Span = Span(40);

/// What came of a run.
#[derive(Default)]
struct Tally {
    requests: u64,
    served: u64,
    limited: u64,
    needless: u64,
    attempts: u64,
}

enum Event {
    Arrives,
    Answered(Request, provider::Answer),
    Retries(Request),
    /// A client was turned away a moment ago; by now what was under way has arrived.
    Judged(u64, Time),
}

struct Run<'a> {
    provider: provider::Provider,
    policy: &'a mut dyn Policy,
    events: BinaryHeap<Reverse<(Time, u64, usize)>>,
    waiting: Vec<Option<Event>>,
    rng: Rng,
    tally: Tally,
}

fn run(scenario: &Scenario, policy: &mut dyn Policy, seed: u64) -> Tally {
    let mut run = Run {
        provider: scenario.provider(),
        policy,
        events: BinaryHeap::new(),
        waiting: Vec::new(),
        rng: Rng::with_seed(seed),
        tally: Tally::default(),
    };
    let mut arrival = scenario.start;
    let mut arrivals = Rng::with_seed(seed ^ 0x5eed);
    while arrival < scenario.start.plus(scenario.length) {
        run.at(arrival, Event::Arrives);
        // Exponential gaps: a Poisson stream.
        let gap = -arrivals.f64().max(1e-12).ln() * 1000.0 / scenario.per_second;
        arrival = arrival.plus(Span(gap as u64));
    }
    while let Some(Reverse((now, _, slot))) = run.events.pop() {
        match run.waiting[slot].take() {
            Some(Event::Arrives) => {
                run.tally.requests += 1;
                let tokens = scenario.tokens(&mut run.rng);
                run.attempt(Request::new(tokens), now);
            }
            Some(Event::Retries(request)) => run.attempt(request, now),
            Some(Event::Answered(request, answer)) => run.answered(request, &answer, now),
            Some(Event::Judged(tokens, failed)) => run.judged(tokens, failed, now),
            None => {}
        }
    }
    run.tally
}

impl Run<'_> {
    fn at(&mut self, time: Time, event: Event) {
        let slot = self.waiting.len();
        self.waiting.push(Some(event));
        self.events.push(Reverse((time, slot as u64, slot)));
    }

    fn attempt(&mut self, mut request: Request, now: Time) {
        let Some(key) = self.policy.pick(&mut request, now) else { return self.failed(&request, now) };
        request.tried.push(key);
        self.tally.attempts += 1;
        // The provider counts when the request gets there, a little later and in another order.
        let there = now.plus(Span(self.rng.u64(5..=UNDER_WAY.0)));
        let answer = self.provider.answer(key, request.tokens, there);
        self.tally.limited += u64::from(answer.status == 429);
        let thinks = if answer.status == 200 { self.rng.u64(300..3000) } else { 20 };
        self.at(there.plus(Span(thinks)), Event::Answered(request, answer));
    }

    fn answered(&mut self, mut request: Request, answer: &provider::Answer, now: Time) {
        match self.policy.learn(&mut request, answer, now) {
            Step::Served => self.tally.served += 1,
            Step::Retry => {
                let backoff = Span((1 << request.tried.len().min(9)) - 1);
                self.at(now.plus(backoff), Event::Retries(request));
            }
            Step::Failed => self.failed(&request, now),
        }
    }

    fn failed(&mut self, request: &Request, now: Time) {
        self.at(now.plus(UNDER_WAY), Event::Judged(request.tokens, now));
    }

    fn judged(&mut self, tokens: u64, failed: Time, now: Time) {
        // Nobody knows beforehand how large it is; half as much again is what the pool may have taken it for.
        let room = self.provider.had_room(tokens * 3 / 2, Time(failed.0 - GRACE.0), now);
        self.tally.needless += u64::from(room);
    }
}

fn main() -> ExitCode {
    let seed = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(1);
    println!("{:<44} {:<12} {:>6} {:>8} {:>8} {:>9}", "scenario", "policy", "yield", "429s", "errors", "attempts");
    let mut missed = 0;
    for scenario in scenario::all() {
        let keys = scenario.keys.len();
        let mut policies: [(&str, Box<dyn Policy>); 3] = [
            ("one pool", Box::new(Pool::new(scenario.slug, keys, 2, seed))),
            ("one-balance", Box::new(OneBalance::new(keys, scenario.day(), seed))),
            ("no memory", Box::new(NoMemory::new(keys))),
        ];
        for (name, policy) in &mut policies {
            let tally = run(&scenario, policy.as_mut(), seed);
            let allowed = scenario.allowed(tally.requests);
            let per_thousand = |count: u64, of: u64| 1000.0 * count as f64 / of.max(1) as f64;
            let (share, limited) = (tally.served as f64 / allowed as f64, per_thousand(tally.limited, tally.served));
            let needless = per_thousand(tally.needless, tally.requests);
            let attempts = tally.attempts as f64 / tally.served.max(1) as f64;
            println!("{:<44} {name:<12} {share:>6.3} {limited:>8.1} {needless:>8.1} {attempts:>9.2}", scenario.name);
            let good = share >= 0.98 && limited <= 15.0 && (needless <= 10.0 || !scenario.is_stated);
            if *name == "one pool" && !good {
                missed += 1;
            }
        }
    }
    println!(
        "\nGoal for one pool: yield >= 0.98, at most 15 429s, and as good as no needless error (10 of 1,000, which"
    );
    println!("are the last few units of a quota, for demand is beyond it). Missed in {missed} scenarios.");
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
