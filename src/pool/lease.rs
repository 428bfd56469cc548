//! Leasing: choosing the key of an attempt so that all workers together respect turns and quotas.
//!
//! There is no lock. A worker reads the board, chooses a key, claims it with one compare-and-set, and then
//! counts the request against the key's quota:
//!
//! ```text
//! refresh ──▶ choose ──▶ claim ──▶ reserve ──▶ Lease
//!    ▲          │          │          │
//!    ├── waiting key has room again (once)
//!    ├──────────── lost race (at most MAX_RACES)
//!    └─────────────────────── key is full: it is passed over
//! ```
//!
//! Two workers can race for the same turn, or for the trial of the same key. The loser starts again with the
//! board as it is then. After [`MAX_RACES`] lost races it uses the key anyway: two requests on one key do less
//! harm than none.
//!
//! The loop ends because every pass returns, loses one of a bounded number of races, uses its only second look
//! at waiting keys, or excludes a key from the following passes.

use super::board::Board;
use super::by_model::ModelKeys;
use super::select::Start;
use super::{Group, KeyId, NoKey, Pool, usage_pages};
use crate::config::Upstream;
use crate::host::Host;
use crate::host::store::MAX_RACES;
use crate::provider::Provider;
use crate::quota::{Dimension, Quota};
use crate::time::{Span, Time};

/// The most keys that one request passes over because it is too large for what they have left.
const MAX_TOO_SMALL: usize = 64;
/// The most waiting keys that are examined again before a request is refused.
const MAX_RECHECKED: usize = 8;

/// A key has no room for a request.
struct Full {
    /// When it has room again.
    until: Time,
    /// Whether tokens are what is missing, so that a smaller request may fit.
    tokens: bool,
}

/// Where the search for a key begins.
struct SearchStart {
    turn: u32,
    /// The shared cursor that gave the turn, and that has to be moved.
    cursor: Option<usize>,
}

/// What an attempt needs a key for.
#[derive(Clone, Copy, Debug)]
pub struct LeaseRequest<'a> {
    /// The provider.
    pub upstream: &'a Upstream,
    /// The model; empty if the request names none.
    pub model: &'a str,
    /// The keys that this request has tried already.
    pub tried: &'a [KeyId],
    /// A hash that the requests of one conversation share, if it is known.
    pub conversation: Option<u64>,
    /// The estimated number of tokens that the request will use.
    pub tokens: u64,
}

/// A key for one attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    /// The leased key.
    pub id: KeyId,
    /// The tokens that were counted for the request; `None` if the request could not be counted.
    pub counted: Option<u64>,
    /// The learned limit that the request exceeds on purpose, to find out whether the limit still holds.
    pub beyond: Option<Dimension>,
}

impl Pool {
    /// Leases the next key.
    ///
    /// # Errors
    /// The reason why there is no key.
    pub(crate) fn lease(&mut self, request: LeaseRequest) -> Result<Lease, NoKey> {
        let now = self.host.now();
        let (mut races, mut rechecked) = (0, false);
        // Keys without room for a request of this size, which may have room for a smaller one.
        let mut too_small: Vec<(Time, KeyId)> = Vec::new();
        loop {
            let board = self.refresh();
            let SearchStart { turn, cursor } = self.search_start(&board, request);
            let (id, next_turn) = match self.choose(turn, request, &too_small) {
                Err(NoKey::Tried) => {
                    return Err(too_small.iter().min().map_or(NoKey::Tried, |&(until, id)| NoKey::Cooling(until, id)));
                }
                Err(NoKey::Cooling(..)) if !rechecked && self.recheck_waiting(request) => {
                    rechecked = true;
                    continue;
                }
                choice => choice?,
            };
            let claimed = if self.record(id).is_some_and(|record| record.needs_trial(request.model)) {
                self.change(id, |record| record.claim_trial(request.model, now)) == Some(true)
            } else {
                cursor.is_none_or(|cursor| board.move_cursor(&*self.host, cursor, next_turn))
            };
            if !claimed && races < MAX_RACES {
                races += 1;
                continue;
            }
            match self.reserve(id, request) {
                Ok(lease) => return Ok(lease),
                Err(Full { until, tokens: true }) if too_small.len() < MAX_TOO_SMALL => too_small.push((until, id)),
                Err(Full { until, .. }) => {
                    if let Some((_, position)) = self.roster.position(id) {
                        self.model_keys(request).ready.set(position, until, now);
                    }
                }
            }
        }
    }

