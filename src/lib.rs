//! One pool of AI-provider keys behind Envoy: the core of the proxy-wasm filter.
//!
//! Everything here but `plugin` is pure: it names no host, reads no clock, no environment and no
//! randomness, and compiles natively and for `wasm32-unknown-unknown`.

pub mod answer;
pub mod auth;
pub mod balancer;
pub mod bytes;
pub mod compat;
pub mod config;
pub mod console;
pub mod conversation;
pub mod d1;
pub mod date;
pub mod hash;
pub mod headers;
pub mod journal;
pub mod json;
pub mod lifecycle;
pub mod local_reply;
pub mod metrics;
pub mod model;
pub mod multipart;
pub mod pool;
pub mod provider;
pub mod reply;
pub mod request;
pub mod rewrite;
pub mod route;
pub mod secret;
pub mod target;
pub mod ticket;
pub mod time;
pub mod translate;
pub mod url;

#[cfg(target_os = "wasi")]
mod plugin;
