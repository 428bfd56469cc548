//! Refusals that more than one room sends: requests that cannot be read or found, and a filter that is
//! not ready.

use super::{Code, Reply};
use crate::json::Unreadable;
use crate::time::Span;

/// The answer while D1's keys are not known yet.
pub fn not_loaded() -> Reply {
    let message = "The pool's keys have not been loaded from D1 yet; see Envoy's log if this lasts.";
    Reply::new(Code::PoolNotLoaded, message).retry_after(Span::secs(5))
}

/// The answer while there is no valid configuration.
pub fn not_configured() -> Reply {
    Reply::new(Code::NotConfigured, "The filter has no valid configuration; see Envoy's log.")
}

/// The answer to a body that cannot be read.
pub fn unreadable(problem: Unreadable) -> Reply {
    match problem {
        Unreadable::Broken(line, column) => {
            let message =
                format!("The body is not one JSON object: the first fault is in line {line}, column {column}.");
            Reply::new(Code::InvalidJson, message)
        }
        Unreadable::Duplicate(name) => {
            Reply::new(Code::DuplicateField, format!("The request names `{name}` more than once."))
        }
        Unreadable::OtherCase(name) => {
            let message = format!(
                "The body has a field whose name differs from `{name}` in upper and lower case only, so that some servers take it for `{name}`; leave it out."
            );
            Reply::new(Code::DuplicateField, message)
        }
    }
}

/// The answer to a body over the limit, in bytes.
pub fn too_large(limit: usize) -> Reply {
    let message = format!("The body is larger than the {limit} bytes that are accepted here.");
    Reply::new(Code::BodyTooLarge, message)
}

/// The answer at a path where nothing is.
pub fn unknown_path() -> Reply {
    let message = "Nothing is here. Use /v1/chat/completions, /v1/embeddings, /api/compat/… or /api/{provider}/….";
    Reply::new(Code::UnknownPath, message)
}

/// The answer to a provider that is not configured. Its name comes from the client, so it is shown in part.
pub fn unknown_provider(name: &str) -> Reply {
    let shown: String = name.chars().filter(|char| char.is_ascii_graphic()).take(40).collect();
    let message = format!("`{shown}` is no provider that is known here; see PROVIDER_BASE_URLS to add one.");
    Reply::new(Code::UnknownProvider, message)
}

/// The answer at a path where a provider hands out or makes credentials.
pub fn credential_endpoint(slug: &str) -> Reply {
    let message = format!(
        "{slug} hands out or makes credentials of the pool's account at this path. Whoever has one can use the \
         account without this gateway, so no request is sent there."
    );
    Reply::new(Code::CredentialEndpoint, message)
}
