//! The forms of HTTP on the wire: header maps as Envoy serializes them, URLs and multipart bodies.
//! Nothing here knows what the product does with them.

pub mod headers;
pub mod multipart;
pub mod url;
