//! What of a provider's answer does not reach a client: headers that speak for the client's relation to the
//! gateway's origin, to Envoy or to this filter, and anything that a browser would run there.
//!
//! The console is served from the same origin as the providers' answers, and an unrestricted AUTH_KEY is in
//! that origin's session storage. So a page of a provider must neither run scripts there nor set its rules.
//! Headers are looked at where they have been read, and the host is called only for those that have to go.

use super::{Side, Stream};
use crate::http::headers::Headers;

/// Headers that are removed: what a browser would hold against the gateway's origin.
const REMOVED: &[&str] = &[
    "alt-svc",
    "clear-site-data",
    "nel",
    "refresh",
    "report-to",
    "reporting-endpoints",
    "service-worker-allowed",
    "set-cookie",
    "strict-transport-security",
];
/// The same, by how the names begin. Envoy's router would obey `x-envoy-…` (`x-envoy-ratelimited` ends its
/// retries) and `x-one-balance-retry`, and the others of ours are set by this filter.
const REMOVED_PREFIXES: &[&str] = &["access-control-", "x-envoy-", "x-one-balance-"];
/// Types that no browser makes a document with scripts of, by how they begin.
const INERT_TYPES: &[&str] = &[
    "application/json",
    "text/event-stream",
    "audio/",
    "video/",
    "image/avif",
    "image/gif",
    "image/jpeg",
    "image/png",
    "image/webp",
    "application/octet-stream",
    "application/jsonl",
    "application/x-jsonlines",
    "application/x-ndjson",
    "application/x-protobuf",
    "application/vnd.amazon.eventstream",
    "application/zip",
];

/// Removes the headers of a provider's answer that are not for the client, and those that `shows_key` says have
/// the pooled key in them. Each name once, with all of its values.
pub fn remove_headers(stream: &dyn Stream, headers: &Headers, shows_key: impl Fn(&[u8]) -> bool) {
    let mut removed: Vec<&[u8]> = Vec::new();
    for (name, value) in headers.iter() {
        if (is_removed(name) || shows_key(value)) && !removed.contains(&name) {
            removed.push(name);
            if let Ok(name) = core::str::from_utf8(name) {
                stream.remove_header(Side::Response, name);
            }
        }
    }
}

/// Keeps a browser from running what it gets, if it could take it for a document.
pub fn disarm(stream: &dyn Stream, headers: &Headers) {
    // What has been switched to another protocol is no document.
    if headers.status() == Some(101) || is_inert(headers) {
        return;
    }
    stream.set_header(Side::Response, "content-security-policy", "sandbox");
    stream.set_header(Side::Response, "x-content-type-options", "nosniff");
}

fn is_removed(name: &[u8]) -> bool {
    REMOVED.iter().any(|removed| removed.as_bytes() == name)
        || REMOVED_PREFIXES.iter().any(|prefix| name.starts_with(prefix.as_bytes()))
}

/// Servers may send more than one type, and browsers then differ.
fn is_inert(headers: &Headers) -> bool {
    let begins = |value: &[u8], inert: &str| {
        value.get(..inert.len()).is_some_and(|start| start.eq_ignore_ascii_case(inert.as_bytes()))
    };
    let inert = |value: &[u8]| {
        let value = value.trim_ascii();
        INERT_TYPES.iter().any(|inert| begins(value, inert)) && !value.contains(&b',')
    };
    headers.has("content-type") && headers.all("content-type").all(inert)
}
