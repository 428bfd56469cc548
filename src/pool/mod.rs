//! The pool: which key serves the next attempt, and what becomes of a key after an answer.
//!
//! Shared data ([`crate::host::store`]) is authoritative; a [`Pool`] is one worker's decoded copy of it. An
//! attempt reads the [`board`] (one read), updates the decoded pages that have changed (usually none), takes
//! the next ready key ([`ready`]) and moves the cursor (one write). What an answer reveals about a key is
//! written to the key's page ([`record_pages`]) with compare-and-set and announced on the board, so that every
//! worker sees it at its next attempt.

pub mod board;
mod bounded;
mod by_model;
pub mod denials;
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
use by_model::KeysByModel;
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
    /// Whether D1's keys are in the roster.
    loaded: bool,
    /// The decoded pages of records, by their index.
    pages: Vec<Page>,
    providers: Providers,
    /// The board's generations when the pages were decoded.
    seen: Vec<u8>,
    by_model: KeysByModel,
    days: Days,
}

/// Why no key can be leased.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoKey {
    /// The provider has no keys.
    Empty,
    /// All keys are blocked.
    Blocked,
    /// All keys that are not blocked are cooling or at their quota. The key that is ready first, and when.
    Cooling(Time, KeyId),
    /// The provider rests until then, because its answers suggest that the keys are not at fault.
    Resting(Time),
    /// This request has tried all keys that are ready.
    Tried,
}

/// Creates the pool's values in shared data. Call it before there is traffic.
pub fn create_state(store: &dyn Store) {
    Board::create(store);
    create(store, providers::NAME, &Providers::default().encode());
    (0..RECORD_PAGES).for_each(|page| create(store, &record_pages::name(page), &record_pages::encode(&Page::new())));
    usage_pages::create_pages(store);
}

impl Pool {
    /// A pool with the configuration's keys. D1's keys and the state of all keys are read by [`Self::refresh`].
    pub fn new(config: Rc<Config>, host: Rc<dyn Host>) -> Self {
        Pool {
            roster: Roster::new(&config, Vec::new()),
            config,
            host,
            loaded: false,
            pages: vec![Page::new(); RECORD_PAGES],
            providers: Providers::default(),
            seen: Vec::new(),
            by_model: KeysByModel::default(),
            days: Days::default(),
        }
    }

    /// All keys of this worker's view, blocked ones included.
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// The state of a provider as a whole, as of the last refresh.
    pub(crate) fn provider(&self, slug: &str) -> Option<&ProviderState> {
        self.providers.get(slug)
    }

    /// Whether D1's keys have been read.
    pub(crate) fn is_loaded(&self) -> bool {
        self.loaded
    }

    /// The record of a key as of the last refresh; `None` if nothing is known about the key.
    pub fn record(&self, id: KeyId) -> Option<&Record> {
        record_pages::find(self.pages.get(record_pages::of(id))?, id)
    }

    /// All records as of the last refresh.
    pub(crate) fn records(&self) -> impl Iterator<Item = (KeyId, &Record)> {
        self.pages.iter().flatten().map(|(id, record)| (*id, record))
    }

    /// Changes the record of a key in shared data and notifies all workers. `None` if it could not be written.
    pub fn change<T>(&mut self, id: KeyId, mut change: impl FnMut(&mut Record) -> T) -> Option<T> {
        let mut result = None;
        let written = self.change_many(core::iter::once(id), |_, record| result = Some(change(record)));
        result.filter(|_| written)
    }

    /// Changes the records of many keys, page by page, and notifies all workers once. False if a page
    /// could not be written.
    pub(crate) fn change_many(
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

    /// Notifies all workers that the list of keys from D1 has changed.
    pub(crate) fn announce_roster(&self) {
        Board::announce(&*self.host, &[ROSTER_PAGE]);
    }

    /// Changes the state of a provider in shared data and notifies all workers. `None` if it could not be
    /// written.
    pub(crate) fn change_provider<T>(
        &mut self,
        slug: &str,
        mut change: impl FnMut(&mut ProviderState) -> T,
    ) -> Option<T> {
        let result = update(&*self.host, providers::NAME, |bytes| {
            let mut providers = Providers::decode(bytes);
            let result = change(providers.get_mut(slug));
            (Some(providers.encode()), result)
        })?;
        Board::announce(&*self.host, &[PROVIDERS_PAGE]);
        Some(result)
    }

    /// Changes the usage of a key for a model, unless `change` returns false. Returns what `change` returned;
    /// `None` if the usage could not be written.
    pub(crate) fn change_usage(
        &self,
        id: KeyId,
        model: &str,
        change: &mut dyn FnMut(&mut Usage) -> bool,
    ) -> Option<bool> {
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
                page => self.load_page(page),
            }
        }
    }

    fn load_roster(&mut self) {
        let rows = self.host.get(LISTING).and_then(|(bytes, _)| Listing::decode(&bytes)).map(Listing::into_keys);
        self.loaded = rows.is_some();
        self.roster = Roster::new(&self.config, rows.unwrap_or_default());
        self.by_model.clear();
    }

    fn load_page(&mut self, page: usize) {
        let now = self.host.now();
        let new =
            self.host.get(&record_pages::name(page)).map_or_else(Page::new, |(bytes, _)| record_pages::decode(&bytes));
        let Some(slot) = self.pages.get_mut(page) else { return };
        let old = core::mem::replace(slot, new);
        for id in record_pages::differences(&old, slot) {
            let Some((slug, position)) = self.roster.position(id) else { continue };
            let record = record_pages::find(slot, id);
            for (model, ready) in self.by_model.of(slug) {
                ready.set(position, record.map_or(Time(0), |record| record.available_from(model)), now);
            }
        }
    }
}

/// Takes a `dyn` closure, so that the callers of [`Pool::change_many`] share one copy of the code.
fn change_pages(
    host: &dyn Host,
    by_page: &BTreeMap<usize, Vec<KeyId>>,
    change: &mut dyn FnMut(KeyId, &mut Record),
) -> bool {
    let mut all = true;
    let mut changed = Vec::new();
    for (&page_index, ids) in by_page {
        let written = update(host, &record_pages::name(page_index), |bytes| {
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
            Some(true) => changed.push(page_index),
            Some(false) => {}
            None => {
                warn!(
                    "page {page_index} of the pool's records could not be written because of concurrent writes; a change is lost"
                );
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
