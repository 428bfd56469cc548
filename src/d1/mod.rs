//! The sync with D1: keys are read from its table, and blocks and coolings that were learned here are written to it.
//!
//! ```text
//!            ┌── outbox is due ──▶ writing ──┐
//! idle ──────┤                               ├──▶ idle
//!            └── interval is over ▶ reading ─┘      after a failure: not before the backoff has passed
//!                                   └▶ next page
//! ```
//!
//! The [`Syncer`] sends nothing itself: the adapter sends the calls that it returns, and passes the answers to it.
//! At most one call is under way. A snapshot is applied when its last page has been read, or not at all.

pub mod api;
pub mod edit;
pub mod lease;
pub mod merge;
pub mod outbox;
pub mod snapshot;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use log::{error, info, warn};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::{Config, D1};
use crate::host::Host;
use crate::host::store::{Store, create, update};
use crate::pool::listing::{LISTING, Listing};
use crate::pool::{KeyId, Pool};
use crate::time::{Span, Time};
use api::Failure;
use outbox::{Item, Outbox};
use snapshot::Remote;

/// How long a call may take. D1 also gives up after 30 s.
pub const CALL_TIMEOUT: Span = Span::secs(30);
/// A call is given up after this time, even if the host never reports its end.
const LOST: Span = Span::secs(40);
/// The longest backoff without a `retry-after`.
const MAX_BACKOFF: Span = Span::secs(120);
/// The most calls per [`CALLS_WINDOW`]. Cloudflare allows 1,200 calls per five minutes for all tools of an account
/// together.
const CALLS: usize = 240;
const CALLS_WINDOW: Span = Span::secs(300);
/// The most keys that are read.
pub(crate) const MAX_KEYS: usize = 10_000;
/// The most rows whose warnings are remembered, so that each is written once.
const MAX_WARNED: usize = 1000;

/// A call to D1. It has no `Debug`: keys are in its body.
pub struct Call {
    /// The path of the request.
    pub path: String,
    /// The body of the request.
    pub body: Vec<u8>,
}

/// The answer to a call, or its absence. It has no `Debug`: keys are in its body.
#[derive(Default)]
pub struct Answer<'a> {
    /// The status; `None` if there was no answer.
    pub status: Option<u16>,
    /// The seconds of `retry-after`.
    pub retry_after: Option<u64>,
    /// The body of the answer.
    pub body: &'a [u8],
}

/// The status of the sync, visible to all workers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// When the read of the snapshot in force began; `None` if no snapshot has been read.
    pub snapshot: Option<Time>,
    /// The number of changes that wait to be written.
    pub outbox: u32,
    /// Why the last call failed; `None` if it succeeded.
    pub failure: Option<Failure>,
}

const STATUS: &str = "one-balance/2/d1-status";

impl Status {
    /// Reads the status, which the worker that calls D1 writes.
    pub fn read(store: &dyn Store) -> Self {
        store.get(STATUS).and_then(|(bytes, _)| postcard::from_bytes(&bytes).ok()).unwrap_or_default()
    }

    fn write(&self, store: &dyn Store) {
        store.set(STATUS, &postcard::to_allocvec(self).unwrap_or_default(), None);
    }
}

/// Creates the sync's values in shared data. Call it before there is traffic.
pub fn create_state(store: &dyn Store) {
    lease::create_state(store);
    edit::create_state(store);
    create(store, STATUS, &postcard::to_allocvec(&Status::default()).unwrap_or_default());
}

/// One worker's part in the sync. Only the worker that holds the lease calls D1.
#[derive(Debug)]
pub struct Syncer {
    config: Rc<Config>,
    host: Rc<dyn Host>,
    /// The id of this worker in the lease.
    worker: u64,
    activity: Activity,
    /// When the last read began; `None` before the first one.
    read: Option<Time>,
    /// When the next read is due; `None` if it is due at once.
    next_read: Option<Time>,
    /// The end of the backoff after a failure.
    not_before: Option<Time>,
    /// The number of failed calls since the last success.
    failures: u32,
    /// When the calls of the last five minutes were made.
    calls: VecDeque<Time>,
    /// The ids of rows whose warnings have been written.
    warned: BTreeSet<String>,
    status: Status,
    /// The failures that [`Self::failures`] has not returned yet.
    uncounted: Vec<Failure>,
}

/// The call under way.
#[derive(Debug)]
enum Activity {
    Idle,
    Reading { started: Time, called: Time, remotes: Vec<Remote> },
    Writing { called: Time, items: Vec<Item> },
}

