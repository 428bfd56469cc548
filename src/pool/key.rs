//! A key of the pool, and the list of them.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::select::Ring;
use crate::config::Config;
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
}

impl core::fmt::Display for KeyId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:016x}", self.0)
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
        self.row.as_ref().map_or_else(|| self.id.to_string(), |row| row.id.clone())
    }
}

/// All keys, by provider, in an order that is the same for every worker.
#[derive(Debug, Default)]
pub struct Roster {
    by_slug: BTreeMap<String, Vec<Key>>,
    rings: BTreeMap<String, Ring>,
    places: HashMap<KeyId, (String, u32)>,
}

impl Roster {
    /// The configuration's keys and D1's together. A key that is in both is one key, with its row.
    #[must_use]
    pub fn new(config: &Config, rows: Vec<(String, Secret, Row)>) -> Self {
        let mut roster = Roster::default();
        for (slug, upstream) in &config.upstreams {
            for secret in &upstream.keys {
                roster.add(slug, secret.clone(), None);
            }
        }
        for (slug, secret, row) in rows {
            roster.add(&slug, secret, Some(row));
        }
        for (slug, keys) in &roster.by_slug {
            let weights = config.upstreams.get(slug).map(|upstream| &upstream.weights);
            let weight = |key: &Key| weights.and_then(|weights| weights.get(&key.shown_id())).copied().unwrap_or(1);
            roster.rings.insert(slug.clone(), Ring::new(&keys.iter().map(weight).collect::<Vec<_>>()));
        }
        roster
    }

    /// The turns of a provider's keys.
    #[must_use]
    pub fn ring(&self, slug: &str) -> &Ring {
        static EMPTY: Ring = Ring::EMPTY;
        self.rings.get(slug).unwrap_or(&EMPTY)
    }

    fn add(&mut self, slug: &str, secret: Secret, row: Option<Row>) {
        let id = KeyId::of(slug, &secret);
        let keys = self.by_slug.entry(slug.to_owned()).or_default();
        match self.places.get(&id).and_then(|&(_, place)| keys.get_mut(place as usize)) {
            Some(key) => key.row = row.or(key.row.take()),
            None => {
                self.places.insert(id, (slug.to_owned(), keys.len() as u32));
                keys.push(Key { id, secret, row });
            }
        }
    }

    /// The keys of a provider.
    #[must_use]
    pub fn keys(&self, slug: &str) -> &[Key] {
        self.by_slug.get(slug).map_or(&[], Vec::as_slice)
    }

    /// The providers that have keys, with their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[Key])> {
        self.by_slug.iter().map(|(slug, keys)| (slug.as_str(), keys.as_slice()))
    }

    /// The provider of a key and its place among that provider's keys.
    #[must_use]
    pub fn place(&self, id: KeyId) -> Option<(&str, u32)> {
        self.places.get(&id).map(|(slug, place)| (slug.as_str(), *place))
    }

    /// A key by its id.
    #[must_use]
    pub fn key(&self, id: KeyId) -> Option<&Key> {
        let (slug, place) = self.place(id)?;
        self.keys(slug).get(place as usize)
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
