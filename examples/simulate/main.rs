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

mod hostile;
mod one_balance_worker;
mod policy;
mod provider;
mod scenario;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::process::ExitCode;

use fastrand::Rng;
use one_balance::time::{Span, Time};

use one_balance_worker::OneBalance;
use policy::{NoMemory, Policy, Pool, Request, Step};
use scenario::Scenario;

/// An error is needless if some key has had room for so long: what a client waits anyway that is told
/// to come back in the next second, and the moment in which nobody can know yet.
const GRACE: Span = Span::secs(2);

/// As long as the way to the provider takes.
const UNDER_WAY: Span = Span(40);

/// What came of the requests that arrived in one part of a run. Hostile requests count in `attempts` alone:
/// nobody owes them an answer.
#[derive(Clone, Default)]
struct Tally {
    requests: u64,
    served: u64,
    limited: u64,
    needless: u64,
    attempts: u64,
}

impl Tally {
    /// Answers served against what the quotas and the demand of that part allowed.
    fn share(&self, scenario: &Scenario, part: usize) -> f64 {
        self.served as f64 / scenario.allowed(part, self.requests) as f64
    }

    fn limited_per_thousand(&self) -> f64 {
        per_thousand(self.limited, self.served)
    }
}

fn per_thousand(count: u64, of: u64) -> f64 {
    1000.0 * count as f64 / of.max(1) as f64
}

enum Event {
    Arrives,
    Answered(Request, provider::Answer),
    Retries(Request),
    /// A client was turned away a moment ago; by now what was under way has arrived.
    Judged(Request, Time),
}

struct Run<'a> {
    provider: provider::Provider,
    scenario: &'a Scenario,
    policy: &'a mut dyn Policy,
    events: BinaryHeap<Reverse<(Time, u64, usize)>>,
    waiting: Vec<Option<Event>>,
    rng: Rng,
    /// One for each part of the scenario.
    tallies: Vec<Tally>,
}

fn run(scenario: &Scenario, policy: &mut dyn Policy, seed: u64) -> Vec<Tally> {
    let mut run = Run {
        provider: scenario.provider(),
        scenario,
        policy,
        events: BinaryHeap::new(),
        waiting: Vec::new(),
        rng: Rng::with_seed(seed),
        tallies: vec![Tally::default(); scenario.parts()],
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
                let request = scenario.request(now, &mut run.rng);
                let is_innocent = request.hostile.is_none();
                run.tally(&request).requests += u64::from(is_innocent);
                run.attempt(request, now);
            }
            Some(Event::Retries(request)) => run.attempt(request, now),
            Some(Event::Answered(request, answer)) => run.answered(request, &answer, now),
            Some(Event::Judged(request, failed)) => run.judged(&request, failed, now),
            None => {}
        }
    }
    run.tallies
}

