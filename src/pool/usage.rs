//! Pages of usage counts in shared data.
//!
//! They are apart from the records because they change with every request, and no other worker has
//! to hear of it: who wants to use a key reads its count then and there.

use super::key::KeyId;
use super::quota::Usage;
use super::store::{self, Store, update};
use crate::time::Time;

/// Number of pages: few keys share one, so that a count stays cheap to read.
pub const PAGES: usize = 1024;
/// The most counts in a page; beyond it, keys go uncounted until others are over.
const MAX_COUNTS: usize = 512;

/// The counts of a page by key and model.
type Page = Vec<(KeyId, String, Usage)>;

/// A page's name in shared data.
#[must_use]
pub fn name(page: usize) -> String {
    format!("one-balance/1/usage/{page}")
}

/// Writes a page.
#[must_use]
pub fn encode(page: &Page) -> Vec<u8> {
    store::encode(page)
}

fn decode(bytes: &[u8]) -> Page {
    store::decode(bytes).unwrap_or_default()
}

fn page_of(id: KeyId) -> String {
    name((id.0 % PAGES as u64) as usize)
}

/// The count of a key for a model.
#[must_use]
pub fn read(store: &dyn Store, id: KeyId, model: &str) -> Usage {
    let page = store.get(&page_of(id)).map(|(bytes, _)| decode(&bytes)).unwrap_or_default();
    page.into_iter().find(|(other, name, _)| *other == id && name == model).map(|found| found.2).unwrap_or_default()
}

/// Changes the count of a key for a model. `None` if that failed.
pub fn change<T>(
    store: &dyn Store,
    id: KeyId,
    model: &str,
    now: Time,
    mut change: impl FnMut(&mut Usage) -> T,
) -> Option<T> {
    update(store, &page_of(id), |bytes| {
        let mut page = decode(bytes);
        let place = page.iter().position(|(other, name, _)| *other == id && name == model);
        let mut usage = place.and_then(|place| page.get(place)).map(|found| found.2.clone()).unwrap_or_default();
        let before = usage.clone();
        let result = change(&mut usage);
        if usage == before {
            return (None, result);
        }
        match place.and_then(|place| page.get_mut(place)) {
            Some(entry) => entry.2 = usage,
            None => {
                page.retain(|(_, _, usage)| !usage.is_over(now));
                if page.len() < MAX_COUNTS {
                    page.push((id, model.to_owned(), usage));
                }
            }
        }
        (Some(encode(&page)), result)
    })
}
