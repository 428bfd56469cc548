//! The border to the host: what a host call returns becomes a value, absent, or failed.
//!
//! The SDK panics where a host answers with a status that it does not expect, and its `String`
//! getters panic on bytes that are no UTF-8, which any client can send; so headers are read as
//! bytes only, and only in callbacks in which their map exists.

use std::time::UNIX_EPOCH;

use proxy_wasm::hostcalls;
use proxy_wasm::types::{BufferType, MapType};

use crate::headers::Headers;
use crate::pool::store::Store;
use crate::request::Edit;
use crate::time::Time;

/// The property that carries the number of the stream's ticket. One path element: two do not come back.
const TICKET: &str = "one_balance.ticket";
/// What is noted for the access log and for filters behind this one: the number of the AUTH_KEY
/// definition, from 1.
pub const CLIENT: &str = "one_balance.client";
/// The provider's slug.
pub const PROVIDER: &str = "one_balance.provider";
/// The model, as the client names it, without its provider.
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
        match hostcalls::get_shared_data(name) {
            Ok((Some(value), cas)) => Some((value, cas.unwrap_or_default())),
            _ => None,
        }
    }

    fn set(&self, name: &str, value: &[u8], cas: Option<u32>) -> bool {
        hostcalls::set_shared_data(name, Some(value), cas).is_ok()
    }
}

/// The wall clock.
pub fn now() -> Time {
    let since_epoch = hostcalls::get_current_time().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    Time(since_epoch.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)))
}

/// All headers of a map.
pub fn headers(map: MapType) -> Headers {
    Headers(hostcalls::get_map_bytes(map).unwrap_or_default())
}

/// Sets a header, whatever was there.
pub fn set_header(map: MapType, name: &str, value: &str) {
    let _ = hostcalls::set_map_value_bytes(map, name, Some(value.as_bytes()));
}

/// Takes a header out.
pub fn remove_header(map: MapType, name: &str) {
    let _ = hostcalls::remove_map_value(map, name);
}

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
    hostcalls::get_buffer(buffer, 0, size).ok().flatten().unwrap_or_default()
}

/// Puts other bytes in the place of the first `size` of a body. Envoy knows no other place.
pub fn set_body(buffer: BufferType, size: usize, value: &[u8]) {
    let _ = hostcalls::set_buffer(buffer, 0, size, value);
}

/// Answers the client.
pub fn reply(status: u16, headers: &[(&str, String)], body: &[u8]) {
    let headers = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let body = (!body.is_empty()).then_some(body);
    let _ = hostcalls::send_http_response(u32::from(status), headers, body);
}

/// What the access log may show of a stream: `%FILTER_STATE(wasm.one_balance.{name}:PLAIN)%`.
pub fn note(name: &'static str, value: &str) {
    let _ = hostcalls::set_property(vec![name], Some(value.as_bytes()));
}

/// The number of the stream's ticket.
pub fn ticket() -> Option<u32> {
    let bytes = hostcalls::get_property(vec![TICKET]).ok().flatten()?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

/// Lets the stream carry the number of its ticket.
pub fn set_ticket(number: u32) {
    let _ = hostcalls::set_property(vec![TICKET], Some(&number.to_le_bytes()));
}
