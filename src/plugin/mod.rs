//! The adapter to proxy-wasm: callbacks feed the core and carry out its answers.
//!
//! The filter sits twice in Envoy, from one module in one VM per worker: [`downstream`] in the
//! listener's chain, and [`upstream`] in the clusters', once per attempt of Envoy's own retries. The
//! plugin with `root_id: upstream` is the latter. Both share the VM's one balancer, which the
//! downstream plugin's configuration makes; `vm_id` must be the same for both and differ from that of
//! any other pool in the same Envoy.

mod downstream;
mod host;
mod upstream;

use std::cell::{Cell, RefCell};
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::rc::Rc;

use log::{error, info};
use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{BufferType, ContextType, LogLevel};

use crate::balancer::Balancer;
use crate::config::Config;
use crate::pool;

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::new(Root { placement: Placement::Downstream }));
}}

/// The balancer of this VM, for the streams of both placements.
type Shared = Rc<RefCell<Balancer>>;

thread_local! {
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

/// Where in Envoy a plugin sits.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Placement {
    Downstream,
    Upstream,
}

struct Root {
    placement: Placement,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, size: usize) -> bool {
        let root_id = hostcalls::get_property(vec!["plugin_root_id"]).ok().flatten();
        if root_id.as_deref() == Some(b"upstream") {
            self.placement = Placement::Upstream;
            return true;
        }
        let json = host::body(BufferType::PluginConfiguration, size);
        match Config::parse(&json, |name| std::env::var(name).ok()) {
            Ok(config) => {
                pool::create_state(&host::SharedData);
                info!("configured: {}", config.summary());
                let balancer = Rc::new(RefCell::new(Balancer::new(Rc::new(config))));
                BALANCER.with(|slot| *slot.borrow_mut() = Some(balancer));
                true
            }
            Err(problems) => {
                problems.iter().for_each(|problem| error!("configuration: {problem}"));
                false
            }
        }
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(match self.placement {
            Placement::Downstream => Box::new(downstream::Downstream::new(balancer())),
            Placement::Upstream => Box::new(upstream::Upstream::new(balancer())),
        })
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}
