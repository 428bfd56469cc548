//! The adapter to proxy-wasm: callbacks feed the core and carry out its answers.
//!
//! The filter sits twice in Envoy, from one module in one VM per worker: [`downstream`] in the
//! listener's chain, and [`upstream`] in the clusters', once per attempt of Envoy's own retries. The
//! plugin with `root_id: upstream` is the latter. Both share the VM's one balancer, which the
//! downstream plugin's configuration makes; `vm_id` must be the same for both and differ from that of
//! any other pool in the same Envoy.
//!
//! No callback runs within another, so no `RefCell` is borrowed twice: Envoy sends a local reply, and tells of a
//! call that failed at once, after the callback that asked for it has returned. What would break that is a call
//! through a cluster that has the filter itself.

mod abi;
mod console;
mod downstream;
mod host;
mod metrics;
mod root;
mod upstream;

use std::cell::{Cell, RefCell};
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::rc::Rc;

use proxy_wasm::types::LogLevel;

use crate::balancer::Balancer;
use crate::ticket::Tickets;

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::new(root::Root::new()));
}}

/// The balancer of this VM, for the streams of both placements.
type Shared = Rc<RefCell<Balancer>>;

thread_local! {
    static TICKETS: RefCell<Tickets> = RefCell::default();
    static BALANCER: RefCell<Option<Shared>> = const { RefCell::new(None) };
    static RANDOM: Cell<u64> = Cell::new(RandomState::new().build_hasher().finish() | 1);
}

fn balancer() -> Option<Shared> {
    BALANCER.with(|balancer| balancer.borrow().clone())
}

/// A random number (xorshift64), for choices that need no secrecy.
fn random() -> u64 {
    RANDOM.with(|state| {
        let mut next = state.get();
        next ^= next << 13;
        next ^= next >> 7;
        next ^= next << 17;
        state.set(next);
        next
    })
}
