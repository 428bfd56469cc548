//! The pool: which key serves the next attempt, and what becomes of a key after an answer.
//!
//! The truth is in shared data ([`store`]); a [`Pool`] is one worker's decoded copy of it. An
//! attempt reads the [`board`] (one read), brings the pages that have changed up to date (mostly
//! none), takes the next ready key from its [`index`] and moves the cursor (one write). What was
//! learned is written to the key's [`page`] with compare-and-set and announced on the board, so that
//! every worker knows at its next attempt.

pub mod board;
mod census;
pub mod counts;
pub mod index;
mod indexes;
pub mod key;
pub mod lease;
pub mod page;
pub mod providers;
pub mod quota;
pub mod record;
pub mod select;
pub mod store;
pub mod usage;

use std::collections::BTreeMap;
use std::rc::Rc;

use log::warn;

use crate::config::Config;
use crate::d1::snapshot::{LISTING, Listing};
use crate::time::{Days, Time};
use board::{Board, PROVIDERS_PAGE, RECORD_PAGES, ROSTER_PAGE};
pub use census::{Census, State};
use indexes::Indexes;
pub use key::{Group, Key, KeyId, Roster, Row};
pub use lease::{Ask, Lease};
use page::Page;
use providers::{ProviderState, Providers};
use record::Record;
use store::{Store, create, update};

/// One worker's view of all keys.
#[derive(Debug)]
pub struct Pool {
    config: Rc<Config>,
    roster: Roster,
    loaded: bool,
    pages: Vec<Page>,
    providers: Providers,
    /// The generations of the pages as they are decoded here.
    seen: Vec<u8>,
    indexes: Indexes,
    days: Days,
}

/// Why there is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoKey {
    /// The provider has no key at all.
    Empty,
    /// All of its keys are blocked.
    Blocked,
    /// All that are left are cooling or at their quota; the first is ready at that time.
    Cooling(Time, KeyId),
    /// The provider rests, for the fault is not the keys'.
    Resting(Time),
    /// All that are ready have been tried by this request.
    Tried,
}

/// Prepares shared data. To be called before there is traffic.
pub fn create_state(store: &dyn Store) {
    Board::create(store);
    create(store, providers::NAME, &Providers::default().encode());
    (0..RECORD_PAGES).for_each(|number| create(store, &page::name(number), &page::encode(&Page::new())));
    counts::create_pages(store);
}

impl Pool {
    /// A view of the configuration's keys; of D1's and of their state nothing has been read yet.
    #[must_use]
    pub fn new(config: Rc<Config>) -> Self {
        Pool {
            roster: Roster::new(&config, Vec::new()),
            config,
            loaded: false,
            pages: vec![Page::new(); RECORD_PAGES],
            providers: Providers::default(),
            seen: Vec::new(),
            indexes: Indexes::default(),
            days: Days::default(),
        }
    }

    /// The keys.
    #[must_use]
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// What is known of providers as a whole, as of the last refresh.
    #[must_use]
    pub fn provider(&self, slug: &str) -> Option<&ProviderState> {
        self.providers.get(slug)
    }

    /// Whether D1's keys are among them.
    #[must_use]
    pub fn is_loaded(&self) -> bool {
        self.loaded
    }

    /// The record of a key, as of the last refresh.
    #[must_use]
    pub fn record(&self, id: KeyId) -> Option<&Record> {
        page::find(self.pages.get(page::of(id))?, id)
    }

    /// All records, as of the last refresh.
    pub fn records(&self) -> impl Iterator<Item = (KeyId, &Record)> {
        self.pages.iter().flatten().map(|(id, record)| (*id, record))
    }

    /// Changes the record of a key, in shared data, and tells all workers. `None` if that failed.
    pub fn change<T>(
        &mut self,
        store: &dyn Store,
        id: KeyId,
        now: Time,
        mut change: impl FnMut(&mut Record) -> T,
    ) -> Option<T> {
        let mut result = None;
        let written = self.change_many(store, core::iter::once(id), now, |_, record| result = Some(change(record)));
        result.filter(|_| written)
    }

