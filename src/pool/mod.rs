//! The pool: which key serves the next attempt, and what becomes of a key after an answer.
//!
//! The truth is in shared data ([`store`]); a [`Pool`] is one worker's decoded copy of it. An
//! attempt reads the [`board`] (one read), brings the pages that have changed up to date (mostly
//! none), takes the next ready key from its [`index`] and moves the cursor (one write). What was
//! learned is written to the key's [`page`] with compare-and-set and announced on the board, so that
//! every worker knows at its next attempt.

pub mod board;
pub mod index;
pub mod key;
pub mod page;
pub mod record;
pub mod store;

use crate::time::Time;
use board::{Board, RECORD_PAGES};
use index::Index;
pub use key::{Key, KeyId, Roster, Row};
use page::Page;
use record::{NEVER, Record};
use store::{MAX_RACES, Store, create, update};

/// How many (provider, model) pairs a worker keeps an index of; the one used longest ago goes.
const MAX_INDEXES: usize = 64;

/// One worker's view of all keys.
#[derive(Debug)]
pub struct Pool {
    roster: Roster,
    pages: Vec<Page>,
    /// The generations of the pages as they are decoded here.
    seen: Vec<u8>,
    /// The most recently used last.
    indexes: Vec<ModelIndex>,
}

#[derive(Debug)]
struct ModelIndex {
    slug: String,
    model: String,
    index: Index,
}

/// A request for a key.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The provider.
    pub slug: &'a str,
    /// The model; empty if there is none.
    pub model: &'a str,
    /// Keys that this request has tried.
    pub tried: &'a [KeyId],
    /// The time.
    pub now: Time,
}

/// Why there is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoKey {
    /// The provider has no key at all.
    Empty,
    /// All of its keys are blocked.
    Blocked,
    /// All that are left are cooling; the first is ready at that time.
    Cooling(Time, KeyId),
    /// All that are ready have been tried by this request.
    Tried,
}

/// Prepares shared data. To be called before there is traffic.
pub fn create_state(store: &dyn Store) {
    Board::create(store);
    let empty = page::encode(&Page::new());
    (0..RECORD_PAGES).for_each(|number| create(store, &page::name(number), &empty));
}

impl Pool {
    /// A view of the keys in `roster`, of whose state nothing has been read yet.
    #[must_use]
    pub fn new(roster: Roster) -> Self {
        Pool { roster, pages: vec![Page::new(); RECORD_PAGES], seen: Vec::new(), indexes: Vec::new() }
    }

    /// The keys.
    #[must_use]
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// Puts another list of keys in the place of this one; what is known of keys stays.
    pub fn replace_roster(&mut self, roster: Roster) {
        self.roster = roster;
        self.indexes.clear();
    }

    /// Leases the next key.
    ///
    /// # Errors
    /// Why there is none.
    pub fn lease(&mut self, store: &dyn Store, ask: Ask) -> Result<KeyId, NoKey> {
        let mut choice = Err(NoKey::Empty);
        for _ in 0..MAX_RACES {
            let board = self.refresh(store, ask.now);
            let cursor = cursor_of(ask.slug, ask.model);
            choice = self.choose(board.cursor(cursor), ask);
            let Ok((id, place)) = choice else { break };
            if self.needs_trial(id, ask.model) {
                if self.change(store, id, ask.now, |record| record.claim_trial(ask.model, ask.now)) == Some(true) {
                    break;
                }
            } else if board.move_cursor(store, cursor, place + 1) {
                break;
            }
        }
        choice.map(|(id, _)| id)
    }

    /// Whether another key could be tried now.
    pub fn has_another(&mut self, store: &dyn Store, ask: Ask) -> Result<(), NoKey> {
        self.refresh(store, ask.now);
        self.choose(0, ask).map(|_| ())
    }

