//! The indexes that a worker keeps: one for each model that was asked for lately.
//!
//! Models are named by clients, so there is room for few; the one used longest ago goes.

use super::key::Roster;
use super::ready::ReadyKeys;
use super::record_pages::Page;
use crate::hash::fnv1a;
use crate::time::Time;

/// How many (provider, model) pairs have an index.
const MAX_INDEXES: usize = 64;

/// ModelIndexes by provider and model, the most recently used last.
#[derive(Debug, Default)]
pub struct ModelIndexes(Vec<ModelIndex>);

/// The index of a model.
#[derive(Debug)]
pub struct ModelIndex {
    slug: String,
    model: String,
    /// The model's cursor on the board. Cursors are shared by hash, the same in every worker.
    pub cursor: usize,
    /// The number of the provider's group in the roster.
    pub group: Option<usize>,
    /// Its keys.
    pub index: ReadyKeys,
}

impl ModelIndexes {
    /// The index of a model, made from what is known of the keys if there is none.
    pub fn get(&mut self, slug: &str, model: &str, roster: &Roster, pages: &[Page], now: Time) -> &mut ModelIndex {
        match self.0.iter().rposition(|entry| entry.model == model && entry.slug == slug) {
            Some(place) if place + 1 == self.0.len() => {}
            Some(place) => {
                let entry = self.0.remove(place);
                self.0.push(entry);
            }
            None => self.build(slug, model, roster, pages, now),
        }
        let last = self.0.len() - 1;
        #[expect(clippy::indexing_slicing, reason = "it was found or made above")]
        &mut self.0[last]
    }

    #[cold]
    fn build(&mut self, slug: &str, model: &str, roster: &Roster, pages: &[Page], now: Time) {
        if self.0.len() >= MAX_INDEXES {
            self.0.remove(0);
        }
        let group = roster.number(slug);
        let mut index = ReadyKeys::new(roster.group(group).keys.len());
        for (id, record) in pages.iter().flatten() {
            if let Some((_, place)) = roster.place(*id).filter(|(other, _)| *other == slug) {
                index.set(place, record.available_from(model), now);
            }
        }
        let cursor = fnv1a(slug.bytes().chain([0]).chain(model.bytes())) as usize;
        self.0.push(ModelIndex { slug: slug.to_owned(), model: model.to_owned(), cursor, group, index });
    }

    /// The indexes of a provider, with their models.
    pub fn of<'a>(&'a mut self, slug: &'a str) -> impl Iterator<Item = (&'a str, &'a mut ReadyKeys)> {
        let entries = self.0.iter_mut().filter(move |entry| entry.slug == slug);
        entries.map(|entry| (entry.model.as_str(), &mut entry.index))
    }

    /// Forgets all of them, for the places of the keys have changed.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounded() {
        let (mut indexes, roster) = (ModelIndexes::default(), Roster::default());
        let models: Vec<String> = (0..=MAX_INDEXES).map(|number| format!("m{number}")).collect();
        let (first, others) = models.split_first().unwrap();
        for model in others {
            for model in [first, model] {
                indexes.get("s", model, &roster, &[], Time(0));
            }
        }
        let mut kept: Vec<&str> = indexes.of("s").map(|(model, _)| model).collect();
        assert_eq!(kept.len(), MAX_INDEXES);
        kept.retain(|model| ["m0", "m1"].contains(model));
        assert_eq!(kept, ["m0"], "it was used between the others");
    }
}
