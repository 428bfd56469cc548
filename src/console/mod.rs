//! The console: the state of the pool for people and their tools, and edits of its keys.
//!
//! ```text
//! GET  /one-balance/, page.js, page.css   the page; it holds no data, so anybody may load it to sign in
//! GET  /one-balance/status                the pool as JSON
//! POST /one-balance/keys/{verb}           edits of the keys in D1: add, delete, …
//! ```
//!
//! Everything except the three files of the page requires an unrestricted AUTH_KEY in a header. The query is not
//! accepted, because it ends up in histories and logs; a cookie is not accepted, so that a page of another site
//! cannot send it. A provider's key is shown only as its mask.

pub mod edit;
pub mod page;
pub mod status;

use serde::Serialize;

use crate::auth::Definition;
use crate::config::Config;
use crate::http::headers::Headers;
use crate::reply::{Code, Rendered, Reply, check_method};

/// A path of the console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsolePath {
    /// The address of the page without the final slash.
    Bare,
    /// A file of the page.
    File(page::File),
    /// The state of the pool.
    Status,
    /// An edit of the keys.
    Edit(edit::Verb),
}

/// An authorized request to the console.
#[derive(Debug)]
pub enum ConsoleRequest {
    /// Read the state of the pool.
    Status(status::Query),
    /// Edit the keys as the body says.
    Edit(edit::Verb),
}

impl ConsolePath {
    /// Recognises a path of the console.
    pub(crate) fn find(path: &str) -> Option<ConsolePath> {
        let rest = path.strip_prefix("/one-balance")?;
        match rest {
            "" => Some(ConsolePath::Bare),
            "/status" => Some(ConsolePath::Status),
            _ => match rest.strip_prefix("/keys/") {
                Some(verb) => edit::Verb::find(verb).map(ConsolePath::Edit),
                None => rest.strip_prefix('/').and_then(page::File::find).map(ConsolePath::File),
            },
        }
    }

    /// The answer of a path that needs no AUTH_KEY; `None` if the path needs one.
    ///
    /// # Errors
    /// The inner result is the reply to a method that is not allowed.
    pub(crate) fn open(self, method: &str) -> Option<Result<Rendered, Reply>> {
        let answer = match self {
            ConsolePath::Bare => page::moved(),
            ConsolePath::File(file) => file.answer(),
            ConsolePath::Status | ConsolePath::Edit(_) => return None,
        };
        Some(check_method(method, "GET, HEAD").map(|()| answer))
    }

    /// Authorizes a request with an AUTH_KEY.
    ///
    /// # Errors
    /// The reply to a request that is refused.
    pub(crate) fn enter(
        self,
        config: &Config,
        definition: &Definition,
        method: &str,
        headers: &Headers,
        query: &str,
    ) -> Result<ConsoleRequest, Reply> {
        if !definition.unrestricted() {
            let message = "This AUTH_KEY is for some providers only; the console requires an unrestricted one.";
            return Err(Reply::new(Code::RestrictedAuthKey, message));
        }
        match self {
            ConsolePath::Edit(verb) => {
                check_method(method, "POST")?;
                edit::check(config, headers)?;
                Ok(ConsoleRequest::Edit(verb))
            }
            ConsolePath::Status => {
                check_method(method, "GET, HEAD")?;
                Ok(ConsoleRequest::Status(status::Query::read(query)?))
            }
            ConsolePath::Bare | ConsolePath::File(_) => Err(crate::reply::refusals::unknown_path()),
        }
    }
}

/// An answer with data, which must not be cached.
fn json(value: &impl Serialize) -> Rendered {
    // Writing to memory cannot fail.
    let mut answer = Rendered::new(200, "application/json", serde_json::to_vec(value).unwrap_or_default());
    answer.headers.extend(page::guards());
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_console() {
        for (path, expected) in [
            ("/one-balance", Some(ConsolePath::Bare)),
            ("/one-balance/", Some(ConsolePath::File(page::File::Html))),
            ("/one-balance/page.js", Some(ConsolePath::File(page::File::Js))),
            ("/one-balance/page.css", Some(ConsolePath::File(page::File::Css))),
            ("/one-balance/status", Some(ConsolePath::Status)),
            ("/one-balance/keys/add", Some(ConsolePath::Edit(edit::Verb::Add))),
            ("/one-balance/keys/", None),
            ("/one-balance/keys", None),
            ("/one-balance/status/", None),
            ("/one-balancer", None),
            ("/one-balancestatus", None),
        ] {
            assert_eq!(ConsolePath::find(path), expected, "{path}");
        }
    }
}