    /// Changes the records of many keys, page by page, and tells all workers once. False if some of
    /// it could not be written.
    pub fn change_many(
        &mut self,
        store: &dyn Store,
        ids: impl Iterator<Item = KeyId>,
        now: Time,
        mut change: impl FnMut(KeyId, &mut Record),
    ) -> bool {
        let mut by_page: BTreeMap<usize, Vec<KeyId>> = BTreeMap::new();
        for id in ids {
            by_page.entry(page::of(id)).or_default().push(id);
        }
        change_pages(store, &by_page, now, &mut change)
    }

    /// Tells all workers that the list of keys from D1 has changed.
    pub fn announce_roster(&self, store: &dyn Store) {
        Board::announce(store, &[ROSTER_PAGE]);
    }

    /// Changes what is known of a provider, in shared data, and tells all workers. `None` if that
    /// failed.
    pub fn change_provider<T>(
        &mut self,
        store: &dyn Store,
        slug: &str,
        mut change: impl FnMut(&mut ProviderState) -> T,
    ) -> Option<T> {
        let result = update(store, providers::NAME, |bytes| {
            let mut providers = Providers::decode(bytes);
            let result = change(providers.get_mut(slug));
            (Some(providers.encode()), result)
        })?;
        Board::announce(store, &[PROVIDERS_PAGE]);
        Some(result)
    }

    /// Brings the decoded copy up to date with shared data.
    pub fn refresh(&mut self, store: &dyn Store, now: Time) -> Board {
        let board = Board::read(store);
        if board.has_moved(&self.seen) {
            self.catch_up(store, &board, now);
        }
        board
    }

    #[cold]
    fn catch_up(&mut self, store: &dyn Store, board: &Board, now: Time) {
        let seen = core::mem::replace(&mut self.seen, board.generations().to_vec());
        for page in board.changed(&seen) {
            match page {
                PROVIDERS_PAGE => self.providers = read_providers(store),
                ROSTER_PAGE => self.load_roster(store),
                page => self.load(store, page, now),
            }
        }
    }

    fn load_roster(&mut self, store: &dyn Store) {
        let rows = store.get(LISTING).and_then(|(bytes, _)| Listing::decode(&bytes));
        self.loaded = rows.is_some();
        self.roster = Roster::new(&self.config, rows.unwrap_or_default());
        self.indexes.clear();
    }

    fn load(&mut self, store: &dyn Store, number: usize, now: Time) {
        let new = store.get(&page::name(number)).map_or_else(Page::new, |(bytes, _)| page::decode(&bytes));
        let Some(slot) = self.pages.get_mut(number) else { return };
        let old = core::mem::replace(slot, new);
        for id in page::differences(&old, slot) {
            let Some((slug, place)) = self.roster.place(id) else { continue };
            let record = page::find(slot, id);
            for (model, index) in self.indexes.of(slug) {
                index.set(place, record.map_or(Time(0), |record| record.available_from(model)), now);
            }
        }
    }
}

/// Apart and with a `dyn` change: it has many callers, and each would get a copy of it.
fn change_pages(
    store: &dyn Store,
    by_page: &BTreeMap<usize, Vec<KeyId>>,
    now: Time,
    change: &mut dyn FnMut(KeyId, &mut Record),
) -> bool {
    let mut all = true;
    let mut changed = Vec::new();
    for (&number, ids) in by_page {
        let written = update(store, &page::name(number), |bytes| {
            let mut page = page::decode(bytes);
            let before = page.clone();
            for &id in ids {
                let mut record = page::find(&page, id).cloned().unwrap_or_default();
                change(id, &mut record);
                page::put(&mut page, id, record);
            }
            page.retain_mut(|(_, record)| !record.expire(now));
            let differs = page != before;
            (differs.then(|| page::encode(&page)), differs)
        });
        match written {
            Some(true) => changed.push(number),
            Some(false) => {}
            None => {
                warn!("page {number} of the pool's records is too busy to be written; what was learned is lost");
                all = false;
            }
        }
    }
    if !changed.is_empty() {
        Board::announce(store, &changed);
    }
    all
}

fn read_providers(store: &dyn Store) -> Providers {
    store.get(providers::NAME).map(|(bytes, _)| Providers::decode(&bytes)).unwrap_or_default()
}
