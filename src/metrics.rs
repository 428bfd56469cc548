//! The names of all metrics. Envoy shows them as `wasmcustom.{name}`.
//!
//! They are defined at configure time: the host keeps every name for good, so none is made per
//! request, and none contains a client's words.

use crate::d1::Status;
use crate::d1::api::Failure;
use crate::time::Time;

/// Gauges of the sync with D1, in the order of [`d1_values`].
pub const D1_GAUGES: [&str; 10] = [
    // 1 once D1's keys are in the pool.
    "one_balance.d1.loaded",
    // Seconds since the snapshot in force was read.
    "one_balance.d1.snapshot_age_seconds",
    // Blocks and cooldowns that wait to be written.
    "one_balance.d1.outbox",
    // 1 while the last call has failed for this reason.
    "one_balance.d1.failure.unreachable",
    "one_balance.d1.failure.token",
    "one_balance.d1.failure.database",
    "one_balance.d1.failure.rate_limited",
    "one_balance.d1.failure.server",
    "one_balance.d1.failure.statement",
    "one_balance.d1.failure.garbled",
];

const FAILURES: [Failure; 7] = [
    Failure::Unreachable,
    Failure::Token,
    Failure::Database,
    Failure::RateLimited,
    Failure::Server,
    Failure::Statement,
    Failure::Garbled,
];

/// The values of [`D1_GAUGES`].
pub fn d1_values(status: &Status, now: Time) -> impl Iterator<Item = u64> {
    let loaded = status.snapshot != Time(0);
    let age = if loaded { status.snapshot.until(now).0 / 1000 } else { 0 };
    let failure = status.failure;
    let failures = FAILURES.into_iter().map(move |class| u64::from(failure == Some(class)));
    [u64::from(loaded), age, u64::from(status.outbox)].into_iter().chain(failures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stand_at_their_names() {
        let status = Status { snapshot: Time::from_secs(100), outbox: 7, failure: Some(Failure::RateLimited) };
        let values: Vec<u64> = d1_values(&status, Time::from_secs(142)).collect();
        let named: Vec<_> = D1_GAUGES.iter().zip(&values).filter(|(_, value)| **value > 0).collect();
        let name = |suffix| D1_GAUGES.iter().find(|name| name.ends_with(suffix)).unwrap();
        assert_eq!(
            named,
            [(name("loaded"), &1), (name("age_seconds"), &42), (name("outbox"), &7), (name("rate_limited"), &1)]
        );
        assert_eq!(values.len(), D1_GAUGES.len());
        for (class, gauge) in FAILURES.iter().zip(D1_GAUGES.iter().skip(3)) {
            assert_eq!(*gauge, format!("one_balance.d1.failure.{}", class.name()));
        }
        assert_eq!(d1_values(&Status::default(), Time::from_secs(142)).sum::<u64>(), 0);
    }
}
