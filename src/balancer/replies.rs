//! Local replies, as Envoy calls them: what a client gets in the place of an answer from the provider, once
//! it is known which provider that would be. Each says what happened and who can do something about it.

use crate::balancer::progress::{Exchange, Progress};
use crate::http::headers::Headers;
use crate::pool::NoKey;
use crate::reply::{Code, Reply};
use crate::request::forward::Outgoing;
use crate::time::{Span, Time};

/// There is no key for an attempt.
pub fn no_key(outgoing: &Outgoing, reason: NoKey, now: Time) -> Reply {
    let slug = outgoing.slug();
    match reason {
        NoKey::Empty => Reply::new(Code::NoKeys, format!("The pool has no key for {slug}; add one to PROVIDER_KEYS.")),
        NoKey::Blocked => {
            let message =
                format!("All keys for {slug} are blocked, because the provider refused them; add or replace keys.");
            Reply::new(Code::AllKeysBlocked, message)
        }
        NoKey::Cooling(until, _) => {
            let wait = now.until(until);
            let seconds = wait.as_secs_up().max(1);
            let message = format!("All keys for {slug} are cooling for this model; the first is ready in {seconds} s.");
            Reply::new(Code::AllKeysCooling, message).retry_after(wait)
        }
        NoKey::Resting(until) => {
            let message =
                format!("Many keys of {slug} were refused for this model at once; it is left alone for a moment.");
            Reply::new(Code::ProviderResting, message).retry_after(now.until(until))
        }
        NoKey::Tried => Reply::new(Code::AllKeysTried, format!("Every key for {slug} has been tried; try again.")),
    }
}

/// No attempt came to an answer.
pub fn unreachable(outgoing: &Outgoing, progress: &Progress) -> Reply {
    let (slug, count) = (outgoing.slug(), progress.tried.len());
    let message = format!("{slug} gave no answer in {count} attempts; it may be down, or not be reachable from here.");
    Reply::new(Code::ProviderUnreachable, message)
}

/// The provider has had the time of its attempts. More of them would be worked on, and billed, in vain.
pub fn timeout(outgoing: &Outgoing, progress: &Progress) -> Reply {
    let (slug, count) = (outgoing.slug(), progress.tried.len());
    let message = format!(
        "{slug} gave no answer in time in {count} attempts, each of which it may bill; ask for a stream, or for less."
    );
    Reply::new(Code::ProviderTimeout, message)
}

/// Envoy has answered by itself, without or after attempts.
pub fn by_envoy(headers: &Headers, exchange: Option<&Exchange>) -> Reply {
    let number = |name| headers.text(name).and_then(|text| text.trim().parse::<u64>().ok());
    let status = number(":status").and_then(|status| u16::try_from(status).ok()).unwrap_or(503);
    match (status, exchange) {
        (404, _) => Reply::new(Code::NoRoute, "Envoy has no route for this request; check its route configuration."),
        (413, _) => Reply::new(Code::BodyTooLarge, "The body is larger than Envoy's buffer limit."),
        // Its rate limit filter, which says when the next request fits.
        (429, _) => Reply {
            retry_after: number("x-ratelimit-reset").map(Span::secs),
            ..Reply::new(Code::ClientRateLimited, "This AUTH_KEY has used up its requests for now.")
        },
        (504, Some(Exchange { outgoing, progress })) => timeout(outgoing, progress),
        // No other 500 is Envoy's after an attempt.
        (500, Some(Exchange { outgoing, progress })) if progress.unanswered().is_some() => {
            let message = format!("{}'s answer is larger than what Envoy buffers of one.", outgoing.slug());
            Reply::with_status(500, Code::ProviderAnswerUnreadable, message)
        }
        (500.., Some(Exchange { outgoing, progress })) => Reply { status, ..unreachable(outgoing, progress) },
        _ => Reply::with_status(status, Code::EnvoyError, "Envoy could not serve this request; see its log."),
    }
}

/// The provider refuses the keys. Its own text may hold one.
pub fn keys_refused(slug: &str, status: u16) -> Reply {
    let message = format!("{slug} refuses this request with the pool's keys; /one-balance/ shows their state.");
    Reply::with_status(status, Code::ProviderKeysRefused, message)
}

/// Something on the way refuses us. Not the client's credential: a 401 would send it looking for the fault at
/// the wrong place.
pub fn gateway_refused(slug: &str, evidence: &impl core::fmt::Display) -> Reply {
    let message =
        format!("The way to {slug} is refused ({evidence}); check AI_GATEWAY_TOKEN and what the provider allows.");
    Reply::new(Code::GatewayRefused, message)
}

/// The provider's answer has the key in it. A client would take a success or a redirect for what was asked for,
/// so they become an error.
pub fn withheld(slug: &str, status: u16) -> Reply {
    let message = format!("{slug} answered {status} with the pool's key in its text, so that its answer is withheld.");
    Reply::with_status(error_status(status), Code::ProviderErrorWithheld, message)
}

/// The provider's error is compressed, although we ask for none that is, so nobody can look for the key in it.
pub fn withheld_encoded(slug: &str, status: u16) -> Reply {
    let message = format!(
        "{slug} answered {status} with a compressed text. It cannot be searched for the pool's key, so that it is withheld."
    );
    Reply::with_status(error_status(status), Code::ProviderErrorWithheld, message)
}

/// The status of an answer that is withheld.
fn error_status(status: u16) -> u16 {
    if status >= 400 { status } else { Code::ProviderErrorWithheld.status() }
}

/// Envoy let an error through that was to be retried.
pub fn not_retried(slug: &str, status: u16) -> Reply {
    let message = format!(
        "{slug} answered {status}, and Envoy did not try the next key; see its retry policy and circuit breakers."
    );
    Reply::with_status(status, Code::NotRetried, message)
}