    fn choose(&mut self, start: u32, ask: Ask) -> Result<(KeyId, u32), NoKey> {
        let tried: Vec<u32> =
            ask.tried.iter().filter_map(|id| self.roster.place(*id)).map(|(_, place)| place).collect();
        let index = self.index(ask);
        index.advance(ask.now);
        let found = index.next(start, |place| tried.contains(&place));
        let recovery = if found.is_none() { index.first_recovery() } else { None };
        let any_ready = found.is_some() || index.next(0, |_| false).is_some();
        let keys = self.roster.keys(ask.slug);
        let id = |place: u32| keys.get(place as usize).map(|key| key.id);
        match (found, recovery) {
            (Some(place), _) => id(place).map(|id| (id, place)).ok_or(NoKey::Empty),
            (None, _) if any_ready => Err(NoKey::Tried),
            (None, Some((time, place))) => Err(id(place).map_or(NoKey::Empty, |id| NoKey::Cooling(time, id))),
            (None, None) if keys.is_empty() => Err(NoKey::Empty),
            (None, None) => Err(NoKey::Blocked),
        }
    }

    /// The record of a key, as of the last refresh.
    #[must_use]
    pub fn record(&self, id: KeyId) -> Option<&Record> {
        page::find(self.pages.get(page::of(id))?, id)
    }

    /// Changes the record of a key, in shared data, and tells all workers. `None` if that failed.
    pub fn change<T>(
        &mut self,
        store: &dyn Store,
        id: KeyId,
        now: Time,
        mut change: impl FnMut(&mut Record) -> T,
    ) -> Option<T> {
        let number = page::of(id);
        let (changed, result) = update(store, &page::name(number), |bytes| {
            let mut page = page::decode(bytes);
            let before = page.clone();
            let mut record = page::find(&page, id).cloned().unwrap_or_default();
            let result = change(&mut record);
            page::put(&mut page, id, record);
            page.retain_mut(|(_, record)| !record.expire(now));
            let changed = page != before;
            (changed.then(|| page::encode(&page)), (changed, result))
        })?;
        if changed {
            Board::announce(store, &[number]);
        }
        Some(result)
    }

    /// Brings the decoded copy up to date with shared data.
    pub fn refresh(&mut self, store: &dyn Store, now: Time) -> Board {
        let board = Board::read(store);
        if board.generations() != self.seen {
            let changed: Vec<usize> = board.changed(&self.seen).collect();
            changed.into_iter().filter(|page| *page < RECORD_PAGES).for_each(|page| self.load(store, page, now));
            self.seen = board.generations().to_vec();
        }
        board
    }

    fn load(&mut self, store: &dyn Store, number: usize, now: Time) {
        let new = store.get(&page::name(number)).map_or_else(Page::new, |(bytes, _)| page::decode(&bytes));
        let Some(slot) = self.pages.get_mut(number) else { return };
        let old = core::mem::replace(slot, new);
        for id in page::differences(&old, slot) {
            let Some((slug, place)) = self.roster.place(id) else { continue };
            let record = page::find(slot, id);
            for entry in self.indexes.iter_mut().filter(|entry| entry.slug == slug) {
                let from = record.map_or(Time(0), |record| record.available_from(&entry.model));
                entry.index.set(place, from, now);
            }
        }
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
                Some((slug, place)) if slug == ask.slug => index.set(place, record.available_from(ask.model), ask.now),
                _ => {}
            }
        }
        index
    }

    fn needs_trial(&self, id: KeyId, model: &str) -> bool {
        self.record(id).is_some_and(|record| record.needs_trial(model))
    }

    /// How many keys of a provider can be used, are waiting, and are blocked, for any model.
    #[must_use]
    pub fn is_blocked(&self, id: KeyId) -> bool {
        self.record(id).is_some_and(|record| record.available_from("") == NEVER)
    }
}

/// The cursor of a provider's model (FNV-1a).
fn cursor_of(slug: &str, model: &str) -> usize {
    let bytes = slug.bytes().chain([0]).chain(model.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)) as usize
}
