//! What the filter remembers of a request between its two places in Envoy and over its attempts.
//!
//! Downstream makes it, and each attempt brings it up to date. Both places of the filter run in one
//! VM, so it stays in the VM's memory, and only its number travels with the stream.

use crate::pool::{KeyId, Lease};
use crate::provider::Api;
use crate::time::Time;
use crate::translate::AnswerShape;

/// The state of one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ticket {
    /// The provider's slug.
    pub slug: String,
    /// The model, as the pool counts it; empty if the request has none.
    pub model: String,
    /// The dialect in which the client expects errors.
    pub client: Api,
    /// The key goes into `authorization: Bearer`, whatever the provider's native header is.
    pub openai_auth: bool,
    /// The request goes through Cloudflare AI Gateway.
    pub through_ai_gateway: bool,
    /// Number of the AUTH_KEY definition that let it in.
    pub definition: u32,
    /// Requests of one conversation share it; where `sticky` selection begins.
    pub conversation: u64,
    /// About how many tokens the request will take.
    pub tokens: u64,
    /// The keys that were tried, in order; the last one is in the attempt that is under way.
    pub tried: Vec<KeyId>,
    /// The first key, leased downstream so that a request without a key never leaves; the first
    /// attempt takes it.
    pub leased: Option<Lease>,
    /// The lease of the attempt under way.
    pub lease: Lease,
    /// The attempt under way has had no answer yet.
    pub unanswered: bool,
    /// When the key of the attempt under way was leased.
    pub leased_at: Time,
    /// The answer has to be translated, and how.
    pub answer: Option<AnswerShape>,
    /// How many keys have said that their tokens per minute are spent.
    pub token_limits: u8,
    /// How many keys were tried although the request itself is likely to be the reason.
    pub doubtful: u8,
    /// What became of the request, as metrics and the access log name it; empty until that is known.
    pub result: &'static str,
}
