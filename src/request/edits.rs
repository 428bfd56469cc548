//! The changes to a request's headers: the client's credential and whatever else says who and where the client is are
//! removed, and what leads to the provider is set.
//!
//! Which headers hold an AUTH_KEY is decided here, too, so that the list of accepted and of removed headers cannot
//! differ.

use std::borrow::Cow;

use crate::http::headers::Headers;
use crate::http::url;
use crate::provider::{CREDENTIAL_HEADERS, CREDENTIAL_PARAMETERS, Choices, Provider};
use crate::request::target::Target;

/// Headers of the client that no provider gets, because they say who and where the client is, carry a
/// credential, join the request to a trace of the client's, or ask for another method than the one that was
/// checked. A browser's `origin` also makes Anthropic refuse the key, and OpenAI refuses every key that is not
/// of the organization and project that the client's SDK names. What only one provider knows is in its
/// [`Choices`](crate::provider::Choices).
const PRIVATE_HEADERS: &[&str] = &[
    "b3",
    "via",
    "cookie",
    "origin",
    "baggage",
    "referer",
    "client-ip",
    "forwarded",
    "x-real-ip",
    "tracestate",
    "traceparent",
    "x-client-ip",
    "x-forwarded",
    "sentry-trace",
    "x-request-id",
    "uber-trace-id",
    "x-http-method",
    "openai-project",
    "true-client-ip",
    "x-amzn-trace-id",
    "fastly-client-ip",
    "x-method-override",
    "openai-organization",
    "proxy-authorization",
    "x-cluster-client-ip",
    "cf-aig-authorization",
    "x-cloud-trace-context",
    "x-http-method-override",
    "x-original-forwarded-for",
];
/// The same, by how the names begin. `x-forwarded-proto` is the exception: Envoy finds no route
/// without it, so the upstream filter removes it.
const PRIVATE_PREFIXES: &[&str] = &["cf-", "x-b3-", "x-datadog-", "x-envoy-", "x-forwarded-", "x-one-balance-"];
/// What the upstream filter removes before the provider sees the request; Istio's gateways have the
/// router add the count.
///
/// An Envoy that is configured to trace adds the headers of its tracer behind the downstream filter, too. They
/// are not removed here, because that would cost each request a call for each of a dozen headers that are
/// almost never there: the shipped configurations do not trace. Whoever switches tracing on and does not want
/// the providers to see it adds a `header_mutation` filter in front of this one.
pub const REMOVED_UPSTREAM: [&str; 2] = [PROTO_HEADER, "x-envoy-attempt-count"];
const PROTO_HEADER: &str = "x-forwarded-proto";

/// How browsers hand a key to OpenAI's WebSocket API, which lets them set no header.
const WEBSOCKET_KEY: &str = "openai-insecure-api-key.";
const WEBSOCKET_PROTOCOL: &str = "sec-websocket-protocol";
/// How the names of the protocols begin that no provider gets: the key, and the two choices that browsers
/// cannot make by headers.
const PRIVATE_PROTOCOLS: &[&str] = &[WEBSOCKET_KEY, "openai-organization.", "openai-project."];

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

/// The client's query without credentials, and without what the client must not choose at this provider.
pub fn query(provider: &Provider, query: &str) -> String {
    let Choices { parameters, parameter_prefixes, .. } = provider.choices;
    url::without_parameters(query, |name| {
        let lower = name.to_ascii_lowercase();
        CREDENTIAL_PARAMETERS.contains(&name)
            || parameters.contains(&&*lower)
            || parameter_prefixes.iter().any(|prefix| lower.starts_with(prefix))
    })
}

/// The changes that send a request to its target; `new_length` is its body's size in bytes, if that changes.
pub fn edits(provider: &Provider, headers: &Headers, target: Target, new_length: Option<usize>) -> Vec<Edit> {
    let mut edits = removals(&provider.choices, headers);
    if headers.text(":scheme") != Some(target.scheme()) {
        edits.push(Edit::Set(":scheme", target.scheme().into()));
    }
    edits.push(Edit::Set(":path", target.path.into()));
    edits.push(Edit::Set(":authority", target.authority.into()));
    // Errors are read on their way, and a compressed one could not be.
    edits.push(Edit::Set("accept-encoding", "identity".into()));
    if let Some(protocols) = without_private_protocols(headers) {
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
fn removals(choices: &Choices, headers: &Headers) -> Vec<Edit> {
    // Room for what is added to them.
    let mut edits = Vec::with_capacity(16);
    for (name, _) in headers.iter() {
        if let Some(name) = private(choices, name) {
            let edit = Edit::Remove(name);
            if !edits.contains(&edit) {
                edits.push(edit);
            }
        }
    }
    edits
}

/// The WebSocket protocols that are left without the private ones, if one of these is among them.
fn without_private_protocols(headers: &Headers) -> Option<String> {
    let is_private =
        |protocol: &&[u8]| PRIVATE_PROTOCOLS.iter().any(|private| protocol.starts_with(private.as_bytes()));
    let protocols = || headers.all(WEBSOCKET_PROTOCOL).flat_map(websocket_protocols);
    protocols().find(is_private)?;
    let kept = protocols().filter(|protocol| !is_private(protocol));
    Some(kept.map(String::from_utf8_lossy).collect::<Vec<_>>().join(", "))
}

fn websocket_protocols(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).filter(|protocol| !protocol.is_empty())
}

/// The name of a header that no provider gets, or not this one.
fn private(choices: &Choices, name: &[u8]) -> Option<Cow<'static, str>> {
    let order = |known: &&str| known.len().cmp(&name.len()).then_with(|| known.as_bytes().cmp(name));
    let listed = PRIVATE_HEADERS.binary_search_by(order).ok().and_then(|index| PRIVATE_HEADERS.get(index));
    let mut others = CREDENTIAL_HEADERS.iter().chain(choices.headers);
    if let Some(known) = listed.or_else(|| others.find(|known| known.as_bytes() == name)) {
        return Some((*known).into());
    }
    let mut prefixes = PRIVATE_PREFIXES.iter().chain(choices.header_prefixes);
    // Two bytes tell most names apart, without a call for each prefix.
    let begins = |prefix: &str| name.get(..2) == prefix.as_bytes().get(..2) && name.starts_with(prefix.as_bytes());
    let prefixed = prefixes.any(|prefix| begins(prefix));
    let prefixed = prefixed && name != PROTO_HEADER.as_bytes();
    prefixed.then(|| String::from_utf8_lossy(name).into_owned().into())
}
