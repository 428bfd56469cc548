//! A key of the pool, and the roster of all keys.
//!
//! A key is identified by a hash of its provider and its text ([`KeyId`]) instead of its row in D1 or its
//! position in a list: keys of the configuration have no row, and positions change whenever a key is added. So
//! the state of a key survives reloads, and a key that is in the configuration and in D1 is one key.
//!
//! The [`Roster`] is built anew when the list of keys changes, and never changed in place. Within one roster the
//! position of a key among its provider's keys is fixed, and the same for every worker; [`super::ready`] and
//! [`super::select`] count on that.

use core::hash::{BuildHasherDefault, Hasher};
use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::select::Ring;
use crate::config::Config;
use crate::hash::fnv1a;
use crate::secret::Secret;

/// Identifies a key without revealing it: the first 64 bits of SHA-256 over provider and key. It is the same in
/// every worker, every Envoy and every configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KeyId(pub u64);

impl KeyId {
    /// The id of a provider's key.
    pub(crate) fn of(slug: &str, key: &Secret) -> Self {
        let digest = Sha256::new().chain_update(slug).chain_update([0]).chain_update(key.expose()).finalize();
        KeyId(digest.iter().take(8).fold(0, |id, &byte| id << 8 | u64::from(byte)))
    }

    /// The id as 16 hexadecimal digits. Every answer carries one, and the formatter takes five times as long.
    fn hex(self) -> String {
        let digits: [u8; 16] = core::array::from_fn(|index| {
            let digit = (self.0 >> (60 - 4 * index)) as u8 & 15;
            digit + if digit < 10 { b'0' } else { b'a' - 10 }
        });
        core::str::from_utf8(&digits).unwrap_or_default().to_owned()
    }
}

impl core::fmt::Display for KeyId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(&self.hex())
    }
}

/// A key of the pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The hash that identifies the key.
    pub id: KeyId,
    /// The text that the provider gets.
    pub secret: Secret,
    /// The key's row in D1, if it has one.
    pub row: Option<Row>,
}

/// What D1 stores about a key besides its state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// `keys.id`, a UUID.
    pub id: String,
    /// `keys.remark`.
    pub remark: Option<String>,
}

impl Key {
    /// The id in logs, metrics and answers: that of the key's row, which people can find in the Worker's
    /// pages; otherwise [`Key::id`].
    pub(crate) fn shown_id(&self) -> String {
        self.row.as_ref().map_or_else(|| self.id.hex(), |row| row.id.clone())
    }
}

/// All keys by provider, in an order that is the same for every worker.
#[derive(Debug, Default)]
pub struct Roster {
    /// Sorted by slug.
    groups: Vec<Group>,
    /// The index of each key's group, and the position of the key in it.
    positions: HashMap<KeyId, (u32, u32), BuildHasherDefault<IdentityHasher>>,
}

/// The keys of one provider.
#[derive(Debug)]
pub struct Group {
    slug: String,
    /// In the order of the configuration, then that of D1.
    pub keys: Vec<Key>,
    /// The turns of the keys.
    pub ring: Ring,
}

impl Roster {
    /// A roster of the configuration's keys and D1's rows. A key that is in both becomes one key with a row.
    pub fn new(config: &Config, rows: Vec<(String, Secret, Row)>) -> Self {
        let configured = config.upstreams.iter().filter(|(_, upstream)| !upstream.keys.is_empty());
        let slugs: BTreeSet<&String> = configured.map(|(slug, _)| slug).chain(rows.iter().map(|row| &row.0)).collect();
        let group = |slug: &String| Group { slug: slug.clone(), keys: Vec::new(), ring: Ring::EMPTY };
        let mut roster = Roster { groups: slugs.into_iter().map(group).collect(), ..Roster::default() };
        for (slug, upstream) in &config.upstreams {
            for secret in &upstream.keys {
                roster.add(slug, secret.clone(), None);
            }
        }
        for (slug, secret, row) in rows {
            roster.add(&slug, secret, Some(row));
        }
        for group in &mut roster.groups {
            let weights = config.upstreams.get(&group.slug).map(|upstream| &upstream.weights);
            let weight = |key: &Key| weights.and_then(|weights| weights.get(&key.shown_id())).copied().unwrap_or(1);
            group.ring = Ring::new(&group.keys.iter().map(weight).collect::<Vec<_>>());
        }
        roster
    }

