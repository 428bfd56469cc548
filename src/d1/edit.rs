//! Edits of the table by an operator: the statements, and the changes of the pool once D1 has executed them.
//!
//! An edit changes D1 first and the pool after its acknowledgement, so that a failure leaves both as
//! they were. What was learned here and has not been written yet overrides D1's rows ([`super::merge`]); an
//! operator's edit takes precedence over that, so it also changes the record. A snapshot whose read began before
//! the edit does not include it. Therefore the edit records its time in shared data, such a snapshot is not
//! applied, and D1 is read again at once ([`is_stale`]). That read also repairs the pool after an edit whose
//! acknowledgement was lost.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::api::{self, Failure, Statement};
use super::merge::merge;
use super::snapshot::Remote;
use crate::config::Config;
use crate::host::Host;
use crate::host::store::{self, Store, create, update};
use crate::pool::listing::{LISTING, Listing};
use crate::pool::record::Record;
use crate::pool::{KeyId, Pool};
use crate::secret::Secret;
use crate::time::{MINUTE, Time};

/// The value with the time of the last edit: `Option<Time>`.
const EDITED: &str = "one-balance/2/d1-edited";

/// The keys that an edit is about, by their rows.
pub type Rows = BTreeMap<String, KeyId>;

/// An edit. Sending it twice has the same effect as sending it once.
#[derive(Debug)]
pub enum Edit {
    /// Adds keys of a provider; keys that D1 already has stay as they are.
    Add {
        /// The provider's slug.
        slug: String,
        /// The keys to add.
        keys: Vec<Secret>,
        /// A note for people.
        remark: Option<String>,
    },
    /// Deletes rows.
    Delete(Rows),
    /// Deletes those of the rows that are blocked in D1, too.
    DeleteBlocked(Rows),
    /// Unblocks keys.
    Activate(Rows),
    /// Ends the cooling for a model; without a model, every cooling and rest.
    Clear(Rows, Option<String>),
}

/// Creates the value in shared data.
pub fn create_state(store: &dyn Store) {
    create(store, EDITED, &store::encode(&None::<Time>));
}

/// Whether a read of D1 that began at `started` may not include an edit. A time in the far future was recorded
/// before a clock stepped back, and is ignored.
pub(crate) fn is_stale(host: &dyn Host, started: Time) -> bool {
    let edited: Option<Time> = host.get(EDITED).and_then(|(bytes, _)| store::decode(&bytes)).flatten();
    edited.is_some_and(|edited| started <= edited && edited <= host.now().plus(MINUTE))
}

/// Marks all reads that have begun by now as stale.
pub fn mark_edited(host: &dyn Host) {
    host.set(EDITED, &store::encode(&Some(host.now())), None);
}

impl Edit {
    /// The statements to execute in D1.
    pub(crate) fn statements(&self) -> Vec<Statement> {
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

    /// Applies an edit that D1 has acknowledged to the pool of all workers. Returns the number of changed rows.
    ///
    /// # Errors
    /// D1 has not acknowledged the edit. The pool is unchanged, although D1 may have executed the edit.
    pub fn answered(
        &self,
        pool: &mut Pool,
        host: &dyn Host,
        config: &Config,
        answer: &super::Answer,
    ) -> Result<usize, Failure> {
        // This comes before any change of the pool: see `is_stale`.
        mark_edited(host);
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
            // Rows that D1 no longer has are removed as well.
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

/// Adds rows to the list of keys. The records of `new` rows are reset, because the same key may have been here
/// before and been deleted.
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

/// Removes rows from the list of keys, and the records of keys that are not in the configuration either.
fn remove(pool: &mut Pool, host: &dyn Host, rows: &Rows, gone: impl Fn(&str) -> bool) {
    change_listing(pool, host, |listing| listing.remove(&gone));
    let left: Vec<KeyId> = rows.values().copied().filter(|id| pool.roster().key(*id).is_none()).collect();
    pool.change_many(left.into_iter(), |_, record| *record = Record::default());
}

fn change_listing(pool: &mut Pool, host: &dyn Host, change: impl Fn(&mut Listing)) {
    update(host, LISTING, |bytes| match Listing::decode(bytes) {
        // D1 has not been read yet: the first read will include the edit.
        None => (None, ()),
        Some(mut listing) => {
            change(&mut listing);
            (Some(listing.encode()), ())
        }
    });
    pool.announce_roster();
    pool.refresh();
}