    /// Whether another key could be tried now.
    ///
    /// # Errors
    /// The reason why there is no key.
    pub(crate) fn has_another(&mut self, request: LeaseRequest) -> Result<(), NoKey> {
        self.refresh();
        self.choose(0, request, &[]).map(|_| ())
    }

    /// The turn at which the search for a key begins.
    fn search_start(&mut self, board: &Board, request: LeaseRequest) -> SearchStart {
        let ModelKeys { cursor, group, .. } = *self.model_keys(request);
        let group = self.roster.group(group);
        let turns = group.ring.turns();
        let selection = self.config.policy.selection;
        match Start::of(selection, request.conversation, self.host.random(), turns) {
            Start::Cursor => {
                let turn = board.cursor(cursor).checked_rem(turns).unwrap_or_default();
                SearchStart { turn, cursor: Some(cursor) }
            }
            Start::At(turn) => SearchStart { turn, cursor: None },
            Start::LessUsed(one, other) => {
                SearchStart { turn: less_used(&*self.host, group, request.model, one, other), cursor: None }
            }
        }
    }

    /// The first usable key from a turn on, and the turn after it.
    fn choose(
        &mut self,
        start: u32,
        request: LeaseRequest,
        too_small: &[(Time, KeyId)],
    ) -> Result<(KeyId, u32), NoKey> {
        let now = self.host.now();
        if let Some(until) =
            self.provider(&request.upstream.slug).and_then(|state| state.rests_until(request.model, now))
        {
            return Err(NoKey::Resting(until));
        }
        let ModelKeys { group, ready, .. } =
            self.by_model.get(&request.upstream.slug, request.model, &self.roster, &self.pages, now);
        let Group { keys, ring, .. } = self.roster.group(*group);
        let id = |position: u32| keys.get(position as usize).map(|key| key.id);
        let tried = |id: KeyId| request.tried.contains(&id) || too_small.iter().any(|(_, other)| *other == id);
        ready.advance(now);
        if let Some(position) = ready.next(ring.position(start), |position| id(position).is_some_and(tried)) {
            return id(position).map(|id| (id, ring.after(start, position))).ok_or(NoKey::Empty);
        }
        if ready.next(0, |_| false).is_some() {
            return Err(NoKey::Tried);
        }
        match ready.first_recovery() {
            Some((time, position)) => Err(id(position).map_or(NoKey::Empty, |id| NoKey::Cooling(time, id))),
            None if keys.is_empty() => Err(NoKey::Empty),
            None => Err(NoKey::Blocked),
        }
    }

    /// Looks again at keys that wait for nothing but their quota, and marks one that has room as ready. A key
    /// regains room when requests that came to nothing are no longer counted. Other workers do not announce
    /// that, because it happens often and matters only here.
    fn recheck_waiting(&mut self, request: LeaseRequest) -> bool {
        let now = self.host.now();
        let ModelKeys { group, ready, .. } = self.model_keys(request);
        let (group, positions) = (*group, ready.waiting(MAX_RECHECKED));
        let has_room = |position: &u32| {
            let id = self.roster.group(group).keys.get(*position as usize)?.id;
            let waits = self.record(id).is_some_and(|record| record.available_from(request.model) > now);
            if waits || request.tried.contains(&id) {
                return None;
            }
            let usage = usage_pages::read(&*self.host, id, request.model);
            let minute = request.upstream.provider.minute;
            usage.room(self.quota(request, usage.stated()), minute, needed(request.tokens), now).ok()
        };
        let found = positions.into_iter().find(|position| has_room(position).is_some());
        let Some(position) = found else { return false };
        self.model_keys(request).ready.set(position, now, now);
        true
    }

