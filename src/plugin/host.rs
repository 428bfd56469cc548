//! Implements the core's view of a host ([`crate::host::Host`], [`crate::filter::Stream`]) for Envoy.
//!
//! [`super::abi`] binds the host's functions one by one, in the ABI's terms of maps, buffers and addresses, and contains
//! all `unsafe` code. This module knows what they are used for: it chooses the map or buffer of a side, names the
//! properties, and keeps the time of the callback under way and the state of the random numbers.

use std::cell::Cell;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

use proxy_wasm::hostcalls;
use proxy_wasm::types::{BufferType, MapType};

use super::{abi, d1};
use crate::balancer::progress::ExchangeId;
use crate::config::D1;
use crate::d1::Call;
use crate::filter::{Attribute, Side, Stream};
use crate::host::{Host, Store};
use crate::http::headers::Headers;
use crate::time::Time;

/// The property with the id of the stream's exchange. Its path has one element, because Envoy does not return
/// properties whose path has two.
const EXCHANGE: &str = "one_balance.exchange";

thread_local! {
    /// The time of the callback under way; `None` until it is read.
    static NOW: Cell<Option<Time>> = const { Cell::new(None) };
    static RANDOM: Cell<u64> = Cell::new(seed());
}

/// A seed that differs from worker to worker; xorshift64 must not begin with 0.
#[expect(clippy::disallowed_methods, reason = "the adapter is where randomness comes from")]
fn seed() -> u64 {
    RandomState::new().build_hasher().finish() | 1
}

/// Begins a callback, for which the clock is read again. Every callback of every context calls this first.
pub fn begin_callback() {
    NOW.set(None);
}

/// The worker of Envoy that runs this VM.
pub struct Envoy;

impl Store for Envoy {
    fn get(&self, name: &str) -> Option<(Vec<u8>, u32)> {
        abi::shared_data(name)
    }

    fn set(&self, name: &str, value: &[u8], cas: Option<u32>) -> bool {
        abi::set_shared_data(name, value, cas.unwrap_or_default())
    }
}

impl Host for Envoy {
    fn now(&self) -> Time {
        NOW.get().unwrap_or_else(|| {
            let now = Time(abi::time() / 1_000_000);
            NOW.set(Some(now));
            now
        })
    }

    /// The next number of an xorshift64 generator.
    fn random(&self) -> u64 {
        let mut next = RANDOM.get();
        next ^= next << 13;
        next ^= next >> 7;
        next ^= next << 17;
        RANDOM.set(next);
        next
    }
}

/// The stream of the callback under way. Envoy's calls refer to it without an id.
pub struct CurrentStream;

impl Stream for CurrentStream {
    fn headers(&self, side: Side) -> Headers {
        headers(map(side))
    }

    fn set_header(&self, side: Side, name: &str, value: &str) {
        abi::set_header(map(side), name, value);
    }

    fn remove_header(&self, side: Side, name: &str) {
        abi::remove_header(map(side), name);
    }

    fn body(&self, side: Side, size: usize) -> Vec<u8> {
        body(buffer(side), size)
    }

    fn set_body(&self, side: Side, replaced: usize, bytes: &[u8]) {
        abi::set_buffer(buffer(side), replaced, bytes);
    }

    fn reply(&self, status: u16, headers: &[(&str, String)], body: &[u8]) {
        let headers = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let body = (!body.is_empty()).then_some(body);
        let _ = hostcalls::send_http_response(u32::from(status), headers, body);
    }

    fn record(&self, attribute: Attribute, value: &str) {
        abi::set_property(property(attribute), value.as_bytes());
    }

    fn set_exchange(&self, id: ExchangeId) {
        abi::set_property(EXCHANGE, &id.to_bytes());
    }

    fn call_d1(&self, d1: &D1, call: &Call) -> Option<u32> {
        d1::dispatch(d1, call)
    }
}

fn map(side: Side) -> MapType {
    match side {
        Side::Request => MapType::HttpRequestHeaders,
        Side::Response => MapType::HttpResponseHeaders,
    }
}

fn buffer(side: Side) -> BufferType {
    match side {
        Side::Request => BufferType::HttpRequestBody,
        Side::Response => BufferType::HttpResponseBody,
    }
}

/// The property of an attribute, which the access log shows as `%FILTER_STATE(wasm.{name}:PLAIN)%`.
fn property(attribute: Attribute) -> &'static str {
    match attribute {
        Attribute::Client => "one_balance.client",
        Attribute::Provider => "one_balance.provider",
        Attribute::Model => "one_balance.model",
        Attribute::Outcome => "one_balance.outcome",
        Attribute::TokensIn => "one_balance.tokens_in",
        Attribute::TokensOut => "one_balance.tokens_out",
    }
}

/// All headers of a map.
pub fn headers(map: MapType) -> Headers {
    Headers::decode(abi::header_map(map).unwrap_or_default())
}

/// The first `size` bytes of a buffer, or all if it has fewer.
pub fn body(buffer: BufferType, size: usize) -> Vec<u8> {
    abi::buffer(buffer, size).unwrap_or_default()
}

/// The id of the stream's exchange.
pub fn exchange() -> Option<ExchangeId> {
    abi::property(EXCHANGE)?.try_into().ok().map(ExchangeId::from_bytes)
}

/// The plugin's `root_id`.
pub fn root_id() -> Option<Vec<u8>> {
    abi::property("plugin_root_id")
}
