//! One worker talks to D1 for all of its Envoy: who holds the lease.
//!
//! The lease is a value in shared data with a holder and an end. Its holder renews it long before
//! the end; when it dies, the first worker to look after the end takes over. Two workers that both
//! believe to hold it for a moment do no harm, for what is written to D1 adds nothing the second time.

use serde::{Deserialize, Serialize};

use crate::host::store::{Store, create, update};
use crate::time::{Span, Time};

const NAME: &str = "one-balance/1/d1-lease";
/// How long a lease lasts. Shorter than any sync interval that makes sense, so that a dead holder
/// is replaced within one.
const LENGTH: Span = Span::secs(10);
/// A holder renews when less than this is left.
const RENEW: Span = Span::secs(6);

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Held {
    holder: u64,
    until: Time,
}

/// Makes sure that the value is there, so that taking the lease is a compare-and-set.
pub fn create_state(store: &dyn Store) {
    create(store, NAME, &encode(Held::default()));
}

/// Takes or renews the lease for `worker`; whether it holds it.
pub fn hold(store: &dyn Store, worker: u64, now: Time) -> bool {
    let held = update(store, NAME, |bytes| {
        let held: Held = postcard::from_bytes(bytes).unwrap_or_default();
        // A lease that ends in the far future is from before a clock stepped back.
        let running = held.until > now && now.until(held.until) <= LENGTH;
        match (running, held.holder == worker) {
            (true, false) => (None, false),
            (true, true) if now.until(held.until) > RENEW => (None, true),
            _ => (Some(encode(Held { holder: worker, until: now.plus(LENGTH) })), true),
        }
    });
    held == Some(true)
}

fn encode(held: Held) -> Vec<u8> {
    postcard::to_allocvec(&held).unwrap_or_default()
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
