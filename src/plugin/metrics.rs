//! The host's side of [`crate::observe::metrics`]: defines them once, and tells the host their values.
//!
//! Every worker tells its own counts, which the host adds up, and the same gauges, for all of them
//! read shared data.

use proxy_wasm::hostcalls;
use proxy_wasm::types::MetricType;

use crate::balancer::Balancer;
use crate::d1::Status;
use crate::observe::metrics::{D1_GAUGES, census_gauges, census_values, d1_values};
use crate::time::{Span, Time};

/// How often the keys are counted through.
const CENSUS_EVERY: Span = Span::secs(2);

/// The host's numbers of the metrics; `None` where it would not define one.
#[derive(Default)]
pub struct Metrics {
    /// In the order of the tally's names.
    counters: Vec<Option<u32>>,
    /// By provider, each in the order of [`census_gauges`].
    census: Vec<(String, Vec<Option<u32>>)>,
    /// In the order of [`D1_GAUGES`]; empty without D1.
    d1: Vec<Option<u32>>,
    next_census: Time,
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
        let census = balancer.counters.providers().map(|slug| {
            let gauges = census_gauges(slug).map(|name| define(MetricType::Gauge, &name)).collect();
            (slug.to_owned(), gauges)
        });
        let d1: &[&str] = if balancer.config.d1.is_some() { &D1_GAUGES } else { &[] };
        Metrics {
            counters: names.iter().map(|name| define(MetricType::Counter, name)).collect(),
            census: census.collect(),
            d1: d1.iter().map(|name| define(MetricType::Gauge, name)).collect(),
            next_census: Time(0),
        }
    }

    /// Tells what this balancer has counted. Call it at each tick.
    pub fn count(&self, balancer: &Balancer) {
        balancer.counters.drain(|place, sum| {
            if let Some(&Some(counter)) = self.counters.get(place) {
                let _ = hostcalls::increment_metric(counter, i64::try_from(sum).unwrap_or(i64::MAX));
            }
        });
    }

    /// Tells how things are. Call it at each tick, for the balancer in force.
    pub fn measure(&mut self, balancer: &mut Balancer) {
        let now = balancer.host.now();
        // A clock that was set back must not stop it.
        if self.next_census <= now || self.next_census > now.plus(CENSUS_EVERY) {
            self.next_census = now.plus(CENSUS_EVERY);
            self.gauges(balancer);
        }
    }

    fn gauges(&self, balancer: &mut Balancer) {
        let now = balancer.host.now();
        balancer.pool.refresh();
        let census = balancer.pool.census(now);
        for (slug, gauges) in &self.census {
            let values = census_values(&census.get(slug.as_str()).copied().unwrap_or_default());
            values.into_iter().enumerate().for_each(|(place, value)| record(gauges.get(place), value));
        }
        if !self.d1.is_empty() {
            let status = Status::read(&*balancer.host);
            d1_values(&status, now).enumerate().for_each(|(place, value)| record(self.d1.get(place), value));
        }
    }
}
