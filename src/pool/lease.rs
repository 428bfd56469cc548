//! Leasing: picking the key of an attempt so that all workers together keep to turns and quotas.

use super::by_model::ModelIndex;
use super::select::Start;
use super::{Group, KeyId, NoKey, Pool, usage_pages};
use crate::config::Upstream;
use crate::host::Host;
use crate::host::store::MAX_RACES;
use crate::provider::Provider;
use crate::quota::{Dimension, Quota};
use crate::time::{Span, Time};

/// So many keys are passed over for one request because it is too large for what they have left.
const MAX_TOO_SMALL: usize = 64;
/// So many waiting keys are looked at again before a request is refused.
const MAX_LOOKED_AT: usize = 8;

/// A key has no room for a request.
struct Full {
    /// When it has.
    until: Time,
    /// Of tokens: a smaller request may fit.
    tokens: bool,
}

/// A request for a key.
#[derive(Clone, Copy, Debug)]
pub struct LeaseRequest<'a> {
    /// The provider.
    pub upstream: &'a Upstream,
    /// The model; empty if there is none.
    pub model: &'a str,
    /// Keys that this request has tried.
    pub tried: &'a [KeyId],
    /// What requests of one conversation share, if it is known.
    pub conversation: Option<u64>,
    /// About how many tokens the request will take.
    pub tokens: u64,
}

/// A key for one attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    /// The key.
    pub id: KeyId,
    /// The request is counted, with so many tokens.
    pub counted: Option<u64>,
    /// It goes beyond this learned limit, to see whether the limit still holds.
    pub beyond: Option<Dimension>,
}

impl Pool {
    /// Leases the next key.
    ///
    /// # Errors
    /// Why there is none.
    pub fn lease(&mut self, request: LeaseRequest) -> Result<Lease, NoKey> {
        let now = self.host.now();
        let (mut races, mut looked) = (0, false);
        // Keys without room for a request of this size, which may have room for a smaller one.
        let mut too_small: Vec<(Time, KeyId)> = Vec::new();
        loop {
            let board = self.refresh();
            let ModelIndex { cursor, group, .. } = *self.index(request);
            let group = self.roster.group(group);
            let turns = group.ring.turns();
            let (start, in_turn) =
                match Start::of(self.config.policy.selection, request.conversation, self.host.random(), turns) {
                    Start::Cursor => (board.cursor(cursor).checked_rem(turns).unwrap_or_default(), true),
                    Start::At(turn) => (turn, false),
                    Start::LessUsed(one, other) => (less_used(&*self.host, group, request.model, one, other), false),
                };
            let (id, after) = match self.choose(start, request, &too_small) {
                Err(NoKey::Tried) => {
                    return Err(too_small.iter().min().map_or(NoKey::Tried, |&(until, id)| NoKey::Cooling(until, id)));
                }
                Err(NoKey::Cooling(..)) if !looked && self.regained(request) => {
                    looked = true;
                    continue;
                }
                choice => choice?,
            };
            let claimed = if self.record(id).is_some_and(|record| record.needs_trial(request.model)) {
                self.change(id, |record| record.claim_trial(request.model, now)) == Some(true)
            } else {
                !in_turn || board.move_cursor(&*self.host, cursor, after)
            };
            // Somebody was faster. After many lost races two workers may as well use the same key.
            if !claimed && races < MAX_RACES {
                races += 1;
                continue;
            }
            match self.reserve(id, request) {
                Ok(lease) => return Ok(lease),
                // Each turn of the loop takes a key out, so it ends.
                Err(Full { until, tokens: true }) if too_small.len() < MAX_TOO_SMALL => too_small.push((until, id)),
                Err(Full { until, .. }) => {
                    if let Some((_, place)) = self.roster.place(id) {
                        self.index(request).index.set(place, until, now);
                    }
                }
            }
        }
    }

    /// Whether another key could be tried now.
    ///
    /// # Errors
    /// Why there is none.
    pub fn has_another(&mut self, request: LeaseRequest) -> Result<(), NoKey> {
        self.refresh();
        self.choose(0, request, &[]).map(|_| ())
    }

    /// The first usable key from a turn on, and the turn after it.
    fn choose(
        &mut self,
        start: u32,
        request: LeaseRequest,
        too_small: &[(Time, KeyId)],
    ) -> Result<(KeyId, u32), NoKey> {
        let now = self.host.now();
        if let Some(until) = self.provider(&request.upstream.slug).and_then(|state| state.rests(request.model, now)) {
            return Err(NoKey::Resting(until));
        }
        let ModelIndex { group, index, .. } =
            self.indexes.get(&request.upstream.slug, request.model, &self.roster, &self.pages, now);
        let Group { keys, ring, .. } = self.roster.group(*group);
        let id = |place: u32| keys.get(place as usize).map(|key| key.id);
        let tried = |id: KeyId| request.tried.contains(&id) || too_small.iter().any(|(_, other)| *other == id);
        index.advance(now);
        if let Some(place) = index.next(ring.place(start), |place| id(place).is_some_and(tried)) {
            return id(place).map(|id| (id, ring.after(start, place))).ok_or(NoKey::Empty);
        }
        if index.next(0, |_| false).is_some() {
            return Err(NoKey::Tried);
        }
        match index.first_recovery() {
            Some((time, place)) => Err(id(place).map_or(NoKey::Empty, |id| NoKey::Cooling(time, id))),
            None if keys.is_empty() => Err(NoKey::Empty),
            None => Err(NoKey::Blocked),
        }
    }

