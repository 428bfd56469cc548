//! Pages of usage counts in shared data.
//!
//! They are separate from the records because they change with every request, and other workers need no
//! notification: a worker that wants to use a key reads the key's count at that moment. For the same reason pages
//! are not decoded: a change extracts one entry and copies the others. After the page's version byte, each entry
//! consists of:
//!
//! ```text
//! key id, numbers of the usage            8 bytes each, little-endian
//! length of the model, number of slots    1 byte each
//! the model, the slots
//! ```
//!
//! The entry that was changed last comes first. Bytes that cannot be read end the page.

use super::key::KeyId;
use super::usage::{NUMBERS, SLOT_BYTES, Usage};
use crate::host::store::{Store, create, update};
use crate::time::Time;

/// The number of pages. Few keys share one, so that a count is cheap to read.
const PAGES: usize = 1024;
/// The most entries in a page; if it is full, further keys are not counted until other entries expire.
const MAX_COUNTS: usize = 512;

const NAME: &str = "one-balance/2/usage/";
const VERSION: u8 = 2;
/// The size of an entry's numbers in bytes.
const HEAD: usize = 8 * (1 + NUMBERS);

/// Creates the pages that do not exist.
pub(crate) fn create_pages(store: &dyn Store) {
    (0..PAGES).for_each(|page| create(store, &name(page), &[VERSION]));
}

/// A page's name in shared data. Every request needs one, so it avoids the formatter.
fn name(page: usize) -> String {
    let mut name = String::with_capacity(NAME.len() + 4);
    name.push_str(NAME);
    for power in [1000, 100, 10, 1] {
        name.push(char::from(b'0' + (page / power % 10) as u8));
    }
    name
}

fn page_of(id: KeyId) -> String {
    name((id.0 % PAGES as u64) as usize)
}

/// The usage of a key for a model.
pub fn read(store: &dyn Store, id: KeyId, model: &str) -> Usage {
    let page = store.get(&page_of(id)).map(|(bytes, _)| bytes).unwrap_or_default();
    entries(&page).find(|entry| entry.is(id, model)).map(|entry| entry.usage()).unwrap_or_default()
}

/// Changes the usage of a key for a model, unless `change` returns false. Returns what `change` returned; `None` if
/// the page could not be written.
pub fn change(
    store: &dyn Store,
    id: KeyId,
    model: &str,
    now: Time,
    change: &mut dyn FnMut(&mut Usage) -> bool,
) -> Option<bool> {
    update(store, &page_of(id), |page| {
        let known = entries(page).find(|entry| entry.is(id, model));
        let mut usage = known.as_ref().map(Entry::usage).unwrap_or_default();
        if !change(&mut usage) {
            return (None, false);
        }
        let new = match known {
            Some(entry) => {
                let (before, after) = around(page, &entry);
                with(id, model, &usage, [before, after])
            }
            None => with_new(id, model, &usage, page, now),
        };
        (Some(new), true)
    })
}

/// The entries before and after one of a page, without the version byte.
fn around<'a>(page: &'a [u8], entry: &Entry) -> (&'a [u8], &'a [u8]) {
    let (before, after) = (page.get(1..entry.start), page.get(entry.start + entry.bytes.len()..));
    debug_assert!(before.is_some() && after.is_some(), "the entry is not one of this page");
    (before.unwrap_or_default(), after.unwrap_or_default())
}

/// A page of this entry followed by unchanged others.
fn with<const N: usize>(id: KeyId, model: &str, usage: &Usage, others: [&[u8]; N]) -> Vec<u8> {
    let slots = usage.slots();
    debug_assert!(model.len() <= usize::from(u8::MAX), "the length of the model does not fit into a byte");
    debug_assert!(slots.len() / SLOT_BYTES <= usize::from(u8::MAX), "the number of slots does not fit into a byte");
    let others_len: usize = others.iter().map(|other| other.len()).sum();
    let mut page = Vec::with_capacity(1 + HEAD + 2 + model.len() + slots.len() + others_len);
    page.push(VERSION);
    page.extend_from_slice(&id.0.to_le_bytes());
    page.extend_from_slice(usage.numbers().map(u64::to_le_bytes).as_flattened());
    page.extend_from_slice(&[model.len() as u8, (slots.len() / SLOT_BYTES) as u8]);
    page.extend_from_slice(model.as_bytes());
    page.extend_from_slice(slots);
    others.iter().for_each(|other| page.extend_from_slice(other));
    page
}

/// The page with one more entry, without those that have expired.
#[cold]
fn with_new(id: KeyId, model: &str, usage: &Usage, page: &[u8], now: Time) -> Vec<u8> {
    let kept: Vec<&[u8]> = entries(page).filter(|entry| !entry.usage().is_over(now)).map(|entry| entry.bytes).collect();
    let others = kept.concat();
    if kept.len() < MAX_COUNTS && u8::try_from(model.len()).is_ok() {
        with(id, model, usage, [&others])
    } else {
        [&[VERSION], others.as_slice()].concat()
    }
}

/// An entry as it is stored in a page.
struct Entry<'a> {
    id: u64,
    numbers: [u64; NUMBERS],
    model: &'a [u8],
    slots: &'a [u8],
    /// The offset of the entry in the page.
    start: usize,
    bytes: &'a [u8],
}

impl Entry<'_> {
    fn is(&self, id: KeyId, model: &str) -> bool {
        self.id == id.0 && self.model == model.as_bytes()
    }

    fn usage(&self) -> Usage {
        Usage::new(self.numbers, self.slots)
    }
}

