//! Edits of the table by an operator: the statements, and what becomes of the pool once D1 has run
//! them.
//!
//! An edit changes D1 first and the pool after its acknowledgement, so that a failure leaves both as
//! they were. What was learned here and not written yet lies over what D1 says ([`super::merge`]);
//! the operator knows better, so an edit takes it out of the record itself. A snapshot whose read
//! began before the edit does not show it: the edit leaves a stamp, such a snapshot is not applied,
//! and D1 is read again at once ([`is_stale`]). That is also what heals an edit whose acknowledgement
//! was lost.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::api::{self, Failure, Statement};
use super::merge::merge;
use super::snapshot::Remote;
use crate::config::Config;
use crate::host::Host;
use crate::host::store::{Store, create, update};
use crate::pool::listing::{LISTING, Listing};
use crate::pool::record::Record;
use crate::pool::{KeyId, Pool};
use crate::secret::Secret;
use crate::time::{MINUTE, Time};

const STAMP: &str = "one-balance/1/d1-edited";

/// The keys that an edit is about, by their rows.
pub type Rows = BTreeMap<String, KeyId>;

/// What is to be changed. Each one can be sent again without harm.
#[derive(Debug)]
pub enum Edit {
    /// New keys of a provider; those that are there already stay as they are.
    Add {
        /// The provider.
        slug: String,
        /// The keys.
        keys: Vec<Secret>,
        /// What people call them.
        remark: Option<String>,
    },
    /// The rows go.
    Delete(Rows),
    /// The rows go as far as D1 also says that they are blocked.
    DeleteBlocked(Rows),
    /// Blocked keys are used again.
    Activate(Rows),
    /// The cooling for a model is over, or everything that cools or rests.
    Clear(Rows, Option<String>),
}

/// Prepares shared data.
pub fn create_state(store: &dyn Store) {
    create(store, STAMP, &Time(0).0.to_le_bytes());
}

/// Whether a read of D1 that began at `started` may miss an edit. A stamp from the far
/// future is from before a clock stepped back, and counts for nothing.
pub fn is_stale(host: &dyn Host, started: Time) -> bool {
    let bytes = host.get(STAMP).and_then(|(bytes, _)| bytes.try_into().ok());
    let edited = bytes.map_or(Time(0), |bytes| Time(u64::from_le_bytes(bytes)));
    started <= edited && edited <= host.now().plus(MINUTE)
}

/// Marks all reads as stale that have begun by now.
pub fn stamp(host: &dyn Host) {
    host.set(STAMP, &host.now().0.to_le_bytes(), None);
}

impl Edit {
    /// The statements that D1 is to run.
    pub fn statements(&self) -> Vec<Statement> {
        let ids = |rows: &Rows| Value::from_iter(rows.keys().map(String::as_str)).to_string();
        match self {
            Edit::Add { slug, keys, remark } => {
                let keys = Value::from_iter(keys.iter().map(Secret::expose)).to_string();
                vec![api::insert(slug, &keys, remark.as_deref().unwrap_or_default()), api::select_keys(slug, &keys)]
            }
            Edit::Delete(rows) => vec![api::delete(&ids(rows), false)],
            Edit::DeleteBlocked(rows) => vec![api::delete(&ids(rows), true)],
            Edit::Activate(rows) => vec![api::activate(&ids(rows))],
            Edit::Clear(rows, model) => vec![api::clear(&ids(rows), model.as_deref())],
        }
    }

    /// Takes D1's answer over into the pool, for all workers; how many rows have changed.
    ///
    /// # Errors
    /// D1 has not acknowledged it; the pool is as it was. D1 may have run it all the same.
    pub fn answered(
        &self,
        pool: &mut Pool,
        host: &dyn Host,
        config: &Config,
        answer: &super::Answer,
    ) -> Result<usize, Failure> {
        // Before anything of the pool is changed: see `is_stale`.
        stamp(host);
        let results = api::results(answer.status, answer.body)?;
        let mut results = results.into_iter();
        let returned = results.next().unwrap_or_default();
        let returned: BTreeSet<&str> = returned.iter().filter_map(|row| row.get("id")?.as_str()).collect();
        let ids = |rows: &Rows| returned.iter().filter_map(|row| rows.get(*row)).copied().collect::<Vec<KeyId>>();
        match self {
            Edit::Add { .. } => {
                let rows = results.next().unwrap_or_default();
                let remotes: Vec<Remote> = rows.iter().filter_map(|row| Remote::read(row, config).ok()).collect();
                add(pool, host, &remotes, &returned);
            }
            // One that D1 has no more is gone as well.
            Edit::Delete(rows) => remove(pool, host, rows, |row| rows.contains_key(row)),
            Edit::DeleteBlocked(rows) => remove(pool, host, rows, |row| returned.contains(row)),
            Edit::Activate(rows) => {
                pool.change_many(ids(rows).into_iter(), |_, record| record.blocked = None);
            }
            Edit::Clear(rows, model) => {
                let clear = |record: &mut Record| match model {
                    Some(model) => record.models.retain(|state| state.model != *model),
                    None => {
                        record.models.clear();
                        record.resting = None;
                    }
                };
                pool.change_many(ids(rows).into_iter(), |_, record| clear(record));
            }
        }
        Ok(returned.len())
    }
}

/// Puts rows into the list of keys. What is known of a key that was here before, and then deleted, is
/// over for one that is `new`.
fn add(pool: &mut Pool, host: &dyn Host, remotes: &[Remote], new: &BTreeSet<&str>) {
    change_listing(pool, host, |listing| listing.add(remotes.iter().map(Remote::listed)));
    let by_id: BTreeMap<KeyId, &Remote> = remotes.iter().map(|remote| (remote.id(), remote)).collect();
    let now = host.now();
    pool.change_many(by_id.keys().copied(), |id, record| {
        let Some(remote) = by_id.get(&id) else { return };
        if new.contains(remote.row.id.as_str()) {
            *record = Record::default();
        }
        merge(record, remote.blocked, &remote.coolings, now, now);
    });
}

/// Takes rows out of the list of keys, and forgets what is known of keys that are nowhere else.
fn remove(pool: &mut Pool, host: &dyn Host, rows: &Rows, gone: impl Fn(&str) -> bool) {
    change_listing(pool, host, |listing| listing.remove(&gone));
    let left: Vec<KeyId> = rows.values().copied().filter(|id| pool.roster().key(*id).is_none()).collect();
    pool.change_many(left.into_iter(), |_, record| *record = Record::default());
}

fn change_listing(pool: &mut Pool, host: &dyn Host, change: impl Fn(&mut Listing)) {
    update(host, LISTING, |bytes| match Listing::decode(bytes) {
        // D1 has not been read yet: the first read brings the edit as well.
        None => (None, ()),
        Some(mut listing) => {
            change(&mut listing);
            (Some(listing.encode()), ())
        }
    });
    pool.announce_roster();
    pool.refresh();
}
