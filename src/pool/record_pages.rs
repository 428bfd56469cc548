//! Pages of key records in shared data.
//!
//! A page is its records by key id. What cannot be read is taken for an empty page.

use super::board::RECORD_PAGES;
use super::key::KeyId;
use super::record::Record;
use crate::host::store;

/// The records of a page, in the order of their ids.
pub type Page = Vec<(KeyId, Record)>;

/// The page that a key's record is in.
#[must_use]
pub fn of(id: KeyId) -> usize {
    (id.0 % RECORD_PAGES as u64) as usize
}

/// The page's name in shared data.
#[must_use]
pub fn name(page: usize) -> String {
    format!("one-balance/1/records/{page}")
}

/// Reads a page.
#[must_use]
pub fn decode(bytes: &[u8]) -> Page {
    store::decode(bytes).unwrap_or_default()
}

/// Writes a page.
#[must_use]
pub fn encode(page: &Page) -> Vec<u8> {
    store::encode(page)
}

/// A record of the page.
#[must_use]
pub fn find(page: &Page, id: KeyId) -> Option<&Record> {
    let place = page.binary_search_by_key(&id, |(other, _)| *other).ok()?;
    page.get(place).map(|(_, record)| record)
}

/// Puts a record in its place, or takes it out if there is nothing left in it.
pub fn put(page: &mut Page, id: KeyId, record: Record) {
    let empty = record == Record::default();
    match page.binary_search_by_key(&id, |(other, _)| *other) {
        Ok(place) if empty => drop(page.remove(place)),
        Ok(place) => {
            if let Some(entry) = page.get_mut(place) {
                entry.1 = record;
            }
        }
        Err(_) if empty => {}
        Err(place) => page.insert(place, (id, record)),
    }
}

/// The ids whose records differ between two versions of a page.
pub fn differences<'a>(old: &'a Page, new: &'a Page) -> impl Iterator<Item = KeyId> + 'a {
    let gone = old.iter().filter(|(id, _)| find(new, *id).is_none());
    let changed = new.iter().filter(|(id, record)| find(old, *id) != Some(record));
    gone.chain(changed).map(|(id, _)| *id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::store::VERSION;
    use crate::pool::record::{Block, SyncState};
    use crate::time::Time;

    #[test]
    fn survives_the_way_through_bytes() {
        let mut page = Page::new();
        let blocked = Record { blocked: Some(Block { since: Time(7), sync: SyncState::Local }), ..Record::default() };
        put(&mut page, KeyId(9), blocked.clone());
        put(&mut page, KeyId(3), blocked.clone());
        put(&mut page, KeyId(5), Record::default());
        assert_eq!(page.len(), 2, "an empty record is no record");
        let again = decode(&encode(&page));
        assert_eq!(again, page);
        assert_eq!(find(&again, KeyId(3)), Some(&blocked));
        put(&mut page, KeyId(3), Record::default());
        assert_eq!(differences(&again, &page).collect::<Vec<_>>(), [KeyId(3)]);
    }

    #[test]
    fn what_cannot_be_read_is_empty() {
        for bytes in [&[][..], &[2, 1, 1], &[VERSION], &[VERSION, 255, 255, 255]] {
            assert_eq!(decode(bytes), Page::new(), "{bytes:?}");
        }
    }
}
