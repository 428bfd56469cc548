//! Shared data: the one memory that all workers of an Envoy process have in common.
//!
//! It is a map of small values with a compare-and-set number each. There is no lock, so each change
//! is read, changed and written back, and done again if somebody was faster; [`update`] is the only
//! place that does this. Two quirks of the host decide how values come into being: an insert ignores
//! the compare-and-set number, so two first writers would overwrite each other, and a removed value
//! is an empty one. So all values are created once, empty of content but not of bytes, before there
//! is traffic ([`create`]), and none is ever removed.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Access to shared data. Errors of the host look like absent values and lost races: the callers
/// have an answer for both.
pub trait Store {
    /// The value and its compare-and-set number.
    fn get(&self, name: &str) -> Option<(Vec<u8>, u32)>;
    /// Writes if the number is still the same (`None`: in any case). False if it is not.
    fn set(&self, name: &str, value: &[u8], cas: Option<u32>) -> bool;
}

/// The version of everything that is written by [`encode`]; another one counts as unreadable, for state
/// of another version is not worth a trap.
pub const VERSION: u8 = 1;

/// A value's bytes: a version byte, then postcard. Writing to memory cannot fail.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_extend(value, vec![VERSION]).unwrap_or_else(|_| vec![VERSION])
}

/// The value; `None` if it cannot be read.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    bytes.strip_prefix(&[VERSION]).and_then(|rest| postcard::from_bytes(rest).ok())
}

/// How often a lost race is run again. Even with every worker of a large machine writing the same
/// value, the odds of losing this often are nil; a bound keeps a broken host from hanging a worker.
pub const MAX_RACES: usize = 64;

/// Reads a value, lets `change` work on it and writes it back; again while others are faster.
/// `change` returns the new value, or `None` to leave things as they are, and what the caller wants
/// to know. `None` if all races were lost.
pub fn update<T>(store: &dyn Store, name: &str, mut change: impl FnMut(&[u8]) -> (Option<Vec<u8>>, T)) -> Option<T> {
    for _ in 0..MAX_RACES {
        let (value, cas) = store.get(name).map_or((Vec::new(), None), |(value, cas)| (value, Some(cas)));
        let (new, result) = change(&value);
        match new {
            None => return Some(result),
            Some(new) if store.set(name, &new, cas) => return Some(result),
            Some(_) => {}
        }
    }
    None
}

/// Writes the value unless there is one already. The first plugin VM, on the main thread, gets here
/// before any worker exists.
pub fn create(store: &dyn Store, name: &str, value: &[u8]) {
    if store.get(name).is_none_or(|(value, _)| value.is_empty()) {
        store.set(name, value, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::memory::Memory;

    #[test]
    fn update_runs_lost_races_again() {
        let store = Memory::default();
        create(&store, "n", &[1]);
        create(&store, "n", &[9]);
        store.lose.set(3);
        let seen = update(&store, "n", |value| (Some(vec![value[0] + 1]), value[0]));
        assert_eq!((seen, store.get("n").unwrap().0), (Some(1), vec![2]));
        assert_eq!(update(&store, "n", |value| (None, value[0])), Some(2));
        store.lose.set(usize::MAX);
        assert_eq!(update(&store, "n", |_| (Some(vec![0]), ())), None, "it gives up");
    }
}
