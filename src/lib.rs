//! One pool of AI-provider keys behind Envoy: the core of the proxy-wasm filter.
//!
//! Everything here but `plugin` is pure: it names no host, reads no clock, no environment and no
//! randomness, and compiles natively and for `wasm32-unknown-unknown`.

pub mod answer;
pub mod headers;
pub mod provider;
pub mod secret;
pub mod time;
