//! Runs every schedule of a few workers against the compare-and-set protocol of shared data.
//!
//! Each worker runs the real code in its thread, and stops before every access to shared data until the schedule
//! continues it. The schedules are walked depth first: a run follows a prefix of choices, then always continues the first
//! worker, and records where another worker could have been continued. A careless protocol (read, then write without the
//! compare-and-set number) is run the same way, to show that the walk finds a lost update.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::rc::Rc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;

use one_balance::host::memory::Memory;
use one_balance::host::store::update;
use one_balance::host::{Host, Store};
use one_balance::pool::record::{Pause, Reason, SyncState, Trial};
use one_balance::pool::{self, KeyId, Pool};
use one_balance::time::Time;

/// Shared data whose every access waits for the schedule.
struct Gated {
    memory: Arc<Mutex<Memory>>,
    request: SyncSender<()>,
    go: Receiver<()>,
}

impl Gated {
    fn step<T>(&self, access: impl FnOnce(&Memory) -> T) -> T {
        self.request.send(()).unwrap();
        self.go.recv().unwrap();
        access(&self.memory.lock().unwrap())
    }
}

impl Store for Gated {
    fn get(&self, name: &str) -> Option<(Vec<u8>, u32)> {
        self.step(|memory| memory.get(name))
    }

    fn set(&self, name: &str, value: &[u8], cas: Option<u32>) -> bool {
        self.step(|memory| memory.set(name, value, cas))
    }
}

impl Host for Gated {
    fn now(&self) -> Time {
        Time(1000)
    }

    fn random(&self) -> u64 {
        7
    }
}

type Work = fn(Rc<dyn Host>, usize);

/// Runs the workers along a schedule. Returns the memory, and the number of workers that could have been continued at
/// each step.
fn run(prepare: fn(&Memory), work: Work, workers: usize, schedule: &[usize]) -> (Memory, Vec<usize>) {
    let memory = Memory::default();
    prepare(&memory);
    let memory = Arc::new(Mutex::new(memory));
    let mut choices = Vec::new();
    thread::scope(|scope| {
        let mut running: Vec<(Receiver<()>, SyncSender<()>)> = (0..workers)
            .map(|worker| {
                let (request, requested) = sync_channel(0);
                let (allow, go) = sync_channel(0);
                let memory = memory.clone();
                scope.spawn(move || work(Rc::new(Gated { memory, request, go }), worker));
                (requested, allow)
            })
            .collect();
        // A worker that ends drops its side of the channels.
        let mut waiting: Vec<bool> = running.iter().map(|(requested, _)| requested.recv().is_ok()).collect();
        loop {
            let ended = waiting.iter().position(|waits| !waits);
            if let Some(ended) = ended {
                running.remove(ended);
                waiting.remove(ended);
                continue;
            }
            if running.is_empty() {
                break;
            }
            let choice = schedule.get(choices.len()).copied().unwrap_or(0);
            choices.push(running.len());
            running[choice].1.send(()).unwrap();
            waiting[choice] = running[choice].0.recv().is_ok();
        }
    });
    let memory = Arc::try_unwrap(memory).unwrap().into_inner().unwrap();
    (memory, choices)
}

/// Walks all schedules. Returns how many there were, and in how many of them `check` failed.
fn walk(prepare: fn(&Memory), work: Work, workers: usize, check: fn(&Memory, usize) -> bool) -> (usize, usize) {
    let (mut schedules, mut failures) = (0, 0);
    let mut schedule: Vec<usize> = Vec::new();
    loop {
        let (memory, choices) = run(prepare, work, workers, &schedule);
        schedules += 1;
        failures += usize::from(!check(&memory, workers));
        // The next schedule changes the last choice that can be changed, and takes the first worker afterwards.
        schedule.resize(choices.len(), 0);
        let Some(last) = (0..choices.len()).rev().find(|step| schedule[*step] + 1 < choices[*step]) else {
            return (schedules, failures);
        };
        schedule.truncate(last + 1);
        schedule[last] += 1;
    }
}

fn counter(memory: &Memory) {
    memory.set("n", &[0], None);
}

fn counts_all(memory: &Memory, workers: usize) -> bool {
    memory.get("n").unwrap().0 == [workers as u8]
}

#[test]
fn updates_are_never_lost() {
    let work: Work = |host, _| update(&*host, "n", |value| (Some(vec![value[0] + 1]), ())).unwrap();
    for workers in [2, 3] {
        let (schedules, failures) = walk(counter, work, workers, counts_all);
        println!("{workers} workers: {schedules} schedules");
        assert!(schedules >= [6, 90][workers - 2], "fewer than without any lost race");
        assert_eq!(failures, 0);
    }
}

#[test]
fn a_careless_protocol_is_caught() {
    let work: Work = |store, _| {
        let (value, _) = store.get("n").unwrap();
        store.set("n", &[value[0] + 1], None);
    };
    // Of the 6 schedules of two workers only the two serial ones keep both updates.
    assert_eq!(walk(counter, work, 2, counts_all), (6, 4));
}

const KEY: KeyId = KeyId(7);

fn config() -> Rc<one_balance::config::Config> {
    let env = |name: &str| (name == "AUTH_KEY").then(|| "a".to_owned());
    Rc::new(one_balance::config::Config::parse(b"", env).unwrap())
}

/// Two workers get a 429 on the same key at once: both are counted, the longer cooling is kept, and a third worker that
/// reads afterwards sees it.
#[test]
fn counts_and_coolings_of_the_pool_are_exact() {
    let work: Work = |host, worker| {
        let mut pool = Pool::new(config(), host);
        pool.change(KEY, |record| {
            let state = record.model_mut("m");
            state.consecutive_429 += 1;
            let until = Time(2000 + worker as u64);
            let (reason, trial, sync) = (Reason::Unstated, Trial::Needed, SyncState::Local);
            record.cool("m", Pause { from: Time(1000), until, reason, trial, sync });
        })
        .unwrap();
    };
    let check = |memory: &Memory, workers: usize| {
        let host = Rc::new(Memory::default());
        memory.copy_to(&host);
        let mut pool = Pool::new(config(), host);
        pool.refresh();
        let state = pool.record(KEY).and_then(|record| record.model("m")).cloned().unwrap();
        state.consecutive_429 == workers as u32 && state.cooling.unwrap().until == Time(1999 + workers as u64)
    };
    let (schedules, failures) = walk(|memory| pool::create_state(memory), work, 2, check);
    println!("the pool: {schedules} schedules");
    assert!(schedules >= 70, "C(8, 4) without any lost race");
    assert_eq!(failures, 0);
}
