//! What was learned here and D1 does not know yet.
//!
//! The outbox is a mark on the pool's records and not a queue: it is bounded by keys and models,
//! several changes of one cooldown are one, and nothing is lost while D1 is away.

use super::api::{self, Statement};
use crate::pool::record::{Record, SyncState};
use crate::pool::{KeyId, Pool};
use crate::time::{Span, Time};

/// Cooldowns wait this long for others to go with them; blocks do not wait.
pub const COALESCE: Span = Span::secs(3);
/// Statements to a call.
const BATCH: usize = 250;

/// Something to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A blocked key.
    Block(KeyId),
    /// A cooldown.
    Cool {
        /// The key.
        id: KeyId,
        /// The model.
        model: String,
        /// When it began.
        from: Time,
        /// When it ends.
        until: Time,
    },
}

/// What waits.
#[derive(Debug, Default)]
pub struct Outbox {
    items: Vec<Item>,
    urgent: bool,
}

impl Outbox {
    /// Collects the marks of all keys that have a row.
    pub fn collect(pool: &Pool, now: Time) -> Self {
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

    /// How much waits.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The next call's worth, if it is time to send.
    pub fn batch(mut self) -> Option<Vec<Item>> {
        // Blocks go first.
        self.items.sort_by_key(|item| matches!(item, Item::Cool { .. }));
        self.items.truncate(BATCH);
        (self.urgent && !self.items.is_empty()).then_some(self.items)
    }
}

/// The statements that write the items; none for keys that have left D1 meanwhile.
pub fn statements(items: &[Item], pool: &Pool) -> Vec<Statement> {
    let row = |id: &KeyId| pool.roster().key(*id).and_then(|key| key.row.as_ref()).map(|row| row.id.as_str());
    let statement = |item: &Item| match item {
        Item::Block(id) => row(id).map(api::block),
        Item::Cool { id, model, from, until } => {
            row(id).map(|row| api::cool(row, model, from.as_secs(), until.as_secs_up()))
        }
    };
    items.iter().filter_map(statement).collect()
}

/// The statements that take back what an operator has ended while it was on its way to D1, where it
/// may have come after the operator's own.
pub fn undo(items: &[Item], pool: &Pool) -> Vec<Statement> {
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

/// Marks what D1 has acknowledged, unless it has changed again since it was sent.
pub fn acknowledge(record: &mut Record, item: &Item, now: Time) {
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
    /// The key it is about.
    pub fn id(&self) -> KeyId {
        match self {
            Item::Block(id) | Item::Cool { id, .. } => *id,
        }
    }
}
