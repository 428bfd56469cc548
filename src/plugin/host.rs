//! The border to the host: its calls in the core's words.

use proxy_wasm::hostcalls;
use proxy_wasm::types::{BufferType, MapType};

use super::abi;
use crate::headers::Headers;
use crate::pool::store::Store;
use crate::rewrite::Edit;
use crate::ticket::Stub;
use crate::time::Time;

/// The property that carries the stub of the stream's ticket. One path element: two do not come back.
const TICKET: &str = "one_balance.ticket";
/// What is noted for the access log and for filters behind this one: the number of the AUTH_KEY
/// definition, from 1.
pub const CLIENT: &str = "one_balance.client";
/// The provider's slug.
pub const PROVIDER: &str = "one_balance.provider";
/// The model by its one name: without provider or prefix, and what an alias stands for.
pub const MODEL: &str = "one_balance.model";
/// What became of the request: a result of [`crate::metrics`].
pub const OUTCOME: &str = "one_balance.outcome";
/// Tokens of the prompt.
pub const TOKENS_IN: &str = "one_balance.tokens_in";
/// Tokens of the answer.
pub const TOKENS_OUT: &str = "one_balance.tokens_out";

/// Envoy's shared data.
pub struct SharedData;

impl Store for SharedData {
    fn get(&self, name: &str) -> Option<(Vec<u8>, u32)> {
        abi::shared_data(name)
    }

    fn set(&self, name: &str, value: &[u8], cas: Option<u32>) -> bool {
        abi::set_shared_data(name, value, cas.unwrap_or_default())
    }
}

/// The wall clock.
pub fn now() -> Time {
    Time(abi::time() / 1_000_000)
}

/// All headers of a map.
pub fn headers(map: MapType) -> Headers {
    Headers::decode(abi::header_map(map).unwrap_or_default())
}

pub use abi::{remove_header, set_header};

/// Carries out changes of the request's headers.
pub fn edit_request(edits: &[Edit]) {
    for edit in edits {
        match edit {
            Edit::Set(name, value) => set_header(MapType::HttpRequestHeaders, name, value),
            Edit::Remove(name) => remove_header(MapType::HttpRequestHeaders, name),
        }
    }
}

/// Up to `size` bytes of a body from its beginning.
pub fn body(buffer: BufferType, size: usize) -> Vec<u8> {
    abi::buffer(buffer, size).unwrap_or_default()
}

/// Puts other bytes in the place of the first `size` of a body. Envoy knows no other place.
pub use abi::set_buffer as set_body;

/// Answers the client.
pub fn reply(status: u16, headers: &[(&str, String)], body: &[u8]) {
    let headers = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let body = (!body.is_empty()).then_some(body);
    let _ = hostcalls::send_http_response(u32::from(status), headers, body);
}

/// What the access log may show of a stream: `%FILTER_STATE(wasm.one_balance.{name}:PLAIN)%`.
pub fn note(name: &'static str, value: &str) {
    abi::set_property(name, value.as_bytes());
}

/// The stub of the stream's ticket.
pub fn stub() -> Option<Stub> {
    abi::property(TICKET)?.try_into().ok().map(Stub::from_bytes)
}

/// Lets the stream carry the stub of its ticket.
pub fn set_stub(stub: Stub) {
    abi::set_property(TICKET, &stub.to_bytes());
}

/// The plugin's `root_id`.
pub fn root_id() -> Option<Vec<u8>> {
    abi::property("plugin_root_id")
}
