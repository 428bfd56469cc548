//! The pool: which key serves the next attempt, and what becomes of a key after an answer.
//!
//! The truth is in shared data ([`store`]); a [`Pool`] is one worker's decoded copy of it. An
//! attempt reads the [`board`] (one read), brings the pages that have changed up to date (mostly
//! none), takes the next ready key from its [`index`] and moves the cursor (one write). What was
//! learned is written to the key's [`page`] with compare-and-set and announced on the board, so that
//! every worker knows at its next attempt.

pub mod board;
mod by_model;
pub mod key;
mod key_counts;
pub mod lease;
pub mod listing;
pub mod providers;
pub mod ready;
pub mod record;
pub mod record_pages;
pub mod select;
pub mod usage;
pub mod usage_pages;

use std::collections::BTreeMap;
use std::rc::Rc;

use log::warn;

use crate::config::Config;
use crate::host::Host;
use crate::host::store::{Store, create, update};
use crate::time::{Days, Time};
use board::{Board, PROVIDERS_PAGE, RECORD_PAGES, ROSTER_PAGE};
use by_model::ModelIndexes;
pub use key::{Group, Key, KeyId, Roster, Row};
pub use key_counts::{KeyCounts, KeyState};
pub use lease::{Lease, LeaseRequest};
use listing::{LISTING, Listing};
use providers::{ProviderState, Providers};
use record::Record;
use record_pages::Page;
use usage::Usage;

/// One worker's view of all keys.
#[derive(Debug)]
pub struct Pool {
    config: Rc<Config>,
    host: Rc<dyn Host>,
    roster: Roster,
    loaded: bool,
    pages: Vec<Page>,
    providers: Providers,
    /// The generations of the pages as they are decoded here.
    seen: Vec<u8>,
    indexes: ModelIndexes,
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

/// Prepares shared data. Call it before there is traffic.
pub fn create_state(store: &dyn Store) {
    Board::create(store);
    create(store, providers::NAME, &Providers::default().encode());
    (0..RECORD_PAGES)
        .for_each(|number| create(store, &record_pages::name(number), &record_pages::encode(&Page::new())));
    usage_pages::create_pages(store);
}

impl Pool {
    /// A view of the configuration's keys; of D1's and of their state nothing has been read yet.
    #[must_use]
    pub fn new(config: Rc<Config>, host: Rc<dyn Host>) -> Self {
        Pool {
            roster: Roster::new(&config, Vec::new()),
            config,
            host,
            loaded: false,
            pages: vec![Page::new(); RECORD_PAGES],
            providers: Providers::default(),
            seen: Vec::new(),
            indexes: ModelIndexes::default(),
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
        record_pages::find(self.pages.get(record_pages::of(id))?, id)
    }

    /// All records, as of the last refresh.
    pub fn records(&self) -> impl Iterator<Item = (KeyId, &Record)> {
        self.pages.iter().flatten().map(|(id, record)| (*id, record))
    }

    /// Changes the record of a key, in shared data, and tells all workers. `None` if that failed.
    pub fn change<T>(&mut self, id: KeyId, mut change: impl FnMut(&mut Record) -> T) -> Option<T> {
        let mut result = None;
        let written = self.change_many(core::iter::once(id), |_, record| result = Some(change(record)));
        result.filter(|_| written)
    }

    /// Changes the records of many keys, page by page, and tells all workers once. False if some of
    /// it could not be written.
    pub fn change_many(
        &mut self,
        ids: impl Iterator<Item = KeyId>,
        mut change: impl FnMut(KeyId, &mut Record),
    ) -> bool {
        let mut by_page: BTreeMap<usize, Vec<KeyId>> = BTreeMap::new();
        for id in ids {
            by_page.entry(record_pages::of(id)).or_default().push(id);
        }
        change_pages(&*self.host, &by_page, &mut change)
    }

    /// Tells all workers that the list of keys from D1 has changed.
    pub fn announce_roster(&self) {
        Board::announce(&*self.host, &[ROSTER_PAGE]);
    }

    /// Changes what is known of a provider, in shared data, and tells all workers. `None` if that
    /// failed.
    pub fn change_provider<T>(&mut self, slug: &str, mut change: impl FnMut(&mut ProviderState) -> T) -> Option<T> {
        let result = update(&*self.host, providers::NAME, |bytes| {
            let mut providers = Providers::decode(bytes);
            let result = change(providers.get_mut(slug));
            (Some(providers.encode()), result)
        })?;
        Board::announce(&*self.host, &[PROVIDERS_PAGE]);
        Some(result)
    }

    /// Changes the usage count of a key for a model, unless `change` returns false. `None` if that failed,
    /// else whether it was changed.
    pub fn change_usage(&self, id: KeyId, model: &str, change: &mut dyn FnMut(&mut Usage) -> bool) -> Option<bool> {
        usage_pages::change(&*self.host, id, model, self.host.now(), change)
    }

    /// Brings the decoded copy up to date with shared data.
    pub fn refresh(&mut self) -> Board {
        let board = Board::read(&*self.host);
        if board.has_moved(&self.seen) {
            self.catch_up(&board);
        }
        board
    }

    #[cold]
    fn catch_up(&mut self, board: &Board) {
        let seen = core::mem::replace(&mut self.seen, board.generations().to_vec());
        for page in board.changed(&seen) {
            match page {
                PROVIDERS_PAGE => self.providers = read_providers(&*self.host),
                ROSTER_PAGE => self.load_roster(),
                page => self.load(page),
            }
        }
    }

    fn load_roster(&mut self) {
        let rows = self.host.get(LISTING).and_then(|(bytes, _)| Listing::decode(&bytes)).map(Listing::into_keys);
        self.loaded = rows.is_some();
        self.roster = Roster::new(&self.config, rows.unwrap_or_default());
        self.indexes.clear();
    }

    fn load(&mut self, number: usize) {
        let now = self.host.now();
        let new = self
            .host
            .get(&record_pages::name(number))
            .map_or_else(Page::new, |(bytes, _)| record_pages::decode(&bytes));
        let Some(slot) = self.pages.get_mut(number) else { return };
        let old = core::mem::replace(slot, new);
        for id in record_pages::differences(&old, slot) {
            let Some((slug, place)) = self.roster.place(id) else { continue };
            let record = record_pages::find(slot, id);
            for (model, index) in self.indexes.of(slug) {
                index.set(place, record.map_or(Time(0), |record| record.available_from(model)), now);
            }
        }
    }
}

/// Apart and with a `dyn` change: it has many callers, and each would get a copy of it.
fn change_pages(
    host: &dyn Host,
    by_page: &BTreeMap<usize, Vec<KeyId>>,
    change: &mut dyn FnMut(KeyId, &mut Record),
) -> bool {
    let mut all = true;
    let mut changed = Vec::new();
    for (&number, ids) in by_page {
        let written = update(host, &record_pages::name(number), |bytes| {
            let mut page = record_pages::decode(bytes);
            let before = page.clone();
            for &id in ids {
                let mut record = record_pages::find(&page, id).cloned().unwrap_or_default();
                change(id, &mut record);
                record_pages::put(&mut page, id, record);
            }
            page.retain_mut(|(_, record)| !record.expire(host.now()));
            let differs = page != before;
            (differs.then(|| record_pages::encode(&page)), differs)
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
        Board::announce(host, &changed);
    }
    all
}

fn read_providers(store: &dyn Store) -> Providers {
    store.get(providers::NAME).map(|(bytes, _)| Providers::decode(&bytes)).unwrap_or_default()
}