impl Run<'_> {
    fn tally(&mut self, request: &Request) -> &mut Tally {
        let part = self.scenario.part(request.arrived);
        &mut self.tallies[part]
    }

    fn at(&mut self, time: Time, event: Event) {
        let slot = self.waiting.len();
        self.waiting.push(Some(event));
        self.events.push(Reverse((time, slot as u64, slot)));
    }

    fn attempt(&mut self, mut request: Request, now: Time) {
        let Some(key) = self.policy.pick(&mut request, now) else { return self.failed(request, now) };
        request.tried.push(key);
        self.tally(&request).attempts += 1;
        // The provider counts when the request gets there, a little later and in another order.
        let there = now.plus(Span(self.rng.u64(5..=UNDER_WAY.0)));
        let answer = self.provider.answer(key, &request, there);
        let is_limited = answer.status == 429 && request.hostile.is_none();
        self.tally(&request).limited += u64::from(is_limited);
        let thinks = if answer.status == 200 { self.rng.u64(300..3000) } else { 20 };
        self.at(there.plus(Span(thinks)), Event::Answered(request, answer));
    }

    fn answered(&mut self, mut request: Request, answer: &provider::Answer, now: Time) {
        match self.policy.learn(&mut request, answer, now) {
            Step::Served => self.tally(&request).served += 1,
            Step::Retry => {
                let backoff = self.policy.backoff(request.tried.len());
                self.at(now.plus(backoff), Event::Retries(request));
            }
            Step::Failed => self.failed(request, now),
        }
    }

    fn failed(&mut self, request: Request, now: Time) {
        if request.hostile.is_none() {
            self.at(now.plus(UNDER_WAY), Event::Judged(request, now));
        }
    }

    fn judged(&mut self, request: &Request, failed: Time, now: Time) {
        // Nobody knows beforehand how large it is; half as much again is what the pool may have taken it for.
        let tokens = request.tokens * 3 / 2;
        let room = self.provider.had_room(request.model, tokens, Time(failed.0 - GRACE.0), now);
        self.tally(request).needless += u64::from(room);
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
            ("one-balance", Box::new(OneBalance::new(scenario.slug, keys, seed))),
            ("no memory", Box::new(NoMemory::new(keys))),
        ];
        let runs = policies.each_mut().map(|(name, policy)| (*name, run(&scenario, policy.as_mut(), seed)));
        for part in 0..scenario.parts() {
            for (name, tallies) in &runs {
                let tally = &tallies[part];
                let share = tally.share(&scenario, part);
                let limited = tally.limited_per_thousand();
                let needless = per_thousand(tally.needless, tally.requests);
                let attempts = tally.attempts as f64 / tally.served.max(1) as f64;
                let title = scenario.title(part);
                println!("{title:<44} {name:<12} {share:>6.3} {limited:>8.1} {needless:>8.1} {attempts:>9.2}");
                let good = share >= 0.98 && limited <= 15.0 && (needless <= 10.0 || !scenario.is_stated);
                if *name == "one pool" && !good {
                    missed += 1;
                }
            }
        }
    }
    println!(
        "\nGoal for one pool: yield >= 0.98, at most 15 429s, and as good as no needless error (10 of 1,000, which"
    );
    println!("are the last few units of a quota, for demand is beyond it). Missed in {missed} scenarios.");
    if is_worker_modelled(seed) && missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Compares the model of the Worker with what the Worker itself did, and prints both.
///
/// One run differs from the next by more than a tenth, with the Worker as with its model, so their means
/// are compared. The runs begin at different seconds of the provider's minute.
fn is_worker_modelled(seed: u64) -> bool {
    const RUNS: u64 = 30;
    println!("\n{:<44} {:>16} {:>16}", "one-balance, mean of its runs: yield, 429s", "model", "Worker");
    let mut is_modelled = true;
    for scenario in scenario::all().into_iter().filter(|scenario| !scenario.measured.is_empty()) {
        let runs: Vec<(Scenario, Vec<Tally>)> = (0..RUNS)
            .map(|number| {
                let scenario = Scenario { start: scenario.start.plus(Span::secs(number * 2)), ..scenario.clone() };
                let mut worker = OneBalance::new(scenario.slug, scenario.keys.len(), seed + number);
                let tallies = run(&scenario, &mut worker, seed + number);
                (scenario, tallies)
            })
            .collect();
        for (part, real) in scenario.measured.iter().enumerate() {
            let mean = |of: &dyn Fn(&Scenario, &Tally) -> f64| {
                runs.iter().map(|(scenario, tallies)| of(scenario, &tallies[part])).sum::<f64>() / RUNS as f64
            };
            let share = mean(&|scenario, tally| tally.share(scenario, part));
            let limited = mean(&|_, tally| tally.limited_per_thousand());
            let title = scenario.title(part);
            let (real_share, real_limited) = real.mean();
            println!("{title:<44} {share:>8.3} {limited:>7.1} {real_share:>8.3} {real_limited:>7.1}");
            is_modelled &= real.agrees(share, limited);
        }
    }
    if !is_modelled {
        println!("The model of one-balance is off by more than a tenth.");
    }
    is_modelled
}
