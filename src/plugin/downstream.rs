//! The callbacks of the filter in the listener's chain, for [`crate::filter::downstream`].
//!
//! ```text
//! request headers ─▶ request body … ─▶ (request trailers) ─▶ response headers ─▶ response body … ─▶ log ─▶ drop
//!        └────────────┴─▶ call to D1 ─▶ its answer, while the stream is paused
//! ```
//!
//! Envoy calls these in this order and for one stream at a time, and it may end a stream after any of them; `on_log` is
//! called even then. Every callback first begins anew with [`host::begin_callback`], so that the clock is read at most
//! once in each. All decisions and states are in the core's filter; this module only translates.

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types;

use super::host::{self, CurrentStream};
use super::{IN_FLIGHT, action, balancer, d1};
use crate::filter::downstream::Downstream;

/// The context of one stream.
pub struct DownstreamContext(Downstream);

impl DownstreamContext {
    pub fn new(context_id: u32) -> Self {
        DownstreamContext(Downstream::new(context_id, balancer(), IN_FLIGHT.with(Clone::clone)))
    }
}

impl Context for DownstreamContext {
    fn on_http_call_response(&mut self, token: u32, headers: usize, body_size: usize, _: usize) {
        host::begin_callback();
        d1::receive(headers, body_size, |answer| self.0.d1_answered(&CurrentStream, token, answer));
    }
}

impl HttpContext for DownstreamContext {
    fn on_http_request_headers(&mut self, _: usize, end_of_stream: bool) -> types::Action {
        host::begin_callback();
        action(self.0.request_headers(&CurrentStream, end_of_stream))
    }

    fn on_http_request_body(&mut self, size: usize, end_of_stream: bool) -> types::Action {
        host::begin_callback();
        action(self.0.request_body(&CurrentStream, size, end_of_stream))
    }

    fn on_http_request_trailers(&mut self, _: usize) -> types::Action {
        host::begin_callback();
        action(self.0.request_trailers(&CurrentStream))
    }

    fn on_http_response_headers(&mut self, _: usize, end_of_stream: bool) -> types::Action {
        host::begin_callback();
        action(self.0.response_headers(&CurrentStream, end_of_stream))
    }

    fn on_http_response_body(&mut self, size: usize, end_of_stream: bool) -> types::Action {
        host::begin_callback();
        action(self.0.response_body(&CurrentStream, size, end_of_stream))
    }

    fn on_log(&mut self) {
        host::begin_callback();
        self.0.log(&CurrentStream);
    }
}

/// Dropping the filter releases its lease, which may read the clock.
impl Drop for DownstreamContext {
    fn drop(&mut self) {
        host::begin_callback();
    }
}
