//! The lease that lets one worker call D1 for all workers of its Envoy.
//!
//! The lease is a value in shared data with a holder and an end. The holder renews it long before the end; if the
//! holder dies, the first worker that looks after the end takes over. It does no harm if two workers believe for a
//! moment that they hold it, because writing the same change to D1 twice has no further effect.

use serde::{Deserialize, Serialize};

use crate::host::store::{self, Store, create, update};
use crate::time::{Span, Time};

const NAME: &str = "one-balance/2/d1-lease";
/// How long a lease lasts. It is shorter than any sensible sync interval, so that a dead holder is replaced within
/// one interval.
const LENGTH: Span = Span::secs(10);
/// The holder renews the lease when less than this is left.
const RENEW: Span = Span::secs(6);

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Held {
    holder: u64,
    until: Time,
}

/// Creates the value without a holder, so that taking the lease is a compare-and-set.
pub fn create_state(store: &dyn Store) {
    create(store, NAME, &store::encode(&None::<Held>));
}

/// Takes or renews the lease for `worker`. Returns whether the worker holds it.
#[must_use]
pub(crate) fn hold(store: &dyn Store, worker: u64, now: Time) -> bool {
    let held = update(store, NAME, |bytes| {
        let held: Option<Held> = store::decode(bytes).flatten();
        // A lease that ends in the far future was taken before a clock stepped back.
        let running = held.filter(|held| held.until > now && now.until(held.until) <= LENGTH);
        match running {
            Some(held) if held.holder != worker => (None, false),
            Some(held) if now.until(held.until) > RENEW => (None, true),
            _ => (Some(store::encode(&Some(Held { holder: worker, until: now.plus(LENGTH) }))), true),
        }
    });
    held == Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::memory::Memory;

    #[test]
    fn one_holds_it_and_the_next_takes_over() {
        let store = Memory::default();
        create_state(&store);
        let at = |secs: u64| Time::from_secs(1000 + secs);
        assert!(hold(&store, 1, at(0)));
        assert!(!hold(&store, 2, at(1)));
        assert!(hold(&store, 1, at(8)), "renewed");
        assert!(!hold(&store, 2, at(17)));
        assert!(hold(&store, 2, at(18)), "the holder has not come back");
        assert!(!hold(&store, 1, at(19)));
        assert!(hold(&store, 1, Time(0)), "the clock stepped back");
    }
}
