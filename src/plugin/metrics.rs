//! The host's side of [`crate::observe::metrics`]: defines the metrics once and reports their values.
//!
//! Each worker reports its own counts, which the host adds up. Each worker also sets the same gauges, which
//! is harmless because all workers compute them from the same shared data.

use proxy_wasm::hostcalls;
use proxy_wasm::types::MetricType;

use crate::balancer::Balancer;
use crate::d1::Status;
use crate::observe::metrics::{d1_gauges, d1_values, key_gauges, key_values};
use crate::time::{Span, Time};

/// How often the keys are counted by state.
const KEY_COUNTS_EVERY: Span = Span::secs(2);

/// The ids that the host gave the metrics; `None` where it refused to define one.
#[derive(Default)]
pub struct Metrics {
    /// In the order of [`crate::observe::metrics::Counters::names`].
    counters: Vec<Option<u32>>,
    /// By provider, each in the order of [`key_gauges`].
    keys: Vec<(String, Vec<Option<u32>>)>,
    /// In the order of [`d1_gauges`]; empty without D1.
    d1: Vec<Option<u32>>,
    /// When the keys are counted next; `None` before the first time.
    next_key_counts: Option<Time>,
}

fn define(kind: MetricType, name: &str) -> Option<u32> {
    hostcalls::define_metric(kind, name).ok()
}

fn record(gauge: Option<&Option<u32>>, value: u64) {
    if let Some(&Some(gauge)) = gauge {
        let _ = hostcalls::record_metric(gauge, value);
    }
}

impl Metrics {
    pub fn define(balancer: &Balancer) -> Self {
        let names = balancer.counters.names();
        let keys = balancer.counters.providers().map(|slug| {
            let gauges = key_gauges(slug).map(|name| define(MetricType::Gauge, &name)).collect();
            (slug.to_owned(), gauges)
        });
        let d1 = balancer.config.d1.is_some().then(d1_gauges).into_iter().flatten();
        Metrics {
            counters: names.iter().map(|name| define(MetricType::Counter, name)).collect(),
            keys: keys.collect(),
            d1: d1.map(|name| define(MetricType::Gauge, &name)).collect(),
            next_key_counts: None,
        }
    }

    /// Reports what this balancer has counted. Call it at each tick.
    pub fn count(&self, balancer: &Balancer) {
        balancer.counters.drain(|index, sum| {
            if let Some(&Some(counter)) = self.counters.get(index) {
                let _ = hostcalls::increment_metric(counter, i64::try_from(sum).unwrap_or(i64::MAX));
            }
        });
    }

    /// Sets the gauges if it is time to. Call it at each tick for the balancer in force.
    pub fn measure(&mut self, balancer: &mut Balancer) {
        let now = balancer.host.now();
        // A time further away was set before the clock stepped back.
        let waits = self.next_key_counts.is_some_and(|next| next > now && next <= now.plus(KEY_COUNTS_EVERY));
        if !waits {
            self.next_key_counts = Some(now.plus(KEY_COUNTS_EVERY));
            self.gauges(balancer);
        }
    }

    fn gauges(&self, balancer: &mut Balancer) {
        let now = balancer.host.now();
        balancer.pool.refresh();
        let counts = balancer.pool.key_counts(now);
        for (slug, gauges) in &self.keys {
            let values = key_values(&counts.get(slug.as_str()).copied().unwrap_or_default());
            values.into_iter().enumerate().for_each(|(index, value)| record(gauges.get(index), value));
        }
        if !self.d1.is_empty() {
            let status = Status::read(&*balancer.host);
            d1_values(&status, now).enumerate().for_each(|(index, value)| record(self.d1.get(index), value));
        }
    }
}
