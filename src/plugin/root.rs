//! The root context: it reads the configuration, creates the balancer, and drives metrics and the sync with D1.
//!
//! Who owns which balancer: every accepted configuration creates a balancer. The root that read the configuration keeps
//! it ([`Root::balancer`]), and it becomes the VM's balancer ([`BALANCER`]), which new streams use. When Envoy reloads
//! the configuration, it creates a new root in the same VM, whose balancer replaces the VM's one. The old root and its
//! balancer live until their last stream has ended:
//!
//! ```text
//! old root ──▶ old balancer ◀── streams that began before the reload
//! new root ──▶ new balancer ◀── BALANCER ◀── new streams
//! ```
//!
//! At each tick both roots report what their balancers have counted. Only the root whose balancer is the VM's one sets
//! gauges and talks to D1 ([`Root::current`]), so that the old configuration cannot overwrite the new one's state. A
//! configuration that is refused leaves the VM's balancer as it was.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use log::{error, info, warn};
use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{BufferType, ContextType};

use super::downstream::DownstreamContext;
use super::metrics::Metrics;
use super::upstream::UpstreamContext;
use super::{BALANCER, balancer, d1 as calls, host};
use crate::balancer::Balancer;
use crate::config::Config;
use crate::d1::{self, Answer, Call, Syncer};
use crate::filter::SharedBalancer;
use crate::host::Host;
use crate::pool;

/// How often metrics are reported, and the sync checks what is due.
const TICK: Duration = Duration::from_millis(500);

/// The filter chain that a plugin belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Placement {
    Downstream,
    Upstream,
}

/// The root context of a plugin.
pub struct Root {
    host: Rc<dyn Host>,
    placement: Placement,
    syncer: Option<Syncer>,
    /// The configuration, if it has D1.
    d1: Option<Rc<Config>>,
    /// The token of the call under way. Answers to other calls are late and ignored.
    under_way: Option<u32>,
    /// The balancer of this root's configuration; `None` for the upstream plugin, or without a valid configuration.
    balancer: Option<SharedBalancer>,
    metrics: Metrics,
}

impl Root {
    pub fn new(host: Rc<dyn Host>) -> Self {
        Root {
            host,
            placement: Placement::Downstream,
            syncer: None,
            d1: None,
            under_way: None,
            balancer: None,
            metrics: Metrics::default(),
        }
    }

    fn start(&mut self, config: Config) {
        pool::create_state(&*self.host);
        d1::create_state(&*self.host);
        info!("configured: {}", config.summary());
        config.warnings().for_each(|warning| warn!("configuration: {warning}"));
        let config = Rc::new(config);
        if config.d1.is_some() {
            self.syncer = Some(Syncer::new(config.clone(), self.host.clone()));
            self.d1 = Some(config.clone());
        }
        let _ = hostcalls::set_tick_period(TICK);
        let balancer = Balancer::new(config, self.host.clone());
        self.metrics = Metrics::define(&balancer);
        let balancer = Rc::new(RefCell::new(balancer));
        self.balancer = Some(balancer.clone());
        BALANCER.with(|slot| *slot.borrow_mut() = Some(balancer));
    }

    /// This root's balancer, if it is still the VM's balancer.
    fn current(&self) -> Option<SharedBalancer> {
        self.balancer.clone().filter(|own| balancer().is_some_and(|current| Rc::ptr_eq(own, &current)))
    }

    /// Sends a call. A call that cannot be sent counts as one without an answer.
    fn send(&mut self, call: Call) {
        let Some(d1) = self.d1.as_ref().and_then(|config| config.d1.as_ref()) else { return };
        match calls::dispatch(d1, &call) {
            Some(token) => self.under_way = Some(token),
            None => self.answered(&Answer::default()),
        }
    }

    fn answered(&mut self, answer: &Answer) {
        let Some(balancer) = self.current() else { return };
        let Some(syncer) = &mut self.syncer else { return };
        let next = syncer.answered(&mut balancer.borrow_mut().pool, answer);
        if let Some(call) = next {
            self.send(call);
        }
    }
}

impl Context for Root {
    fn on_http_call_response(&mut self, token: u32, headers: usize, body_size: usize, _: usize) {
        host::begin_callback();
        if self.under_way != Some(token) {
            return;
        }
        self.under_way = None;
        calls::receive(headers, body_size, |answer| self.answered(answer));
    }
}

impl RootContext for Root {
    fn on_configure(&mut self, size: usize) -> bool {
        host::begin_callback();
        let root_id = host::root_id();
        if root_id.as_deref() == Some(b"upstream") {
            self.placement = Placement::Upstream;
            return true;
        }
        let json = host::body(BufferType::PluginConfiguration, size);
        #[expect(clippy::disallowed_methods, reason = "the adapter is where the environment is read")]
        let variable = |name: &str| std::env::var(name).ok();
        match Config::parse(&json, variable) {
            Ok(config) => {
                self.start(config);
                true
            }
            Err(problems) => {
                problems.iter().for_each(|problem| error!("configuration: {problem}"));
                false
            }
        }
    }

    fn on_tick(&mut self) {
        host::begin_callback();
        if let Some(own) = &self.balancer {
            self.metrics.count(&own.borrow());
        }
        let Some(balancer) = self.current() else { return };
        self.metrics.measure(&mut balancer.borrow_mut());
        let Some(syncer) = &mut self.syncer else { return };
        syncer.failures().into_iter().for_each(|failure| balancer.borrow().counters.d1_failed(failure));
        let call = syncer.tick(&mut balancer.borrow_mut().pool);
        if let Some(call) = call {
            self.send(call);
        }
    }

    fn create_http_context(&self, context_id: u32) -> Option<Box<dyn HttpContext>> {
        Some(match self.placement {
            Placement::Downstream => Box::new(DownstreamContext::new(context_id)),
            Placement::Upstream => Box::new(UpstreamContext::new(balancer())),
        })
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}
