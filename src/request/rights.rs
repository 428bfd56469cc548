//! Who may send a request, and for what: the AUTH_KEY, then its rights for the provider and the model.

use super::edits;
use crate::auth::{Definition, Denied};
use crate::config::Config;
use crate::http::headers::Headers;
use crate::http::url;
use crate::reply::{Code, Reply};
use crate::time::Time;

/// Finds the AUTH_KEY definition of a request, in its headers or its query, with its index. `clock` is
/// read only if the AUTH_KEY expires.
///
/// # Errors
/// Returns the reply to a client that is not let in.
pub fn check_credential<'a>(
    config: &'a Config,
    headers: &Headers,
    query: &str,
    clock: impl Fn() -> Time,
) -> Result<(usize, &'a Definition), Reply> {
    let in_query = url::query_value(query, "key");
    let candidates = edits::credentials(headers).chain(in_query.as_deref().map(str::as_bytes));
    config.auth.check(candidates, clock).map_err(|denied| match denied {
        Denied::Missing => Reply::new(
            Code::MissingAuthKey,
            "No AUTH_KEY was sent. Send it as `Authorization: Bearer …`, x-api-key, x-goog-api-key, api-key, xi-api-key or ?key=.",
        ),
        Denied::Wrong => Reply::new(Code::InvalidAuthKey, "This AUTH_KEY is not known here."),
        Denied::Expired => Reply::new(Code::ExpiredAuthKey, "This AUTH_KEY has expired; ask for a new one."),
    })
}

/// Checks that a client may use a provider.
///
/// # Errors
/// Returns the reply to one that may not.
pub fn check_provider(definition: &Definition, slug: &str) -> Result<(), Reply> {
    if definition.allows_provider(slug) {
        return Ok(());
    }
    Err(Reply::new(Code::ProviderNotAllowed, format!("This AUTH_KEY may not use the provider {slug}.")))
}

/// Checks that a client may use a model of a provider.
///
/// # Errors
/// Returns the reply to one that may not.
pub fn check_model(definition: &Definition, slug: &str, model: &str) -> Result<(), Reply> {
    if definition.allows(slug, Some(model)) {
        return Ok(());
    }
    Err(Reply::new(Code::ModelNotAllowed, format!("This AUTH_KEY may not use this model of {slug}.")))
}
