//! What did this answer say about the key? Nothing of what to do about it.
//!
//! [`classify`] is a pure function of provider, status, headers and error body. The tests run in one
//! order, and the first that fits wins: AI Gateway's own answer, spent quota, overload, rate limit,
//! transient fault, region, a refusal of our address, credential, model access, other 403, the
//! caller's fault. Only [`Outcome::Credential`] says that a key is dead, so every doubt goes to
//! another class.
//!
//! A successful answer is read from its headers alone; [`stream::Watcher`] sees its body pass. Ends
//! of limits are `None` where nothing stated them: guessing is policy, and policy is elsewhere.
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

/// The most of an error body that is looked at, in bytes.
pub const BODY_LIMIT: usize = 64 * 1024;

/// An answer as it came, and when. It has no `Debug`: an error may quote the key.
#[derive(Clone, Copy)]
pub struct Answer<'a> {
    /// Who was asked.
    pub provider: &'a Provider,
    /// Whether Cloudflare AI Gateway stood between, whose own errors look like the provider's.
    pub through_ai_gateway: bool,
    /// The HTTP status.
    pub status: u16,
    /// The answer's headers, names in lower case.
    pub headers: &'a Headers,
    /// The error body, at most [`BODY_LIMIT`]; empty if it was not read or has a content encoding.
    pub body: &'a [u8],
    /// When the answer came.
    pub now: Time,
}

/// What an answer said, and what makes us think so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What it said about the key.
    pub outcome: Outcome,
    /// Which part of the answer decided.
    pub evidence: Evidence,
    /// What it stated about limits, at most [`StatedLimit::MOST`].
    pub limits: Vec<StatedLimit>,
}

/// What an answer said about the key.
///
/// Each `until` is when the limit ends as the answer stated it, clamped to what is sane
/// ([`SHORTEST`] to [`LONGEST`] from now); `None` if nothing usable was stated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It works.
    Success {
        /// A limit that this very answer used up: the next request would fail.
        exhausted: Option<Exhausted>,
    },
    /// A quota is spent that no short wait brings back.
    Quota(Quota),
    /// Too much at once: the same key works again soon.
    RateLimit(RateLimit),
    /// The provider stumbled over this request; the next may pass.
    Transient {
        /// When to try again.
        until: Option<Time>,
    },
    /// The provider has no room for anybody: another key meets the same wall.
    Overloaded {
        /// When to try again.
        until: Option<Time>,
    },
    /// The address we come from is in a region that the provider does not serve.
    Region,
    /// The key is wrong, revoked, leaked or of a closed account.
    Credential,
    /// This key may not use this model, or nobody may: another key can.
    ModelAccess,
    /// Refused (403) for a reason that is neither key nor model as far as is known.
    Forbidden,
    /// The gateway's, the egress address's or our own fault, never the provider key's.
    Gateway {
        /// When to try again, if the gateway limits our rate.
        until: Option<Time>,
    },
    /// The request itself is at fault: every key would get this answer.
    Caller,
}

/// A limit whose rest is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhausted {
    /// What is counted.
    pub what: What,
    /// Over which time.
    pub window: Window,
    /// When it starts anew; `None` if only the window is known.
    pub until: Option<Time>,
}

/// A spent quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Of which kind.
    pub period: Period,
    /// Its end: as stated, or the provider's known daily reset. At most [`LONGEST_MONTHLY`] from now
    /// for [`Period::Monthly`].
    pub until: Option<Time>,
    /// A shorter wait that the same answer asks for (Google's RetryInfo beside a daily quota).
    pub retry: Option<Time>,
    /// Which quota: a hash of Google's `quotaId`, so that a repeat is recognised.
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
    /// Not at all: the model has no quota in this key's tier.
    NotInTier,
}

/// A rate limit that was hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// What there was too much of.
    pub what: What,
    /// Over which time it is counted.
    pub window: Window,
    /// When it ends, if the answer stated it.
    pub until: Option<Time>,
    /// The request alone is larger than the limit: waiting does not help, and this key is not at fault.
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
    /// Requests under way at the same time.
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

/// Says what an answer means for the key that it was asked with.
///
/// On success only the headers are read, in one pass, and without a rate limit header nothing is
/// allocated.
pub fn classify(answer: &Answer) -> Verdict {
    // 101 opens a WebSocket, which is what was asked for.
    if matches!(answer.status, 101 | 200..=299) { success(answer) } else { rules::failure(answer) }
}

fn success(answer: &Answer) -> Verdict {
    let limits = limits::from_headers(answer);
    let exhausted = limits::exhausted(&limits);
    let sign = exhausted.map_or(Sign::Status, |limit| Sign::Remaining(limit.what, limit.window));
    Verdict { outcome: Outcome::Success { exhausted }, evidence: Evidence { status: answer.status, sign }, limits }
}
