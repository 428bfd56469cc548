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
mod d1;
mod downstream;
mod host;
mod metrics;
mod root;
mod upstream;

use std::cell::RefCell;
use std::rc::Rc;

use proxy_wasm::types::{self, LogLevel};

use crate::filter::downstream::SharedInFlight;
use crate::filter::{Action, SharedBalancer};

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::new(root::Root::new(Rc::new(host::Envoy))));
}}

thread_local! {
    static IN_FLIGHT: SharedInFlight = SharedInFlight::default();
    static BALANCER: RefCell<Option<SharedBalancer>> = const { RefCell::new(None) };
}

fn balancer() -> Option<SharedBalancer> {
    BALANCER.with(|balancer| balancer.borrow().clone())
}

fn action(action: Action) -> types::Action {
    match action {
        Action::Continue => types::Action::Continue,
        Action::Pause => types::Action::Pause,
    }
}
