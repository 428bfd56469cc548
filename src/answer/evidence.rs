//! Which part of an answer decided its verdict, for a log line.
//!
//! Error bodies can contain the key (Google's CONSUMER_SUSPENDED does), so nothing here is text from
//! outside. There are only words of our own lists, and numbers.

use core::fmt;

use super::{What, Window};

/// The reason for a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// The answer's HTTP status; for an error inside a successful answer, the status that usually comes
    /// with it.
    pub status: u16,
    /// What decided in addition to the status.
    pub sign: Sign,
}

/// What decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// The status alone.
    Status,
    /// A code, type or reason in the body or in `x-amzn-errortype`.
    Code(&'static str),
    /// A phrase in the error's message.
    Text(&'static str),
    /// A Google `quotaId`, by its hash.
    QuotaId(u32),
    /// A limit whose rest is 0, in the headers or in OpenRouter's `metadata.headers`.
    Remaining(What, Window),
    /// An error of Cloudflare AI Gateway itself, by its `internalCode` (0 if it had none).
    AiGateway(u32),
    /// There was no readable body, without which the gateway's fault cannot be told from the provider's.
    NoBody,
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status)?;
        match self.sign {
            Sign::Status => Ok(()),
            Sign::Code(code) => write!(f, " code {code}"),
            Sign::Text(text) => write!(f, " message \"{text}\""),
            Sign::QuotaId(id) => write!(f, " quotaId #{id:08x}"),
            Sign::Remaining(what, window) => write!(f, " no {what} left{window}"),
            Sign::AiGateway(0) => write!(f, " AI Gateway"),
            Sign::AiGateway(code) => write!(f, " AI Gateway {code}"),
            Sign::NoBody => write!(f, " without a readable body"),
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            What::Requests | What::Unstated => "requests",
            What::Tokens => "tokens",
            What::InputTokens => "input tokens",
            What::OutputTokens => "output tokens",
            What::Concurrency => "concurrent requests",
        })
    }
}

impl fmt::Display for Window {
    /// With a space before it: ` per minute`; nothing if the window is not stated.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Window::Second => " per second",
            Window::Minute => " per minute",
            Window::Hour => " per hour",
            Window::Day => " per day",
            Window::Month => " per month",
            Window::Unstated => "",
        })
    }
}
