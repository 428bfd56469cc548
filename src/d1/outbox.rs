//! The outbox: changes that were learned here and that D1 does not have yet.
//!
//! The outbox is not a queue but a state of the pool's records ([`SyncState::Pending`]). So it is bounded by the
//! number of keys and models, several changes of one cooling are written once, and nothing is lost while D1 is
//! unavailable.

use super::api::{self, Statement};
use crate::pool::record::{Record, SyncState};
use crate::pool::{KeyId, Pool};
use crate::time::{Span, Time};

/// Coolings wait this long so that several are sent together; blocks do not wait.
pub(crate) const COALESCE: Span = Span::secs(3);
/// The most statements per call.
const BATCH: usize = 250;

/// A change to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A blocked key.
    Block(KeyId),
    /// A cooling.
    Cool {
        /// The key that cools.
        id: KeyId,
        /// The model that it cools for.
        model: String,
        /// When the cooling began.
        from: Time,
        /// When the cooling ends.
        until: Time,
    },
}

/// The changes that wait.
#[derive(Debug, Default)]
pub struct Outbox {
    items: Vec<Item>,
    /// Whether a change has waited long enough.
    urgent: bool,
}

impl Outbox {
    /// Collects the pending changes of all keys that have a row.
    pub(crate) fn collect(pool: &Pool, now: Time) -> Self {
        let mut outbox = Outbox::default();
        for (id, record) in pool.records().filter(|(id, _)| pool.roster().key(*id).is_some_and(|key| key.row.is_some()))
        {
            outbox.add(id, record, now);
        }
        outbox
    }

    fn add(&mut self, id: KeyId, record: &Record, now: Time) {
        if matches!(record.blocked, Some(block) if matches!(block.sync, SyncState::Pending(_))) {
            self.items.push(Item::Block(id));
            self.urgent = true;
        }
        for state in &record.models {
            let Some(cooling) = state.cooling.filter(|cooling| cooling.until > now) else { continue };
            let SyncState::Pending(since) = cooling.sync else { continue };
            self.urgent |= since.plus(COALESCE) <= now;
            self.items.push(Item::Cool { id, model: state.model.clone(), from: cooling.from, until: cooling.until });
        }
    }

    /// The number of changes that wait.
    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    /// The changes of the next call, if it is time to send.
    pub(crate) fn batch(mut self) -> Option<Vec<Item>> {
        // Blocks go first.
        self.items.sort_by_key(|item| matches!(item, Item::Cool { .. }));
        self.items.truncate(BATCH);
        (self.urgent && !self.items.is_empty()).then_some(self.items)
    }
}

/// The statements that write the items. Keys that are no longer in D1 are left out.
pub(crate) fn statements(items: &[Item], pool: &Pool) -> Vec<Statement> {
    let row = |id: &KeyId| pool.roster().key(*id).and_then(|key| key.row.as_ref()).map(|row| row.id.as_str());
    let statement = |item: &Item| match item {
        Item::Block(id) => row(id).map(api::block),
        Item::Cool { id, model, from, until } => {
            row(id).map(|row| api::cool(row, model, from.as_secs(), until.as_secs_up()))
        }
    };
    items.iter().filter_map(statement).collect()
}

/// The statements that revert changes which an operator ended while they were on their way to D1, where they may
/// have been executed after the operator's edit.
pub(crate) fn undo(items: &[Item], pool: &Pool) -> Vec<Statement> {
    let statement = |item: &Item| {
        let row = pool.roster().key(item.id())?.row.as_ref()?;
        let row = serde_json::json!([row.id]).to_string();
        let record = pool.record(item.id());
        match item {
            Item::Block(_) => record.is_none_or(|record| record.blocked.is_none()).then(|| api::activate(&row)),
            Item::Cool { model, until, .. } => {
                let cooling = record.and_then(|record| record.model(model)?.cooling);
                cooling.is_none_or(|cooling| cooling.until < *until).then(|| api::clear(&row, Some(model)))
            }
        }
    };
    items.iter().filter_map(statement).collect()
}

/// Marks a change as acknowledged, unless the record has changed again since it was sent.
pub(crate) fn acknowledge(record: &mut Record, item: &Item, now: Time) {
    match item {
        Item::Block(_) => {
            if let Some(block) = &mut record.blocked {
                block.sync = SyncState::Acknowledged(now);
            }
        }
        Item::Cool { model, until, .. } => {
            let state = record.models.iter_mut().find(|state| state.model == *model);
            if let Some(cooling) = state.and_then(|state| state.cooling.as_mut())
                && cooling.until == *until
            {
                cooling.sync = SyncState::Acknowledged(now);
            }
        }
    }
}

impl Item {
    /// The id of the key that changes.
    pub(crate) fn id(&self) -> KeyId {
        match self {
            Item::Block(id) | Item::Cool { id, .. } => *id,
        }
    }
}
