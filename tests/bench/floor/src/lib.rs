//! What the filter could cost at the least: a module that decides nothing, in the same two places.
//!
//! It waits for the request's body, as the filter must, for Envoy retries only what it has whole. With
//! the configuration `calls` it also makes the calls of a native request, one for one, as many as
//! `tests/e2e/test_host_calls.py` counts; with any other it makes none.

use std::cell::Cell;

use proxy_wasm::hostcalls as host;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, BufferType, ContextType, MapType};

const REQUEST: MapType = MapType::HttpRequestHeaders;
const RESPONSE: MapType = MapType::HttpResponseHeaders;
/// As large as the values that the pool's attempts read and write.
const VALUES: [(&str, usize); 2] = [("floor/board", 1293), ("floor/usage", 60)];

thread_local! {
    static CALLS: Cell<bool> = const { Cell::new(false) };
}

proxy_wasm::main! {{
    proxy_wasm::set_root_context(|_| Box::new(Root::default()));
}}

#[derive(Default)]
struct Root {
    upstream: bool,
}

#[derive(Default)]
struct Downstream {
    headers: Vec<(String, Vec<u8>)>,
}

struct Upstream;

impl Context for Root {}
impl Context for Downstream {}
impl Context for Upstream {}

impl RootContext for Root {
    fn on_configure(&mut self, _: usize) -> bool {
        let root_id = host::get_property(vec!["plugin_root_id"]);
        self.upstream = matches!(root_id, Ok(Some(id)) if id == b"upstream");
        if !self.upstream {
            CALLS.set(self.get_plugin_configuration().as_deref() == Some(b"calls"));
        }
        for (name, size) in VALUES {
            let _ = host::set_shared_data(name, Some(&vec![0; size]), None);
        }
        true
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(if self.upstream { Box::new(Upstream) } else { Box::new(Downstream::default()) })
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

fn note(name: &str, value: &str) {
    let _ = host::set_property(vec![name], Some(value.as_bytes()));
}

fn set(map: MapType, name: &str, value: &str) {
    let _ = host::set_map_value(map, name, Some(value));
}

impl HttpContext for Downstream {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        if CALLS.get() {
            self.headers = host::get_map_bytes(REQUEST).unwrap_or_default();
        }
        Action::Pause
    }

    fn on_http_request_body(&mut self, _: usize, end_of_stream: bool) -> Action {
        if !end_of_stream {
            return Action::Pause;
        }
        if CALLS.get() {
            let _ = host::get_current_time();
            for (name, _) in VALUES {
                if let Ok((Some(value), cas)) = host::get_shared_data(name) {
                    let _ = host::set_shared_data(name, Some(&value), cas);
                }
            }
            note("one_balance.client", "1");
            note("one_balance.provider", "google-ai-studio");
            note("one_balance.model", "gemini-2.0-flash");
            for name in ["authorization", "x-envoy-external-address"] {
                let _ = host::remove_map_value(REQUEST, name);
            }
            // To what they are: the bare Envoy's way.
            for (name, value) in self.headers.iter().filter(|(name, _)| name == ":path" || name == ":authority") {
                let _ = host::set_map_value_bytes(REQUEST, name, Some(value));
            }
            set(REQUEST, "accept-encoding", "identity");
            note("one_balance.ticket", "12345678");
        }
        Action::Continue
    }
}

impl HttpContext for Upstream {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        if CALLS.get() {
            let _ = host::get_property(vec!["one_balance.ticket"]);
            set(REQUEST, "x-goog-api-key", "sk-bench-google-ai-studio-00000000000000000001");
            for name in ["x-forwarded-proto", "x-envoy-attempt-count"] {
                let _ = host::remove_map_value(REQUEST, name);
            }
        }
        Action::Continue
    }

    fn on_http_response_headers(&mut self, _: usize, _: bool) -> Action {
        if CALLS.get() {
            let _ = host::get_map_bytes(RESPONSE);
            let _ = host::get_current_time();
            note("one_balance.outcome", "served");
            set(RESPONSE, "x-one-balance-attempts", "1");
            set(RESPONSE, "x-one-balance-key-id", "0123456789abcdef");
        }
        Action::Continue
    }

    fn on_http_response_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        if CALLS.get() && size > 0 {
            let _ = host::get_buffer(BufferType::HttpResponseBody, 0, size);
        }
        if CALLS.get() && end_of_stream {
            note("one_balance.tokens_in", "12");
            note("one_balance.tokens_out", "9");
        }
        Action::Continue
    }
}