impl Syncer {
    /// Creates a syncer. A random number becomes the worker's id.
    pub fn new(config: Rc<Config>, host: Rc<dyn Host>) -> Self {
        let worker = host.random();
        Syncer {
            config,
            host,
            worker,
            activity: Activity::Idle,
            read: None,
            next_read: None,
            not_before: None,
            failures: 0,
            calls: VecDeque::new(),
            warned: BTreeSet::new(),
            status: Status::default(),
            uncounted: Vec::new(),
        }
    }

    /// The failures since the last call of this function, for the metrics.
    pub fn failures(&mut self) -> Vec<Failure> {
        core::mem::take(&mut self.uncounted)
    }

    /// Begins what is due and returns the call to send. Call it once or twice a second.
    pub fn tick(&mut self, pool: &mut Pool) -> Option<Call> {
        let now = self.host.now();
        self.config.d1.as_ref()?;
        if !lease::hold(&*self.host, self.worker, now) {
            self.activity = Activity::Idle;
            return None;
        }
        match &self.activity {
            Activity::Reading { called, .. } | Activity::Writing { called, .. } if called.plus(LOST) > now => {
                return None;
            }
            Activity::Reading { .. } | Activity::Writing { .. } => self.failed(Failure::Unreachable, None),
            Activity::Idle => {}
        }
        pool.refresh();
        let outbox = Outbox::collect(pool, now);
        self.update_status(|status| status.outbox = u32::try_from(outbox.len()).unwrap_or(u32::MAX));
        if self.not_before.is_some_and(|end| now < end) || !self.may_call(now) {
            return None;
        }
        if let Some(items) = outbox.batch() {
            let statements = outbox::statements(&items, pool);
            self.activity = Activity::Writing { called: now, items };
            return self.call(&statements);
        }
        if self.next_read.is_some_and(|next| now < next)
            && !self.read.is_some_and(|read| edit::is_stale(&*self.host, read))
        {
            return None;
        }
        self.read = Some(now);
        self.activity = Activity::Reading { started: now, called: now, remotes: Vec::new() };
        self.read_page("")
    }

    /// Processes the answer to the call under way and returns the next call to send.
    pub fn answered(&mut self, pool: &mut Pool, answer: &Answer) -> Option<Call> {
        let state = core::mem::replace(&mut self.activity, Activity::Idle);
        let results = match api::results(answer.status, answer.body) {
            Ok(results) => results,
            Err(failure) => {
                self.failed(failure, answer.retry_after);
                return None;
            }
        };
        self.succeeded();
        match state {
            Activity::Idle => None,
            Activity::Writing { called, items } => self.written(pool, called, &items),
            Activity::Reading { started, remotes, .. } => {
                self.page_read(pool, started, remotes, &results.into_iter().next().unwrap_or_default())
            }
        }
    }

    /// Marks what D1 has acknowledged.
    fn written(&mut self, pool: &mut Pool, called: Time, items: &[Item]) -> Option<Call> {
        let now = self.host.now();
        let by_key = grouped(items, Item::id);
        pool.change_many(by_key.keys().copied(), |id, record| {
            by_key.get(&id).into_iter().flatten().for_each(|item| outbox::acknowledge(record, item, now));
        });
        // An operator's edit was made meanwhile, and the write may have reverted it.
        if edit::is_stale(&*self.host, called) {
            pool.refresh();
            let undo = outbox::undo(items, pool);
            if !undo.is_empty() {
                self.activity = Activity::Writing { called: now, items: Vec::new() };
                return self.call(&undo);
            }
        }
        self.tick(pool)
    }

    /// Reads the next page of the table, or applies the snapshot after the last one.
    fn page_read(&mut self, pool: &mut Pool, started: Time, mut remotes: Vec<Remote>, rows: &[Value]) -> Option<Call> {
        let now = self.host.now();
        let last = rows.last().and_then(|row| row.get("id")).and_then(Value::as_str);
        remotes.extend(rows.iter().filter_map(|row| self.read_row(row)));
        if let Some(last) = last.filter(|_| rows.len() >= api::PAGE_ROWS && remotes.len() < MAX_KEYS) {
            self.activity = Activity::Reading { started, called: now, remotes };
            return self.read_page(last);
        }
        remotes.truncate(MAX_KEYS);
        self.apply(pool, &remotes, started);
        let interval = self.config.d1.as_ref().map_or(Span::secs(60), |d1| d1.interval);
        self.next_read = Some(now.plus(jittered(interval, self.host.random())));
        None
    }

