//! The ready keys of each model that has been requested recently.
//!
//! Clients choose the names of models, so the list is bounded; the least recently used entry is evicted.

use super::key::Roster;
use super::ready::ReadyKeys;
use super::record_pages::Page;
use crate::hash::fnv1a;
use crate::time::Time;

/// The most pairs of provider and model that have an entry.
const MAX_ENTRIES: usize = 64;

/// KeysByModel by provider and model, the most recently used last.
#[derive(Debug, Default)]
pub struct KeysByModel(Vec<ModelKeys>);

/// The keys of a provider as seen by one model.
#[derive(Debug)]
pub struct ModelKeys {
    slug: String,
    model: String,
    /// The model's cursor on the board. Cursors are shared by hash, the same in every worker.
    pub cursor: usize,
    /// The index of the provider's group in the roster.
    pub group: Option<usize>,
    /// Which of the provider's keys can be used for the model.
    pub ready: ReadyKeys,
}

impl KeysByModel {
    /// The entry of a model; it is built from the records if there is none.
    pub(crate) fn get(
        &mut self,
        slug: &str,
        model: &str,
        roster: &Roster,
        pages: &[Page],
        now: Time,
    ) -> &mut ModelKeys {
        match self.0.iter().rposition(|entry| entry.model == model && entry.slug == slug) {
            Some(index) if index + 1 == self.0.len() => {}
            Some(index) => {
                let entry = self.0.remove(index);
                self.0.push(entry);
            }
            None => self.build(slug, model, roster, pages, now),
        }
        let last = self.0.len() - 1;
        #[expect(clippy::indexing_slicing, reason = "the entry was found or added above")]
        &mut self.0[last]
    }

    #[cold]
    fn build(&mut self, slug: &str, model: &str, roster: &Roster, pages: &[Page], now: Time) {
        if self.0.len() >= MAX_ENTRIES {
            self.0.remove(0);
        }
        let group = roster.group_index(slug);
        let mut ready = ReadyKeys::new(roster.group(group).keys.len());
        for (id, record) in pages.iter().flatten() {
            if let Some((_, position)) = roster.position(*id).filter(|(other, _)| *other == slug) {
                ready.set(position, record.available_from(model), now);
            }
        }
        let cursor = fnv1a(slug.bytes().chain([0]).chain(model.bytes())) as usize;
        self.0.push(ModelKeys { slug: slug.to_owned(), model: model.to_owned(), cursor, group, ready });
    }

    /// The ready keys of a provider for each model that has an entry.
    pub(crate) fn of<'a>(&'a mut self, slug: &'a str) -> impl Iterator<Item = (&'a str, &'a mut ReadyKeys)> {
        let entries = self.0.iter_mut().filter(move |entry| entry.slug == slug);
        entries.map(|entry| (entry.model.as_str(), &mut entry.ready))
    }

    /// Removes all entries. Call it when the positions of the keys have changed.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_entry_is_evicted() {
        let (mut by_model, roster) = (KeysByModel::default(), Roster::default());
        let models: Vec<String> = (0..=MAX_ENTRIES).map(|index| format!("m{index}")).collect();
        let (first, others) = models.split_first().unwrap();
        for model in others {
            for model in [first, model] {
                by_model.get("s", model, &roster, &[], Time(0));
            }
        }
        let mut kept: Vec<&str> = by_model.of("s").map(|(model, _)| model).collect();
        assert_eq!(kept.len(), MAX_ENTRIES);
        kept.retain(|model| ["m0", "m1"].contains(model));
        assert_eq!(kept, ["m0"], "it was used between the others");
    }
}
