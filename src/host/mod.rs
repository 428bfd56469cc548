//! What the core needs from whoever hosts it, and holds once: shared data, the time and randomness.
//!
//! The core itself reads no clock and no environment and has no source of randomness, so the same code
//! runs in Envoy, natively in tests and in a simulation at any moment. Whatever hosts it makes one [`Host`]
//! for each worker; [`crate::balancer::Balancer`], [`crate::pool::Pool`] and [`crate::d1::Syncer`] keep a
//! reference, in place of three parameters on every function.
//!
//! [`crate::filter::Stream`] is the other half of a host: the HTTP stream that a callback is about.

#[cfg(any(test, feature = "testing"))]
pub mod memory;
pub mod store;

use std::fmt;

use crate::time::Time;
pub use store::Store;

/// A worker's surroundings.
pub trait Host: Store {
    /// The wall clock. Within one callback it returns the same moment, so that all conclusions from one
    /// answer agree; a host that charges for reading its clock is charged once, and only if somebody reads.
    fn now(&self) -> Time;

    /// A random number, for choices that need no secrecy.
    fn random(&self) -> u64;
}

impl fmt::Debug for dyn Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Host")
    }
}
