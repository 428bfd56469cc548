//! The board: the one small value that every attempt reads.
//!
//! It counts how often each page of key records has changed, so that one read tells a worker which decoded
//! pages it must read again. It also holds the round-robin cursors, which all workers share. Layout: a version
//! byte, then little-endian 32-bit numbers: the epoch, the generations of the pages, the cursors. Every
//! announcement increments the epoch, so that a worker needs to compare only one number when nothing has
//! changed. The offsets are fixed, so that numbers are read and written without decoding the rest.

use crate::host::store::{Store, create, update};

/// The number of record pages. With 10,000 keys a page has about 40 records; a change re-reads one page.
pub(crate) const RECORD_PAGES: usize = 256;
/// The index of the generation of [`super::providers`].
pub(crate) const PROVIDERS_PAGE: usize = RECORD_PAGES;
/// The index of the generation of the list of keys from D1.
pub(crate) const ROSTER_PAGE: usize = RECORD_PAGES + 1;
const PAGES: usize = RECORD_PAGES + 2;
/// The number of cursors. A model's cursor is chosen by hash; two models on one cursor still use all keys in turn.
pub(crate) const CURSORS: usize = 64;

const NAME: &str = "one-balance/2/board";
const VERSION: u8 = 2;
/// The index of the epoch among the numbers, and those of the first generation and the first cursor.
const EPOCH: usize = 0;
const GENERATIONS: usize = 1;
const CURSOR: usize = GENERATIONS + PAGES;
const BYTES: usize = 1 + 4 * (CURSOR + CURSORS);

/// The board as it was read, and its compare-and-set number.
pub struct Board {
    bytes: Vec<u8>,
    cas: Option<u32>,
}

impl Board {
    /// Creates the board if it does not exist.
    pub(crate) fn create(store: &dyn Store) {
        create(store, NAME, &Board::empty().bytes);
    }

    fn empty() -> Self {
        let mut bytes = vec![0; BYTES];
        if let Some(first) = bytes.first_mut() {
            *first = VERSION;
        }
        Board { bytes, cas: None }
    }

    /// Reads the board; an empty one if it is missing or has another version.
    pub fn read(store: &dyn Store) -> Self {
        match store.get(NAME) {
            Some((bytes, cas)) if is_board(&bytes) => Board { bytes, cas: Some(cas) },
            _ => Board::empty(),
        }
    }

    /// The epoch and the generations, to be kept and compared with a later board.
    pub(crate) fn generations(&self) -> &[u8] {
        self.bytes.get(1..1 + 4 * CURSOR).unwrap_or_default()
    }

    /// Whether any page has changed since a board had the generations `seen`.
    pub(crate) fn has_moved(&self, seen: &[u8]) -> bool {
        seen.first_chunk::<4>() != self.generations().first_chunk::<4>()
    }

    /// The pages whose generations differ from those in `seen`.
    pub(crate) fn changed<'a>(&'a self, seen: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
        let mut seen = seen.chunks_exact(4).skip(GENERATIONS);
        let now = self.generations().chunks_exact(4).skip(GENERATIONS);
        now.enumerate().filter_map(move |(page, now)| (seen.next() != Some(now)).then_some(page))
    }

    /// The turn at which the next search begins.
    pub(crate) fn cursor(&self, cursor: usize) -> u32 {
        read_u32(&self.bytes, CURSOR + cursor % CURSORS)
    }

    /// Moves a cursor. False if the board has changed since it was read.
    #[must_use]
    pub(crate) fn move_cursor(mut self, store: &dyn Store, cursor: usize, to: u32) -> bool {
        write_u32(&mut self.bytes, CURSOR + cursor % CURSORS, to);
        store.set(NAME, &self.bytes, self.cas)
    }

    /// Notifies all workers that pages have changed.
    pub(crate) fn announce(store: &dyn Store, pages: &[usize]) {
        update(store, NAME, |value| {
            let mut bytes = if is_board(value) { value.to_vec() } else { Board::empty().bytes };
            for index in pages.iter().map(|page| GENERATIONS + page).chain([EPOCH]) {
                let next = read_u32(&bytes, index).wrapping_add(1);
                write_u32(&mut bytes, index, next);
            }
            (Some(bytes), ())
        });
    }
}

fn is_board(bytes: &[u8]) -> bool {
    bytes.len() == BYTES && bytes.first() == Some(&VERSION)
}

fn read_u32(bytes: &[u8], index: usize) -> u32 {
    let start = 1 + 4 * index;
    let number = bytes.get(start..start + 4).and_then(|four| four.try_into().ok());
    number.map_or(0, u32::from_le_bytes)
}

fn write_u32(bytes: &mut [u8], index: usize, number: u32) {
    let start = 1 + 4 * index;
    if let Some(four) = bytes.get_mut(start..start + 4) {
        four.copy_from_slice(&number.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::memory::Memory;

    #[test]
    fn the_changed_pages_are_found() {
        let store = Memory::default();
        Board::create(&store);
        let seen = Board::read(&store).generations().to_vec();
        assert_eq!(Board::read(&store).changed(&seen).count(), 0);
        assert!(!Board::read(&store).has_moved(&seen) && Board::read(&store).has_moved(&[]));
        Board::announce(&store, &[3, ROSTER_PAGE]);
        assert!(Board::read(&store).has_moved(&seen));
        assert_eq!(Board::read(&store).changed(&seen).collect::<Vec<_>>(), [3, ROSTER_PAGE]);
        assert_eq!(Board::read(&store).changed(&[]).count(), PAGES, "a new worker reads everything");
    }

    #[test]
    fn a_cursor_moves_once() {
        let store = Memory::default();
        Board::create(&store);
        let (first, second) = (Board::read(&store), Board::read(&store));
        assert!(first.move_cursor(&store, 5, 9));
        assert!(!second.move_cursor(&store, 5, 9), "another worker was faster");
        assert_eq!(Board::read(&store).cursor(5), 9);
        assert_eq!(Board::read(&store).cursor(6), 0);
        assert_eq!(
            Board::read(&store).changed(Board::empty().generations()).count(),
            0,
            "a moved cursor is not a changed page"
        );
    }
}
