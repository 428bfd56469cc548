//! Who wins: what D1 says against what was learned here.
//!
//! What D1 has not acknowledged lies over what it says. Once it has, D1 is the truth, so that a
//! person who re-activates a key or clears a cooldown in the Worker's pages is obeyed; but only a
//! read that began after the acknowledgement counts, for an older one may not show the write yet.

use std::collections::BTreeMap;

use crate::pool::record::{Block, Pause, Reason, Record, Sync, Trial};
use crate::time::Time;

/// Brings a record in line with its row, as read from `started` on.
pub fn merge(record: &mut Record, blocked: bool, coolings: &BTreeMap<String, Time>, started: Time, now: Time) {
    match record.blocked {
        None if blocked => record.blocked = Some(Block { since: now, sync: Sync::Acknowledged(now) }),
        Some(block) if !blocked && block.sync.yields_to(started) => record.blocked = None,
        _ => {}
    }
    for state in &mut record.models {
        let remote = coolings.get(&state.model).copied().unwrap_or_default();
        if let Some(cooling) = state.cooling
            && cooling.sync.yields_to(started)
            && remote < cooling.until
        {
            // Somebody has cleared or shortened it.
            state.cooling = (remote > now).then_some(Pause { until: remote, ..cooling });
        }
    }
    for (model, &until) in coolings.iter().filter(|(_, until)| **until > now) {
        let known = record.model(model).and_then(|state| state.cooling).map(|cooling| cooling.until);
        if known.is_none_or(|known| known < until) {
            let sync = Sync::Acknowledged(now);
            record.cool(model, Pause { from: now, until, reason: Reason::Remote, trial: Trial::Believed, sync });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::record::NEVER;

    fn cooled(until: u64, sync: Sync) -> Record {
        let mut record = Record::default();
        let (from, until) = (Time(0), Time(until));
        record.cool("m", Pause { from, until, reason: Reason::RateLimit, trial: Trial::Believed, sync });
        record
    }

    fn merged(mut record: Record, blocked: bool, end: u64, started: u64) -> Time {
        let coolings = if end == 0 { BTreeMap::new() } else { BTreeMap::from([("m".to_owned(), Time(end))]) };
        merge(&mut record, blocked, &coolings, Time(started), Time(100));
        record.available_from("m")
    }

    #[test]
    fn cooldowns() {
        let (pending, old, new) = (Sync::Pending(Time(0)), Sync::Acknowledged(Time(10)), Sync::Acknowledged(Time(60)));
        for (sync, end, expected, why) in [
            (pending, 0, 500, "not sent yet"),
            (old, 0, 0, "a person has cleared it"),
            (old, 300, 300, "a person has shortened it"),
            (old, 90, 0, "and it is over"),
            (old, 500, 500, "as we know it"),
            (old, 900, 900, "somebody else found a longer one"),
            (pending, 900, 900, "the longer one stands"),
            (new, 0, 500, "the read began before the acknowledgement"),
            (Sync::Local, 0, 500, "not D1's business"),
        ] {
            assert_eq!(merged(cooled(500, sync), false, end, 50), Time(expected), "{why}");
        }
        assert_eq!(merged(Record::default(), false, 700, 50), Time(700), "the Worker found out");
        assert_eq!(merged(Record::default(), false, 90, 50), Time(0), "over already");
    }

    #[test]
    fn blocks() {
        let blocked = |sync| Record { blocked: Some(Block { since: Time(0), sync }), ..Record::default() };
        for (record, remote, expected, why) in [
            (Record::default(), true, NEVER, "blocked in D1"),
            (blocked(Sync::Pending(Time(0))), false, NEVER, "a stale read never unblocks"),
            (blocked(Sync::Acknowledged(Time(60))), false, NEVER, "nor one that began before the acknowledgement"),
            (blocked(Sync::Acknowledged(Time(10))), false, Time(0), "a person has re-activated it"),
            (blocked(Sync::Acknowledged(Time(10))), true, NEVER, "as we know it"),
            (blocked(Sync::Local), false, NEVER, "not D1's key"),
        ] {
            assert_eq!(merged(record, remote, 0, 50), expected, "{why}");
        }
    }
}
