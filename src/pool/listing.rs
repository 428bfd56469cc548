//! The list of keys from D1, as shared data holds it for all workers.
//!
//! The value belongs to the pool, so that the pool does not depend on [`crate::d1`], which writes it. Each worker
//! builds its roster from it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::Row;
use crate::host::store;
use crate::secret::Secret;

/// The listing's name in shared data.
pub(crate) const LISTING: &str = "one-balance/1/d1-keys";

/// A key of the listing: the provider's slug, the key and its row in D1.
pub type ListedKey = (String, Secret, Row);

/// The listed keys. It has no `Debug`, because it holds them in plain text.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    rows: Vec<(String, Box<str>, Row)>,
}

impl Listing {
    /// Lists these keys.
    pub fn new(keys: impl Iterator<Item = ListedKey>) -> Self {
        Listing { rows: keys.map(|(slug, key, row)| (slug, key.expose().into(), row)).collect() }
    }

    /// Encodes it for shared data.
    pub(crate) fn encode(&self) -> Vec<u8> {
        store::encode(self)
    }

    /// Decodes it; `None` if D1 has not been read yet.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        store::decode(bytes)
    }

    /// Returns the listed keys in D1's order.
    pub(crate) fn into_keys(self) -> Vec<ListedKey> {
        self.rows.into_iter().map(|(slug, key, row)| (slug, Secret::new(key), row)).collect()
    }

    /// Adds keys; they replace those with the same row ids.
    pub(crate) fn add(&mut self, keys: impl Iterator<Item = ListedKey>) {
        let added = Listing::new(keys).rows;
        let ids: BTreeSet<&str> = added.iter().map(|(_, _, row)| row.id.as_str()).collect();
        self.remove(|row| ids.contains(row));
        self.rows.extend(added);
        // As D1 orders them, so that the next read finds no difference.
        self.rows.sort_by(|(_, _, one), (_, _, other)| one.id.cmp(&other.id));
    }

    /// Removes the rows whose ids are `gone`.
    pub(crate) fn remove(&mut self, gone: impl Fn(&str) -> bool) {
        self.rows.retain(|(_, _, row)| !gone(&row.id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listings_survive_the_way_through_bytes() {
        let key = || {
            let row = Row { id: "r".to_owned(), remark: Some("mine".to_owned()) };
            ("openai".to_owned(), Secret::new("k"), row)
        };
        let listing = Listing::decode(&Listing::new([key()].into_iter()).encode()).unwrap();
        assert_eq!(listing.into_keys(), [key()]);
        assert!(Listing::decode(&[]).is_none());
        assert!(Listing::decode(&[9, 9]).is_none());
    }
}
