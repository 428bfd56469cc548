//! What test files share.

#![allow(unused_imports, reason = "each test file uses its own part")]

pub use one_balance::testing::{START, Sent, World, config, forward, id};