    fn apply(&mut self, pool: &mut Pool, remotes: &[Remote], started: Time) {
        let host = self.host.clone();
        let now = host.now();
        let listing = Listing::new(remotes.iter().map(Remote::listed)).encode();
        let replaced = update(&*host, LISTING, |known| {
            if edit::is_stale(&*host, started) {
                return (None, None);
            }
            let differs = known != listing;
            (differs.then(|| listing.clone()), Some(differs))
        });
        match replaced.flatten() {
            // An operator's edit was made meanwhile: the next tick reads again.
            None => return,
            Some(true) => {
                pool.announce_roster();
                info!("D1: the pool has {} keys", remotes.len());
            }
            Some(false) => {}
        }
        pool.refresh();
        let by_id: BTreeMap<KeyId, &Remote> = remotes.iter().map(|remote| (remote.id(), remote)).collect();
        let merge = |id: KeyId, record: &mut crate::pool::record::Record| {
            if let Some(remote) = by_id.get(&id) {
                merge::merge(record, remote.blocked, &remote.coolings, started, now);
            }
        };
        let differs = |id: &&KeyId| {
            let before = pool.record(**id).cloned().unwrap_or_default();
            let mut after = before.clone();
            merge(**id, &mut after);
            after != before
        };
        let changed: Vec<KeyId> = by_id.keys().filter(differs).copied().collect();
        pool.change_many(changed.into_iter(), |id, record| {
            if !edit::is_stale(&*host, started) {
                merge(id, record);
            }
        });
        self.update_status(|status| status.snapshot = Some(started));
    }

    fn read_row(&mut self, row: &Value) -> Option<Remote> {
        match Remote::read(row, &self.config) {
            Ok(remote) => Some(remote),
            Err((id, what)) => {
                if self.warned.len() < MAX_WARNED && self.warned.insert(id.clone()) {
                    let shown: String = id.chars().filter(|char| !char.is_control()).take(64).collect();
                    warn!("D1: row {shown} is passed over: {what}");
                }
                None
            }
        }
    }

    fn read_page(&mut self, after: &str) -> Option<Call> {
        let providers = self.config.d1.as_ref().map(|d1| d1.providers.clone()).unwrap_or_default();
        self.call(&[api::select(after, &providers)])
    }

    fn call(&mut self, statements: &[api::Statement]) -> Option<Call> {
        let path = self.config.d1.as_ref().map(D1::path)?;
        self.calls.push_back(self.host.now());
        Some(Call { path, body: api::body(statements) })
    }

    fn may_call(&mut self, now: Time) -> bool {
        while self.calls.front().is_some_and(|called| called.plus(CALLS_WINDOW) <= now) {
            self.calls.pop_front();
        }
        self.calls.len() < CALLS
    }

    fn failed(&mut self, failure: Failure, retry_after: Option<u64>) {
        let now = self.host.now();
        self.activity = Activity::Idle;
        self.failures = self.failures.saturating_add(1);
        self.uncounted.push(failure);
        let backoff = Span::secs(1 << self.failures.min(7)).min(MAX_BACKOFF);
        // `retry-after` is honoured up to an hour; the documented maximum is five minutes.
        let stated = retry_after.map(|secs| Span::secs(secs.min(3600)));
        self.not_before = Some(now.plus(stated.unwrap_or_default().max(jittered(backoff, self.host.random()))));
        // One line when the failure begins or changes, instead of one line per attempt.
        if self.status.failure != Some(failure) {
            let keys = match self.status.snapshot {
                None => "no keys have been read yet".to_owned(),
                Some(read) => format!("the keys read {} s ago remain in use", read.until(now).as_secs_up()),
            };
            let waiting = self.status.outbox;
            error!("D1: {}; {keys}, and {waiting} changes wait to be written ({})", failure.advice(), failure.name());
        }
        self.update_status(|status| status.failure = Some(failure));
    }

    fn succeeded(&mut self) {
        self.failures = 0;
        if self.status.failure.is_some() {
            info!("D1: calls succeed again");
        }
        self.update_status(|status| status.failure = None);
    }

    /// Changes the status, and writes it if it differs from before.
    fn update_status(&mut self, change: impl FnOnce(&mut Status)) {
        let before = self.status.clone();
        change(&mut self.status);
        if self.status != before {
            self.status.write(&*self.host);
        }
    }
}

/// Between 90 % and 110 % of a span, so that Envoys that started together do not call D1 together.
fn jittered(span: Span, random: u64) -> Span {
    let tenth = span.0 / 10;
    Span((span.0 - tenth).saturating_add(random.checked_rem(2 * tenth + 1).unwrap_or_default()))
}

fn grouped<T, K: Ord>(items: &[T], key: impl Fn(&T) -> K) -> BTreeMap<K, Vec<&T>> {
    let mut groups: BTreeMap<K, Vec<&T>> = BTreeMap::new();
    for item in items {
        groups.entry(key(item)).or_default().push(item);
    }
    groups
}
