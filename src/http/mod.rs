//! The forms of HTTP on the wire: header lists as Envoy serializes them, URLs, and multipart bodies.
//! Nothing here knows what the filter does with them.

pub mod headers;
pub mod media_type;
pub mod multipart;
pub mod strict_form;
pub mod url;