    fn add(&mut self, slug: &str, secret: Secret, row: Option<Row>) {
        let id = KeyId::of(slug, &secret);
        let Some(group) = self.group_index(slug) else { return };
        let Some(Group { keys, .. }) = self.groups.get_mut(group) else { return };
        match self.positions.get(&id).and_then(|&(_, position)| keys.get_mut(position as usize)) {
            Some(key) => key.row = row.or(key.row.take()),
            None => {
                self.positions.insert(id, (group as u32, keys.len() as u32));
                keys.push(Key { id, secret, row });
            }
        }
    }

    /// The index of a provider's group, for [`Self::group`] of the same roster.
    pub(crate) fn group_index(&self, slug: &str) -> Option<usize> {
        self.groups.binary_search_by(|group| group.slug.as_str().cmp(slug)).ok()
    }

    /// The group at an index; an empty group for `None`.
    pub(crate) fn group(&self, index: Option<usize>) -> &Group {
        static EMPTY: Group = Group { slug: String::new(), keys: Vec::new(), ring: Ring::EMPTY };
        index.and_then(|index| self.groups.get(index)).unwrap_or(&EMPTY)
    }

    /// The keys of a provider; empty if it has none.
    pub fn keys(&self, slug: &str) -> &[Key] {
        &self.group(self.group_index(slug)).keys
    }

    /// The slugs of the providers that have keys, with the keys.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &[Key])> {
        self.groups.iter().map(|group| (group.slug.as_str(), group.keys.as_slice()))
    }

    /// The slug of a key's provider, and the key's position among that provider's keys.
    pub(crate) fn position(&self, id: KeyId) -> Option<(&str, u32)> {
        let (group, position) = *self.positions.get(&id)?;
        self.groups.get(group as usize).map(|group| (group.slug.as_str(), position))
    }

    /// Finds a key by its id.
    pub(crate) fn key(&self, id: KeyId) -> Option<&Key> {
        let (group, position) = *self.positions.get(&id)?;
        self.groups.get(group as usize)?.keys.get(position as usize)
    }
}

/// Hashes a [`KeyId`] to itself: it is a hash already, and no client can choose it.
#[derive(Default)]
struct IdentityHasher(u64);

impl Hasher for IdentityHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = fnv1a(bytes.iter().copied());
    }

    fn write_u64(&mut self, id: u64) {
        self.0 = id;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_tell_providers_and_keys_apart() {
        let id = |slug, key| KeyId::of(slug, &Secret::new(key));
        // printf 'openai\0sk-1' | sha256sum
        assert_eq!(id("openai", "sk-1").to_string(), "08f28bcaf8eda80b");
        assert_eq!(id("openai", "sk-1").hex(), "08f28bcaf8eda80b");
        assert_ne!(id("openai", "sk-1"), id("groq", "sk-1"));
        assert_ne!(id("openai", "sk-1"), id("openai", "sk-2"));
    }

    #[test]
    fn a_key_in_both_places_is_one_key() {
        let env = |name: &str| match name {
            "AUTH_KEY" => Some("a".to_owned()),
            "PROVIDER_KEYS" => Some("openai=k1,k2".to_owned()),
            _ => None,
        };
        let config = Config::parse(b"", env).unwrap();
        let row = |id: &str| Row { id: id.to_owned(), remark: None };
        let rows = vec![
            ("openai".to_owned(), Secret::new("k2"), row("r2")),
            ("openai".to_owned(), Secret::new("k3"), row("r3")),
        ];
        let roster = Roster::new(&config, rows);
        let shown: Vec<_> = roster.keys("openai").iter().map(Key::shown_id).collect();
        assert_eq!(shown, [KeyId::of("openai", &Secret::new("k1")).to_string(), "r2".to_owned(), "r3".to_owned()]);
        assert_eq!(roster.position(KeyId::of("openai", &Secret::new("k3"))), Some(("openai", 2)));
        assert!(roster.keys("groq").is_empty());
    }
}
