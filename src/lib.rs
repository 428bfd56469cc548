//! One pool of AI-provider keys behind Envoy: the core of the proxy-wasm filter.
//!
//! Everything here but `plugin` is pure: it names no host, reads no clock, no environment and no
//! randomness, and compiles natively and for `wasm32-unknown-unknown`.

pub mod answer;
pub mod auth;
pub mod balancer;
pub mod config;
pub mod console;
pub mod d1;
pub mod filter;
pub mod hash;
pub mod host;
pub mod http;
pub mod json;
pub mod memcmp;
pub mod observe;
pub mod pool;
pub mod provider;
pub mod quota;
pub mod reply;
pub mod request;
pub mod secret;
pub mod time;
pub mod translate;

#[cfg(target_os = "wasi")]
mod plugin;

#[cfg(feature = "testing")]
pub mod testing;
