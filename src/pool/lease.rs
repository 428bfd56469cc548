//! Leasing: picking the key of an attempt so that all workers together keep to turns and quotas.

use super::index::Index;
use super::quota::Dimension;
use super::select::{Selection, Start};
use super::store::{MAX_RACES, Store};
use super::{KeyId, ModelIndex, NoKey, Pool, usage};
use crate::config::Upstream;
use crate::hash::fnv1a;
use crate::time::{Span, Time};

/// How many (provider, model) pairs a worker keeps an index of; the one used longest ago goes.
const MAX_INDEXES: usize = 64;

/// So many keys are passed over for one request because it is too large for what they have left.
const MAX_TOO_SMALL: usize = 64;

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
    pub slug: &'a str,
    /// What is configured of it.
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
        let cursor = cursor_of(ask.slug, ask.model);
        let mut races = 0;
        // Keys without room for a request of this size, which may have room for a smaller one.
        let mut too_small: Vec<(Time, KeyId)> = Vec::new();
        loop {
            let board = self.refresh(store, ask.now);
            let turns = self.roster.ring(ask.slug).turns();
            let (start, in_turn) = match ask.selection.start(ask.conversation, ask.random, turns) {
                Start::Cursor => (board.cursor(cursor).checked_rem(turns).unwrap_or_default(), true),
                Start::At(turn) => (turn, false),
                Start::LessUsed(one, other) => (self.less_used(store, ask, one, other), false),
            };
            let (id, place) = match self.choose(start, ask, &too_small) {
                Err(NoKey::Tried) => {
                    return Err(too_small.iter().min().map_or(NoKey::Tried, |&(until, id)| NoKey::Cooling(until, id)));
                }
                choice => choice?,
            };
            let claimed = if self.needs_trial(id, ask.model) {
                self.change(store, id, ask.now, |record| record.claim_trial(ask.model, ask.now)) == Some(true)
            } else {
                !in_turn || board.move_cursor(store, cursor, self.roster.ring(ask.slug).after(start, place))
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
                Err(Full { until, .. }) => self.index(ask).set(place, until, ask.now),
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

    /// The first usable key from a turn on.
    fn choose(&mut self, start: u32, ask: Ask, too_small: &[(Time, KeyId)]) -> Result<(KeyId, u32), NoKey> {
        let rests_until = self.provider(ask.slug).map_or(Time(0), |state| state.rests_until);
        if rests_until > ask.now {
            return Err(NoKey::Resting(rests_until));
        }
        let tried = ask
            .tried
            .iter()
            .chain(too_small.iter().map(|(_, id)| id))
            .filter_map(|id| self.roster.place(*id))
            .map(|(_, place)| place);
        let tried: Vec<u32> = tried.collect();
        let start = self.roster.ring(ask.slug).place(start);
        let index = self.index(ask);
        index.advance(ask.now);
        let found = index.next(start, |place| tried.contains(&place));
        let any_ready = found.is_some() || index.next(0, |_| false).is_some();
        let recovery = if any_ready { None } else { index.first_recovery() };
        let keys = self.roster.keys(ask.slug);
        let id = |place: u32| keys.get(place as usize).map(|key| key.id);
        match (found, recovery) {
            (Some(place), _) => id(place).map(|id| (id, place)).ok_or(NoKey::Empty),
            (None, Some((time, place))) => Err(id(place).map_or(NoKey::Empty, |id| NoKey::Cooling(time, id))),
            (None, None) if any_ready => Err(NoKey::Tried),
            (None, None) if keys.is_empty() => Err(NoKey::Empty),
            (None, None) => Err(NoKey::Blocked),
        }
    }

    /// Counts the request, if it fits into the key's quota. Without any known limit it is counted all
    /// the same, so that the first 429 finds counts that the other keys can be held to.
    ///
    /// # Errors
    /// When the key has room again.
    fn reserve(&mut self, store: &dyn Store, id: KeyId, ask: Ask) -> Result<Lease, Full> {
        let Ask { model, tokens, now, .. } = ask;
        let configured = ask.upstream.quota(model);
        let learned = self.provider(ask.slug).map(|state| state.learned(model)).unwrap_or_default();
        let windows = ask.upstream.provider.windows();
        // How many tokens it takes is a rough guess: a quarter more must fit.
        let fits = usage::change(store, id, model, now, |usage| {
            let room =
                usage.room(configured.or(usage.own).or(learned), windows, tokens.saturating_add(tokens / 4), now);
            match room {
                Ok(()) => {
                    usage.add(windows, tokens, now, now);
                    Ok(())
                }
                Err((until, full)) => Err((until, full, usage.own.get(full).is_some())),
            }
        });
        match fits {
            Some(Ok(())) => Ok(Lease { id, counted: Some(tokens), beyond: None }),
            // A page too busy to be written: the request goes uncounted.
            None => Ok(Lease { id, counted: None, beyond: None }),
            Some(Err((until, full, known))) => {
                let wait = limit_trial(full, known);
                // Close to the end of the window a success would show nothing.
                let may_try = configured.get(full).is_none()
                    && now.until(until) > Span::secs(2)
                    && self.provider(ask.slug).is_some_and(|state| state.limit_trial_due(model, wait, now))
                    && self.change_provider(store, ask.slug, |state| state.claim_limit_trial(model, wait, now))
                        == Some(true);
                if !may_try {
                    let tokens = matches!(full, Dimension::TokensPerMinute | Dimension::TokensPerDay);
                    return Err(Full { until, tokens });
                }
                usage::change(store, id, model, now, |usage| usage.add(windows, tokens, now, now));
                Ok(Lease { id, counted: Some(tokens), beyond: Some(full) })
            }
        }
    }

    fn less_used(&self, store: &dyn Store, ask: Ask, one: u32, other: u32) -> u32 {
        let ring = self.roster.ring(ask.slug);
        let used = |turn: u32| {
            let key = self.roster.keys(ask.slug).get(ring.place(turn) as usize)?;
            Some(usage::read(store, key.id, ask.model).load(ask.now))
        };
        if used(other) < used(one) { other } else { one }
    }

    fn needs_trial(&self, id: KeyId, model: &str) -> bool {
        self.record(id).is_some_and(|record| record.needs_trial(model))
    }

    fn index(&mut self, ask: Ask) -> &mut Index {
        let known = self.indexes.iter().rposition(|entry| entry.model == ask.model && entry.slug == ask.slug);
        let entry = match known {
            Some(place) => self.indexes.remove(place),
            None => {
                if self.indexes.len() >= MAX_INDEXES {
                    self.indexes.remove(0);
                }
                let index = self.build_index(ask);
                ModelIndex { slug: ask.slug.to_owned(), model: ask.model.to_owned(), index }
            }
        };
        self.indexes.push(entry);
        let last = self.indexes.len() - 1;
        #[expect(clippy::indexing_slicing, reason = "an entry was pushed just above")]
        &mut self.indexes[last].index
    }

    fn build_index(&self, ask: Ask) -> Index {
        let mut index = Index::new(self.roster.keys(ask.slug).len());
        for (id, record) in self.pages.iter().flatten() {
            match self.roster.place(*id) {
                Some((slug, place)) if slug == ask.slug => {
                    index.set(place, record.available_from(ask.model), ask.now);
                }
                _ => {}
            }
        }
        index
    }
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

/// The cursor of a provider's model.
fn cursor_of(slug: &str, model: &str) -> usize {
    fnv1a(slug.bytes().chain([0]).chain(model.bytes())) as usize
}
