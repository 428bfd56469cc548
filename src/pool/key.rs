//! A key of the pool, and the list of them.

use core::hash::{BuildHasherDefault, Hasher};
use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::select::Ring;
use crate::config::Config;
use crate::hash::fnv1a;
use crate::secret::Secret;

/// Names a key without telling it: the first 64 bits of SHA-256 over provider and key. The same in
/// every worker, Envoy and configuration, so the state of a key survives all of their changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KeyId(pub u64);

impl KeyId {
    /// The id of a provider's key.
    #[must_use]
    pub fn of(slug: &str, key: &Secret) -> Self {
        let digest = Sha256::new().chain_update(slug).chain_update([0]).chain_update(key.expose()).finalize();
        KeyId(digest.iter().take(8).fold(0, |id, &byte| id << 8 | u64::from(byte)))
    }

    /// As it is displayed. Every answer shows one, and the formatter takes five times as long.
    fn hex(self) -> String {
        let digits: [u8; 16] = core::array::from_fn(|place| {
            let digit = (self.0 >> (60 - 4 * place)) as u8 & 15;
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
    /// Names it.
    pub id: KeyId,
    /// The key itself.
    pub secret: Secret,
    /// Its row in D1, if it has one.
    pub row: Option<Row>,
}

/// What D1 says of a key besides its state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// `keys.id`, a UUID.
    pub id: String,
    /// `keys.remark`.
    pub remark: Option<String>,
}

impl Key {
    /// What logs, metrics and answers call it: the id of its row, which people find in the Worker's
    /// pages, or else its own.
    #[must_use]
    pub fn shown_id(&self) -> String {
        self.row.as_ref().map_or_else(|| self.id.hex(), |row| row.id.clone())
    }
}

/// All keys, by provider, in an order that is the same for every worker.
#[derive(Debug, Default)]
pub struct Roster {
    /// In the order of their slugs.
    groups: Vec<Group>,
    /// The group and the place in it of each key.
    places: HashMap<KeyId, (u32, u32), BuildHasherDefault<OfId>>,
}

/// The keys of one provider.
#[derive(Debug)]
pub struct Group {
    slug: String,
    /// The keys.
    pub keys: Vec<Key>,
    /// Their turns.
    pub ring: Ring,
}

impl Roster {
    /// The configuration's keys and D1's together. A key that is in both is one key, with its row.
    #[must_use]
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
        let Some(number) = self.number(slug) else { return };
        let Some(Group { keys, .. }) = self.groups.get_mut(number) else { return };
        match self.places.get(&id).and_then(|&(_, place)| keys.get_mut(place as usize)) {
            Some(key) => key.row = row.or(key.row.take()),
            None => {
                self.places.insert(id, (number as u32, keys.len() as u32));
                keys.push(Key { id, secret, row });
            }
        }
    }

    /// The number of a provider's group; it holds as long as the roster.
    #[must_use]
    pub fn number(&self, slug: &str) -> Option<usize> {
        self.groups.binary_search_by(|group| group.slug.as_str().cmp(slug)).ok()
    }

    /// The group of this number; an empty one if there is none.
    #[must_use]
    pub fn group(&self, number: Option<usize>) -> &Group {
        static EMPTY: Group = Group { slug: String::new(), keys: Vec::new(), ring: Ring::EMPTY };
        number.and_then(|number| self.groups.get(number)).unwrap_or(&EMPTY)
    }

    /// The keys of a provider.
    #[must_use]
    pub fn keys(&self, slug: &str) -> &[Key] {
        &self.group(self.number(slug)).keys
    }

    /// The providers that have keys, with their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[Key])> {
        self.groups.iter().map(|group| (group.slug.as_str(), group.keys.as_slice()))
    }

    /// The provider of a key and its place among that provider's keys.
    #[must_use]
    pub fn place(&self, id: KeyId) -> Option<(&str, u32)> {
        let (number, place) = *self.places.get(&id)?;
        self.groups.get(number as usize).map(|group| (group.slug.as_str(), place))
    }

    /// A key by its id.
    #[must_use]
    pub fn key(&self, id: KeyId) -> Option<&Key> {
        let (number, place) = *self.places.get(&id)?;
        self.groups.get(number as usize)?.keys.get(place as usize)
    }
}

/// The hash of a [`KeyId`], which is one itself and comes from no client.
#[derive(Default)]
struct OfId(u64);

impl Hasher for OfId {
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
        assert_eq!(roster.place(KeyId::of("openai", &Secret::new("k3"))), Some(("openai", 2)));
        assert!(roster.keys("groq").is_empty());
    }
}