    /// The limits of a key: the configured ones, then those stated by its own answers, then those stated by
    /// answers of other keys.
    fn quota(&self, request: LeaseRequest, stated: Quota) -> Quota {
        let learned =
            self.provider(&request.upstream.slug).map(|state| state.learned(request.model)).unwrap_or_default();
        request.upstream.quota(request.model).or(stated).or(learned)
    }

    fn model_keys(&mut self, request: LeaseRequest) -> &mut ModelKeys {
        let now = self.host.now();
        self.by_model.get(&request.upstream.slug, request.model, &self.roster, &self.pages, now)
    }

    /// Counts the request if it fits into the key's quota. It is counted even if no limit is known, so that
    /// when the first 429 states a limit there are counts to compare it with.
    ///
    /// # Errors
    /// The time at which the key has room again.
    fn reserve(&mut self, id: KeyId, request: LeaseRequest) -> Result<Lease, Full> {
        let now = self.host.now();
        let LeaseRequest { model, tokens, .. } = request;
        let Provider { minute, daily_reset, .. } = *request.upstream.provider;
        let day_ends = self.days.end(daily_reset, now);
        let mut full = None;
        let counted = self.change_usage(id, model, &mut |usage| {
            let stated = usage.stated();
            let room = usage.room(self.quota(request, stated), minute, needed(tokens), now);
            full = room.err().map(|(until, dimension)| (until, dimension, stated.get(dimension).is_some()));
            if full.is_none() {
                usage.add(minute, day_ends, tokens, now);
            }
            full.is_none()
        });
        let Some((until, dimension, is_stated)) = full else {
            // If the page could not be written, the request is not counted.
            return Ok(Lease { id, counted: counted.map(|_| tokens), beyond: None });
        };
        if !self.claim_limit_trial(request, dimension, is_stated, until) {
            let tokens = matches!(dimension, Dimension::TokensPerMinute | Dimension::TokensPerDay);
            return Err(Full { until, tokens });
        }
        self.change_usage(id, model, &mut |usage| {
            usage.add(minute, day_ends, tokens, now);
            true
        });
        Ok(Lease { id, counted: Some(tokens), beyond: Some(dimension) })
    }

    /// Whether this request may exceed a learned limit, to find out whether the limit holds for its key.
    fn claim_limit_trial(&mut self, request: LeaseRequest, dimension: Dimension, is_stated: bool, until: Time) -> bool {
        let (LeaseRequest { upstream, model, .. }, now) = (request, self.host.now());
        let wait = limit_trial_interval(dimension, is_stated);
        // Close to the end of the window a success would prove nothing.
        upstream.quota(model).get(dimension).is_none()
            && now.until(until) > Span::secs(2)
            && self.provider(&upstream.slug).is_some_and(|state| state.limit_trial_due(model, wait, now))
            && self.change_provider(&upstream.slug, |state| state.claim_limit_trial(model, wait, now)) == Some(true)
    }
}

/// The tokens that must fit: the estimate is rough, so a quarter more.
fn needed(tokens: u64) -> u64 {
    tokens.saturating_add(tokens / 4)
}

/// The one of two turns whose key is used less.
fn less_used(host: &dyn Host, group: &Group, model: &str, one: u32, other: u32) -> u32 {
    let used = |turn: u32| {
        let key = group.keys.get(group.ring.position(turn) as usize)?;
        Some(usage_pages::read(host, key.id, model).load(host.now()))
    };
    if used(other) < used(one) { other } else { one }
}

/// How long to wait before another request of a model may exceed a learned limit. A key whose own answers have
/// stated no limit may belong to another tier, which is worth one early 429. A key that has stated its limit is
/// tried rarely, and so is every daily quota, because a 429 would reveal little about it.
fn limit_trial_interval(dimension: Dimension, is_stated: bool) -> Span {
    match dimension {
        Dimension::RequestsPerDay | Dimension::TokensPerDay => Span::secs(6 * 3600),
        _ if is_stated => Span::secs(600),
        _ => Span::secs(20),
    }
}
