//! What an operator sees of the pool: metrics, and log lines about keys.

pub mod key_log;
pub mod metrics;
