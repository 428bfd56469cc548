//! Pages of key records in shared data.
//!
//! A page holds the records of the keys whose ids fall into it, sorted by id. A page that cannot be read counts as
//! empty.

use super::board::RECORD_PAGES;
use super::key::KeyId;
use super::record::Record;
use crate::host::store;

/// The records of a page, sorted by id.
pub type Page = Vec<(KeyId, Record)>;

/// The index of the page that holds a key's record.
pub(crate) fn of(id: KeyId) -> usize {
    (id.0 % RECORD_PAGES as u64) as usize
}

/// The page's name in shared data.
pub(crate) fn name(page: usize) -> String {
    format!("one-balance/2/records/{page}")
}

/// Decodes a page.
pub(crate) fn decode(bytes: &[u8]) -> Page {
    store::decode(bytes).unwrap_or_default()
}

/// Encodes a page.
pub(crate) fn encode(page: &Page) -> Vec<u8> {
    store::encode(page)
}

/// The record of a key; `None` if the page has none.
pub(crate) fn find(page: &Page, id: KeyId) -> Option<&Record> {
    let index = page.binary_search_by_key(&id, |(other, _)| *other).ok()?;
    page.get(index).map(|(_, record)| record)
}

/// Stores a record, or removes it if nothing is left in it.
pub(crate) fn put(page: &mut Page, id: KeyId, record: Record) {
    let empty = record == Record::default();
    match page.binary_search_by_key(&id, |(other, _)| *other) {
        Ok(index) if empty => drop(page.remove(index)),
        Ok(index) => {
            if let Some(entry) = page.get_mut(index) {
                entry.1 = record;
            }
        }
        Err(_) if empty => {}
        Err(index) => page.insert(index, (id, record)),
    }
}

/// The ids whose records differ between two versions of a page.
pub(crate) fn differences<'a>(old: &'a Page, new: &'a Page) -> impl Iterator<Item = KeyId> + 'a {
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
    fn a_page_survives_encoding() {
        let mut page = Page::new();
        let blocked = Record { blocked: Some(Block { since: Time(7), sync: SyncState::Local }), ..Record::default() };
        put(&mut page, KeyId(9), blocked.clone());
        put(&mut page, KeyId(3), blocked.clone());
        put(&mut page, KeyId(5), Record::default());
        assert_eq!(page.len(), 2, "an empty record is not stored");
        let again = decode(&encode(&page));
        assert_eq!(again, page);
        assert_eq!(find(&again, KeyId(3)), Some(&blocked));
        put(&mut page, KeyId(3), Record::default());
        assert_eq!(differences(&again, &page).collect::<Vec<_>>(), [KeyId(3)]);
    }

    #[test]
    fn an_unreadable_page_is_empty() {
        for bytes in [&[][..], &[2, 1, 1], &[VERSION], &[VERSION, 255, 255, 255]] {
            assert_eq!(decode(bytes), Page::new(), "{bytes:?}");
        }
    }
}
