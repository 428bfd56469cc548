//! The board: the one small value that every attempt reads.
//!
//! It says for each page of key records how often it has changed, so that a worker with a decoded
//! copy knows with one read which pages it must read again; and it holds the round-robin cursors,
//! which all workers share. Layout: a version byte, then little-endian 32-bit numbers: the epoch, which
//! each announcement moves, so that a worker sees by one number that nothing has changed; the pages'
//! generations; the cursors. Fixed places are read and written without decoding.

use crate::host::store::{Store, create, update};

/// Number of record pages. 10,000 keys make about 40 to a page; a change re-reads one page.
pub const RECORD_PAGES: usize = 256;
/// The generation of what is known of providers and their limits.
pub const PROVIDERS_PAGE: usize = RECORD_PAGES;
/// The generation of the list of keys from D1.
pub const ROSTER_PAGE: usize = RECORD_PAGES + 1;
const PAGES: usize = RECORD_PAGES + 2;
/// Cursors are shared by hash: two models on one cursor still get all keys in turn.
pub const CURSORS: usize = 64;

const NAME: &str = "one-balance/2/board";
const VERSION: u8 = 2;
/// Where the epoch stands among the numbers, and where the generations and the cursors begin.
const EPOCH: usize = 0;
const GENERATIONS: usize = 1;
const CURSOR: usize = GENERATIONS + PAGES;
const BYTES: usize = 1 + 4 * (CURSOR + CURSORS);

/// The board as it was read.
pub struct Board {
    bytes: Vec<u8>,
    cas: Option<u32>,
}

impl Board {
    /// Makes sure that there is a board.
    pub fn create(store: &dyn Store) {
        create(store, NAME, &Board::empty().bytes);
    }

    fn empty() -> Self {
        let mut bytes = vec![0; BYTES];
        if let Some(first) = bytes.first_mut() {
            *first = VERSION;
        }
        Board { bytes, cas: None }
    }

    /// Reads the board; an empty one if it is missing or of another version.
    #[must_use]
    pub fn read(store: &dyn Store) -> Self {
        match store.get(NAME) {
            Some((bytes, cas)) if is_board(&bytes) => Board { bytes, cas: Some(cas) },
            _ => Board::empty(),
        }
    }

    /// What the pages are at, to be kept and compared with a later board.
    #[must_use]
    pub fn generations(&self) -> &[u8] {
        self.bytes.get(1..1 + 4 * CURSOR).unwrap_or_default()
    }

    /// Whether a page may have changed since a board had the generations `seen`.
    #[must_use]
    pub fn has_moved(&self, seen: &[u8]) -> bool {
        seen.first_chunk::<4>() != self.generations().first_chunk::<4>()
    }

    /// The pages whose generation differs from that in `seen`.
    pub fn changed<'a>(&'a self, seen: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
        let mut seen = seen.chunks_exact(4).skip(GENERATIONS);
        let now = self.generations().chunks_exact(4).skip(GENERATIONS);
        now.enumerate().filter_map(move |(page, now)| (seen.next() != Some(now)).then_some(page))
    }

    /// Where the next search of this cursor begins.
    #[must_use]
    pub fn cursor(&self, cursor: usize) -> u32 {
        read_u32(&self.bytes, CURSOR + cursor % CURSORS)
    }

    /// Moves a cursor. False if the board has changed since it was read.
    #[must_use]
    pub fn move_cursor(mut self, store: &dyn Store, cursor: usize, to: u32) -> bool {
        write_u32(&mut self.bytes, CURSOR + cursor % CURSORS, to);
        store.set(NAME, &self.bytes, self.cas)
    }

    /// Tells all workers that pages have changed.
    pub fn announce(store: &dyn Store, pages: &[usize]) {
        update(store, NAME, |value| {
            let mut bytes = if is_board(value) { value.to_vec() } else { Board::empty().bytes };
            for place in pages.iter().map(|page| GENERATIONS + page).chain([EPOCH]) {
                let moved = read_u32(&bytes, place).wrapping_add(1);
                write_u32(&mut bytes, place, moved);
            }
            (Some(bytes), ())
        });
    }
}

fn is_board(bytes: &[u8]) -> bool {
    bytes.len() == BYTES && bytes.first() == Some(&VERSION)
}

fn read_u32(bytes: &[u8], place: usize) -> u32 {
    let start = 1 + 4 * place;
    let number = bytes.get(start..start + 4).and_then(|four| four.try_into().ok());
    number.map_or(0, u32::from_le_bytes)
}

fn write_u32(bytes: &mut [u8], place: usize, number: u32) {
    let start = 1 + 4 * place;
    if let Some(four) = bytes.get_mut(start..start + 4) {
        four.copy_from_slice(&number.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::memory::Memory;

    #[test]
    fn changes_show_by_page() {
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
        assert!(!second.move_cursor(&store, 5, 9), "somebody was faster");
        assert_eq!(Board::read(&store).cursor(5), 9);
        assert_eq!(Board::read(&store).cursor(6), 0);
        assert_eq!(Board::read(&store).changed(Board::empty().generations()).count(), 0, "cursors are no news");
    }
}
