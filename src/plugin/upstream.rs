//! The callbacks of the filter in the clusters' chains, for [`crate::filter::upstream`].

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types;

use super::host::{self, CurrentStream};
use super::{IN_FLIGHT, action};
use crate::filter::SharedBalancer;
use crate::filter::upstream::Upstream;

/// The context of one attempt.
pub struct UpstreamContext {
    filter: Upstream,
    balancer: Option<SharedBalancer>,
}

impl UpstreamContext {
    pub fn new(balancer: Option<SharedBalancer>) -> Self {
        UpstreamContext { filter: Upstream::default(), balancer }
    }
}

impl Context for UpstreamContext {}

impl HttpContext for UpstreamContext {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> types::Action {
        host::begin_callback();
        let exchange = host::exchange().and_then(|id| IN_FLIGHT.with(|in_flight| in_flight.borrow().get(id)));
        action(self.filter.request_headers(&CurrentStream, self.balancer.take(), exchange))
    }

    fn on_http_response_headers(&mut self, _: usize, end_of_stream: bool) -> types::Action {
        host::begin_callback();
        action(self.filter.response_headers(&CurrentStream, end_of_stream))
    }

    fn on_http_response_body(&mut self, size: usize, end_of_stream: bool) -> types::Action {
        host::begin_callback();
        action(self.filter.response_body(&CurrentStream, size, end_of_stream))
    }

    fn on_http_response_trailers(&mut self, _: usize) -> types::Action {
        host::begin_callback();
        action(self.filter.response_trailers(&CurrentStream))
    }
}

/// Envoy does not call `on_log` for upstream filters, and `on_done` would cost one more call into the module.
impl Drop for UpstreamContext {
    fn drop(&mut self) {
        host::begin_callback();
        self.filter.ended(&CurrentStream);
    }
}
