//! What becomes of a request's headers: the client's credential and whatever else says who and where
//! it is go, and what leads to the provider comes.
//!
//! Which headers hold an AUTH_KEY stands here, too, for exactly those must not go up.

use std::borrow::Cow;

use crate::http::headers::Headers;
use crate::provider::CREDENTIAL_HEADERS;
use crate::request::target::Target;

/// Headers of the client that do not go up: they say who and where it is, or carry a credential
/// that is no provider's business. A browser's `origin` also makes Anthropic refuse the key, and OpenAI
/// refuses every key that is not of the organization and project that the client's SDK names.
const PRIVATE_HEADERS: &[&str] = &[
    "cf-aig-authorization",
    "cookie",
    "forwarded",
    "openai-organization",
    "openai-project",
    "origin",
    "proxy-authorization",
    "referer",
    "true-client-ip",
    "via",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-real-ip",
    "x-request-id",
];
/// The same, by how the names begin. `x-forwarded-proto` is the exception: Envoy finds no route
/// without it, so the upstream filter takes it out.
const PRIVATE_PREFIXES: &[&str] = &["cf-", "x-envoy-", "x-forwarded-", "x-one-balance-"];
/// What the upstream filter removes before the provider sees the request; Istio's gateways have the
/// router add the count.
pub const REMOVED_UPSTREAM: [&str; 2] = [PROTO_HEADER, "x-envoy-attempt-count"];
const PROTO_HEADER: &str = "x-forwarded-proto";

/// How browsers hand a key to OpenAI's WebSocket API, which lets them set no header.
const WEBSOCKET_KEY: &str = "openai-insecure-api-key.";
const WEBSOCKET_PROTOCOL: &str = "sec-websocket-protocol";

/// A change of the request's headers.
#[derive(Clone, PartialEq, Eq)]
pub enum Edit {
    /// Set to this value, whatever was there.
    Set(&'static str, Cow<'static, str>),
    /// Take out.
    Remove(Cow<'static, str>),
}

/// Names only: among the values are a pooled key and the gateway's token.
impl core::fmt::Debug for Edit {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Edit::Set(name, _) => write!(f, "Set({name})"),
            Edit::Remove(name) => write!(f, "Remove({name})"),
        }
    }
}

/// Every text of the headers that may be an AUTH_KEY.
pub fn credentials(headers: &Headers) -> impl Iterator<Item = &[u8]> {
    let named = headers.iter().filter(|(name, _)| CREDENTIAL_HEADERS.iter().any(|known| known.as_bytes() == *name));
    let named = named.map(|(_, value)| {
        let value = value.trim_ascii();
        match value.split_at_checked(7) {
            Some((scheme, key)) if scheme.eq_ignore_ascii_case(b"bearer ") => key.trim_ascii(),
            _ => value,
        }
    });
    let websocket = headers.all(WEBSOCKET_PROTOCOL).flat_map(websocket_protocols);
    named.chain(websocket.filter_map(|protocol| protocol.strip_prefix(WEBSOCKET_KEY.as_bytes())))
}

/// The changes that send a request to its target; `new_length` is its body's size in bytes, if that changes.
#[must_use]
pub fn edits(headers: &Headers, target: Target, new_length: Option<usize>) -> Vec<Edit> {
    let mut edits = removals(headers);
    if headers.text(":scheme") != Some(target.scheme()) {
        edits.push(Edit::Set(":scheme", target.scheme().into()));
    }
    edits.push(Edit::Set(":path", target.path.into()));
    edits.push(Edit::Set(":authority", target.authority.into()));
    // Errors are read on their way, and a compressed one could not be.
    edits.push(Edit::Set("accept-encoding", "identity".into()));
    if let Some(protocols) = without_key(headers) {
        edits.push(match protocols.is_empty() {
            true => Edit::Remove(WEBSOCKET_PROTOCOL.into()),
            false => Edit::Set(WEBSOCKET_PROTOCOL, protocols.into()),
        });
    }
    if let Some(length) = new_length {
        edits.push(Edit::Set("content-length", length.to_string().into()));
    }
    edits
}

/// Each private header once, however often it came.
fn removals(headers: &Headers) -> Vec<Edit> {
    // Room for what is added to them.
    let mut edits = Vec::with_capacity(16);
    for (name, _) in headers.iter() {
        if let Some(name) = private(name) {
            let edit = Edit::Remove(name);
            if !edits.contains(&edit) {
                edits.push(edit);
            }
        }
    }
    edits
}

/// The WebSocket protocols that are left without the key, if a key is among them.
fn without_key(headers: &Headers) -> Option<String> {
    let is_key = |protocol: &&[u8]| protocol.starts_with(WEBSOCKET_KEY.as_bytes());
    let protocols = || headers.all(WEBSOCKET_PROTOCOL).flat_map(websocket_protocols);
    protocols().find(is_key)?;
    let kept = protocols().filter(|protocol| !is_key(protocol));
    Some(kept.map(String::from_utf8_lossy).collect::<Vec<_>>().join(", "))
}

fn websocket_protocols(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).filter(|protocol| !protocol.is_empty())
}

/// The name of a header that does not go up.
fn private(name: &[u8]) -> Option<Cow<'static, str>> {
    let mut known = CREDENTIAL_HEADERS.iter().chain(PRIVATE_HEADERS);
    if let Some(known) = known.find(|known| known.as_bytes() == name) {
        return Some((*known).into());
    }
    let prefixed = PRIVATE_PREFIXES.iter().any(|prefix| name.starts_with(prefix.as_bytes()));
    let prefixed = prefixed && name != PROTO_HEADER.as_bytes();
    prefixed.then(|| String::from_utf8_lossy(name).into_owned().into())
}
