//! The forms of HTTP on the wire: header lists as Envoy serializes them, URLs, and multipart bodies.
//! Nothing here knows what the filter does with them.

pub mod headers;
pub mod multipart;
pub mod url;