    /// Whether a key that waits for its quota alone has got room back since it was found full, for requests
    /// that came to nothing no longer count; it is ready then. The index does not hear of that, for it
    /// happens often and matters only here.
    fn regained(&mut self, request: LeaseRequest) -> bool {
        let now = self.host.now();
        let ModelIndex { group, index, .. } = self.index(request);
        let (group, places) = (*group, index.waiting(MAX_LOOKED_AT));
        let has_room = |place: &u32| {
            let id = self.roster.group(group).keys.get(*place as usize)?.id;
            let waits = self.record(id).is_some_and(|record| record.available_from(request.model) > now);
            if waits || request.tried.contains(&id) {
                return None;
            }
            let usage = usage_pages::read(&*self.host, id, request.model);
            let minute = request.upstream.provider.minute;
            usage.room(self.quota(request, usage.own()), minute, needed(request.tokens), now).ok()
        };
        let Some(place) = places.into_iter().find(|place| has_room(place).is_some()) else { return false };
        self.index(request).index.set(place, now, now);
        true
    }

    /// The limits of a key: as configured, as its own answers stated them, as those of other keys did.
    fn quota(&self, request: LeaseRequest, own: Quota) -> Quota {
        let learned =
            self.provider(&request.upstream.slug).map(|state| state.learned(request.model)).unwrap_or_default();
        request.upstream.quota(request.model).or(own).or(learned)
    }

    fn index(&mut self, request: LeaseRequest) -> &mut ModelIndex {
        let now = self.host.now();
        self.indexes.get(&request.upstream.slug, request.model, &self.roster, &self.pages, now)
    }

    /// Counts the request, if it fits into the key's quota. Without any known limit it is counted all
    /// the same, so that the first 429 finds counts that the other keys can be held to.
    ///
    /// # Errors
    /// When the key has room again.
    fn reserve(&mut self, id: KeyId, request: LeaseRequest) -> Result<Lease, Full> {
        let now = self.host.now();
        let LeaseRequest { model, tokens, .. } = request;
        let Provider { minute, daily_reset, .. } = *request.upstream.provider;
        let day_ends = self.days.end(daily_reset, now);
        let mut full = None;
        let counted = self.change_usage(id, model, &mut |usage| {
            let own = usage.own();
            let room = usage.room(self.quota(request, own), minute, needed(tokens), now);
            full = room.err().map(|(until, full)| (until, full, own.get(full).is_some()));
            if full.is_none() {
                usage.add(minute, day_ends, tokens, now);
            }
            full.is_none()
        });
        match full {
            // A page too busy to be written: the request goes uncounted.
            None => Ok(Lease { id, counted: counted.map(|_| tokens), beyond: None }),
            Some((until, full, known)) => {
                let wait = limit_trial(full, known);
                // Close to the end of the window a success would show nothing.
                let may_try = request.upstream.quota(model).get(full).is_none()
                    && now.until(until) > Span::secs(2)
                    && self
                        .provider(&request.upstream.slug)
                        .is_some_and(|state| state.limit_trial_due(model, wait, now))
                    && self.change_provider(&request.upstream.slug, |state| state.claim_limit_trial(model, wait, now))
                        == Some(true);
                if !may_try {
                    let tokens = matches!(full, Dimension::TokensPerMinute | Dimension::TokensPerDay);
                    return Err(Full { until, tokens });
                }
                self.change_usage(id, model, &mut |usage| {
                    usage.add(minute, day_ends, tokens, now);
                    true
                });
                Ok(Lease { id, counted: Some(tokens), beyond: Some(full) })
            }
        }
    }
}

/// How many tokens must fit: what a request takes is a rough guess, so a quarter more.
fn needed(tokens: u64) -> u64 {
    tokens.saturating_add(tokens / 4)
}

/// Which of two turns' keys is used less.
fn less_used(host: &dyn Host, group: &Group, model: &str, one: u32, other: u32) -> u32 {
    let used = |turn: u32| {
        let key = group.keys.get(group.ring.place(turn) as usize)?;
        Some(usage_pages::read(host, key.id, model).load(host.now()))
    };
    if used(other) < used(one) { other } else { one }
}

/// How often one request of a model may go beyond a learned limit, to see whether it holds for the
/// key at hand. A key that has stated nothing of its own may be of another tier, which is worth one
/// 429 soon; one that has, and every daily quota, which a 429 would not teach much about, is tried
/// seldom.
fn limit_trial(full: Dimension, known: bool) -> Span {
    match full {
        Dimension::RequestsPerDay | Dimension::TokensPerDay => Span::secs(6 * 3600),
        _ if known => Span::secs(600),
        _ => Span::secs(20),
    }
}
