//! Merges a row of D1 with what was learned here.
//!
//! Local changes override D1 until D1 acknowledges them. From then on D1 is authoritative, so that a key that a
//! person re-activates or a cooling that a person clears in the Worker's pages takes effect here. Only a read that
//! began after the acknowledgement counts, because an older one may not include the write.

use std::collections::BTreeMap;

use crate::pool::record::{Block, Pause, Reason, Record, SyncState, Trial};
use crate::time::Time;

/// Updates a record from its row, in a read that began at `started`.
pub(crate) fn merge(record: &mut Record, blocked: bool, coolings: &BTreeMap<String, Time>, started: Time, now: Time) {
    match record.blocked {
        None if blocked => record.blocked = Some(Block { since: now, sync: SyncState::Acknowledged(now) }),
        Some(block) if !blocked && block.sync.yields_to(started) => record.blocked = None,
        // It was learned before the key had a row. It still has to be sent, unless D1 has it.
        Some(Block { since, sync: SyncState::Local }) => {
            let sync = if blocked { SyncState::Acknowledged(now) } else { SyncState::Pending(now) };
            record.blocked = Some(Block { since, sync });
        }
        _ => {}
    }
    for state in &mut record.models {
        let remote = coolings.get(&state.model).copied().unwrap_or_default();
        if let Some(cooling) = state.cooling
            && cooling.sync.yields_to(started)
            && remote < cooling.until
        {
            // Somebody cleared or shortened it.
            state.cooling = (remote > now).then_some(Pause { until: remote, ..cooling });
        }
    }
    for (model, &until) in coolings.iter().filter(|(_, until)| **until > now) {
        let known = record.model(model).and_then(|state| state.cooling).map(|cooling| cooling.until);
        // D1 stores full seconds: our own end comes back rounded up, which is not a change.
        if known.is_none_or(|known| Time::from_secs(known.as_secs_up()) < until) {
            let sync = SyncState::Acknowledged(now);
            record.cool(model, Pause { from: now, until, reason: Reason::Remote, trial: Trial::Believed, sync });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::record::NEVER;

    fn at(secs: u64) -> Time {
        Time::from_secs(secs)
    }

    fn cooled(until: u64, sync: SyncState) -> Record {
        let mut record = Record::default();
        let (from, until) = (at(0), at(until));
        record.cool("m", Pause { from, until, reason: Reason::RateLimit, trial: Trial::Believed, sync });
        record
    }

    fn merged(mut record: Record, blocked: bool, end: u64, started: u64) -> Time {
        let coolings = if end == 0 { BTreeMap::new() } else { BTreeMap::from([("m".to_owned(), at(end))]) };
        merge(&mut record, blocked, &coolings, at(started), at(100));
        record.available_from("m")
    }

    #[test]
    fn cooldowns() {
        let (pending, old, new) =
            (SyncState::Pending(at(0)), SyncState::Acknowledged(at(10)), SyncState::Acknowledged(at(60)));
        for (sync, end, expected, why) in [
            (pending, 0, 500, "it has not been sent yet"),
            (old, 0, 0, "a person has cleared it"),
            (old, 300, 300, "a person has shortened it"),
            (old, 90, 0, "a person has shortened it, and it has ended"),
            (old, 500, 500, "D1 has what we have"),
            (old, 900, 900, "another Envoy found a longer one"),
            (pending, 900, 900, "the longer one is kept"),
            (new, 0, 500, "the read began before the acknowledgement"),
            (SyncState::Local, 0, 500, "it is never sent to D1"),
        ] {
            assert_eq!(merged(cooled(500, sync), false, end, 50), at(expected), "{why}");
        }
        assert_eq!(merged(Record::default(), false, 700, 50), at(700), "the Worker found it");
        assert_eq!(merged(Record::default(), false, 90, 50), at(0), "it has ended already");
    }

    #[test]
    fn blocks() {
        let blocked = |sync| Record { blocked: Some(Block { since: at(0), sync }), ..Record::default() };
        for (record, remote, expected, why) in [
            (Record::default(), true, NEVER, "blocked in D1"),
            (blocked(SyncState::Pending(at(0))), false, NEVER, "a stale read never unblocks"),
            (blocked(SyncState::Acknowledged(at(60))), false, NEVER, "nor one that began before the acknowledgement"),
            (blocked(SyncState::Acknowledged(at(10))), false, at(0), "a person has re-activated it"),
            (blocked(SyncState::Acknowledged(at(10))), true, NEVER, "D1 has what we have"),
            (blocked(SyncState::Local), false, NEVER, "learned before it had a row"),
        ] {
            assert_eq!(merged(record, remote, 0, 50), expected, "{why}");
        }
    }

    #[test]
    fn our_own_end_comes_back_in_full_seconds() {
        let mut record = Record::default();
        let until = Time(500_001);
        let pause = Pause {
            from: at(0),
            until,
            reason: Reason::Unstated,
            trial: Trial::Needed,
            sync: SyncState::Acknowledged(at(10)),
        };
        record.cool("m", pause);
        let before = record.clone();
        merge(&mut record, false, &BTreeMap::from([("m".to_owned(), at(501))]), at(50), at(100));
        assert_eq!(record, before, "one request still goes first");
    }

    #[test]
    fn a_block_from_before_the_row_is_handed_over() {
        for (remote, then, why) in [
            (false, SyncState::Pending(at(100)), "it has to be sent to D1"),
            (true, SyncState::Acknowledged(at(100)), "a re-activation there takes effect"),
        ] {
            let mut record =
                Record { blocked: Some(Block { since: at(0), sync: SyncState::Local }), ..Record::default() };
            merge(&mut record, remote, &BTreeMap::new(), at(50), at(100));
            assert_eq!(record.blocked, Some(Block { since: at(0), sync: then }), "{why}");
        }
    }
}
