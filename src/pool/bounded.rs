//! Short lists in which an entry is found, or else added.
//!
//! The lists are kept in shared data, so they are plain vectors: they are encoded as they are, and a linear search
//! of some dozens of entries costs less than decoding a map.

/// Removes the entry with the lowest rank if a list is full.
pub(super) fn make_room<T, R: Ord>(list: &mut Vec<T>, most: usize, rank: impl Fn(&T) -> R) {
    if list.len() < most {
        return;
    }
    let lowest = list.iter().enumerate().min_by_key(|(_, entry)| rank(entry));
    if let Some(index) = lowest.map(|(index, _)| index) {
        list.swap_remove(index);
    }
}

/// The first entry that matches, or a new one at the end of the list.
pub(super) fn find_or_push<T>(list: &mut Vec<T>, matches: impl Fn(&T) -> bool, new: impl FnOnce() -> T) -> &mut T {
    let index = list.iter().position(matches).unwrap_or_else(|| {
        list.push(new());
        list.len() - 1
    });
    #[expect(clippy::indexing_slicing, reason = "the entry was found or added above")]
    &mut list[index]
}
