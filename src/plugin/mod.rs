//! The adapter to proxy-wasm: it passes callbacks to the core and carries out the core's decisions.
//!
//! Envoy contains the filter twice, from one module in one VM per worker: [`downstream`] in the
//! listener's filter chain, and [`upstream`] in the clusters' chains, once per attempt of Envoy's retries. The plugin
//! with `root_id: upstream` is the upstream one. Both share the VM's balancer, which is created from the downstream
//! plugin's configuration. `vm_id` must be the same for both, and differ from that of any other pool in the same
//! Envoy.
//!
//! No callback runs inside another, so no `RefCell` is borrowed twice: Envoy sends a local reply, and reports a call
//! that failed immediately, only after the callback that requested it has returned. A call through a cluster that
//! contains this filter would break this.

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
