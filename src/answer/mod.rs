//! Decides what an answer says about the key that it was requested with, and nothing about what follows
//! from that.
//!
//! [`classify`] is a pure function of provider, status, headers and error body. A failed answer is put
//! through tests in a fixed order (the file `rules.rs` has the order and its reasons), and the first test
//! that fits decides. Only [`Outcome::Credential`] says that a key is dead, so every doubt goes to another
//! class.
//!
//! A successful answer is classified by its headers alone, and [`stream::Watcher`] reads its body as it
//! passes. The end of a limit is `None` where nothing states it, because guessing is policy, and policy is
//! not in this room.
//!
//! Facts about providers come from their documentation and from published answers; each shape has a
//! golden file with its provenance in `tests/golden/answers`.

mod body;
mod ends;
mod evidence;
mod google;
mod limits;
mod markers;
mod reset;
mod rules;
pub mod stream;
mod tokens;

pub use evidence::{Evidence, Sign};
pub use limits::StatedLimit;
pub use reset::{LONGEST, LONGEST_MONTHLY, SHORTEST};

use crate::http::headers::Headers;
use crate::provider::Provider;
use crate::time::Time;

/// How many bytes of an error body are read.
pub const BODY_LIMIT: usize = 64 * 1024;

/// An answer as it came, and when. It has no `Debug`, because an error may quote the key.
#[derive(Clone, Copy)]
pub struct Answer<'a> {
    /// The provider that answered.
    pub provider: &'a Provider,
    /// Whether it came through Cloudflare AI Gateway, whose own errors look like the provider's.
    pub through_ai_gateway: bool,
    /// The HTTP status.
    pub status: u16,
    /// The headers, with names in lower case.
    pub headers: &'a Headers,
    /// The error body, at most [`BODY_LIMIT`]; empty if it was not read or has a content encoding.
    pub body: &'a [u8],
    /// When the answer came.
    pub now: Time,
}

/// What an answer said, and why we think so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The class of the answer.
    pub outcome: Outcome,
    /// Which part of the answer decided.
    pub evidence: Evidence,
    /// The limits that it stated, at most [`StatedLimit::MOST`].
    pub limits: Vec<StatedLimit>,
}

/// What an answer said about the key.
///
/// Each `until` is the end of the limit as the answer stated it, clamped to a sane range ([`SHORTEST`] to
/// [`LONGEST`] from now). It is `None` if nothing usable was stated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The key works.
    Success {
        /// A limit that this answer used up, so that the next request would fail.
        exhausted: Option<Exhausted>,
    },
    /// A quota is spent, and no short wait brings it back.
    Quota(Quota),
    /// There was too much at once. The same key works again soon.
    RateLimit(RateLimit),
    /// The provider failed on this request. The next attempt may succeed.
    Transient {
        /// When to try again.
        until: Option<Time>,
    },
    /// The provider is overloaded. Another key would meet the same wall.
    Overloaded {
        /// When to try again.
        until: Option<Time>,
    },
    /// Our IP address is in a region that the provider does not serve.
    Region,
    /// The key is wrong, revoked, leaked or of a closed account, as far as this answer says.
    Credential {
        /// No request can cause such an answer: the key was revoked, deleted, deactivated or reported as leaked.
        conclusive: bool,
    },
    /// This key may not use this model. Another key may, unless no key may.
    ModelAccess,
    /// Refused, for a reason that is neither the key nor the model as far as is known.
    Forbidden,
    /// The request names what belongs to another key of the pool, or to nobody: a file, a cache, a stored answer.
    NotMine,
    /// The fault is the gateway's, our IP address's or our own, and not the key's.
    Gateway {
        /// When to try again, if the gateway limits our rate.
        until: Option<Time>,
    },
    /// The request itself is at fault. Every key would get this answer.
    Caller,
}

/// A limit of which nothing is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhausted {
    /// What is counted.
    pub what: What,
    /// The time over which it is counted.
    pub window: Window,
    /// When the next window begins; `None` if only the window is known.
    pub until: Option<Time>,
}

/// A spent quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// How it comes back.
    pub period: Period,
    /// Its end, as stated or by the provider's known daily reset. At most [`LONGEST_MONTHLY`] from now for
    /// [`Period::Monthly`].
    pub until: Option<Time>,
    /// A shorter wait that the same answer requests (Google's RetryInfo beside a daily quota).
    pub retry: Option<Time>,
    /// A hash of Google's `quotaId`, by which the same quota is recognised when it is reported again.
    pub id: Option<u32>,
}

/// How a spent quota comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    /// With the provider's next day.
    Daily,
    /// With the next month.
    Monthly,
    /// When somebody pays.
    Credit,
    /// Never, because the model has no quota in this key's tier.
    NotInTier,
}

/// A rate limit that was hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// What there was too much of.
    pub what: What,
    /// The time over which it is counted.
    pub window: Window,
    /// When it ends, if the answer stated it.
    pub until: Option<Time>,
    /// The request alone is larger than the limit, so that waiting does not help and the key is not at fault.
    pub oversized: bool,
}

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum What {
    /// Requests.
    Requests,
    /// Tokens in and out.
    Tokens,
    /// Tokens of prompts.
    InputTokens,
    /// Tokens of completions.
    OutputTokens,
    /// Concurrent requests.
    Concurrency,
    /// The answer did not say.
    Unstated,
}

impl What {
    /// Whether tokens of any kind are counted.
    pub const fn is_tokens(self) -> bool {
        matches!(self, What::Tokens | What::InputTokens | What::OutputTokens)
    }
}

/// The time over which a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Window {
    /// One second.
    Second,
    /// One minute.
    Minute,
    /// One hour.
    Hour,
    /// One day.
    Day,
    /// One month.
    Month,
    /// The answer did not say.
    Unstated,
}

/// Decides what an answer says about the key that it was requested with.
///
/// For a success only the headers are read, in one pass, and without a rate limit header nothing is
/// allocated.
pub fn classify(answer: &Answer) -> Verdict {
    // 101 opens a WebSocket, which is the success of a request for one.
    if matches!(answer.status, 101 | 200..=299) { success(answer) } else { rules::failure(answer) }
}

fn success(answer: &Answer) -> Verdict {
    let limits = limits::from_headers(answer);
    let exhausted = limits::exhausted(&limits);
    let sign = exhausted.map_or(Sign::Status, |limit| Sign::Remaining(limit.what, limit.window));
    Verdict { outcome: Outcome::Success { exhausted }, evidence: Evidence { status: answer.status, sign }, limits }
}
