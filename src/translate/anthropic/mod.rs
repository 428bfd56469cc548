//! Anthropic's dialect: `/v1/messages`.
//!
//! Source: <https://platform.claude.com/docs/en/api/messages> and the pages it links to.

pub(super) mod answer;
pub(super) mod request;
mod thinking;

/// The name under which thinking blocks are found in `extra_content` and call ids.
const PROVIDER: &str = "anthropic";