fn entries(page: &[u8]) -> impl Iterator<Item = Entry<'_>> {
    let mut start = if page.first() == Some(&VERSION) { 1 } else { page.len() };
    core::iter::from_fn(move || {
        let entry = entry_at(page, start)?;
        start += entry.bytes.len();
        Some(entry)
    })
}

fn entry_at(page: &[u8], start: usize) -> Option<Entry<'_>> {
    let whole = page.get(start..)?;
    let (head, rest) = whole.split_at_checked(HEAD)?;
    let [id, numbers @ ..] = head.as_chunks().0.first_chunk::<{ 1 + NUMBERS }>()?.map(u64::from_le_bytes);
    let [model, slots, rest @ ..] = rest else { return None };
    let (model, rest) = rest.split_at_checked(usize::from(*model))?;
    let (slots, rest) = rest.split_at_checked(usize::from(*slots) * SLOT_BYTES)?;
    let bytes = whole.get(..whole.len() - rest.len())?;
    Some(Entry { id, numbers, model, slots, start, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::memory::Memory;
    use crate::quota::{Dimension, Minute, Quota};
    use crate::time::{DAY, Span};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const START: Time = Time(1_764_064_800_000);

    fn count(store: &Memory, id: u64, model: &str, tokens: u64, now: Time) -> Option<bool> {
        change(store, KeyId(id), model, now, &mut |usage| {
            usage.add(Minute::Rolling, START.plus(DAY), tokens, now);
            true
        })
    }

    #[test]
    fn an_unchanged_count_is_not_written() {
        let store = Memory::default();
        create_pages(&store);
        let calls = store.calls.get();
        assert_eq!(change(&store, KeyId(1), "m", START, &mut |_| false), Some(false));
        assert_eq!(store.calls.get() - calls, 1);
        store.lose.set(usize::MAX);
        assert_eq!(count(&store, 1, "m", 0, START), None, "all races lost");
    }

    #[test]
    fn pages_are_bounded() {
        let store = Memory::default();
        create_pages(&store);
        let id = |index: usize| (index * PAGES) as u64;
        (0..=MAX_COUNTS).for_each(|index| assert_eq!(count(&store, id(index), "m", 0, START), Some(true)));
        let load = |index: usize| read(&store, KeyId(id(index)), "m").load(START).0;
        assert_eq!((load(0), load(MAX_COUNTS - 1), load(MAX_COUNTS)), (1, 1, 0), "the last one has no room");
        assert_eq!(count(&store, 0, &"x".repeat(300), 0, START), Some(true));
        assert_eq!(read(&store, KeyId(0), &"x".repeat(300)), Usage::default(), "no model has such a name");
        let later = START.plus(DAY).plus(DAY);
        count(&store, id(MAX_COUNTS), "m", 0, later);
        assert_eq!(store.get(&name(0)).unwrap().0.len(), 1 + HEAD + 2 + 1 + SLOT_BYTES, "all others were over");
    }

    #[test]
    fn names_have_four_digits() {
        assert_eq!(
            (name(7), name(1023)),
            ("one-balance/2/usage/0007".to_owned(), "one-balance/2/usage/1023".to_owned())
        );
    }

    proptest! {
        /// Compares with a map of usages that are never encoded.
        #[test]
        fn pages_count_as_a_map_does(
            steps in proptest::collection::vec((0u64..4, "m|model|", 0u8..4, 0u64..1000, 0u64..3000), 1..200),
        ) {
            let store = Memory::default();
            let mut map: BTreeMap<(u64, String), Usage> = BTreeMap::new();
            let mut now = START;
            for (key, model, what, number, wait) in steps {
                // All in one page.
                let id = key * PAGES as u64;
                let mut step = |usage: &mut Usage| {
                    match what {
                        0 | 1 => usage.add(Minute::Rolling, START.plus(DAY), number, now),
                        2 => usage.give_back(Minute::Rolling, number, now, now),
                        _ => return usage.state_limit(Dimension::TokensPerDay, number),
                    }
                    true
                };
                let expected = step(map.entry((id, model.clone())).or_default());
                prop_assert_eq!(change(&store, KeyId(id), &model, now, &mut step), Some(expected));
                // An expired usage may be removed, and then starts again from nothing.
                map.retain(|(id, model), usage| {
                    let stored = read(&store, KeyId(*id), model);
                    assert!(stored == *usage || (usage.is_over(now) && stored == Usage::default()));
                    stored == *usage
                });
                now = now.plus(Span(number * 10 % wait.max(1)));
            }
        }

        #[test]
        fn any_bytes_are_a_page(
            page in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..300),
                proptest::collection::vec(prop_oneof![Just(0u8), Just(VERSION), any::<u8>()], 60..400)
                    .prop_map(|tail| [vec![VERSION], tail].concat()),
            ],
            now: u64,
        ) {
            let store = Memory::default();
            store.set(&name(0), &page, None);
            let (now, quota) = (Time(now), Quota { rpm: Some(1), tpm: Some(9), ..Quota::default() });
            let first = entries(&page).next().map(|entry| (entry.id, String::from_utf8_lossy(entry.model).into_owned()));
            let (id, model) = first.unwrap_or_default();
            let id = KeyId(id - id % PAGES as u64);
            change(&store, id, &model, now, &mut |usage| {
                let _ = usage.room(quota, Minute::Calendar, 1, now);
                usage.add(Minute::Calendar, now.plus(DAY), 1, now);
                usage.give_back(Minute::Rolling, 1, now, now);
                usage.state_limit(Dimension::RequestsPerDay, 5)
            });
            prop_assert!(read(&store, id, &model).stated().rpd.is_none_or(|limit| limit > 0));
        }
    }
}
