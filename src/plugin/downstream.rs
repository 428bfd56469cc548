//! proxy-wasm's callbacks for [`crate::filter::downstream`].

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types;

use super::host::{self, CurrentStream};
use super::{IN_FLIGHT, action, balancer, d1};
use crate::filter::downstream::Downstream;

/// One stream.
pub struct DownstreamContext(Downstream);

impl DownstreamContext {
    pub fn new(number: u32) -> Self {
        DownstreamContext(Downstream::new(number, balancer(), IN_FLIGHT.with(Clone::clone)))
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

/// The filter's own `Drop` gives the lease back, and may read the clock for that.
impl Drop for DownstreamContext {
    fn drop(&mut self) {
        host::begin_callback();
    }
}
