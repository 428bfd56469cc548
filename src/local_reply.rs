//! Local replies, as Envoy calls them: what a client gets in the place of an answer from the provider, once
//! it is known which provider that would be. Each says what happened and who can do something about it.

use crate::headers::Headers;
use crate::metrics::UNREADABLE;
use crate::pool::NoKey;
use crate::reply::Reply;
use crate::ticket::Ticket;
use crate::time::{Span, Time};

/// The answer while D1's keys are not known yet.
#[must_use]
pub fn not_loaded() -> Reply {
    let message = "The pool's keys have not been loaded from D1 yet; see Envoy's log if this lasts.";
    Reply::new(503, "pool_not_loaded", message).retry_after(Span::secs(5))
}

/// There is no key for an attempt.
#[must_use]
pub fn no_key(ticket: &Ticket, reason: NoKey, now: Time) -> Reply {
    let slug = ticket.slug();
    match reason {
        NoKey::Empty => {
            Reply::new(503, "no_keys", format!("The pool has no key for {slug}; add one to PROVIDER_KEYS."))
        }
        NoKey::Blocked => {
            let message =
                format!("All keys for {slug} are blocked, for the provider refused them; add or replace keys.");
            Reply::new(503, "all_keys_blocked", message)
        }
        NoKey::Cooling(until, _) => {
            let wait = now.until(until);
            let seconds = wait.as_secs_up().max(1);
            let message = format!("All keys for {slug} are cooling for this model; the first is ready in {seconds} s.");
            Reply::new(429, "all_keys_cooling", message).retry_after(wait)
        }
        NoKey::Resting(until) => {
            let message = format!("{slug} limits the address that requests come from; it is left alone for a moment.");
            Reply::new(429, "provider_resting", message).retry_after(now.until(until))
        }
        NoKey::Tried => Reply::new(503, "all_keys_tried", format!("Every key for {slug} has been tried; try again.")),
    }
}

/// No attempt came to an answer.
#[must_use]
pub fn unreachable(ticket: &Ticket) -> Reply {
    let (slug, count) = (ticket.slug(), ticket.tried.len());
    let message = format!("{slug} gave no answer in {count} attempts; it may be down, or not be reachable from here.");
    Reply::new(502, "provider_unreachable", message)
}

/// Envoy has answered by itself, without or after attempts.
#[must_use]
pub fn by_envoy(headers: &Headers, ticket: Option<&Ticket>) -> Reply {
    let number = |name| headers.text(name).and_then(|text| text.trim().parse::<u64>().ok());
    let status = number(":status").and_then(|status| u16::try_from(status).ok()).unwrap_or(503);
    match (status, ticket) {
        (404, _) => Reply::new(404, "no_route", "Envoy has no route for this request; check its route configuration."),
        (413, _) => Reply::new(413, "body_too_large", "The body is larger than Envoy's buffer limit."),
        // Its rate limit filter, which says when the next request fits.
        (429, _) => Reply {
            retry_after: number("x-ratelimit-reset").map(Span::secs),
            ..Reply::new(429, "client_rate_limited", "This AUTH_KEY has used up its requests for now.")
        },
        (504, Some(ticket)) => {
            let message = format!("{} gave no answer in time.", ticket.slug());
            Reply::new(504, "provider_timeout", message)
        }
        // No other 500 is Envoy's after an attempt.
        (500, Some(ticket)) if ticket.unanswered => {
            let message = format!("{}'s answer is larger than what Envoy buffers of one.", ticket.slug());
            Reply::new(500, UNREADABLE, message)
        }
        (500.., Some(ticket)) => Reply { status, ..unreachable(ticket) },
        _ => Reply::new(status, "envoy_error", "Envoy could not serve this request; see its log."),
    }
}

/// The provider refuses the keys. Its own text may hold one.
#[must_use]
pub fn keys_refused(slug: &str, status: u16) -> Reply {
    let message = format!("{slug} refuses the pool's keys; check them, they are blocked or rest now.");
    Reply::new(status, "provider_keys_refused", message)
}

/// Something on the way refuses us. Not the client's credential: a 401 would send it looking for the fault at
/// the wrong place.
#[must_use]
pub fn gateway_refused(slug: &str, evidence: &impl core::fmt::Display) -> Reply {
    let message =
        format!("The way to {slug} is refused ({evidence}); check AI_GATEWAY_TOKEN and what the provider allows.");
    Reply::new(502, "gateway_refused", message)
}

/// The provider's error has the key in it.
#[must_use]
pub fn withheld(slug: &str, status: u16) -> Reply {
    Reply::new(status, "provider_error_withheld", format!("{slug} answered {status} with the pool's key in its text."))
}

/// Envoy let an error through that was to be retried.
#[must_use]
pub fn not_retried(slug: &str, status: u16) -> Reply {
    let message = format!(
        "{slug} answered {status}, and Envoy did not ask with the next key; see its retry policy and circuit breakers."
    );
    Reply::new(status, "not_retried", message)
}
