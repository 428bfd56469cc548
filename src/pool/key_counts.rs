//! The number of keys in each state, for the gauges and the status.

use std::collections::BTreeMap;

use super::Pool;
use super::record::{NEVER, Record};
use crate::time::{Span, Time};

/// The most models of a provider that are considered for [`KeyCounts::recovery`].
const MAX_MODELS: usize = 32;

/// How many keys of a provider are in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyCounts {
    /// See [`KeyState::Ready`].
    pub ready: u64,
    /// See [`KeyState::Cooling`].
    pub cooling: u64,
    /// See [`KeyState::Resting`].
    pub resting: u64,
    /// See [`KeyState::Blocked`].
    pub blocked: u64,
    /// The time until the model that waits longest has a ready key again. `None` if every model has a ready
    /// key, or if all keys are blocked.
    pub recovery: Option<Span>,
}

/// The state of a key over all models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// The key can be used for every model.
    Ready,
    /// The key cools for at least one model.
    Cooling,
    /// The key rests for all models.
    Resting,
    /// The key is blocked.
    Blocked,
}

impl KeyState {
    /// All states, in the order in which metrics and the status name them.
    pub(crate) const ALL: [Self; 4] = [Self::Ready, Self::Cooling, Self::Resting, Self::Blocked];

    /// The name in metrics and the status.
    pub(crate) fn name(self) -> &'static str {
        match self {
            KeyState::Ready => "ready",
            KeyState::Cooling => "cooling",
            KeyState::Resting => "resting",
            KeyState::Blocked => "blocked",
        }
    }
}

impl Record {
    /// The state of the record's key.
    pub(crate) fn state(&self, now: Time) -> KeyState {
        if self.blocked.is_some() {
            KeyState::Blocked
        } else if self.resting.is_some_and(|pause| pause.available_from() > now) {
            KeyState::Resting
        } else if self.models.iter().filter_map(|state| state.cooling).any(|pause| pause.available_from() > now) {
            KeyState::Cooling
        } else {
            KeyState::Ready
        }
    }
}

impl Pool {
    /// The counts of each provider that has keys, as of the last refresh.
    pub(crate) fn key_counts(&self, now: Time) -> BTreeMap<&str, KeyCounts> {
        let mut records: BTreeMap<&str, Vec<&Record>> = BTreeMap::new();
        for (id, record) in self.records() {
            if let Some((slug, _)) = self.roster().position(id) {
                records.entry(slug).or_default().push(record);
            }
        }
        self.roster()
            .iter()
            .map(|(slug, keys)| (slug, count(records.get(slug).map_or(&[], Vec::as_slice), keys.len(), now)))
            .collect()
    }
}

fn count(records: &[&Record], keys: usize, now: Time) -> KeyCounts {
    let mut counts = KeyCounts::default();
    for record in records {
        match record.state(now) {
            KeyState::Ready => {}
            KeyState::Cooling => counts.cooling += 1,
            KeyState::Resting => counts.resting += 1,
            KeyState::Blocked => counts.blocked += 1,
        }
    }
    let unavailable = counts.cooling + counts.resting + counts.blocked;
    counts.ready = (keys as u64).saturating_sub(unavailable);
    // A ready key is ready for every model.
    if counts.ready == 0 && keys > 0 {
        counts.recovery = recovery(records, keys, now);
    }
    counts
}

fn recovery(records: &[&Record], keys: usize, now: Time) -> Option<Span> {
    let mut models: Vec<&str> = Vec::new();
    for state in records.iter().flat_map(|record| &record.models) {
        if models.len() < MAX_MODELS && !models.contains(&state.model.as_str()) {
            models.push(&state.model);
        }
    }
    // A model without a state of its own waits only for keys that rest.
    models.push("");
    let first = |model: &&str| {
        let unavailable = records.iter().map(|record| record.available_from(model)).filter(|from| *from > now);
        let (count, first) = unavailable.fold((0, NEVER), |(count, first), from| (count + 1, first.min(from)));
        (count == keys && first < NEVER).then(|| now.until(first))
    };
    models.iter().filter_map(first).max()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::record::{Block, Pause, Reason, SyncState, Trial};

    const NOW: Time = Time::from_secs(1000);

    fn pause(secs: u64) -> Pause {
        let until = NOW.plus(Span::secs(secs));
        Pause { from: NOW, until, reason: Reason::RateLimit, trial: Trial::Believed, sync: SyncState::Local }
    }

    fn cooling(models: &[(&str, u64)]) -> Record {
        let mut record = Record::default();
        models.iter().for_each(|(model, secs)| record.cool(model, pause(*secs)));
        record
    }

    fn counted(records: &[&Record], keys: usize) -> ([u64; 4], Option<u64>) {
        let KeyCounts { ready, cooling, resting, blocked, recovery } = count(records, keys, NOW);
        ([ready, cooling, resting, blocked], recovery.map(Span::as_secs_up))
    }

    #[test]
    fn states_and_recovery() {
        let blocked = Record { blocked: Some(Block { since: NOW, sync: SyncState::Local }), ..Record::default() };
        let resting = Record { resting: Some(pause(50)), ..cooling(&[("a", 90)]) };
        let (a, b, both) = (cooling(&[("a", 10)]), cooling(&[("b", 20)]), cooling(&[("a", 30), ("b", 40)]));
        let over = cooling(&[("a", 0)]);
        for (records, keys, states, recovery) in [
            (&[][..], 0, [0, 0, 0, 0], None),
            (&[], 3, [3, 0, 0, 0], None),
            (&[&blocked, &over], 2, [1, 0, 0, 1], None),
            (&[&blocked], 1, [0, 0, 0, 1], None),
            (&[&a, &blocked], 3, [1, 1, 0, 1], None),
            (&[&a, &b], 2, [0, 2, 0, 0], None),
            (&[&a, &both], 2, [0, 2, 0, 0], Some(10)),
            (&[&a, &both, &blocked], 3, [0, 2, 0, 1], Some(10)),
            (&[&resting], 1, [0, 0, 1, 0], Some(90)),
            (&[&resting, &b], 2, [0, 1, 1, 0], Some(20)),
        ] {
            assert_eq!(counted(records, keys), (states, recovery), "{records:?} of {keys}");
        }
    }
}
