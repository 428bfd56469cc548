//! Calls to D1 over HTTP, for the sync and for the console's edits.

use std::time::Duration;

use proxy_wasm::hostcalls;
use proxy_wasm::types::{BufferType, MapType};

use super::abi;
use crate::config::D1;
use crate::d1::{Answer, CALL_TIMEOUT, Call};
use crate::http::headers::Headers;

/// Sends a call to D1 and returns its token; `None` if the host does not send it.
pub fn dispatch(d1: &D1, call: &Call) -> Option<u32> {
    let authorization = format!("Bearer {}", d1.token.expose());
    let headers = vec![
        (":method", "POST"),
        (":scheme", d1.url.scheme()),
        (":authority", d1.url.authority.as_str()),
        (":path", call.path.as_str()),
        ("authorization", authorization.as_str()),
        ("content-type", "application/json"),
    ];
    let timeout = Duration::from_millis(CALL_TIMEOUT.0);
    hostcalls::dispatch_http_call(&d1.cluster, headers, Some(&call.body), vec![], timeout).ok()
}

/// Reads the answer to a call to D1, in the callback that reports it.
pub fn receive<T>(headers: usize, body_size: usize, then: impl FnOnce(&Answer) -> T) -> T {
    // A call that has failed has no headers at all.
    let map = if headers > 0 {
        Headers::decode(abi::header_map(MapType::HttpCallResponseHeaders).unwrap_or_default())
    } else {
        Default::default()
    };
    let body = if body_size > 0 {
        abi::buffer(BufferType::HttpCallResponseBody, body_size).unwrap_or_default()
    } else {
        Vec::new()
    };
    then(&Answer {
        status: map.status(),
        retry_after: map.text("retry-after").and_then(|text| text.parse().ok()),
        body: &body,
    })
}
