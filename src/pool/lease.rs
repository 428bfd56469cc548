//! Leasing: picking the key of an attempt so that all workers together keep to turns and quotas.

use super::indexes::ModelIndex;
use super::quota::{Dimension, Quota};
use super::select::{Selection, Start};
use super::store::{MAX_RACES, Store};
use super::{Group, KeyId, NoKey, Pool, counts};
use crate::config::Upstream;
use crate::provider::Provider;
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
pub struct Ask<'a> {
    /// The provider.
    pub upstream: &'a Upstream,
    /// The model; empty if there is none.
    pub model: &'a str,
    /// Keys that this request has tried.
    pub tried: &'a [KeyId],
    /// How to pick.
    pub selection: Selection,
    /// What requests of one conversation share; 0 if nothing.
    pub conversation: u64,
    /// About how many tokens the request will take.
    pub tokens: u64,
    /// A random number.
    pub random: u64,
    /// The time.
    pub now: Time,
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
    pub fn lease(&mut self, store: &dyn Store, ask: Ask) -> Result<Lease, NoKey> {
        let (mut races, mut looked) = (0, false);
        // Keys without room for a request of this size, which may have room for a smaller one.
        let mut too_small: Vec<(Time, KeyId)> = Vec::new();
        loop {
            let board = self.refresh(store, ask.now);
            let ModelIndex { cursor, group, .. } = *self.index(ask);
            let group = self.roster.group(group);
            let turns = group.ring.turns();
            let (start, in_turn) = match ask.selection.start(ask.conversation, ask.random, turns) {
                Start::Cursor => (board.cursor(cursor).checked_rem(turns).unwrap_or_default(), true),
                Start::At(turn) => (turn, false),
                Start::LessUsed(one, other) => (less_used(store, group, ask, one, other), false),
            };
            let (id, after) = match self.choose(start, ask, &too_small) {
                Err(NoKey::Tried) => {
                    return Err(too_small.iter().min().map_or(NoKey::Tried, |&(until, id)| NoKey::Cooling(until, id)));
                }
                Err(NoKey::Cooling(..)) if !looked && self.regained(store, ask) => {
                    looked = true;
                    continue;
                }
                choice => choice?,
            };
            let claimed = if self.record(id).is_some_and(|record| record.needs_trial(ask.model)) {
                self.change(store, id, ask.now, |record| record.claim_trial(ask.model, ask.now)) == Some(true)
            } else {
                !in_turn || board.move_cursor(store, cursor, after)
            };
            // Somebody was faster. After many lost races two workers may as well use the same key.
            if !claimed && races < MAX_RACES {
                races += 1;
                continue;
            }
            match self.reserve(store, id, ask) {
                Ok(lease) => return Ok(lease),
                // Each turn of the loop takes a key out, so it ends.
                Err(Full { until, tokens: true }) if too_small.len() < MAX_TOO_SMALL => too_small.push((until, id)),
                Err(Full { until, .. }) => {
                    if let Some((_, place)) = self.roster.place(id) {
                        self.index(ask).index.set(place, until, ask.now);
                    }
                }
            }
        }
    }

    /// Whether another key could be tried now.
    ///
    /// # Errors
    /// Why there is none.
    pub fn has_another(&mut self, store: &dyn Store, ask: Ask) -> Result<(), NoKey> {
        self.refresh(store, ask.now);
        self.choose(0, ask, &[]).map(|_| ())
    }

    /// The first usable key from a turn on, and the turn after it.
    fn choose(&mut self, start: u32, ask: Ask, too_small: &[(Time, KeyId)]) -> Result<(KeyId, u32), NoKey> {
        if let Some(until) = self.provider(&ask.upstream.slug).and_then(|state| state.rests(ask.now)) {
            return Err(NoKey::Resting(until));
        }
        let ModelIndex { group, index, .. } =
            self.indexes.get(&ask.upstream.slug, ask.model, &self.roster, &self.pages, ask.now);
        let Group { keys, ring, .. } = self.roster.group(*group);
        let id = |place: u32| keys.get(place as usize).map(|key| key.id);
        let tried = |id: KeyId| ask.tried.contains(&id) || too_small.iter().any(|(_, other)| *other == id);
        index.advance(ask.now);
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
    fn regained(&mut self, store: &dyn Store, ask: Ask) -> bool {
        let ModelIndex { group, index, .. } = self.index(ask);
        let (group, places) = (*group, index.waiting(MAX_LOOKED_AT));
        let has_room = |place: &u32| {
            let id = self.roster.group(group).keys.get(*place as usize)?.id;
            let waits = self.record(id).is_some_and(|record| record.available_from(ask.model) > ask.now);
            if waits || ask.tried.contains(&id) {
                return None;
            }
            let usage = counts::read(store, id, ask.model);
            let minute = ask.upstream.provider.minute;
            usage.room(self.quota(ask, usage.own()), minute, needed(ask.tokens), ask.now).ok()
        };
        let Some(place) = places.into_iter().find(|place| has_room(place).is_some()) else { return false };
        self.index(ask).index.set(place, ask.now, ask.now);
        true
    }

    /// The limits of a key: as configured, as its own answers stated them, as those of other keys did.
    fn quota(&self, ask: Ask, own: Quota) -> Quota {
        let learned = self.provider(&ask.upstream.slug).map(|state| state.learned(ask.model)).unwrap_or_default();
        ask.upstream.quota(ask.model).or(own).or(learned)
    }

    fn index(&mut self, ask: Ask) -> &mut ModelIndex {
        self.indexes.get(&ask.upstream.slug, ask.model, &self.roster, &self.pages, ask.now)
    }

    /// Counts the request, if it fits into the key's quota. Without any known limit it is counted all
    /// the same, so that the first 429 finds counts that the other keys can be held to.
    ///
    /// # Errors
    /// When the key has room again.
    fn reserve(&mut self, store: &dyn Store, id: KeyId, ask: Ask) -> Result<Lease, Full> {
        let Ask { model, tokens, now, .. } = ask;
        let Provider { minute, daily_reset, .. } = *ask.upstream.provider;
        let day_ends = self.days.end(daily_reset, now);
        let mut full = None;
        let counted = counts::change(store, id, model, now, &mut |usage| {
            let own = usage.own();
            let room = usage.room(self.quota(ask, own), minute, needed(tokens), now);
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
                let may_try = ask.upstream.quota(model).get(full).is_none()
                    && now.until(until) > Span::secs(2)
                    && self.provider(&ask.upstream.slug).is_some_and(|state| state.limit_trial_due(model, wait, now))
                    && self
                        .change_provider(store, &ask.upstream.slug, |state| state.claim_limit_trial(model, wait, now))
                        == Some(true);
                if !may_try {
                    let tokens = matches!(full, Dimension::TokensPerMinute | Dimension::TokensPerDay);
                    return Err(Full { until, tokens });
                }
                counts::change(store, id, model, now, &mut |usage| {
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
fn less_used(store: &dyn Store, group: &Group, ask: Ask, one: u32, other: u32) -> u32 {
    let used = |turn: u32| {
        let key = group.keys.get(group.ring.place(turn) as usize)?;
        Some(counts::read(store, key.id, ask.model).load(ask.now))
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
