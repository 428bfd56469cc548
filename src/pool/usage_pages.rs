//! Pages of usage counts in shared data.
//!
//! They are apart from the records because they change with every request, and no other worker has
//! to hear of it: who wants to use a key reads its count then and there. For the same reason they are
//! not decoded: a change takes out one entry and copies the others over. An entry, behind the page's
//! version byte:
//!
//! ```text
//! key id, numbers of the usage            8 bytes each, little-endian
//! length of the model, number of slots    1 byte each
//! the model, the slots
//! ```
//!
//! The entry that was changed last stands first. What cannot be read is taken for the page's end.

use super::key::KeyId;
use super::usage::{NUMBERS, SLOT_BYTES, Usage};
use crate::host::store::{Store, create, update};
use crate::time::Time;

/// Number of pages: few keys share one, so that a count stays cheap to read.
const PAGES: usize = 1024;
/// The most counts in a page; beyond it, keys go uncounted until others are over.
const MAX_COUNTS: usize = 512;

const NAME: &str = "one-balance/2/usage/";
const VERSION: u8 = 2;
/// The bytes of an entry's numbers.
const HEAD: usize = 8 * (1 + NUMBERS);

/// Makes sure that there are all pages.
pub fn create_pages(store: &dyn Store) {
    (0..PAGES).for_each(|page| create(store, &name(page), &[VERSION]));
}

/// A page's name in shared data. It is needed for every request, so it is not formatted.
fn name(page: usize) -> String {
    let mut name = String::with_capacity(NAME.len() + 4);
    name.push_str(NAME);
    for place in [1000, 100, 10, 1] {
        name.push(char::from(b'0' + (page / place % 10) as u8));
    }
    name
}

fn page_of(id: KeyId) -> String {
    name((id.0 % PAGES as u64) as usize)
}

/// The count of a key for a model.
#[must_use]
pub fn read(store: &dyn Store, id: KeyId, model: &str) -> Usage {
    let page = store.get(&page_of(id)).map(|(bytes, _)| bytes).unwrap_or_default();
    entries(&page).find(|entry| entry.is(id, model)).map(|entry| entry.usage()).unwrap_or_default()
}

/// Changes the count of a key for a model, unless `change` returns false. `None` if that failed, else
/// whether it was changed.
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
                let after = page.get(entry.start + entry.bytes.len()..).unwrap_or_default();
                with(id, model, &usage, [page.get(1..entry.start).unwrap_or_default(), after])
            }
            None => with_new(id, model, &usage, page, now),
        };
        (Some(new), true)
    })
}

/// A page of this entry and others as they are.
fn with<const N: usize>(id: KeyId, model: &str, usage: &Usage, others: [&[u8]; N]) -> Vec<u8> {
    let slots = usage.slots();
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

/// The page with one more entry, without those that are over.
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

/// An entry as it lies in a page.
struct Entry<'a> {
    id: u64,
    numbers: [u64; NUMBERS],
    model: &'a [u8],
    slots: &'a [u8],
    /// Where it begins in the page.
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
        let id = |number: usize| (number * PAGES) as u64;
        (0..=MAX_COUNTS).for_each(|number| assert_eq!(count(&store, id(number), "m", 0, START), Some(true)));
        let load = |number: usize| read(&store, KeyId(id(number)), "m").load(START).0;
        assert_eq!((load(0), load(MAX_COUNTS - 1), load(MAX_COUNTS)), (1, 1, 0), "the last one has no room");
        assert_eq!(count(&store, 0, &"x".repeat(300), 0, START), Some(true));
        assert_eq!(read(&store, KeyId(0), &"x".repeat(300)), Usage::default(), "no model has such a name");
        let later = START.plus(DAY).plus(DAY);
        count(&store, id(MAX_COUNTS), "m", 0, later);
        assert_eq!(store.get(&name(0)).unwrap().0.len(), 1 + HEAD + 2 + 1 + SLOT_BYTES, "all others were over");
    }

    #[test]
    fn names_are_apart() {
        assert_eq!(
            (name(7), name(1023)),
            ("one-balance/2/usage/0007".to_owned(), "one-balance/2/usage/1023".to_owned())
        );
    }

    proptest! {
        /// Against a map of usages that never go through bytes.
        #[test]
        fn as_a_map_counts(
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
                        _ => return usage.state(Dimension::TokensPerDay, number),
                    }
                    true
                };
                let expected = step(map.entry((id, model.clone())).or_default());
                prop_assert_eq!(change(&store, KeyId(id), &model, now, &mut step), Some(expected));
                // What is over may be forgotten, and then begins anew.
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
                usage.state(Dimension::RequestsPerDay, 5)
            });
            prop_assert!(read(&store, id, &model).own().rpd.is_none_or(|limit| limit > 0));
        }
    }
}
