//! The console: what the pool does, for people and their tools, and edits of its keys.
//!
//! ```text
//! GET  /one-balance/, page.js, page.css   the page: holds no data, so that one can sign in
//! GET  /one-balance/status                the pool as JSON
//! POST /one-balance/keys/{verb}           edits of the keys in D1: add, delete, …
//! ```
//!
//! Everything but the three files of the page takes an AUTH_KEY without rights, in a header: not in
//! the query, which stands in histories and logs, and not in a cookie, so that no other site's page
//! can send it. A key is shown by its mask only.

pub mod edit;
pub mod page;
pub mod status;

use serde::Serialize;

use crate::auth::Definition;
use crate::config::Config;
use crate::http::headers::Headers;
use crate::reply::{Code, Rendered, Reply, check_method};

/// What a path of the console is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsolePath {
    /// The page's address without its slash.
    Bare,
    /// A file of the page.
    File(page::File),
    /// The pool.
    Status,
    /// An edit.
    Edit(edit::Verb),
}

/// A request to the console that has been let in.
#[derive(Debug)]
pub enum ConsoleRequest {
    /// To see the pool.
    Status(status::Query),
    /// To edit it, as its body will say.
    Edit(edit::Verb),
}

impl ConsolePath {
    /// The place of a path.
    pub fn find(path: &str) -> Option<ConsolePath> {
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

    /// The answer of a place that is open to anybody.
    ///
    /// # Errors
    /// A method that it does not take.
    pub fn open(self, method: &str) -> Option<Result<Rendered, Reply>> {
        let answer = match self {
            ConsolePath::Bare => page::moved(),
            ConsolePath::File(file) => file.answer(),
            ConsolePath::Status | ConsolePath::Edit(_) => return None,
        };
        Some(check_method(method, "GET, HEAD").map(|()| answer))
    }

    /// Lets a request with an AUTH_KEY in.
    ///
    /// # Errors
    /// The answer to one that is not let in.
    pub fn enter(
        self,
        config: &Config,
        definition: &Definition,
        method: &str,
        headers: &Headers,
        query: &str,
    ) -> Result<ConsoleRequest, Reply> {
        if !definition.unrestricted() {
            let message = "This AUTH_KEY is for some providers only; the console takes one without rights of its own.";
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

/// An answer with data, which nobody keeps.
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
    fn places() {
        for (path, place) in [
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
            assert_eq!(ConsolePath::find(path), place, "{path}");
        }
    }
}
