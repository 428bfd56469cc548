//! Leasing: picking the key of an attempt so that all workers together keep to turns and quotas.

use serde::{Deserialize, Serialize};

use super::index::Index;
use super::quota::{Dimension, Quota};
use super::select::{Selection, Start};
use super::store::{MAX_RACES, Store};
use super::{KeyId, ModelIndex, NoKey, Pool, usage};
use crate::config::Upstream;
use crate::time::Time;

/// How many (provider, model) pairs a worker keeps an index of; the one used longest ago goes.
const MAX_INDEXES: usize = 64;

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
    /// A random number.
    pub random: u64,
    /// The time.
    pub now: Time,
}

/// A key for one attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The key.
    pub id: KeyId,
    /// The request counts already, for there is a quota.
    pub counted: bool,
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
        loop {
            let board = self.refresh(store, ask.now);
            let turns = self.roster.ring(ask.slug).turns();
            let (start, in_turn) = match ask.selection.start(ask.conversation, ask.random, turns) {
                Start::Cursor => (board.cursor(cursor).checked_rem(turns).unwrap_or_default(), true),
                Start::At(turn) => (turn, false),
                Start::LessUsed(one, other) => (self.less_used(store, ask, one, other), false),
            };
            let (id, place) = self.choose(start, ask)?;
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
                // Each turn of the loop takes a key out of the index, so it ends.
                Err(until) => self.index(ask).set(place, until, ask.now),
            }
        }
    }

    /// Whether another key could be tried now.
    ///
    /// # Errors
    /// Why there is none.
    pub fn has_another(&mut self, store: &dyn Store, ask: Ask) -> Result<(), NoKey> {
        self.refresh(store, ask.now);
        self.choose(0, ask).map(|_| ())
    }

    /// The first usable key from a turn on.
    fn choose(&mut self, start: u32, ask: Ask) -> Result<(KeyId, u32), NoKey> {
        let rests_until = self.provider(ask.slug).map_or(Time(0), |state| state.rests_until);
        if rests_until > ask.now {
            return Err(NoKey::Resting(rests_until));
        }
        let tried = ask.tried.iter().filter_map(|id| self.roster.place(*id)).map(|(_, place)| place);
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

    /// Counts the request, if it fits into the key's quota.
    ///
    /// # Errors
    /// When the key has room again.
    fn reserve(&mut self, store: &dyn Store, id: KeyId, ask: Ask) -> Result<Lease, Time> {
        let Ask { model, now, .. } = ask;
        let configured = ask.upstream.quota(model);
        let learned = self.provider(ask.slug).map(|state| state.learned(model)).unwrap_or_default();
        if configured.is_empty() && learned.is_empty() {
            return Ok(Lease { id, counted: false, beyond: None });
        }
        let windows = ask.upstream.provider.windows();
        let fits = usage::change(store, id, model, now, |usage| {
            usage.room(quota_of(configured, usage.own, learned), windows, now)?;
            usage.add_request(windows, now, now);
            Ok(())
        });
        let Some(Err((until, full))) = fits else { return Ok(Lease { id, counted: fits.is_some(), beyond: None }) };
        let may_try = configured.get(full).is_none()
            && self.provider(ask.slug).is_some_and(|state| state.limit_trial_due(model, now));
        if may_try && self.change_provider(store, ask.slug, |state| state.claim_limit_trial(model, now)) == Some(true) {
            usage::change(store, id, model, now, |usage| usage.add_request(windows, now, now));
            return Ok(Lease { id, counted: true, beyond: Some(full) });
        }
        Err(until)
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

/// The configured limits win; then what the key's own answers have stated.
pub(super) fn quota_of(configured: Quota, own: Quota, learned: Quota) -> Quota {
    configured.or(own).or(learned)
}

/// The cursor of a provider's model (FNV-1a).
fn cursor_of(slug: &str, model: &str) -> usize {
    let bytes = slug.bytes().chain([0]).chain(model.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)) as usize
}
